"""What is served: metrics, and whether the auditor is ready."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from auditor.core.alerts import Against, Exports, InStage, Survey
from auditor.core.changes import Changes
from auditor.core.hops import Reason, State
from auditor.core.tally import MAX_LABELS, Tally
from auditor.windows.health import readiness
from auditor.windows.http import NotServed, serve
from auditor.windows.metrics import Metrics
from tests.ledger.synthetic import status

NOW = 1_000_000_000
SECOND = 1_000_000
LAG = 30 * SECOND


def metrics(tally: Tally, survey: Survey | None = None) -> Metrics:
    found = survey or Survey()
    return Metrics(tally, version="1.2", survey=lambda: found, alerts=lambda: {"log": {"taken": 2}})


def lines(made: Metrics) -> list[str]:
    return made.text().decode().splitlines()


def test_what_was_counted_is_shown() -> None:
    tally = Tally()
    changes = Changes(
        moves=[
            ("crm->mes", "q", None, State.IN_FLIGHT, None, None),
            ("crm->mes", "q", State.IN_FLIGHT, State.LATE, None, 70_000_000),
            ('odd "flow"\n', "q", State.IN_FLIGHT, State.LOST, Reason.QUEUE_EMPTY, None),
        ]
    )
    tally.committed(changes, status(published=7, delivered=5), [], 0.004)
    shown = lines(metrics(tally))
    for line in (
        'auditor_build_info{version="1.2"} 1.0',
        'auditor_events_total{kind="published",vhost="/"} 7.0',
        'auditor_hops_total{flow="crm->mes",reason="",state="late"} 1.0',
        'auditor_hop_wait_seconds_bucket{flow="crm->mes",le="60.0"} 0.0',
        'auditor_hop_wait_seconds_bucket{flow="crm->mes",le="300.0"} 1.0',
        'auditor_hop_wait_seconds_bucket{flow="crm->mes",le="+Inf"} 1.0',
        'auditor_hop_wait_seconds_sum{flow="crm->mes"} 70.0',
        'auditor_verdicts_total{flow="odd \\"flow\\"\\n",queue="q",reason="queue_empty",state="lost"} 1.0',
        'auditor_alerts_total{recipient="log",result="taken"} 2.0',
    ):
        assert line in shown


def test_gauges_of_the_ledger() -> None:
    stage = InStage("/", "A", "shop", orders=3, oldest_at=0, stuck=2, to_tell=0, to_tell_oldest_at=None)
    survey = Survey(
        against=[Against("/", "f", queue, "lost", "queue_empty", hops, 0, 1) for queue, hops in (("q", 3), ("p", 4))],
        stages=[stage, stage._replace(vhost="other", orders=1, stuck=1)],
        exports=Exports(spans=9, refused=2, dropped=1, invalid_contexts=4, waiting=5, oldest_at=0),
        size=77,
    )  # fmt: skip
    shown = lines(metrics(Tally(), survey))
    for line in (
        'auditor_lost_messages{flow="f",reason="queue_empty",vhost="/"} 7.0',
        'auditor_hops_against{flow="f",queue="p",reason="queue_empty",state="lost",vhost="/"} 4.0',
        'auditor_orders{stage="A",system="shop"} 4.0',
        'auditor_orders_stuck{stage="A",system="shop"} 3.0',
        "auditor_ledger_bytes 77.0",
        'auditor_exports_total{result="taken"} 9.0',
        'auditor_exports_total{result="refused"} 2.0',
        'auditor_exports_total{result="dropped"} 1.0',
        "auditor_invalid_trace_contexts_total 4.0",
        "auditor_outbox_rows 5.0",
    ):
        assert line in shown
    (oldest,) = [line for line in shown if line.startswith("auditor_outbox_oldest_seconds ")]
    assert float(oldest.split()[1]) == pytest.approx(time.time(), abs=60)


def test_what_waits_has_no_age_where_nothing_waits() -> None:
    assert "auditor_outbox_oldest_seconds 0.0" in lines(metrics(Tally()))


def test_queues_beyond_a_bound_are_one() -> None:
    groups = [Against("/", "f", f"q-{number}", "lost", "queue_empty", 1, 0, 1) for number in range(MAX_LABELS + 50)]
    shown = [
        line for line in lines(metrics(Tally(), Survey(against=groups))) if line.startswith("auditor_hops_against{")
    ]
    assert len(shown) == MAX_LABELS + 1
    assert 'auditor_hops_against{flow="f",queue="other",reason="queue_empty",state="lost",vhost="/"} 50.0' in shown


@pytest.mark.parametrize(
    ("standing", "reason"),
    [
        ({}, None),
        ({"connected": False}, "not connected to the broker"),
        ({"watermark": None}, "no canary has come back yet"),
        ({"watermark": NOW - 31 * SECOND}, "the watermark is 31 s behind"),
        ({"updated_at": NOW - 11 * SECOND}, "nothing was written to the ledger for 11 s"),
    ],
)
def test_ready_or_why_not(standing: dict[str, Any], reason: str | None) -> None:
    stands = status(**({"updated_at": NOW, "watermark": NOW} | standing))
    found = readiness(["/"], [stands], NOW, LAG)
    assert found == {"ready": reason is None, "reasons": [] if reason is None else [{"vhost": "/", "reason": reason}]}


def test_a_vhost_of_which_nothing_was_written_is_not_ready() -> None:
    found = readiness(["/", "other"], [status(updated_at=NOW, watermark=NOW)], NOW, LAG)
    assert found["reasons"] == [{"vhost": "other", "reason": "nothing was written to the ledger yet"}]


def _get(url: str) -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


async def get(address: str, path: str) -> tuple[int, str, str]:
    return await asyncio.to_thread(_get, f"http://{address}{path}")


async def test_the_server() -> None:
    ready: dict[str, Any] = {"ready": True, "reasons": []}
    async with serve("127.0.0.1:0", metrics(Tally()), lambda: ready) as address:
        code, kind, text = await get(address, "/metrics")
        assert (code, kind.split(";")[0]) == (200, "text/plain")
        assert "auditor_build_info" in text
        assert (await get(address, "/healthz"))[0] == 200
        assert (await get(address, "/readyz"))[0] == 200
        ready = {"ready": False, "reasons": [{"vhost": "/", "reason": "why"}]}
        code, _, text = await get(address, "/readyz")
        assert (code, json.loads(text)) == (503, ready)
        assert (await get(address, "/"))[0] == 404
        with pytest.raises(NotServed, match=r"http\.listen"):
            async with serve(address, metrics(Tally()), lambda: ready):
                pass
