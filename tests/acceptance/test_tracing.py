"""Spans out of the installed auditor, as a receiver gets them: what happened on a real broker, once, in its place."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from auditor.core.outgoing import order_trace_id
from auditor.demo.receiver import Span
from tests.acceptance.harness import BOUND, DEADLINE, Auditor, command
from tests.acceptance.scene import Scene, open_scene
from tests.support.otlp import RECEIVERS, Answer, Inbox

pytestmark = pytest.mark.timeout(150)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CONTEXT = f"00-{TRACE}-{SPAN}-01"
UNRECORDED = f"00-{TRACE}-{SPAN}-00"


@pytest.fixture(params=["http/protobuf", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def tracing_auditor(auditor: Auditor, inbox: Inbox, protocol: str) -> Iterator[Auditor]:
    """An auditor that exports to the inbox."""
    with RECEIVERS[protocol](inbox) as receiver:
        auditor.settings["tracing"] = {
            "enabled": True,
            "protocol": protocol,
            "endpoint": receiver.endpoint,
            "ui_url": "http://jaeger/trace/{trace_id}",
        }
        yield auditor
        auditor.close()


@pytest.fixture
async def traced(tracing_auditor: Auditor) -> AsyncIterator[Scene]:
    tracing_auditor.start()
    await tracing_auditor.reading()
    async with open_scene(tracing_auditor, "traced") as scene:
        yield scene


async def spans_of(scene: Scene, inbox: Inbox, wanted: dict[str, set[str]]) -> dict[str, list[Span]]:
    """Wait until the hops of these messages were told with these verdicts; return all spans by message."""
    found: dict[str, list[Span]] = {}

    def complete() -> bool:
        found.clear()
        for span in inbox.spans:
            id = str(span.attributes.get("messaging.message.id", ""))
            found.setdefault(id.removeprefix(scene.prefix), []).append(span)
        return all(verdicts <= {span.attributes.get("auditor.verdict") for span in found.get(id, [])}
                   for id, verdicts in wanted.items())  # fmt: skip

    await true(complete)
    ids = Counter(span.span_id for span in inbox.spans)
    assert not [id for id, count in ids.items() if count > 1], "a span came twice"
    return found


async def true(condition: Callable[[], object]) -> None:
    """Wait until something is true of the inbox."""
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110  the inbox belongs to other threads
            await asyncio.sleep(0.05)


def order(name: str) -> dict[str, str]:
    return {"x-order-id": name}


async def test_every_kind_of_verdict_is_told_once_and_in_its_place(traced: Scene, inbox: Inbox) -> None:
    scene = traced
    inbox_queue = await scene.queue("inbox")
    await scene.consume(inbox_queue)
    slow = await scene.queue("slow")
    letters, dead_letter = await scene.dead_letter_queue("letters")
    await scene.consume(letters)
    rejecting = await scene.queue("rejecting", **dead_letter)
    await scene.consume(rejecting, lambda message: message.reject(requeue=False))
    await scene.queue("expiring", x_message_ttl=100)
    nowhere = await scene.exchange("nowhere", "topic")

    await scene.publish("good", headers={"traceparent": CONTEXT, "tracestate": "vendor=a , other=b"})
    await scene.publish("plain", headers=order("A-1"))
    await scene.publish("unrecorded", headers={"traceparent": UNRECORDED})
    await scene.publish("lost", "expiring", headers={"traceparent": UNRECORDED})
    await scene.publish("late", "slow", headers=order("A-2"))
    await scene.publish("dead", "rejecting", headers=order("A-3"))
    await scene.publish("unroutable", exchange=nowhere, headers={"traceparent": CONTEXT})
    await scene.becomes("late", "stuck")
    await spans_of(scene, inbox, {"late": {"stuck"}})
    await scene.consume(slow)
    found = await spans_of(
        scene,
        inbox,
        {
            "good": {"delivered"},
            "plain": {"delivered"},
            "lost": {"lost"},
            "late": {"stuck", "late"},
            "dead": {"dead_lettered", "delivered"},
            "unroutable": {"unroutable"},
        },
    )
    assert "unrecorded" not in found
    states = {span.span_id.hex(): span.trace_state for span in inbox.messages}

    (good,) = found["good"]
    assert (good.trace_id, good.parent_id, good.kind) == (TRACE, SPAN, "CONSUMER")
    assert good.links == ((TRACE, SPAN),)
    assert good.name == f"deliver {scene.prefix}inbox"
    assert good.error == ""
    assert good.service == "rabbitmq"
    assert states[good.span_id] == "vendor=a,other=b"
    assert {state for id, state in states.items() if id != good.span_id} == {""}

    (lost,) = found["lost"]
    assert (lost.trace_id, lost.parent_id, lost.error) == (TRACE, SPAN, "lost: queue_empty")
    assert lost.end - lost.start == DEADLINE * 1e9

    publish, hop = found["plain"]
    assert (publish.kind, hop.kind) == ("PRODUCER", "CONSUMER")
    assert publish.trace_id == hop.trace_id == order_trace_id(scene.auditor.vhost, "A-1").hex()
    (root,) = [span for span in inbox.spans if span.name == "order" and span.trace_id == hop.trace_id]
    assert (root.parent_id, publish.parent_id, hop.parent_id) == ("", root.span_id, publish.span_id)

    _, stuck, late = found["late"]
    assert (stuck.error, late.error) == ("stuck: no_consumer", "")
    assert late.links == ((stuck.trace_id, stuck.span_id),)
    assert late.end - late.start > DEADLINE * 1e9

    dead = {span.attributes["auditor.verdict"]: span for span in found["dead"] if span.kind == "CONSUMER"}
    assert dead["dead_lettered"].error == "dead_lettered: rejected"

    (unroutable,) = found["unroutable"]
    assert (unroutable.error, unroutable.attributes["error.type"]) == ("unroutable: no_queue", "unroutable")

    # and where to look is said, with a link when the settings know the page
    (line, *_) = await scene.auditor.answer("message", f"{scene.prefix}good")
    assert line["trace_id"] == TRACE
    told = await command("order", "A-2", "--config", scene.auditor.config)
    assert told.out.splitlines()[-1] == f"trace {late.trace_id}  http://jaeger/trace/{late.trace_id}"

    known = {span.span_id for span in inbox.spans} | {SPAN, ""}
    assert {span.parent_id for span in inbox.spans} <= known


async def test_a_receiver_that_is_away_loses_nothing(auditor: Auditor, inbox: Inbox, protocol: str) -> None:
    with RECEIVERS[protocol](inbox) as receiver:
        auditor.settings["tracing"] = {"enabled": True, "protocol": protocol, "endpoint": receiver.endpoint}
        port = receiver.port
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "away") as scene:
        queue = await scene.queue("inbox")
        await scene.consume(queue)
        for number in range(50):
            await scene.publish(f"m{number}", headers=order(f"A-{number}"))
        await scene.arrived(50)
        await auditor.until(lambda reader: bool(reader.tracing()["problem"]), "a problem of the exporter")
        await auditor.until(lambda reader: reader.tracing()["waiting"] >= 100 or None, "all spans in the outbox")
        # nobody is there when it ends, and after its next start somebody is, who is busy at first
        assert await asyncio.to_thread(auditor.stop) == 0
        auditor.start()
        inbox.next.extend([Answer(status=503), Answer(status=429, retry_after=1), Answer(hangs=0.5)])
        with RECEIVERS[protocol](inbox, port):
            await spans_of(scene, inbox, {f"m{number}": {"delivered"} for number in range(50)})
            await auditor.until(lambda reader: reader.tracing()["waiting"] == 0 or None, "an empty outbox")
            told = auditor.ask(lambda reader: reader.tracing())
            assert (told["spans"], told["problem"]) == (len(inbox.spans), None)
            auditor.close()
    assert auditor.log.count("The receiver of spans is away") <= 3


async def test_a_kill_repeats_no_span_under_another_id(tracing_auditor: Auditor, inbox: Inbox) -> None:
    auditor = tracing_auditor
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "killed") as scene:
        await scene.consume(await scene.queue("inbox"))
        inbox.always = Answer(hangs=1.0)  # it has the spans, and the auditor does not know it
        for number in range(20):
            await scene.publish(f"m{number}", headers=order("A-1"))
        await true(lambda: inbox.tries)
        auditor.signal(signal.SIGKILL)
        await asyncio.to_thread(auditor.wait)
        await true(lambda: inbox.requests)
        inbox.always = Answer()
        auditor.start()
        wanted = {f"{scene.prefix}m{number}" for number in range(20)}
        hops: dict[str, set[str]] = {}

        def complete() -> bool:
            for span in inbox.spans:
                if span.kind == "CONSUMER":
                    hops.setdefault(str(span.attributes["messaging.message.id"]), set()).add(span.span_id)
            return set(hops) == wanted

        await true(complete)
        await auditor.until(lambda reader: reader.tracing()["waiting"] == 0 or None, "an empty outbox")
        assert complete()
        assert Counter(span.span_id for span in inbox.spans).most_common(1)[0][1] == 2, "nothing was repeated"
        assert {len(ids) for ids in hops.values()} == {1}
        assert len({span.span_id for span in inbox.spans if span.name == "order"}) == 1
        # the same span is the same in all that it says
        seen: dict[str, Span] = {}
        for span in inbox.spans:
            assert seen.setdefault(span.span_id, span) == span


async def test_a_refusal_is_reported_and_blocks_nothing(tracing_auditor: Auditor, inbox: Inbox) -> None:
    auditor = tracing_auditor
    inbox.next.extend([Answer(status=400, says="no such tenant"), Answer(rejected=1, says="too long")])
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "refused") as scene:
        await scene.consume(await scene.queue("inbox"))
        for number in range(3):
            await scene.publish(f"m{number}", headers={"traceparent": CONTEXT})
            await true(lambda tries=number + 1: len(inbox.tries) >= tries)  # type: ignore[misc]
        await auditor.until(lambda reader: reader.tracing()["spans"] == 1 or None, "the third is told")
        told = auditor.ask(lambda reader: reader.tracing())
    assert (told["refused"], told["waiting"]) == (2, 0)
    assert "no such tenant" in auditor.log
    assert "too long" in auditor.log
