"""Calls of the library's that are given up while they wait for an answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from pamqp import commands

from auditor.tap.connection import answer
from auditor.tap.consumer import Tap
from tests.tap import amqp
from tests.tap.fake_broker import FakeBroker


def _two_events(channel: int, tag: str) -> list[bytes]:
    sent = []
    for number in (1, 2):
        sent.append(amqp.method(commands.Basic.Deliver(tag, number, False, "traces", "publish.x"), channel))
        sent.append(amqp.content_header(b"\0\0", 0, channel))
    return sent


async def test_it_closes_as_usual_after_an_acknowledgement_that_was_cancelled_while_it_waited() -> None:
    """So does a session end whose other connection is cut; a cancellation left over would stop the whole auditor."""
    broker = FakeBroker(_two_events, ignored=commands.Basic.Qos)
    async with broker.serve() as endpoint:
        tap = Tap(replace(endpoint, timeout=1), "auditor.trace", prefetch=10, max_buffered=1 << 20)
        await tap.open()
        first, second = await tap.batch(10, 0.2, 5)
        await tap.acknowledge(first)
        waiting = asyncio.create_task(tap.acknowledge(second))
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert await tap.close() is False


async def test_an_answer_that_never_comes_is_a_lost_connection() -> None:
    given_up = asyncio.get_running_loop().create_future()
    given_up.cancel()
    with pytest.raises(ConnectionError, match="under way"):
        await answer(given_up)


async def test_who_waits_for_an_answer_can_be_cancelled() -> None:
    waiting = asyncio.create_task(_wait_for_ever())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def _wait_for_ever() -> None:
    await answer(asyncio.get_running_loop().create_future())
