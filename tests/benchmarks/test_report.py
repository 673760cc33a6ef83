"""What the benchmark leaves behind; the measuring itself is for `make bench`."""

from __future__ import annotations

from itertools import islice
from xml.etree import ElementTree

from auditor.core.events import Delivered, Published
from auditor.tap import decode
from tests.benchmarks import messages, picture
from tests.benchmarks.contenders import Drained
from tests.benchmarks.contents import Firehose
from tests.benchmarks.queries import Answer
from tests.benchmarks.report import CONTENDERS, Results
from tests.benchmarks.wire import Deliveries


def results() -> Results:
    """Results of a run of two rounds in which the consumer in C was left out."""
    made = Results()
    made.messages = 500
    made.drained = {
        name: [Drained(1000, seconds, 0.05, 40.0, 100_000 if name == "auditor" else 0) for seconds in (0.1, 0.2)]
        for name in ("aio_pika", "aiormq", "auditor")
    }
    made.live = {"off": [{"messages_per_s": 9000.0, "median_ms": 1.0, "p99_ms": 2.0}]}
    made.queries = {"lost": {10_000: Answer(2.0, 250.0)}}
    made.tracing = {
        "audit_us_per_message": {"without": 40.0, "with": 42.5, "removing": 6.0},
        **{f"{name}_us_per_span": 1.0 for name in ("read", "made", "encoded", "made_and_encoded_by_sdk")},
        "exported_spans_per_s": {"grpc": 12_000},
    }
    return made


def test_bench_json_has_the_medians_and_none_for_what_was_left_out() -> None:
    bench = results().bench()
    assert list(bench) == [
        "events_per_s", "cpu_us_per_event", "peak_memory_mib", "ledger_bytes_per_message", "live_messages_per_s",
        "queries_ms",
    ]  # fmt: skip
    assert list(bench["events_per_s"]) == list(CONTENDERS)
    assert bench["events_per_s"]["auditor"] == 7500
    assert bench["events_per_s"]["c"] is None
    assert bench["cpu_us_per_event"]["auditor"] == 50
    assert bench["ledger_bytes_per_message"] == 200
    assert bench["live_messages_per_s"] == {"off": 9000, "unread": None, "drained_by_c": None, "audited": None}
    assert bench["queries_ms"] == {"lost": {"10000": 2.0}}


def test_the_table_says_how_fast_the_auditor_is_against_the_others() -> None:
    assert "1.00 x aio_pika, 1.00 x aiormq; 200 bytes of ledger a message" in results().table()


def test_the_table_says_what_tracing_costs_the_audit() -> None:
    table = results().table()
    assert "Tracing: 8.5 us of CPU more" in table
    assert "12,000 spans/s" in table


def test_the_picture_has_a_bar_for_each_figure() -> None:
    drawn = ElementTree.fromstring(picture.draw(results().bench()))
    bars = [shape for shape in drawn if shape.tag.endswith("rect")]
    assert len(bars) == 3 + 3 + 1 + 1  # events, CPU, live, queries


def test_made_up_contents_decode_to_the_events_of_one_message() -> None:
    firehose = Firehose()
    (published,), (delivered,) = firehose.published(70, 1), firehose.delivered(70, 1)
    before, after = decode.decode(published), decode.decode(delivered)
    assert isinstance(before, Published)
    assert isinstance(after, Delivered)
    assert before.properties == after.properties
    assert before.properties.message_id == messages.message_id(70).decode()
    assert messages.order_id(70) in before.body
    assert before.body == after.body


def test_message_ids_do_not_repeat() -> None:
    assert len({messages.message_id(number) for number in range(10_000)}) == 10_000


def test_a_message_is_three_frames_and_its_ids_are_in_it() -> None:
    for number, frames in enumerate(islice(messages.frames(5), 100), 5):
        assert frames.count(messages.message_id(number)) == 1
        assert frames.count(messages.order_id(number)) == 1
        assert frames.endswith(b"}\xce")


def test_deliveries_are_counted_however_they_arrive() -> None:
    deliver = b"\x01\x00\x01\x00\x00\x00\x05\x00\x3c\x00\x3c\x00\xce"
    stream = (deliver + b"\x02\x00\x01\x00\x00\x00\x01\x00\xce" + b"\x03\x00\x01\x00\x00\x00\x02{}\xce") * 3
    for size in (1, 7, 20, 1000):
        deliveries = Deliveries()
        assert sum(deliveries.feed(stream[at : at + size]) for at in range(0, len(stream), size)) == 3
