"""What is wrong, and when it begins and ends."""

from __future__ import annotations

from typing import Any

import pytest

from auditor.core.alerts import (
    MAX_QUEUES,
    RESOLVED_FOR,
    Against,
    Alert,
    Board,
    Cause,
    GapSpan,
    InStage,
    News,
    Patience,
    Survey,
    Vhost,
    causes,
    labels,
)
from auditor.core.hops import AGAINST, Reason, State

NOW = 1_000_000_000
SECOND = 1_000_000
PATIENCE = Patience(lag=30 * SECOND, gap=60 * SECOND)
WELL = Vhost("/", True, NOW - SECOND, NOW, None)


def against(queue: str = "q", state: str = "lost", reason: str = "queue_empty", oldest_at: int = 5) -> Against:
    return Against("/", "crm->mes", queue, state, reason, hops=3, oldest_at=oldest_at, newest=9)


def wrong(survey: Survey, firing: set[Any] | None = None) -> list[dict[str, str]]:
    found = [dict(cause.labels) for cause in causes(survey, NOW, PATIENCE, firing or set())]
    assert found.pop(0) == {"alertname": "AuditorWatchdog", "severity": "none"}
    return found


def test_when_all_is_well_the_watchdog_alone_fires() -> None:
    assert wrong(Survey(vhosts=[WELL])) == []


@pytest.mark.parametrize(
    ("state", "reason", "name", "severity"),
    [
        ("stuck", "waiting", "MessageUndelivered", "warning"),
        ("stuck", "no_consumer", "MessageUndelivered", "warning"),
        ("lost", "queue_empty", "MessageUndelivered", "critical"),
        ("lost", "overtaken", "MessageUndelivered", "critical"),
        ("lost", "queue_missing", "MessageUndelivered", "critical"),
        ("dead_lettered", "rejected", "MessageDeadLettered", "warning"),
    ],
)
def test_a_verdict_has_its_alert(state: str, reason: str, name: str, severity: str) -> None:
    assert wrong(Survey(against=[against(state=state, reason=reason)])) == [
        {"alertname": name, "severity": severity, "vhost": "/", "flow": "crm->mes", "queue": "q", "reason": reason}
    ]


def test_an_unroutable_message_has_no_queue() -> None:
    (found,) = wrong(Survey(against=[against("", "unroutable", "no_queue")]))
    assert found["alertname"] == "MessageUnroutable"
    assert "queue" not in found


@pytest.mark.parametrize("state", sorted(AGAINST))
def test_no_verdict_is_without_an_alert(state: State) -> None:
    assert len(wrong(Survey(against=[against(state=state.value, reason=Reason.NO_QUEUE.value)]))) == 1


def test_many_queues_are_a_handful_of_alerts() -> None:
    groups = [against(f"reply-{number:05}", oldest_at=number) for number in range(5000)]
    found = wrong(Survey(against=groups))
    assert len(found) == MAX_QUEUES + 1
    assert found[-1]["queue"] == "other"
    shared = causes(Survey(against=groups), NOW, PATIENCE)[-1]
    assert shared.number == 3 * (5000 - MAX_QUEUES)


def test_a_queue_that_has_an_alert_keeps_it() -> None:
    groups = [against(f"q-{number}", oldest_at=number) for number in range(MAX_QUEUES)]
    firing = {cause.labels for cause in causes(Survey(against=groups), NOW, PATIENCE)}
    older = [against(f"older-{number}", oldest_at=-1) for number in range(MAX_QUEUES)]
    found = wrong(Survey(against=[*groups, *older]), firing)
    assert {one["queue"] for one in found} == {group.queue for group in groups} | {"other"}


def test_orders_that_are_stuck() -> None:
    stage = InStage("/", "PACKAGING", "mes", orders=9, oldest_at=1, stuck=5, to_tell=4, to_tell_oldest_at=2)
    acknowledged = stage._replace(stage="SHIPPED", to_tell=0)
    (cause,) = [cause for cause in causes(Survey(stages=[stage, acknowledged]), NOW, PATIENCE) if cause.number == 4]
    assert cause.labels == labels(
        alertname="OrderStuck", severity="warning", vhost="/", stage="PACKAGING", system="mes"
    )
    assert "4 orders" in cause.summary
    assert len(wrong(Survey(stages=[stage, acknowledged]))) == 1


