"""Extraction: the cheapest place first, and nothing in a message can make it fail."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.core.events import Properties, Published
from auditor.core.extract import (
    MAX_BODY,
    MAX_LENGTH,
    Content,
    Fields,
    bare_type,
    extractor,
    from_body,
    from_headers,
    from_property,
    from_routing_key,
    path,
    text,
)


def published(
    body: bytes | Any = b"",
    headers: Mapping[str, Any] | None = None,
    routing_keys: tuple[str, ...] = ("key",),
    **properties: Any,
) -> Published:
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    return Published(
        "/", "orders", routing_keys, (), Properties(headers=headers or {}, **properties), body, "n", "c", "u", 0
    )


def document(body: Any, **properties: Any) -> Any:
    return Content(published(body, **properties)).document


class CountingBody(bytes):
    """A body that cannot be looked at without being noticed."""

    def __len__(self) -> int:
        raise AssertionError("the body was looked at")


def test_the_first_source_that_holds_something_is_taken() -> None:
    extract = extractor(order_id=[from_headers("a", "b"), from_property("correlation_id"), from_body(path("id"))])
    assert extract(published({"id": 1}, {"b": "B"}, correlation_id="C")).order_id == "B"
    assert extract(published({"id": 1}, {"a": "", "b": " "}, correlation_id="C")).order_id == "C"
    assert extract(published({"id": 1})).order_id == "1"
    assert extract(published({})).order_id is None


def test_the_body_is_left_alone_while_headers_answer() -> None:
    extract = extractor(order_id=[from_headers("x-order-id"), from_body(path("id"))])
    event = published(b"", {"x-order-id": "A-1"})._replace(body=CountingBody(b"{}"))
    assert extract(event) == Fields(order_id="A-1")
    with pytest.raises(AssertionError):
        extract(event._replace(properties=Properties()))


def test_the_body_is_parsed_once() -> None:
    calls: list[bytes] = []

    def counting(body: bytes) -> Any:
        calls.append(body)
        return json.loads(body)

    a, b, c = ([from_body(path(name))] for name in "abc")
    extract = extractor(order_id=a, stage=b, error=c, parse=counting)
    assert extract(published({"b": "SHIPPED"})) == Fields(stage="SHIPPED")
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("content_type", "parsed"),
    [
        (None, True),
        ("", True),
        ("application/json; charset=utf-8", True),
        ("application/vnd.masstransit+json", True),
        ("text/plain", True),
        ("application/octet-stream", True),
        ("application/xml", False),
        ("application/x-java-serialized-object", False),
        ("application/x-protobuf", False),
        ("image/png", False),
    ],
)
def test_a_body_is_parsed_unless_its_content_type_says_it_is_not_json(content_type: str | None, parsed: bool) -> None:
    assert document({"id": 1}, content_type=content_type) == ({"id": 1} if parsed else None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"plain",
        b'"a string"',
        b"12",
        b"{",
        b'{"id": 1',
        b'{"id": 1} x',
        b'{"id": 1}{"id": 2}',
        b'{"id": 1}\xc2\xa0',
        b'{"id": "\xff\xfe"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"id": ' + b"9" * 10_000 + b"}",
        b"\x1f\x8b\x08\x00\x00",
        b"{" + b" " * MAX_BODY + b"}",
    ],
    ids=lambda body: repr(body[:12]),
)
def test_a_body_that_cannot_be_read_holds_nothing(body: bytes) -> None:
    assert document(body) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-32-be"])
def test_json_is_read_in_every_encoding_it_may_have(encoding: str) -> None:
    body = '{"id": "é"}'.encode(encoding)
    if encoding == "utf-32-be":  # begins with zeros: not taken for JSON, as it is not worth a look at every binary body
        assert document(body) is None
    else:
        assert document(body) == {"id": "é"}


def test_spaces_around_json_are_passed_over() -> None:
    assert document(b' \t\r\n{"id": 1} \t\r\n') == document(b'{"id": 1}\n') == {"id": 1}


def test_numbers_that_json_does_not_have_are_not_there() -> None:
    assert document(b'{"a": NaN, "b": -Infinity, "id": 7}') == {"a": None, "b": None, "id": 7}
    assert extractor(order_id=[from_body(path("a"))])(published(b'{"a": 1e999}')).order_id is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("A-1", "A-1"),
        (" kept ", " kept "),
        ("", None),
        (" \t", None),
        (0, "0"),
        (2**64 - 1, "18446744073709551615"),
        pytest.param(10**5000, None, id="giant"),
        (-1.5, "-1.5"),
        (float("nan"), None),
        (float("inf"), None),
        (True, "true"),
        (False, "false"),
        (None, None),
        (b"bytes", None),
        (["A"], None),
        ({"A": 1}, None),
        ("x" * 300, "x" * MAX_LENGTH),
        ("line\r\n  two", "line two"),
        ("\x1b[31mred", "\ufffd[31mred"),
        ("\ud800", "\ufffd"),
        ("nul\x00", "nul\ufffd"),
    ],
)
def test_values_as_the_ledger_keeps_them(value: Any, found: str | None) -> None:
    assert text(value) == found


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_every_value_can_be_stored_and_shown(value: Any) -> None:
    found = text(value)
    if found is not None:
        assert 0 < len(found) <= MAX_LENGTH
        assert found.isprintable()
        with sqlite3.connect(":memory:") as database:
            assert database.execute("SELECT ?", (found,)).fetchone() == (found,)
        database.close()


@given(st.binary(max_size=200), st.text(max_size=10) | st.none())
def test_no_body_makes_extraction_fail(body: bytes, content_type: str | None) -> None:
    extract = extractor(order_id=[from_body(path("id"))], stage=[from_body(path(0, "id"))])
    extract(published(body, content_type=content_type))
    extract(published(b"{" + body, content_type=content_type))


def test_a_search_that_fails_is_passed_over() -> None:
    def broken(_document: Any) -> Any:
        raise RuntimeError

    assert extractor(order_id=[from_body(broken, path("id"))])(published({"id": "A"})).order_id == "A"


@pytest.mark.parametrize(
    ("pattern", "keys", "found"),
    [
        (r"^order\.([^.]+)", ("order.A-1.created",), "A-1"),
        (r"A-\d+", ("order.A-1.created",), "A-1"),
        (r"^order\.([^.]+)", ("x", "order.A-2"), "A-2"),  # a CC key
        (r"^order\.(\d+)?", ("order.x",), None),
        (r"^order", ("nothing",), None),
        (r"^order", (), None),
    ],
)
def test_routing_keys_are_searched(pattern: str, keys: tuple[str, ...], found: str | None) -> None:
    assert extractor(order_id=[from_routing_key(re.compile(pattern))])(published(routing_keys=keys)).order_id == found


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        (("order", "id"), "A"),
        (("items", 1), "y"),
        (("items", -1), "y"),
        (("items", 2), None),
        (("items", -3), None),
        (("items", "id"), None),
        (("order", 0), None),
        (("missing", "id"), None),
        ((), {"order": {"id": "A"}, "items": ["x", "y"]}),
    ],
)
def test_paths_walk_objects_and_arrays(steps: tuple[str | int, ...], found: Any) -> None:
    assert path(*steps)({"order": {"id": "A"}, "items": ["x", "y"]}) == found


@pytest.mark.parametrize(
    "name",
    [
        "OrderSubmitted",
        "com.shop.OrderSubmitted",
        "urn:message:Shop.Contracts:OrderSubmitted",
        "Shop.OrderSubmitted, Shop.Messages, Version=1.0.0.0, Culture=neutral, PublicKeyToken=null",
        "Shop.OrderSubmitted, Shop;Shop.IEvent, Shop",
        "Shop.OrderSubmitted:Shop.Messages",
        "Shop.Contracts+OrderSubmitted",
        "shop.tasks.OrderSubmitted",
    ],
)
def test_the_bare_name_of_a_message_type(name: str) -> None:
    assert bare_type(name) == "OrderSubmitted"


def test_words_are_translated_into_stages_and_others_stand() -> None:
    extract = extractor(stage=[from_headers("stage")], stages={"done": "SHIPPED"})
    assert extract(published(headers={"stage": "done"})).stage == "SHIPPED"
    assert extract(published(headers={"stage": "other"})).stage == "other"


def test_a_type_is_a_stage_only_when_it_is_translated() -> None:
    sources: dict[str, Any] = {"stage": [from_headers("stage")], "types": [from_property("type")]}
    translating = extractor(**sources, stages={"OrderSubmitted": "SUBMITTED", "Shop.Full": "CLOSED"})
    assert translating(published(type="Shop.OrderSubmitted, Shop")).stage == "SUBMITTED"
    assert translating(published(type="Shop.Full")).stage == "CLOSED"
    assert translating(published(type="Shop.Order")).stage is None
    assert translating(published(type="Shop.OrderSubmitted", headers={"stage": "word"})).stage == "word"
    assert extractor(**sources)(published(type="Shop.OrderSubmitted")).stage is None
