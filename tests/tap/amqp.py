"""AMQP bytes with the type of every value said, which client libraries do not let one do; and what they mean to us."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from pamqp import body, commands, header
from pamqp.frame import marshal

from auditor.core.events import Properties

Typed = tuple[str, Any]
"""A value and the letter of its type. `F` takes a sequence of (name, typed value), `A` one of typed values, `S` text or
bytes, `D` (scale, number)."""
Table = Sequence[tuple[str, Typed]]

FIXED = {"b": "b", "B": "B", "s": "h", "u": "H", "I": "i", "i": "I", "l": "q", "L": "q", "f": "f", "d": "d", "T": "Q"}
"""The types of a fixed size, as the codes of `struct`."""

TRACE_CHANNEL = 3


def encode_table(table: Table) -> bytes:
    """Encode a table, its size in front."""
    return _sized(b"".join(_short(name) + encode_value(value) for name, value in table))


def encode_value(typed: Typed) -> bytes:
    """Encode one value, its type in front."""
    kind, value = typed
    return kind.encode() + _payload(kind, value)


def _payload(kind: str, value: Any) -> bytes:
    if kind in FIXED:
        return struct.pack(">" + FIXED[kind], value)
    match kind:
        case "S" | "x":
            return _sized(value.encode() if isinstance(value, str) else value)
        case "F":
            return encode_table(value)
        case "A":
            return _sized(b"".join(map(encode_value, value)))
        case "t":
            return b"\x01" if value else b"\x00"
        case "D":
            return struct.pack(">Bi", *value)
        case "V":
            return b""
    raise AssertionError(f"no such type: {kind}")


def meaning(typed: Typed) -> Any:
    """Return what the auditor makes of a value."""
    kind, value = typed
    match kind:
        case "S":
            return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value
        case "F":
            return {name: meaning(one) for name, one in reversed(value)}  # the first of two equal names
        case "A":
            return [meaning(one) for one in value]
        case "D":
            scale, number = value
            return number / 10**scale if scale else number
        case "f":
            return struct.unpack(">f", struct.pack(">f", value))[0]
    return value


def encode_properties(properties: Properties, headers: Table | None) -> bytes:
    """Encode the property flags and the properties of a content header; None leaves the headers out."""
    flags, encoded = 0, b""
    for bit, name, kind in _PROPERTIES:
        if name == "headers":
            value: Any = headers
        else:
            value = getattr(properties, name)
        if value is None:
            continue
        flags |= 1 << bit
        if kind == "F":
            encoded += encode_table(value)
        elif kind == "shortstr":
            encoded += _short(value)
        else:
            encoded += struct.pack(">" + kind, value)
    return struct.pack(">H", flags) + encoded


# bit of the flags, name, type; AMQP 0-9-1 specification, 1.8.1
_PROPERTIES = (
    (15, "content_type", "shortstr"),
    (14, "content_encoding", "shortstr"),
    (13, "headers", "F"),
    (12, "delivery_mode", "B"),
    (11, "priority", "B"),
    (10, "correlation_id", "shortstr"),
    (9, "reply_to", "shortstr"),
    (8, "expiration", "shortstr"),
    (7, "message_id", "shortstr"),
    (6, "timestamp", "Q"),
    (5, "type", "shortstr"),
    (4, "user_id", "shortstr"),
    (3, "app_id", "shortstr"),
)


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return one frame."""
    return struct.pack(">BHL", kind, channel, len(payload)) + payload + b"\xce"


def method(value: Any, channel: int = TRACE_CHANNEL) -> bytes:
    """Return a method frame as pamqp makes it."""
    return marshal(value, channel)


def deliver(tag: int, routing_key: str, *, redelivered: bool = False, channel: int = TRACE_CHANNEL) -> bytes:
    """Return the method frame of a delivery, as pamqp makes it."""
    return method(commands.Basic.Deliver("ctag1.5", tag, redelivered, "amq.rabbitmq.trace", routing_key), channel)


def content_header(properties: bytes, size: int, channel: int = TRACE_CHANNEL) -> bytes:
    """Return the content header frame of a body of `size` bytes."""
    return frame(2, channel, struct.pack(">HHQ", 60, 0, size) + properties)


def bodies(parts: Iterable[bytes], channel: int = TRACE_CHANNEL) -> bytes:
    """Return a body frame for each part, as pamqp makes it."""
    return b"".join(marshal(body.ContentBody(part), channel) for part in parts)


def pamqp_header(size: int, properties: commands.Basic.Properties, channel: int = TRACE_CHANNEL) -> bytes:
    """Return a content header frame as pamqp makes it."""
    return marshal(header.ContentHeader(0, size, properties), channel)


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes([len(encoded)]) + encoded


def _sized(payload: bytes) -> bytes:
    return struct.pack(">L", len(payload)) + payload
