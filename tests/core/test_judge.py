"""The judge: what is claimed of a hop whose deadline has passed, and when.

The deadline is ten seconds; message 1 is published at 0 to the queue `work` unless a case says otherwise.
"""

from __future__ import annotations

from typing import Any

import pytest

from auditor.core.gaps import Gap, GapReason
from auditor.core.hops import State
from tests.core.fakes import SECOND, Audit, delivered, make_flow, published


@pytest.fixture
def audit() -> Audit:
    audit = Audit()
    audit.see(published(0, "work"))
    return audit


def gap(from_at: float | None, to_at: float, reason: GapReason = GapReason.BLIND) -> Gap:
    since = None if from_at is None else int(from_at * SECOND)
    return Gap(1, reason, since, int(to_at * SECOND), int(to_at * SECOND))


@pytest.mark.parametrize(
    ("what", "found", "claim"),
    [
        ("the queue is not there", {"exists": False, "ready": None, "consumers": None}, "lost queue_missing"),
        ("it holds nothing", {"ready": 0, "consumers": 1}, "lost queue_empty"),
        ("it holds nothing, and nobody would take it", {"ready": 0, "consumers": 0}, "lost queue_empty"),
        ("it holds something, and nobody takes it", {"ready": 1, "consumers": 0}, "stuck no_consumer"),
        ("it holds something", {"ready": 1, "consumers": 2}, "stuck waiting"),
        ("it may not be looked into", {"exists": None, "ready": None, "consumers": None}, "stuck waiting"),
        ("it is another connection's own", {"exists": True, "ready": None, "consumers": None}, "stuck waiting"),
    ],
)
def test_what_a_look_at_the_queue_tells(audit: Audit, what: str, found: dict[str, Any], claim: str) -> None:
    audit.judge("work", 11, **found)
    assert audit.told() == {(1, "work"): claim}, what


def test_no_queue_is_looked_at_before_a_deadline_has_passed(audit: Audit) -> None:
    assert audit.due(9.9) == []
    assert audit.due(10) == []
    assert audit.due(10.1) == ["work"]


def test_a_queue_is_looked_at_once_the_watermark_is_past_and_judged_once_the_horizon_is(audit: Audit) -> None:
    assert audit.due(8, margin=2) == []
    assert audit.due(8.1, margin=2) == ["work"]
    audit.inspected("work", 10.5)
    audit.due(10.5, margin=2)
    assert audit.states() == [State.IN_FLIGHT]
    audit.due(10.6, margin=2)
    assert audit.states() == [State.LOST]


def test_a_queue_is_asked_for_once_however_many_hops_wait_for_the_answer(audit: Audit) -> None:
    audit.see(published(0.1, "work", id="other"), published(0.1, "elsewhere", id="other"))
    assert sorted(audit.due(11)) == ["elsewhere", "work"]
    assert audit.due(12) == []


def test_an_answer_that_never_comes_is_asked_for_again(audit: Audit) -> None:
    assert audit.due(11) == ["work"]
    assert audit.due(41) == []
    assert audit.due(41.1) == ["work"]


def test_the_verdict_waits_until_the_horizon_is_past_the_look(audit: Audit) -> None:
    audit.due(11)
    audit.inspected("work", 14)
    audit.due(14)
    assert audit.states() == [State.IN_FLIGHT]
    audit.due(14.1)
    assert audit.states() == [State.LOST]
    assert next(iter(audit.ledger.hops.values())).judged_at == int(14.1 * SECOND)


def test_a_delivery_that_was_on_its_way_during_the_look_still_counts(audit: Audit) -> None:
    audit.due(11)
    audit.inspected("work", 14, ready=0)
    audit.see(delivered(13, "work"))
    audit.due(15)
    assert audit.told() == {(1, "work"): "late"}


