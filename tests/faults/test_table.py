"""The suite and what is written about it are of the same faults."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.faults.catalogue import FAULTS
from tests.faults.tally import Count, faults_of_table, merge, table


def test_every_fault_of_the_catalogue_has_tests_and_is_in_the_table() -> None:
    assert planted_faults() == FAULTS.keys()
    assert faults_of_table() == list(FAULTS)


def planted_faults() -> set[str]:
    """The faults that the modules of this suite name, as `@fault(...)` or `@story(...)`."""
    calls = (
        node
        for module in Path(__file__).parent.glob("test_*.py")
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("fault", "story")
    )
    return {str(call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)}


def test_claims_are_counted_by_what_was_planted() -> None:
    count = Count()
    count.hold(["a", "a", "b"], ["a", "b", "c"])
    assert (count.planted, count.found, count.missed, count.false) == (3, 2, 1, 1)
    assert count.wrong == ["missed: a", "false: c"]


def test_a_run_replaces_the_rows_of_its_broker_and_keeps_the_others() -> None:
    name = next(iter(FAULTS))
    before = merge([], {name: Count(planted=1)}, "4.0.5")
    rows = merge(before, {name: Count(planted=2, found=2)}, "3.10.8")
    rows = merge(rows, {name: Count(planted=3, found=3, false=1)}, "3.10.8")
    assert [list(row.values()) for row in rows] == [[name, "3.10.8", 3, 3, 0, 1], [name, "4.0.5", 1, 0, 1, 0]]
    assert "| RabbitMQ 3.10.8 | RabbitMQ 4.0.5 |" in table(rows)
    assert f"| {name} | {FAULTS[name]} | 3 / 3 / 0 / 1 | 1 / 0 / 1 / 0 |" in table(rows)
