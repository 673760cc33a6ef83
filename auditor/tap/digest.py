"""A digest by which a trace event is recognised when it is delivered again.

Not of the bytes as they are: a quorum queue adds `x-delivery-count` to what it delivers again, and RabbitMQ 3.10 sorts
the trace headers while it is at it [tried on 3.10.8 and 4.0.5]. What stays as it was is the routing key, the table of
the audited message's properties, and the body.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct

from auditor.core.seen import SIZE
from auditor.tap.wire import Content

_PROPERTIES = b"\x0apropertiesF"  # the header's name and type, as they stand in the table
_SIZE = Struct(">L")


def digest(content: Content) -> bytes:
    """Return the digest of an event, SIZE bytes; equal for each delivery of it."""
    made = blake2b(content.routing_key, digest_size=SIZE)
    headers = content.properties
    # Searched for, not parsed: a publisher that puts these bytes into a routing key has, at worst, its own message
    # counted twice when it comes again.
    at = headers.find(_PROPERTIES)
    if 0 <= at <= len(headers) - len(_PROPERTIES) - _SIZE.size:
        at += len(_PROPERTIES)
        made.update(headers[at : at + _SIZE.size + _SIZE.unpack_from(headers, at)[0]])
    made.update(content.body)
    return made.digest()