def test_a_hop_whose_deadline_passed_after_the_look_waits_for_the_next(audit: Audit) -> None:
    audit.see(published(3, "work", id="other"))
    audit.due(11)
    audit.inspected("work", 12)
    assert audit.due(14) == ["work"]
    assert audit.told() == {(1, "work"): "lost queue_empty", (2, "work"): "in_flight"}


def test_what_becomes_overdue_while_a_look_is_not_ripe_does_not_wait_for_its_verdicts(audit: Audit) -> None:
    audit.see(published(1, "work", id="second"), published(2, "work", id="third"))
    assert audit.due(8.1, margin=2) == ["work"]
    audit.inspected("work", 10.2)
    assert audit.due(9.1, margin=2) == ["work"], "the watermark is past the second deadline"
    audit.inspected("work", 11.2, ready=1)
    assert audit.due(10.3, margin=2) == ["work"]
    assert audit.told() == {(1, "work"): "lost queue_empty", (2, "work"): "in_flight", (3, "work"): "in_flight"}
    audit.inspected("work", 12.4)
    assert audit.due(11.3, margin=2) == []
    assert audit.told() == {(1, "work"): "lost queue_empty", (2, "work"): "stuck waiting", (3, "work"): "in_flight"}
    audit.due(12.5, margin=2)
    assert set(audit.told().values()) == {"lost queue_empty"}


def test_on_a_queue_that_loses_all_the_time_verdicts_come_as_soon_as_on_any_other() -> None:
    audit = Audit()
    audit.see(*[published(n / 4, "work", id=f"m{n}") for n in range(80)])
    told: dict[int, int] = {}  # message -> watermark at its verdict
    for watermark in range(1, 40):
        asked = audit.due(watermark - 2, margin=2)
        for number, state in enumerate(audit.states()):
            if state is State.LOST:
                told.setdefault(number, watermark)
        for queue in asked:
            audit.inspected(queue, watermark + 0.1)
    # the first watermark past the deadline, a look at once, and the first watermark that is two seconds past the look
    passed = {n: int(10 + n / 4) + 1 for n in range(80)}
    assert told.keys() == passed.keys()
    assert all(told[n] <= passed[n] + 3 for n in passed)


def test_one_look_is_enough_for_all_deadlines_before_it(audit: Audit) -> None:
    """As in a backlog: the looks are of today, the deadlines of yesterday."""
    audit.see(*[published(n, "work", id=f"m{n}") for n in range(1, 50)])
    assert audit.due(8.1, margin=2) == ["work"]
    audit.inspected("work", 1000)
    assert [audit.due(9 + n, margin=2) for n in range(60)] == [[]] * 60
    audit.due(1001, margin=2)
    assert set(audit.states()) == {State.LOST}


def test_each_look_counts_also_when_several_become_ripe_at_once(audit: Audit) -> None:
    """Something else waits in the queue by the time of the second one: only the first can tell."""
    audit.see(published(1, "work", id="second"))
    assert audit.due(8.1, margin=2) == ["work"]
    audit.inspected("work", 10.2, ready=0)
    assert audit.due(9.1, margin=2) == ["work"]
    audit.inspected("work", 11.2, ready=1)
    audit.due(13, margin=2)
    assert audit.told() == {(1, "work"): "lost queue_empty", (2, "work"): "stuck waiting"}


def test_a_delivery_between_two_looks_counts_against_neither(audit: Audit) -> None:
    audit.see(published(1, "work", id="second"))
    audit.due(8.1, margin=2)
    audit.inspected("work", 10.2)
    audit.due(9.1, margin=2)
    audit.see(delivered(10.1, "work"), delivered(11.1, "work", id="second"))
    audit.inspected("work", 11.2)
    audit.due(13, margin=2)
    assert audit.told() == {(1, "work"): "late", (2, "work"): "late"}


