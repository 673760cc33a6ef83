"""The kinds of values that settings are made of: durations, sizes, patterns, sources.

A function that refuses a value raises ValueError with what was expected; the letter puts the rest around it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from auditor import sources

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?) *([A-Za-z]*)")

LONGEST = 100 * 365 * 86400  # seconds; microseconds of it still fit into the ledger's integers many times over


def duration(value: Any) -> float:
    """Read a duration, "250ms", "60s", "5m", "2h", "30d" or a number of seconds, as seconds."""
    seconds = _quantity(value, _SECONDS, "s")
    if seconds is None or not 0 < seconds <= LONGEST:
        raise ValueError('a duration above 0, such as "250ms", "60s", "5m", "2h", "30d" or a number of seconds')
    return seconds


def size(value: Any) -> int:
    """Read a size, "64MiB", "1GiB" or a number of bytes, as bytes."""
    number = _quantity(value, _BYTES, "B")
    if number is None or number < 1 or number != int(number):
        raise ValueError('a size above 0, such as "512KiB", "64MiB", "1GiB" or a number of bytes')
    return int(number)


def microseconds(seconds: float) -> int:
    """Give seconds as the integer microseconds in which the core counts."""
    return round(seconds * 1_000_000)


def _quantity(value: Any, units: Mapping[str, float], plain: str) -> float | None:
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip())
        if match is None or (match[2] or plain) not in units:
            return None
        return float(match[1]) * units[match[2] or plain]
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _name(value: str) -> str:
    # 255 bytes is what AMQP leaves for names (a short string)
    if not value.strip() or not value.isprintable() or len(value.encode()) > 255:
        raise ValueError("a name of 1 to 255 printable characters")
    return value


def _own_name(value: str) -> str:
    """Check the name of a queue or exchange that is declared: the broker keeps `amq.` to itself."""
    if _name(value).startswith("amq.") or len(value.encode()) > 200:
        raise ValueError('a name of at most 200 bytes that does not begin with "amq."')
    return value


def _http_url(value: str) -> str:
    expected = "http://HOST:PORT or https://HOST:PORT"
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError(expected) from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{expected} without user and password; they go to options of their own")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(expected)
    return value.rstrip("/")


def _label_name(value: str) -> str:
    if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", value) or value in OWN_LABELS:
        raise ValueError("a label's name of letters, digits and _, other than the auditor's own")
    return value


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    if value and (not host or not port.isdecimal() or int(port) > 65_535):
        raise ValueError('HOST:PORT, such as "127.0.0.1:9464", or nothing')
    return value


OWN_LABELS = frozenset({"alertname", "severity", "vhost", "flow", "queue", "reason", "stage", "system"})
"""The labels that the auditor gives its alerts."""

HttpUrl = Annotated[str, AfterValidator(_http_url)]
LabelName = Annotated[str, AfterValidator(_label_name)]
Listen = Annotated[str, AfterValidator(_listen)]
Seconds = Annotated[float, BeforeValidator(duration)]
Bytes = Annotated[int, BeforeValidator(size)]
Name = Annotated[str, AfterValidator(_name)]
OwnName = Annotated[str, AfterValidator(_own_name)]
Pattern = Annotated[str, Field(max_length=255)]  # shell-style and case-sensitive: * ? [...]
SourceText = Annotated[str, AfterValidator(sources.check)]
FilePath = Annotated[Path, AfterValidator(Path.expanduser)]
