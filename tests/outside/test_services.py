"""Both units on a machine with systemd: installed by the book, run in their real sandboxes, upgraded, taken off.

What cannot be tried where this machine has no unified control groups: `IPAddressDeny=` and `MemoryHigh=`, which systemd
leaves out there.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import aio_pika
import pytest
from datasette_auth_passwords.utils import hash_password

from auditor.demo.server import Broker
from auditor.tap.topology import permissions
from tests.acceptance.harness import CANARIES, QUEUE, toml
from tests.outside.machine import HOUSE, Machine
from tests.support.vhost import Vhost

pytestmark = pytest.mark.timeout(900)

LEDGER = "/var/lib/auditor/ledger.db"
PYTHON = "/usr/bin/python3"  # and not one from a home, which the services cannot see


class Service:
    """The machine with the auditor on it, and a broker for it."""

    def __init__(self, machine: Machine, vhost: Vhost) -> None:
        self.machine = machine
        self.vhost = vhost
        self.user, self.password = f"auditor-{secrets.token_hex(4)}", secrets.token_urlsafe(12)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.listen = f"127.0.0.1:{free.getsockname()[1]}"

    def install(self, commit: str) -> str:
        return self.machine.run("make", "install", f"PYTHON={PYTHON}", f"AUDITOR_COMMIT={commit}").stdout

    def configure(self) -> None:
        """What the page tells one to do after installing, and the drop-in that the unit tells of."""
        broker = self.vhost.broker
        settings = {
            "broker": {
                "url": broker.amqp_url,
                "user": self.user,
                "vhosts": [self.vhost.name],
                "management": {"url": broker.management_url, "user": broker.user},
            },
            "tap": {"batch_linger": 3.0, "canary_timeout": 10.0},
            "http": {"listen": "127.0.0.1:0"},
            "web": {"listen": self.listen},
        }
        self.put("/etc/auditor/auditor.toml", toml(settings), mode=644)
        self.put("/etc/auditor/credentials/broker__password", self.password)
        management = "/etc/auditor/credentials/broker__management__password"
        self.put(management, broker.password)
        more = f"[Service]\nLoadCredential=broker__management__password:{management}\nWatchdogSec=10s\n"
        self.put("/etc/systemd/system/auditor.service.d/override.conf", more, mode=644)
        self.put("/etc/systemd/system/auditor-web.service.d/override.conf", "[Service]\nWatchdogSec=10s\n", mode=644)
        self.machine.run("systemctl", "daemon-reload")

    def put(self, path: str, text: str, *, mode: int = 600) -> None:
        """Write a file; for root alone, unless a mode is given."""
        self.machine.run("install", "-D", "-m", str(mode), "/dev/stdin", path, stdin=text)

    def main_pid(self, unit: str) -> str:
        return self.machine.show(unit, "MainPID")[0]

    def from_inside(self, unit: str, script: str) -> str:
        """Run a script as the unit's user among the files that it sees."""
        pid = self.main_pid(unit)
        status = self.machine.shell(f"cat /proc/{pid}/status")
        found = dict(line.split(":", 1) for line in status.splitlines())
        user, group = found["Uid"].split()[0], found["Gid"].split()[0]
        become = ("setpriv", "--reuid", user, "--regid", group, "--clear-groups")
        inside = ("nsenter", "-t", pid, "-m", *become)
        return self.machine.run(*inside, "sh", "-c", script, check=False).stdout

    def reading(self) -> None:
        self.machine.until("auditor status --fail")

    def ask(self, question: str) -> list[list[object]]:
        said = self.machine.run("sqlite3", "-readonly", "-json", LEDGER, question).stdout
        return [list(row.values()) for row in json.loads(said or "[]")]

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.listen}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def publish(self, name: str, messages: int) -> None:
        """Publish to a queue that nobody reads, and wait until the auditor has been given the trace of all."""

        async def publishing() -> None:
            async with await aio_pika.connect(self.vhost.url) as connection, connection.channel() as channel:
                queue = await channel.declare_queue(name)
                for number in range(messages):
                    message = aio_pika.Message(b"{}", message_id=f"{name}-{number}")
                    await channel.default_exchange.publish(message, queue.name)
                quiet = 0
                while quiet < 5:
                    traces = await channel.declare_queue(QUEUE, passive=True)
                    quiet = 0 if traces.declaration_result.message_count else quiet + 1
                    await asyncio.sleep(0.1)

        asyncio.run(asyncio.wait_for(publishing(), 60))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("machine")) as machine:
        yield machine


