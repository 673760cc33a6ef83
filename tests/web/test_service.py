"""The pages as a service: what systemd is told of them, and when."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.manager import managing
from tests.web.conftest import Serve
from tests.web.test_pages import get


def test_they_are_ready_feed_the_watchdog_while_they_live_and_say_when_they_end(
    ledger: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with managing(tmp_path, watchdog=0.9) as manager:
        for name, value in manager.environ.items():
            monkeypatch.setenv(name, value)
        pages = serve(ledger)
        manager.hears_until("READY=1")
        assert get(pages.url)[0] == 200
        assert manager.hears() == "WATCHDOG=1"
        assert manager.misses(pages.process.pid), "nobody feeds it for one that hangs"
        assert manager.hears() == "WATCHDOG=1"
        pages.process.send_signal(signal.SIGTERM)
        assert set(manager.hears_until("STOPPING=1")) <= {"WATCHDOG=1"}
        assert pages.process.wait(30) == 0
