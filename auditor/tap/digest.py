"""A digest by which a trace event is recognised when it is delivered again.

Not of the bytes as they are: a quorum queue adds `x-delivery-count` to what it delivers again, and RabbitMQ 3.10 sorts
the trace headers while it is at it [tried on 3.10.8 and 4.0.5]. What stays as it was is the routing key, the table of
the audited message's properties, and the body.

Two checksums are enough, at half the price of a cryptographic digest: what comes again is laid against whole batches,
in order, so a publisher that forges one can only have its own message taken for the one that stood in its place.
"""

from __future__ import annotations

from struct import Struct
from zlib import crc32

from auditor.core.seen import SIZE
from auditor.tap.wire import Content

_PROPERTIES = b"\x0apropertiesF"  # the header's name and type, as they stand in the table
_size_at = Struct(">L").unpack_from
_pack = Struct(">LL").pack
assert len(_pack(0, 0)) == SIZE


def digest(content: Content) -> bytes:
    """Return the digest of an event, SIZE bytes; equal for each delivery of it."""
    _, _, routing_key, headers, body, _ = content
    # Searched for, not parsed: a publisher that puts these bytes into a routing key has, at worst, its own message
    # counted twice when it comes again.
    at = headers.find(_PROPERTIES) + len(_PROPERTIES)
    table = b""
    if len(_PROPERTIES) <= at <= len(headers) - 4:
        table = headers[at : at + 4 + _size_at(headers, at)[0]]
    return _pack(crc32(table, crc32(routing_key)), crc32(body))
