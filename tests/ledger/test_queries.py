"""What operators ask, that the answers do not cost more with the ledger's size, and who may read when."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from auditor.core.changes import Changes
from auditor.core.hops import Reason, State
from auditor.core.stages import Orders, Recall, Stage, StageTable
from auditor.errors import LedgerError
from auditor.ledger.queries import Reader
from auditor.ledger.writer import Ledger
from tests.ledger.nobody import as_nobody
from tests.ledger.rows import delivered, delivery, hop, message
from tests.ledger.synthetic import START, STEP, status, traffic, write

LOST_COLUMNS = [
    "order_id", "message_id", "flow", "queue", "state", "reason", "published", "age_seconds", "exchange", "routing_key",
    "stage", "sender", "user_id", "error", "deadline_seconds", "wait_seconds", "attempts", "judged", "vhost",
    "published_at", "judged_at", "hop", "state_id", "message",
]  # fmt: skip


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40,000 messages, 100 of them lost: two blocks and some more."""
    path = tmp_path_factory.mktemp("big") / "ledger.db"
    write(path, 40_000, lost=100)
    return path


@pytest.fixture
def small(ledger: Ledger) -> Ledger:
    """One hop in every state, one minute between two publishes, two orders and two queues."""
    states = [
        (State.DELIVERED, None), (State.LOST, Reason.QUEUE_EMPTY), (State.STUCK, Reason.WAITING),
        (State.UNKNOWN, Reason.BLIND), (State.DEAD_LETTERED, Reason.EXPIRED), (State.UNROUTABLE, Reason.NO_QUEUE),
        (State.LATE, None), (State.IN_FLIGHT, None),
    ]  # fmt: skip
    changes = Changes()
    for number, (state, reason) in enumerate(states, start=1):
        at = START + number * 60_000_000
        order, stage = f"ORD-{number % 2}", "AB"[number // 5]
        changes.messages.append(message(number, published_at=at, order_id=order, stage=stage))
        queue = "" if state is State.UNROUTABLE else f"queue-{number % 2}"
        taken = state in (State.DELIVERED, State.LATE)
        judged_at = None if state is State.IN_FLIGHT else at + 1
        row = hop(
            number,
            queue=queue,
            state=state,
            reason=reason,
            judged_at=judged_at,
            wait=7000 if taken else None,
            attempts=int(taken),
        )
        changes.hops.append(row)
        if taken:
            changes.deliveries.append(delivery(number, wait=7000))
    stages = StageTable([Stage("A", "crm", None), Stage("B", "crm", 3_600_000_000), Stage("C", "crm", None)])
    changes.entries += Orders(stages, Recall(lambda order: None, lambda entry: [])).see(changes.messages)
    ledger.commit(changes, status=status())
    return ledger


def test_lost_lists_what_is_against_the_flow_newest_first(small: Ledger) -> None:
    with Reader.open(small.path) as reader:
        found = reader.lost()
        assert [row["state"] for row in found] == ["unroutable", "dead_lettered", "stuck", "lost"]
        assert list(found[0]) == LOST_COLUMNS
        assert [found[0][key] for key in ("queue", "reason", "message_id")] == ["", "no_queue", "message-6"]
        assert found[0]["age_seconds"] == pytest.approx(time.time() - found[0]["published_at"] / 1e6, abs=5)
        assert reader.count_lost() == 4


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"since": START + 3 * 60_000_000}, [6, 5, 3]),
        ({"queue": "queue-1"}, [5, 3]),
        ({"queue": ""}, [6]),
        ({"order": "ORD-1"}, [5, 3]),
        ({"order": "message-2"}, []),
        ({"state": "lost"}, [2]),
        ({"state": "delivered"}, []),
        ({"reason": "expired"}, [5]),
        ({"flow": "crm->mes", "state": "stuck"}, [3]),
        ({"flow": "other"}, []),
    ],
)
def test_lost_can_be_narrowed(small: Ledger, filters: dict[str, str], expected: list[int]) -> None:
    with Reader.open(small.path) as reader:
        assert [row["message"] for row in reader.lost(**filters)] == expected  # type: ignore[arg-type]
        assert reader.count_lost(**filters) == len(expected)  # type: ignore[arg-type]
        assert len(reader.lost(limit=1, **filters)) == min(1, len(expected))  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [*State, "nonsense"])
def test_hops_of_each_state(small: Ledger, state: str) -> None:
    with Reader.open(small.path) as reader:
        found = reader.hops(state=str(state))
        assert [row["state"] for row in found] == ([] if state == "nonsense" else [str(state)])
        assert [row["message"] for row in reader.hops(order="ORD-0", limit=2)] == [8, 6]


