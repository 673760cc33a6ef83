"""Inserting many rows with few statements.

`executemany` lets go of the interpreter's lock and wins it back for every row, which collapses beside a busy event loop
(a hundredth of the speed). One statement of many rows does so once.
"""

from __future__ import annotations

import sqlite3
from typing import Any

_ROWS = (64, 8, 1)


class Insert:
    """An INSERT of many rows: `head` is all before VALUES, `tail` all after them, `width` the number of columns."""

    def __init__(self, head: str, width: int, tail: str = "") -> None:
        row = "(" + ", ".join("?" * width) + ")"
        self._width = width
        self._statements = [(rows, f"{head} VALUES {', '.join([row] * rows)} {tail}") for rows in _ROWS]

    def run(self, conn: sqlite3.Connection, values: list[Any]) -> None:
        """Insert the rows whose values are given one after the other."""
        width = self._width
        at, end = 0, len(values)
        for rows, sql in self._statements:
            step = rows * width
            while end - at >= step:
                conn.execute(sql, values[at : at + step])
                at += step
