"""The plain lane: the trace queue consumed as the client library does it, for when the fast lane must not be used.

Everything behind the tap is the same for both, because the headers, which the library gives decoded, are written back
into the bytes that the fast lane takes out of the stream. What they decode to is the same. The bytes may differ: the
library does not tell how wide a number was, so it is written as RabbitMQ's own clients write it.

What the library cannot read cannot be read here either, and ends the connection; docs/decisions/0010 lists it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from struct import Struct
from typing import Any

from aio_pika.connection import Connection
from aiormq.abc import AbstractChannel as UnderlayChannel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import InvalidFrameError
from pamqp.commands import Basic

from auditor.errors import BrokerError
from auditor.tap.connection import connect
from auditor.tap.consumer import Tap
from auditor.tap.table import MAX_DEPTH
from auditor.tap.wire import Content

_SECONDS = 0xFFFFFFFF  # a greater timestamp is one of milliseconds to pamqp

_flags = Struct(">H").pack
_size = Struct(">L").pack
_int32 = Struct(">cl").pack
_int64 = Struct(">cq").pack
_double = Struct(">cd").pack
_decimal = Struct(">cBl").pack
_timestamp = Struct(">cQ").pack


class PlainTap(Tap):
    """A tap whose contents come by the library's consumer.

    By aiormq's, which aio-pika's stands on: aio-pika would make a second task for each event, and drop those whose
    properties it cannot convert. The bytes that wait are bounded by the prefetch alone: the library reads on.
    """

    async def _connect(self, name: str) -> Connection:
        return await connect(self._endpoint, name)

    async def _consume(self, channel: UnderlayChannel) -> None:
        await channel.basic_consume(self._queue, self._take, timeout=self._endpoint.timeout)

    def _make_room(self, batch: list[Content]) -> None:
        pass

    def _lost(self, error: BaseException) -> BrokerError:
        if isinstance(error, InvalidFrameError | RecursionError):
            return BrokerError(
                "The client library cannot read an event",
                on=self._queue,
                why=str(error),
                hint='It stays in the queue; tap.consumer = "fast" can read it.',
            )
        return super()._lost(error)

    async def _take(self, message: DeliveredMessage) -> None:
        try:
            self._contents.append(to_content(message, self._now()))
        except Exception as error:
            # the library would only log it, and with the next batch the event would be acknowledged
            self._on_close(None, error)
            raise
        self._on_content()


def to_content(message: DeliveredMessage, now: int) -> Content:
    """Return the content that the fast lane would have made of a message; `now` in microseconds."""
    delivery = message.delivery
    assert isinstance(delivery, Basic.Deliver)
    assert delivery.delivery_tag is not None
    properties = message.header.properties
    names = [name for name in properties.attributes() if getattr(properties, name) not in (None, "")]
    headers = encode_table(properties.headers or {}) if "headers" in names else b""
    return Content(
        delivery.delivery_tag,
        bool(delivery.redelivered),
        (delivery.routing_key or "").encode(),
        # the others are not written: the firehose sets none, and with the flag alone it is no trace message already
        _flags(sum(properties.flags[name] for name in names)) + headers,
        message.body,
        now,
    )


def encode_table(table: Mapping[str, Any], depth: int = MAX_DEPTH) -> bytes:
    """Encode a table as pamqp decodes one, its size in front; `decode_table` gives it back."""
    fields = [bytes([len(name := key.encode())]) + name + encode_value(value, depth) for key, value in table.items()]
    return _sized(b"".join(fields))


def encode_value(value: Any, depth: int = MAX_DEPTH) -> bytes:
    """Encode one value of a table, its type in front; below `depth` tables are left empty: nobody decodes them."""
    match value:
        case str():
            return b"S" + _sized(value.encode())
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int():
            return _int32(b"I", value) if -(2**31) <= value < 2**31 else _int64(b"l", value)
        case None:
            return b"V"
        case Mapping():
            return b"F" + (encode_table(value, depth - 1) if depth else _size(0))
        case bytearray():
            return b"x" + _sized(value)
        case bytes():  # text that is not UTF-8
            return b"S" + _sized(value)
        case Sequence():
            return b"A" + _sized(b"".join(encode_value(one, depth - 1) for one in value) if depth else b"")
        case float():
            return _double(b"d", value)
        case Decimal():
            scale = -int(value.as_tuple().exponent)
            return _decimal(b"D", scale, int(value.scaleb(scale)))
        case datetime():
            seconds = value.timestamp()
            in_seconds = seconds <= _SECONDS and not value.microsecond
            return _timestamp(b"T", int(seconds) if in_seconds else round(seconds * 1000))
    raise TypeError(f"no value of a field table: {type(value).__name__}")


def _sized(payload: bytes | bytearray) -> bytes:
    return _size(len(payload)) + payload
