"""Reading the settings: arguments first, then the environment, then secrets, then the TOML file.

| from | how |
|---|---|
| arguments | what the command line says |
| environment | `AUDITOR_SECTION__OPTION`, lists and tables as JSON |
| secrets | a file `section__option` in `$CREDENTIALS_DIRECTORY` (systemd) or `/run/secrets` |
| file | `--config`, or /etc/auditor/auditor.toml if there is one |

A section may be made up from all four. What is wrong is reported at once, all of it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, InitSettingsSource, PydanticBaseSettingsSource

from auditor.errors import SettingsError
from auditor.settings import mistakes
from auditor.settings.keys import SINGLE
from auditor.settings.model import Settings

DEFAULT_CONFIG = Path("/etc/auditor/auditor.toml")
CONTAINER_SECRETS = Path("/run/secrets")


def load(config: Path | None = None, *, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read all settings.

    `config` is the TOML file; without one the default file is read if it exists. `overrides` are sections with
    options, as in the file, and come before everything else. SettingsError lists every mistake.
    """
    found: list[str] = []
    table = _read_toml(config, found)
    found += mistakes.of_environment(os.environ)
    secrets = _read_secrets(_secret_folders(), found)

    class Loading(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            *_others: PydanticBaseSettingsSource,
            **_named: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                init_settings,
                _Environment(settings_cls),
                InitSettingsSource(settings_cls, secrets),
                InitSettingsSource(settings_cls, table),
            )

    settings = None
    try:
        settings = Loading(**dict(overrides or {}))
    except ValidationError as error:
        found += mistakes.of_validation(error, os.environ)
    if settings is None or found:
        raise SettingsError(
            "The settings cannot be used",
            on=str(config or DEFAULT_CONFIG) if config or table else "",
            why="\n".join(f"  {mistake}" for mistake in found),
            hint="config/auditor.toml shows every option with its default and its unit.",
        ) from None
    return Settings.model_construct(**dict(settings))


class _Environment(EnvSettingsSource):
    """The environment; what should be JSON and is not is left to the model, which names the key."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


def _read_toml(config: Path | None, found: list[str]) -> dict[str, Any]:
    path = config or DEFAULT_CONFIG
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if config is not None:
            found.append(f"{path}: there is no such file")
    except OSError as error:
        found.append(f"{path}: cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        found.append(f"{path}: not UTF-8 at byte {error.start}")
    except tomllib.TOMLDecodeError as error:
        found.append(f"{path}: not TOML: {error}")
    return {}


def _secret_folders() -> list[Path]:
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    # the first one that has a secret wins
    return [*([Path(credentials)] if credentials else []), CONTAINER_SECRETS]


def _read_secrets(folders: Sequence[Path], found: list[str]) -> dict[str, Any]:
    """Read the files that are named like options; others in these folders belong to somebody else."""
    secrets: dict[str, Any] = {}
    for keys in SINGLE:
        for folder in folders:
            path = folder / "__".join(keys)
            try:
                if not path.is_file():
                    continue
                value = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
                found.append(f"{'.'.join(keys)}: the secret {path} cannot be read: {reason}")
                continue
            section = secrets
            for key in keys[:-1]:
                section = section.setdefault(key, {})
            # editors and `echo` end a file with a line break; anything else may be part of the secret
            section[keys[-1]] = value.rstrip("\r\n")
            break
    return secrets
