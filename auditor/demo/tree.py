"""A trace as a tree in the terminal: who did what, when, and for how long."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from auditor.demo.receiver import Span

_WIDTH = 8  # characters of a service's name


def traces_of(spans: Iterable[Span], order: str) -> list[str]:
    """Return the ids of the traces in which the auditor tells of an order, the one with the most spans first."""
    counts: defaultdict[str, int] = defaultdict(int)
    wanted = set()
    for span in spans:
        counts[span.trace_id] += 1
        if span.attributes.get("auditor.order.id") == order:
            wanted.add(span.trace_id)
    return sorted(wanted, key=lambda trace_id: -counts[trace_id])


def tree(spans: Iterable[Span], trace_id: str) -> list[str]:
    """Return a trace's lines: begin since its first span, duration, service, and its spans below their parents."""
    chosen = {span.span_id: span for span in spans if span.trace_id == trace_id}
    children: defaultdict[str, list[Span]] = defaultdict(list)
    for span in chosen.values():
        children[span.parent_id if span.parent_id in chosen else ""].append(span)
    begin = min(span.start for span in chosen.values())
    lines = []
    for span, branch in _walk(children, "", ""):
        times = f"{_time(span.start - begin):>8} {_time(span.end - span.start):>8}"
        lines.append(f"{times}  {span.service:<{_WIDTH}}  {branch}{_told(span)}")
    return lines


def _walk(children: dict[str, list[Span]], parent: str, indent: str) -> Iterator[tuple[Span, str]]:
    below: Sequence[Span] = sorted(children.get(parent, ()), key=lambda span: (span.start, span.end))
    for span in below:
        last = span is below[-1]
        top = not parent
        yield span, "" if top else f"{indent}{'└─ ' if last else '├─ '}"
        yield from _walk(children, span.span_id, "" if top else f"{indent}{'   ' if last else '│  '}")


def _told(span: Span) -> str:
    verdict = span.attributes.get("auditor.verdict")
    if span.error:
        return f"{span.name}  ** {span.error} **"
    if verdict is not None and verdict != "delivered":
        return f"{span.name}  ({verdict})"
    return f"{span.name}  (delivered again)" if span.attributes.get("auditor.redelivered") else span.name


def _time(nanoseconds: int) -> str:
    milliseconds = nanoseconds / 1e6
    return f"{milliseconds / 1000:.2f} s" if milliseconds >= 1000 else f"{milliseconds:.0f} ms"
