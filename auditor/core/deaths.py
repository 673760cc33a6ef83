"""Reading `x-death`: where a dead-lettered message has been, and why the broker moved it on.

Source: `rabbit_dead_letter.erl`; one entry for each queue and reason, the newest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from auditor.core.events import Value
from auditor.core.hops import Reason

_REASONS = {reason.value: reason for reason in (Reason.EXPIRED, Reason.REJECTED, Reason.MAXLEN, Reason.DELIVERY_LIMIT)}

_MAX_DEATHS = 64  # entries looked at: each may cost a look into the ledger, and the broker writes a handful

# What a further death changes. Where a publisher sent an `x-death`, RabbitMQ 4 begins anew: then the time tells.
_TOLD = {"queue": None, "reason": None, "count": 1, "time": None}

AFTER_DELIVERY = frozenset({Reason.REJECTED, Reason.DELIVERY_LIMIT})
"""Reasons that a message can only meet once a consumer has had it."""


class Death(NamedTuple):
    """One queue that the broker moved a message away from."""

    queue: str
    reason: Reason


def fingerprint(headers: Mapping[str, Value]) -> int:
    """Return a number that changes with each further death; 0 when there was none. Good for this process only.

    A publisher may send an `x-death` along, so having one does not tell that a message has died since its publish.
    """
    entries = headers.get("x-death")
    if not isinstance(entries, list):
        return 0
    told = [
        tuple(repr(entry.get(name, default)) for name, default in _TOLD.items())
        for entry in entries[:_MAX_DEATHS]
        if isinstance(entry, dict)
    ]
    return hash(tuple(told)) or 1


def deaths(headers: Mapping[str, Value]) -> list[Death]:
    """Return the deaths that the headers tell of, the newest first; entries that make no sense are passed over.

    A publisher can send any `x-death` it likes, so nothing of its shape is taken for granted.
    """
    entries = headers.get("x-death")
    if not isinstance(entries, list):
        return []
    found = []
    for entry in entries[:_MAX_DEATHS]:
        if not isinstance(entry, dict):
            continue
        queue, reason = entry.get("queue"), entry.get("reason")
        if isinstance(queue, str) and queue and isinstance(reason, str) and reason in _REASONS:
            found.append(Death(queue, _REASONS[reason]))
    return found
