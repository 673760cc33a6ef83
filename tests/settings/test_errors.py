"""Errors are letters to a tired operator."""

from __future__ import annotations

import pickle

import pytest

from auditor.errors import AuditorError, BrokerError, LedgerError, SettingsError


@pytest.mark.parametrize(
    ("error", "letter"),
    [
        (AuditorError("Cannot connect"), "Cannot connect"),
        (
            BrokerError("Cannot connect", on="amqp://h:1", why="refused", hint="Is it running?"),
            "Cannot connect (amqp://h:1): refused\nIs it running?",
        ),
        (SettingsError("Wrong", why="  a: bad\n  b: bad", hint="Read."), "Wrong:\n  a: bad\n  b: bad\nRead."),
    ],
)
def test_the_letter(error: AuditorError, letter: str) -> None:
    assert str(error) == letter
    assert str(pickle.loads(pickle.dumps(error))) == letter


def test_exit_codes() -> None:
    assert [kind.exit_code for kind in (AuditorError, SettingsError, BrokerError, LedgerError)] == [1, 2, 3, 3]
