"""What the auditor declares on the broker: the trace queue, its bindings, and the exchange of the canaries."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from auditor.errors import BrokerError

TRACE_EXCHANGE = "amq.rabbitmq.trace"

_CANARY_BYTES = 64 * 1024  # one canary has some two hundred; another's message on that exchange may have more


def broker_version(connection: AbstractConnection) -> str:
    """Return the version that the broker announced when the connection was opened, such as "3.10.8"."""
    transport = getattr(connection, "transport", None)
    assert transport is not None, "the connection is not open"
    version = transport.connection.server_properties.get("version", "")
    return version.decode() if isinstance(version, bytes) else str(version)


def queue_arguments(version: str, max_bytes: int) -> dict[str, Any]:
    """Return the arguments of the trace queue for a broker of this version.

    A quorum queue, because a durable classic one loses trace messages at a restart: they are not persistent.
    `drop-head`, because `reject-publish` does not bound it: the firehose publishes without confirms.
    """
    arguments: dict[str, Any] = {
        "x-queue-type": "quorum",
        "x-max-length-bytes": max_bytes,
        "x-overflow": "drop-head",
    }
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) >= 4:
        # from 4.0 on, twenty crashes of the auditor would discard what was prefetched; before it, -1 discards at the
        # first
        arguments["x-delivery-limit"] = -1
    return arguments


async def declare_trace_queue(
    connection: AbstractConnection, queue: str, binding_keys: Iterable[str], max_bytes: int
) -> bool:
    """Make sure that the trace queue is there and bound; True when it had to be made.

    BrokerError names the permission that is missing, with the command that grants it.
    """
    version = broker_version(connection)
    try:
        made = await _missing(connection, lambda channel: channel.declare_queue(queue, passive=True))
        async with connection.channel() as channel:
            if made:
                declared = await channel.declare_queue(
                    queue, durable=True, arguments=queue_arguments(version, max_bytes)
                )
            else:
                # declared passively: an operator may have made it with other bounds, by arguments or by policy
                declared = await channel.declare_queue(queue, passive=True)
            for key in binding_keys:
                await declared.bind(TRACE_EXCHANGE, key)
    except ChannelAccessRefused as error:
        raise refused("set up the trace queue", queue, error) from error
    except ChannelPreconditionFailed as error:
        raise BrokerError(
            "Could not set up the trace queue",
            on=queue,
            why=str(error),
            hint="Delete that queue, or set tap.queue to another name.",
        ) from error
    return made


async def declare_canary_exchange(connection: AbstractConnection, exchange: str) -> bool:
    """Make sure that the canaries' exchange is there; True when it had to be made.

    It has no queues: a canary lives in its trace event only. And it is not durable: gone, the broker was restarted.
    """
    try:
        made = await _missing(connection, lambda channel: channel.get_exchange(exchange))
        async with connection.channel() as channel:
            await channel.declare_exchange(exchange, aio_pika.ExchangeType.FANOUT, durable=False, auto_delete=False)
    except ChannelAccessRefused as error:
        raise refused("set up the exchange of the canaries", exchange, error) from error
    return made


async def declare_canary_queue(connection: AbstractConnection, exchange: str) -> None:
    """Make sure of the queue that keeps the newest canary, whoever has read its trace event in the trace queue.

    It has the name of the exchange, to which it is not bound: it gets the trace events, as the trace queue does.
    """
    arguments = queue_arguments(broker_version(connection), _CANARY_BYTES) | {"x-max-length": 1}
    try:
        made = await _missing(connection, lambda channel: channel.declare_queue(exchange, passive=True))
        async with connection.channel() as channel:
            declared = await channel.declare_queue(exchange, durable=True, passive=not made, arguments=arguments)
            await declared.bind(TRACE_EXCHANGE, f"publish.{exchange}")
    except ChannelAccessRefused as error:
        raise refused("set up the queue of the newest canary", exchange, error) from error


async def _missing(connection: AbstractConnection, look: Callable[[AbstractChannel], Awaitable[object]]) -> bool:
    """Look passively, on a channel of its own: the broker closes it when there is nothing of the name."""
    channel = connection.channel()
    try:
        await channel.initialize()
        await look(channel)
    except ChannelNotFoundEntity:
        return True
    finally:
        if not channel.is_closed:
            await channel.close()
    return False


def permissions(queue: str, exchange: str) -> tuple[str, str, str]:
    """Return the least permissions as regular expressions: configure, write, read."""
    own = f"{_quoted(queue)}|{_quoted(exchange)}"
    return f"^({own})$", f"^({own})$", f"^({own}|amq\\.rabbitmq\\.trace)$"


def _quoted(name: str) -> str:
    return re.sub(r"[\\.+*?^$|(){}\[\]]", r"\\\g<0>", name)


def refused(what: str, on: str, error: ChannelAccessRefused) -> BrokerError:
    """Return what to raise when the broker user lacks a permission for `what`."""
    return BrokerError(
        f"Could not {what}",
        on=on,
        why=str(error),
        hint="`auditor check` prints the rabbitmqctl command that grants the permissions.",
    )
