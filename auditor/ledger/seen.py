"""The digests of the newest events, one row a batch; older rows go when newer ones hold as many as are wanted."""

from __future__ import annotations

import sqlite3
from collections import deque

from auditor.core.seen import SIZE


class SeenRows:
    """The table `seen`. What it deletes is known in memory, so that a commit does not have to look."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._rows: dict[str, deque[tuple[int, int]]] = {}  # vhost -> (id, digests), oldest first
        self.reload()

    def reload(self) -> None:
        """Read from the file what is kept in memory."""
        self._rows.clear()
        for id, vhost, size in self._conn.execute("SELECT id, vhost, length(digests) FROM seen ORDER BY id"):
            self._rows.setdefault(vhost, deque()).append((id, size // SIZE))

    def add(self, vhost: str, digests: bytes, window: int) -> None:
        """Add a batch's digests, and drop the oldest batches that the newest `window` digests do not need."""
        rows = self._rows.setdefault(vhost, deque())
        sql = "INSERT INTO seen (vhost, digests) VALUES (?, ?) RETURNING id"
        ((id,),) = self._conn.execute(sql, (vhost, digests)).fetchall()
        rows.append((id, len(digests) // SIZE))
        held = sum(count for _, count in rows)
        while held - rows[0][1] >= window:
            id, count = rows.popleft()
            held -= count
            self._conn.execute("DELETE FROM seen WHERE id = ?", (id,))

    def read(self, vhost: str) -> list[bytes]:
        """Return the digests of a vhost, oldest first."""
        rows = self._conn.execute("SELECT digests FROM seen WHERE vhost = ? ORDER BY id", (vhost,))
        return [blob[at : at + SIZE] for (blob,) in rows for at in range(0, len(blob), SIZE)]
