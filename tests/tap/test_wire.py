"""The splitter against streams whose frames pamqp made."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.heartbeat import Heartbeat

from auditor.tap.wire import Content, Splitter
from tests.tap.amqp import TRACE_CHANNEL, bodies, content_header, deliver, frame, method, pamqp_header

OTHER = TRACE_CHANNEL + 1
HEARTBEAT = Heartbeat().marshal()
NOW = 1_800_000_000_000_000


def split(stream: bytes, cuts: list[int] | None = None, channel: int | None = TRACE_CHANNEL) -> tuple[bytes, Splitter]:
    """Feed a stream, cut at these places; return what was passed on, and the splitter."""
    splitter = Splitter()
    if channel is not None:
        splitter.watch(channel)
    places = [0, *sorted(cuts or []), len(stream)]
    passed = b"".join(splitter.feed(stream[begin:end], NOW) for begin, end in pairwise(places))
    return passed, splitter


def message(tag: int, key: str, properties: bytes, parts: list[bytes]) -> list[bytes]:
    """Return the frames of one delivery."""
    header = content_header(properties, sum(map(len, parts)))
    return [deliver(tag, key), header, *(bodies([part]) for part in parts)]


@dataclass
class Stream:
    """A stream, and what should become of it."""

    frames: list[bytes] = field(default_factory=list)
    passed: list[bytes] = field(default_factory=list)
    contents: list[Content] = field(default_factory=list)

    def other(self, one: bytes) -> None:
        """Add a frame that is not content of the trace channel."""
        self.frames.append(one)
        self.passed.append(one)


# frames of other channels: they may stand within a message
FOREIGN = [
    HEARTBEAT,
    deliver(1, "other.channel", channel=OTHER),
    content_header(b"\x00\x00", 5, OTHER),
    content_header(b"\x00\x00", 0, OTHER),
    bodies([b"hello"], OTHER),
]
WITHIN = st.sampled_from(FOREIGN)
OTHERS = st.sampled_from(
    [
        *FOREIGN,
        method(commands.Basic.ConsumeOk("ctag1.5")),
        method(commands.Basic.Cancel("ctag1.5", True)),
        method(commands.Basic.QosOk()),
        method(commands.Channel.Flow(False)),
        method(commands.Channel.Close(404, "NOT_FOUND", 60, 20)),
        method(commands.Connection.Blocked("memory"), 0),
    ]
)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Messages of the trace channel, with frames that are none between them, and of other channels even within them."""
    stream = Stream()
    for tag in range(1, draw(st.integers(0, 5)) + 1):
        for one in draw(st.lists(OTHERS, max_size=3)):
            stream.other(one)
        key = draw(st.text(st.characters(codec="utf-8"), max_size=60))
        properties = b"\x20\x00" + draw(st.binary(max_size=40))
        parts = draw(st.lists(st.binary(min_size=1, max_size=50), max_size=3))
        for one in message(tag, key, properties, parts):
            stream.frames.append(one)
            for other in draw(st.lists(WITHIN, max_size=2)):
                stream.other(other)
        stream.contents.append(Content(tag, False, key.encode(), properties, b"".join(parts), NOW))
    for one in draw(st.lists(OTHERS, max_size=3)):
        stream.other(one)
    return stream


@given(streams(), st.data())
def test_contents_are_taken_and_the_rest_is_passed_on_however_the_stream_is_cut(
    stream: Stream, data: st.DataObject
) -> None:
    whole = b"".join(stream.frames)
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=12))
    passed, splitter = split(whole, cuts)
    assert passed == b"".join(stream.passed)
    assert splitter.contents == stream.contents
    assert splitter.size == sum(len(content.properties) + len(content.body) for content in stream.contents)


@given(streams())
def test_a_stream_may_come_byte_by_byte(stream: Stream) -> None:
    whole = b"".join(stream.frames)
    passed, splitter = split(whole, list(range(len(whole))))
    assert passed == b"".join(stream.passed)
    assert splitter.contents == stream.contents


def test_a_delivery_as_pamqp_makes_it() -> None:
    properties = commands.Basic.Properties(headers={"node": "rabbit@host"})
    stream = deliver(7, "publish.orders", redelivered=True) + pamqp_header(2, properties) + bodies([b"{}"])
    passed, splitter = split(stream)
    assert passed == b""
    assert splitter.contents == [Content(7, True, b"publish.orders", properties.marshal(), b"{}", NOW)]
    assert splitter.contents[0].redelivered is True


@pytest.mark.parametrize("foreign", FOREIGN)
@pytest.mark.parametrize("place", [1, 2, 3])
def test_another_channel_may_come_between(foreign: bytes, place: int) -> None:
    frames = message(1, "publish.x", b"\x00\x00", [b"hello", b"world"])
    frames.insert(place, foreign)
    passed, splitter = split(b"".join(frames))
    assert passed == foreign
    assert [content.body for content in splitter.contents] == [b"helloworld"]


