"""Stories: tests that are told side by side, since nearly all that they do is to wait.

A module keeps its stories in a `Stories`, tells those that were chosen in a fixture, and has one test for each that
raises what the story ended with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, ParamSpec

import pytest

from tests.faults.tally import fault

Told = ParamSpec("Told")  # what a story is told with

Endings = dict[str, BaseException | None]  # the name of a story -> what it ended with; None: it went well


class Stories(Generic[Told]):
    """The stories of a module, as a decorator: `@story("queue purged")` keeps one of that fault."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}  # the name of a story -> its fault
        self._tell: dict[str, Callable[Told, Awaitable[None]]] = {}

    def __call__(self, fault: str) -> Callable[[Callable[Told, Awaitable[None]]], Callable[Told, Awaitable[None]]]:
        """Keep the story below."""

        def keep(tell: Callable[Told, Awaitable[None]]) -> Callable[Told, Awaitable[None]]:
            self._of[tell.__name__] = fault
            self._tell[tell.__name__] = tell
            return tell

        return keep

    def fault(self, name: str) -> str:
        """The fault that a story is one of."""
        return self._of[name]

    async def tell(self, name: str, *told: Told.args, **more: Told.kwargs) -> None:
        """Tell a story."""
        await self._tell[name](*told, **more)

    @property
    def parameters(self) -> list[Any]:
        """A parameter for each story: its name, marked with its fault."""
        return [pytest.param(name, marks=fault(of)) for name, of in self._of.items()]


def chosen(request: pytest.FixtureRequest) -> list[str]:
    """The stories of the module that are to be told, in their order."""
    return [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]


async def side_by_side(names: list[str], tell: Callable[[str], Awaitable[None]], *, at_once: int) -> Endings:
    """Tell stories, so many of them at a time."""
    turns = asyncio.Semaphore(at_once)

    async def take_turn(name: str) -> None:
        async with turns:
            await tell(name)

    endings = await asyncio.gather(*map(take_turn, names), return_exceptions=True)
    return dict(zip(names, endings, strict=True))
