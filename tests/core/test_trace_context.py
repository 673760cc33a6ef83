"""W3C trace contexts: what may be used, and what counts as none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.core.trace_context import Context, combined, parse

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
USED = Context(bytes.fromhex(TRACE), bytes.fromhex(SPAN), True)


@pytest.mark.parametrize(
    ("header", "context"),
    [
        (f"00-{TRACE}-{SPAN}-01", USED),
        (f"00-{TRACE}-{SPAN}-00", USED._replace(sampled=False)),
        # of the flags only the last bit is known
        (f"00-{TRACE}-{SPAN}-03", USED),
        (f"00-{TRACE}-{SPAN}-fe", USED._replace(sampled=False)),
        # a future version may say more
        (f"01-{TRACE}-{SPAN}-01", USED),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", USED),
        (f"cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like", None),
        # version 00 says no more, and ff is no version
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"00-{TRACE}-{SPAN}-01-", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE[:-1]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f" 00-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        (f"00-{TRACE}-{SPAN}-\u0661\u0661", None),
        ("", None),
        ("0" * 256, None),
    ],
)
def test_a_header_is_read_as_w3c_says(header: str, context: Context | None) -> None:
    assert parse(header) == context
    assert parse(combined(header)) == context
    assert parse(combined(header, "a=b")) == (None if context is None else context._replace(state="a=b"))


@given(st.text())
def test_no_text_makes_it_raise(header: str) -> None:
    parse(header)


PARENT = f"00-{TRACE}-{SPAN}-01"
LONG = f"long={'x' * 124}"


@pytest.mark.parametrize(
    ("tracestate", "handed_on"),
    [
        ("congo=t61rcWkgMzE", "congo=t61rcWkgMzE"),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        # white space around entries, and empty ones, are not handed on; within a value it is
        (" a=1 ,\t b=2,,", "a=1,b=2"),
        ("a=1 2", "a=1 2"),
        ("tenant@system=1,0_-*/=~", "tenant@system=1,0_-*/=~"),
        (f"{'k' * 256}={'v' * 256}", ""),  # valid, and longer than what is kept
        (f"{'k' * 256}={'v' * 255}", f"{'k' * 256}={'v' * 255}"),
        (",".join(f"k{number}=1" for number in range(32)), ",".join(f"k{number}=1" for number in range(32))),
        # none at all
        ("", ""),
        (" , ", ""),
        (",".join(f"k{number}=1" for number in range(33)), ""),
        ("a=1,a=2", ""),
        ("a", ""),
        ("a=", ""),
        ("A=1", ""),
        ("=1", ""),
        ("a=1=2", ""),
        ("a=\u00e9", ""),
        ("a=1\n", ""),
        (f"{'k' * 257}=1", ""),
        (f"a={'v' * 257}", ""),
        ("," * 10_000, ""),
        (7, ""),
        (None, ""),
        (["a=1"], ""),
        # too long: entries of more than 128 characters go first, then those behind
        (f"{LONG},a={'1' * 126},b={'1' * 126},c={'1' * 126},d={'1' * 100}",
         f"a={'1' * 126},b={'1' * 126},c={'1' * 126},d={'1' * 100}"),
        (",".join(f"{key}={'1' * 126}" for key in "abcdef"), ",".join(f"{key}={'1' * 126}" for key in "abc")),
    ],
)  # fmt: skip
def test_a_tracestate_is_handed_on_as_w3c_says(tracestate: object, handed_on: str) -> None:
    kept = combined(PARENT, tracestate)
    assert parse(kept) == USED._replace(state=handed_on)
    assert kept == (f"{PARENT} {handed_on}" if handed_on else PARENT)


@pytest.mark.parametrize("traceparent", ["garbage", f"00-{'0' * 32}-{SPAN}-01", f"{PARENT} a=1", f"{PARENT} "])
def test_a_tracestate_does_not_mend_a_traceparent(traceparent: str) -> None:
    for kept in (combined(traceparent), combined(traceparent, "b=2")):
        assert parse(kept) is None
        assert " " not in kept


@given(st.text(), st.text())
def test_what_is_kept_is_bounded(traceparent: str, tracestate: str) -> None:
    assert len(combined(traceparent, tracestate)) <= 256 + 1 + 512
