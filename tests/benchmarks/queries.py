"""What the reading commands cost on ledgers of very different sizes that give the same answer."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from auditor.ledger.queries import Reader
from tests.benchmarks.processes import PYTHON, REPOSITORY, run

COMMANDS = ("lost", "order", "status")

_LOST = 100  # hops that `lost` has to tell of, whatever the size
_TIMES = 5
_BUILDING = 3600.0  # seconds
_LIMIT = 60.0  # seconds for one command


class Answer(NamedTuple):
    """How long a command takes; medians, in milliseconds."""

    query: float  # opening the ledger and reading the answer
    command: float  # the whole of it, from starting Python to printing


def measure(sizes: Sequence[int], say: Callable[[str], None]) -> dict[str, dict[int, Answer]]:
    """Return the times of each command on ledgers of so many messages."""
    results: dict[str, dict[int, Answer]] = {command: {} for command in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="auditor-bench-", dir=REPOSITORY / "build") as folder:
        for size in sizes:
            ledger = Path(folder) / "ledger.db"
            run([*PYTHON, "tests.ledger.synthetic", str(ledger), str(size)], _BUILDING)
            order = _some_order(ledger)
            for command in COMMANDS:
                results[command][size] = answer = _answer(ledger, command, order)
                say(f"{size:,} messages: {command}: {answer.query:.1f} ms of {answer.command:.0f} ms")
            for file in Path(folder).iterdir():
                file.unlink()
    return results


def _answer(ledger: Path, command: str, order: str) -> Answer:
    argument = [order] if command == "order" else []

    def query() -> None:
        with Reader.open(ledger) as reader:
            rows: list[dict[str, Any]] = getattr(reader, command)(*argument)
            assert rows, f"{command} found nothing"

    whole = [*PYTHON, "auditor.cli", command, *argument, "--ledger", str(ledger)]
    return Answer(_milliseconds(query), _milliseconds(lambda: run(whole, _LIMIT)))


def _milliseconds(call: Callable[[], object]) -> float:
    """Return the median time of a call."""
    call()  # what the system keeps of the file in memory from here on is there for every size
    times = []
    for _ in range(_TIMES):
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    return median(times) * 1000


def _some_order(ledger: Path) -> str:
    """Return an order from the middle of a ledger."""
    conn = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        sql = "SELECT order_id FROM messages WHERE id = (SELECT max(id) / 2 FROM messages)"
        return str(conn.execute(sql).fetchone()[0])
    finally:
        conn.close()
