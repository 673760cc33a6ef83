"""The voice with a ledger and without an audit: what it says when nobody writes, and what becomes of the inbox."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from auditor import voice as module
from auditor.core.alerts import Alert, labels
from auditor.core.changes import Changes
from auditor.core.tally import Tally
from auditor.ledger import alerts, inbox
from auditor.ledger.inbox import Acknowledgement
from auditor.ledger.queries import Reader
from auditor.ledger.writer import Ledger
from auditor.settings import Settings
from auditor.thread import AuditThread
from auditor.voice import Voice
from tests.ledger.synthetic import status
from tests.support.observers import Witness, until

STUCK = Alert(
    labels(alertname="OrderStuck", severity="warning", vhost="/", stage="A"),
    1_760_000_000_000_000,
    None,
    2,
    {"summary": "2 orders too long in stage A", "description": ""},
)


class Speaking:
    """A voice that runs, the ledger it looks into, and who hears it."""

    def __init__(self, ledger: Ledger, thread: AuditThread, witness: Witness) -> None:
        self.ledger, self.thread, self.witness = ledger, thread, witness

    async def hears(self, name: str, *, ended: bool = False) -> None:
        """Wait until an alert of this name is told, firing or ended."""
        await asyncio.to_thread(until, lambda: (name, ended) in self.heard(), f"{name} is heard")

    def heard(self) -> set[tuple[str, bool]]:
        now = time.time()
        return {
            (alert["labels"]["alertname"], _seconds(alert["endsAt"]) < now)
            for _, _, body in list(self.witness.posts)
            for alert in body
        }


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.fixture
async def speaking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    """Makes a voice that runs, over a ledger in which these alerts are kept."""
    monkeypatch.setattr(module, "_INTERVAL", 0.1)
    monkeypatch.setattr(module, "_FIRST", 0.3)
    witness = Witness()
    path = tmp_path / "ledger.db"
    settings = Settings.model_validate(
        {"ledger": {"path": path}, "alerts": {"webhooks": [witness.url]}, "http": {"listen": ""}}
    )
    tasks: list[asyncio.Task[None]] = []
    with AuditThread() as thread:
        ledger = await thread.run(lambda: Ledger.open(path))

        async def start(*kept: Alert) -> Speaking:
            await thread.run(partial(alerts.keep, ledger, kept, []))
            tasks.append(asyncio.create_task((await Voice.open(settings, ledger, thread, Tally())).run()))
            return Speaking(ledger, thread, witness)

        yield start
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await thread.run(ledger.close)
    witness.close()


async def test_when_nothing_is_written_the_auditor_is_blind_and_what_fires_goes_on(speaking: Any) -> None:
    spoken = await speaking(STUCK)
    await spoken.hears("AuditorBlind")
    assert ("OrderStuck", False) in spoken.heard()
    assert ("OrderStuck", True) not in spoken.heard()
    # it is written, and no order is stuck any more
    now = time.time_ns() // 1000
    well = partial(status, pid=os.getpid(), watermark=now)
    await spoken.thread.run(lambda: spoken.ledger.commit(Changes(), status=well(updated_at=now)))
    await spoken.hears("OrderStuck", ended=True)
    await spoken.hears("AuditorBlind", ended=True)
    with Reader.open(spoken.ledger.path) as reader:
        assert reader.status()
    kept = await spoken.thread.run(partial(alerts.alerts, spoken.ledger))
    firing = {alert.name for alert in kept if alert.ended_at is None}
    assert firing == {"AuditorWatchdog"}


async def test_the_inbox_is_emptied_and_what_is_no_acknowledgement_is_put_aside(speaking: Any) -> None:
    spoken = await speaking()
    path = spoken.ledger.path
    (bad := inbox.make(path) / "0-bad.json").write_text("no acknowledgement")
    good = inbox.put(path, Acknowledgement(5, "ada", "done", "--all", [(1, 0, "lost")], [2]))
    await asyncio.to_thread(until, lambda: not good.exists() and not bad.exists(), "both are taken out")
    with Reader.open(path) as reader:
        (row,) = reader.acknowledgements()
    assert (row["who"], row["hops"], row["orders"]) == ("ada", 1, 1)
    assert bad.with_suffix(".refused").exists()
