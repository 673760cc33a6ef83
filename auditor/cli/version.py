"""What `auditor --version` says: the version, and the commit that it was built from."""

from __future__ import annotations

from importlib.resources import files

from auditor import __version__


def version() -> str:
    """Return, say, "0.1.0 (842e15f7c1de)"; the build writes the commit down, so a source tree has none."""
    built = files("auditor") / "COMMIT"
    commit = built.read_text().strip() if built.is_file() else "source tree"
    return f"{__version__} ({commit or 'unknown commit'})"
