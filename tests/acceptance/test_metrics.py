"""Metrics, with a real Prometheus that scrapes the demo: they are there, and they are right."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from auditor.demo import run
from auditor.demo.display import Display
from auditor.demo.faults import FAULTS, Plan, make_plan
from auditor.demo.orders import STAGES
from auditor.demo.run import Options
from auditor.demo.server import Broker
from tests.support.observers import Prometheus, program, until

pytestmark = pytest.mark.timeout(240)

CONFIG = Path(__file__).parents[2] / "config"
RULES = CONFIG / "prometheus" / "rules.yml"
DASHBOARD = CONFIG / "grafana" / "auditor.json"
METRICS = CONFIG.parent / "docs" / "metrics.md"
SUFFIXES = ("", "_total", "_bucket", "_sum", "_count")


@dataclass(frozen=True, slots=True)
class Watched:
    """A demo that was scraped to its end."""

    prometheus: Prometheus
    at: float  # the time of the last scrape
    ledger: sqlite3.Connection
    plan: Plan
    page: str  # what /metrics said at some time

    def last(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """What an expression gave at the last scrape."""
        return self.prometheus.query(expression, at=self.at)

    def number(self, expression: str) -> float:
        ((_, value),) = self.last(expression)
        return value

    def sql(self, statement: str) -> list[Any]:
        return self.ledger.execute(statement).fetchall()


@pytest.fixture(scope="module")
def watched(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The demo, with a Prometheus from soon after its start."""
    folder = tmp_path_factory.mktemp("demo")
    options = Options(seconds=8, rate=5, seed=3, folder=folder, ledger=folder / "ledger.db")
    failed: list[BaseException] = []

    def play() -> None:
        try:
            run.run(options, broker, Display(StringIO()))
        except BaseException as error:
            failed.append(error)

    demo = threading.Thread(target=play)
    demo.start()

    def address() -> str | None:
        with suppress(FileNotFoundError):
            if found := re.search(r"metrics and health at http://(\S+)", (folder / "auditor.log").read_text()):
                return found[1]
        assert demo.is_alive(), failed
        return None

    target = until(address, "the auditor serves metrics")
    (prometheus_folder := tmp_path_factory.mktemp("prometheus")).chmod(0o755)
    prometheus = Prometheus(prometheus_folder, target, RULES)
    prometheus.start()
    try:
        page = ""
        while demo.is_alive():
            with suppress(OSError), urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as answer:
                page = answer.read().decode()
            demo.join(0.5)
        assert not failed, failed
        ((_, at),) = prometheus.query("max_over_time((timestamp(up == 1))[10m:500ms])")
        with closing(sqlite3.connect(options.ledger)) as ledger:
            yield Watched(prometheus, at, ledger, make_plan(options.seed, options.orders), page)
    finally:
        demo.join()
        prometheus.stop()


def test_promtool_is_content_with_the_metrics(watched: Watched) -> None:
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=watched.page, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_label_is_an_id(watched: Watched) -> None:
    labels = set(re.findall(r'(\w+)="', watched.page))
    assert labels <= {
        "cause", "flow", "kind", "le", "queue", "reason", "recipient", "result", "stage", "state", "system", "version",
        "vhost", "way",
    }  # fmt: skip
    assert "A-000" not in watched.page


def named(text: str) -> set[str]:
    return set(re.findall(r"\bauditor_[a-z_]+\b", text))


def test_every_metric_that_rules_and_dashboard_name_has_data(watched: Watched) -> None:
    names = named(RULES.read_text()) | named(DASHBOARD.read_text())
    assert len(names) > 20
    missing = [name for name in sorted(names) if not watched.last(f"count({name})")]
    assert missing == []


