"""What the writer and the readers accept as a ledger, and what they say to the rest."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlite_utils import Database

from auditor.core.changes import Changes
from auditor.core.hops import AGAINST, OPEN, Reason, State
from auditor.errors import LedgerError
from auditor.ledger import layout, schema, words
from auditor.ledger.queries import Reader
from auditor.ledger.writer import Ledger
from tests.ledger.nobody import as_nobody
from tests.ledger.rows import message
from tests.ledger.synthetic import status


def test_an_empty_ledger_is_made_with_its_settings(path: Path) -> None:
    ledger = Ledger.open(path)
    conn = ledger.db.conn
    settings = {
        name: conn.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "auto_vacuum")
    }
    ledger.close()
    assert settings == {"journal_mode": "wal", "synchronous": 2, "auto_vacuum": 2}
    assert sqlite3.connect(path).execute("PRAGMA application_id").fetchone()[0] == layout.APPLICATION_ID


def test_opening_again_migrates_nothing_twice(path: Path) -> None:
    Ledger.open(path).close()
    ledger = Ledger.open(path)
    assert [m.name for m in schema.ledger.applied(ledger.db)] == list(layout.MIGRATIONS)
    assert not schema.ledger.pending(ledger.db)
    ledger.close()


def test_the_ledger_of_an_older_auditor_is_brought_to_the_new_form_with_all_that_is_in_it(path: Path) -> None:
    """Each migration but the first one, applied to a ledger that was written before it."""
    for number, newest in enumerate(layout.MIGRATIONS[1:], start=1):
        old = Database(path, execute_plugins=False)
        schema.ledger.apply(old, stop_before=newest)
        assert [m.name for m in schema.ledger.applied(old)] == list(layout.MIGRATIONS[:number])
        old.execute("INSERT INTO names (name, last_used) VALUES (?, 0)", [f"before {newest}"])
        old.conn.commit()
        old.close()
        ledger = Ledger.open(path)
        assert not schema.ledger.pending(ledger.db)
        assert ledger.db.execute("SELECT count(*) FROM names WHERE name = ?", [f"before {newest}"]).fetchone() == (1,)
        ledger.close()
        path.unlink()


def test_every_table_is_strict(ledger: Ledger) -> None:
    tables = ledger.db.conn.execute(
        "SELECT name, strict FROM pragma_table_list WHERE type = 'table' AND schema = 'main'"
    )
    loose = {name for name, strict in tables if not strict and not name.startswith(("sqlite_", "_sqlite_"))}
    assert loose == set()


def test_every_state_and_reason_has_its_fixed_number(ledger: Ledger) -> None:
    names = {name: number for number, name in ledger.db.conn.execute("SELECT id, name FROM names")}
    for word in [*State, *Reason]:
        assert names[word.value] == (words.STATES | words.REASONS)[word.value]
    assert {words.STATE_OF[int(n)] for n in words.OPEN_SQL.split(",")} == OPEN
    assert {words.STATE_OF[int(n)] for n in words.AGAINST_SQL.split(",")} == AGAINST
    assert names[""] == words.EMPTY_NAME


@pytest.mark.parametrize("opener", [Ledger, Reader])
def test_a_newer_schema_is_refused(path: Path, opener: type[Ledger] | type[Reader]) -> None:
    Ledger.open(path).close()
    with sqlite3.connect(path) as conn:
        conn.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('ledger', 'twentieth', '')"
        )
    conn.close()
    with pytest.raises(LedgerError, match=r"newer auditor.*twentieth"):
        opener.open(path)


@pytest.mark.parametrize("opener", [Ledger, Reader])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, opener: type[Ledger] | type[Reader]) -> None:
    path.write_text("dear diary, " * 1000)
    with pytest.raises(LedgerError, match="not a database"):
        opener.open(path)
    assert path.read_text().startswith("dear diary")


@pytest.mark.parametrize("opener", [Ledger, Reader])
def test_another_programs_database_is_refused(path: Path, opener: type[Ledger] | type[Reader]) -> None:
    with sqlite3.connect(path) as conn:
        conn.execute("CREATE TABLE theirs (a)")
    conn.close()
    with pytest.raises(LedgerError, match="not a ledger"):
        opener.open(path)


def test_a_missing_folder_and_a_file_in_its_place_are_letters(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="Create the folder"):
        Ledger.open(tmp_path / "none" / "ledger.db")
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError, match="Not a directory"):
        Ledger.open(tmp_path / "file" / "ledger.db")
    with pytest.raises(LedgerError, match="no such file"):
        Reader.open(tmp_path / "none.db")


def test_a_folder_that_cannot_be_written_is_a_letter(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    assert "Permission denied" in as_nobody(lambda: Ledger.open(open_folder / "ledger.db"))


def test_a_second_auditor_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="another auditor"):
        Ledger.open(ledger.path)


def test_the_ledger_can_be_opened_again_after_a_failure(path: Path) -> None:
    path.write_text("no database " * 1000)
    with pytest.raises(LedgerError):
        Ledger.open(path)
    path.unlink()
    Ledger.open(path).close()


def test_another_thread_may_not_write(ledger: Ledger) -> None:
    caught: list[LedgerError] = []

    def commit() -> None:
        try:
            ledger.commit(Changes(messages=[message(1)]), status=status())
        except LedgerError as exc:
            caught.append(exc)

    thread = threading.Thread(target=commit)
    thread.start()
    thread.join()
    assert "thread" in str(caught[0])
    assert ledger.status("/") is None
