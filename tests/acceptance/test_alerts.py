"""Alerts, with a real Alertmanager: each is notified once, with the right labels, in time, and it ends."""

from __future__ import annotations

import asyncio
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from auditor.core.alerts import Against
from auditor.demo.server import Broker
from auditor.ledger.queries import Reader
from auditor.windows.alerts import Reach, Recipient, reach
from auditor.windows.alerts import alertmanager as api
from tests.acceptance.harness import CANARY, DEADLINE, QUEUE, Auditor, command
from tests.acceptance.scene import Scene, open_scene
from tests.support.observers import Alertmanager, Witness
from tests.support.vhost import Vhost

IN_TIME = 10.0  # seconds from the verdict to the notification

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def witness() -> Iterator[Witness]:
    witness = Witness()
    yield witness
    witness.close()


@pytest.fixture
def alertmanager(witness: Witness, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alertmanager]:
    alertmanager = Alertmanager(tmp_path_factory.mktemp("alertmanager"), witness)
    alertmanager.start()
    yield alertmanager
    alertmanager.stop()


@pytest.fixture
async def scene(auditor: Auditor, alertmanager: Alertmanager) -> AsyncIterator[Scene]:
    """A scene with an auditor that tells this Alertmanager."""
    auditor.settings["alerts"] = {
        "alertmanagers": [alertmanager.url],
        "labels": {"team": "orders"},
        "runbook": "https://git.internal/operating.md",
    }
    auditor.settings["stages"] = [
        {"name": "NEW", "system": "shop", "deadline": 2.0},
        {"name": "DONE", "system": "crm"},
    ]
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "alerts") as scene:
        yield scene


async def notified(
    witness: Witness, status: str, name: str, *, where: Callable[[dict[str, str]], bool] = lambda labels: True,
    bound: float = 30.0,
) -> list[dict[str, Any]]:  # fmt: skip
    """Wait until an alert was notified, and return all such notifications."""
    end = time.monotonic() + bound
    while True:
        if found := [alert for alert in witness.notified(status, name) if where(alert["labels"])]:
            return found
        assert time.monotonic() < end, f"no {status} {name} in {bound} s, but {[post[2] for post in witness.posts]}"
        await asyncio.sleep(0.05)


def since_verdict(auditor: Auditor) -> float:
    """Seconds from the newest verdict to now."""
    judged_at: int = max(row["judged_at"] or row["published_at"] for row in auditor.ask(lambda reader: reader.lost()))
    return time.time() - judged_at / 1e6


