"""Telling alerts: what is sent, how often, and what becomes of a refusal."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from auditor import tls
from auditor.core.alerts import Alert, labels
from auditor.windows import alerts as module
from auditor.windows.alerts import Recipient, Teller, alertmanager, link, message

NOW = 1_760_000_000_000_000  # 2025-10-09T08:53:20Z
SECOND = 1_000_000


def alert(name: str = "MessageUndelivered", *, ended_at: int | None = None, **others: str) -> Alert:
    about = {"alertname": name, "queue": "q"} | others
    return Alert(labels(**about), NOW, ended_at, 1, {"summary": "lost"})


class Receiver:
    """Takes posts and answers with these statuses in turn, the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses) or [200]
        self.posts: list[list[dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.posts.append(await request.json())
        self.headers.append(dict(request.headers))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return web.Response(status=status, text="because")

    @asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
        app = web.Application()
        app.add_routes([web.post("/api/v2/alerts", self.take)])
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        self.url = f"http{'s' if context else ''}://localhost:{runner.addresses[0][1]}"
        yield self
        await runner.cleanup()


@asynccontextmanager
async def telling(receiver: Receiver, alerts: list[Alert], **recipient: Any) -> AsyncIterator[Teller]:
    teller = Teller(Recipient(url=alertmanager(receiver.url), **recipient), lambda: alerts)
    task = asyncio.create_task(teller.run())
    yield teller
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(question: Callable[[], bool], wait: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    async with asyncio.timeout(20):
        while not question():
            await wait(0.01)


def test_a_message_is_what_alertmanager_takes() -> None:
    assert message(alert(), NOW + SECOND) == {
        "labels": {"alertname": "MessageUndelivered", "queue": "q"},
        "annotations": {"summary": "lost"},
        "startsAt": "2025-10-09T08:53:20.000Z",
        "endsAt": "2025-10-09T08:57:21.000Z",  # four minutes from now: a dead auditor's alerts end
    }
    assert message(alert(ended_at=NOW + 5 * SECOND), NOW + 9 * SECOND)["endsAt"] == "2025-10-09T08:53:25.000Z"


def test_a_link_shows_exactly_what_it_is_about() -> None:
    page = "http://host:8001/"
    about = alert(severity="critical", flow="crm->mes", reason="queue_empty")
    assert link(about, page) == "http://host:8001/lost?flow=crm-%3Emes&queue=q&reason=queue_empty&acknowledged=no"
    assert (
        link(Alert(labels(alertname="OrderStuck", stage="A"), 1, None, 1, {}), page)
        == "http://host:8001/orders?stage=A&stuck=yes&acknowledged=no"
    )
    assert link(Alert(labels(alertname="AuditorWatchdog"), 1, None, 1, {}), page) == "http://host:8001/status"
    told = message(about, NOW, page)
    assert told["generatorURL"] == told["annotations"]["page"] == link(about, page)
    assert told["annotations"] == {"summary": "lost", "page": link(about, page)}


async def test_what_is_new_is_told_at_once_and_everything_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    alerts = [alert()]
    async with Receiver().listening() as receiver, telling(receiver, alerts) as teller:
        await until(lambda: len(receiver.posts) == 1)
        await asyncio.sleep(0.2)
        assert len(receiver.posts) == 1
        alerts.append(alert("OrderStuck"))
        teller.wake()
        await until(lambda: len(receiver.posts) == 2)
        assert len(receiver.posts[1]) == 2
        monkeypatch.setattr(module, "RESEND", 0.05)
        teller.wake()
        await until(lambda: len(receiver.posts) >= 5)
        assert teller.results["taken"] >= 9


async def test_many_go_in_batches() -> None:
    alerts = [alert(queue=str(number)) for number in range(600)]
    async with Receiver().listening() as receiver, telling(receiver, alerts):
        await until(lambda: len(receiver.posts) == 3)
        assert [len(post) for post in receiver.posts] == [256, 256, 88]


async def test_nothing_is_not_sent() -> None:
    async with Receiver().listening() as receiver, telling(receiver, []):
        await asyncio.sleep(0.2)
        assert receiver.posts == []


@pytest.mark.parametrize("status", [500, 503, 429, 401, 302])
async def test_a_failure_is_tried_again(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", (0.01, 0.02))
    async with Receiver(status, status, 200).listening() as receiver, telling(receiver, [alert()]) as teller:
        await until(lambda: teller.results["taken"] == 1)
        assert teller.results == {"taken": 1, "refused": 0, "failed": 2}


async def test_a_refusal_is_not_tried_again_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_PAUSE", (0.01, 0.02))
    alerts = [alert(queue=str(number)) for number in range(300)]
    async with Receiver(400, 200).listening() as receiver, telling(receiver, alerts) as teller:
        await until(lambda: teller.results["taken"] == 44)  # the second batch goes out all the same
        await asyncio.sleep(0.2)
        assert len(receiver.posts) == 2
        assert teller.results == {"taken": 44, "refused": 256, "failed": 0}
    assert [record.getMessage() for record in caplog.records if "HTTP 400 because" in record.getMessage()]


async def test_nobody_there_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(module, "_PAUSE", (0.01, 0.02))
    async with Receiver().listening() as receiver:
        pass
    async with telling(receiver, [alert()]) as teller:
        await until(lambda: teller.results["failed"] >= 5)
    assert len([record for record in caplog.records if record.name == module.__name__]) == 1


async def test_basic_and_bearer() -> None:
    async with Receiver().listening() as receiver:
        async with telling(receiver, [alert()], user="ada", password="pass"):
            await until(lambda: len(receiver.posts) == 1)
        async with telling(receiver, [alert()], token="token-1"):
            await until(lambda: len(receiver.posts) == 2)
    assert [headers["Authorization"] for headers in receiver.headers] == ["Basic YWRhOnBhc3M=", "Bearer token-1"]


async def test_tls_with_the_authority_of_the_settings_and_only_with_it(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(lambda: subprocess.run(make, check=True, capture_output=True))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    async with Receiver().listening(context) as receiver:
        async with telling(receiver, [alert()], tls=tls.context(None)) as teller:
            await until(lambda: teller.results["failed"] >= 1)
            assert receiver.posts == []
        async with telling(receiver, [alert()], tls=tls.context(certificate)) as teller:
            await until(lambda: teller.results["taken"] == 1)
    assert json.dumps(receiver.posts).count("MessageUndelivered") == 1


def test_a_recipient_hides_what_is_secret() -> None:
    assert "secret" not in repr(Recipient(url="http://host", password="secret", token="secret"))
