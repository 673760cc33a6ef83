"""The errors of the program: each is one readable letter to the operator and carries the exit code."""

from __future__ import annotations


class AuditorError(Exception):
    """Something the auditor tried and could not do.

    `str()` is the letter: what was attempted, on what, why it failed and what to do about it.
    Nothing secret may be put in any of the four parts.
    """

    exit_code = 1

    def __init__(self, what: str, *, on: str = "", why: str = "", hint: str = "") -> None:
        """Make the letter from its parts; empty parts are left out."""
        super().__init__(what, on, why, hint)
        self.what = what
        self.on = on
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        letter = f"{self.what} ({self.on})" if self.on else self.what
        if self.why:
            # A list of mistakes, indented, starts on a line of its own.
            letter += f":\n{self.why}" if self.why.startswith(" ") else f": {self.why}"
        if self.hint:
            letter += f"\n{self.hint}"
        return letter

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.on, self.why, self.hint)


class SettingsError(AuditorError):
    """The settings or the command line are wrong; the letter lists every mistake by its key."""

    exit_code = 2


class BrokerError(AuditorError):
    """The broker could not be reached, refused us, or lacks something we need."""

    exit_code = 3


class LedgerError(AuditorError):
    """The ledger could not be opened, read or written."""

    exit_code = 3


class LedgerDamaged(LedgerError):
    """The ledger's file does not hold what was written to it: no further attempt will help, another file will."""


def _rebuild(kind: type[AuditorError], what: str, on: str, why: str, hint: str) -> AuditorError:
    return kind(what, on=on, why=why, hint=hint)
