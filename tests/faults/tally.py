"""What was planted, found, missed and falsely claimed, fault by fault; and the table that documents show of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults.catalogue import FAULTS

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "build" / "faults.json"
DOCUMENT = REPOSITORY / "docs" / "reliability.md"

Row = dict[str, Any]


def fault(name: str) -> pytest.MarkDecorator:
    """Mark a test as one of a fault of the catalogue."""
    assert name in FAULTS, name
    return pytest.mark.fault(name)


@dataclass(slots=True)
class Count:
    """The counts of one fault."""

    planted: int = 0  # claims that had to be made
    found: int = 0  # of these, made with the right state and the right reason
    false: int = 0  # claims that were made of anything else
    wrong: list[str] = field(default_factory=list)  # a line for each that was missed or false

    @property
    def missed(self) -> int:
        """Claims that had to be made and were not."""
        return self.planted - self.found

    def hold(self, planted: Iterable[object], claimed: Iterable[object]) -> None:
        """Hold claims against what was planted."""
        must, made = Counter(planted), Counter(claimed)
        found = must & made
        self.planted += must.total()
        self.found += found.total()
        self.false += (made - must).total()
        self.wrong += [f"missed: {claim}" for claim in (must - made).elements()]
        self.wrong += [f"false: {claim}" for claim in (made - must).elements()]

    def add(self, other: Count) -> None:
        """Take in what was counted elsewhere."""
        self.planted += other.planted
        self.found += other.found
        self.false += other.false
        self.wrong += other.wrong


def merge(old: Iterable[Row], counts: Mapping[str, Count], broker: str) -> list[Row]:
    """Return the rows of all faults: those counted now, and for the others what was counted before."""
    rows = {(row["fault"], row["broker"]): row for row in old if row["fault"] in FAULTS}
    for name, count in counts.items():
        rows[name, broker] = {
            "fault": name,
            "broker": broker,
            "planted": count.planted,
            "found": count.found,
            "missed": count.missed,
            "false": count.false,
        }
    order = list(FAULTS)
    return sorted(rows.values(), key=lambda row: (_version(row["broker"]), order.index(row["fault"])))


def read(path: Path = RESULTS) -> list[Row]:
    """Return the rows of earlier runs; none if there was no run."""
    return json.loads(path.read_text()) if path.exists() else []


def table(rows: Iterable[Row]) -> str:
    """The table: a line for each fault, its counts on each broker, and the sums."""
    rows = list(rows)
    brokers = sorted({row["broker"] for row in rows}, key=_version)
    counts = {(row["fault"], row["broker"]): row for row in rows}
    lines = [
        "| fault | what must be claimed | " + " | ".join(f"RabbitMQ {broker}" for broker in brokers) + " |",
        "|---|---|" + "---|" * len(brokers),
    ]
    for name, claim in FAULTS.items():
        cells = [_cell(counts.get((name, broker))) for broker in brokers]
        lines.append(f"| {name} | {claim} | " + " | ".join(cells) + " |")
    sums = [_cell(_sum(row for row in rows if row["broker"] == broker)) for broker in brokers]
    lines.append("| **all** | | " + " | ".join(f"**{cell}**" for cell in sums) + " |")
    return "\n".join(lines)


def put(name: str, text: str, document: Path = DOCUMENT) -> None:
    """Put a generated table into the document, between the two marks of its name."""
    begin, end = _marks(name)
    before, _, rest = document.read_text().partition(begin)
    _, _, after = rest.partition(end)
    document.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def faults_of_table(document: Path = DOCUMENT) -> list[str]:
    """The faults that the document's table names."""
    begin, end = _marks("faults")
    lines = document.read_text().partition(begin)[2].partition(end)[0].strip().splitlines()[2:-1]
    return [line.split("|")[1].strip() for line in lines]


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin; written by make faults ARGS=--write-table -->", f"<!-- {name}: end -->"


def _cell(row: Row | None) -> str:
    if row is None:
        return "not run"
    return f"{row['planted']:,} / {row['found']:,} / {row['missed']:,} / {row['false']:,}"


def _sum(rows: Iterable[Row]) -> Row:
    total: Counter[str] = Counter()
    for row in rows:
        total.update({name: row[name] for name in ("planted", "found", "missed", "false")})
    return dict(total) if total else {"planted": 0, "found": 0, "missed": 0, "false": 0}


def _version(broker: str) -> list[int]:
    return [int(part) for part in broker.split(".") if part.isdigit()]