def test_every_flow_has_its_own_deadline() -> None:
    slow = make_flow("slow", deadline=60 * SECOND, takes=lambda queue: queue == "slow")
    audit = Audit(slow, make_flow("fast"))
    audit.see(published(0, "slow", "work"))
    assert audit.due(11) == ["work"]
    audit.inspected("work", 12)
    assert audit.due(60) == []
    assert audit.due(60.1) == ["slow"]


def test_a_look_nobody_asked_for_is_passed_over(audit: Audit) -> None:
    audit.inspected("work", 11)
    audit.inspected("elsewhere", 11)
    audit.due(9)
    assert audit.told() == {(1, "work"): "in_flight"}


def test_nothing_is_kept_of_what_was_delivered(audit: Audit) -> None:
    audit.see(delivered(1, "work"))
    assert audit.due(100) == []
    assert audit.matcher.open_hops == 0


# overtaken


def overtaking(audit: Audit, at: float, **later: Any) -> None:
    """Publish a message, with a canary just before it, and have it delivered; look at the queue when it matters."""
    audit.advance(at)
    audit.see(published(at, "work", id="later", **later), delivered(at + 0.1, "work", id="later", **later))
    audit.judge("work", 20, ready=5)


@pytest.mark.parametrize(
    ("what", "at", "later", "claim"),
    [
        ("well after it another one was published, and delivered", 4, {}, "lost overtaken"),
        ("so close behind it the order of queue and firehose may differ", 3, {}, "stuck waiting"),
        ("a more urgent one may overtake it", 4, {"priority": 5}, "stuck waiting"),
    ],
)
def test_overtaken(audit: Audit, what: str, at: float, later: dict[str, Any], claim: str) -> None:
    overtaking(audit, at, **later)
    assert audit.told()[1, "work"] == claim, what


def test_what_is_read_from_a_stream_overtakes_nothing(audit: Audit) -> None:
    """A reader may begin at the end; what stands before is not gone for that. Nor do several readers do any harm."""
    read = {"x-stream-offset": 7}
    audit.advance(5)
    audit.see(published(5, "work", id="later"))
    audit.see(*[delivered(6 + n, "work", id="later", headers=read) for n in range(3)])
    audit.judge("work", 20, ready=5)
    assert audit.told() == {(1, "work"): "stuck waiting", (2, "work"): "delivered"}


def test_a_message_of_another_queue_overtakes_nothing(audit: Audit) -> None:
    audit.advance(5)
    audit.see(published(5, "elsewhere", id="later"), delivered(6, "elsewhere", id="later"))
    audit.judge("work", 20, ready=5)
    assert audit.told()[1, "work"] == "stuck waiting"


def test_a_redelivered_message_overtakes_nothing(audit: Audit) -> None:
    """It may have been delivered while nobody saw it, and been put back behind the others."""
    audit.advance(5)
    audit.see(published(5, "work", id="later"), delivered(6, "work", id="later", again=True))
    audit.judge("work", 20, ready=5)
    assert audit.told()[1, "work"] == "stuck waiting"


def test_what_was_published_after_the_overtaker_was_not_overtaken() -> None:
    audit = Audit()
    audit.advance(5)
    audit.see(published(5, "work", id="first"), delivered(5, "work", id="first"), published(5, "work"))
    audit.judge("work", 20, ready=5)
    assert audit.told()[2, "work"] == "stuck waiting"


def test_nobody_is_accused_by_events_read_late() -> None:
    """An hour of backlog is read at 3600, and the auditor restarts in the middle. All of it arrives at nearly one time,
    so only the canaries in it tell when a message was published."""
    audit = Audit()
    audit.advance(0)
    audit.see(published(3600, "work", id="early"))
    audit.restart()
    audit.advance(60)
    audit.see(published(3601, "work"))  # it waits in its queue
    audit.advance(61)
    audit.see(delivered(3602, "work", id="early"))
    audit.judge("work", 3650, ready=5)
    assert audit.told()[2, "work"] == "stuck waiting"


# gaps


