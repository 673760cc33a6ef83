"""Telling systemd how the service stands: the protocol of sd_notify(3), datagrams to the socket in NOTIFY_SOCKET.

The protocol is promised to be stable, and a dozen lines speak it; a library would be more to trust than to read.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

_PINGS = 3  # in the time after which systemd takes the service for dead: one may be late


class Notifier:
    """Says nothing where nobody listens: outside systemd, or in a unit that is not of `Type=notify`."""

    def __init__(self, address: str | None, watchdog: float | None) -> None:
        """`address`: path of the socket, `@` at its head for an abstract one. `watchdog`: seconds, None for off."""
        self._address = "\0" + address[1:] if address is not None and address.startswith("@") else address
        self._watchdog = watchdog

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], pid: int) -> Notifier:
        """Take up what systemd put into the environment; the watchdog counts only if it means this process."""
        watchdog = None
        if environ.get("WATCHDOG_PID", str(pid)) == str(pid):
            with suppress(ValueError):
                watchdog = int(environ.get("WATCHDOG_USEC", "")) / 1e6
        return cls(environ.get("NOTIFY_SOCKET") or None, watchdog or None)

    def say(self, **fields: str | int) -> None:
        """Send fields as sd_notify(3) names them, such as `READY=1`. That nobody takes them is no error of ours."""
        if self._address is None:
            return
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            channel.sendto(text.encode(), self._address)

    async def keep_alive(self, alive: Callable[[], Awaitable[object]]) -> None:
        """Feed the watchdog, for ever, as long as `alive` returns: what hangs keeps it from returning."""
        if self._address is None or self._watchdog is None:
            await asyncio.Event().wait()
            return
        while True:
            await alive()
            self.say(WATCHDOG=1)
            await asyncio.sleep(self._watchdog / _PINGS)


def notifier() -> Notifier:
    """Return the notifier of this process."""
    return Notifier.from_environ(os.environ, os.getpid())
