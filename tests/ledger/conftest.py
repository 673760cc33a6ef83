"""A ledger of its own for each test, always a real file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditor.ledger import lookup, retention
from auditor.ledger.writer import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(path)
    yield opened
    opened.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="ledger-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder
        folder.chmod(0o777)


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> int:
    """Let four blocks of identities be merged and not sixteen, so that a test need not write as many messages."""
    monkeypatch.setattr(lookup, "MERGED_BITS", 2)
    monkeypatch.setattr(lookup, "MERGED", 4)
    monkeypatch.setattr(retention, "MERGED", 4)
    return 4
