"""How soon a verdict is in the ledger, while thousands of messages a second go by. Leaves build/verdicts.json."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from bisect import bisect_right
from collections.abc import Iterator
from statistics import median, quantiles

import aio_pika
import pytest

from auditor.ledger.queries import Reader
from tests.acceptance.harness import BOUND, Auditor
from tests.benchmarks.processes import PYTHON, REPOSITORY
from tests.faults.tally import Count, Row, fault, read
from tests.faults.verdicts import RESULTS
from tests.support.vhost import Vhost

RATE = 5_000  # messages a second
QUICK_RATE = 500
SECONDS, QUICK_SECONDS = 30.0, 5.0
PAUSE = 0.25  # seconds between two losses that are planted

UNROUTABLE = 2.0  # seconds from the publish, at most
VERDICT = 5.0  # seconds from when the watermark passed the deadline, at most

# A machine that is busy with other things is no failure of the auditor; how long it took is reported.
SLACK = 3

# Of the rate: applications that reach less of it were short of CPU themselves, and so was the auditor.
REACHED = 0.9

_POLL = 0.05  # seconds: to look more often would cost the CPU that the auditor needs


@pytest.fixture
def traffic(vhost: Vhost, long: bool) -> Iterator[subprocess.Popen[bytes]]:
    """Applications that publish and consume, as a process of their own."""
    rate, seconds = (RATE, SECONDS) if long else (QUICK_RATE, QUICK_SECONDS)
    # so many messages, not so many seconds: it ends when all are consumed, so whatever is claimed of them is false
    messages = str(round(rate * seconds))
    command = [*PYTHON, "tests.benchmarks.traffic", "--url", vhost.url, "--rate", str(rate), "--messages", messages]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE)
    with process:
        yield process
        process.terminate()


def watch(auditor: Auditor, planted: dict[str, float], done: asyncio.Event) -> dict[str, list[float]]:
    """Look into the ledger again and again; return how late each planted loss was told of, in seconds."""
    late: dict[str, list[float]] = {"unroutable": [], "verdict": []}
    watermarks: list[int] = []
    seen_at: list[float] = []  # when each of these was first seen
    told: set[str] = set()
    ends: float | None = None
    with Reader.open(auditor.ledger) as reader:
        while ends is None or (len(told) < len(planted) and time.time() < ends):
            if done.is_set() and ends is None:
                ends = time.time() + BOUND
            (status,) = reader.status()
            if not watermarks or status["watermark"] > watermarks[-1]:
                watermarks.append(status["watermark"])
                seen_at.append(time.time())
            for row in reader.lost(limit=None):
                id = row["message_id"]
                if id in told or id not in planted or row["state"] not in ("unroutable", "lost"):
                    continue
                told.add(id)
                now = time.time()
                if row["state"] == "unroutable":
                    late["unroutable"].append(now - planted[id])
                else:
                    deadline_at = row["published_at"] + row["deadline_seconds"] * 1e6
                    passed = bisect_right(watermarks, deadline_at)
                    late["verdict"].append(now - seen_at[passed] if passed < len(seen_at) else 0.0)
            time.sleep(_POLL)
    return late


@fault("losses among much traffic")
@pytest.mark.timeout(300)
async def test_verdicts_are_in_time(
    vhost: Vhost, auditor: Auditor, count: Count, long: bool, request: pytest.FixtureRequest
) -> None:
    auditor.settings["tap"] |= {"canary_interval": 1.0, "canary_timeout": 5.0}  # as by default
    auditor.start()
    await auditor.until(lambda reader: (row := auditor.status(reader)) and row["watermark"], "a watermark")
    traffic = request.getfixturevalue("traffic")
    planted: dict[str, float] = {}
    done = asyncio.Event()
    watching = asyncio.create_task(asyncio.to_thread(watch, auditor, planted, done))
    async with await aio_pika.connect(vhost.url, timeout=BOUND) as connection:
        channel = await connection.channel()
        await channel.declare_queue("shelf", arguments={"x-message-ttl": 0})
        nowhere = await channel.declare_exchange("nowhere", "topic")
        while traffic.poll() is None:
            for to, key in ((nowhere, "nobody"), (channel.default_exchange, "shelf")):
                id = f"{key}-{len(planted)}"
                planted[id] = time.time()
                await to.publish(aio_pika.Message(b"", message_id=id), key, mandatory=False)
            await asyncio.sleep(PAUSE)
        done.set()
        late = await watching
    figures = json.loads(traffic.stdout.read())
    rows = {what: _figures(seconds) for what, seconds in late.items()}
    row: Row = {"broker": vhost.broker.version, "messages_per_s": round(figures["messages_per_s"]), **rows}
    if long:
        others = [other for other in read(RESULTS) if other["broker"] != row["broker"]]
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps([*others, row], indent=1) + "\n")
    must = [
        ("", "unroutable", "no_queue") if id.startswith("nobody") else ("shelf", "lost", "queue_empty")
        for id in planted
    ]
    claims = [
        (row["queue"] or "", row["state"], row["reason"]) for row in auditor.ask(lambda reader: reader.lost(limit=None))
    ]
    count.hold(must, claims)
    assert not count.wrong
    if row["messages_per_s"] >= REACHED * (RATE if long else QUICK_RATE):
        # the median: on a machine that has other things to do, anything may take long
        assert median(late["unroutable"]) < SLACK * UNROUTABLE, row
        assert median(late["verdict"]) < SLACK * VERDICT, row


def _figures(seconds: list[float]) -> Row:
    return {
        "count": len(seconds),
        "median_s": round(median(seconds), 3),
        "p95_s": round(quantiles(seconds, n=20)[-1], 3),
        "max_s": round(max(seconds), 3),
    }
