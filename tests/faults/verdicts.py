"""How soon verdicts are in the ledger, as a table."""

from __future__ import annotations

from collections.abc import Iterable

from tests.faults.tally import REPOSITORY, Row

RESULTS = REPOSITORY / "build" / "verdicts.json"

_WHAT = {
    "unroutable": "`unroutable`, from its publish",
    "verdict": "`lost`, from when the watermark passed its deadline",
}


def table(rows: Iterable[Row]) -> str:
    """A line for each kind of verdict and broker."""
    lines = [
        "| verdict | RabbitMQ | messages/s | verdicts | median | 95 % | longest |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for name, what in _WHAT.items():
            figures = row[name]
            times = " | ".join(f"{figures[key]:.2f} s" for key in ("median_s", "p95_s", "max_s"))
            lines.append(f"| {what} | {row['broker']} | {row['messages_per_s']:,} | {figures['count']} | {times} |")
    return "\n".join(lines)
