"""Receivers for both protocols."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from auditor.windows.otlp import Sender, sender
from tests.support.otlp import RECEIVERS, Inbox


@pytest.fixture(params=["http/protobuf", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave nothing of the shell's own OpenTelemetry in the environment."""
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def to_inbox(inbox: Inbox, protocol: str) -> Iterator[Sender]:
    """A sender to a receiver that fills the inbox."""
    with RECEIVERS[protocol](inbox) as receiver:
        one = sender(protocol=receiver.protocol, endpoint=receiver.endpoint)
        yield one
        one.close()
