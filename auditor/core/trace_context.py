"""The W3C trace context that a message carries in its headers `traceparent` and `tracestate`.

Source: W3C Trace Context, sections 3.2 and 3.3. A header that is not as it says is treated as if there were none, a
`tracestate` also where there is no `traceparent`. Both are kept as one text: `traceparent`, and where there is a
`tracestate`, a space and that.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^ ]*)?(?: (.*))?", re.ASCII | re.DOTALL
)
_SAMPLED = 1
_MAX_PARENT = 256  # characters; a traceparent of version 00 has 55

# An entry of a tracestate, as version 00 of level 2 has it; level 1 allows no others.
_ENTRY = re.compile(
    r"([a-z0-9][a-z0-9_\-*/@]{0,255})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MAX_ENTRIES = 32  # by the specification
_MAX_STATE = 512  # characters that have to be handed on, by the specification; more are not kept
_LONG_ENTRY = 128  # characters; longer entries are the first to go, by the specification
_MAX_READ = 8192  # characters of a tracestate; what no HTTP server takes for a header is not looked at


class Context(NamedTuple):
    """Where in which trace a message was published."""

    trace_id: bytes  # 16 bytes, not all zero
    span_id: bytes  # 8 bytes, not all zero
    sampled: bool  # whether whoever published it records the trace
    state: str = ""  # tracestate, to be handed on


def combined(traceparent: str, tracestate: object = None) -> str:
    """Return the headers as the text that is kept; a `tracestate` only where both can be used."""
    # a space sets a tracestate off, and no traceparent of a known version has any
    header = traceparent[:_MAX_PARENT].replace(" ", "_")
    if not isinstance(tracestate, str) or parse(header) is None:
        return header
    state = _checked(tracestate)
    return f"{header} {state}" if state else header


def _checked(tracestate: str) -> str:
    """Return a tracestate in its shortest form, cut to what is kept; empty when it is none."""
    if len(tracestate) > _MAX_READ:
        return ""
    entries = [entry for part in tracestate.split(",") if (entry := part.strip(" \t"))]
    keys = {match[1] for entry in entries if (match := _ENTRY.fullmatch(entry)) is not None}
    if len(keys) < len(entries) or len(entries) > _MAX_ENTRIES:
        return ""
    if _length(entries) > _MAX_STATE:
        entries = [entry for entry in entries if len(entry) <= _LONG_ENTRY]
    while _length(entries) > _MAX_STATE:
        entries.pop()
    return ",".join(entries)


def _length(entries: list[str]) -> int:
    return sum(map(len, entries)) + len(entries) - 1


def parse(context: str) -> Context | None:
    """Read what `combined` has made; None when it is no trace context that may be used.

    Of a future version, what version 00 has is read and what follows it is not looked at.
    """
    match = _FORM.fullmatch(context)
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5] is not None):
        return None
    trace_id, span_id = bytes.fromhex(match[2]), bytes.fromhex(match[3])
    if not any(trace_id) or not any(span_id):
        return None
    return Context(trace_id, span_id, bool(int(match[4], 16) & _SAMPLED), match[6] or "")