def test_an_order_tells_its_story_in_time(small: Ledger) -> None:
    with Reader.open(small.path) as reader:
        lines = [(row["message"], row["event"], row["state"]) for row in reader.order("ORD-1")]
        assert lines == [
            (1, "published", None), (1, "delivered", None),
            (3, "published", None), (3, "verdict", "stuck"),
            (5, "published", None), (5, "verdict", "dead_lettered"),
            (7, "published", None), (7, "delivered", None),
        ]  # fmt: skip
        (summary,) = reader.order_summary("ORD-1")
        assert (summary["stage"], summary["worst_state"], summary["messages"], summary["hops"]) == (
            "B",
            "dead_lettered",
            4,
            4,
        )
        assert (summary["stuck"], summary["lost"], summary["delivered"]) == (1, 0, 1)
        assert [row["message"] for row in reader.order_hops("ORD-1")] == [1, 3, 5, 7]
        assert reader.order("ORD-2") == []


def test_every_time_is_given_as_text_too(small: Ledger) -> None:
    """And it is the same time, that of sums such as publish and wait included."""
    with Reader.open(small.path) as reader:
        timeline = [row for order in ("ORD-0", "ORD-1") for row in reader.order(order)]
        deliveries = [row for n in range(1, 9) for hop in reader.message(f"message-{n}") for row in hop["deliveries"]]
    assert {row["event"] for row in timeline} == {"published", "delivered", "verdict"}
    assert deliveries
    for text, at in [(r["time"], r["at"]) for r in timeline] + [(r["received"], r["received_at"]) for r in deliveries]:
        assert datetime.fromisoformat(text) == datetime.fromtimestamp(at // 1_000_000, UTC).replace(
            microsecond=at % 1_000_000
        )


def test_stages_are_entered_when_they_change(small: Ledger) -> None:
    conn = sqlite3.connect(small.path)
    found = conn.execute(
        "SELECT stage, system, seconds, current, message FROM stages WHERE order_id = 'ORD-1'"
    ).fetchall()
    assert found[0] == ("A", "crm", 240.0, 0, 1)
    assert (found[1][0], found[1][3], found[1][4]) == ("B", 1, 5)
    times = conn.execute("SELECT stage, entries, orders_in_it, mean_seconds FROM stage_times ORDER BY stage").fetchall()
    conn.close()
    assert times == [("A", 2, 0, 240.0), ("B", 2, 2, None)]


def test_a_message_without_hops_is_found(ledger: Ledger) -> None:
    """Of a message to a delayed exchange no delivery is expected."""
    ledger.commit(Changes(messages=[message(1)]), status=status())
    with Reader.open(ledger.path) as reader:
        (row,) = reader.message("message-1")
        assert (row["message"], row["hop"], row["state"], row["deliveries"]) == (1, None, None, [])
        assert reader.order_summary("ORD-1")[0]["hops"] == 0


def test_flow_health_counts_by_state(small: Ledger) -> None:
    with Reader.open(small.path) as reader:
        (row,) = reader.flow_health()
    assert row["flow"] == "crm->mes"
    assert {row[str(state)] for state in State} == {1}
    assert row["max_wait_seconds"] == 0.007


def test_since_survives_a_clock_that_was_set_back(ledger: Ledger) -> None:
    hour = 3600 * 1_000_000
    times = [START + n * hour for n in (0, 30, 60, 90, 80, 100)]
    lost: dict[str, Any] = {"state": State.LOST, "reason": Reason.QUEUE_EMPTY}
    messages = [message(n, published_at=at) for n, at in enumerate(times, start=1)]
    ledger.commit(Changes(messages=messages, hops=[hop(n, **lost) for n in range(1, 7)]), status=status())
    with Reader.open(ledger.path) as reader:
        assert [row["message"] for row in reader.lost(since=START + 85 * hour)] == [6, 4]
        assert reader.count_lost(since=START + 200 * hour) == 0


def test_the_lost_of_a_big_ledger(big: Path) -> None:
    with Reader.open(big) as reader:
        found = reader.lost(limit=None)
        assert len(found) == reader.count_lost() == 100
        assert [row["message"] for row in found] == sorted((row["message"] for row in found), reverse=True)
        since = START + 30_000 * STEP
        assert len(reader.lost(since=since)) == sum(row["published_at"] >= since for row in found) > 0
        assert reader.size() == big.stat().st_size


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM lost LIMIT 100",
        "SELECT * FROM lost WHERE message >= 5 AND published_at >= 5 AND flow = 'x' AND state = 'lost' LIMIT 100",
        "SELECT count(*) FROM lost",
        "SELECT * FROM lost WHERE message IN (SELECT message FROM order_messages WHERE order_id = 'x') LIMIT 100",
        "SELECT * FROM unknown LIMIT 100",
        "SELECT * FROM order_timeline WHERE order_id = 'x' ORDER BY at",
        "SELECT * FROM orders WHERE order_id = 'x'",
        "SELECT * FROM stages WHERE order_id = 'x'",
        "SELECT * FROM audit WHERE message IN (SELECT message FROM order_messages WHERE order_id = 'x')",
        "SELECT * FROM audit WHERE message IN (SELECT message FROM found WHERE key = 'x') AND message_id = 'x'",
        "SELECT * FROM audit WHERE state_id IN (2, 5) AND state_id = 2 ORDER BY message DESC, hop DESC LIMIT 100",
        "SELECT * FROM deliveries WHERE message = 5 AND hop = 0 ORDER BY attempt",
    ],
)
def test_a_question_with_a_short_answer_reads_no_table_through(big: Path, sql: str) -> None:
    conn = sqlite3.connect(big)
    plan = [detail for _, _, _, detail in conn.execute(f"EXPLAIN QUERY PLAN {sql}")]
    conn.close()
    big_ones = {"m", "messages", "h", "hops", "k", "keys", "names", "clients", "d", "further_deliveries"}
    scans = [line for line in plan if line.startswith("SCAN ") and line.split()[1] in big_ones]
    assert [line for line in scans if "INDEX hops_" not in line] == []  # those hold only the hops in some states
    # a look into `keys` names the key, or it would read the whole block
    assert [line for line in plan if line.startswith("SEARCH k ") and "key=?" not in line] == []


