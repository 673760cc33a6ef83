"""Facts: what the systems of the demo really did, written by themselves, one JSON object a line.

They are the witness against which the ledger is compared; the auditor never sees them.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Did = Literal["ready", "published", "received", "resumed"]


class FactsWriter:
    """Appends one system's facts to its file; each is whole and in the file when the call returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1, encoding="utf-8")  # 1: flushed at the end of each line

    def write(self, did: Did, **what: str | None) -> None:
        """Append a fact."""
        self._file.write(json.dumps({"did": did, **what}) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@dataclass(slots=True)
class Facts:
    """All facts read so far, counted."""

    published: Counter[str] = field(default_factory=Counter)  # message id
    received: Counter[tuple[str, str]] = field(default_factory=Counter)  # message id, queue
    stages: Counter[str] = field(default_factory=Counter)  # stage -> orders that entered it
    closed: set[str] = field(default_factory=set)  # order ids that came to the end of their life
    ready: set[str] = field(default_factory=set)  # systems
    resumed: set[str] = field(default_factory=set)  # queues

    def add(self, system: str, fact: dict[str, Any]) -> None:
        """Count one fact of a system."""
        match fact["did"]:
            case "ready":
                self.ready.add(system)
            case "resumed":
                self.resumed.add(fact["queue"])
            case "published":
                self.published[fact["message_id"]] += 1
                # A duplicate is the same step of the same order.
                if fact["stage"] is not None and self.published[fact["message_id"]] == 1:
                    self.stages[fact["stage"]] += 1
            case "received":
                self.received[fact["message_id"], fact["queue"]] += 1
                if fact["stage"] == "CLOSED":
                    self.closed.add(fact["order"])


class FactsReader:
    """Follows the facts files of several systems while they are written."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.facts = Facts()
        self._files = files
        self._read = dict.fromkeys(files, 0)  # bytes

    def read(self) -> Facts:
        """Take in what has been written since the last call; a line still being written waits for the next one."""
        for system, path in self._files.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._read[system])
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read[system] += len(line)
                    self.facts.add(system, json.loads(line))
        return self.facts
