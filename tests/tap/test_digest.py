"""The digest by which an event is recognised when the broker sends it again."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import encode

from auditor.core.seen import SIZE
from auditor.tap.digest import digest
from auditor.tap.wire import Content

FIRST: dict[str, Any] = {
    "exchange_name": "crm",
    "properties": {"message_id": "m1", "headers": {"order": "A-1"}},
    "node": "rabbit@a",
}


def content(headers: dict[str, Any], *, key: bytes = b"publish.crm", body: bytes = b"{}") -> Content:
    return Content(1, False, key, b"\x20\x00" + encode.field_table(headers), body, 0)


def test_what_a_quorum_queue_does_to_a_redelivered_event_changes_nothing() -> None:
    again = {**dict(sorted(FIRST.items())), "x-delivery-count": 3}
    assert digest(content(FIRST)) == digest(content(again))
    assert len(digest(content(FIRST))) == SIZE


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(content(FIRST, key=b"deliver.crm"), id="another kind"),
        pytest.param(content(FIRST, body=b"{ }"), id="another body"),
        pytest.param(content({**FIRST, "properties": {"message_id": "m2"}}), id="another message"),
    ],
)
def test_another_event_has_another_digest(other: Content) -> None:
    assert digest(content(FIRST)) != digest(other)


@pytest.mark.parametrize("end", range(0, 60, 3))
def test_an_event_that_is_cut_off_has_one_too(end: int) -> None:
    whole = content(FIRST)
    assert len(digest(whole._replace(properties=whole.properties[:end]))) == SIZE