@pytest.fixture(scope="module")
def service(machine: Machine, broker: Broker) -> Iterator[Service]:
    vhost = Vhost(broker=broker, name=f"services-{secrets.token_hex(4)}")
    broker.add_vhost(vhost.name)
    service = Service(machine, vhost)
    configure, write, read = permissions(QUEUE, CANARIES)
    broker.add_user(service.user, service.password, vhost=vhost.name, configure=configure, write=write, read=read)
    assert "systemctl enable --now auditor" in service.install("111111111111")
    service.configure()
    yield service
    broker.delete_user(service.user)
    broker.delete_vhost(vhost.name)


@pytest.fixture
def running(service: Service) -> Service:
    """Both services, enabled, ready and reading."""
    # `start` ends well only when READY has come
    service.machine.run("systemctl", "enable", "--now", "auditor", "auditor-web")
    service.reading()
    return service


def test_the_pages_wait_for_a_ledger_and_then_for_nobody(service: Service) -> None:
    machine = service.machine
    machine.run("systemctl", "enable", "auditor", "auditor-web")
    assert machine.run("systemctl", "start", "auditor-web", check=False).returncode != 0
    assert "there is no such file" in machine.journal("auditor-web")
    machine.run("systemctl", "start", "auditor")
    machine.until("systemctl is-active auditor-web")
    service.reading()
    machine.shell("CREDENTIALS_DIRECTORY=/etc/auditor/credentials auditor check")
    assert "Overview" in service.page("/")


def test_they_are_who_they_should_be_and_see_what_they_should(running: Service) -> None:
    machine = running.machine
    status = {}
    for unit in ("auditor", "auditor-web"):
        text = machine.shell(f"cat /proc/{running.main_pid(unit)}/status")
        status[unit] = dict(line.split(":\t", 1) for line in text.splitlines())
        assert (status[unit]["NoNewPrivs"], status[unit]["Seccomp"]) == ("1", "2")
        assert int(status[unit]["CapEff"], 16) == int(status[unit]["CapBnd"], 16) == 0
        seen = running.from_inside(
            unit, "ls /home /root /run/credentials 2>/dev/null; id -un; touch /etc/x /usr/x /x && echo written"
        )
        assert "written" not in seen
        assert running.from_inside(unit, "ls /tmp /var/tmp").split() == ["/tmp:", "/var/tmp:"]
    users = {unit: found["Uid"].split()[0] for unit, found in status.items()}
    assert "0" not in users.values()
    assert users["auditor"] != users["auditor-web"]

    # the one writes the ledger, and the other only reads it; what is secret is the other's neither
    assert (
        running.from_inside("auditor", f"test -w {LEDGER} && cat /run/credentials/auditor.service/broker__password")
        == running.password
    )
    look = (
        f"cat {LEDGER} >/dev/null && echo read; test -w {LEDGER} && echo writes; touch /var/lib/auditor/x && echo made"
    )
    assert running.from_inside("auditor-web", look) == "read\n"
    audit = running.main_pid("auditor")
    secrets = f"/proc/{audit}/root/run/credentials/*/* /etc/auditor/credentials/*"
    pry = f"ls /run/credentials; cat {secrets}; ls /var/lib/private"
    assert running.from_inside("auditor-web", pry).split() == ["auditor", "auditor-web"]
    assert running.from_inside("auditor", "ls /var/lib/private").split() == ["auditor"]
    everything = machine.shell("journalctl --no-pager; systemctl show auditor auditor-web")
    assert running.password not in everything
    assert running.vhost.broker.password not in everything


def test_the_pages_read_beside_the_writer_and_after_it(running: Service) -> None:
    machine = running.machine

    def watermark() -> int:
        (row,) = json.loads(running.page("/ledger/status.json?_shape=array"))
        return int(row["watermark"])

    def goes_on() -> None:
        seen, end = watermark(), time.monotonic() + 60
        while watermark() <= seen:
            assert time.monotonic() < end, "the pages show an old ledger"
            time.sleep(0.5)

    goes_on()
    for stop in ("systemctl stop auditor", "systemctl kill -s KILL auditor"):
        machine.run(*stop.split())
        watermark()
        assert "Overview" in running.page("/")
        machine.run("systemctl", "restart", "auditor-web")  # without a writer beside it
        watermark()
        machine.run("systemctl", "start", "auditor")
        running.reading()
        goes_on()
    # who looked at what
    count = machine.run("sqlite3", "-readonly", "/var/lib/auditor-web/access.db", "SELECT count(*) FROM access").stdout
    assert int(count) > 0
    assert '"page": "/ledger/status.json?_shape=array"' in machine.journal("auditor-web")


