"""What the overview shows: how the audit stands in a word, and the places of strips and bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from auditor.web.words import Words, clock

Row = dict[str, Any]

_STALE = 10_000_000  # microseconds; the daemon renews its status every second
_HOUR = 3_600_000_000


class Standing(NamedTuple):
    """How the audit of a vhost stands."""

    vhost: str
    good: bool
    says: str
    why: str


class Piece(NamedTuple):
    """A part of a strip; places are shares of 1,000."""

    kind: str  # audited, gap, before
    x: float
    width: float
    row: Row | None


class Strip(NamedTuple):
    """How much of a span of time was audited, on a vhost."""

    vhost: str
    share: float | None  # of what could be audited
    began: int | None  # when, if within the span
    pieces: list[Piece]
    gaps: list[Row]


class Chart(NamedTuple):
    """A flow's hops with a verdict against them, by the hour."""

    flow: str
    total: int
    bars: list[tuple[int, int, float]]  # hour, hops, share of the highest


def standing(status: Sequence[Row], now: int, lag: float, w: Words) -> list[Standing]:
    """Say of each vhost whether its audit is sound; `lag` in seconds."""
    if not status:
        return [Standing("", False, w("empty"), w("empty_why"))]
    found = []
    for row in status:
        behind = None if row["watermark"] is None else (now - row["watermark"]) / 1e6
        if now - row["updated_at"] > _STALE:
            why = w("absent_why", age=w.span((now - row["updated_at"]) / 1e6))
            found.append(Standing(row["vhost"], False, w("absent"), why))
        elif not row["connected"]:
            found.append(Standing(row["vhost"], False, w("apart"), row["problem"] or w("apart_why")))
        elif behind is None or behind > lag:
            found.append(Standing(row["vhost"], False, w("behind"), w("behind_why", age=w.span(behind))))
        else:
            why = w("sound_why", time=clock(row["watermark"])[:-4])
            found.append(Standing(row["vhost"], True, w("sound"), why))
    return found


def strips(coverage: Sequence[Row], gaps: Sequence[Row], since: int, now: int) -> list[Strip]:
    """Lay out, for each vhost, what of the time from `since` to `now` was audited."""
    found = []
    for row in coverage:
        begin = max(row["since_at"] or now, since)
        until = max(begin, min(row["until_at"] or begin, now))

        def place(at: int) -> float:
            return 1000 * (min(max(at, since), now) - since) / (now - since)

        pieces = [
            Piece("before", 0, place(begin), None),
            Piece(
                "audited", min(997.0, place(begin)), max(3.0, place(until) - place(begin)) if until > begin else 0, None
            ),
        ]
        within = [
            gap
            for gap in gaps
            if gap["vhost"] == row["vhost"] and gap["from_at"] is not None and (gap["to_at"] or now) > since
        ]
        lost = 0
        for gap in within:
            start, end = max(gap["from_at"], begin), min(gap["to_at"] or until, now)
            lost += max(0, min(end, until) - start)
            pieces.append(Piece("gap", place(start), max(3.0, place(end) - place(start)), gap))
        began = begin if row["since_at"] is not None and row["since_at"] > since else None
        share = None if until <= begin else max(0.0, 1 - lost / (until - begin))
        found.append(Strip(row["vhost"], share, began, [p for p in pieces if p.width > 0], within))
    return found


def charts(lost: Sequence[Row], first: int, hours: int) -> list[Chart]:
    """Lay out rows of `lost_by_hour`, the flow with most hops first."""
    highest = max((row["hops"] for row in lost), default=1)
    found = []
    for flow in dict.fromkeys(row["flow"] for row in lost):
        by_hour = {row["hour"]: row["hops"] for row in lost if row["flow"] == flow}
        hourly = [(first + place * _HOUR, by_hour.get(first + place * _HOUR, 0)) for place in range(hours)]
        bars = [(hour, hops, hops / highest) for hour, hops in hourly]
        found.append(Chart(flow, sum(by_hour.values()), bars))
    return sorted(found, key=lambda chart: -chart.total)
