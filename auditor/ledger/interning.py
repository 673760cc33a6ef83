"""Repeated text is stored once and referred to by number: names in `names`, connections in `clients`."""

from __future__ import annotations

import sqlite3
from typing import TypeVar

Client = tuple[str, str, str, str]
"""connection, user, node ("" where it is not told: a consumer's), vhost."""

DAY = 86_400_000_000  # microseconds

_LIMIT = 20_000  # numbers kept in memory for each table, about 4 MB; past it they are read again

_Key = TypeVar("_Key")


class _Numbers(dict[_Key, int]):
    """Key to number; asking for a key that is not there reads or stores it.

    `last_used` is the end of the last day on which a number was given out. The cache starts empty each day, so that
    each text in use is marked once a day and the hot path pays nothing for it.
    """

    table: str
    columns: tuple[str, ...]

    def __init__(self, conn: sqlite3.Connection) -> None:
        super().__init__()
        self._conn = conn
        self._last_used = 0
        key = ", ".join(self.columns)
        self._sql = (
            f"INSERT INTO {self.table} ({key}, last_used) VALUES ({'?, ' * len(self.columns)}?) "
            f"ON CONFLICT ({key}) DO UPDATE SET last_used = max(last_used, excluded.last_used) RETURNING id"
        )

    def on(self, now: int) -> None:
        """Take in the time of the batch, microseconds since the epoch."""
        last_used = (now // DAY + 1) * DAY
        if last_used != self._last_used:
            self._last_used = last_used
            self.clear()

    @staticmethod
    def values_of(key: _Key) -> tuple[str, ...]:
        """Return a key as the values of its columns."""
        raise NotImplementedError

    def __missing__(self, key: _Key) -> int:
        if len(self) >= _LIMIT:
            self.clear()
        number: int = self._conn.execute(self._sql, (*self.values_of(key), self._last_used)).fetchall()[0][0]
        self[key] = number
        return number


class Names(_Numbers[str]):
    """The numbers of names."""

    table = "names"
    columns = ("name",)

    @staticmethod
    def values_of(key: str) -> tuple[str, ...]:
        """Return the name alone."""
        return (key,)


class Clients(_Numbers[Client]):
    """The numbers of clients."""

    table = "clients"
    columns = ("connection", "user", "node", "vhost")

    @staticmethod
    def values_of(key: Client) -> tuple[str, ...]:
        """Return the four texts."""
        return key
