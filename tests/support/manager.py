"""What systemd is to a service: somebody who listens on a socket and is told how it stands."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_BOUND = 45.0  # seconds until a service says something


class Manager:
    """`environ` is what the service gets into its environment."""

    def __init__(self, listening: socket.socket, watchdog: float) -> None:
        """The watchdog's time is in seconds."""
        self._listening = listening
        self._watchdog = watchdog
        self.environ = {"NOTIFY_SOCKET": listening.getsockname(), "WATCHDOG_USEC": str(round(watchdog * 1e6))}

    def hears(self) -> str:
        """Wait for what is said next."""
        self._listening.settimeout(_BOUND)
        return self._listening.recv(1000).decode()

    def hears_until(self, wanted: str) -> list[str]:
        """Wait for something to be said, and return what was said before."""
        before = []
        while (said := self.hears()) != wanted:
            before.append(said)
        return before

    def misses(self, child: int) -> bool:
        """Have a child of ours hang, and say whether nothing is heard of it in the watchdog's time."""
        os.kill(child, signal.SIGSTOP)
        os.waitid(os.P_PID, child, os.WSTOPPED)
        self._listening.setblocking(False)
        with suppress(BlockingIOError):
            while True:  # what it had said before
                self._listening.recv(1000)
        self._listening.settimeout(self._watchdog)
        try:
            self._listening.recv(1000)
        except TimeoutError:
            return True
        finally:
            os.kill(child, signal.SIGCONT)
        return False


@contextmanager
def managing(folder: Path, *, watchdog: float) -> Iterator[Manager]:
    """Listen in a folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(folder / "notify"))
        yield Manager(listening, watchdog)
