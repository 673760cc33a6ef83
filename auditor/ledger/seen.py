"""The digests of the events that may come again: one row a vhost, written with each batch."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from auditor.core.seen import SIZE, Unconfirmed

_UPSERT = "INSERT OR REPLACE INTO seen (vhost, before, last, rest) VALUES (?, ?, ?, ?)"


def write(conn: sqlite3.Connection, vhost: str, unconfirmed: Unconfirmed) -> None:
    """Keep this in place of what was kept before."""
    conn.execute(_UPSERT, (vhost, *(b"".join(digests) for digests in unconfirmed)))


def read(conn: sqlite3.Connection, vhost: str) -> Unconfirmed:
    """Return what was kept; nothing, for a vhost without events."""
    row = conn.execute("SELECT before, last, rest FROM seen WHERE vhost = ?", (vhost,)).fetchone()
    return Unconfirmed() if row is None else Unconfirmed(*map(_split, row))


def _split(joined: bytes) -> Sequence[bytes]:
    return [joined[at : at + SIZE] for at in range(0, len(joined), SIZE)]
