"""The plugin rabbitmq_tracing, which comes with RabbitMQ and writes trace events into a file, as JSON.

It has a queue of its own making and reads what comes from now on, so it cannot be given the backlog of the others. What
can be measured is how long it takes to log the events of a run of the applications at full speed. It works inside the
broker's process: its CPU cannot be told from the broker's own.
"""

from __future__ import annotations

import time
from pathlib import Path

from auditor.demo.broker import PrivateBroker
from auditor.errors import BrokerError
from tests.benchmarks.processes import PYTHON, Program

_NAME = "bench"
_READY = 10.0  # seconds until its file is there
_LIMIT = 60.0  # seconds to log everything; what is logged by then counts
_POLL = 0.1  # seconds


def enable(broker: PrivateBroker) -> str:
    """Switch the plugin on in the running node; return what is against it."""
    enabled = broker.folder / "enabled_plugins"
    enabled.write_text("[rabbitmq_management,rabbitmq_tracing].\n", encoding="ascii")
    try:
        broker.ctl("eval", f'rabbit_plugins:ensure("{enabled}").')
        for name, value in (
            ("directory", f'"{_folder(broker)}"'),
            ("username", f'<<"{broker.user}">>'),
            ("password", f'<<"{broker.password}">>'),
        ):
            broker.ctl("eval", f"application:set_env(rabbitmq_tracing, {name}, {value}).")
    except BrokerError as error:
        return str(error)
    return ""


def events_per_s(broker: PrivateBroker, messages: int) -> float:
    """Return how many events a second it logs of so many messages published and consumed at full speed."""
    log = _folder(broker) / f"{_NAME}.log"
    trace = {
        "format": "json",
        "pattern": "#",
        "tracer_connection_username": broker.user,
        "tracer_connection_password": broker.password,
    }
    broker.management.put("traces", "/", _NAME, json=trace)
    try:
        _wait_for_file(log)
        with log.open("rb") as lines:
            command = [*PYTHON, "tests.benchmarks.traffic", "--url", broker.url(), "--messages", str(messages)]
            with Program(command):
                logged, began = 0, 0.0
                deadline = time.monotonic() + _LIMIT
                while logged < 2 * messages and time.monotonic() < deadline:
                    logged += lines.read().count(b"\n")
                    if logged and not began:
                        began = time.monotonic()
                    time.sleep(_POLL)
                ended = time.monotonic()
    finally:
        broker.management.delete("traces", "/", _NAME)
        broker.management.delete("trace-files", f"{_NAME}.log")
    return logged / (ended - began)


def _wait_for_file(log: Path) -> None:
    deadline = time.monotonic() + _READY
    while not log.exists():
        if time.monotonic() > deadline:
            raise RuntimeError(f"the plugin made no file {log}")
        time.sleep(_POLL)


def _folder(broker: PrivateBroker) -> Path:
    return broker.folder / "traces"