def test_every_rule_and_every_panel_is_evaluated(watched: Watched) -> None:
    groups = json.load(urllib.request.urlopen(f"{watched.prometheus.url}/api/v1/rules"))["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == RULES.read_text().count("- alert:") + RULES.read_text().count("- record:")
    assert {rule["health"] for rule in rules if rule["name"] != "auditor:lost_messages:count"} <= {"ok", "unknown"}
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(expressions) > 20
    for expression in expressions:
        watched.last(expression.replace("$vhost", ".*"))


def test_the_page_on_metrics_names_them_all_and_no_other(watched: Watched) -> None:
    shown = set(re.findall(r"^# TYPE (auditor_\w+)", watched.page, re.MULTILINE))
    assert set(re.findall(r"^\| `(auditor_\w+)", METRICS.read_text(), re.MULTILINE)) == shown


def test_the_dashboard_uses_what_the_auditor_shows(watched: Watched) -> None:
    """Nothing that is shown is forgotten, but for what only tells apart."""
    shown = set(re.findall(r"^# TYPE (auditor_\w+)", watched.page, re.MULTILINE))
    used = named(DASHBOARD.read_text()) | named(RULES.read_text())
    bare = {name.removesuffix(suffix) for name in used for suffix in SUFFIXES}
    unused = {name for name in shown if name not in used and name.removesuffix("_total") not in bare}
    assert unused == {"auditor_undecodable_total"}  # in a sound system it has no data: its causes are looked up


def test_the_orders_are_those_of_ledger_and_plan(watched: Watched) -> None:
    planned = watched.plan.closing
    assert watched.number("auditor_order_processing_seconds_count") == planned
    ((count, total),) = watched.sql(
        "SELECT count(*), sum(processing_seconds) FROM stages WHERE ends AND processing_seconds IS NOT NULL"
    )
    assert count == planned
    assert watched.number("auditor_order_processing_seconds_sum") == pytest.approx(total)
    hanging = len(watched.plan.orders) - planned
    assert hanging > 0
    assert watched.sql("SELECT count(*), sum(stuck) FROM open_orders") == [(hanging, hanging)]
    stuck = {labels["stage"]: value for labels, value in watched.last("auditor_orders_stuck > 0")}
    assert stuck == {"MANUFACTURING_APPROVED": hanging}
    assert watched.number("sum(auditor_orders)") == hanging


def test_the_times_of_the_stages_are_those_of_the_ledger(watched: Watched) -> None:
    mean = watched.last("auditor_order_stage_seconds_sum / auditor_order_stage_seconds_count")
    metrics = {labels["stage"]: value for labels, value in mean}
    rows = watched.sql("SELECT stage, mean_seconds FROM stage_times WHERE mean_seconds IS NOT NULL")
    assert metrics == pytest.approx(dict(rows))
    systems = {labels["stage"]: labels["system"] for labels, _ in mean}
    assert systems == {stage: system for stage, system in STAGES.items() if stage != "CLOSED"}
    entries = {labels["stage"]: value for labels, value in watched.last('auditor_stage_entries_total{way!="repeated"}')}
    assert entries == dict(watched.sql("SELECT stage, entries FROM stage_times"))
    # nobody skips or goes back: what is published twice is one step
    assert {labels["way"] for labels, _ in watched.last("auditor_stage_entries_total")} == {"first", "next"}
    orders = len(watched.plan.orders)
    assert [entries[stage] for stage in STAGES] == [orders] * 5 + [watched.plan.closing] * 5


def test_the_lost_messages_are_those_of_ledger_and_plan(watched: Watched) -> None:
    found = {(of["flow"], of["reason"]): value for of, value in watched.last("auditor_lost_messages")}
    sql = "SELECT flow, reason, count(*) FROM lost WHERE state = 'lost' GROUP BY flow, reason"
    assert found == {(flow, reason): count for flow, reason, count in watched.sql(sql)}
    planted = watched.plan.planted
    lost = sum(planted[name] for name, fault in FAULTS.items() if fault.expected[0][0] == "lost")
    assert sum(found.values()) == lost
    labels = ("flow", "queue", "state", "reason")
    against = {
        tuple(of.get(label, "") for label in labels): value for of, value in watched.last("auditor_hops_against")
    }
    sql = "SELECT flow, queue, state, reason, count(*) FROM lost GROUP BY flow, queue, state, reason"
    assert against == {(flow, queue, state, reason): n for flow, queue, state, reason, n in watched.sql(sql)}
    assert sum(against.values()) == sum(planted[name] for name, fault in FAULTS.items() if fault.hangs)


def test_events_messages_and_waits_are_those_of_the_ledger(watched: Watched) -> None:
    kinds = {labels["kind"]: value for labels, value in watched.last("auditor_events_total")}
    assert [(kinds["published"], kinds["delivered"], kinds["undecodable"])] == watched.sql(
        "SELECT published, delivered, undecodable FROM status"
    )
    systems = {labels["system"]: value for labels, value in watched.last("auditor_messages_total")}
    assert systems == dict(watched.sql("SELECT (SELECT name FROM names WHERE id = sender_id), count(*) FROM messages GROUP BY 1"))  # fmt: skip # noqa: E501
    waits = {labels["flow"]: value for labels, value in watched.last("auditor_hop_wait_seconds_count")}
    # a message that was rejected had been delivered before; its dead letter's delivery is no flow's
    sql = (
        """SELECT flow, count(*) FROM audit WHERE wait_seconds IS NOT NULL AND queue <> 'dead-letters' GROUP BY flow"""
    )
    assert waits == dict(watched.sql(sql))
    new = watched.number('sum(auditor_hops_total{state=~"in_flight|unroutable"})')
    assert [(new,)] == watched.sql("SELECT count(*) FROM hops h JOIN names q ON q.id = h.queue_id WHERE q.name <> 'dead-letters'")  # fmt: skip # noqa: E501


def test_amtool_and_promtool_are_content_with_the_files() -> None:
    for command in (
        ["promtool", "check", "rules", str(RULES)],
        ["promtool", "test", "rules", str(Path(__file__).parent / "rules_of_spans.yml")],
        ["amtool", "check-config", str(CONFIG / "alertmanager" / "alertmanager.yml")],
    ):
        done = subprocess.run([program(command[0]), *command[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
