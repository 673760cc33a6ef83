"""Runs the auditor's command on a machine whose wall clock can be set while it runs.

    python -m tests.support.stepped FILE ARGUMENT...

FILE holds the seconds by which the wall clock is set off, and is read again and again; the arguments are the command's.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

_REAL = time.time_ns


def main() -> None:
    """Set the clock, and be the command."""
    file = Path(sys.argv.pop(1))
    known = [0.0, 0]  # when the file was read, on the monotonic clock; nanoseconds

    def time_ns() -> int:
        if time.monotonic() - known[0] > 0.1:
            known[:] = [time.monotonic(), int(float(file.read_text()) * 1e9)]
        return _REAL() + int(known[1])

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9

    from auditor.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
