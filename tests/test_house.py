"""Rules of the house that no other tool holds."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent
LOCKS = {name: (HOUSE / name).read_text() for name in ("requirements.lock", "tests/requirements.lock")}
PINNED = {name: dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", lock, re.MULTILINE)) for name, lock in LOCKS.items()}
DECLARED = tomllib.loads((HOUSE / "pyproject.toml").read_text())


def test_the_core_imports_only_the_standard_library_and_itself() -> None:
    modules = sorted((HOUSE / "auditor" / "core").rglob("*.py"))
    assert modules
    strangers = {
        f"{module.name}: {name}"
        for module in modules
        for name in _imports(module)
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("auditor.core")
    }
    assert not strangers


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_a_lock_names_no_address(lock: str) -> None:
    assert "://" not in lock
    assert not re.search(r"^\s*-[^-]|^\s*--(?!hash=)", lock, re.MULTILINE), "only hashes, no options of pip"


def test_the_lock_to_run_it_has_what_that_takes_and_no_test_library() -> None:
    pinned = PINNED["requirements.lock"].keys()
    project = DECLARED["project"]
    extras = project["optional-dependencies"]
    assert _names(project["dependencies"], extras.get("web", []), DECLARED["build-system"]["requires"]) <= pinned
    assert not {"pytest", "mypy", "ruff", "hypothesis", "testcontainers"} & pinned


def test_the_lock_to_work_on_it_pins_every_library_that_the_project_names() -> None:
    project = DECLARED["project"]
    extras = project["optional-dependencies"].values()
    pinned = PINNED["tests/requirements.lock"].keys()
    assert _names(project["dependencies"], *extras, DECLARED["build-system"]["requires"]) <= pinned


def test_what_is_tested_is_what_is_run() -> None:
    assert PINNED["requirements.lock"].items() <= PINNED["tests/requirements.lock"].items()


def _names(*requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in chain(*requirements)}


def _imports(module: Path) -> set[str]:
    """What a module imports, by full name."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.name}: a relative import"
            assert node.module is not None
            names.add(node.module)
    return names
