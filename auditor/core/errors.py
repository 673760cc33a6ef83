"""What the core may raise."""

from __future__ import annotations


class CoreError(Exception):
    """A rule of the core was broken."""


class IllegalMove(CoreError):
    """A hop was asked to make a move that the state table does not have: a bug in the matcher."""
