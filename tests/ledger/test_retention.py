"""What goes by age, what stays, and that what goes leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor.core.changes import Changes
from auditor.core.hops import Reason, State
from auditor.errors import LedgerError
from auditor.ledger.interning import DAY
from auditor.ledger.layout import BLOCK
from auditor.ledger.queries import Reader
from auditor.ledger.retention import prune
from auditor.ledger.writer import GapRow, Ledger, Undecodable
from tests.ledger.rows import delivered, delivery, hop, message, orphan
from tests.ledger.synthetic import START, status, write

OLD = START - 100 * DAY
NEVER = 0


def prune_all(ledger: Ledger, healthy_before: int, verdicts_before: int, chunk: int = 2000) -> list[int]:
    removed = []
    while count := prune(ledger, healthy_before=healthy_before, verdicts_before=verdicts_before, chunk=chunk):
        removed.append(count)
        assert len(removed) < 10_000
    return removed


def ids(ledger: Ledger, table: str, column: str = "id") -> list[int]:
    return [id for (id,) in ledger.db.conn.execute(f"SELECT {column} FROM {table} ORDER BY 1")]


def every_state(ledger: Ledger) -> None:
    """Old messages 1..8 in every state; 9 with a healthy hop and an open one; 10 without hops; 11 and 12 new."""
    hops = [hop(number, state=state, reason=Reason.BLIND if state is State.UNKNOWN else None)
            for number, state in enumerate(State, start=1)]  # fmt: skip
    hops += [delivered(9), hop(9, 1, queue="q2"), delivered(11), delivered(12)]
    messages = [message(number, published_at=OLD + number) for number in range(1, 11)]
    messages += [message(11, published_at=START), message(12, published_at=START)]
    again = [delivery(2, attempt=2), delivery(2, attempt=3)]
    ledger.commit(Changes(messages=messages, hops=hops, deliveries=again), status=status(updated_at=START))


def test_it_is_given_up_when_that_is_wanted(path: Path) -> None:
    write(path, 5000)
    ledger = Ledger.open(path)
    with pytest.raises(LedgerError, match="interrupted"):
        while prune(ledger, healthy_before=2 * START, verdicts_before=2 * START, give_up=lambda: True):
            pass
    left = len(ids(ledger, "messages"))
    prune_all(ledger, 2 * START, 2 * START)
    assert len(ids(ledger, "messages")) < left
    ledger.close()


def test_healthy_messages_go_and_verdicts_and_open_hops_stay(ledger: Ledger) -> None:
    every_state(ledger)
    state_of = dict(enumerate(State, start=1))
    healthy = {number for number, state in state_of.items() if state in (State.DELIVERED, State.LATE)} | {10}
    removed = prune_all(ledger, START, NEVER)
    assert removed[0] == 3
    assert set(ids(ledger, "messages")) == set(range(1, 13)) - healthy
    assert set(ids(ledger, "hops", "message")) == set(range(1, 13)) - healthy
    assert ids(ledger, "further_deliveries", "message") == []


def test_verdicts_go_later_and_open_hops_never(ledger: Ledger) -> None:
    every_state(ledger)
    prune_all(ledger, START, START)
    open_hops = [n for n, state in enumerate(State, start=1) if state in (State.IN_FLIGHT, State.STUCK)]
    assert ids(ledger, "messages") == [*open_hops, 9, 11, 12]
    assert [row.message for row in ledger.open_hops("/", 100)] == [*open_hops, 9]


def test_verdicts_never_go_before_healthy_ones(ledger: Ledger) -> None:
    every_state(ledger)
    assert prune_all(ledger, OLD, START) == []


def test_a_second_round_starts_from_the_beginning(ledger: Ledger) -> None:
    every_state(ledger)
    prune_all(ledger, START, NEVER)
    late = hop(next(n for n, s in enumerate(State, start=1) if s is State.LOST), state=State.LATE, wait=1, attempts=1)
    ledger.commit(Changes(hops=[late]), status=status(updated_at=START))
    assert prune_all(ledger, START, NEVER)[0] == 1


def test_chunks_are_small_and_numbers_are_not_given_again(path: Path) -> None:
    ledger = Ledger.open(path)
    messages = [message(n, published_at=OLD) for n in range(1, 5001)]
    ledger.commit(Changes(messages=messages, hops=[delivered(m.id) for m in messages]), status=status(updated_at=OLD))
    removed = prune_all(ledger, START, NEVER, chunk=400)
    assert max(removed) <= 400
    assert ids(ledger, "messages") == [5000]  # the newest stays
    assert ledger.next_message_id == 5001
    ledger.close()
    ledger = Ledger.open(path)
    assert ledger.next_message_id == 5001
    ledger.close()


def test_keys_of_whole_blocks_go_and_the_file_shrinks(path: Path, merged: int) -> None:
    ledger = Ledger.open(path)
    count = BLOCK * (merged + 1) + 10
    kept = BLOCK + 3
    for start in range(1, count + 1, 4096):
        numbers = range(start, min(start + 4096, count + 1))
        hops = [hop(n, state=State.LOST, reason=Reason.OVERTAKEN) if n == kept else delivered(n) for n in numbers]
        batch = Changes(messages=[message(n, published_at=OLD + n) for n in numbers], hops=hops)
        ledger.commit(batch, status=status(updated_at=OLD))
    with Reader.open(path) as reader:
        before = reader.size()
    prune_all(ledger, START, NEVER)
    assert set(ids(ledger, "messages")) == {kept, count}
    assert set(ids(ledger, "keys", "message")) == {kept}
    assert set(ids(ledger, "identities", "message")) == {kept}
    assert ids(ledger, "blocks", "block") == [1, merged]
    assert [row.message for row in ledger.recall("/", 1000 + kept, "mes.orders")] == [kept]
    assert ledger.recall("/", 1000 + 5, "mes.orders") == []
    with Reader.open(path) as reader:
        assert [row["message"] for row in reader.lost()] == [kept]
        assert [row["message"] for row in reader.message(f"message-{kept}")] == [kept]
    ledger.close()
    assert path.stat().st_size < before / 4
    ledger = Ledger.open(path)
    assert ledger.next_message_id == count + 1
    ledger.close()


def test_names_go_when_nothing_uses_them(ledger: Ledger) -> None:
    gone = message(1, published_at=OLD, exchange="gone", stage="GONE", connection="gone")
    lost = message(2, published_at=OLD, exchange="kept for a verdict", stage=None, connection="kept")
    hops = [
        delivered(1, queue="gone queue"),
        hop(2, queue="kept queue", state=State.LOST, reason=Reason.OVERTAKEN),
    ]
    orphans = [orphan(1, queue="orphan's", received_at=START)]
    old = Changes(
        messages=[gone, lost], hops=hops, deliveries=[delivery(1, connection="gone consumer")], orphans=orphans
    )
    ledger.commit(old, status=status(updated_at=OLD))
    ledger.commit(
        Changes(messages=[message(3, published_at=START)], hops=[delivered(3)]), status=status(updated_at=START)
    )
    prune_all(ledger, START - DAY, NEVER, chunk=2)
    names = {name for (name,) in ledger.db.conn.execute("SELECT name FROM names")}
    assert {"kept for a verdict", "kept queue", "orphan's", "crm.orders", "lost", ""} <= names
    assert not names & {"gone", "GONE", "gone queue"}
    clients = {name for (name,) in ledger.db.conn.execute("SELECT connection FROM clients")}
    assert "kept" in clients
    assert not clients & {"gone", "gone consumer"}
    # a name that was removed can come again
    again = message(4, published_at=START, exchange="gone")
    ledger.commit(Changes(messages=[again], hops=[delivered(4)]), status=status(updated_at=START))
    with Reader.open(ledger.path) as reader:
        assert [row["exchange"] for row in reader.hops()] == ["gone", "crm.orders", "kept for a verdict"]


def test_orphans_undecodable_events_and_closed_gaps_go(ledger: Ledger) -> None:
    ledger.commit(
        Changes(orphans=[orphan(1, received_at=OLD), orphan(2, received_at=START)]),
        status=status(updated_at=START),
        undecodable=[Undecodable("/", "k", "c", b"", 0, b"", OLD), Undecodable("/", "k", "c", b"", 0, b"", START)],
        gaps=[
            GapRow(1, "/", "blind", None, OLD), GapRow(2, "/", "blind", OLD, OLD), GapRow(3, "/", "blind", OLD, None),
            GapRow(4, "/", "blind", OLD, START),
        ],
    )  # fmt: skip
    prune_all(ledger, START, START)
    assert ids(ledger, "orphans") == [2]
    assert ids(ledger, "undecodable", "received_at") == [START]
    assert ids(ledger, "gaps") == [1, 3, 4]
