"""One request and what comes back, over HTTP and gRPC, from real receivers."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from auditor.windows.otlp import Later, Refused, Sender, Taken, request, sender
from tests.support.otlp import RECEIVERS, Answer, Inbox

REQUEST = request([Span(name="one"), Span(name="other")], service="rabbitmq", version="1")


def test_spans_arrive(to_inbox: Sender, inbox: Inbox) -> None:
    assert to_inbox.send(REQUEST) == Taken()
    assert inbox.requests == [REQUEST]


def test_a_partial_success_says_how_many_and_why(to_inbox: Sender, inbox: Inbox) -> None:
    inbox.next.append(Answer(rejected=1, says="too long"))
    assert to_inbox.send(REQUEST) == Taken(1, "too long")


def test_a_refusal_is_final_and_has_its_text(to_inbox: Sender, inbox: Inbox) -> None:
    inbox.next.append(Answer(status=400, says="no such tenant"))
    result = to_inbox.send(REQUEST)
    assert isinstance(result, Refused)
    assert "no such tenant" in result.why
    assert len(inbox.tries) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_receiver_is_for_later_and_says_when(to_inbox: Sender, inbox: Inbox, status: int) -> None:
    inbox.next.append(Answer(status=status, says="busy", retry_after=7))
    result = to_inbox.send(REQUEST)
    assert isinstance(result, Later)
    assert result.after == 7
    assert "busy" in result.why
    assert len(inbox.tries) == 1  # when it is tried again is not the library's choice


def test_a_receiver_that_hangs_is_given_up(to_inbox: Sender, inbox: Inbox) -> None:
    inbox.next.append(Answer(hangs=5))
    before = time.monotonic()
    assert isinstance(to_inbox.send(REQUEST, limit=0.3), Later)
    assert time.monotonic() - before < 4


def test_a_receiver_that_is_away_and_comes_back(inbox: Inbox, protocol: str) -> None:
    with RECEIVERS[protocol](inbox) as receiver:
        port = receiver.port
    one = sender(protocol=protocol, endpoint=f"http://127.0.0.1:{port}")  # type: ignore[arg-type]
    assert isinstance(one.send(REQUEST, limit=2), Later)
    with RECEIVERS[protocol](inbox, port):
        end = time.monotonic() + 20
        while not isinstance(result := one.send(REQUEST, limit=2), Taken):
            assert time.monotonic() < end, result
            time.sleep(0.1)
    one.close()
    assert inbox.requests == [REQUEST]


def test_the_standard_variables_are_heard(monkeypatch: pytest.MonkeyPatch, inbox: Inbox, protocol: str) -> None:
    with RECEIVERS[protocol](inbox) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "tenant=a%20b")
        one = sender()
        assert one.send(REQUEST) == Taken()
        one.close()
    assert inbox.headers[0]["tenant"] == "a b"


def test_the_settings_go_before_the_variables(monkeypatch: pytest.MonkeyPatch, inbox: Inbox, protocol: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "nonsense")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")
    with RECEIVERS[protocol](inbox) as receiver:
        one = sender(protocol=receiver.protocol, endpoint=receiver.endpoint, headers="authorization=Bearer%20x")
        assert one.send(REQUEST) == Taken()
        one.close()
    assert inbox.headers[0]["authorization"] == "Bearer x"


def test_an_unknown_protocol_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(ValueError, match="http/json"):
        sender()


def test_a_missing_file_of_authorities_is_found_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.pem"):
        sender(protocol="grpc", endpoint="https://127.0.0.1:1", ca_file=tmp_path / "none.pem")


def test_the_endpoint_is_shown_without_what_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:secret@collector:4318")
    assert sender(protocol="http/protobuf").endpoint == "https://collector:4318/v1/traces"
