"""Made-up business messages as ready AMQP frames: JSON bodies of 300 to 700 bytes with an order id, and message ids.

Nearly all bytes are made once; of each message only its ids are new, so that whoever publishes them costs next to
nothing beside the broker.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random

from pamqp import commands
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader

EXCHANGE = "crm.orders"
ROUTING_KEY = "order.status.changed"
QUEUE = "mes.orders"
STAGES = ("INITIATED", "FILE_UPLOADED", "SUBMITTED", "PRICE_CALCULATED", "MANUFACTURING_APPROVED")

_MESSAGE_ID = "00000000-0000-4000-8000-000000000000"
_ORDER_ID = "ORD-00000000"
_SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835  # odd: multiples of it modulo 2**128 look random and never repeat
_PER_ORDER = 10  # messages


def bodies() -> list[bytes]:
    """Return one body of each kind; they differ in length and stage."""
    random = Random(1)
    kinds = []
    for number in range(64):
        body = {
            "orderId": _ORDER_ID,
            "stage": STAGES[number % len(STAGES)],
            "customer": {"id": random.randrange(10_000, 99_999), "country": "DE", "priority": False},
            "items": [{"sku": f"SKU-{random.randrange(10_000)}", "quantity": 2, "price": 19.9}] * (1 + number % 6),
            "note": "",
        }
        missing = 300 + number * 400 // 63 - len(json.dumps(body))
        body["note"] = "".join(random.choices("abcdefghijklmnopqrstuvwxyz ", k=max(0, missing)))
        kinds.append(json.dumps(body).encode())
    return kinds


def message_id(number: int) -> bytes:
    """Return the UUID of a message."""
    digits = b"%032x" % (number * _SPREAD % (1 << 128))
    return b"%b-%b-4%b-8%b-%b" % (digits[:8], digits[8:12], digits[13:16], digits[17:20], digits[20:])


def order_id(number: int) -> bytes:
    """Return the order that a message belongs to."""
    return b"ORD-%08d" % (number // _PER_ORDER)


def frames(first: int) -> Iterator[bytes]:
    """Give messages without end, each the three frames of its publish on channel 1; `first` is the first's number."""
    publish = marshal(commands.Basic.Publish(exchange=EXCHANGE, routing_key=ROUTING_KEY), 1)
    kinds = []
    for body in bodies():
        properties = commands.Basic.Properties(
            content_type="application/json",
            headers={"source": "crm"},
            delivery_mode=2,
            message_id=_MESSAGE_ID,
            message_type="OrderStatusChanged",
            app_id="crm",
        )
        whole = publish + marshal(ContentHeader(0, len(body), properties), 1) + marshal(ContentBody(body), 1)
        head, rest = whole.split(_MESSAGE_ID.encode())
        middle, tail = rest.split(_ORDER_ID.encode())
        kinds.append((head, middle, tail))
    number = first
    while True:
        for head, middle, tail in kinds:
            yield b"".join((head, message_id(number), middle, order_id(number), tail))
            number += 1
