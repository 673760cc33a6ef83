"""The Dockerfile by hadolint, and by what the units and the settings say. It is built and run by tests/outside."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

HOUSE = Path(__file__).parents[2]
DOCKERFILE = HOUSE / "Dockerfile"


def test_hadolint_is_content() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_it_has_the_version_of_the_package() -> None:
    version = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]["version"]
    assert f'org.opencontainers.image.version="{version}"' in DOCKERFILE.read_text()
    assert f"image: auditor:{version}\n" in (HOUSE / "config" / "compose.yaml").read_text()


def test_the_base_has_no_registry_in_its_name() -> None:
    (base,) = [line for line in DOCKERFILE.read_text().splitlines() if line.startswith("ARG BASE_IMAGE=")]
    assert "/" not in base
