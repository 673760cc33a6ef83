"""The demo as somebody runs it: the command as a process, on a real broker, with the auditor as its own process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from auditor.demo.faults import FAULTS
from auditor.demo.server import Broker
from tests.support.demo import SEED, DemoRun, demo, left_behind

pytestmark = pytest.mark.timeout(150)


def test_everything_planned_is_found_and_nothing_else(broker: Broker, demo_run: DemoRun) -> None:
    err, ledger = demo_run.err, demo_run.ledger
    assert demo_run.code == 0, err
    result = json.loads(demo_run.out)
    assert result["planned"] == result["found"] == dict.fromkeys(FAULTS, 1)
    assert (result["missed"], result["false"], result["differences"], result["in_flight"]) == (0, 0, 0, 0)
    assert result["orders"] == 20
    assert result["events"] == result["published"] + result["delivered"]
    assert (result["seed"], result["broker"], result["ledger"]) == (SEED, broker.version, ledger)
    assert f"auditor lost --ledger {ledger}" in err
    assert broker.password not in err + demo_run.out
    # two whole traces: all their spans are below the first one
    for what in ("which came through", "purged from the queue"):
        lines = err.partition(what)[2].split("\n\n")[0].splitlines()[1:]
        assert [line.split("  ")[-1] for line in lines if "─ " not in line] == ["take order"]
        assert {"shop", "crm", "rabbitmq"} <= set(" ".join(lines).split())
    assert "** lost: queue_empty **" in err
    assert result["spans"] > result["published"]
    assert demo_run.left == []

    # the ledger is left, and answers
    lost = subprocess.run(
        [sys.executable, "-m", "auditor.cli", "lost", "--ledger", ledger, "--json"],
        stdout=subprocess.PIPE,
        check=True,
        timeout=30,
    )
    against = [fault for fault in FAULTS.values() if fault.hangs]
    assert len(lost.stdout.splitlines()) == len(against)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_clears_away(broker: Broker, tmp_path: Path, number: signal.Signals) -> None:
    facts = tmp_path / "none"
    with demo(broker, tmp_path, "--seconds", "60") as process:
        end = time.monotonic() + 60
        while not facts.exists() or not facts.stat().st_size:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < end, "no traffic"
            facts = next(tmp_path.glob("auditor-demo-*/mes.jsonl"), facts)
            time.sleep(0.2)
        assert left_behind(broker, tmp_path) != []
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert left_behind(broker, tmp_path) == []


def test_an_auditor_that_dies_fails_the_demo(broker: Broker, tmp_path: Path) -> None:
    with demo(broker, tmp_path, "--seconds", "60", "--rate", "1") as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "the auditor, process " in line:
                os.kill(int(line.split("process ")[1].split(",")[0]), signal.SIGKILL)
                break
        err = process.stderr.read()
        process.wait(60)
    assert process.returncode == 1
    assert "auditor, exit code -9" in err
    assert left_behind(broker, tmp_path) == []
