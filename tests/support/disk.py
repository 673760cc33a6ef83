"""A small file system of its own, which a test can fill and empty."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

MIB = 1024 * 1024

_SIZE = 32 * MIB


class Disk:
    """A context: entering mounts it, OSError or CalledProcessError where one may not."""

    def __init__(self, path: Path) -> None:
        """It is going to be at this path, where nothing is yet."""
        self.path = path
        self._ballast = path / "ballast"

    def __enter__(self) -> Self:
        self.path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", self.path], check=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        subprocess.run(["umount", "--lazy", self.path], check=True)

    def leave(self, free: int) -> None:
        """Fill it until only so many bytes are free."""
        with self._ballast.open("ab", buffering=0) as file:
            while (over := self.free - free) > 0:
                try:
                    file.write(b"\0" * min(over, MIB))
                except OSError as error:
                    assert error.errno == errno.ENOSPC
                    return

    @property
    def free(self) -> int:
        """The bytes that are free."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def make_room(self) -> None:
        """Take out what it was filled with."""
        self._ballast.unlink()
