"""Orders that go on while something breaks: all of them are consumed at once, so every claim against them is false."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from auditor.core.hops import AGAINST, State
from auditor.ledger.queries import Reader
from tests.acceptance.harness import CANARY, DEADLINE, Auditor
from tests.acceptance.scene import Claim, Scene
from tests.acceptance.traffic import LANES, Applications, counts
from tests.faults.tally import Count

RATE = 100.0  # messages a second
ENOUGH = 10_000_000  # messages: it is stopped before

LOST = ("lost", "shelf", "lost", "queue_empty")  # what `check_all_is_well` plants

_PROMPT = DEADLINE / 2  # seconds; applications that took longer were slow themselves, and `late` may be true


@asynccontextmanager
async def steady(auditor: Auditor, tally: Count, *, gap: bool, rate: float = RATE) -> AsyncIterator[Applications]:
    """Have orders worked meanwhile; at the end, hold what the auditor claims of them against what was really done.

    Without a `gap`, each of their events must be in the ledger once, and none may be unknown.
    """
    applications = Applications(auditor.broker.url(auditor.vhost), ENOUGH, rate=rate)
    work = asyncio.create_task(applications.run())
    try:
        yield applications
        applications.stop()
        await work
    finally:
        work.cancel()
    await judged(auditor)
    claims = await asyncio.to_thread(claims_against, auditor, applications)
    published, delivered = await asyncio.to_thread(counts, auditor)
    tally.hold([], claims)
    assert not claims
    # more than there was: never
    assert (published - applications.published, delivered - applications.delivered) == (Counter(), Counter())
    if not gap:
        assert (published, delivered) == (applications.published, applications.delivered)
        assert not await asyncio.to_thread(auditor.ask, lambda reader: in_state(reader, State.UNKNOWN))


async def judged(auditor: Auditor) -> None:
    """Wait until all that was published before this call has been seen and judged."""
    await auditor.reading()
    await asyncio.sleep(DEADLINE)
    await auditor.seen()
    await asyncio.sleep(4 * CANARY)  # a queue is looked at, and the watermark has to pass the look
    await auditor.seen()


def claims_against(auditor: Auditor, applications: Applications) -> list[str]:
    """What is claimed against orders that were all worked."""
    states = set(AGAINST)
    if applications.slowest < _PROMPT:
        states.add(State.LATE)
    with Reader.open(auditor.ledger) as reader:
        return [
            f"{row['state']} {row['reason']}: {row['message_id']} to {row['queue']}"
            for state in sorted(states)
            for row in in_state(reader, state)
        ]


def in_state(reader: Reader, state: State) -> list[dict[str, object]]:
    """The hops of orders in a state."""
    return [row for row in reader.hops(state=str(state), limit=None) if row["queue"] in LANES]


async def check_all_is_well(scene: Scene, *standing: Claim) -> None:
    """Check that the auditor sees and judges what happens from now on, and still claims what it did."""
    await scene.auditor.reading()
    inbox = await scene.queue("afterwards")
    await scene.publish("fine", "afterwards")
    await scene.consume(inbox)
    await scene.arrived(1)
    await scene.queue("shelf", x_message_ttl=0)
    await scene.publish("lost", "shelf")
    await scene.claimed(LOST, *standing)
    assert ("fine", "afterwards", "delivered", None) in await scene.hops()
