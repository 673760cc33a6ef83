"""The line that tests break does to connections what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.wire import Wire


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """A line to a server that says everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with Wire("127.0.0.1", server.sockets[0].getsockname()[1]) as wire:
        yield wire
    server.close()


@asynccontextmanager
async def client(wire: Wire) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection through the line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def test_what_is_sent_arrives_and_so_does_the_end(wire: Wire) -> None:
    async with client(wire) as (reader, writer):
        writer.write(b"x" * 100_000)
        writer.write_eof()
        assert await reader.read(-1) == b"x" * 100_000
        assert wire.connections == 1


async def test_a_black_hole_keeps_the_connection_and_all_that_was_sent(wire: Wire) -> None:
    async with client(wire) as (reader, writer):
        writer.write(b"a")
        assert await reader.read(1) == b"a"
        wire.black_hole()
        writer.write(b"b")
        async with client(wire) as (later, _):
            jobs = [asyncio.ensure_future(one.read(1)) for one in (reader, later)]
            done, waiting = await asyncio.wait(jobs, timeout=0.3)
            assert not done
            wire.mend()
            assert await jobs[0] == b"b"
            jobs[1].cancel()
            await asyncio.wait(waiting)


async def test_a_cut_resets_and_a_new_connection_works(wire: Wire) -> None:
    async with client(wire) as (reader, writer):
        writer.write(b"a")
        assert await reader.read(1) == b"a"
        wire.cut()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
    async with client(wire) as (reader, writer):
        writer.write(b"a")
        assert await reader.read(1) == b"a"
    wire.refuse()
    async with client(wire) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read(1)


async def test_a_slow_line_takes_its_time(wire: Wire) -> None:
    wire.slow(1000)
    async with client(wire) as (reader, writer):
        began = asyncio.get_running_loop().time()
        writer.write(b"x" * 500)
        assert await reader.readexactly(500) == b"x" * 500
        assert asyncio.get_running_loop().time() - began > 0.9
