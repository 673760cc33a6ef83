"""What is declared, per version of the broker, and with which permissions."""

from __future__ import annotations

import re

import pytest

from auditor.tap.topology import TRACE_EXCHANGE, permissions, queue_arguments


@pytest.mark.parametrize(
    ("version", "limit"),
    [
        ("3.10.8", None),  # -1 would discard at the first requeue
        ("3.13.7", None),
        ("4.0.5", -1),  # nothing said would be 20
        ("4.2", -1),
        ("10.1.0", -1),
        ("4.3.0-rc.1", -1),
        ("", None),  # a broker that does not tell
        ("unknown", None),
    ],
)
def test_the_delivery_limit_depends_on_the_version(version: str, limit: int | None) -> None:
    arguments = queue_arguments(version, 1024)
    assert arguments.get("x-delivery-limit") == limit
    assert {name: value for name, value in arguments.items() if name != "x-delivery-limit"} == {
        "x-queue-type": "quorum",
        "x-max-length-bytes": 1024,
        "x-overflow": "drop-head",
    }


def may(pattern: str, name: str) -> bool:
    """Tell whether RabbitMQ would grant it: it searches, so that anchors are the pattern's own business."""
    return re.search(pattern, name) is not None


def test_the_permissions_are_enough_and_no_more() -> None:
    configure, write, read = permissions("auditor.trace", "auditor.canary")
    for pattern in (configure, write):
        assert may(pattern, "auditor.trace")
        assert may(pattern, "auditor.canary")
        assert not may(pattern, TRACE_EXCHANGE)
    for name in ("auditor.trace", "auditor.canary", TRACE_EXCHANGE):
        assert may(read, name)
    for pattern in (configure, write, read):
        for other in ("auditorXtrace", "auditor.trace2", "my.auditor.trace", "orders", ""):
            assert not may(pattern, other)


@pytest.mark.parametrize("name", ["a.b", "a+b", "a(b", "a|b", "a[b]", "^a$", "a\\b", "a*b?", "a{2}"])
def test_the_permissions_mean_a_name_with_signs_in_it_literally(name: str) -> None:
    for pattern in permissions(name, "canary"):
        assert may(pattern, name)
        assert not may(pattern, "x" + name)
        assert not may(pattern, "aab")
        assert not may(pattern, "aXb")
