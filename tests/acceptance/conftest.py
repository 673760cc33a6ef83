"""An auditor for a module, or one for a test that wants to change its settings or end it."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from auditor.demo.server import Broker
from tests.acceptance.harness import Auditor
from tests.acceptance.scene import Scene, open_scene
from tests.support.vhost import Vhost


@pytest.fixture
def auditor(vhost: Vhost, tmp_path: Path) -> Iterator[Auditor]:
    """An auditor of the test's vhost that was not started yet."""
    auditor = Auditor(vhost.broker, vhost.name, tmp_path)
    yield auditor
    auditor.close()


@pytest.fixture(scope="module")
def shared_auditor(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Auditor]:
    """An auditor that the scenes of a module share; it runs."""
    vhost = f"acceptance-{secrets.token_hex(4)}"
    broker.add_vhost(vhost)
    auditor = Auditor(broker, vhost, tmp_path_factory.mktemp("auditor"))
    # receivers that go by the name of crm- are the only ones that count for queues called crm
    auditor.settings["flows"].insert(
        0, {"name": "shop->crm", "deadline": 2.0, "queues": ["*.crm"], "receiver_users": ["crm-*"]}
    )
    # queues called delay hold messages back on purpose, and what is published to queues called tx may be rolled back
    auditor.settings["flows"].insert(0, {"name": "tx", "deadline": 2.0, "queues": ["*.tx"], "transactional": True})
    auditor.settings["flows"][-1] |= {"delay_queues": ["*.delay"], "delay_limit": 3.0}
    auditor.start()
    yield auditor
    auditor.close()
    broker.delete_vhost(vhost)


@pytest.fixture
async def scene(shared_auditor: Auditor, request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    """A scene with the shared auditor, which reads."""
    await shared_auditor.reading()
    async with open_scene(shared_auditor, re.sub(r"\W+", "-", request.node.name.removeprefix("test_"))) as scene:
        yield scene
