"""`make install`, `make uninstall`, and an upgrade in between, into folders of the test's own; it takes the network."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[2]


class Machine:
    """The folders that would be the machine's."""

    def __init__(self, folder: Path) -> None:
        self.prefix, self.settings = folder / "opt" / "auditor", folder / "etc" / "auditor"
        self.units, self.command = folder / "systemd" / "system", folder / "bin" / "auditor"
        for place in (self.prefix, self.settings, self.units):
            place.parent.mkdir()
        self._environ = {
            "PREFIX": str(self.prefix),
            "SETTINGS": str(self.settings),
            "UNITS": str(self.units),
            "COMMAND": str(self.command),
            "AUDITOR_COMMIT": "0123456789ab",
            "PYTHON": "/usr/bin/python3",  # and not one from a home, which is refused
        }

    def make(self, target: str) -> str:
        """Run make, and return what it said."""
        environ = {**os.environ, **self._environ}
        done = subprocess.run(
            ["make", target], cwd=HOUSE, env=environ, capture_output=True, text=True, check=False, timeout=280
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, *arguments: str) -> str:
        """Run what was installed, from elsewhere."""
        done = subprocess.run(
            [self.command, *arguments], cwd="/", capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout

    @property
    def releases(self) -> list[str]:
        return sorted(path.name for path in self.prefix.iterdir() if not path.is_symlink())


@pytest.mark.timeout(600)
def test_install_upgrade_uninstall(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert "enable --now" in machine.make("install")
    assert machine.run("--version") == "auditor 0.1.0 (0123456789ab)\n"
    (first,) = machine.releases
    unit = (machine.units / "auditor.service").read_text()
    assert f"ExecStart={machine.prefix}/bin/auditor run --config {machine.settings}/auditor.toml" in unit
    assert oct((machine.settings / "credentials").stat().st_mode & 0o777) == "0o700"
    assert (machine.prefix / "share" / "docs" / "operating.md").exists()
    libraries = {path.name for path in (machine.prefix / first / "lib").glob("python3*/site-packages/*")}
    assert "aiormq" in libraries
    assert not {"pytest", "setuptools", "mypy"} & libraries

    (machine.settings / "auditor.toml").write_text("# mine\n")
    (machine.settings / "credentials" / "broker__password").write_text("mine")
    assert "upgraded" in machine.make("install")
    before, second = machine.releases
    assert before == first
    assert (machine.prefix / "bin").resolve() == machine.prefix / second / "bin"
    assert (machine.settings / "auditor.toml").read_text() == "# mine\n"
    assert (machine.settings / "credentials" / "broker__password").read_text() == "mine"

    machine.make("uninstall")
    assert not machine.prefix.exists()
    assert not machine.command.is_symlink()
    assert list(machine.units.iterdir()) == []
    assert (machine.settings / "auditor.toml").read_text() == "# mine\n"