@pytest.mark.parametrize(
    ("what", "over", "claim"),
    [
        ("it was published before anything was seen", gap(None, 1), "unknown blind"),
        ("its delivery may have been missed", gap(5, 8), "unknown blind"),
        ("the trace queue dropped events", gap(5, 8, GapReason.OVERFLOW), "unknown overflow"),
        ("the trace queue was gone", gap(5, 8, GapReason.QUEUE_GONE), "unknown queue_gone"),
        ("the firehose was off", gap(5, 8, GapReason.FIREHOSE_OFF), "unknown blind"),
        ("it was still blind when the queue was looked at", gap(10.5, 12), "unknown blind"),
        ("all was well again before its publish", gap(-5, 0), "lost queue_empty"),
        ("all was well until the look", gap(11.5, 12), "lost queue_empty"),
    ],
)
def test_nothing_is_claimed_of_a_flight_through_a_gap(audit: Audit, what: str, over: Gap, claim: str) -> None:
    audit.gap(over)
    audit.judge("work", 11, ready=0)
    assert audit.told() == {(1, "work"): claim}, what


def test_a_publish_read_after_a_gap_may_have_been_published_before_it() -> None:
    """The auditor is behind: what it reads at 100 was published at 5 at the earliest."""
    audit = Audit()
    audit.advance(5)
    audit.see(published(100, "work"))
    audit.gap(gap(7, 9))
    audit.judge("work", 111, ready=0)
    assert audit.told() == {(1, "work"): "unknown blind"}


def test_stuck_before_a_gap_and_still_there_stays_stuck(audit: Audit) -> None:
    audit.judge("work", 11, ready=1)
    audit.gap(gap(20, 30))
    audit.judge("work", 42, ready=1)
    assert audit.told() == {(1, "work"): "stuck waiting"}


def test_stuck_before_a_gap_and_perhaps_gone_is_unknown(audit: Audit) -> None:
    """One of two is left, and which one it is nobody saw."""
    audit.see(published(0, "work", id="other"))
    audit.judge("work", 11, ready=2)
    audit.gap(gap(20, 30))
    audit.judge("work", 42, ready=1)
    assert audit.told() == {(1, "work"): "unknown blind", (2, "work"): "unknown blind"}


# afterwards


def test_a_stuck_hop_is_looked_at_again_and_again(audit: Audit) -> None:
    audit.judge("work", 11, ready=1)
    assert audit.due(41.9) == []
    assert audit.due(42) == ["work"]
    audit.inspected("work", 42, ready=1, consumers=0)
    audit.due(43)
    assert audit.told() == {(1, "work"): "stuck no_consumer"}
    assert audit.due(73) == ["work"]


def test_a_stuck_hop_whose_queue_is_emptied_is_lost(audit: Audit) -> None:
    audit.judge("work", 11, ready=1)
    audit.commit()
    audit.judge("work", 42, ready=0)
    assert audit.told() == {(1, "work"): "lost queue_empty"}
    assert audit.due(1000) == []


def test_a_new_hop_does_not_wait_for_the_next_look_at_the_stuck_ones(audit: Audit) -> None:
    audit.judge("work", 11, ready=1)
    audit.see(published(5, "work", id="other"))
    assert audit.due(16) == ["work"]


def test_a_stuck_hop_is_written_only_when_something_changed(audit: Audit) -> None:
    audit.judge("work", 11, ready=1)
    audit.commit()
    audit.judge("work", 42, ready=1)
    assert audit.matcher.take().hops == []


@pytest.mark.parametrize("committed", [False, True], ids=["in one batch", "after a commit"])
@pytest.mark.parametrize(
    ("before", "found", "blind"),
    [("stuck waiting", {"ready": 1}, False), ("lost queue_empty", {"ready": 0}, False), ("unknown blind", {}, True)],
)
def test_a_delivery_after_the_verdict_is_late(
    audit: Audit, before: str, found: dict[str, Any], blind: bool, committed: bool
) -> None:
    if blind:
        audit.gap(gap(5, 8))
    audit.judge("work", 11, **found)
    if committed:
        assert audit.told() == {(1, "work"): before}
    audit.see(delivered(50, "work"))
    assert audit.told() == {(1, "work"): "late"}
    assert [hop.wait for hop in audit.ledger.hops.values()] == [50 * SECOND]
    assert audit.matcher.open_hops == 0
    assert audit.due(1000) == []


