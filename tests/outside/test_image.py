"""The image, built and run without a registry or a daemon: a base made by debootstrap, buildah, podman. Needs root."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from auditor.demo.server import Broker

HOUSE = Path(__file__).parents[2]
LOCKED_DOWN = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges")
CA = "/etc/ssl/certs/ca-certificates.crt"  # pip inside the build needs the machine's own authorities

pytestmark = pytest.mark.timeout(900)


class Builder:
    """buildah and podman with everything they keep in one folder."""

    def __init__(self, folder: Path) -> None:
        """Configure them; nothing is read from, or written to, the machine's own containers."""
        self._folder = folder
        (folder / "tmp").mkdir()
        storage, containers = folder / "storage.conf", folder / "containers.conf"
        storage.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n')
        containers.write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nruntime = "runc"\n'
            f'tmp_dir = "{folder}/podman"\n'
        )
        self._environ = {
            **os.environ,
            "TMPDIR": str(folder / "tmp"),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "CONTAINERS_CONF": str(containers),
        }

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        done = subprocess.run(
            command, env=self._environ, capture_output=True, text=True, check=False, timeout=600, cwd=HOUSE
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done

    def base(self) -> str:
        """Make a base image out of Debian's packages, and return its name."""
        sources = Path("/etc/apt/sources.list.d/debian.sources").read_text()
        mirror = re.search(r"^URIs: (\S+)", sources, re.MULTILINE)
        assert mirror, "no mirror of Debian in /etc/apt/sources.list.d/debian.sources"
        root = str(self._folder / "rootfs")
        packages = "--include=python3,python3-venv,ca-certificates"
        self.run("debootstrap", "--variant=minbase", packages, "bookworm", root, mirror[1])
        container = self.run("buildah", "from", "scratch").stdout.strip()
        self.run("buildah", "add", "-q", container, root, "/")
        self.run("buildah", "config", "--env", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
        self.run("buildah", "commit", "-q", "--rm", container, "localhost/base")
        return "localhost/base"


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    assert os.geteuid() == 0, "run it as root: debootstrap and the containers need that"
    builder = Builder(tmp_path_factory.mktemp("image"))
    command = ("buildah", "bud", "--isolation", "chroot", "--format", "docker", "--pull-never", "-v", f"{CA}:{CA}:ro")
    arguments = ("--build-arg", f"BASE_IMAGE={builder.base()}", "--build-arg", "COMMIT=0123456789ab")
    builder.run(*command, *arguments, "-t", "localhost/auditor", ".")
    yield builder
    builder.run("podman", "rm", "--all", "--force", check=False)
    builder.run("podman", "rmi", "--all", "--force", check=False)


def test_what_the_image_says_of_itself(builder: Builder) -> None:
    (image,) = json.loads(builder.run("podman", "image", "inspect", "localhost/auditor").stdout)
    (base,) = json.loads(builder.run("podman", "image", "inspect", "localhost/base").stdout)
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["StopSignal"] in ("SIGTERM", "15")
    assert "/var/lib/auditor" in image["Config"]["Volumes"]
    assert image["Config"]["Labels"]["org.opencontainers.image.revision"] == "0123456789ab"
    assert image["Healthcheck"]["Test"] == ["CMD", "auditor", "status", "--fail"]
    added = (image["Size"] - base["Size"]) / 1e6
    assert added < 100, "MB on top of the base"


def test_it_runs_locked_down_is_healthy_stops_and_keeps_its_ledger(
    builder: Builder, broker: Broker, tmp_path: Path
) -> None:
    vhost, user, password = f"image-{secrets.token_hex(4)}", f"image-{secrets.token_hex(4)}", secrets.token_hex(12)
    broker.add_vhost(vhost)
    ours = r"auditor\.(trace|canary)"
    broker.add_user(user, password, vhost=vhost, configure=ours, write=ours, read=rf"{ours}|amq\.rabbitmq\.trace")
    config, words = tmp_path / "auditor.toml", tmp_path / "secrets"
    config.write_text(
        f'[broker]\nurl = "{broker.amqp_url}"\nuser = "{user}"\nvhosts = ["{vhost}"]\n[http]\nlisten = "127.0.0.1:0"\n'
        f'[broker.management]\nurl = "{broker.management_url}"\nuser = "{broker.user}"\n'
    )
    words.mkdir()
    (words / "broker__password").write_text(password)
    (words / "broker__management__password").write_text(broker.password)

    def start(name: str) -> None:
        mounts = ("-v", "ledger:/var/lib/auditor", "-v", f"{config}:/etc/auditor/auditor.toml:ro")
        network = ("--network", "host")  # for the broker's sake; it listens on loopback
        builder.run(
            *("podman", "run", "-d", "--name", name, *network, *LOCKED_DOWN, *mounts),
            *("-v", f"{words}:/run/secrets:ro", "localhost/auditor"),
        )

    def healthy(name: str) -> None:
        end = time.monotonic() + 60
        while builder.run("podman", "healthcheck", "run", name, check=False).returncode:
            assert time.monotonic() < end, builder.run("podman", "logs", name, check=False).stderr
            time.sleep(0.5)

    def stop(name: str) -> None:
        began = time.monotonic()
        builder.run("podman", "stop", "-t", "30", name)
        assert time.monotonic() - began < 10
        (container,) = json.loads(builder.run("podman", "inspect", name).stdout)
        assert container["State"]["ExitCode"] == 0
        assert password not in builder.run("podman", "logs", name).stderr
        builder.run("podman", "rm", name)

    try:
        start("first")
        healthy("first")
        assert builder.run("podman", "exec", "first", "id", "-u").stdout.strip() == "10001"
        said = builder.run("podman", "exec", "first", "auditor", "--version").stdout
        assert said == "auditor 0.1.0 (0123456789ab)\n"
        before = json.loads(builder.run("podman", "exec", "first", "auditor", "coverage", "--json").stdout)
        stop("first")
        start("second")
        healthy("second")
        after = json.loads(builder.run("podman", "exec", "second", "auditor", "coverage", "--json").stdout)
        assert after["since"] == before["since"], "the ledger goes on"
        stop("second")
    finally:
        broker.delete_user(user)
        broker.delete_vhost(vhost)
