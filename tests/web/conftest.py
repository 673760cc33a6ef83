"""The pages as a process of their own, a browser, and a ledger with a day's trouble in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.web.browser import Browser, browsing
from tests.web.story import write

Serve = Callable[..., "Served"]


class Served:
    """Running pages."""

    def __init__(self, url: str, process: subprocess.Popen[str], log: list[str]) -> None:
        self.url = url
        self.process = process
        self.log = log  # stdout: who looked at what


@pytest.fixture(scope="session")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger in which orders went well and badly; nobody writes to it."""
    path = tmp_path_factory.mktemp("web") / "ledger.db"
    write(path, time.time_ns() // 1000)
    return path


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start `auditor web` on a ledger, with settings as TOML."""
    with ExitStack() as stack:

        def start(ledger: Path, settings: str = "") -> Served:
            return stack.enter_context(Serving(ledger, settings, tmp_path))

        yield start


@pytest.fixture(scope="session")
def pages(ledger: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The pages of the ledger, without a login."""
    with Serving(ledger, "", tmp_path_factory.mktemp("pages")) as served:
        yield served


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser, as good as new. Whatever a test does in it, nothing may be complained of in the console."""
    chromium.settle()
    yield chromium
    assert chromium.complaints() == []


class Serving(ExitStack):
    def __init__(self, ledger: Path, settings: str, folder: Path) -> None:
        super().__init__()
        config = folder / "auditor.toml"
        config.write_text(settings)
        command = [sys.executable, "-m", "auditor.cli", "web", "--listen", "127.0.0.1:0"]
        self._process = subprocess.Popen(
            [*command, "--ledger", str(ledger), "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
        )

    def __enter__(self) -> Served:  # type: ignore[override]
        process = self.enter_context(self._process)
        readers: list[threading.Thread] = []
        self.callback(_join, readers)  # before their files are closed
        self.callback(process.terminate)
        assert process.stderr is not None and process.stdout is not None
        line = process.stderr.readline()
        found = re.search(r"https?://[0-9.:]+", line)
        assert found, line + process.stderr.read()
        log: list[str] = []
        for stream, keep in ((process.stdout, log.append), (process.stderr, lambda line: None)):
            readers.append(threading.Thread(target=_read, args=(stream, keep), daemon=True))
            readers[-1].start()
        return Served(found[0], process, log)


def _read(stream: object, keep: Callable[[str], None]) -> None:
    for line in stream:  # type: ignore[attr-defined]
        keep(line)


def _join(readers: list[threading.Thread]) -> None:
    for reader in readers:
        reader.join()
