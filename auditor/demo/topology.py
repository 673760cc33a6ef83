"""What the demo makes on the broker: a vhost, a user for each system with the least permissions, exchanges and queues.

shop --- shop.orders ---> crm.shop-orders -------------------------> crm
crm  --- crm.orders ----> mes.pricing, mes.closings, mes.line-* ---> mes
mes  --- mes.orders ----> crm.mes-orders --------------------------> crm
         dead-letters --> dead-letters ----------------------------> mes (its clerk)
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from auditor.demo.faults import CLASSIC, DEAD_LETTERS, FAULTS, HEALTHY_LINES, QUORUM, queue_of
from auditor.demo.management import Management

# Permissions of each user: what its names may match to configure, write and read.
PERMISSIONS = {
    "shop": ("^$", r"^shop\.orders$", "^$"),
    "crm": ("^$", r"^crm\.orders$", r"^crm\."),
    "mes": ("^$", r"^mes\.orders$", rf"^(mes\.|{DEAD_LETTERS}$)"),
    "auditor": (r"^auditor\.", r"^auditor\.", r"^(auditor\.|amq\.rabbitmq\.trace$)"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the demo lives on the broker: names that cannot meet anybody else's, and passwords of one run."""

    vhost: str
    users: Mapping[str, str]  # system -> broker user
    passwords: Mapping[str, str] = field(repr=False)  # system -> password

    @classmethod
    def random(cls) -> Place:
        """A new place."""
        run = secrets.token_hex(4)
        return cls(
            vhost=f"auditor-demo-{run}",
            users={system: f"{system}-{run}" for system in PERMISSIONS},
            passwords={system: secrets.token_urlsafe(24) for system in PERMISSIONS},
        )


def definitions() -> dict[str, list[dict[str, Any]]]:
    """Exchanges, queues and bindings, in the words of the management API."""
    lines = HEALTHY_LINES | {name: fault.queue for name, fault in FAULTS.items() if fault.queue is not None}
    queues = {
        "crm.shop-orders": CLASSIC,
        "crm.mes-orders": QUORUM,
        "mes.pricing": QUORUM,
        "mes.closings": CLASSIC,
        DEAD_LETTERS: CLASSIC,
    } | {queue_of(line): arguments for line, arguments in lines.items()}
    bindings = [
        ("shop.orders", "#", "crm.shop-orders"),
        ("mes.orders", "#", "crm.mes-orders"),
        ("crm.orders", "price.requested", "mes.pricing"),
        ("crm.orders", "order.closed", "mes.closings"),
        (DEAD_LETTERS, "#", DEAD_LETTERS),
        *(("crm.orders", f"order.approved.{line}", queue_of(line)) for line in lines),
    ]
    return {
        "exchanges": [
            {"name": name, "type": "topic", "durable": True, "auto_delete": False, "internal": False, "arguments": {}}
            for name in ("shop.orders", "crm.orders", "mes.orders", DEAD_LETTERS)
        ],
        "queues": [
            {"name": name, "durable": True, "auto_delete": False, "arguments": dict(arguments)}
            for name, arguments in queues.items()
        ],
        "bindings": [
            {"source": exchange, "routing_key": key, "destination": queue, "destination_type": "queue", "arguments": {}}
            for exchange, key, queue in bindings
        ],
    }


def build(broker: Management, place: Place) -> None:
    """Make everything on the broker; the vhost's firehose is on from the start."""
    broker.put("vhosts", place.vhost, json={"tracing": True, "description": "auditor demo"})
    for system, (configure, write, read) in PERMISSIONS.items():
        broker.put("users", place.users[system], json={"password": place.passwords[system], "tags": ""})
        broker.put(
            "permissions",
            place.vhost,
            place.users[system],
            json={"configure": configure, "write": write, "read": read},
        )
    broker.post("definitions", place.vhost, json=definitions())


def remove(broker: Management, place: Place) -> None:
    """Take away what `build` made, as far as it was made."""
    broker.delete("vhosts", place.vhost)
    for user in place.users.values():
        broker.delete("users", user)
