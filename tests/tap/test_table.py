"""Field tables, with pamqp's decoder as the oracle wherever the two mean the same."""

from __future__ import annotations

import contextlib
import math
import struct
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode as pamqp

from auditor.tap.table import MAX_DEPTH, TableError, decode_table
from tests.captures.scenarios import nested
from tests.tap.amqp import FIXED, Table, Typed, encode_table, encode_value, meaning

NAMES = st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda name: len(name.encode()) <= 255)


def _fixed(kind: str, code: str) -> st.SearchStrategy[Typed]:
    if kind in "fd":
        values: st.SearchStrategy[Any] = st.floats(width=32 if kind == "f" else 64, allow_nan=False)
    else:
        bits = 8 * struct.calcsize(">" + code)
        low, high = (0, 2**bits - 1) if code.isupper() else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        values = st.integers(low, high)
    return values.map(lambda value: (kind, value))


def _typed(*, like_pamqp: bool) -> st.SearchStrategy[Typed]:
    """Values of every type; only of those that pamqp takes for the same if `like_pamqp`."""
    scalars = [_fixed(kind, code) for kind, code in FIXED.items() if kind != "T" or not like_pamqp]
    scalars += [
        st.text(st.characters(codec="utf-8"), max_size=80).map(lambda value: ("S", value)),
        st.booleans().map(lambda value: ("t", value)),
        st.just(("V", None)),
    ]
    if not like_pamqp:
        scalars += [
            st.binary(max_size=80).map(lambda value: ("S", value)),
            st.binary(max_size=80).map(lambda value: ("x", value)),
            st.tuples(st.integers(0, 255), st.integers(-(2**31), 2**31 - 1)).map(lambda value: ("D", value)),
        ]
    return st.recursive(
        st.one_of(scalars),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4).map(lambda values: ("A", values)),
            _tables(inner, unique=like_pamqp).map(lambda table: ("F", table)),
        ),
        max_leaves=12,
    )


def _tables(values: st.SearchStrategy[Typed], *, unique: bool) -> st.SearchStrategy[list[tuple[str, Typed]]]:
    return st.lists(
        st.tuples(NAMES, values), max_size=6, unique_by=(lambda field: field[0]) if unique else lambda field: id(field)
    )


@given(_tables(_typed(like_pamqp=True), unique=True))
def test_every_type_that_pamqp_takes_for_the_same_is_the_same(table: Table) -> None:
    data = encode_table(table)
    assert decode_table(data) == pamqp.field_table(data)[1] == meaning(("F", table))


@given(_tables(_typed(like_pamqp=False), unique=False), st.binary(max_size=9), st.binary(max_size=9))
def test_every_type_is_what_was_sent_wherever_the_table_stands(table: Table, before: bytes, behind: bytes) -> None:
    assert decode_table(before + encode_table(table) + behind, len(before)) == meaning(("F", table))


# where we differ from pamqp by purpose


def _both(*table: tuple[str, Typed]) -> tuple[dict[str, Any], dict[str, Any]]:
    data = encode_table(table)
    return decode_table(data), dict(pamqp.field_table(data)[1])


def test_a_timestamp_stays_the_integer_that_was_sent() -> None:
    ours, theirs = _both(("at", ("T", 1_800_000_000_123)))
    assert ours == {"at": 1_800_000_000_123}
    assert not isinstance(theirs["at"], int)


def test_a_timestamp_beyond_every_calendar_is_no_error() -> None:
    data = encode_table([("at", ("T", 2**64 - 1))])
    assert decode_table(data) == {"at": 2**64 - 1}
    with pytest.raises(ValueError):
        pamqp.field_table(data)


def test_bytes_stay_bytes() -> None:
    ours, theirs = _both(("raw", ("x", b"text")))
    assert ours == {"raw": b"text"}
    assert bytes(theirs["raw"]) == b"text"  # a bytearray


def test_a_decimal_is_a_number() -> None:
    ours, theirs = _both(("price", ("D", (2, -314))), ("whole", ("D", (0, 7))))
    assert ours == {"price": -3.14, "whole": 7}
    assert theirs["price"] == Decimal("-3.14")


