"""The daemon as a service: what systemd is told of it, and when. tests/outside has it in its real sandbox."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.acceptance.harness import Auditor
from tests.support.manager import managing


async def test_it_is_ready_feeds_the_watchdog_while_it_lives_and_says_when_it_ends(
    auditor: Auditor, tmp_path: Path
) -> None:
    with managing(tmp_path, watchdog=0.9) as manager:
        auditor.environ = manager.environ
        auditor.start()
        await asyncio.to_thread(manager.hears_until, "READY=1")
        assert auditor.ledger.exists(), "ready is who has the ledger; the broker may be away"
        assert await asyncio.to_thread(manager.hears) == "WATCHDOG=1"
        assert manager.misses(auditor.pid), "nobody feeds it for one that hangs"
        assert await asyncio.to_thread(manager.hears) == "WATCHDOG=1"
        auditor.signal(signal.SIGTERM)
        assert set(await asyncio.to_thread(manager.hears_until, "STOPPING=1")) <= {"WATCHDOG=1"}
        assert await asyncio.to_thread(auditor.wait) == 0
