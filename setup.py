"""What pyproject.toml cannot say of the build: the commit goes along, for `auditor --version`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent
PLACE = Path("auditor", "COMMIT")


def commit() -> str:
    """Return the commit, empty if not known: an archive has it in a file, a container's build in its environment."""
    if (HERE / PLACE).exists():
        return (HERE / PLACE).read_text().strip()
    if "AUDITOR_COMMIT" in os.environ:
        return os.environ["AUDITOR_COMMIT"]
    if not (HERE / ".git").exists():
        return ""
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class BuildWithCommit(build_py):
    """Writes it beside the modules, but not into the source tree of an editable installation: that moves on."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode:
            (Path(self.build_lib) / PLACE).write_text(commit() + "\n")


class ArchiveWithCommit(sdist):
    """Writes it into the archive, from which it is built without git."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Make the archive's folder."""
        super().make_release_tree(base_dir, files)
        (Path(base_dir) / PLACE).write_text(commit() + "\n")


setup(cmdclass={"build_py": BuildWithCommit, "sdist": ArchiveWithCommit})