@pytest.mark.parametrize(("found", "state"), [({"ready": 1}, State.STUCK), ({"ready": 0}, State.LOST)])
def test_a_restart_forgets_neither_what_is_open_nor_what_was_claimed(
    audit: Audit, found: dict[str, Any], state: State
) -> None:
    audit.restart()
    audit.judge("work", 11, **found)
    audit.restart()
    assert audit.states() == [state]
    assert audit.due(12) == (["work"] if state is State.STUCK else [])
    audit.see(delivered(50, "work"))
    assert audit.told() == {(1, "work"): "late"}


# evicted hops


@pytest.fixture
def crowded() -> Audit:
    """Five hops wait in `work`, two of them in memory, and the auditor has just started."""
    audit = Audit(max_open_hops=2)
    audit.see(*[published(n / 10, "work", id=str(n)) for n in range(5)])
    audit.restart()
    assert audit.matcher._book.at_hand == 2
    return audit


@pytest.mark.parametrize(
    ("found", "claim"),
    [({"ready": 0}, "lost queue_empty"), ({"exists": False}, "lost queue_missing"), ({"ready": 5}, "stuck waiting")],
)
def test_evicted_hops_are_judged_like_all_others(crowded: Audit, found: dict[str, Any], claim: str) -> None:
    assert crowded.matcher.open_hops == 5
    crowded.judge("work", 11, **found)
    assert set(crowded.told().values()) == {claim}
    assert crowded.matcher.open_hops == (5 if "stuck" in claim else 0)
    assert crowded.matcher._book.at_hand <= 2


def test_evicted_hops_alone_have_their_queue_looked_at() -> None:
    audit = Audit(max_open_hops=1)
    audit.see(published(0, "work"), published(5, "elsewhere", id="other"))
    audit.restart()
    assert audit.due(11) == ["work"]
    audit.inspected("work", 12, ready=1)
    audit.due(13)
    assert audit.told() == {(1, "work"): "stuck waiting", (2, "elsewhere"): "in_flight"}
    audit.see(delivered(14, "elsewhere", id="other"))
    audit.commit()
    assert audit.due(42.9) == []
    assert audit.due(43) == ["work"]
    audit.inspected("work", 43, ready=0)
    audit.due(44)
    assert audit.told()[1, "work"] == "lost queue_empty"
    assert audit.due(45) == audit.due(1000) == []
    assert not audit.matcher.judge._queues


def test_a_gap_and_the_evicted_ones_are_counted_among_those_that_should_be_there(crowded: Audit) -> None:
    crowded.judge("work", 11, ready=5)
    crowded.commit()
    crowded.gap(gap(20, 30))
    crowded.judge("work", 42, ready=5)
    assert set(crowded.told().values()) == {"stuck waiting"}
    crowded.judge("work", 73, ready=4)
    assert set(crowded.told().values()) == {"unknown blind"}


def test_a_queue_that_is_worked_off_is_read_from_the_ledger_in_pages() -> None:
    audit = Audit(max_open_hops=16)
    audit.see(*[published(n / 100, "work", id=str(n)) for n in range(200)])
    audit.restart()
    before = audit.ledger.recalls
    for n in range(200):
        audit.see(delivered(5 + n / 100, "work", id=str(n)))
        if n % 50 == 0:
            audit.commit()
            assert audit.matcher._book.at_hand <= 16
    assert set(audit.told().values()) == {"delivered"}
    assert audit.ledger.recalls - before <= 10


