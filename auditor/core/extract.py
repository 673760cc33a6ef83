"""Extraction: what a message says about itself in words of the business, found where a flow says to look.

A *source* is one place to look: a header, a property, a path in the JSON body, a regular expression on the routing key.
A field takes the first source that holds something. Nothing in a message makes extraction raise: what cannot be read is
not there, since the events of a whole broker pass here and anybody may publish anything.

The order of work is cheapest first. The body is parsed when the first body source is reached, at most once an event,
and only if it can be JSON at all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from auditor.core.events import Delivered, Published, Value

MAX_LENGTH = 256  # characters of an extracted value; longer ones are cut, so that no message can bloat the ledger
MAX_BODY = 1024 * 1024  # bytes; a longer body is not parsed: it would hold up the audit for tens of milliseconds

_UNPARSED: Any = object()
_new = tuple.__new__  # makes a named tuple in half the time that calling its class takes
_BEGINNINGS = (b"{", b"[")
_SPACES = re.compile(r"\s+")


Parse = Callable[[bytes], Any]
"""A faster parser of JSON than the library's: gives the same, or raises ValueError where it cannot."""


class Fields(NamedTuple):
    """What was found in one message; None where nothing was."""

    message_id: str | None = None
    order_id: str | None = None
    stage: str | None = None
    user_id: str | None = None
    error: str | None = None


class Content:
    """One event, with its body parsed as JSON when somebody asks for it."""

    __slots__ = ("_document", "_parse", "event", "headers")

    def __init__(self, event: Published | Delivered, parse: Parse | None = None) -> None:
        self.event = event
        self.headers = event.properties.headers
        self._parse = parse
        self._document: Any = _UNPARSED

    @property
    def document(self) -> Any:
        """The JSON body as Python values; None when it is not JSON, too long, too deep or otherwise unreadable."""
        if self._document is _UNPARSED:
            self._document = _document(self.event.body, self.event.properties.content_type, self._parse)
        return self._document


Source = Callable[[Content], str | None]
"""One place to look, as a function that never raises."""

Extract = Callable[[Published | Delivered], Fields]


def text(value: Value) -> str | None:
    """Give a found value as the ledger keeps it: text of at most MAX_LENGTH printable characters.

    Numbers and booleans are written as in JSON; None for what is no single value, is blank, or is no finite number.
    """
    if isinstance(value, str):
        if len(value) > MAX_LENGTH:
            value = value[:MAX_LENGTH]
        if (
            value.isprintable()
        ):  # the common case; false for lone surrogates, which SQLite refuses, and terminal escapes
            return value if value and not value.isspace() else None
        value = _SPACES.sub(" ", value).strip()
        return "".join(c if c.isprintable() else "\ufffd" for c in value) or None
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, int):
        # turning a giant into digits costs the square of its length, and Python refuses beyond 4,300 of them
        return str(value) if value.bit_length() <= 512 else None
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else None
    return None


def from_headers(*names: str) -> Source:
    """Look into the headers of these names, in their order; names are case-sensitive, as in AMQP."""

    wanted = frozenset(names)

    def find(content: Content) -> str | None:
        headers = content.headers
        if headers and not wanted.isdisjoint(headers):
            for name in names:
                if name in headers and (found := text(headers[name])) is not None:
                    return found
        return None

    return find


def from_property(name: str) -> Source:
    """Look at one basic property, such as `message_id`; the name must be a field of `Properties`."""

    def find(content: Content) -> str | None:
        value = getattr(content.event.properties, name)
        return None if value is None else text(value)

    return find


def from_routing_key(pattern: re.Pattern[str]) -> Source:
    """Search the routing key, then the CC and BCC keys; gives the first group, or the whole match without groups."""
    group = 1 if pattern.groups else 0

    def find(content: Content) -> str | None:
        for key in content.event.routing_keys:
            if (match := pattern.search(key)) and (found := text(match.group(group))) is not None:
                return found
        return None

    return find


def from_body(*searches: Callable[[Any], Any]) -> Source:
    """Search the JSON body, by each function in its order; see `path` for the plain ones."""
    if all(isinstance(search, _Path) and search.name is not None for search in searches):
        return _from_names(searches)  # type: ignore[arg-type]

    def find(content: Content) -> str | None:
        document = content.document
        if document is not None:
            for search in searches:
                try:
                    value = search(document)
                    if value is not None and (found := text(value)) is not None:
                        return found
                except Exception:  # a query language handed in from outside meets hostile documents: not found
                    continue
        return None

    return find


def _from_names(paths: tuple[_Path, ...]) -> Source:
    """Search the body by paths that all begin with a name: what nearly all do, and a document has few of the names."""
    places = tuple((path.name, path.walk if len(path.steps) > 1 else None) for path in paths)

    def find(content: Content) -> str | None:
        document = content.document
        if type(document) is dict:
            for name, walk in places:
                value = document.get(name)
                if value is not None:
                    if walk is not None:
                        value = walk(document)
                    if value is not None and (found := text(value)) is not None:
                        return found
        return None

    return find


