"""A damaged ledger is moved aside and a new one begins; whatever is not certainly ours is left alone."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from auditor.errors import LedgerDamaged, LedgerError
from auditor.ledger import opening
from auditor.ledger.lock import lock_file
from auditor.ledger.queries import Reader
from auditor.ledger.writer import GapRow, Ledger
from tests.ledger.synthetic import START, write

PAGE = 4096


def tables_trashed(path: Path) -> None:
    """The schema and `status` may still be read, most of the rest may not."""
    with path.open("r+b") as file:
        file.seek(80 * PAGE)
        file.write(os.urandom(80 * PAGE))


def schema_trashed(path: Path) -> None:
    """Nothing can be read but the file's header."""
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * (PAGE - 100))


def cut_off(path: Path) -> None:
    """The second half is gone."""
    os.truncate(path, path.stat().st_size // 2)


DAMAGES = [tables_trashed, schema_trashed, cut_off]


@pytest.mark.parametrize("damage", DAMAGES)
def test_it_is_moved_aside_and_a_new_one_begins_with_a_gap(path: Path, damage: Callable[[Path], None]) -> None:
    write(path, 3000)
    damage(path)
    before = path.read_bytes()
    ledger = Ledger.open(path, vhosts=["/", "other"])
    assert ledger.moved is not None
    aside = ledger.moved.path
    assert aside.name.startswith("ledger.db.damaged-")
    assert aside.read_bytes() == before
    # how far the old one had seen, where that is still told; nothing is claimed from there on
    known = ledger.status("/")
    watermark = known.watermark if known is not None else None
    assert (watermark is not None) == (damage is tables_trashed)
    assert ledger.status("other") is None
    reason = "ledger_damaged"
    assert ledger.gaps("/", since=0) == [GapRow(1, "/", reason, watermark, None)]
    assert ledger.gaps("other", since=0) == [GapRow(2, "other", reason, None, None)]
    assert (ledger.next_gap_id, ledger.next_message_id) == (3, 1)
    ledger.close()
    again = Ledger.open(path, vhosts=["/", "other"])
    assert again.moved is None
    assert len(again.gaps("other", since=0)) == 1
    again.close()


def test_its_log_goes_with_it(path: Path) -> None:
    write(path, 3000)
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        conn.execute("UPDATE status SET watermark = ?", (START + 1,))
        log = path.with_name("ledger.db-wal").read_bytes()
        copy = path.read_bytes()
    # as after a power failure: the log was not worked off
    path.write_bytes(copy)
    path.with_name("ledger.db-wal").write_bytes(log)
    tables_trashed(path)
    ledger = Ledger.open(path, vhosts=["/"])
    assert ledger.moved is not None
    assert ledger.moved.watermarks == {"/": START + 1}
    ledger.close()


def test_what_was_found_while_it_was_written_is_known_to_the_next_start(path: Path) -> None:
    write(path, 3000)
    ledger = Ledger.open(path)
    ledger.close(damaged=True)
    # nothing is to be seen of it: the damage may be one that only a deeper look finds
    ledger = Ledger.open(path, vhosts=["/"])
    assert ledger.moved is not None
    assert ledger.gaps("/", since=0)[0].from_at == ledger.moved.watermarks["/"]
    ledger.close()


def test_a_commit_that_meets_damage_says_so(path: Path) -> None:
    write(path, 3000)
    ledger = Ledger.open(path)
    tables_trashed(path)
    ledger.db.conn.execute("PRAGMA shrink_memory")
    with pytest.raises(LedgerDamaged, match="malformed"), ledger.transaction("Nothing could be written") as conn:
        conn.execute("UPDATE messages SET size = size + 1")
    ledger.close(damaged=True)


def test_damaged_again_and_again_is_refused(path: Path) -> None:
    for _ in range(3):
        write(path, 3000)
        tables_trashed(path)
        Ledger.open(path).close()
    write(path, 3000)
    tables_trashed(path)
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="within the hour"):
        Ledger.open(path)
    assert path.read_bytes() == before
    assert len(list(path.parent.glob("ledger.db.damaged-*Z"))) == 3


def test_the_database_of_somebody_else_is_left_alone_though_it_is_damaged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
        other.commit()
    schema_trashed(path)
    before = path.read_bytes()
    with pytest.raises(LedgerDamaged):
        Ledger.open(path)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*damaged*"))


def test_a_note_of_damage_does_not_concern_another_file_in_its_place(path: Path) -> None:
    write(path, 3000)
    ledger = Ledger.open(path)
    ledger.close(damaged=True)
    path.write_text("a letter to my aunt")
    with pytest.raises(LedgerDamaged, match="not a database"):
        Ledger.open(path)
    assert path.read_text() == "a letter to my aunt"


# when the file is looked through


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """One entry for each time the file is looked through."""
    looks: list[sqlite3.Connection] = []
    look = opening._look_through

    def noted(conn: sqlite3.Connection) -> str:
        looks.append(conn)
        return look(conn)

    monkeypatch.setattr(opening, "_look_through", noted)
    return looks


def test_a_ledger_that_was_closed_in_order_is_not_looked_through(path: Path, looks: list[sqlite3.Connection]) -> None:
    write(path, 100)
    looks.clear()
    Ledger.open(path).close()
    with Reader.open(path) as reader:
        reader.status()
    Ledger.open(path).close()
    assert not looks


def test_one_that_was_left_or_touched_is(path: Path, looks: list[sqlite3.Connection]) -> None:
    write(path, 100)
    looks.clear()
    ledger = Ledger.open(path)
    ledger.db.conn.close()  # as if killed
    ledger._lock.release()
    Ledger.open(path).close()
    assert len(looks) == 1
    with path.open("r+b") as file:
        file.seek(5 * PAGE)
        byte = file.read(1)
        file.seek(5 * PAGE)
        file.write(byte)
    Ledger.open(path).close()
    assert len(looks) == 2
    lock_file(path).unlink()
    Ledger.open(path).close()
    assert len(looks) == 3


def test_a_look_that_takes_too_long_is_given_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, 20_000)
    monkeypatch.setattr(opening, "_CHECK_SECONDS", 0.0)
    begun = threading.Event()
    real = threading.Timer

    def early(seconds: float, call: Callable[[], None]) -> threading.Timer:
        begun.set()
        return real(seconds, call)

    monkeypatch.setattr(threading, "Timer", early)
    lock_file(path).unlink()
    ledger = Ledger.open(path)
    assert begun.is_set()
    assert ledger.next_message_id == 20_001
    assert ledger.moved is None
    ledger.close()


def test_files_moved_aside_long_ago_do_not_count(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        write(path, 3000)
        tables_trashed(path)
        Ledger.open(path).close()
    write(path, 3000)
    tables_trashed(path)
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 4000)
    ledger = Ledger.open(path)
    assert ledger.moved is not None
    ledger.close()
