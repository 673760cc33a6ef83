"""What the ledger keeps of alerts: which were told, and what an operator has acknowledged."""

from __future__ import annotations

import json
from collections.abc import Iterable

from auditor.core.alerts import Alert, Labels
from auditor.ledger.inbox import Acknowledgement
from auditor.ledger.statements import Insert
from auditor.ledger.words import STATES
from auditor.ledger.writer import Ledger

CHUNK = 2000
"""Hops that one transaction acknowledges: some milliseconds."""

_ALERTS = Insert(
    "INSERT OR REPLACE INTO alerts (labels, alertname, starts_at, ended_at, count, annotations)",
    6,
)
_HOPS = Insert("INSERT OR REPLACE INTO acknowledged_hops (message, hop, state_id, acknowledgement)", 4)
_ENTRIES = Insert("INSERT OR REPLACE INTO acknowledged_entries (message, acknowledgement)", 2)


def alerts(ledger: Ledger) -> list[Alert]:
    """Return the alerts as they were kept."""
    with ledger.transaction("The alerts could not be read from the ledger") as conn:
        rows = conn.execute("SELECT labels, starts_at, ended_at, count, annotations FROM alerts").fetchall()
    return [
        Alert(tuple(sorted(json.loads(text).items())), starts_at, ended_at, number, json.loads(annotations))
        for text, starts_at, ended_at, number, annotations in rows
    ]


def keep(ledger: Ledger, changed: Iterable[Alert], forgotten: Iterable[Labels]) -> None:
    """Keep alerts that began or ended, and remove those that are told no longer."""
    with ledger.transaction("The alerts could not be written to the ledger") as conn:
        for alert in changed:
            values = [_text(alert.labels), alert.name, alert.starts_at, alert.ended_at, alert.number]
            _ALERTS.run(conn, [*values, json.dumps(alert.annotations)])
        for labels in forgotten:
            conn.execute("DELETE FROM alerts WHERE labels = ?", (_text(labels),))


def begin(ledger: Ledger, ack: Acknowledgement) -> int:
    """Record an acknowledgement; return its number, for `acknowledge`."""
    with ledger.transaction("An acknowledgement could not be written to the ledger") as conn:
        # after a crash it is read from the inbox once more
        known = conn.execute("SELECT id FROM acknowledgements WHERE (at, who, note) = (?, ?, ?)", ack[:3]).fetchone()
        if known is not None:
            return int(known[0])
        values = (ack.at, ack.who, ack.note, ack.chosen, len(ack.hops), len(ack.entries))
        sql = "INSERT INTO acknowledgements (at, who, note, chosen, hops, orders) VALUES (?, ?, ?, ?, ?, ?)"
        number = conn.execute(sql, values).lastrowid
    assert number is not None
    return number


def acknowledge(ledger: Ledger, number: int, ack: Acknowledgement, first: int) -> bool:
    """Acknowledge the chunk of hops and entries from `first` on; False when there are none."""
    hops, entries = ack.hops[first : first + CHUNK], ack.entries[first : first + CHUNK]
    if not hops and not entries:
        return False
    with ledger.transaction("An acknowledgement could not be written to the ledger") as conn:
        _HOPS.run(conn, [value for hop in hops for value in (hop[0], hop[1], STATES[hop[2]], number)])
        _ENTRIES.run(conn, [value for entry in entries for value in (entry, number)])
    return True


def _text(labels: Labels) -> str:
    return json.dumps(dict(labels), ensure_ascii=False, sort_keys=True)
