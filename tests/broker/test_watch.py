"""Ending the jobs of a session."""

from __future__ import annotations

import asyncio

import pytest

from auditor.watch import _first_to_end


async def test_a_job_that_swallows_its_cancellation_is_ended_all_the_same() -> None:
    """aiormq can turn a cancellation into the refusal of the call that it met."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed > 2:
                    raise

    async def first() -> None:
        raise OSError("the connection is gone")

    with pytest.raises(OSError, match="gone"):
        await asyncio.wait_for(_first_to_end(stubborn(), first()), 20)
    assert swallowed == 3


async def test_a_job_that_the_library_has_cancelled_counts_as_a_lost_connection() -> None:
    async def cancelled() -> None:
        given_up = asyncio.get_running_loop().create_future()
        given_up.cancel()
        await given_up

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(_first_to_end(cancelled()), 20)
