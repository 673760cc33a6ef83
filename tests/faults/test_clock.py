"""The machine's wall clock is set while the auditor runs, or while it is away."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.harness import FIRST, Auditor
from tests.acceptance.scene import open_scene
from tests.faults.tally import Count, fault

HOUR = 3600


@pytest.fixture
def set_clock(auditor: Auditor, tmp_path: Path) -> Callable[[int], None]:
    """Sets the auditor's wall clock off by so many seconds."""
    file = tmp_path / "clock"
    file.write_text("0")
    auditor.program = (sys.executable, "-m", "tests.support.stepped", str(file))
    auditor.settings["flows"] = [
        {"name": "slow", "deadline": 60.0, "queues": ["*inbox"]},
        {"name": "all", "deadline": 2.0},
    ]

    def write(seconds: int) -> None:
        replacement = file.with_suffix(".new")
        replacement.write_text(str(seconds))
        replacement.replace(file)  # never empty when it is read

    return write


@fault("clock stepped")
@pytest.mark.parametrize("step", [-HOUR, HOUR])
async def test_a_clock_that_is_set_makes_no_verdict_and_stops_none(
    auditor: Auditor, set_clock: Callable[[int], None], count: Count, step: int
) -> None:
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "step", count) as scene:
        inbox = await scene.in_flight("m1")  # its deadline is a minute
        set_clock(step)
        await auditor.until(
            lambda reader: (row := auditor.status(reader)) and "clock was set" in (row["problem"] or ""), "it is told"
        )
        await scene.publish("m2", "inbox")
        await scene.lose("lost", "quick")
        # the audit goes on, and its deadlines are what they were
        await scene.claimed(("lost", "quick", "lost", "queue_empty"))
        assert await scene.hops() == [
            ("lost", "quick", "lost", "queue_empty"),
            ("m1", "inbox", "in_flight", None),
            ("m2", "inbox", "in_flight", None),
        ]
        await scene.consume(inbox)
        await scene.arrived(2)
        await scene.becomes("m1", "delivered")
        await scene.becomes("m2", "delivered")
    assert [gap["reason"] for gap in await auditor.gaps(1)] == [FIRST]


@fault("clock stepped")
async def test_a_clock_that_was_set_back_while_the_auditor_was_away_does_not_hold_it_up(
    auditor: Auditor, set_clock: Callable[[int], None], count: Count
) -> None:
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "away", count) as scene:
        inbox = await scene.in_flight("m1")
        await asyncio.to_thread(auditor.stop)
        set_clock(-HOUR)
        auditor.start()
        await auditor.reading()
        await scene.consume(inbox)
        await scene.becomes("m1", "delivered")
        await scene.lose("lost", "quick")
        await scene.claimed(("lost", "quick", "lost", "queue_empty"))
    assert [gap["reason"] for gap in await auditor.gaps(1)] == [FIRST]


@fault("clock stepped")
async def test_what_happened_while_the_auditor_was_away_is_not_late(
    auditor: Auditor, set_clock: Callable[[int], None], count: Count
) -> None:
    auditor.start()
    await auditor.reading()
    async with open_scene(auditor, "away", count) as scene:
        inbox = await scene.queue("quick")
        await scene.publish("before", "quick")
        await auditor.seen()
        await asyncio.to_thread(auditor.stop)
        await scene.consume(inbox)
        await scene.publish("meanwhile", "quick")
        await scene.arrived(2)
        set_clock(HOUR)  # to the auditor it was away for an hour, and the deadline is two seconds
        auditor.start()
        await scene.becomes("before", "delivered")
        await scene.becomes("meanwhile", "delivered")
        [row] = await scene.message("meanwhile")
        assert row["time_source"] == "backlog"
        await scene.claimed()
