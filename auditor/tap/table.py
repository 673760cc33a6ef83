"""Decodes AMQP field tables by offset, without copying the rest of the buffer at each value.

RabbitMQ's dialect (`rabbit_binary_parser.erl`): `s` and `u` are 16-bit integers, `I` and `i` 32-bit, `l` and `L`
64-bit. A timestamp stays the 64-bit number that was sent, since publishers put milliseconds or anything else into it.
Text that is not UTF-8 keeps its bytes readable, as `\\xff`, so that nothing that a publisher sends is an error.

A value that is too long for its table is noticed when the table ends: the next value would begin beyond it. Only the
table around all others is measured against the buffer; nothing inside can reach over the end of that without reaching
over the end of its own table too.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError
from typing import Any

MAX_DEPTH = 128  # tables and arrays within one another; the broker itself has no limit, the Python stack has


class TableError(ValueError):
    """The bytes are no field table: cut off, of an unknown type, or nested too deep."""


_FIXED = {
    ord("b"): Struct(">b"),
    ord("B"): Struct(">B"),
    ord("s"): Struct(">h"),
    ord("u"): Struct(">H"),
    ord("I"): Struct(">i"),
    ord("i"): Struct(">I"),
    ord("l"): Struct(">q"),
    ord("L"): Struct(">q"),
    ord("f"): Struct(">f"),
    ord("d"): Struct(">d"),
    ord("T"): Struct(">Q"),
}
_LONG_STRING, _BYTES, _TABLE, _ARRAY, _VOID, _BOOLEAN, _DECIMAL = (ord(c) for c in "SxFAVtD")
_SIZED = frozenset({_BYTES, _TABLE, _ARRAY})
_size_at = Struct(">L").unpack_from
_decimal_at = Struct(">Bi").unpack_from


def decode_table(data: bytes, at: int = 0) -> dict[str, Any]:
    """Decode the table whose size stands at `at`; TableError when it is damaged."""
    try:
        return decode_fields(data, at + 4, table_end(data, at))
    except (StructError, IndexError) as error:
        raise TableError(f"the table is cut off: {error}") from error


def table_end(data: bytes, at: int) -> int:
    """Return where the table ends whose size stands at `at`; TableError when that is beyond the buffer."""
    (size,) = _size_at(data, at)
    end: int = at + 4 + size
    if end > len(data):
        raise TableError(f"a table of {size} bytes with {len(data) - at - 4} bytes left")
    return end


def decode_fields(data: bytes, at: int, end: int, depth: int = MAX_DEPTH) -> dict[str, Any]:
    """Decode the fields between `at` and `end`.

    When they are damaged, TableError, and also IndexError and `struct.error`, which cost a try each if turned here.
    """
    table: dict[str, Any] = {}
    while at < end:
        after = at + 1 + data[at]
        name = data[at + 1 : after].decode("utf-8", "backslashreplace")
        if data[after] == _LONG_STRING:  # as below: most values are text, and a call costs more than the rest
            start = after + 5
            at = start + _size_at(data, after + 1)[0]
            value: Any = data[start:at].decode("utf-8", "backslashreplace")
        else:
            value, at = decode_value(data, after, depth)
        # the first of two equal names: what RabbitMQ itself finds
        table.setdefault(name, value)
    if at != end:
        raise TableError("a value reaches over the end of its table")
    return table


def decode_value(data: bytes, at: int, depth: int = MAX_DEPTH) -> tuple[Any, int]:
    """Decode the value whose type stands at `at`; return it and where it ends. Errors as of `decode_fields`."""
    kind = data[at]
    at += 1
    if kind == _LONG_STRING:
        end = at + 4 + _size_at(data, at)[0]
        return data[at + 4 : end].decode("utf-8", "backslashreplace"), end
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed.unpack_from(data, at)[0], at + fixed.size
    if kind == _BOOLEAN:
        return data[at] != 0, at + 1
    if kind == _VOID:
        return None, at
    if kind == _DECIMAL:
        scale, number = _decimal_at(data, at)
        return number / 10**scale if scale else number, at + 5
    if kind not in _SIZED:
        raise TableError(f"unknown type of value {bytes([kind])!r}")
    end = at + 4 + _size_at(data, at)[0]
    if kind == _BYTES:
        return data[at + 4 : end], end
    if depth == 0:
        raise TableError(f"nested deeper than {MAX_DEPTH}")
    if kind == _TABLE:
        return decode_fields(data, at + 4, end, depth - 1), end
    return _items(data, at + 4, end, depth - 1), end


def _items(data: bytes, at: int, end: int, depth: int) -> list[Any]:
    values = []
    while at < end:
        value, at = decode_value(data, at, depth)
        values.append(value)
    if at != end:
        raise TableError("a value reaches over the end of its array")
    return values