def test_a_question_costs_no_more_steps_on_a_bigger_ledger(big: Path, tmp_path: Path) -> None:
    little = tmp_path / "little.db"
    write(little, 1000, lost=100)

    def steps(path: Path, sql: str) -> int:
        conn = sqlite3.connect(path)
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        conn.set_progress_handler(step, 100)
        conn.execute(sql).fetchall()
        conn.close()
        return count

    for sql in ("SELECT * FROM lost LIMIT 100", "SELECT count(*) FROM lost"):
        assert steps(big, sql) <= steps(little, sql) * 1.2 + 2


def test_reading_beside_the_writer(ledger: Ledger) -> None:
    reader = Reader.open(ledger.path)
    for number, changes in enumerate(traffic(5000, lost=10, batch=500), start=1):
        ledger.commit(changes, status=status(published=number * 500))
        assert reader.status()[0]["published"] == number * 500
    assert reader.count_lost() == 10
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader._conn.execute("DELETE FROM hops")
    reader.close()


_WRITE_FOR_EVER = """
import sys
from pathlib import Path
from auditor.ledger.writer import Ledger
from tests.ledger.synthetic import status, traffic
ledger = Ledger.open(Path(sys.argv[1]))
for number, changes in enumerate(traffic(10_000_000, lost=100_000, batch=100), start=1):
    ledger.commit(changes, status=status(published=number * 100))
    if number == 20:
        print("going", flush=True)
"""


def kill_a_writer(path: Path) -> None:
    """Leave a ledger as a writer does that is killed in the middle."""
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITE_FOR_EVER, str(path)], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    with writer.stdout:
        assert writer.stdout.readline() == b"going\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait(10)


def test_reading_and_going_on_after_the_writer_was_killed(path: Path) -> None:
    kill_a_writer(path)
    with Reader.open(path) as reader:
        published = reader.status()[0]["published"]
        assert published >= 2000
        assert reader.count_lost() == published // 100
    ledger = Ledger.open(path)
    assert ledger.next_message_id == published + 1
    assert ledger.db.conn.execute("SELECT count(*) FROM hops").fetchone() == (published,)
    ledger.close()


def _count_as_nobody(path: Path) -> str:
    return as_nobody(lambda: Reader.open(path).count_lost())


def test_reading_in_a_folder_that_may_only_be_read(open_folder: Path) -> None:
    path = open_folder / "ledger.db"
    write(path, 1000, lost=10)
    for file in open_folder.iterdir():
        file.chmod(0o444)
    open_folder.chmod(0o555)
    assert _count_as_nobody(path) == "10"
    assert not list(open_folder.glob("*-shm"))


def test_a_folder_that_is_closed_is_a_letter(open_folder: Path) -> None:
    path = open_folder / "closed" / "ledger.db"
    path.parent.mkdir()
    write(path, 10, lost=1)
    path.parent.chmod(0)
    assert "closed to this user" in _count_as_nobody(path)
    path.parent.chmod(0o777)


def test_reading_in_a_read_only_folder_after_the_writer_was_killed(open_folder: Path) -> None:
    path = open_folder / "ledger.db"
    kill_a_writer(path)
    for file in open_folder.iterdir():
        file.chmod(0o444)
    open_folder.chmod(0o555)
    assert int(_count_as_nobody(path)) >= 20
    # a log without its index cannot be read there, and the file without its log would tell too little
    open_folder.chmod(0o777)
    path.with_name("ledger.db-shm").unlink()
    open_folder.chmod(0o555)
    assert "unable to open database file" in _count_as_nobody(path)


def test_a_ledger_damaged_under_the_reader_is_a_letter(path: Path) -> None:
    write(path, 3000)
    with path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(os.urandom(150 * 4096))
    with pytest.raises(LedgerError, match="could not be read"), Reader.open(path) as reader:
        reader.flow_health()
        reader.lost(limit=None)
        reader.message("x")


def test_hops_shows_delivered_ones_too(ledger: Ledger) -> None:
    ledger.commit(Changes(messages=[message(1)], hops=[delivered(1)], deliveries=[delivery(1)]), status=status())
    with Reader.open(ledger.path) as reader:
        assert [row["consumer_connection"] for row in reader.hops(flow="crm->mes")] == [
            "10.0.0.2:42000 -> 10.0.0.9:5672"
        ]
