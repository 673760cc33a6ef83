"""Trace messages recorded from real brokers; `record.py` makes them, `load` gives them back."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import NamedTuple

from auditor.tap.wire import Content

RECEIVED_AT = 1_800_000_000_000_000  # microseconds; a capture has no time of its own


class Capture(NamedTuple):
    """One trace message."""

    version: str  # of the broker
    scenario: str  # its name in `scenarios.SCENARIOS`
    kind: str  # "publish" or "deliver"
    number: int  # counts the messages of one kind within the scenario, from 1
    content: Content

    def __str__(self) -> str:
        return f"{self.version}-{self.scenario}-{self.kind}-{self.number}"


def load() -> list[Capture]:
    """Return all captures, publishes before deliveries within each scenario."""
    found = [_read(path) for path in Path(__file__).parent.glob("*/*.json")]
    return sorted(found, key=lambda one: (one.version, one.scenario, one.kind != "publish", one.number))


def _read(path: Path) -> Capture:
    scenario, event, _ = path.name.split(".")
    kind, _, number = event.partition("-")
    message = json.loads(path.read_text(encoding="utf-8"))
    content = Content(
        1,
        False,
        message["routing_key"].encode(),
        base64.b64decode(message["properties"]),
        base64.b64decode(message["body"]),
        RECEIVED_AT,
    )
    return Capture(path.parent.name, scenario, kind, int(number), content)
