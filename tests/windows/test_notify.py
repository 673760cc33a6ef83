"""The notifier against a real socket, as systemd would listen on it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditor.windows.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        yield listening


def environ(manager: socket.socket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": manager.getsockname(), **more}


def test_it_says_what_it_is_told_in_one_datagram(manager: socket.socket) -> None:
    Notifier.from_environ(environ(manager), 1).say(READY=1, STATUS="All is well, Müller")
    assert manager.recv(1000).decode() == "READY=1\nSTATUS=All is well, Müller"


def test_an_abstract_socket_is_reached() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("")  # Linux gives it an abstract name
        name = listening.getsockname()
        listening.settimeout(10)
        Notifier("@" + name[1:].decode(), None).say(READY=1)
        assert listening.recv(1000) == b"READY=1"


def test_where_nobody_listens_nothing_happens(tmp_path: Path) -> None:
    Notifier.from_environ({}, 1).say(READY=1)
    Notifier(str(tmp_path / "nobody"), None).say(READY=1)


async def test_it_feeds_the_watchdog_while_the_service_lives(manager: socket.socket) -> None:
    hangs = asyncio.Event()
    calls = 0

    async def alive() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            hangs.set()
            await asyncio.Event().wait()

    notifier = Notifier.from_environ(environ(manager, WATCHDOG_USEC="3000", WATCHDOG_PID="7"), 7)
    feeding = asyncio.create_task(notifier.keep_alive(alive))
    await asyncio.wait_for(hangs.wait(), 10)
    assert [manager.recv(100) for _ in range(2)] == [b"WATCHDOG=1"] * 2
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    feeding.cancel()


@pytest.mark.parametrize("more", [{}, {"WATCHDOG_USEC": "3000", "WATCHDOG_PID": "8"}, {"WATCHDOG_USEC": "soon"}])
async def test_a_watchdog_that_is_off_or_not_ours_is_not_fed(manager: socket.socket, more: dict[str, str]) -> None:
    async def alive() -> None:
        raise AssertionError("nobody asked")

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Notifier.from_environ(environ(manager, **more), 7).keep_alive(alive), 0.1)