def test_what_was_in_hand_is_written_at_the_end(running: Service) -> None:
    running.publish("drained", 200)
    running.machine.run("systemctl", "stop", "auditor", "auditor-web")
    for unit in ("auditor", "auditor-web"):
        assert running.machine.show(unit, "Result", "ExecMainCode", "ExecMainStatus") == ["success", "1", "0"], (
            running.machine.journal(unit)
        )
    assert running.ask("SELECT count(*) FROM audit WHERE queue = 'drained'") == [[200]]


@pytest.mark.parametrize("unit", ["auditor", "auditor-web"])
def test_one_that_hangs_is_killed_by_the_watchdog_and_begins_again(running: Service, unit: str) -> None:
    machine = running.machine
    hung = running.main_pid(unit)
    before = int(machine.show(unit, "NRestarts")[0])
    machine.run("kill", "-STOP", hung)
    machine.until(f"[ $(systemctl show {unit} -P NRestarts) -gt {before} ] && systemctl is-active {unit}")
    assert running.main_pid(unit) != hung
    assert "Watchdog timeout" in machine.journal(unit)
    running.reading()


def test_tls_and_logins_come_in_by_files_that_are_for_root_alone(running: Service) -> None:
    """By the drop-in that the unit shows."""
    machine = running.machine
    unit = (HOUSE / "systemd" / "auditor-web.service").read_text()
    shown = re.findall(r"^#((?:LoadCredential|Environment|EnvironmentFile)=.*)$", unit, re.MULTILINE)
    folder = "/etc/auditor/credentials"
    files = f"-keyout {folder}/web.key -out {folder}/web.pem"
    machine.shell(f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pages {files}")
    users = {"olga": f"support:{hash_password('secret', iterations=1000)}"}
    running.put(f"{folder}/web.env", f"AUDITOR_WEB__USERS={json.dumps(users)}\n")
    running.put("/etc/systemd/system/auditor-web.service.d/tls.conf", "\n".join(["[Service]", *shown, ""]), mode=644)
    machine.shell("systemctl daemon-reload; systemctl restart auditor-web")
    try:
        context = ssl.create_default_context(cadata=machine.shell(f"cat {folder}/web.pem"))
        context.check_hostname = False
        with urllib.request.urlopen(f"https://{running.listen}/lost", timeout=30, context=context) as answer:
            assert "/-/login" in answer.url
        assert machine.shell(f"stat -c %a {folder} {folder}/web.env {folder}/web.key").split() == ["700", "600", "600"]
    finally:
        machine.shell("rm /etc/systemd/system/auditor-web.service.d/tls.conf")
        machine.shell("systemctl daemon-reload; systemctl restart auditor-web")


def test_upgrade_and_removal(running: Service) -> None:
    machine = running.machine
    running.publish("kept", 10)
    machine.until(f"[ $(sqlite3 -readonly {LEDGER} \"SELECT count(*) FROM audit WHERE queue = 'kept'\") = 10 ]")
    before = {unit: running.main_pid(unit) for unit in ("auditor", "auditor-web")}
    settings = machine.shell("cat /etc/auditor/auditor.toml")
    assert "upgraded" in running.install("222222222222")
    running.reading()
    assert machine.run("auditor", "--version").stdout == "auditor 0.1.0 (222222222222)\n"
    release = Path(machine.shell("readlink -f /opt/auditor/bin")).parent.name
    for unit, pid in before.items():
        assert running.main_pid(unit) != pid
        command = machine.shell(f"tr '\\0' ' ' </proc/{running.main_pid(unit)}/cmdline")
        assert release in command or "/opt/auditor/bin" in command
    assert running.ask("SELECT count(*) FROM audit WHERE queue = 'kept'") == [[10]]
    assert machine.shell("cat /etc/auditor/auditor.toml") == settings
    assert "Overview" in running.page("/")

    machine.run("make", "uninstall")
    assert (
        machine.shell("systemctl list-units --all --plain --no-legend 'auditor*' | grep -v not-found", check=False)
        == ""
    )
    assert (
        machine.shell("ls -d /opt/auditor /usr/local/bin/auditor /etc/systemd/system/auditor*.service", check=False)
        == ""
    )
    assert machine.shell("cat /etc/auditor/auditor.toml") == settings
    assert running.ask("SELECT count(*) FROM audit WHERE queue = 'kept'") == [[10]]
    assert int(machine.shell("stat -c %s /var/lib/auditor-web/access.db")) > 0
