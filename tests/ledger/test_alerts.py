"""What alerts are derived from, what is kept of them, and how an acknowledgement gets in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from auditor.core.alerts import Alert, Survey, labels
from auditor.core.changes import Changes, HopRow
from auditor.core.hops import Reason, State
from auditor.core.stages import Orders, Recall, Stage, StageTable
from auditor.errors import LedgerError
from auditor.ledger import alerts, inbox
from auditor.ledger.inbox import Acknowledgement
from auditor.ledger.queries import Reader
from auditor.ledger.writer import GapRow, Ledger
from tests.ledger.rows import hop, message
from tests.ledger.synthetic import START, status

SECOND = 1_000_000
DAY = 86_400 * SECOND
NOW = START + DAY


def lost(id: int, queue: str = "q", **others: Any) -> HopRow:
    verdict: dict[str, Any] = {"state": State.LOST, "reason": Reason.QUEUE_EMPTY, "judged_at": START + id * SECOND}
    return hop(id, queue=queue, **(verdict | others))


def commit(ledger: Ledger, *hops: HopRow) -> None:
    ledger.commit(
        Changes(messages=[message(row.message) for row in hops], hops=list(hops)), status=status(updated_at=NOW)
    )


def survey(ledger: Ledger, *, since: int = START - DAY, now: int = NOW, gaps_since: int = START) -> Survey:
    with Reader.open(ledger.path) as reader:
        return reader.survey(pid=1, now=now, since=since, gaps_since=gaps_since)


def ack(ledger: Ledger, **values: Any) -> None:
    given = Acknowledgement(NOW, "ada", "", "--all", [], [])._replace(**values)
    number = alerts.begin(ledger, given)
    first = 0
    while alerts.acknowledge(ledger, number, given, first):
        first += alerts.CHUNK


def test_hops_are_grouped_by_flow_queue_and_reason(ledger: Ledger) -> None:
    commit(
        ledger, lost(1), lost(2), lost(3, "other"), lost(4, reason=Reason.OVERTAKEN), lost(5, flow="shop->crm"),
        hop(6, queue="", state=State.UNROUTABLE, reason=Reason.NO_QUEUE), hop(7), hop(8, state=State.LATE, wait=1),
        hop(9, state=State.UNKNOWN, reason=Reason.BLIND),
    )  # fmt: skip
    groups = {(g.flow, g.queue, g.state, g.reason): (g.hops, g.oldest_at, g.newest) for g in survey(ledger).against}
    assert groups == {
        ("crm->mes", "q", "lost", "queue_empty"): (2, START + SECOND, 2),
        ("crm->mes", "other", "lost", "queue_empty"): (1, START + 3 * SECOND, 3),
        ("crm->mes", "q", "lost", "overtaken"): (1, START + 4 * SECOND, 4),
        ("shop->crm", "q", "lost", "queue_empty"): (1, START + 5 * SECOND, 5),
        ("crm->mes", "", "unroutable", "no_queue"): (1, START + 6 * SECOND, 6),
    }


def test_an_old_verdict_is_forgotten(ledger: Ledger) -> None:
    commit(ledger, lost(1), lost(2, judged_at=NOW), hop(3, state=State.UNROUTABLE, reason=Reason.NO_QUEUE, queue=""))
    (group,) = survey(ledger, since=START + 4 * SECOND).against
    assert (group.hops, group.newest) == (1, 2)


def test_what_is_acknowledged_is_told_no_more_until_its_state_changes(ledger: Ledger) -> None:
    stuck = {"state": State.STUCK, "reason": Reason.NO_CONSUMER}
    commit(ledger, lost(1), lost(2), lost(3, **stuck))
    with Reader.open(ledger.path) as reader:
        assert sorted(reader.unacknowledged()) == [(1, 0, "lost"), (2, 0, "lost"), (3, 0, "stuck")]
        assert reader.unacknowledged(state="stuck") == [(3, 0, "stuck")]
    ack(ledger, hops=[(1, 0, "lost"), (3, 0, "stuck")])
    (group,) = survey(ledger).against
    assert (group.newest, group.hops) == (2, 1)
    with Reader.open(ledger.path) as reader:
        assert reader.unacknowledged() == [(2, 0, "lost")]
        about = labels(alertname="MessageUndelivered", vhost="/", flow="crm->mes", queue="q", reason="queue_empty")
        assert [row["message_id"] for row in reader.examples(about, limit=5, seen=0)] == ["message-2"]
        (row,) = reader.acknowledgements()
        assert (row["who"], row["hops"], row["orders"], row["chosen"]) == ("ada", 2, 0, "--all")
    ledger.commit(Changes(hops=[lost(3)]), status=status(updated_at=NOW))
    (group,) = survey(ledger).against
    assert (group.reason, group.hops) == ("queue_empty", 2)


def test_an_acknowledgement_that_is_read_again_is_one(ledger: Ledger) -> None:
    commit(ledger, lost(1))
    for _ in range(2):
        ack(ledger, hops=[(1, 0, "lost")])
    with Reader.open(ledger.path) as reader:
        assert len(reader.acknowledgements()) == 1


def test_many_are_acknowledged_in_chunks(ledger: Ledger) -> None:
    many = 2 * alerts.CHUNK + 1
    commit(ledger, *(lost(id) for id in range(1, many + 1)))
    with Reader.open(ledger.path) as reader:
        ack(ledger, hops=reader.unacknowledged())
    assert survey(ledger).against == []


def test_stuck_orders_are_counted_and_told_until_acknowledged(ledger: Ledger) -> None:
    stages = StageTable([Stage("A", "shop", 10 * SECOND), Stage("B", "crm", None)])
    orders = Orders(stages, Recall(ledger.open_entry, ledger.stages_of))
    messages = [message(id, order_id=f"O-{id}", stage="A") for id in (1, 2)]
    entries = orders.see(messages)
    ledger.commit(Changes(messages=messages, entries=entries), status=status(updated_at=START + 12 * SECOND))
    (stage,) = survey(ledger).stages
    assert (stage.orders, stage.stuck, stage.to_tell, stage.to_tell_oldest_at) == (2, 1, 1, START + SECOND)
    assert (stage.vhost, stage.stage, stage.system) == ("/", "A", "shop")
    (none,) = survey(ledger, since=START + 12 * SECOND).stages  # forgotten
    assert (none.stuck, none.to_tell) == (1, 0)
    about = labels(alertname="OrderStuck", vhost="/", stage="A", system="shop")
    with Reader.open(ledger.path) as reader:
        assert [row["order_id"] for row in reader.examples(about, limit=5, seen=START + 12 * SECOND)] == ["O-1"]
    ack(ledger, entries=[1])
    (stage,) = survey(ledger).stages
    assert (stage.orders, stage.stuck, stage.to_tell) == (2, 1, 0)


def test_gaps_and_vhosts(ledger: Ledger) -> None:
    gaps = [
        GapRow(1, "/", "first_start", None, START),
        GapRow(2, "/", "blind", START, START + SECOND),
        GapRow(3, "/", "blind", NOW - 3 * SECOND, None),
    ]
    ledger.commit(Changes(), status=status(updated_at=NOW, connected=False, problem="away"), gaps=gaps)
    ledger.commit(Changes(), status=status("earlier", pid=2))
    found = survey(ledger, gaps_since=START + 2 * SECOND)
    assert [(gap.reason, gap.to_at) for gap in found.gaps] == [("blind", None)]
    assert found.gap_seconds == [("/", 4.0)]
    (vhost,) = found.vhosts
    assert (vhost.name, vhost.connected, vhost.problem) == ("/", False, "away")
    assert found.size > 0


def test_alerts_are_kept(ledger: Ledger) -> None:
    firing = Alert(labels(alertname="OrderStuck", stage="A"), 5, None, 2, {"summary": "ä"})
    gone = Alert(labels(alertname="AuditorGap"), 1, 2, 1, {})
    alerts.keep(ledger, [firing, gone], [])
    assert sorted(alerts.alerts(ledger)) == sorted([firing, gone])
    alerts.keep(ledger, [firing._replace(ended_at=9)], [gone.labels])
    assert alerts.alerts(ledger) == [firing._replace(ended_at=9)]


# the inbox

GIVEN = Acknowledgement(NOW, "ada", "note", "--all", [(1, 0, "lost")], [7])


def test_an_acknowledgement_comes_out_as_it_was_put_in(path: Path) -> None:
    assert inbox.waiting(path) == []
    file = inbox.put(path, GIVEN)
    later = inbox.put(path, GIVEN._replace(at=NOW + 1))
    assert inbox.waiting(path) == [file, later]
    assert inbox.read(file) == GIVEN


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", '"text"', "null",
        json.dumps(GIVEN._asdict() | {"hops": [[1, 0, "delivered"]]}),
        json.dumps(GIVEN._asdict() | {"hops": [[1, "x", "lost"]]}),
        json.dumps(GIVEN._asdict() | {"hops": 5}),
        json.dumps(GIVEN._asdict() | {"entries": ["1; DROP TABLE hops"]}),
        json.dumps(GIVEN._asdict() | {"who": 5}),
        json.dumps(GIVEN._asdict() | {"at": "now"}),
        json.dumps(GIVEN._asdict() | {"more": 1}),
    ],
)  # fmt: skip
def test_what_is_none_is_put_aside(path: Path, content: str) -> None:
    file = inbox.make(path) / "1-x.json"
    file.write_text(content)
    with pytest.raises(ValueError):
        inbox.read(file)
    inbox.refuse(file)
    assert inbox.waiting(path) == []


def test_who_may_not_write_is_told_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "ledger.db-inbox").write_text("a file where the folder should be")
    with pytest.raises(LedgerError, match="could not be handed"):
        inbox.put(tmp_path / "ledger.db", GIVEN)
