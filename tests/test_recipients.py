"""Those who are to be told something are tried: what is wrong is said with what to do about it, and no secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from auditor.finding import Finding
from auditor.recipients import try_all
from auditor.settings import Settings
from tests.support.observers import Witness, free_port
from tests.support.otlp import RECEIVERS, Answer, Inbox


@pytest.fixture
def witness() -> Iterator[Witness]:
    witness = Witness()
    yield witness
    witness.close()


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROTOCOL", "ENDPOINT", "HEADERS"):
        monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{name}", raising=False)


def nobody() -> str:
    return f"http://127.0.0.1:{free_port()}"


def settings(**given: Any) -> Settings:
    return Settings(**given)


async def tried(**given: Any) -> Finding:
    (finding,) = await try_all(settings(**given))
    return finding


def check(finding: Finding, subject: str, *words: str) -> None:
    """Check that something is wrong, with these words in what it says and in the advice."""
    assert not finding.good
    assert finding.subject == subject
    for word in words:
        assert word in finding.says + finding.advice, finding


async def test_nobody_to_be_told_is_no_finding() -> None:
    assert await try_all(Settings()) == []


async def test_an_alertmanager_that_takes_alerts_is_told_none(witness: Witness) -> None:
    finding = await tried(alerts={"alertmanagers": [witness.url], "token": "hunter2"})
    assert (finding.good, finding.says) == (True, "takes alerts")
    ((path, headers, body),) = witness.posts
    assert (path, headers["Authorization"], body) == ("/api/v2/alerts", "Bearer hunter2", [])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, ("401", "said by the witness", "alerts.user", "alerts.token")),
        (403, ("403", "alerts.password")),
        (404, ("404", "--web.route-prefix")),
        (302, ("302", "address")),
        (503, ("503", "log")),
    ],
)
async def test_an_alertmanager_that_takes_none(witness: Witness, status: int, words: tuple[str, ...]) -> None:
    witness.status = status
    finding = await tried(alerts={"alertmanagers": [witness.url], "user": "me", "password": "hunter2"})
    check(finding, f"Alertmanager {witness.url.removeprefix('http://')}", *words)


async def test_what_is_away(witness: Witness) -> None:
    here, away = witness.url, nobody()
    good, bad = await try_all(settings(alerts={"alertmanagers": [here], "webhooks": [f"{away}/hook"]}))
    assert good.good
    check(bad, f"webhook {away.removeprefix('http://')}", "Connect call failed", "firewall")


async def test_a_webhook_is_not_posted_to(witness: Witness) -> None:
    """The witness knows no HEAD, as most webhooks."""
    finding = await tried(alerts={"webhooks": [f"{witness.url}/hook"]})
    assert (finding.good, finding.says, witness.posts) == (True, "answers", [])


async def test_http_where_tls_is_wanted(witness: Witness) -> None:
    finding = await tried(alerts={"alertmanagers": [witness.url.replace("http:", "https:")]})
    check(finding, f"Alertmanager {witness.url.removeprefix('http://')}", "SSL", "alerts.ca_file", "alerts.cert_file")


async def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    files = {"ca_file": tmp_path / "ca.pem"}
    check(await tried(alerts={"alertmanagers": ["https://localhost:1"], **files}), "alerts", "ca.pem", "PEM")


@pytest.mark.parametrize("protocol", RECEIVERS)
async def test_a_receiver_that_takes_spans_gets_none(protocol: str) -> None:
    inbox = Inbox()
    with RECEIVERS[protocol](inbox) as receiver:
        finding = await tried(tracing={"enabled": True, "protocol": protocol, "endpoint": receiver.endpoint})
    assert (finding.good, finding.says) == (True, "takes spans")
    assert str(receiver.port) in finding.subject
    assert (len(inbox.requests), inbox.spans) == (1, [])


@pytest.mark.parametrize("protocol", RECEIVERS)
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(status=401, says="who is hunter2!?"), ("who is ***?", "tracing.headers")),
        (Answer(status=400, says="no such tenant"), ("no such tenant", "4318", "4317")),
        (Answer(status=503, says="not now"), ("not now", "waits in the ledger")),
    ],
)
async def test_a_receiver_that_takes_none(protocol: str, answer: Answer, words: tuple[str, ...]) -> None:
    inbox = Inbox(always=answer)
    with RECEIVERS[protocol](inbox) as receiver:
        finding = await tried(
            tracing={
                "enabled": True,
                "protocol": protocol,
                "endpoint": receiver.endpoint,
                "headers": "token=hunter2%21",
            }
        )
    check(finding, finding.subject, *words)
    assert inbox.headers[0]["token"] == "hunter2!"
    assert "hunter2" not in repr(finding)


@pytest.mark.parametrize("protocol", RECEIVERS)
async def test_a_receiver_that_is_away(protocol: str) -> None:
    finding = await tried(tracing={"enabled": True, "protocol": protocol, "endpoint": nobody()})
    check(finding, finding.subject, "Connection refused", "tracing.protocol")


async def test_a_receiver_of_http_is_asked_for_tls(witness: Witness) -> None:
    endpoint = witness.url.replace("http:", "https:")
    finding = await tried(tracing={"enabled": True, "protocol": "http/protobuf", "endpoint": endpoint})
    check(finding, f"receiver of spans {endpoint}/v1/traces", "SSL", "tracing.ca_file")


async def test_settings_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    check(await tried(tracing={"enabled": True}), "receiver of spans", "http/json")
