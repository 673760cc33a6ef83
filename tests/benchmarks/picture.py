"""The picture of docs/performance.md, drawn from bench.json.

python -m tests.benchmarks.picture build/bench.json docs/performance.svg
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

_LABELS = {
    "aio_pika": "aio-pika, only counting",
    "aiormq": "aiormq, only counting",
    "c": "C librabbitmq, only counting",
    "tracing_plugin": "rabbitmq_tracing, into a file",
    "auditor": "auditor, the whole audit",
    "off": "firehose off",
    "unread": "on, trace queue unread",
    "drained_by_c": "on, drained in C",
    "audited": "on, audited",
}
_OURS = frozenset({"auditor", "audited"})

_WIDTH, _MARGIN = 760, 20
_LABEL_WIDTH = 220  # of the names on the left
_ROW = 24
_BAR = 16
_STYLE = """
    text { font: 13px sans-serif; fill: #24292f; }
    .title { font-weight: bold; }
    .bar { fill: #9aa7b5; }
    .ours { fill: #c2571a; }
    @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } }
"""

Bar = tuple[str, float, str]
"""Name, value, and the value as it is written."""


def draw(bench: Mapping[str, Any]) -> str:
    """Return the picture as SVG."""
    charts = list(_charts(bench))
    height = 2 * _MARGIN + sum(_ROW * (len(bars) + 2) for _, bars in charts) - _ROW
    shapes: list[str] = []
    at = _MARGIN
    for title, bars in charts:
        shapes += _chart(title, bars, at)
        at += _ROW * (len(bars) + 2)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
        f' role="img" aria-label="Results of the benchmark">\n  <style>{_STYLE}  </style>\n'
        + "".join(f"  {shape}\n" for shape in shapes)
        + "</svg>\n"
    )


def _charts(bench: Mapping[str, Any]) -> Iterator[tuple[str, list[Bar]]]:
    for key, title, form in (
        ("events_per_s", "Trace events per second (longer is better)", "{:,.0f}"),
        ("cpu_us_per_event", "CPU per trace event, microseconds (shorter is better)", "{:.1f}"),
        ("live_messages_per_s", "Messages per second of applications at saturation (longer is better)", "{:,.0f}"),
    ):
        bars = [(name, value, form.format(value)) for name, value in bench[key].items() if value]
        if bars:
            yield title, bars
    queries = bench["queries_ms"]
    bars = [
        (f"{command}, {int(size):,} messages", value, f"{value:.1f}")
        for command, sizes in queries.items()
        for size, value in sizes.items()
    ]
    if bars:
        yield "Query time by size of the ledger, milliseconds (the same answer)", bars


def _chart(title: str, bars: Sequence[Bar], at: int) -> Iterator[str]:
    yield f'<text class="title" x="{_MARGIN}" y="{at + _BAR}">{escape(title)}</text>'
    longest = max(value for _, value, _ in bars)
    room = _WIDTH - 2 * _MARGIN - _LABEL_WIDTH - 80  # for the number behind the longest bar
    for row, (name, value, written) in enumerate(bars, 1):
        y = at + row * _ROW
        length = max(1.0, value / longest * room)
        left = _MARGIN + _LABEL_WIDTH
        kind = "bar ours" if name in _OURS else "bar"
        yield f'<text x="{_MARGIN}" y="{y + _BAR - 3}">{escape(_LABELS.get(name, name))}</text>'
        yield f'<rect class="{kind}" x="{left}" y="{y}" width="{length:.1f}" height="{_BAR}"/>'
        yield f'<text x="{left + length + 6:.1f}" y="{y + _BAR - 3}">{escape(written)}</text>'


def main() -> None:
    """Draw the file named first into the file named second."""
    source, target = map(Path, sys.argv[1:])
    target.write_text(draw(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
