"""Below the floor batches are refused, and nothing else is."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from auditor.core.changes import Changes
from auditor.errors import LedgerError
from auditor.ledger import room
from auditor.ledger.queries import Reader
from auditor.ledger.room import Room
from auditor.ledger.writer import Ledger
from tests.ledger.rows import message
from tests.ledger.synthetic import START, status

MIB = 1024 * 1024
FLOOR = 100 * MIB


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many bytes are free on the disk, and has each call look."""
    real = os.statvfs

    def set_free(size: int) -> None:
        def statvfs(path: Path) -> os.statvfs_result:
            found = list(real(path))
            found[1], found[4] = 1, size  # f_frsize, f_bavail
            return os.statvfs_result(found)

        monkeypatch.setattr(os, "statvfs", statvfs)

    monkeypatch.setattr(room, "_EVERY", 0.0)
    return set_free


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(path, min_free=FLOOR)
    yield ledger
    ledger.close()


def test_a_batch_is_refused_below_the_floor_and_taken_well_above_it(
    ledger: Ledger, free: Callable[[int], None]
) -> None:
    batch = Changes(messages=[message(1)])
    free(FLOOR - 1)
    with pytest.raises(LedgerError, match=r"ledger\.min_free") as first:
        ledger.commit(batch, status=status())
    free(FLOOR - 2)
    with pytest.raises(LedgerError) as second:
        ledger.commit(batch, status=status())
    assert str(first.value) == str(second.value)  # so that it is said once
    free(FLOOR + 1)  # nearly there: not to and fro
    with pytest.raises(LedgerError):
        ledger.commit(batch, status=status())
    assert ledger.status("/") is None
    free(FLOOR * 9 // 8)
    ledger.commit(batch, status=status())
    free(FLOOR + 1)
    ledger.commit(Changes(messages=[message(2)]), status=status())


def test_the_status_can_be_told_and_read_below_the_floor(ledger: Ledger, free: Callable[[int], None]) -> None:
    free(FLOOR - 1)
    ledger.commit(Changes(), status=status())
    ledger.tell("/", "no room", START + 5)
    ledger.tell("unknown", "no room", START + 5)
    with Reader.open(ledger.path) as reader:
        (row,) = reader.status()
    assert (row["problem"], row["updated_at"], row["pid"]) == ("no room", START + 5, os.getpid())


def test_what_is_free_within_the_file_is_room(path: Path, free: Callable[[int], None]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("CREATE TABLE filling AS SELECT zeroblob(2000000)")
        room = Room(path, conn, MIB)
        free(MIB)
        assert not room.is_short()
        free(MIB - 1)
        assert room.is_short()
        free(MIB)
        assert room.is_short()
        conn.execute("DROP TABLE filling")
        assert not room.is_short()
        free(MIB - 1)  # the log cannot use it
        assert room.is_short()


def test_a_look_costs_nothing_but_once_a_second(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    real = os.statvfs

    def statvfs(path: Path) -> os.statvfs_result:
        nonlocal looks
        looks += 1
        return real(path)

    monkeypatch.setattr(os, "statvfs", statvfs)
    ledger = Ledger.open(path, min_free=1)
    for number in range(1, 200):
        ledger.commit(Changes(messages=[message(number)]), status=status())
    ledger.close()
    assert 1 <= looks < 100