@pytest.mark.parametrize("cut", [[], [50], [70]])
def test_an_empty_body_has_no_frame(cut: list[int]) -> None:
    stream = b"".join(message(1, "deliver.q", b"\x20\x00\x00\x00\x00\x00", []))
    passed, splitter = split(stream + HEARTBEAT, cut)
    assert passed == HEARTBEAT
    assert [content.body for content in splitter.contents] == [b""]


def test_a_large_body_comes_in_many_frames() -> None:
    size, room = 16 * 1024 * 1024, 131_072 - 8
    body = bytes(range(256)) * (size // 256)
    parts = [body[at : at + room] for at in range(0, size, room)]
    stream = b"".join(message(1, "publish.x", b"\x00\x00", parts))
    passed, splitter = split(stream, list(range(0, len(stream), 65_536)))
    assert passed == b""
    assert splitter.contents[0].body == body
    assert splitter.size == size + 2


def test_a_content_arrives_when_its_last_byte_does() -> None:
    stream = b"".join(message(1, "publish.x", b"\x00\x00", [b"body"]))
    splitter = Splitter()
    splitter.watch(TRACE_CHANNEL)
    splitter.feed(stream[:-1], NOW)
    assert splitter.contents == []
    splitter.feed(stream[-1:], NOW + 5)
    assert [content.received_at for content in splitter.contents] == [NOW + 5]


def test_content_that_no_delivery_announced_is_passed_on() -> None:
    got = method(commands.Basic.GetOk(1, False, "e", "k", 0)) + content_header(b"\x00\x00", 2) + bodies([b"{}"])
    returned = method(commands.Basic.Return(312, "NO_ROUTE", "e", "k")) + content_header(b"\x00\x00", 0)
    passed, splitter = split(got + returned)
    assert passed == got + returned
    assert splitter.contents == []


def test_a_delivery_that_breaks_off_leaves_nothing_to_the_next() -> None:
    begun = deliver(1, "publish.a") + content_header(b"\x00\x01", 9) + bodies([b"half"])
    passed, splitter = split(begun + b"".join(message(2, "publish.b", b"\x00\x02", [b"whole"])) + HEARTBEAT)
    assert passed == HEARTBEAT
    assert [(one.delivery_tag, one.properties, one.body) for one in splitter.contents] == [(2, b"\x00\x02", b"whole")]
    # and frame by frame, as it comes over a slow line
    stream = begun + b"".join(message(2, "publish.b", b"\x00\x02", [b"whole"]))
    assert split(stream, list(range(len(stream))))[1].contents == splitter.contents


def test_without_a_channel_everything_is_passed_on() -> None:
    stream = b"".join(message(1, "publish.x", b"\x00\x00", [b"body"]))
    passed, splitter = split(stream, [3, 11, 40], channel=None)
    assert passed == stream
    assert splitter.contents == []
    assert not splitter.aligned


def test_a_channel_may_be_chosen_while_the_stream_runs() -> None:
    start = method(commands.Channel.OpenOk()) + method(commands.Basic.QosOk())
    splitter = Splitter()
    assert splitter.feed(start + HEARTBEAT[:5], NOW) == start
    splitter.watch(TRACE_CHANNEL)
    assert splitter.aligned
    rest = b"".join(message(1, "publish.x", b"\x00\x00", [b"body"]))
    assert splitter.feed(HEARTBEAT[5:] + rest, NOW) == HEARTBEAT
    assert len(splitter.contents) == 1


@given(st.lists(st.integers(0, 12), max_size=5))
def test_a_protocol_header_is_passed_on_and_so_is_all_after_it(cuts: list[int]) -> None:
    answer = b"AMQP\x00\x00\x09\x01"
    rest = b"".join(message(1, "publish.x", b"\x00\x00", [b"body"]))
    passed, splitter = split(answer + rest, cuts)
    assert passed == answer + rest
    assert splitter.contents == []
    assert not splitter.aligned  # nobody may put a heartbeat in there


@pytest.mark.parametrize(
    "short",
    [
        frame(1, TRACE_CHANNEL, b"\x00\x3c\x00\x3c\xff"),  # a consumer tag that is not there
        deliver(1, "publish.x") + frame(2, TRACE_CHANNEL, b"\x00\x3c"),  # no body size
    ],
)
def test_a_frame_that_is_cut_short_ends_the_splitting(short: bytes) -> None:
    passed, splitter = split(short)
    assert short.endswith(passed)
    assert passed
    assert not splitter.aligned
    assert splitter.feed(HEARTBEAT, NOW) == HEARTBEAT


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_any_bytes_are_passed_on(data: bytes, cuts: list[int]) -> None:
    fed = split(data, [cut for cut in cuts if cut <= len(data)])[0]
    assert data.startswith(fed)  # all but what may still become a frame
