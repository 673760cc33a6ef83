"""Pieces of SQL of which the views' columns are made."""

from __future__ import annotations

NOW = "CAST(strftime('%s', 'now') AS INTEGER)"
"""The time of who asks, in seconds."""


def name(column: str, alias: str) -> str:
    """Return SQL for the text of a number of `names`."""
    return f"(SELECT name FROM names WHERE id = {column}) AS {alias}"


def client(column: str, field: str, alias: str) -> str:
    """Return SQL for a field of a number of `clients`."""
    return f"(SELECT {field} FROM clients WHERE id = {column}) AS {alias}"


def iso(column: str, alias: str) -> str:
    """Return SQL for integer microseconds, a column or an expression, as ISO 8601 text in UTC; NULL stays NULL."""
    date = f"strftime('%Y-%m-%dT%H:%M:%S', ({column}) / 1000000, 'unixepoch')"
    return f"{date} || printf('.%06dZ', ({column}) % 1000000) AS {alias}"
