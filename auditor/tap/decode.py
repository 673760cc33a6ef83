"""Turns the content of a trace message into a trace event.

Source: `rabbit_trace.erl` of RabbitMQ 3.10 to 4.3. The routing key is `publish.<exchange>` or `deliver.<queue>`;
everything else is in the headers; the body is the audited message's own. What cannot be decoded is given back as
`Undecodable`, with the cause, and nothing that was sent makes this code raise.

One of the headers, `properties`, holds what the publisher set, and differs from message to message. The others, here
called the envelope, say where the message passed by, and are the same bytes again and again; so envelopes are
remembered by their bytes, those before `properties` and those behind it. That needs care in one place: a publisher
could put the name of that header into a routing key. See `_envelope`. In the same way the properties around a message
id are remembered, which often are all alike; see `_properties`.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Any, NamedTuple

from auditor.core.events import Delivered, Properties, Published, TraceEvent
from auditor.tap.table import TableError, decode_fields, decode_value, table_end
from auditor.tap.wire import Content

_ONLY_HEADERS = b"\x20\x00"  # property flags of a message that has headers and nothing else: every trace message
_FIELDS_AT = 6  # behind the flags and the size of the headers
_PROPERTIES = b"\x0apropertiesF"  # length, name and type of that header
_MAX_ENVELOPES = 4096  # remembered at a time; routing keys with an order id in them would make it grow for ever
_MAX_ENVELOPE_SIZE = 1024  # bytes; a usual one has 200
_MESSAGE_ID = b"\x0amessage_idS"  # length, name and type of that property
_MAX_PROPERTIES = 4096  # remembered at a time
_MAX_AROUND = 512  # remembered at a time; headers with a trace context in them would make it grow for ever
_MAX_PROPERTIES_SIZE = 1024  # bytes; usual ones have 200

_new = tuple.__new__  # makes a named tuple in half the time that calling its class takes
_size_at = Struct(">L").unpack_from
_number_at = Struct(">i").unpack_from


class Undecodable(NamedTuple):
    """A content that is no trace event we understand; kept, so that nothing is lost silently."""

    content: Content
    cause: str


class _Misshapen(ValueError):
    """A trace message lacks something or has it in another type."""


class _Envelope(NamedTuple):
    """The fields of an event besides properties, body and time of arrival."""

    kind: type[Published] | type[Delivered]
    before: tuple[Any, ...]  # the fields in front of the properties
    after: tuple[str, str, str]  # node, connection, user


_known: dict[tuple[bytes, bytes, bytes], _Envelope] = {}
_newest: dict[bytes, Properties] = {}  # of publishes: mostly their deliveries come soon, with the same bytes
_around: dict[tuple[bytes, bytes], list[Any]] = {}  # fields before and behind a message id -> all values but it


def decode(content: Content) -> TraceEvent | Undecodable:
    """Decode one content of the trace channel."""
    try:
        return _decode(content)
    except (_Misshapen, TableError) as error:
        return Undecodable(content, str(error))
    except (StructError, IndexError) as error:
        return Undecodable(content, f"the headers are cut off: {error}")


def _decode(content: Content) -> TraceEvent:
    data = content.properties
    if data[:2] != _ONLY_HEADERS:
        raise _Misshapen("not a trace message: it has properties besides headers")
    end = table_end(data, 2)
    at = data.find(_PROPERTIES, _FIELDS_AT, end)
    if at == -1:
        raise _Misshapen("header 'properties' is missing or no table")
    begin = at + len(_PROPERTIES) + 4
    stop = begin + _size_at(data, begin - 4)[0]
    envelope = _known.get((content.routing_key, data[_FIELDS_AT:at], data[stop:end]))
    if envelope is None:
        envelope, begin, stop = _envelope(content, end)
    kind, first, last = envelope
    fields = data[begin:stop]
    properties = _newest.get(fields)
    if properties is None:
        properties = _properties(fields)
        if kind is Published and len(fields) <= _MAX_PROPERTIES_SIZE:
            if len(_newest) >= _MAX_PROPERTIES:
                _newest.clear()
            _newest[fields] = properties
    return _new(kind, (*first, properties, content.body, *last, content.received_at))


def _envelope(content: Content, end: int) -> tuple[_Envelope, int, int]:
    """Decode an envelope that is not known yet; return it and where the fields of `properties` begin and stop.

    Remembered are the bytes of whole fields: those up to `properties`, from the first one on, and those behind it.
    Bytes that begin with the same fields divide in the same way, whatever follows. So an envelope that is known was
    divided rightly, even if `_decode` only searches for the name; and where that finds the name within a text, none is
    known.
    """
    data = content.properties
    at = _FIELDS_AT
    while at < end and not data.startswith(_PROPERTIES, at):
        _, at = decode_value(data, at + 1 + data[at])
    if at >= end:
        raise _Misshapen("header 'properties' is missing or no table")
    begin = at + len(_PROPERTIES) + 4
    stop = table_end(data, begin - 4)
    # the first of two equal names: what RabbitMQ itself finds
    headers = {**decode_fields(data, stop, end), **decode_fields(data, _FIELDS_AT, at)}
    if "properties" in headers:
        raise _Misshapen("header 'properties' is there twice")
    envelope = _read_envelope(content.routing_key, headers)
    if stop < end and end - _FIELDS_AT - (stop - at) <= _MAX_ENVELOPE_SIZE:
        if len(_known) >= _MAX_ENVELOPES:
            _known.clear()
        _known[content.routing_key, data[_FIELDS_AT:at], data[stop:end]] = envelope
    return envelope, begin, stop


def _read_envelope(routing_key: bytes, headers: dict[str, Any]) -> _Envelope:
    kind, _, name = routing_key.partition(b".")
    vhost = _text(headers, "vhost")
    exchange = _text(headers, "exchange_name")
    routing_keys = _texts(headers, "routing_keys")
    last = (_text(headers, "node"), _text(headers, "connection"), _text(headers, "user"))
    if kind == b"publish":
        return _Envelope(Published, (vhost, exchange, routing_keys, _texts(headers, "routed_queues")), last)
    if kind == b"deliver":
        queue = name.decode("utf-8", "backslashreplace")
        redelivered = headers.get("redelivered") == 1
        return _Envelope(Delivered, (vhost, queue, exchange, routing_keys, redelivered), last)
    raise _Misshapen("not a trace message: its routing key is neither publish.… nor deliver.…")


def _text(headers: dict[str, Any], name: str) -> str:
    value = headers.get(name)
    if not isinstance(value, str):
        raise _Misshapen(f"header {name!r} is missing or no text")
    return value


def _texts(headers: dict[str, Any], name: str) -> tuple[str, ...]:
    values = headers.get(name)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise _Misshapen(f"header {name!r} is missing or no list of texts")
    return tuple(values)


_UNSET = list(Properties())
_HEADERS_PLACE = Properties._fields.index("headers")
_ID_PLACE = Properties._fields.index("message_id")
# the place in `Properties` by the name and the type, as they stand in the table
_TEXT_PLACES = {
    name.encode() + b"S": Properties._fields.index(name)
    for name in (
        "content_type",
        "content_encoding",
        "correlation_id",
        "reply_to",
        "expiration",
        "message_id",
        "type",
        "user_id",
        "app_id",
    )
}
_NUMBER_PLACES = {
    name.encode() + b"I": Properties._fields.index(name) for name in ("delivery_mode", "priority", "timestamp")
}


def _properties(data: bytes) -> Properties:
    """Read the fields of `properties`.

    Searching for the message id may find its name within a text. But `_around` has whole fields only: if the bytes in
    front are known, a field begins where they end, so it is the message id and its size is to be trusted; and if the
    bytes behind it are known, too, nothing else is there.
    """
    at = data.find(_MESSAGE_ID)
    begin = at + len(_MESSAGE_ID) + 4
    if at != -1 and begin <= len(data):
        stop = begin + _size_at(data, begin - 4)[0]
        known = _around.get((data[:at], data[stop:])) if stop <= len(data) else None
        if known is not None:
            values = known.copy()
            values[_ID_PLACE] = data[begin:stop].decode("utf-8", "backslashreplace")
            return _new(Properties, values)
    return _each_property(data)


def _each_property(data: bytes) -> Properties:
    """Read the fields of `properties` one by one; what the broker is not known to write there is passed over."""
    values = _UNSET.copy()
    at, stop = 0, len(data)
    ids = []  # where message ids begin and end; there is one at most, if the broker wrote the table
    while at < stop:
        field_at = at
        value_at = at + 2 + data[at]  # behind the type
        name = data[at + 1 : value_at]
        place = _TEXT_PLACES.get(name)
        if place is not None:
            at = value_at + 4 + _size_at(data, value_at)[0]
            values[place] = data[value_at + 4 : at].decode("utf-8", "backslashreplace")
            if place == _ID_PLACE:
                ids.append((field_at, at))
            continue
        place = _NUMBER_PLACES.get(name)
        if place is not None:
            (values[place],) = _number_at(data, value_at)
            at = value_at + 4
            continue
        value, at = decode_value(data, value_at - 1)
        if name == b"headersF":
            values[_HEADERS_PLACE] = value
    if at != stop:
        raise TableError("a value reaches over the end of 'properties'")
    if len(ids) == 1 and stop <= _MAX_PROPERTIES_SIZE:
        if len(_around) >= _MAX_AROUND:
            _around.clear()
        ((begin, end),) = ids
        _around[data[:begin], data[end:]] = values
    return _new(Properties, values)
