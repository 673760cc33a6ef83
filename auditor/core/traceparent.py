"""The W3C trace context that a message carries in its header `traceparent`.

Source: W3C Trace Context, section 3.2. A header that is not as it says is treated as if there were none.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_SAMPLED = 1


class Context(NamedTuple):
    """Where in which trace a message was published."""

    trace_id: bytes  # 16 bytes, not all zero
    span_id: bytes  # 8 bytes, not all zero
    sampled: bool  # whether whoever published it records the trace


def parse(header: str) -> Context | None:
    """Read a header; None when it is none that may be used.

    Of a future version, what version 00 has is read and what follows it is not looked at.
    """
    match = _FORM.fullmatch(header)
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5] is not None):
        return None
    trace_id, span_id = bytes.fromhex(match[2]), bytes.fromhex(match[3])
    if not any(trace_id) or not any(span_id):
        return None
    return Context(trace_id, span_id, bool(int(match[4], 16) & _SAMPLED))
