"""The receiver of spans is away for long, and then it is busy: all is told afterwards, once, and nothing waits for it.

Takes minutes, so only in a long run; tests/acceptance/test_tracing.py has the same in seconds.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.acceptance.harness import Auditor
from tests.acceptance.scene import open_scene
from tests.support.otlp import RECEIVERS, TAKE, Answer, Inbox

pytestmark = pytest.mark.timeout(400)

AWAY = 60.0  # seconds that nobody listens
BUSY = 15.0  # seconds of each kind of being busy; the exporter waits ten for an answer
PAUSE = 0.1  # seconds between two orders
LOST_EVERY = 50  # orders, of which the last is lost

REFUSING = (
    Answer(status=503, says="down for maintenance"),
    Answer(status=429, says="too many", retry_after=1),
    Answer(status=503, hangs=BUSY),
)


@pytest.fixture(autouse=True)
def at_length(long: bool) -> None:
    """Leave it to the long run."""
    if not long:
        pytest.skip("takes minutes: run with --long")


@pytest.mark.parametrize("protocol", RECEIVERS)
async def test_a_minute_without_a_receiver_and_one_with_a_busy_one_lose_nothing(
    auditor: Auditor, protocol: str
) -> None:
    inbox = Inbox()
    with RECEIVERS[protocol](inbox) as receiver:
        auditor.settings["tracing"] = {"enabled": True, "protocol": protocol, "endpoint": receiver.endpoint}
    auditor.start()
    await auditor.reading()
    wanted: dict[str, str] = {}  # verdict by message

    async with open_scene(auditor, "receiver") as scene:
        await scene.consume(await scene.queue("inbox"))
        await scene.queue("expiring", x_message_ttl=100)

        async def traffic(seconds: float) -> None:
            """Publish meanwhile; what is lost has to be judged, whatever the receiver does."""
            end = asyncio.get_running_loop().time() + seconds
            lost = ""
            while asyncio.get_running_loop().time() < end:
                number = len(wanted)
                expires = number % LOST_EVERY == LOST_EVERY - 1
                await scene.publish(
                    f"m{number}", "expiring" if expires else "inbox", headers={"x-order-id": f"A-{number // 5}"}
                )
                wanted[f"{scene.prefix}m{number}"] = "lost" if expires else "delivered"
                lost = f"m{number}" if expires else lost
                await asyncio.sleep(PAUSE)
            await scene.becomes(lost, "lost")

        await traffic(AWAY)
        assert auditor.ask(lambda reader: reader.tracing()["waiting"]) >= 2 * len(wanted)
        with RECEIVERS[protocol](inbox, receiver.port):
            for answer in REFUSING:
                inbox.always = answer
                await traffic(BUSY)
            assert inbox.requests == []
            tries = len(inbox.tries)
            inbox.next.append(Answer(rejected=2, says="too long"))
            inbox.always = TAKE
            await auditor.until(
                lambda reader: reader.tracing()["waiting"] == 0 or None, "an empty outbox", bound=2 * AWAY
            )
            told = auditor.ask(lambda reader: reader.tracing())
            auditor.close()

    assert tries < 60  # it is not asked all the time
    assert (told["refused"], told["dropped"], told["problem"]) == (2, 0, None)
    assert told["spans"] + told["refused"] == len(inbox.spans)
    hops = [span for span in inbox.spans if span.kind == "CONSUMER"]
    verdicts = {str(span.attributes["messaging.message.id"]): span.attributes["auditor.verdict"] for span in hops}
    assert verdicts == wanted
    assert max(Counter(span.span_id for span in inbox.spans).values()) == 1
    assert auditor.log.count("The receiver of spans is away") == 1
    assert "too long" in auditor.log
