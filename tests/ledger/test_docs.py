"""`docs/ledger.md` is a contract: it names all there is, and its examples run."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from tests.ledger.synthetic import write

DOC = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text()
EXAMPLES = re.findall(r"```sql\n(.*?)```", DOC, re.DOTALL)
SECTIONS = re.split(r"^#{2,3} ", DOC, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def conn(tmp_path_factory: pytest.TempPathFactory) -> sqlite3.Connection:
    path = tmp_path_factory.mktemp("doc") / "ledger.db"
    write(path, 2000, lost=20)
    return sqlite3.connect(path)


def _named(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_0-9]+)`", text))


def test_every_table_and_view_has_a_section_that_names_its_columns(conn: sqlite3.Connection) -> None:
    lost = {name for _, name, *_ in conn.execute("PRAGMA table_info(lost)")}
    missing = {}
    for (name,) in conn.execute("SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')").fetchall():
        sections = [section for section in SECTIONS if name in _named(section.partition("\n")[0])]
        assert len(sections) == 1, f"{name} has {len(sections)} sections"
        columns = {column for _, column, *_ in conn.execute(f"PRAGMA table_info({name})")}
        told = _named(sections[0])
        if "columns of `lost`" in sections[0]:
            told |= lost
        if "one column a state as in `orders`" in sections[0]:
            told |= {"delivered", "in_flight", "late", "unknown", "stuck", "unroutable", "dead_lettered", "lost"}
        if name != "_sqlite_migrations" and columns - told:
            missing[name] = columns - told
    assert missing == {}


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("sql", EXAMPLES)
def test_an_example_runs(conn: sqlite3.Connection, sql: str) -> None:
    answer = conn.execute(sql)
    rows = answer.fetchall()
    if "FROM lost" in sql or "flow_health" in sql or "ORD-00000142" in sql or "stage_times" in sql:
        assert rows
