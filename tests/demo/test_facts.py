"""Facts are counted once, also while they are being written."""

from __future__ import annotations

from pathlib import Path

from auditor.demo.facts import FactsReader, FactsWriter


def test_facts_are_counted_as_they_come(tmp_path: Path) -> None:
    reader = FactsReader({"crm": tmp_path / "crm", "mes": tmp_path / "mes"})
    assert reader.read().ready == set()
    crm, mes = FactsWriter(tmp_path / "crm"), FactsWriter(tmp_path / "mes")
    crm.write("ready")
    crm.write("published", message_id="m", order="A", stage="CLOSED")
    assert reader.read().ready == {"crm"}
    crm.write("published", message_id="m", order="A", stage="CLOSED")
    mes.write("received", message_id="m", order="A", stage="CLOSED", queue="q")
    mes.write("resumed", queue="q")
    facts = reader.read()
    assert facts.published == {"m": 2}
    assert facts.received == {("m", "q"): 1}
    assert facts.stages == {"CLOSED": 1}  # the duplicate is the same step
    assert facts.closed == {"A"}
    crm.close()
    mes.close()
    assert reader.read().published == {"m": 2}


def test_a_line_that_is_still_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "shop"
    path.write_text('{"did": "ready"}\n{"did": "publ')
    reader = FactsReader({"shop": path})
    assert reader.read().published == {}
    with path.open("a") as file:
        file.write('ished", "message_id": "m", "order": "A", "stage": null}\n')
    assert reader.read().published == {"m": 1}
