"""The audit of one vhost, driven by steps: what a canary tells when events come again in another order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from auditor.audit import Connection, Ids, Outcome, Pace, Step, VhostAudit
from auditor.flows import flow_table
from auditor.ledger.writer import Ledger
from auditor.settings import Settings
from auditor.tap.canary import Canary, Sighting
from auditor.tap.wire import Content
from tests.tap.amqp import Table, encode_table

NOW = 1_790_000_000_000_000
SECOND = 1_000_000
CANARY = Canary(exchange="auditor.canary", auditor="auditor.trace", user="auditor")
NOTHING: dict[str, Any] = {name: [] for name in Step._fields if name not in Step._field_defaults}


def canary(number: int, *, again: bool) -> Content:
    """The trace event of a canary that was published in that second."""
    headers: Table = [
        ("exchange_name", ("S", CANARY.exchange)),
        ("routing_keys", ("A", [("S", "")])),
        ("properties", ("F", [])),
        ("node", ("S", "rabbit@a")),
        ("connection", ("S", "1 -> 2")),
        ("vhost", ("S", "/")),
        ("user", ("S", CANARY.user)),
        ("channel", ("I", 1)),
        ("routed_queues", ("A", [])),
    ]
    body = json.dumps({"auditor": CANARY.auditor, "number": number, "at": NOW + number * SECOND}).encode()
    key = f"publish.{CANARY.exchange}".encode()
    return Content(number, again, key, b"\x20\x00" + encode_table(headers), body, NOW + number * SECOND)


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[VhostAudit]:
    """An audit with a fresh ledger."""
    ledger = Ledger.open(tmp_path / "ledger.db")
    yield VhostAudit(
        "/",
        ledger=ledger,
        ids=Ids(ledger),
        flows=flow_table(Settings()),
        canary=CANARY,
        pace=Pace(canary_interval=SECOND, canary_timeout=5 * SECOND, orphan_wait=5 * SECOND, reinspect=30 * SECOND),
        max_open_hops=1000,
        now=NOW,
    )
    ledger.close()


def step(
    audit: VhostAudit, contents: Sequence[Content] = (), *, connected: bool = True, sent: Sequence[int] = ()
) -> Outcome:
    """Take a step; `sent` are the numbers of canaries that were published."""
    sightings = [Sighting(number, NOW + number * SECOND) for number in sent]
    given = {"contents": contents, "sent": sightings, "connection": Connection(connected), "now": NOW + 60 * SECOND}
    return audit.step(Step(**NOTHING | given))


def seconds(outcome: Outcome) -> int | None:
    """The watermark after a step, as the number of the canary that it stands at."""
    return None if outcome.watermark is None else (outcome.watermark - NOW) // SECOND


def test_a_canary_that_comes_again_tells_when_all_has_come_that_comes_again(audit: VhostAudit) -> None:
    assert seconds(step(audit, [canary(1, again=False)])) == 1
    step(audit, connected=False)
    assert seconds(step(audit, [canary(2, again=True), canary(3, again=True)])) == 1
    # another batch, within which what is new begins
    assert seconds(step(audit, [canary(4, again=True), canary(5, again=False)])) == 5


def test_in_a_batch_of_new_ones_it_tells_at_once(audit: VhostAudit) -> None:
    step(audit, [canary(1, again=True)])
    assert seconds(step(audit, [canary(2, again=False)])) == 2
    # given back by somebody who looked into the queue: nothing else is behind it
    assert seconds(step(audit, [canary(3, again=True)])) == 3


def test_what_came_before_a_cut_tells_nothing_after_it(audit: VhostAudit) -> None:
    step(audit, [canary(1, again=False)])
    step(audit, connected=False)
    step(audit, [canary(7, again=True)])
    step(audit, connected=False)
    assert seconds(step(audit, [canary(2, again=True), canary(3, again=False)])) == 3


def test_canaries_that_were_put_off_are_not_missed(audit: VhostAudit) -> None:
    step(audit, [canary(1, again=False)])
    step(audit, connected=False)
    outcome = step(audit, [canary(2, again=True), canary(3, again=True)], sent=[2, 3, 4])
    assert outcome.silent == {"": NOW + 2 * SECOND}
    outcome = step(audit, [canary(4, again=False)])
    assert (outcome.silent, outcome.gap) == ({}, None)
