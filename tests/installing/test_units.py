"""The systemd units: systemd finds nothing wrong with them, and little that they leave open."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNITS = sorted(SYSTEMD.glob("*.service"))
MOST = 1.2  # of 10: what systemd-analyze calls a service that is hardly exposed at all


def analyze(*arguments: str) -> str:
    """What systemd-analyze says of it; it ends with 0 even for keys that it does not know."""
    command = shutil.which("systemd-analyze")
    assert command, "systemd-analyze is missing; on Debian, as root: apt-get install systemd"
    done = subprocess.run([command, *arguments], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout + done.stderr


def test_there_are_units() -> None:
    assert "auditor.service" in [unit.name for unit in UNITS]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_has_nothing_to_say_about_a_unit(unit: Path, tmp_path: Path) -> None:
    command = tmp_path / "auditor"  # systemd looks whether it is there
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/auditor/bin/auditor", str(command)))
    assert analyze("verify", str(copy)) == ""
    copy.write_text(copy.read_text().replace("UMask=", "UMsk="))
    assert "UMsk" in analyze("verify", str(copy)), "and it would say something"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_leaves_hardly_anything_open(unit: Path) -> None:
    said = analyze("security", "--offline=true", str(unit))
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert exposure, said
    assert float(exposure[1]) <= MOST, said


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_what_is_installed(unit: Path) -> None:
    assert re.search(r"^ExecStart=/opt/auditor/bin/auditor (run|web)\b", unit.read_text(), re.MULTILINE)