def test_a_gap_is_held_against_an_evicted_hop_that_was_published_before_it_was_read() -> None:
    """As for all others: what is read at 100 was published at 5 at the earliest."""
    audit = Audit(max_open_hops=1)
    audit.advance(5)
    audit.see(published(100, "work"), published(100, "work", id="other"))
    audit.commit()
    audit.advance(6)
    audit.gap(gap(7, 9))
    audit.judge("work", 111, ready=0)
    assert set(audit.told().values()) == {"unknown blind"}


def test_the_memory_of_overtakers_is_bounded(audit: Audit) -> None:
    """Queues with made-up names come and go without end."""
    audit.advance(1)
    for n in range(10_050):
        audit.see(published(1, f"amq.gen-{n}", id=str(n)), delivered(1, f"amq.gen-{n}", id=str(n)))
    assert len(audit.matcher.judge._overtakers) <= 10_000


# transactions


TRANSACTIONS = make_flow(transactional=True)


@pytest.mark.parametrize(
    ("what", "found", "claim"),
    [
        ("the queue is not there", {"exists": False, "ready": None, "consumers": None}, "unknown transaction"),
        ("it holds nothing", {"ready": 0, "consumers": 1}, "unknown transaction"),
        ("it holds one message less than it should", {"ready": 1, "consumers": 0}, "unknown transaction"),
        ("it holds all that it should", {"ready": 2, "consumers": 0}, "stuck no_consumer"),
        ("it may not be looked into", {"exists": None, "ready": None, "consumers": None}, "unknown transaction"),
    ],
)
@pytest.mark.parametrize("evicted", [False, True])
def test_what_may_have_been_rolled_back_is_not_called_lost(
    what: str, found: dict[str, Any], claim: str, evicted: bool
) -> None:
    audit = Audit(TRANSACTIONS, max_open_hops=0 if evicted else 10)
    audit.see(published(0, "work"), published(1, "work", id="other"))
    audit.commit()
    for at in (13, 15):
        audit.judge("work", at, **found)
    assert audit.told() == {(1, "work"): claim, (2, "work"): claim}, what
    audit.see(delivered(20, "work"))
    assert audit.told()[1, "work"] == "late"


def test_what_was_published_after_the_look_is_not_missed_in_it() -> None:
    audit = Audit(TRANSACTIONS)
    audit.see(published(0, "work"))
    audit.due(11)
    audit.inspected("work", 11, ready=1, consumers=0)
    audit.see(published(11.5, "work", id="other"))
    audit.due(12)
    assert audit.told() == {(1, "work"): "stuck no_consumer", (2, "work"): "in_flight"}


def test_what_was_overtaken_on_a_flow_with_transactions_may_have_been_rolled_back() -> None:
    audit = Audit(TRANSACTIONS)
    audit.see(published(0, "work"))
    audit.advance(8)
    audit.see(published(9, "work", id="later"), delivered(9.5, "work", id="later"))
    audit.judge("work", 11, ready=1)
    assert audit.told()[1, "work"] == "unknown transaction"


def test_a_message_that_is_stuck_stays_so_while_others_are_rolled_back_and_ends_as_unknown() -> None:
    audit = Audit(TRANSACTIONS)
    audit.see(published(0, "work"))
    audit.judge("work", 11, ready=1, consumers=0)
    audit.see(published(20, "work", id="rolled back"))
    audit.judge("work", 45, ready=1, consumers=0)
    assert audit.told() == {(1, "work"): "stuck no_consumer", (2, "work"): "unknown transaction"}
    audit.judge("work", 80, ready=0)
    assert audit.told() == {(1, "work"): "unknown transaction", (2, "work"): "unknown transaction"}


def test_a_gap_says_more_than_a_transaction() -> None:
    audit = Audit(TRANSACTIONS)
    audit.see(published(0, "work"))
    audit.gap(gap(5, 8))
    audit.judge("work", 11)
    assert audit.told() == {(1, "work"): "unknown blind"}
