"""The lock file beside a ledger: it tells a second auditor that there is one, and the next one how the ledger was left.

A file of its own, because SQLite's locks on the database are lost with any descriptor of it that is closed. What it
says is no secret and no proof: lost or old, it only costs the next opening a look through the ledger.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from auditor.errors import LedgerError
from auditor.ledger import letters

_LONGEST = 200  # bytes of what a lock file says
_DAMAGED = "damaged"


class Lock:
    """Made by `take`; held until `release`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path, what: str) -> Lock:
        """Take the lock of the ledger at `path`; LedgerError, which begins with `what`, when that cannot be."""
        try:
            descriptor = os.open(lock_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise LedgerError(what, on=str(path), why=exc.strerror or str(exc), hint=letters.FOLDER) from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(descriptor)
            hint = "Stop it, or give this one a ledger of its own."
            raise LedgerError(what, on=str(path), why="another auditor is writing it", hint=hint) from exc
        return cls(path, descriptor)

    @property
    def left_closed(self) -> bool:
        """Whether the ledger was closed in order, and not touched since."""
        said = self._said()
        return bool(said) and said == _looks(self._path)

    @property
    def left_damaged(self) -> bool:
        """Whether the ledger was found damaged while it was written."""
        return self._said() == _DAMAGED

    def in_use(self) -> None:
        """Note that the ledger is being written: what it looks like says nothing any more."""
        self._say("")

    def closed(self) -> None:
        """Note that the ledger was closed in order."""
        self._say(_looks(self._path))

    def damaged(self) -> None:
        """Note that the ledger must not be written again."""
        self._say(_DAMAGED)

    def release(self) -> None:
        """Let another auditor have it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _said(self) -> str:
        return os.pread(self._descriptor, _LONGEST, 0).decode("ascii", "replace")

    def _say(self, text: str) -> None:
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text.encode(), 0)
        except OSError:  # a full disk
            pass


def lock_file(path: Path) -> Path:
    """Return the lock file that stands beside a ledger while (and after) it is written."""
    return path.with_name(path.name + "-lock")


def _looks(path: Path) -> str:
    """Return what tells a ledger that was closed in order from one that somebody has touched; "" when it was not."""
    log = path.with_name(path.name + "-wal")
    try:
        if log.exists() and log.stat().st_size:
            return ""
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
