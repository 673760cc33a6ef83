"""W3C trace contexts: what may be used, and what counts as none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.core.traceparent import Context, parse

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


@given(st.text())
def test_no_text_makes_it_raise(header: str) -> None:
    parse(header)