async def test_each_verdict_is_notified_once_with_its_labels_and_in_time(
    scene: Scene, alertmanager: Alertmanager, witness: Witness
) -> None:
    auditor = scene.auditor
    letters, dead = await scene.dead_letter_queue("letters")
    await scene.consume(letters)
    await scene.lose("lost", headers={"x-order-id": "A-1"})
    await scene.queue("unserved")
    await scene.publish("stuck", "unserved")
    await scene.publish("nowhere", "no-such-key", exchange=await scene.exchange("direct", "direct"))
    expiring = await scene.queue("expiring", x_message_ttl=100, **dead)
    await scene.publish("expired", "expiring")
    await scene.arrived(1)
    expected = [
        ("MessageUndelivered", "critical", "inbox", "queue_empty"),
        ("MessageUndelivered", "warning", "unserved", "no_consumer"),
        ("MessageUnroutable", "critical", "", "no_queue"),
        ("MessageDeadLettered", "warning", "expiring", "expired"),
    ]
    assert await reach(Recipient(url=api(alertmanager.url)), "POST") == (Reach.WELL, "HTTP 200 OK")
    for name, severity, queue, reason in expected:
        full = scene.prefix + queue if queue else None

        def mine(labels: dict[str, str], reason: str = reason, full: str | None = full) -> bool:
            return labels["reason"] == reason and labels.get("queue") == full

        (alert,) = await notified(witness, "firing", name, where=mine)
        wanted = {"alertname": name, "severity": severity, "vhost": auditor.vhost, "flow": "all", "reason": reason}
        assert alert["labels"] == {**wanted, "team": "orders"} | ({"queue": full} if full else {})
        assert alert["annotations"]["count"] == "1"
        assert set(alert["annotations"]) == {"summary", "description", "count", "oldest", "examples", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"https://git.internal/operating.md#{name.lower()}"
    assert "order A-1" in (await notified(witness, "firing", "MessageUndelivered"))[0]["annotations"]["examples"] or (
        "order A-1" in json.dumps([post[2] for post in witness.posts])
    )
    await expiring.delete()
    # however often they are sent again, each was notified once
    await asyncio.sleep(5)
    assert len(witness.notified("firing", "MessageUndelivered")) == 2
    assert len(witness.notified("firing", "AuditorWatchdog")) == 1


async def test_a_verdict_is_notified_within_ten_seconds(scene: Scene, witness: Witness) -> None:
    await scene.lose("lost")
    began = time.time()
    await notified(witness, "firing", "MessageUndelivered")
    # the deadline, the inspection and two canaries of margin belong to the verdict, not to the alert
    assert since_verdict(scene.auditor) < IN_TIME
    assert time.time() - began < DEADLINE + 20 * CANARY + IN_TIME


async def test_it_ends_when_the_message_is_delivered_after_all(scene: Scene, witness: Witness) -> None:
    inbox = await scene.queue("inbox")
    await scene.publish("late")
    await notified(witness, "firing", "MessageUndelivered")
    await scene.consume(inbox)
    await scene.arrived(1)
    (alert,) = await notified(witness, "resolved", "MessageUndelivered")
    assert alert["labels"]["reason"] == "no_consumer"


async def test_it_ends_when_an_operator_acknowledges_it_and_begins_again_with_the_next_loss(
    scene: Scene, witness: Witness
) -> None:
    await scene.lose("one")
    await notified(witness, "firing", "MessageUndelivered")
    ledger = str(scene.auditor.ledger)
    nothing = await command("ack", "--note", "x", "--flow", "no-such-flow", "--ledger", ledger)
    assert nothing.code == 1
    careless = await command("ack", "--note", "everything?", "--ledger", ledger)
    assert careless.code == 2
    done = await command("ack", "--flow", "all", "--note", "sent by hand", "--by", "ada", "--ledger", ledger)
    assert (done.code, done.err) == (0, "Acknowledged: 1 hops and 0 orders.\n")
    await notified(witness, "resolved", "MessageUndelivered")
    (row,) = (await command("ack", "--list", "--json", "--ledger", ledger)).rows
    assert (row["who"], row["note"], row["chosen"], row["hops"]) == ("ada", "sent by hand", "--flow=all", 1)
    assert len(await scene.auditor.answer("lost")) == 1  # it is acknowledged, not undone
    before = len(witness.notified("firing", "MessageUndelivered"))
    await scene.lose("two")

    async def again() -> bool:
        return len(witness.notified("firing", "MessageUndelivered")) > before

    end = time.monotonic() + 30
    while not await again():
        assert time.monotonic() < end
        await asyncio.sleep(0.1)
    assert witness.notified("firing", "MessageUndelivered")[-1]["annotations"]["count"] == "1"


async def test_an_order_that_is_stuck(scene: Scene, witness: Witness) -> None:
    inbox = await scene.queue("inbox")
    await scene.consume(inbox)
    await scene.publish("m1", body=b'{"orderId": "A-7", "stage": "NEW"}', content_type="application/json")
    (alert,) = await notified(witness, "firing", "OrderStuck")
    assert alert["labels"] == {
        "alertname": "OrderStuck", "severity": "warning", "vhost": scene.auditor.vhost, "stage": "NEW",
        "system": "shop", "team": "orders",
    }  # fmt: skip
    assert "order A-7" in alert["annotations"]["examples"]
    (row,) = await scene.auditor.answer("orders", "--stuck")
    assert (row["order_id"], row["stage"], row["stuck"], row["blind"]) == ("A-7", "NEW", 1, 0)
    await scene.publish("m2", body=b'{"orderId": "A-7", "stage": "DONE"}', content_type="application/json")
    await notified(witness, "resolved", "OrderStuck")
    assert await scene.auditor.answer("orders") == []


async def test_a_restart_neither_repeats_nor_forgets(
    scene: Scene, witness: Witness, alertmanager: Alertmanager
) -> None:
    auditor = scene.auditor
    await scene.lose("lost")
    await scene.publish("order", body=b'{"orderId": "A-7", "stage": "NEW"}', content_type="application/json")
    for name in ("MessageUndelivered", "OrderStuck"):
        await notified(witness, "firing", name)
    began = {alert["labels"]["alertname"]: alert["startsAt"] for alert in alertmanager.alerts()}
    queues = {alert["labels"].get("queue") for alert in alertmanager.alerts()}
    auditor.stop()
    auditor.start()
    await auditor.reading()
    await asyncio.sleep(6)  # three looks
    assert {alert["labels"]["alertname"]: alert["startsAt"] for alert in alertmanager.alerts()} == began
    assert not witness.notified("resolved", "OrderStuck")
    # and one of Alertmanager's: it is told again what it forgot, with the next news or after a minute without any
    alertmanager.stop()
    for path in (alertmanager.folder / "data").iterdir():
        path.unlink()
    alertmanager.start()
    await scene.lose("news", "another")
    end = time.monotonic() + 90
    while {alert["labels"].get("queue") for alert in alertmanager.alerts()} < {*queues, scene.prefix + "another"}:
        assert time.monotonic() < end
        await asyncio.sleep(0.2)
    assert {alert["labels"]["alertname"] for alert in alertmanager.alerts()} >= set(began)


async def test_what_ended_while_the_auditor_was_away_ends(scene: Scene, witness: Witness) -> None:
    auditor = scene.auditor
    inbox = await scene.queue("inbox")
    await scene.publish("late")
    await notified(witness, "firing", "MessageUndelivered")
    auditor.stop()
    await scene.consume(inbox)
    await scene.arrived(1)
    assert not witness.notified("resolved", "MessageUndelivered")
    auditor.start()
    await notified(witness, "resolved", "MessageUndelivered")


async def test_the_auditor_tells_that_it_is_blind_and_of_the_gap(scene: Scene, witness: Witness) -> None:
    auditor = scene.auditor
    api = auditor.broker.management
    # the queue is gone: events may have been missed
    await asyncio.to_thread(api.delete, "queues", auditor.vhost, QUEUE)
    (alert,) = await notified(witness, "firing", "AuditorGap")
    assert (alert["labels"]["reason"], alert["labels"]["vhost"]) == ("queue_gone", auditor.vhost)
    await asyncio.to_thread(api.put, "permissions", auditor.vhost, auditor.user, json=_NOTHING)
    for name in await auditor.connections():
        await asyncio.to_thread(api.delete, "connections", name)
    await notified(witness, "firing", "AuditorBlind")
    _, ready = await health(auditor, "readyz")
    assert ready["ready"] is False
    assert "not connected to the broker" in [reason["reason"] for reason in ready["reasons"]]


async def test_the_auditor_tells_that_it_is_behind(
    auditor: Auditor, alertmanager: Alertmanager, witness: Witness
) -> None:
    # no auditor is ever less behind than this: the canary has to come back
    auditor.settings["alerts"] = {"alertmanagers": [alertmanager.url], "lag": 0.001}
    auditor.start()
    await auditor.reading()
    (alert,) = await notified(witness, "firing", "AuditorLagging")
    assert alert["labels"] == {"alertname": "AuditorLagging", "severity": "warning", "vhost": auditor.vhost}


_NOTHING = {"configure": "^$", "write": "^$", "read": "^$"}


async def health(auditor: Auditor, what: str) -> tuple[int, dict[str, Any]]:
    """What the auditor answers about its health."""
    address = re.findall(r"Serving metrics and health at (\S+)", auditor.log)[-1]

    def get() -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"{address}/{what}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    return await asyncio.to_thread(get)


async def test_health(scene: Scene) -> None:
    assert await health(scene.auditor, "healthz") == (200, {"alive": True})
    assert await health(scene.auditor, "readyz") == (200, {"ready": True, "reasons": []})


async def test_two_auditors_give_one_notification(
    scene: Scene, witness: Witness, alertmanager: Alertmanager, broker: Broker, tmp_path: Path
) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    second = Auditor(broker, scene.auditor.vhost, folder)
    second.settings["alerts"] = scene.auditor.settings["alerts"]
    second.settings["tap"] |= {"queue": "auditor.second", "canary_exchange": "auditor.second"}
    rights = "^auditor\\.second$"
    broker.add_user(
        second.user, second.password, vhost=scene.auditor.vhost, configure=rights, write=rights,
        read=r"^(auditor\.second|amq\.rabbitmq\.trace)$",
    )  # fmt: skip
    try:
        second.start()
        await second.reading()
        await scene.lose("lost")
        for auditor in (scene.auditor, second):
            await auditor.until(lambda reader: reader.lost(), "a verdict")
        await notified(witness, "firing", "MessageUndelivered")
        await asyncio.sleep(6)
        assert len(witness.notified("firing", "MessageUndelivered")) == 1
        assert len([a for a in alertmanager.alerts() if a["labels"]["alertname"] == "MessageUndelivered"]) == 1
    finally:
        second.close()


@pytest.mark.parametrize("trouble", ["away", "slow", "500"])
async def test_a_recipient_in_trouble_delays_nothing_else(
    trouble: str, auditor: Auditor, alertmanager: Alertmanager, witness: Witness
) -> None:
    bad = Witness()
    url = bad.url
    if trouble == "away":
        bad.close()
    bad.delay, bad.status = (30.0, 200) if trouble == "slow" else (0.0, 500)
    try:
        auditor.settings["alerts"] = {"alertmanagers": [url, alertmanager.url]}
        auditor.start()
        await auditor.reading()
        async with open_scene(auditor, "trouble") as scene:
            await scene.lose("lost")
            await notified(witness, "firing", "MessageUndelivered")
            assert since_verdict(auditor) < IN_TIME
            before = time.monotonic()
            await auditor.seen()  # the watermark goes on
            assert time.monotonic() - before < IN_TIME
        before = time.monotonic()
        assert auditor.stop() == 0
        assert time.monotonic() - before < IN_TIME
    finally:
        if trouble != "away":
            bad.delay = 0
            bad.close()


async def test_a_refused_request_is_said_and_not_repeated(auditor: Auditor, vhost: Vhost) -> None:
    bad = Witness()
    bad.status = 400
    try:
        auditor.settings["alerts"] = {"webhooks": [f"{bad.url}/hook"], "user": "us", "password": "secret-word"}
        auditor.start()
        await auditor.reading()
        await auditor.until(lambda reader: bad.posts, "a post")
        await asyncio.sleep(5)
        ((path, headers, body),) = bad.posts
        assert path == "/hook"
        assert headers["Authorization"].startswith("Basic ")
        assert [alert["labels"]["alertname"] for alert in body] == ["AuditorWatchdog"]
        assert "HTTP 400 said by the witness" in auditor.log
        assert "secret-word" not in auditor.log
    finally:
        bad.close()


async def test_fifty_thousand_losses_are_a_handful_of_alerts(
    scene: Scene, witness: Witness, alertmanager: Alertmanager
) -> None:
    auditor, many, queues = scene.auditor, 50_000, 5
    inboxes = [await scene.queue(f"inbox-{number}") for number in range(queues)]
    channel = await scene.connection.channel(publisher_confirms=False)
    for number in range(many):
        body = aio_pika.Message(b"{}", message_id=f"m{number}")
        await channel.default_exchange.publish(body, inboxes[number % queues].name, mandatory=False)
    await channel.close()  # its answer says that all of them have been routed
    for inbox in inboxes:
        await inbox.purge()
    await auditor.until(
        lambda reader: (
            sum(group.hops for group in _against(reader, auditor.pid) if group.reason == "queue_empty") == many
        ),
        "all are lost, and the last look is over",
        bound=90,
    )
    await asyncio.sleep(10)
    firing = {json.dumps(alert["labels"]) for alert in witness.notified("firing", "MessageUndelivered")}
    assert 1 <= len(firing) <= 3 * queues  # a queue that was looked at before its purge holds some for a while
    assert len(witness.notified("firing", "MessageUndelivered")) == len(firing)
    lost = [
        alert
        for alert in alertmanager.alerts()
        if alert["labels"].get("reason") == "queue_empty" and alert["status"]["state"] == "active"
    ]
    assert len(lost) == queues
    done = await command("ack", "--all", "--note", "an exercise", "--ledger", str(auditor.ledger))
    assert done.err == f"Acknowledged: {many:,} hops and 0 orders.\n"
    assert len(await notified(witness, "resolved", "MessageUndelivered")) <= len(firing)


def _against(reader: Reader, pid: int) -> Sequence[Against]:
    now = time.time_ns() // 1000
    return reader.survey(pid=pid, now=now, since=now - 3_600_000_000, gaps_since=now).against
