"""The audit thread: one thread that owns matcher and ledger, so that SQLite never blocks the loop and nothing needs a
lock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class AuditThread:
    """Runs calls one after another; a context manager that ends the thread once the last call is done."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "audit")

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call on the thread and return what it returns. A call that has begun runs to its end."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def call(self, call: Callable[[], T]) -> T:
        """Run a call on the thread, and wait for it in another one; RuntimeError once the thread has ended."""
        return self._executor.submit(call).result()

    def __enter__(self) -> AuditThread:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
