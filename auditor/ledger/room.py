"""Whether the ledger's disk has room: below a floor no batch is written, long before the disk is full.

So the log can still be worked off, old entries can be removed, `status` can say what is wrong, and others on the disk
are not taken down. The events stay in the trace queue meanwhile, which is bounded.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

_EVERY = 1.0  # seconds between two looks; not a hundredth of the default floor can be written meanwhile
_AGAIN = 1.125  # times the floor is enough to go on, so that it does not go to and fro
_LOG = 64 * 1024 * 1024  # bytes that the log may need, which cannot use what is free within the file


class Room:
    """Looks at most once a second; costs a comparison otherwise."""

    def __init__(self, path: Path, conn: sqlite3.Connection, floor: int) -> None:
        """`floor` is the bytes that must be free."""
        self._folder = path.parent
        self._conn = conn
        self._floor = floor
        self._next = 0.0
        self._short = False

    def is_short(self) -> bool:
        """Tell whether too little is free."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY
            self._short = self._free() < self._floor * (_AGAIN if self._short else 1)
        return self._short

    def _free(self) -> int:
        """Return the free bytes of the disk, and of the file itself where pruning has made room in it."""
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        if min(self._floor, _LOG) <= free < self._floor * _AGAIN:
            (pages,) = self._conn.execute("PRAGMA freelist_count").fetchone()
            (size,) = self._conn.execute("PRAGMA page_size").fetchone()
            free += pages * size
        return free
