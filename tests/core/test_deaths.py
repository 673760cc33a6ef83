"""Reading x-death, which anybody may send in any shape."""

from __future__ import annotations

from typing import Any

import pytest

from auditor.core.deaths import Death, deaths
from auditor.core.hops import Reason


def entry(**changes: Any) -> dict[str, Any]:
    return {"queue": "work", "reason": "rejected", "count": 1, "exchange": "orders", "routing-keys": ["k"], **changes}


def test_the_newest_death_comes_first() -> None:
    headers = {"x-death": [entry(queue="retry", reason="expired"), entry()]}
    assert deaths(headers) == [Death("retry", Reason.EXPIRED), Death("work", Reason.REJECTED)]


@pytest.mark.parametrize("reason", ["expired", "rejected", "maxlen", "delivery_limit"])
def test_every_reason_of_the_broker_is_known(reason: str) -> None:
    assert deaths({"x-death": [entry(reason=reason)]}) == [Death("work", Reason(reason))]


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("there is none", None),
        ("it is a text", "work"),
        ("it is a number", 2**64 - 1),
        ("it is a table", {"queue": "work", "reason": "rejected"}),
        ("it is empty", []),
        ("its entries are texts", ["work"]),
        ("its entries are lists", [[entry()]]),
        ("an entry has no queue", [{"reason": "rejected"}]),
        ("an entry has no reason", [{"queue": "work"}]),
        ("the queue is no text", [entry(queue=7)]),
        ("the queue has no name: an unroutable hop has none either, and is nobody's to move", [entry(queue="")]),
        ("the reason is no text", [entry(reason=["rejected"])]),
        ("the reason is a table", [entry(reason={})]),
        ("the broker knows no such reason", [entry(reason="bored")]),
        ("it is a reason of the auditor's own", [entry(reason="queue_empty")]),
    ],
)
def test_what_makes_no_sense_is_passed_over(what: str, value: Any) -> None:
    assert deaths({"x-death": value}) == [], what
    if isinstance(value, list):
        assert deaths({"x-death": [*value, entry()]}) == [Death("work", Reason.REJECTED)], what


def test_a_message_without_the_header_never_died() -> None:
    assert deaths({}) == []


def test_an_endless_list_is_cut() -> None:
    """Each death may cost a look into the ledger."""
    found = deaths({"x-death": [entry(queue=f"q{n}") for n in range(3000)]})
    assert 10 <= len(found) <= 100
    assert found[0].queue == "q0"
