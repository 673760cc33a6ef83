"""Mistakes in the settings, each as one line: key, what was found (never a secret), what was expected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from auditor.settings.keys import OPTIONS, SINGLE
from auditor.settings.model import Settings

PREFIX = "AUDITOR_"
TEST_PREFIX = "AUDITOR_TEST_"  # the test suite's own variables, no settings
SHOWN = 60  # characters of a wrong value

# what pydantic says of these in the words of Python
_PLAIN = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "list_type": 'a list, such as ["a", "b"]',
    "model_attributes_type": "a table",
    "model_type": "a table",
    "path_type": "a path",
    "string_type": "text",
}

_USERINFO = re.compile(r"//[^/@]*@|//.*@")  # of a URL, even of one that is written badly


def of_environment(environ: Mapping[str, str]) -> list[str]:
    """Name the AUDITOR_ variables that mean nothing; those inside a section are found by the model itself."""
    options = [PREFIX + "__".join(keys).upper() for keys in SINGLE]
    lines = []
    for name in environ:
        variable = name.upper()
        if not variable.startswith(PREFIX) or variable.startswith(TEST_PREFIX):
            continue
        section = variable.removeprefix(PREFIX).partition("__")[0].lower()
        if section not in Settings.model_fields:
            lines.append(f"{name} (environment): there is no such setting{_meant(variable, options)}")
    return lines


def of_validation(error: ValidationError, environ: Mapping[str, str]) -> list[str]:
    """Put what the model refuses into lines, in the order of the model."""
    lines = []
    for mistake in error.errors(include_url=False):
        location = mistake["loc"]
        keys = tuple(part for part in location if isinstance(part, str))
        key = _written(location)
        variable = PREFIX + "__".join(keys).upper()
        origin = next((f" ({name} in the environment)" for name in environ if name.upper() == variable), "")
        match mistake["type"]:
            case "extra_forbidden":
                # the value is not shown: it may be a secret under a misspelt key
                lines.append(f"{key}{origin}: there is no such setting{_meant(keys[-1], _siblings(keys))}")
            case "missing":
                lines.append(f"{key}: is missing")
            case _:
                found = _shown(keys, mistake["input"])
                lines.append(f"{key}{origin}: {found}expected {_expected(mistake)}")
    return lines


def _expected(mistake: Any) -> str:
    if mistake["type"] == "value_error":
        return str(mistake["ctx"]["error"])
    if mistake["type"] == "too_short":
        return f"at least {mistake['ctx']['min_length']} of them"
    if (plain := _PLAIN.get(mistake["type"])) is not None:
        return plain
    message = str(mistake["msg"]).removeprefix("Input should be ").removeprefix("Value should ")
    return message[:1].lower() + message[1:]


def _shown(keys: tuple[str, ...], value: Any) -> str:
    """Show a wrong value, unless it is a secret, could hold one, or says nothing."""
    if OPTIONS.get(keys, True) or isinstance(value, dict | list) or value is None:
        return ""
    if isinstance(value, str):
        value = _USERINFO.sub("//***@", value)
    text = repr(value) if isinstance(value, str | int | float | bool) else repr(str(value))
    return f"found {text if len(text) <= SHOWN else text[:SHOWN] + '...'}, "


def _written(location: Iterable[str | int]) -> str:
    """Write a place as an operator would: flows[1].deadline."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _siblings(keys: tuple[str, ...]) -> set[str]:
    above = keys[:-1]
    return {option[len(above)] for option in OPTIONS if option[: len(above)] == above}
