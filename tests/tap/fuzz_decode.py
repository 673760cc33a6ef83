"""Mutates captures and feeds them to splitter and decoder, in pieces of any size, for as long as it is told to.

    python -m tests.tap.fuzz_decode --seconds 60 [--seed 1] [--save FILE]
    python -m tests.tap.fuzz_decode --replay FILE

Whatever is fed, nothing may be raised, and how a stream is cut may make no difference. The first stream that breaks
this is saved, with its cuts, and printed.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from itertools import pairwise
from pathlib import Path

from auditor.tap.decode import decode
from auditor.tap.wire import Content, Splitter
from tests.captures import load
from tests.tap.amqp import TRACE_CHANNEL, bodies, content_header, frame

_NAMES = (b"\x0apropertiesF", b"\x0amessage_idS")  # what the decoder searches for
_INTERESTING = (b"\x00", b"\xff", b"\x7f", b"\x80", b"F", b"A", b"S", b"\xff\xff\xff\xff", *_NAMES)


def stream(contents: list[Content], rng: random.Random) -> bytes:
    """Return a stream of some messages: mutated within their headers, or in any place, or not at all."""
    made = b""
    for content in rng.choices(contents, k=rng.randint(1, 4)):
        properties = mutate(content.properties, rng) if rng.random() < 0.7 else content.properties
        tag = b"\x00\x3c\x00\x3c\x01c" + bytes(9) + b"\x01e" + bytes([len(content.routing_key)]) + content.routing_key
        made += frame(1, TRACE_CHANNEL, tag) + content_header(properties, len(content.body))
        made += bodies([content.body]) if content.body else b""
    return mutate(made, rng) if rng.random() < 0.3 else made


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change, cut out, repeat or put in some bytes."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randint(0, len(changed)), rng.choice((1, 1, 2, 4, 20))
        match rng.randrange(4):
            case 0:
                changed[at : at + length] = rng.randbytes(length)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = changed[at : at + length]
            case _:
                put = rng.choice(_INTERESTING)
                changed[at : at + len(put)] = put
    return bytes(changed)


def check(data: bytes, cuts: list[int]) -> None:
    """Raise if this stream raises, or if cutting it makes a difference."""
    passed, contents = _run(data, [])
    passed_in_pieces, contents_in_pieces = _run(data, cuts)
    # where frames are no frames, the pieces decide how much is still held back as the beginning of one
    assert passed.startswith(passed_in_pieces) or passed_in_pieces.startswith(passed), "the cuts changed what is passed"
    shorter = min(len(contents), len(contents_in_pieces))
    assert contents[:shorter] == contents_in_pieces[:shorter], "the cuts changed the contents"
    for content in contents:
        # by repr: a NaN is not equal to itself
        assert repr(decode(content)) == repr(decode(content)), "an event differs once its envelope is known"


def _run(data: bytes, cuts: list[int]) -> tuple[bytes, list[Content]]:
    splitter = Splitter()
    splitter.watch(TRACE_CHANNEL)
    passed = b"".join(splitter.feed(data[begin:end], 0) for begin, end in pairwise([0, *sorted(cuts), len(data)]))
    return passed, splitter.contents


def fuzz(seconds: float, seed: int, save: Path) -> int:
    """Fuzz for a time; return how many streams were fed. What failed is saved before it is raised."""
    rng = random.Random(seed)
    contents = [capture.content for capture in load()]
    deadline = time.monotonic() + seconds
    count = 0
    while time.monotonic() < deadline:
        data = stream(contents, rng)
        cuts = [rng.randint(0, len(data)) for _ in range(rng.randint(0, 12))]
        try:
            check(data, cuts)
        except BaseException:
            save.parent.mkdir(parents=True, exist_ok=True)
            save.write_text(json.dumps({"seed": seed, "data": data.hex(), "cuts": sorted(cuts)}), encoding="utf-8")
            raise
        count += 1
    return count


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Fuzz the splitter and the decoder.")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--save", type=Path, default=Path("fuzz-failure.json"), help="where a failing input goes")
    parser.add_argument("--replay", type=Path, help="feed a saved input again")
    given = parser.parse_args()
    if given.replay:
        saved = json.loads(given.replay.read_text(encoding="utf-8"))
        check(bytes.fromhex(saved["data"]), saved["cuts"])
        return
    try:
        count = fuzz(given.seconds, given.seed, given.save)
    except BaseException:
        if given.save.exists():
            sys.stderr.write(f"{given.save}:\n{given.save.read_text(encoding='utf-8')}\n")
        raise
    sys.stdout.write(f"{count} streams in {given.seconds:g} s, seed {given.seed}: nothing raised\n")


if __name__ == "__main__":
    main()
