"""Laying out an order's story: lanes for the systems with the queues between them, a row a hop, in the order of time.

The first systems stand left of the queues and the last one right of them. A hop's bar in the queues' lane is as long as
it waited, on one scale for all. Only places are computed here; the template draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from auditor.core.hops import AGAINST, OPEN

Row = dict[str, Any]

_TIME = 128  # width of the column of times
_LANE = 104  # width of a system's lane
_QUEUES = 300  # width of the queues' lane
_PAD = 12  # beside the bars
_HEAD = 54
_BAND = 40  # height of a stage's row
_HOP = 58
_SHORTEST = 3  # width of a bar however short the wait

MAX_HOPS = 80
"""Hops that are drawn; with more nobody would find anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A system."""

    name: str
    x: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A row of the picture: a stage, a hop, or something that is missing."""

    kind: str  # stage, hop, orphan, missing
    y: float
    row: Row
    at: int | None = None
    from_x: float | None = None  # of the sending system; None: not known
    to_x: float | None = None
    bar_x: float = 0
    bar_width: float = 0
    toward: int = 1  # 1: the receiver is right of the queues, -1: left
    against: bool = False
    seconds: float | None = None  # waited


@dataclass(slots=True, kw_only=True)
class Picture:
    """The whole; lengths are SVG units."""

    width: float
    height: float
    lanes: list[Lane]
    queues_x: float
    queues_width: float
    longest: float  # seconds that the full width of a bar stands for
    marks: list[Mark] = field(default_factory=list)


def draw(hops: Sequence[Row], stages: Sequence[Row], orphans: Sequence[Row], now: int) -> Picture:
    """Lay out an order: rows of `audit`, of `stages` and of `orphan_list`; `now` in microseconds since the epoch."""
    hops = hops[:MAX_HOPS]
    lanes, queues_x = _lanes(hops, orphans)
    places = {lane.name: lane.x for lane in lanes}
    right = max((lane.x for lane in lanes), default=queues_x)
    longest = max((_waited(hop, now) for hop in hops), default=0.0) or 1.0
    picture = Picture(
        width=max(right + _LANE / 2, queues_x + _QUEUES + _PAD),
        height=0,
        lanes=lanes,
        queues_x=queues_x,
        queues_width=_QUEUES,
        longest=longest,
    )
    entries: list[tuple[int, int, str, Row]] = [(row["at"], 0, "stage", row) for row in stages]
    entries += [(row["published_at"], 1, "hop", row) for row in hops]
    entries += [(row["received_at"], 2, "orphan", row) for row in orphans[:MAX_HOPS]]
    y = float(_HEAD)
    for at, _, kind, row in sorted(entries, key=lambda entry: entry[:2]):
        if kind == "stage":
            if row["skipped"]:
                picture.marks.append(Mark(kind="missing", y=y, row=row))
                y += _BAND
            picture.marks.append(Mark(kind=kind, y=y, row=row, at=at, seconds=row["seconds"]))
            y += _BAND
            continue
        sender, receiver = _ends(row)
        from_x, to_x = places.get(sender), places.get(receiver)
        toward = -1 if to_x is not None and to_x < queues_x else 1
        seconds = 0.0 if kind == "orphan" else _waited(row, now)
        room = _QUEUES - 2 * _PAD
        width = max(_SHORTEST, min(1.0, seconds / longest) * room)
        start = queues_x + _PAD
        # a bar begins where its message comes in
        came_left = from_x is None or from_x < queues_x
        bar_x = start if came_left else start + room - width
        picture.marks.append(
            Mark(
                kind=kind, y=y, row=row, at=at, from_x=from_x if kind == "hop" else None, to_x=to_x, bar_x=bar_x,
                bar_width=width, toward=toward, against=row.get("state") in AGAINST, seconds=seconds,
            )
        )  # fmt: skip
        y += _HOP
    current = next((row for row in reversed(stages) if row["current"] and not row["ends"]), None)
    if current is not None:
        picture.marks.append(Mark(kind="waits", y=y, row=current, seconds=current["seconds"]))
        y += _BAND
    picture.height = y + 8
    return picture


def _lanes(hops: Sequence[Row], orphans: Sequence[Row]) -> tuple[list[Lane], float]:
    names = list(dict.fromkeys(name for row in (*hops, *orphans) for name in _ends(row) if name))
    left, last = (names, []) if len(names) < 2 else (names[:-1], names[-1:])
    lanes = [Lane(name=name, x=_TIME + _LANE * (place + 0.5)) for place, name in enumerate(left)]
    queues_x = float(_TIME + _LANE * len(left))
    lanes += [Lane(name=name, x=queues_x + _QUEUES + _LANE * 0.5) for name in last]
    return lanes, queues_x


def _ends(row: Row) -> tuple[str, str]:
    """Return the sending and the receiving system of a hop, as its flow's name has them."""
    sender, arrow, receiver = (row["flow"] or "").partition("->")
    if not arrow:
        return row.get("sender") or sender, ""
    return row.get("sender") or sender, receiver


def _waited(hop: Row, now: int) -> float:
    """Return for how many seconds a hop was under way: to its delivery, or as far as is known."""
    if hop["wait_seconds"] is not None:
        return max(0.0, float(hop["wait_seconds"]))
    if hop["state"] in OPEN:
        return max(0.0, float(now - hop["published_at"]) / 1e6)
    if hop["judged_at"] is not None:
        return max(0.0, float(hop["judged_at"] - hop["published_at"]) / 1e6)
    return 0.0
