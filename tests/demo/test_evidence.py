"""The demo's settings are good settings, and a ledger is read while it comes into being."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor.core.changes import Changes, HopRow, MessageRow
from auditor.core.hops import Reason, State
from auditor.demo.evidence import DEADLINE, Evidence, settings
from auditor.demo.report import SeenHop
from auditor.demo.topology import Place
from auditor.errors import LedgerError
from auditor.flows import flow_table
from auditor.ledger.writer import Ledger, Status
from auditor.settings import load

VHOST = "auditor-demo"


def status(**fields: object) -> Status:
    """A status row of a connected auditor."""
    row: dict[str, object] = {
        "vhost": VHOST,
        "connected": True,
        "watermark": 1,
        "last_event_at": 1,
        "updated_at": 1,
        "queue_depth": 0,
        "open_hops": 0,
        "published": 1,
        "delivered": 0,
        "undecodable": 0,
        "orphans": 0,
        "traced": 0,
        "pid": 1,
        "version": "0",
        "broker": "3.10.8",
        "problem": None,
    }
    return Status(**(row | fields))  # type: ignore[arg-type]


def message(number: int) -> MessageRow:
    """A publish of the CRM."""
    return MessageRow(
        id=number,
        vhost=VHOST,
        exchange="crm.orders",
        routing_key="order.approved.purged",
        message_id="m",
        identity=1,
        order_id="A-00001",
        stage="MANUFACTURING_APPROVED",
        sender="crm",
        user_id="anna",
        error=None,
        user="crm",
        connection="c",
        node="n",
        priority=0,
        size=10,
        trace_context=None,
        published_at=1,
        time_source="arrival",
    )


def test_the_settings_load_and_know_the_three_flows(tmp_path: Path) -> None:
    place = Place.random()
    config = tmp_path / "auditor.toml"
    config.write_text(settings("amqp://127.0.0.1:5672", place, tmp_path / "ledger.db", "http://127.0.0.1:4318"))
    loaded = load(config)
    assert loaded.broker.vhosts == [place.vhost]
    assert loaded.ledger.path == tmp_path / "ledger.db"
    assert (loaded.tracing.enabled, loaded.tracing.endpoint) == (True, "http://127.0.0.1:4318")
    flows = flow_table(loaded)
    for exchange, queue, name in [
        ("shop.orders", "crm.shop-orders", "shop->crm"),
        ("crm.orders", "mes.line-1", "crm->mes"),
        ("mes.orders", "crm.mes-orders", "mes->crm"),
    ]:
        found = flows.of_hop(flows.of_publish(exchange, "anybody", "anywhere"), queue)
        assert found is not None and found[0].name == name
        assert found[1] == DEADLINE * 1_000_000


def test_there_is_no_evidence_before_there_is_a_ledger(tmp_path: Path) -> None:
    evidence = Evidence(tmp_path / "ledger.db")
    assert evidence.status() == {}
    assert evidence.hops() == []
    (tmp_path / "ledger.db").touch()  # as SQLite leaves it until the first table is made
    assert evidence.verdicts() == []


def test_hops_are_read_in_the_words_of_the_design(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger.open(path)
    hop = HopRow(
        message=1,
        number=0,
        queue="mes.line-purged",
        flow="crm->mes",
        state=State.LOST,
        reason=Reason.QUEUE_EMPTY,
        deadline=4_000_000,
        wait=None,
        attempts=0,
        judged_at=5,
    )
    unroutable = hop._replace(message=2, queue="", state=State.UNROUTABLE, reason=Reason.NO_QUEUE)
    delivered = hop._replace(message=3, state=State.DELIVERED, reason=None, wait=1, attempts=1)
    changes = Changes(messages=[message(1), message(2), message(3)], hops=[hop, unroutable, delivered])
    ledger.commit(changes, status=status())
    evidence = Evidence(path)
    lost = SeenHop(1, "m", "A-00001", "mes.line-purged", State.LOST, Reason.QUEUE_EMPTY, 0)
    nowhere = SeenHop(2, "m", "A-00001", "", State.UNROUTABLE, Reason.NO_QUEUE, 0)
    arrived = SeenHop(3, "m", "A-00001", "mes.line-purged", State.DELIVERED, None, 1)
    assert sorted(evidence.verdicts()) == [lost, nowhere]
    assert sorted(evidence.hops()) == [lost, nowhere, arrived]
    assert evidence.status()["connected"]
    ledger.close()


def test_a_ledger_that_goes_away_is_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger.open(path)
    ledger.commit(Changes(), status=status())
    evidence = Evidence(path)
    assert evidence.status()["vhost"] == VHOST
    ledger.close()
    path.unlink()
    with pytest.raises(LedgerError):
        evidence.status()
