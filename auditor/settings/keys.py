"""The keys of all options, read off the model."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, SecretStr

from auditor.settings.model import Settings

Keys = tuple[str, ...]


def _options(model: type[BaseModel]) -> dict[Keys, bool]:
    options: dict[Keys, bool] = {}
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        section = _section(kinds)
        if section is None:
            options[(name,)] = SecretStr in kinds
        else:
            options |= {(name, *inner): secret for inner, secret in _options(section).items()}
    return options


def _section(kinds: tuple[Any, ...]) -> type[BaseModel] | None:
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


LISTS = ("flows", "stages")
"""The tables that are repeated."""

OPTIONS = _options(Settings)
"""Each option by its keys, those of a flow below "flows" and of a stage below "stages", and whether it is a secret."""

SINGLE = [keys for keys in OPTIONS if keys[0] not in LISTS]
"""The options that there are once: those that a variable or a file of secrets can stand for."""
