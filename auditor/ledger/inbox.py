"""The inbox: how an operator's acknowledgement gets into the ledger, which has one writer.

A folder beside the ledger. The command puts a file in; the daemon takes it out and writes what it says. A second
connection that writes is not an option: SQLite before 3.51.3 can damage a file in which two connections commit and work
off the log.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from auditor.core.hops import AGAINST
from auditor.errors import LedgerError

_WHAT = "The acknowledgement could not be handed to the auditor"
_SUFFIX = ".json"
_REFUSED = ".refused"


class Acknowledgement(NamedTuple):
    """That an operator has taken note of verdicts, and of orders that are stuck."""

    at: int  # microseconds
    who: str
    note: str
    chosen: str  # the filter, as it was written
    hops: Sequence[tuple[int, int, str]]  # message, hop and the state that it was in
    entries: Sequence[int]  # of orders, by the messages that began them


def folder(ledger: Path) -> Path:
    """Return where acknowledgements for a ledger are put."""
    return ledger.with_name(ledger.name + "-inbox")


def make(ledger: Path) -> Path:
    """Make the folder if there is none, for whoever may write where the ledger is."""
    path = folder(ledger)
    if not path.is_dir():
        path.mkdir(exist_ok=True)
        path.chmod(ledger.parent.stat().st_mode & 0o7777)
    return path


def put(ledger: Path, ack: Acknowledgement) -> Path:
    """Put an acknowledgement in, whole or not at all; LedgerError when this user may not."""
    try:
        path = make(ledger) / f"{ack.at}-{secrets.token_hex(4)}{_SUFFIX}"
        unfinished = path.with_suffix(".tmp")
        with unfinished.open("w", encoding="utf-8") as file:
            json.dump(ack._asdict(), file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.chmod(0o644)  # the auditor has another user
        unfinished.replace(path)
    except OSError as exc:
        hint = "Use the auditor's user, or one that may write in the ledger's folder."
        raise LedgerError(_WHAT, on=str(folder(ledger)), why=exc.strerror or str(exc), hint=hint) from exc
    return path


def waiting(ledger: Path) -> list[Path]:
    """Return what was put in and not taken out, oldest first."""
    path = folder(ledger)
    return sorted(path.glob(f"*{_SUFFIX}")) if path.is_dir() else []


def read(path: Path) -> Acknowledgement:
    """Read an acknowledgement; ValueError when it is none, OSError when this user may not."""
    values = json.loads(path.read_text(encoding="utf-8"))
    try:
        ack = Acknowledgement(**values)
        hops = [_hop(*hop) for hop in ack.hops]
        entries = [_number(entry) for entry in ack.entries]
        for text in (ack.who, ack.note, ack.chosen):
            if not isinstance(text, str):
                raise TypeError(f"{text!r} is no text")
        return ack._replace(at=_number(ack.at), hops=hops, entries=entries)
    except TypeError as exc:
        raise ValueError(str(exc)) from exc


def refuse(path: Path) -> None:
    """Put aside what is no acknowledgement."""
    path.replace(path.with_suffix(_REFUSED))


def _hop(message: Any, hop: Any, state: Any) -> tuple[int, int, str]:
    if state not in AGAINST:
        raise ValueError(f"{state!r} is no verdict against a hop")
    return _number(message), _number(hop), str(state)


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{value!r} is no whole number")
    return value
