"""A fake of a broker: enough AMQP for a client to log in and to consume, and then the bytes that a test gave it.

It exists because a real broker delivers what it likes, in pieces of its own choosing; this one delivers the same bytes
to whoever asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from pamqp import commands
from pamqp.base import Frame
from pamqp.frame import frame_parts, marshal, unmarshal

from auditor.tap.connection import Endpoint

Stream = Callable[[int, str], Sequence[bytes]]
"""What is sent once a channel consumes, by its number and the consumer tag; in these pieces."""


class FakeBroker:
    """See the module's text."""

    def __init__(self, stream: Stream, *, ignored: type[Frame] | None = None) -> None:
        """`ignored`: a command that gets no answer once something was acknowledged."""
        self._stream = stream
        self._ignored = ignored
        self.acknowledged: list[commands.Basic.Ack] = []

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Endpoint]:
        """Listen on loopback until the context ends."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            yield Endpoint(host="127.0.0.1", port=port, vhost="/", user="auditor", password="secret")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            assert await reader.readexactly(8) == b"AMQP\x00\x00\x09\x01"
            writer.write(marshal(commands.Connection.Start(server_properties={"capabilities": {}}), 0))
            while True:
                start = await reader.readexactly(7)
                kind, channel, size = frame_parts(start)
                assert size is not None
                _, _, frame = unmarshal(start + await reader.readexactly(size + 1))
                if kind != 1:
                    continue
                assert isinstance(frame, Frame)
                if isinstance(frame, commands.Basic.Ack):
                    self.acknowledged.append(frame)
                elif self._ignored is not None and self.acknowledged and isinstance(frame, self._ignored):
                    continue
                answer = _answer(frame)
                if answer is not None:
                    writer.write(marshal(answer, channel))
                if isinstance(frame, commands.Basic.Consume):
                    for piece in self._stream(channel, frame.consumer_tag):
                        writer.write(piece)
                        await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()


def _answer(frame: Frame) -> Frame | None:
    match frame:
        case commands.Connection.StartOk():
            return commands.Connection.Tune(channel_max=2047, frame_max=131_072, heartbeat=60)
        case commands.Connection.Open():
            return commands.Connection.OpenOk()
        case commands.Connection.Close():
            return commands.Connection.CloseOk()
        case commands.Channel.Open():
            return commands.Channel.OpenOk()
        case commands.Channel.Close():
            return commands.Channel.CloseOk()
        case commands.Basic.Qos():
            return commands.Basic.QosOk()
        case commands.Basic.Consume():
            return commands.Basic.ConsumeOk(consumer_tag=frame.consumer_tag)
    return None
