"""Counts what the suite finds, leaves it in build/faults.json, and says how long the suite is to be."""

from __future__ import annotations

import json
import subprocess
from collections import defaultdict
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from auditor.demo.broker import PrivateBroker
from auditor.demo.server import Broker
from tests.acceptance.conftest import auditor, shared_auditor
from tests.acceptance.harness import Auditor
from tests.conftest import BROKER
from tests.faults import verdicts
from tests.faults.catalogue import FAULTS
from tests.faults.tally import RESULTS, Count, merge, put, read, table
from tests.support.disk import MIB, Disk
from tests.support.missing import missing
from tests.support.vhost import Vhost
from tests.support.wire import Wire

__all__ = ["auditor", "shared_auditor"]

FLOOR = 16 * MIB  # of the small disk that is not to be used

SHOWN = 10  # lines of what is wrong about a fault
TALLY = pytest.StashKey[defaultdict[str, Count]]()
FAILED = pytest.StashKey[set[str]]()  # faults of which a test failed


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash[TALLY] = defaultdict(Count)
    config.stash[FAILED] = set()


def fault_of(item: pytest.Item) -> str | None:
    """The fault of the catalogue that a test is one of."""
    mark = item.get_closest_marker("fault")
    return None if mark is None else str(mark.args[0])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note which faults have tests that fail."""
    report = yield
    if report.failed and (name := fault_of(item)):
        item.config.stash[FAILED].add(name)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Leave the counts, and print their sums."""
    counts = config.stash[TALLY]
    broker = config.stash.get(BROKER, None)
    if not counts or not isinstance(broker, Broker):
        return
    # a test that broke off has not counted what it was about: no row is better than one that looks clean
    broken = {name for name in config.stash[FAILED] if not counts[name].missed and not counts[name].false}
    kept = [row for row in read() if (row["fault"], row["broker"]) not in {(name, broker.version) for name in broken}]
    rows = merge(kept, {name: count for name, count in counts.items() if name not in broken}, broker.version)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    say = terminalreporter.write_line
    say("")
    for name, count in counts.items():
        for line in count.wrong[:SHOWN]:
            say(f"{name}: {line}", red=True)
    total = [sum(getattr(count, what) for count in counts.values()) for what in ("planted", "found", "missed", "false")]
    say("{} faults: {:,} planted, {:,} found, {:,} missed, {:,} false".format(len(counts), *total))
    if config.getoption("write_table"):
        if missing := FAULTS.keys() - {row["fault"] for row in rows if row["broker"] == broker.version}:
            say(f"The table was not written: no counts of {', '.join(sorted(missing))}", red=True)
        else:
            put("faults", table(rows))
            put("verdicts", verdicts.table(read(verdicts.RESULTS)))


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    """Whether the suite is to run at length."""
    return bool(pytestconfig.getoption("long"))


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> defaultdict[str, Count]:
    """The counts of all faults."""
    return pytestconfig.stash[TALLY]


@pytest.fixture
def count(tally: defaultdict[str, Count], request: pytest.FixtureRequest) -> Count:
    """The counts of the fault that the test is one of."""
    name = fault_of(request.node)
    assert name is not None, "the test belongs to no fault"
    return tally[name]


@pytest.fixture
def node(node_wrapper: list[str]) -> Iterator[PrivateBroker]:
    """A node that the test may break."""
    with PrivateBroker(node_wrapper) as node:
        yield node


@pytest.fixture
async def wire(vhost: Vhost) -> AsyncIterator[Wire]:
    """A line to the broker that the test may break."""
    async with Wire(vhost.broker.host, vhost.broker.port) as wire:
        yield wire


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk that the test may fill."""
    with ExitStack() as stack:
        disk = Disk(tmp_path / "disk")
        try:
            stack.enter_context(disk)
        except (OSError, subprocess.CalledProcessError) as error:
            missing(
                f"No small file system can be mounted here ({error})", "It takes root, in a container CAP_SYS_ADMIN."
            )
        yield disk


@pytest.fixture
def cramped(disk: Disk, auditor: Auditor) -> Auditor:
    """An auditor whose ledger is on the small disk, and for which counts matter, no deadlines."""
    auditor.ledger = disk.path / "ledger.db"
    auditor.settings["ledger"] = {"path": str(auditor.ledger), "min_free": FLOOR}
    auditor.settings["flows"][0]["deadline"] = 600
    return auditor
