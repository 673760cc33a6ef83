"""Connections to the broker: aio-pika's, with a stream reader of our own where content is taken out in bulk."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aio_pika
from aio_pika.abc import ConnectionParameter
from aio_pika.connection import Connection
from aiormq import TransportFactory
from aiormq.exceptions import AMQPError, ChannelInvalidStateError, InvalidFrameError
from yarl import URL

from auditor.errors import BrokerError
from auditor.tap.wire import Splitter

CONNECTION_ERRORS = (AMQPError, ChannelInvalidStateError, OSError, TimeoutError)
"""What a broken connection raises, whatever was being done on it."""

Now = Callable[[], int]
"""A clock: microseconds since the epoch."""

T = TypeVar("T")

_HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_HEARTBEAT_EVERY = 1.0  # seconds
_STREAM_LIMIT = 1 << 18  # bytes of frames that wait for aiormq; asyncio's own default is a quarter of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One vhost of one broker, and who we are there."""

    host: str
    port: int
    vhost: str
    user: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None = None
    heartbeat: int = 10  # seconds; a silent peer is noticed after about three
    timeout: float = 10.0  # seconds for connecting, handshake included; aio-pika by itself waits for ever

    @property
    def node(self) -> str:
        """The broker node, as it is called in canaries and in what is said to people."""
        return f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{'amqps' if self.tls else 'amqp'}://{self.user}@{self.host}:{self.port} vhost {self.vhost!r}"

    def url(self, name: str) -> URL:
        """Return the URL for aio-pika, the connection's name as the broker's management shows it included."""
        return URL.build(
            scheme="amqps" if self.tls else "amqp",
            user=self.user,
            password=self.password,
            host=self.host,
            port=self.port,
            path="/" + self.vhost.replace("/", "%2F"),
            query={"heartbeat": str(self.heartbeat), "name": name},
            encoded=False,
        )


def wall_clock() -> int:
    """Return the machine's own time."""
    return time.time_ns() // 1000


async def connect(endpoint: Endpoint, name: str) -> Connection:
    """Open an ordinary connection; BrokerError says why it failed."""
    return await _open(Connection(endpoint.url(name), ssl_context=endpoint.tls), endpoint)


async def connect_tap(endpoint: Endpoint, name: str, reader: SplittingReader) -> Connection:
    """Open a connection whose inbound bytes go through `reader`; BrokerError says why it failed."""
    connection = _TapConnection(endpoint.url(name), ssl_context=endpoint.tls, transport_factory=_Factory(reader))
    return await _open(connection, endpoint)


async def _open(connection: Connection, endpoint: Endpoint) -> Connection:
    try:
        await connection.connect(timeout=endpoint.timeout)
    except CONNECTION_ERRORS as error:
        await connection.close()
        what = "Could not connect to the broker"
        if isinstance(error, InvalidFrameError) and "Connection.OpenOk" in str(error):
            raise VhostRefused(
                what,
                on=str(endpoint),
                why="it refuses the virtual host: there is none of this name, or the user has no permissions on it",
                hint="See `rabbitmqctl list_vhosts`; `auditor check` prints the command that grants the permissions.",
            ) from error
        raise BrokerError(what, on=str(endpoint), why=_why(error), hint=_hint(error)) from error
    return connection


async def answer(call: Awaitable[T]) -> T:
    """Wait for a call of the library's; ConnectionError when the library gave it up.

    aiormq cancels the calls that are under way when their channel closes, and what awaits them looks cancelled, too,
    though nobody cancelled it: a cut connection would pass for a wish to stop.
    """
    try:
        return await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ConnectionError("the channel was closed while a call was under way") from None


class VhostRefused(BrokerError):
    """The broker knows the user, but does not let it into the virtual host."""


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return str(error) or type(error).__name__


def _hint(error: BaseException) -> str:
    if isinstance(error, aio_pika.exceptions.ProbableAuthenticationError | aio_pika.exceptions.AuthenticationError):
        return "Check broker.user, its password and its permissions on the vhost (rabbitmqctl list_user_permissions)."
    if isinstance(error, ssl.SSLError):
        return "Check broker.ca_file and the certificates; `openssl s_client -connect HOST:PORT` shows the broker's."
    return "Check broker.url and that the broker runs and may be reached from here."


class SplittingReader(asyncio.StreamReader):
    """A stream reader that takes the trace channel's content out of what arrives, and leaves the rest to aiormq."""

    def __init__(self, on_content: Callable[[], None], max_buffered: int, now: Now) -> None:
        """`on_content` is called when contents were added; reading pauses while they hold over `max_buffered` bytes."""
        super().__init__(limit=_STREAM_LIMIT, loop=asyncio.get_running_loop())
        self.splitter = Splitter()
        self._on_content = on_content
        self._max_buffered = max_buffered
        self._now = now
        self._socket: Any = None
        self._held: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._last_heartbeat = 0.0

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport at hand, to pause it."""
        self._socket = transport
        super().set_transport(transport)

    def feed_data(self, data: Any) -> None:  # bytes; typeshed's type for it has changed more than once
        """Take in what arrived."""
        splitter = self.splitter
        before = len(splitter.contents)
        rest = splitter.feed(bytes(data), self._now())
        if len(splitter.contents) != before:
            self._on_content()
            if splitter.size > self._max_buffered:
                self.hold()
        # aiormq tells a living peer by the frames that it sees itself, and of a busy trace channel it sees none
        now = time.monotonic()
        if now - self._last_heartbeat > _HEARTBEAT_EVERY and splitter.aligned:
            self._last_heartbeat = now
            rest += _HEARTBEAT
        if rest:
            super().feed_data(rest)

    def release(self) -> None:
        """Read on, unless the contents that were not taken yet hold too many bytes."""
        if self._held is not None and self.splitter.size <= self._max_buffered:
            self._held.cancel()
            self._held = None
            self._socket.resume_reading()

    def hold(self) -> None:
        """Read no more until `release`; aiormq sees heartbeats meanwhile, since the silence is our own doing."""
        self._socket.pause_reading()  # each time, because StreamReader resumes for reasons of its own
        if self._held is None:
            self._held = self._loop.call_later(_HEARTBEAT_EVERY, self._keep_alive)

    def _keep_alive(self) -> None:
        if not self.at_eof():
            super().feed_data(_HEARTBEAT)
            self._held = self._loop.call_later(_HEARTBEAT_EVERY, self._keep_alive)


class _TapConnection(Connection):
    """aio-pika's connection, with the one parameter that it does not pass on to aiormq by itself."""

    PARAMETERS = (
        *Connection.PARAMETERS,
        ConnectionParameter("transport_factory", parser=lambda factory: factory, is_kwarg=True),
    )


class _Factory(TransportFactory):
    """Opens the transport as aiormq does, with our reader behind it."""

    def __init__(self, reader: SplittingReader) -> None:
        self._reader = reader

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(self._reader, loop=loop)
        assert url.host is not None
        assert url.port is not None
        transport, _ = await loop.create_connection(lambda: protocol, url.host, url.port, ssl=context, **kwargs)
        return self._reader, asyncio.StreamWriter(transport, protocol, self._reader, loop)
