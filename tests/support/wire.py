"""A line to a broker that a test can cut, black-hole and slow: a TCP proxy on loopback, in the test's own event loop.

async with Wire(broker.host, broker.port) as wire:
    auditor.settings["broker"]["url"] = wire.url
    ...
    wire.black_hole()
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType

_CHUNK = 16 * 1024  # bytes taken at a time; so much at most passes after the line was black-holed
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what waits, and the peer sees a reset


class Wire:
    """All connections through it share its fate, those that are made later included."""

    def __init__(self, host: str, port: int) -> None:
        """Lead to this address."""
        self._to = (host, port)
        self._server: asyncio.Server | None = None
        self._through = asyncio.Event()
        self._through.set()
        self._refusing = False
        self._rate: float | None = None  # bytes a second, each way
        self._jobs: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.connections = 0  # accepted so far
        self.passed = 0  # bytes, both ways

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_CHUNK)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for job in self._jobs:
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    @property
    def port(self) -> int:
        """The port to connect to, on 127.0.0.1."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The address for `broker.url`."""
        return f"amqp://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection; new ones are let through."""
        for writer in list(self._writers):
            _reset(writer)

    def refuse(self) -> None:
        """Reset every connection, and each new one, until `mend`."""
        self._refusing = True
        self.cut()

    def black_hole(self) -> None:
        """Let nothing pass any more, in silence: not even the end of a connection. New ones get no answer."""
        self._through.clear()

    def slow(self, bytes_per_second: float) -> None:
        """Let so much pass in each direction of each connection, and no more."""
        self._rate = bytes_per_second

    def mend(self) -> None:
        """Let everything pass again. What was held up is not lost, as with TCP."""
        self._refusing = False
        self._rate = None
        self._through.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        job = asyncio.current_task()
        assert job is not None
        self._jobs.add(job)
        self._writers.add(writer)
        self.connections += 1
        beyond: asyncio.StreamWriter | None = None
        try:
            if self._refusing:
                return
            await self._through.wait()
            answers, beyond = await asyncio.open_connection(*self._to, limit=_CHUNK)
            self._writers.add(beyond)
            await asyncio.gather(self._pump(reader, beyond), self._pump(answers, writer))
        except (OSError, asyncio.CancelledError):
            pass  # one side is gone, or the test is over: asyncio would only log it
        finally:
            for end in (writer, beyond):
                if end is not None:
                    _reset(end)
                    self._writers.discard(end)
            self._jobs.discard(job)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._through.wait()
            if self._rate is not None:
                await asyncio.sleep(len(data) / self._rate)
                await self._through.wait()
            writer.write(data)
            await writer.drain()
            self.passed += len(data)
        await self._through.wait()
        with suppress(OSError):
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
