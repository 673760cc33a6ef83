"""What the tests of the suite may break: a node, a line, a disk."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from auditor.demo.broker import PrivateBroker
from tests.acceptance.conftest import auditor, shared_auditor
from tests.acceptance.harness import Auditor
from tests.support.disk import MIB, Disk
from tests.support.missing import missing
from tests.support.vhost import Vhost
from tests.support.wire import Wire

__all__ = ["auditor", "shared_auditor"]

FLOOR = 16 * MIB  # of the small disk that is not to be used


@pytest.fixture
def node(node_wrapper: list[str]) -> Iterator[PrivateBroker]:
    """A node that the test may break."""
    with PrivateBroker(node_wrapper) as node:
        yield node


@pytest.fixture
async def wire(vhost: Vhost) -> AsyncIterator[Wire]:
    """A line to the broker that the test may break."""
    async with Wire(vhost.broker.host, vhost.broker.port) as wire:
        yield wire


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A small disk that the test may fill."""
    with ExitStack() as stack:
        disk = Disk(tmp_path / "disk")
        try:
            stack.enter_context(disk)
        except (OSError, subprocess.CalledProcessError) as error:
            missing(
                f"No small file system can be mounted here ({error})", "It takes root, in a container CAP_SYS_ADMIN."
            )
        yield disk


@pytest.fixture
def cramped(disk: Disk, auditor: Auditor) -> Auditor:
    """An auditor whose ledger is on the small disk, and for which counts matter, no deadlines."""
    auditor.ledger = disk.path / "ledger.db"
    auditor.settings["ledger"] = {"path": str(auditor.ledger), "min_free": FLOOR}
    auditor.settings["flows"][0]["deadline"] = 600
    return auditor
