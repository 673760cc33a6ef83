"""The exporter between an outbox and a real receiver: all is told once, whatever the receiver does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from auditor.core.hops import Reason, State
from auditor.core.outgoing import Key, OrderTrace, Outgoing, Told
from auditor.errors import LedgerError
from auditor.windows import exporter as module
from auditor.windows.exporter import BATCH, Exporter
from auditor.windows.otlp import Sender
from auditor.windows.spans import Builder
from tests.support.otlp import Answer, Inbox
from tests.windows.rows import CONTEXT, UNSAMPLED, hop


@dataclass
class Waiting:
    rows: list[Outgoing]
    vanished: list[Key]
    orders: dict[int, OrderTrace]


@dataclass
class Outbox:
    """An outbox in memory; the ledger's own is tried in tests/ledger and tests/acceptance."""

    rows: list[Outgoing] = field(default_factory=list)
    vanished: list[Key] = field(default_factory=list)
    orders: dict[int, OrderTrace] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    problems: list[str | None] = field(default_factory=list)
    refusing: int = 0  # so many calls of `done` fail
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, limit: int) -> Waiting:
        with self.lock:
            return Waiting(self.rows[:limit], list(self.vanished), dict(self.orders))

    def done(self, keys: Iterable[Key], orders: Iterable[OrderTrace], told: Told) -> None:
        with self.lock:
            if self.refusing:
                self.refusing -= 1
                raise LedgerError("The outbox could not be written", why="disk full")
            gone = set(keys)
            self.rows = [row for row in self.rows if row.key not in gone]
            self.vanished = [key for key in self.vanished if key not in gone]
            self.orders |= {order.key: order for order in orders}
            self.told = Told(*(one + other for one, other in zip(self.told, told, strict=True)))

    def report(self, problem: str | None) -> None:
        self.problems.append(problem)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < end, self
            time.sleep(0.02)

    def until_empty(self) -> None:
        self.until(lambda: not self.rows and not self.vanished)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(module, "_POLL", 0.05)


@contextmanager
def exporting(outbox: Outbox, to: Sender, drain: float = 5.0) -> Iterator[Exporter]:
    builder = Builder(host="rabbit", port=5672, parent="message", ratios={})
    one = Exporter(outbox, builder, to, service="rabbitmq", version="1")
    one.start()
    try:
        yield one
    finally:
        one.stop(drain)


def rows(count: int) -> list[Outgoing]:
    return [hop(number, trace_context=CONTEXT, order_id=None, key=(number, 0, 1, 1)) for number in range(count)]


def ids(inbox: Inbox) -> list[str]:
    return [span.span_id for span in inbox.spans]


def test_all_is_told_batch_by_batch(to_inbox: Sender, inbox: Inbox) -> None:
    outbox = Outbox(rows(2 * BATCH + 10))
    with exporting(outbox, to_inbox):
        outbox.until_empty()
    assert len(inbox.requests) == 3
    assert len(set(ids(inbox))) == len(ids(inbox)) == 2 * BATCH + 10
    assert outbox.told == Told(spans=2 * BATCH + 10)
    assert outbox.problems == []


@pytest.mark.parametrize("answer", [Answer(status=503), Answer(status=429, retry_after=0), Answer(hangs=0.4)])
def test_what_is_for_later_is_told_later(to_inbox: Sender, inbox: Inbox, answer: Answer) -> None:
    inbox.next.extend([answer] * 3)
    outbox = Outbox(rows(10))
    with exporting(outbox, to_inbox):
        outbox.until_empty()
    assert len(set(ids(inbox))) == 10
    assert outbox.told.spans == 10
    if not answer.takes:
        assert len(outbox.problems) == 2  # that it is away, and that it is not any more
        assert "away" in str(outbox.problems[0])
        assert outbox.problems[1] is None


def test_a_receiver_is_left_alone_for_as_long_as_it_wants(to_inbox: Sender, inbox: Inbox) -> None:
    inbox.next.append(Answer(status=503, retry_after=1))
    outbox = Outbox(rows(1))
    with exporting(outbox, to_inbox):
        outbox.until_empty()
    assert inbox.tries[1] - inbox.tries[0] >= 1


def test_a_refusal_is_counted_and_blocks_nothing(
    to_inbox: Sender, inbox: Inbox, caplog: pytest.LogCaptureFixture
) -> None:
    inbox.next.append(Answer(status=400, says="no such tenant"))
    outbox = Outbox(rows(BATCH + 5))
    with exporting(outbox, to_inbox):
        outbox.until_empty()
    assert outbox.told == Told(spans=5, refused=BATCH)
    assert "no such tenant" in str([record.__dict__ for record in caplog.records])


def test_a_partial_success_is_counted(to_inbox: Sender, inbox: Inbox) -> None:
    inbox.next.append(Answer(rejected=3, says="too long"))
    outbox = Outbox(rows(10))
    with exporting(outbox, to_inbox):
        outbox.until_empty()
    assert outbox.told == Told(spans=7, refused=3)


def test_a_ledger_that_refuses_has_nothing_told_twice(to_inbox: Sender, inbox: Inbox) -> None:
    outbox = Outbox(rows(10), refusing=3)
    with exporting(outbox, to_inbox):
        outbox.until_empty()
    assert len(inbox.requests) == 1
    assert outbox.told.spans == 10


def test_what_is_not_to_be_told_is_removed_too(to_inbox: Sender, inbox: Inbox) -> None:
    outbox = Outbox([hop(1, trace_context=UNSAMPLED, order_id=None)], vanished=[(9, 0, 1, 1)])
    with exporting(outbox, to_inbox):
        outbox.until_empty()
    assert inbox.requests == []
    assert outbox.told == Told(unsampled=1, dropped=1)


def test_a_stop_tells_what_waits_first(to_inbox: Sender, inbox: Inbox) -> None:
    outbox = Outbox()
    with exporting(outbox, to_inbox):
        outbox.rows = rows(3 * BATCH)
    assert outbox.told.spans == 3 * BATCH


def test_a_stop_does_not_wait_for_a_receiver_that_is_away(to_inbox: Sender, inbox: Inbox) -> None:
    inbox.always = Answer(status=503, retry_after=100)
    outbox = Outbox(rows(3))
    with exporting(outbox, to_inbox, drain=30):
        outbox.until(lambda: bool(outbox.problems))
        before = time.monotonic()
    assert time.monotonic() - before < 15
    assert len(outbox.rows) == 3


def test_a_stop_does_not_wait_for_a_receiver_that_hangs(to_inbox: Sender, inbox: Inbox) -> None:
    inbox.always = Answer(hangs=60)
    outbox = Outbox(rows(3))
    with exporting(outbox, to_inbox, drain=0.5):
        outbox.until(lambda: bool(inbox.tries))
        before = time.monotonic()
    assert time.monotonic() - before < 8
    assert len(outbox.rows) == 3


def test_an_orders_root_is_told_once(to_inbox: Sender, inbox: Inbox) -> None:
    outbox = Outbox([hop(1, key=(1, 0, 8, 0), state=State.LOST, reason=Reason.QUEUE_EMPTY)])
    with exporting(outbox, to_inbox):
        outbox.until_empty()
        outbox.rows = [hop(2, key=(2, 0, 8, 0), state=State.LOST, reason=Reason.QUEUE_EMPTY)]
        outbox.until_empty()
    assert [span.name for span in inbox.spans].count("order") == 1
