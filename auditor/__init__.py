"""auditor: records what RabbitMQ was given and what it handed out, and says which messages were lost."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("auditor")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