@pytest.mark.parametrize(
    ("vhost", "gaps", "name"),
    [
        (WELL._replace(connected=False), [], "AuditorBlind"),
        (WELL, [GapSpan("/", "firehose_off", 5, None)], "AuditorBlind"),
        (WELL._replace(updated_at=NOW - 11 * SECOND), [], "AuditorBlind"),
        (WELL._replace(watermark=NOW - 31 * SECOND), [], "AuditorLagging"),
        # it is not behind, it is blind: one cause, one alert
        (WELL._replace(watermark=NOW - 31 * SECOND), [GapSpan("/", "blind", 5, None)], "AuditorBlind"),
        (WELL._replace(watermark=NOW - 31 * SECOND, connected=False), [], "AuditorBlind"),
    ],
)
def test_the_auditor_tells_on_itself(vhost: Vhost, gaps: list[GapSpan], name: str) -> None:
    (found,) = wrong(Survey(vhosts=[vhost], gaps=gaps))
    assert found["alertname"] == name
    assert set(found) == {"alertname", "severity", "vhost"}


def test_a_gap_is_told_for_a_while_after_its_end() -> None:
    gaps = [
        GapSpan("/", "queue_gone", NOW - 90 * SECOND, NOW - 59 * SECOND),
        GapSpan("/", "queue_gone", NOW - 20 * SECOND, NOW - 10 * SECOND),
        GapSpan("/", "blind", NOW - 90 * SECOND, NOW - 61 * SECOND),
        GapSpan("/", "first_start", None, NOW - SECOND),
    ]
    (found,) = wrong(Survey(vhosts=[WELL], gaps=gaps))
    assert found == {"alertname": "AuditorGap", "severity": "warning", "vhost": "/", "reason": "queue_gone"}


# the board

LOST = Cause(labels(alertname="MessageUndelivered", queue="q"), "3 lost", "", 3)
BLIND = Cause(labels(alertname="AuditorBlind", vhost="/"), "blind", "", hold=3 * SECOND)


def annotate(cause: Cause) -> dict[str, str]:
    return {"summary": cause.summary}


def update(board: Board, now: int, *found: Cause) -> News:
    return board.update(found, now, annotate)


def test_an_alert_begins_once_and_ends_once() -> None:
    board = Board()
    assert [alert.starts_at for alert in update(board, NOW, LOST).began] == [NOW]
    assert not update(board, NOW + 1, LOST)
    assert [alert.ended_at for alert in update(board, NOW + 2).ended] == [NOW + 2]
    assert not update(board, NOW + 3)
    assert board.firing == set()


def test_one_that_has_ended_is_told_for_a_quarter_of_an_hour() -> None:
    board = Board()
    update(board, NOW, LOST)
    update(board, NOW + 1)
    assert not update(board, NOW + 1 + RESOLVED_FOR)
    assert len(board.alerts) == 1
    assert update(board, NOW + 2 + RESOLVED_FOR).forgotten == [LOST.labels]
    assert board.alerts == []


def test_one_that_comes_back_begins_anew() -> None:
    board = Board()
    update(board, NOW, LOST)
    update(board, NOW + 1)
    (again,) = update(board, NOW + 2, LOST).began
    assert (again.starts_at, again.ended_at) == (NOW + 2, None)
    assert len(board.alerts) == 1


def test_what_was_kept_neither_begins_again_nor_is_forgotten() -> None:
    stored = [
        Alert(LOST.labels, 5, None, 3, {}),
        Alert(BLIND.labels, 6, None, 1, {}),
        Alert(labels(alertname="OrderStuck"), 7, None, 1, {}),
        Alert(labels(alertname="AuditorGap"), 1, NOW - SECOND, 1, {}),
    ]
    board = Board(stored)
    news = update(board, NOW, LOST, BLIND)
    assert [dict(alert.labels)["alertname"] for alert in news.ended] == ["OrderStuck"]
    assert (news.began, news.forgotten) == ([], [])
    assert {alert.starts_at for alert in board.alerts} == {5, 6, 7, 1}


def test_a_cause_that_must_last_is_told_when_it_has() -> None:
    board = Board()
    assert not update(board, NOW, BLIND)
    assert not update(board, NOW + 2 * SECOND, BLIND)
    assert not update(board, NOW + 2 * SECOND + 1)  # it was only connecting again
    assert not update(board, NOW + 3 * SECOND, BLIND)
    assert len(update(board, NOW + 6 * SECOND, BLIND).began) == 1
    assert not update(board, NOW + 7 * SECOND, BLIND)


def test_a_number_that_changes_is_an_annotation() -> None:
    board = Board()
    update(board, NOW, LOST)
    assert not update(board, NOW + 1, LOST._replace(number=4, summary="4 lost"))
    (alert,) = board.alerts
    assert (alert.number, alert.annotations, alert.starts_at) == (4, {"summary": "4 lost"}, NOW)
