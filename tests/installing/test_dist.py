"""Wheel and source archive know the commit that they were built from."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]
NEEDED = ("auditor", "LICENSE", "README.md", "pyproject.toml", "setup.py")


def build(source: Path, into: Path, **environ: str) -> None:
    """Build a wheel from the archive of a source folder."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(into), str(source)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=50, env={**os.environ, **environ}
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    source.mkdir()
    for name in NEEDED:
        subprocess.run(["cp", "-R", str(HOUSE / name), str(source)], check=True)
    build(source, folder / "dist", AUDITOR_COMMIT="0123456789ab")
    return folder / "dist"


def test_the_wheel_has_the_package_the_command_the_licence_and_the_commit(dist: Path) -> None:
    (wheel,) = dist.glob("auditor-0.1.0-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        # made from the archive, where there is no git: by way of its file
        assert archive.read("auditor/COMMIT").decode() == "0123456789ab\n"
        commands = archive.read("auditor-0.1.0.dist-info/entry_points.txt").decode()
    modules = {str(path.relative_to(HOUSE)) for path in (HOUSE / "auditor").rglob("*.py")}
    assert modules <= names
    assert "auditor-0.1.0.dist-info/licenses/LICENSE" in names
    assert not [name for name in names if name.startswith("tests")]
    assert "auditor = auditor.cli:main" in commands


def test_the_wheel_says_its_version_and_commit(dist: Path, tmp_path: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    command = [sys.executable, "-m", "auditor.cli", "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "auditor 0.1.0 (0123456789ab)\n"


def test_the_archive_has_what_it_takes_to_build(dist: Path) -> None:
    (sdist,) = dist.glob("auditor-0.1.0.tar.gz")
    with tarfile.open(sdist) as archive:
        names = set(archive.getnames())
    assert {f"auditor-0.1.0/{name}" for name in (*NEEDED, "auditor/COMMIT", "auditor/cli/main.py")} <= names
