"""What all tests share: a clean environment, one broker for the whole session, and a fresh vhost for each test."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from auditor.demo.broker import program
from auditor.demo.find import find_broker
from auditor.demo.server import Broker
from auditor.errors import BrokerError
from auditor.log import JsonFormatter, TextFormatter
from tests.support.demo import DemoRun, run_once
from tests.support.missing import missing
from tests.support.vhost import Vhost

# Loaded from here, because what is run in several processes is summed up in one that looks at no test itself.
pytest_plugins = ["tests.faults.counting"]

# The AUDITOR_TEST_ variables, which say what broker to use. Everything else with our prefix would be a setting of the
# auditors that the tests start, so none of it stays in the environment.
TEST_ENVIRON = pytest.StashKey[dict[str, str]]()
BROKER = pytest.StashKey[Broker | BrokerError]()  # the one in use, or why there is none

# A shared machine may stop for a second in the middle of an example: that is no failure. CI tries the same examples
# each time; new ones are found where somebody can look at them.
settings.register_profile(
    "auditor",
    deadline=None,
    print_blob=True,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("auditor")


def pytest_configure(config: pytest.Config) -> None:
    """Scrub the environment."""
    ours = {name: value for name, value in os.environ.items() if name.startswith("AUDITOR_")}
    for name in ours:
        del os.environ[name]
    config.stash[TEST_ENVIRON] = {name: value for name, value in ours.items() if name.startswith("AUDITOR_TEST_")}


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need the broker, and put the files that have such tests first.

    They take longest, and mostly wait; where several processes share the tests, what only computes fills up the end.
    """
    slow = set()
    for item in items:
        if "broker" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.broker)
            slow.add(item.path)
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the broker if a chosen test needs it, and say which one it is.

    Here, not in the fixture, so that a slow start (the image of a container has to be fetched) takes no test's time.
    """
    if session.config.option.collectonly or not any(item.get_closest_marker("broker") for item in session.items):
        return
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    assert reporter is not None
    try:
        environ = config.stash[TEST_ENVIRON]
        broker = find_broker(environ)
        reporter.write_line(f"broker: {broker.origin}")
        broker.__enter__()
    except BrokerError as error:
        config.stash[BROKER] = error
        reporter.write_line(f"broker: NONE, so every test that needs one fails. {error}", red=True)
    else:
        config.add_cleanup(broker.close)
        config.stash[BROKER] = broker
        reporter.write_line(f"broker: RabbitMQ {broker.version} at {broker.amqp_url}")


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    """Undo what a command that runs in this process does to the loggers: the next test would miss what is logged."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in [one for one in root.handlers if isinstance(one.formatter, TextFormatter | JsonFormatter)]:
        root.removeHandler(handler)
    root.setLevel(level)
    for name in ("aio_pika", "aio_pika.tools", "aiormq", "aiormq.connection", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def test_environ(pytestconfig: pytest.Config) -> dict[str, str]:
    """The AUDITOR_TEST_ variables of the shell."""
    return pytestconfig.stash[TEST_ENVIRON]


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config) -> Broker:
    """The broker of this session, ready for use. Without one the test fails; it is never skipped."""
    broker = pytestconfig.stash[BROKER]
    if isinstance(broker, BrokerError):
        pytest.fail(str(broker), pytrace=False)
    return broker


@pytest.fixture(scope="session")
def demo_run(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """A run of the demo, which the processes of this session share: it takes the better part of a minute."""
    folder = tmp_path_factory.getbasetemp()
    # each process of several has a folder of its own in that of the session
    return run_once(broker, (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "demo-run")


@pytest.fixture
def vhost(broker: Broker, request: pytest.FixtureRequest) -> Iterator[Vhost]:
    """A vhost of this test's own, with nothing in it; deleted at the end with all that is in it then."""
    readable = re.sub(r"\W+", "-", request.node.name)[:40]
    vhost = Vhost(broker=broker, name=f"{readable}-{secrets.token_hex(4)}")
    broker.add_vhost(vhost.name)
    yield vhost
    broker.delete_vhost(vhost.name)


@pytest.fixture(scope="session")
def node_wrapper(test_environ: dict[str, str], broker: Broker) -> list[str]:
    """What to put before RabbitMQ's commands, to start nodes that a test may break; without any broker, that fails."""
    wrapper = shlex.split(test_environ.get("AUDITOR_TEST_RABBITMQ_COMMAND", ""))
    if not wrapper and not program("rabbitmq-server"):
        missing(
            "Nodes of our own cannot be started: the tests use a broker that was given, or a container",
            "Install RabbitMQ (on Debian, as root: apt-get install rabbitmq-server).",
        )
    return wrapper
