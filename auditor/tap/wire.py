"""Takes the content of the trace channel out of an AMQP 0-9-1 byte stream.

Theory of operation
-------------------
The client library parses every inbound frame into objects, at some 60 us a message. A firehose has nothing but
messages, all of one shape, so they are taken out of the stream before the library sees them. The stream is a sequence
of frames:

    type (1 byte)   channel (2)   size (4)   payload (size bytes)   0xCE

and a message is three kinds of them on one channel: a method frame (`basic.deliver`), a content header frame (body
size, properties), and body frames until the body is complete. Frames of one message are never mixed with other frames
of the same channel, but frames of other channels and heartbeats may stand between them.

`Splitter.feed` is given bytes as they arrive, in pieces of any size. It returns the bytes that are not content of the
trace channel, unchanged and in order, which is the stream that the library reads; so handshake, topology,
acknowledgements, heartbeats and closing stay the library's. The content is collected in `contents`. Nothing here
waits, reads or decodes more than the frames: `auditor.tap.decode` does that later, elsewhere.

Nearly always a message is there as a whole, in three frames one behind the other, and is taken in one go; else it is
put together from its frames as they come.

Until a channel is chosen (`watch`), and after bytes that are no frames (the broker answers a wrong protocol version
with its own header) or frames too short for what they are, everything is passed on: the library complains and closes.

Source: AMQP 0-9-1 specification, 2.3.5 and 4.2.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import NamedTuple

_frame_at = Struct(">BHL").unpack_from  # type, channel, size
_header_at = Struct(">BHLHHQ").unpack_from  # the same, of a header frame, with class, weight and body size
_tag_at = Struct(">QB").unpack_from  # delivery tag, redelivered

_METHOD_FRAME, _HEADER_FRAME, _BODY_FRAME, _HEARTBEAT_FRAME = 1, 2, 3, 8
_FRAME_TYPES = frozenset({_METHOD_FRAME, _HEADER_FRAME, _BODY_FRAME, _HEARTBEAT_FRAME})
_BASIC_DELIVER = Struct(">HH").pack(60, 60)
_FRAME_START = 7  # bytes of a frame before its payload
_OVERHEAD = 8  # bytes of a frame around its payload
_LEAST_HEADER = 14  # bytes of the payload of a header frame: class (2), weight (2), body size (8), property flags (2)
_HEADER_START = 19  # bytes of a header frame before the property flags

_new = tuple.__new__  # makes a named tuple in half the time that calling its class takes


class Content(NamedTuple):
    """One message of the trace channel, not decoded."""

    delivery_tag: int
    redelivered: bool
    routing_key: bytes
    properties: bytes  # property flags and property list of the content header
    body: bytes
    received_at: int  # microseconds since the epoch


class _Misshapen(Exception):
    """The stream is no sequence of frames, or a frame is too short for what it is."""


class Splitter:
    """Splits one inbound stream; see the module's text."""

    def __init__(self) -> None:
        self.contents: list[Content] = []  # complete ones; whoever reads them empties the list
        self.size = 0  # bytes of properties and bodies in `contents`; reset together with it
        self._channel: int | None = None
        self._left = b""  # the beginning of a frame whose end has not arrived
        self._blind = False  # the stream is no sequence of frames: passed on as it is
        # the message that is being put together from frames that do not arrive at once
        self._delivery: tuple[int, bool, bytes] | None = None
        self._properties: bytes | None = None
        self._missing = 0  # bytes of the body still to come
        self._body: list[bytes] = []

    @property
    def aligned(self) -> bool:
        """Whether what was passed on so far ends with a whole frame, so that a frame may be put in after it."""
        return not self._blind and self._channel is not None

    def watch(self, channel: int) -> None:
        """Take the content of this channel out from here on."""
        self._channel = channel

    def feed(self, data: bytes, now: int) -> bytes:
        """Take in what arrived at `now`; return the bytes that are somebody else's."""
        if self._blind:
            return data
        if self._left:
            data = self._left + data
        end = len(data)
        at = 0  # start of the frame looked at
        kept = 0  # everything before this place is passed on or taken out
        passed: list[bytes] = []
        channel = self._channel
        try:
            while end - at >= _FRAME_START:
                kind, number, size = _frame_at(data, at)
                if kind not in _FRAME_TYPES:
                    raise _Misshapen
                after = at + size + _OVERHEAD
                if after > end:
                    break
                if number == channel:
                    taken = self._take_whole(data, at, after, now) or self._take(kind, data, at, after, now)
                    if taken:
                        if at > kept:
                            passed.append(data[kept:at])
                        kept = after = taken
                at = after
        except (_Misshapen, StructError, IndexError):
            self._blind = True
            at = end
        if at > kept:
            passed.append(data[kept:at])
        self._left = data[at:]
        return passed[0] if len(passed) == 1 else b"".join(passed)

    def _take_whole(self, data: bytes, at: int, header: int, now: int) -> int:
        """Take a delivery whose frames are all here: `at`, at `header`, and behind it one body frame at most.

        Return where they end, or 0 when it is not so.
        """
        end = len(data)
        if data[at + 7 : at + 11] != _BASIC_DELIVER or data[at] != _METHOD_FRAME or end - header < _HEADER_START:
            return 0
        kind, number, size, _, _, body_size = _header_at(data, header)
        after: int = header + size + _OVERHEAD
        if kind != _HEADER_FRAME or number != self._channel or after > end or size < _LEAST_HEADER:
            return 0
        properties = data[header + _HEADER_START : after - 1]
        body = b""
        if body_size:
            begin = after + _FRAME_START
            if begin > end or _frame_at(data, after) != (_BODY_FRAME, number, body_size):
                return 0
            after = begin + body_size + 1
            if after > end:
                return 0
            body = data[begin : after - 1]
        self.contents.append(_new(Content, (*_delivery(data, at + 11, header - 1), properties, body, now)))
        self.size += len(properties) + body_size
        if self._delivery is not None:  # one that broke off
            self._delivery, self._properties, self._body = None, None, []
        return after

    def _take(self, kind: int, data: bytes, at: int, after: int, now: int) -> int:
        """Take one frame of a message that is not here as a whole; return where it ends, or 0 when it is no content."""
        if kind == _METHOD_FRAME:
            if data[at + 7 : at + 11] != _BASIC_DELIVER:
                return 0
            self._delivery, self._properties, self._body = _delivery(data, at + 11, after - 1), None, []
            return after
        if kind == _HEADER_FRAME:
            if self._delivery is None:
                return 0
            if after - at < _LEAST_HEADER + _OVERHEAD:
                raise _Misshapen
            *_, self._missing = _header_at(data, at)
            self._properties = data[at + _HEADER_START : after - 1]
        elif kind == _BODY_FRAME:
            if self._properties is None:
                return 0
            self._body.append(data[at + _FRAME_START : after - 1])
            self._missing -= after - at - _OVERHEAD
        else:
            return 0
        if self._missing <= 0:
            self._complete(now)
        return after

    def _complete(self, now: int) -> None:
        assert self._delivery is not None
        assert self._properties is not None
        body = b"".join(self._body)
        self.contents.append(Content(*self._delivery, self._properties, body, now))
        self.size += len(self._properties) + len(body)
        self._delivery, self._properties, self._body = None, None, []


def _delivery(data: bytes, at: int, until: int) -> tuple[int, bool, bytes]:
    """Read delivery tag, redelivered and routing key of a basic.deliver, after its class and method."""
    at += 1 + data[at]  # consumer tag
    tag, redelivered = _tag_at(data, at)
    at += 9
    at += 1 + data[at]  # exchange: always amq.rabbitmq.trace, the queue is bound to nothing else
    end = at + 1 + data[at]
    if end > until:
        raise _Misshapen
    return tag, redelivered != 0, data[at + 1 : end]
