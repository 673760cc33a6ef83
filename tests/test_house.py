"""Rules of the house that no other tool holds."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

HOUSE = Path(__file__).parent.parent
LOCK = (HOUSE / "requirements.lock").read_text()


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


def test_the_lock_names_no_address() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^\s*-[^-]|^\s*--(?!hash=)", LOCK, re.MULTILINE), "only hashes, no options of pip"


def test_the_lock_pins_every_library_that_the_project_names() -> None:
    declared = tomllib.loads((HOUSE / "pyproject.toml").read_text())
    project = declared["project"]
    extras = project["optional-dependencies"].values()
    wanted = chain(project["dependencies"], *extras, declared["build-system"]["requires"])
    pinned = set(re.findall(r"^([a-z0-9-]+)==\S+ \\$", LOCK, re.MULTILINE))
    assert {re.split(r"[\[<>=~! ]", requirement)[0] for requirement in wanted} <= pinned


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
