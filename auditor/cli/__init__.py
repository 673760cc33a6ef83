"""The command line: the back door for operators, and the way in for the daemon. `main` is the installed command."""

from auditor.cli.main import main

__all__ = ["main"]
