"""Sources as the settings write them, `KIND:WHERE`, made into the functions that look there.

| source | looks at |
|---|---|
| `header:NAME` | a header of the message; the name is case-sensitive |
| `property:NAME` | a basic property, such as `message_id` or `correlation_id` |
| `body:PATH` | the JSON body, by a JMESPath; `from_json(STRING)` reads JSON that stands in a string |
| `routing_key:REGEX` | the routing key: the first group of the expression, or all it matches |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import jmespath
import jmespath.functions
from jmespath.exceptions import JMESPathError

from auditor.core.events import Properties
from auditor.core.extract import MAX_BODY, Source, from_body, from_headers, from_property, from_routing_key, path

KINDS = ("header", "property", "body", "routing_key")
PROPERTIES = tuple(name for name in Properties._fields if name != "headers")


class _Functions(jmespath.functions.Functions):
    """The functions of JMESPath and one more, for bodies that carry another body as a string."""

    @jmespath.functions.signature({"types": ["string", "null"]})
    def _func_from_json(self, value: str | None) -> Any:
        if value is None or len(value) > MAX_BODY:
            return None
        return json.loads(value)  # whatever it raises means "not found" to the extraction


_OPTIONS = jmespath.Options(custom_functions=_Functions())


def check(source: str) -> str:
    """Give the source back; ValueError, saying what was expected, when it cannot be one."""
    compile_sources([source])
    return source


def compile_sources(sources: Iterable[str]) -> list[Source]:
    """Make the functions for a list of sources, in its order; neighbours of one kind share one function.

    ValueError, saying what was expected, for the first that cannot be one.
    """
    compiled: list[Source] = []
    for kind, group in groupby((_split(source) for source in sources), key=lambda pair: pair[0]):
        places = [where for _, where in group]
        match kind:
            case "header":
                compiled.append(from_headers(*places))
            case "body":
                compiled.append(from_body(*(_search(where) for where in places)))
            case "property":
                compiled.extend(_property(where) for where in places)
            case _:
                compiled.extend(_routing_key(where) for where in places)
    return compiled


def _split(source: str) -> tuple[str, str]:
    kind, colon, where = source.partition(":")
    if kind not in KINDS or not colon or not where:
        raise ValueError("header:NAME, property:NAME, body:JMESPATH or routing_key:REGEX")
    return kind, where


def _property(name: str) -> Source:
    if name not in PROPERTIES:
        raise ValueError(f"property: and one of {', '.join(PROPERTIES)}")
    return from_property(name)


def _routing_key(pattern: str) -> Source:
    try:
        return from_routing_key(re.compile(pattern))
    except re.error as error:
        raise ValueError(f"routing_key: and a regular expression; this one has an error: {error}") from None


def _search(expression: str) -> Callable[[Any], Any]:
    try:
        compiled = jmespath.compile(expression)
        _check_functions(compiled.parsed)  # which compiling does not
    except JMESPathError as error:
        reason = str(error).splitlines()[0].rstrip(":").removesuffix(", for expression")
        raise ValueError(f"body: and a JMESPath; this one has an error: {reason}") from None
    steps = _steps(compiled.parsed)
    if steps is not None:
        return path(*steps)

    def search(document: Any) -> Any:
        return compiled.search(document, options=_OPTIONS)

    return search


def _check_functions(node: Any) -> None:
    if isinstance(node, dict):
        if node["type"] == "function_expression" and node["value"] not in _Functions.FUNCTION_TABLE:
            raise ValueError(f"body: and a JMESPath; there is no function {node['value']}()")
        for child in node.get("children", ()):
            _check_functions(child)


def _steps(node: Any) -> list[str | int] | None:
    """Give the steps of a plain path such as `order.items[0].id`; None for anything that needs JMESPath itself."""
    match node["type"]:
        case "identity":
            return []
        case "field" | "index":
            return [node["value"]]
        case "subexpression" | "index_expression":
            steps: list[str | int] = []
            for child in node["children"]:
                inner = _steps(child)
                if inner is None:
                    return None
                steps += inner
            return steps
        case _:
            return None
