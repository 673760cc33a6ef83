"""How a message is recognised: the firehose gives no id, so one is derived from what both of its events show.

With a `message_id` the identity is that id and the body. Without one it is the body, the properties and the headers.
Left out is whatever differs between the publish event and a delivery event of the same message:

- exchange and routing key, `expiration`, CC and BCC: dead-lettering rewrites or removes them;
- every header that starts with `x-`: RabbitMQ adds such headers on the way (`x-death`, `x-delivery-count`, ...) and
  later versions add more. A publisher's own `x-` header is lost for the identity with them: two messages without an id
  that differ in nothing else count as equal, and equal messages are told apart first in, first out.
"""

from __future__ import annotations

from hashlib import blake2b

from auditor.core.events import Properties

_REWRITTEN_HEADERS = frozenset({"CC", "BCC"})


def identify(vhost: str, properties: Properties, body: bytes) -> int:
    """Return the signed 64-bit identity of a message within a vhost.

    64 bits: among ten million messages two share an identity with a probability of three in a million.
    """
    if properties.message_id is not None:
        digest = blake2b(f"{vhost}\0i{properties.message_id}\0".encode(errors="surrogatepass"), digest_size=8)
    else:
        digest = blake2b(f"{vhost}\0p{_stable(properties)!r}\0".encode(errors="surrogatepass"), digest_size=8)
    digest.update(body)
    return int.from_bytes(digest.digest(), "big", signed=True)


def _stable(properties: Properties) -> tuple[object, ...]:
    # RabbitMQ 4 sorts the headers of both events, 3.10 keeps their order: sorted here, so that nobody has to care
    headers = sorted(
        (name, repr(value))
        for name, value in properties.headers.items()
        if not name.startswith("x-") and name not in _REWRITTEN_HEADERS
    )
    return (properties._replace(headers={}, expiration=None), headers)
