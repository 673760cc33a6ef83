"""Identity: what both events of a message show, and nothing that the broker changes on the way."""

from __future__ import annotations

from typing import Any

import pytest

from auditor.core.events import Properties
from auditor.core.identity import identify

WITH_ID = Properties(message_id="m-1", content_type="text/plain", headers={"kind": "order"})
WITHOUT_ID = WITH_ID._replace(message_id=None)


def identity(properties: Properties, body: bytes = b"body", vhost: str = "/") -> int:
    return identify(vhost, properties, body)


@pytest.mark.parametrize("properties", [WITH_ID, WITHOUT_ID], ids=["with an id", "without an id"])
@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("dead-lettering removes the expiration", {"expiration": "1000"}),
        ("dead-lettering writes x-death", {"headers": {"kind": "order", "x-death": [{"queue": "q"}]}}),
        ("a quorum queue counts deliveries", {"headers": {"kind": "order", "x-delivery-count": 2}}),
        ("dead-lettering rewrites CC", {"headers": {"kind": "order", "CC": ["a"]}}),
        ("the broker strips BCC", {"headers": {"kind": "order", "BCC": ["a"]}}),
    ],
)
def test_what_the_broker_changes_is_left_out(properties: Properties, what: str, change: dict[str, Any]) -> None:
    assert identity(properties._replace(**change)) == identity(properties), what


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("another header", {"headers": {"kind": "offer"}}),
        ("one header more", {"headers": {"kind": "order", "shop": 1}}),
        ("a number is not its text", {"headers": {"kind": 1}}),
        ("another correlation id", {"correlation_id": "c"}),
        ("another content type", {"content_type": "text/html"}),
        ("a priority", {"priority": 3}),
        ("a timestamp", {"timestamp": 1}),
        ("a type", {"type": "t"}),
        ("an application", {"app_id": "a"}),
    ],
)
def test_without_an_id_properties_tell_messages_apart_and_with_one_they_do_not(
    what: str, change: dict[str, Any]
) -> None:
    assert identity(WITHOUT_ID._replace(**change)) != identity(WITHOUT_ID), what
    assert identity(WITH_ID._replace(**change)) == identity(WITH_ID), what


@pytest.mark.parametrize("properties", [WITH_ID, WITHOUT_ID], ids=["with an id", "without an id"])
def test_body_and_vhost_always_count(properties: Properties) -> None:
    assert identity(properties, b"other") != identity(properties)
    assert identity(properties, vhost="other") != identity(properties)


def test_an_id_counts_and_an_empty_one_is_an_id() -> None:
    found = {identity(WITH_ID._replace(message_id=id)) for id in ("m-1", "m-2", "", None)}
    assert len(found) == 4


def test_the_order_of_headers_does_not_count() -> None:
    """RabbitMQ 4 sorts them in both events, 3.10 in neither."""
    there = WITHOUT_ID._replace(headers={"a": 1, "b": {"c": [1, 2]}})
    back = WITHOUT_ID._replace(headers={"b": {"c": [1, 2]}, "a": 1})
    assert identity(there) == identity(back)


def test_it_is_a_signed_64_bit_number_and_the_same_in_every_run() -> None:
    """Open hops are found again by it after a restart: a change of the recipe is a change of the ledger."""
    assert identity(WITH_ID) == -6975114709479962448
    assert identity(WITHOUT_ID) == 7580135605707807884
    found = [identity(WITH_ID, bytes([n])) for n in range(64)]
    assert all(-(2**63) <= number < 2**63 for number in found)
    assert min(found) < 0 < max(found)


def test_names_that_are_no_valid_text_do_no_harm() -> None:
    assert identity(WITH_ID._replace(message_id="\udcff")) != identity(WITH_ID._replace(message_id="\udcfe"))
    assert identity(WITHOUT_ID._replace(type="\udcff")) != identity(WITHOUT_ID)
