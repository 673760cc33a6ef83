"""A plugin of pytest that counts what the suite finds, leaves it in build/faults.json, and has the suite's options.

The tests may be spread over several processes: what each of them has counted is summed up in the one that began.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Generator, Mapping
from dataclasses import asdict
from typing import Any

import pytest

from auditor.demo.server import Broker
from tests.faults import verdicts
from tests.faults.catalogue import FAULTS
from tests.faults.tally import RESULTS, Count, merge, put, read, table

_SHOWN = 10  # lines of what is wrong about a fault
_SENT = "faults"  # the key under which a process hands in what it counted


class Tally(defaultdict[str, Count]):
    """The counts of all faults, and what else has to be known to write them down."""

    def __init__(self) -> None:
        super().__init__(Count)
        self.failed: set[str] = set()  # faults of which a test failed
        self.broker: str | None = None  # the version of the one that all was tried on

    def plain(self) -> dict[str, Any]:
        """Everything as plain values, to be sent to another process."""
        counts = {name: asdict(count) for name, count in self.items()}
        return {"counts": counts, "failed": sorted(self.failed), "broker": self.broker}

    def add(self, sent: Mapping[str, Any]) -> None:
        """Take in what another process has counted."""
        for name, count in sent["counts"].items():
            self[name].add(Count(**count))
        self.failed.update(sent["failed"])
        self.broker = self.broker or sent["broker"]


TALLY = pytest.StashKey[Tally]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("faults", "the fault suite")
    group.addoption("--long", action="store_true", help="repeat every fault, and run those that take minutes at length")
    group.addoption("--write-table", action="store_true", help="write the table in docs/reliability.md")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash[TALLY] = Tally()


def fault_of(item: pytest.Item) -> str | None:
    """The fault of the catalogue that a test is one of."""
    mark = item.get_closest_marker("fault")
    return None if mark is None else str(mark.args[0])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note which faults have tests that fail."""
    report = yield
    if report.failed and (name := fault_of(item)):
        item.config.stash[TALLY].failed.add(name)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand in what this process has counted, if it is one of several."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_SENT] = session.config.stash[TALLY].plain()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take in what one of several processes has counted; nothing comes of one that crashed."""
    sent = getattr(node, "workeroutput", {}).get(_SENT)
    if sent is not None:
        node.config.stash[TALLY].add(sent)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Leave the counts, and print their sums."""
    tally = config.stash[TALLY]
    version = tally.broker
    if not tally or version is None or hasattr(config, "workeroutput"):
        return
    # a test that broke off has not counted what it was about: no row is better than one that looks clean
    broken = {name for name in tally.failed if not tally[name].missed and not tally[name].false}
    kept = [row for row in read() if (row["fault"], row["broker"]) not in {(name, version) for name in broken}]
    rows = merge(kept, {name: count for name, count in tally.items() if name not in broken}, version)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    say = terminalreporter.write_line
    say("")
    for name, count in tally.items():
        for line in count.wrong[:_SHOWN]:
            say(f"{name}: {line}", red=True)
    total = [sum(getattr(count, what) for count in tally.values()) for what in ("planted", "found", "missed", "false")]
    say("{} faults: {:,} planted, {:,} found, {:,} missed, {:,} false".format(len(tally), *total))
    if config.getoption("write_table"):
        if missing := FAULTS.keys() - {row["fault"] for row in rows if row["broker"] == version}:
            say(f"The table was not written: no counts of {', '.join(sorted(missing))}", red=True)
        else:
            put("faults", table(rows))
            put("verdicts", verdicts.table(read(verdicts.RESULTS)))


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    """Whether the suite is to run at length."""
    return bool(pytestconfig.getoption("long"))


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config, broker: Broker) -> Tally:
    """The counts of all faults."""
    tally = pytestconfig.stash[TALLY]
    tally.broker = broker.version
    return tally


@pytest.fixture
def count(tally: Tally, request: pytest.FixtureRequest) -> Count:
    """The counts of the fault that the test is one of."""
    name = fault_of(request.node)
    assert name is not None, "the test belongs to no fault"
    return tally[name]