class _Path:
    """A search that walks into objects by name and into arrays by index."""

    __slots__ = ("name", "steps")

    def __init__(self, steps: tuple[str | int, ...]) -> None:
        self.steps = steps
        first = steps[0] if steps else None
        self.name = first if isinstance(first, str) else None  # with which it begins

    def walk(self, document: Any) -> Any:
        for step in self.steps:
            if isinstance(step, str):
                if not isinstance(document, dict):
                    return None
                document = document.get(step)
            else:
                if not isinstance(document, list) or not -len(document) <= step < len(document):
                    return None
                document = document[step]
        return document

    __call__ = walk


def path(*steps: str | int) -> Callable[[Any], Any]:
    """Make a search that walks into objects by name and into arrays by index; None where it leads nowhere.

    Means the same as the JMESPath of these steps, and costs a tenth.
    """
    return _Path(steps)


def bare_type(name: str) -> str:
    """Give the bare name of a message type as the libraries write it.

    `urn:message:Shop.Contracts:OrderSubmitted`, `Shop.OrderSubmitted, Shop.Messages, Version=1.0.0.0`,
    `Shop.OrderSubmitted:Shop.Messages` and `shop.tasks.OrderSubmitted` all give `OrderSubmitted`.
    """
    name = name.partition(";")[0].partition(",")[0].strip()
    name = name.rpartition(":")[2] if name.startswith("urn:message:") else name.partition(":")[0]
    return name.rpartition(".")[2].rpartition("+")[2]


def extractor(
    *,
    message_id: Sequence[Source] = (),
    order_id: Sequence[Source] = (),
    stage: Sequence[Source] = (),
    user_id: Sequence[Source] = (),
    error: Sequence[Source] = (),
    types: Sequence[Source] = (),
    stages: Mapping[str, str] | None = None,
    parse: Parse | None = None,
) -> Extract:
    """Make the function that finds the fields of a flow's messages.

    `stages` translates found words into stage names; a word that it does not have is a stage as it stands. Where no
    stage is found, the message's type (`types`, whole or bare) is one, but only if `stages` translates it: most types
    name no stage. `parse` is tried before the library's own parser.
    """
    of_message_id, of_order_id, of_stage, of_user_id, of_error, of_type = (
        tuple(sources) for sources in (message_id, order_id, stage, user_id, error, types)
    )
    names = dict(stages or {})

    def stage_of(content: Content) -> str | None:
        if (word := _first(of_stage, content)) is not None:
            return names.get(word, word)
        if names and (word := _first(of_type, content)) is not None:
            return names.get(word) or names.get(bare_type(word))
        return None

    def extract(event: Published | Delivered) -> Fields:
        content = Content(event, parse)
        return _new(
            Fields,
            (
                _first(of_message_id, content),
                _first(of_order_id, content),
                stage_of(content),
                _first(of_user_id, content),
                _first(of_error, content),
            ),
        )

    return extract


def _first(sources: tuple[Source, ...], content: Content) -> str | None:
    for source in sources:
        if (found := source(content)) is not None:
            return found
    return None


def _document(body: bytes, content_type: str | None, parse: Parse | None) -> Any:
    """Parse a body that may be JSON; None when it is not."""
    if len(body) > MAX_BODY or (content_type and not _may_be_json(content_type)):
        return None
    # only an object or an array has places to look in; this also passes over compressed and other binary bodies
    if body[:1] not in _BEGINNINGS and body[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] not in _BEGINNINGS:
        return None
    if parse is not None:
        try:
            return parse(body)
        except ValueError:  # not JSON, or what only the library reads: UTF-16, half of a surrogate pair, NaN
            pass
    try:
        # json.loads would find out the encoding and make a new decoder each time; it is left to it where a second byte
        # of zero says UTF-16 or -32
        if body[:1] in _BEGINNINGS and body[1:2] != b"\0":
            words = body.decode("utf-8", "surrogatepass")
            document, end = _DECODER.raw_decode(words)  # `decode` looks for spaces with two searches
            return document if end == len(words) or not words[end:].strip(" \t\n\r") else None
        return json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):  # not JSON, not its encoding, a number of thousands of digits; nested too deep
        return None


@lru_cache(256)
def _may_be_json(content_type: str) -> bool:
    """Tell whether a content type leaves room for JSON: many publishers send it as text or leave the default."""
    word = content_type.lower()
    return "json" in word or word.startswith(("text/plain", "application/octet-stream"))


def _no_number(word: str) -> None:
    """NaN and the infinities are not JSON; a document that has them is read with nothing in their place."""


_DECODER = json.JSONDecoder(parse_constant=_no_number)
