"""How rows leave the program: a table for people, or JSON lines and CSV, which are a contract. stdout is data only."""

from __future__ import annotations

import csv
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import click

from auditor.settings import duration

Format = Literal["table", "json", "csv"]
Row = Mapping[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


class Since(click.ParamType[int]):
    """A point in time: an age such as `2h`, or an ISO 8601 time, UTC unless it says otherwise. Gives microseconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the option's text."""
        text = str(value)
        try:
            if text[:5].endswith("-"):
                at = datetime.fromisoformat(text)
                return int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1e6)
            return int((time.time() - duration(text)) * 1e6)
        except ValueError:
            self.fail(f"{text!r} is neither an age such as 2h nor a time such as 2026-03-01T12:00:00.", param, ctx)


def formats(command: F) -> F:
    """Add `--json` and `--csv` to a command; it is called with `output`, a Format."""
    command = click.option("--csv", "output", flag_value="csv", help="CSV with a header line, all columns.")(command)
    return click.option(
        "--json", "output", flag_value="json", default="table", help="One JSON object a line, all columns."
    )(command)


def show(rows: Sequence[Row], columns: Sequence[str], output: Format) -> None:
    """Write rows to stdout. `columns` are those that the table shows; JSON and CSV always have all of them."""
    if output == "json":
        for row in rows:
            click.echo(json.dumps(dict(row), ensure_ascii=False, default=_as_text))
    elif output == "csv":
        names = list(rows[0]) if rows else list(columns)
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_cell(row[name]) for name in names] for row in rows)
    elif rows:
        _table(rows, columns)


def _table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    shown = [[_for_people(name, row[name]) for name in columns] for row in rows]
    titles = [name.removesuffix("_seconds").replace("_", " ") for name in columns]
    widths = [max(map(len, cells)) for cells in zip(titles, *shown, strict=True)]
    for line in (titles, ["-" * width for width in widths], *shown):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _for_people(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "seconds" or name.endswith("_seconds"):
        return span(float(value))
    if name.endswith("_share"):
        return f"{value:.2%}"
    # a name can hold anything, and a terminal obeys control characters
    return "".join(c if c.isprintable() else "\ufffd" for c in str(_as_text(value)))


def span(seconds: float) -> str:
    """Return a span of time as people read it: `340ms`, `12.5s`, `3m20s`, `2h05m`, `4d03h`."""
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    if seconds < 1:
        return f"{sign}{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{sign}{seconds:.1f}s"
    if seconds < 3600:
        return f"{sign}{int(seconds // 60)}m{int(seconds % 60):02}s"
    if seconds < 86400:
        return f"{sign}{int(seconds // 3600)}h{int(seconds % 3600 // 60):02}m"
    return f"{sign}{int(seconds // 86400)}d{int(seconds % 86400 // 3600):02}h"


def clock(at: int) -> str:
    """Return microseconds since the epoch as a time of day, UTC, with its date unless that is today."""
    then = datetime.fromtimestamp(at // 1_000_000, UTC)
    return then.strftime("%H:%M:%S" if then.date() == datetime.now(UTC).date() else "%Y-%m-%d %H:%M:%S")


def _cell(value: Any) -> Any:
    text = _as_text(value)
    # a spreadsheet takes a cell that begins so for a formula, and the ids in it are whatever a publisher sent
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _as_text(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