def test_the_first_of_two_equal_names_is_kept() -> None:
    ours, theirs = _both(("twice", ("I", 1)), ("twice", ("I", 2)))
    assert ours == {"twice": 1}
    assert theirs == {"twice": 2}


def test_text_that_is_not_utf_8_keeps_its_bytes_readable() -> None:
    ours, theirs = _both(("name", ("S", b"caf\xe9")))
    assert ours == {"name": r"caf\xe9"}
    assert theirs == {"name": b"caf\xe9"}
    assert decode_table(b"\0\0\0\x04\x02\xc3\x28V") == {r"\xc3(": None}  # a name too, where pamqp fails


@pytest.mark.parametrize("kind", ["f", "d"])
def test_a_number_that_is_none_is_no_error(kind: str) -> None:
    assert math.isnan(decode_table(encode_table([("n", (kind, math.nan))]))["n"])
    assert decode_table(encode_table([("n", (kind, math.inf))])) == {"n": math.inf}


# what is damaged

SAMPLE: Table = [
    *[(kind, (kind, 1)) for kind in FIXED],
    ("S", ("S", "text")),
    ("x", ("x", b"bytes")),
    ("t", ("t", True)),
    ("V", ("V", None)),
    ("D", ("D", (1, 15))),
    ("A", ("A", [("S", "a"), ("F", [("k", ("I", 1))])])),
    ("F", ("F", [("k", ("A", [("t", False)]))])),
    ("last", ("S", "end")),
]


def test_a_table_cut_off_anywhere_is_a_table_error() -> None:
    data = encode_table(SAMPLE)
    for length in range(len(data)):
        with pytest.raises(TableError):
            decode_table(data[:length])
        # the same with a size in front that fits: a cut between two fields leaves a table that is whole
        cut = data[4:length]
        try:
            decoded = decode_table(struct.pack(">L", len(cut)) + cut)
        except TableError:
            continue
        assert encode_table(SAMPLE[: len(decoded)])[4:] == cut


@pytest.mark.parametrize("kind", ["S", "x", "A", "F"])
@pytest.mark.parametrize("extra", [1, 4, 1000, 2**32 - 5])
def test_a_size_beyond_the_table_is_a_table_error(kind: str, extra: int) -> None:
    value = encode_value((kind, b"" if kind in "Sx" else []))
    field = b"\x01k" + value[:1] + struct.pack(">L", extra)
    table = struct.pack(">L", len(field)) + field
    for data in (table, table + bytes(2000)):  # with nothing behind it, and with bytes of somebody else's
        with pytest.raises(TableError):
            decode_table(data)


def test_an_inner_table_may_not_reach_over_the_outer_one() -> None:
    inner = encode_value(("F", [("a", ("V", None)), ("b", ("V", None))]))
    field = b"\x01k" + inner
    with pytest.raises(TableError):
        decode_table(struct.pack(">L", len(field) - 3) + field)


def test_a_value_may_not_reach_over_its_array() -> None:
    array = b"A" + struct.pack(">L", 6) + b"S" + struct.pack(">L", 3) + b"abc"
    field = b"\x01k" + array + b"\x01lV"
    with pytest.raises(TableError, match="its array"):
        decode_table(struct.pack(">L", len(field)) + field)


def test_an_unknown_type_is_named() -> None:
    with pytest.raises(TableError, match="unknown type of value b'Z'"):
        decode_table(b"\0\0\0\x03\x01kZ")


def test_fifty_levels_are_fine() -> None:
    table = [("deep", nested(50))]
    assert decode_table(encode_table(table)) == meaning(("F", table))


def test_nesting_has_a_bound() -> None:
    table = [("deep", nested(MAX_DEPTH))]
    assert decode_table(encode_table(table)) == meaning(("F", table))
    with pytest.raises(TableError, match="nested deeper than 128"):
        decode_table(encode_table([("deep", nested(MAX_DEPTH + 1))]))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_table_or_a_table_error(data: bytes) -> None:
    for table in (data, struct.pack(">L", len(data)) + data):
        with contextlib.suppress(TableError):
            decode_table(table)
