"""Doing something without the rights of the user who runs the tests."""

from __future__ import annotations

import os
from collections.abc import Callable

from auditor.errors import LedgerError

_NOBODY = 65534


def as_nobody(question: Callable[[], object]) -> str:
    """Ask in a process of a user without rights (our own unless we are root); return the answer or the letter.

    A fork, and no new interpreter: that user may not be able to reach the interpreter's files.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
            try:
                answer = str(question())
            except LedgerError as exc:
                answer = str(exc)
            except BaseException as exc:
                answer = f"unexpected {exc!r}"
            os.write(write, answer.encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told
