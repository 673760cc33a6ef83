"""A RabbitMQ node of our own.

It lives in a folder of its own and listens on loopback only, on ports that nobody else uses, with an epmd (Erlang's
register of node names) of its own, so that nothing is shared with any other RabbitMQ or Erlang on the machine and
several such nodes can run side by side. Needs no rights: it runs as whoever starts it, root included.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from auditor.demo.child import Child
from auditor.demo.server import Broker, Progress, silent
from auditor.errors import BrokerError

_HOST = "127.0.0.1"
_START = 120.0  # seconds to get ready; usually five to fifteen
_STOP = 60.0  # seconds to stop in order; usually three
_EPMD = 10.0  # seconds until epmd listens; usually at once
_COMMAND = 60.0  # seconds for one rabbitmqctl; usually two
_SHOWN = 15  # last lines of a log that a failure shows

# Below the range from which Linux takes the ports of outgoing connections: a client that keeps trying to reach the
# node while it restarts could otherwise be given the node's own port, and even connect to itself.
_PORTS = range(20_000, 32_000)

# Packages put the real scripts here; those on the PATH insist on being root or the user `rabbitmq`, and change to it.
_SCRIPTS = "/usr/lib/rabbitmq/bin"
_ELSEWHERE = ("/usr/local/sbin", "/usr/sbin", "/opt/rabbitmq/sbin")  # often missing on a user's PATH

_CONFIGURATION = """\
listeners.tcp.1 = {host}:{port}
management.tcp.ip = {host}
management.tcp.port = {management_port}
default_user = {user}
default_pass = {password}
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
log.console = false
log.file.level = info
"""

# Every second, by default every five: whoever waits for counters here shall not wait long.
_QUICK_COUNTERS = """\
collect_statistics_interval = 1000
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.detailed.minute = 1
"""


def program(name: str) -> str | None:
    """The path of one of RabbitMQ's programs on this machine; None when it is not installed."""
    return shutil.which(name, path=os.pathsep.join([_SCRIPTS, os.environ.get("PATH", os.defpath), *_ELSEWHERE]))


class PrivateBroker(Broker):
    """One RabbitMQ node that lives as long as this object's context, and no longer than this process.

    Only a process killed with SIGKILL leaves the node's folder behind; the node itself dies with it even then.
    """

    def __init__(
        self,
        wrapper: Sequence[str] = (),
        *,
        advanced: str = "[].\n",
        beside: PrivateBroker | None = None,
        quick_counters: bool = True,
        progress: Progress = silent,
    ) -> None:
        """`wrapper` is a command put before RabbitMQ's own; it must run them in place and see the temporary folder.

        `advanced` is what its advanced.config holds. `beside` is a node that was started, and that this one can
        `join`; it must be closed after this one. `quick_counters`: the broker collects its counters every second, which
        costs it some of its speed.
        """
        super().__init__(
            origin="a private node of " + shlex.join([*wrapper, self._program("rabbitmq-server", wrapper)])
        )
        self.host = _HOST
        self.user = "administrator"
        self.password = secrets.token_urlsafe(24) if beside is None else beside.password
        self._wrapper = list(wrapper)
        self._advanced = advanced
        self._quick_counters = quick_counters
        self._beside = beside
        self._progress = progress
        self._folder: Path | None = None
        self._environment: dict[str, str] = {}
        self._epmd: Child | None = None
        self._node: Child | None = None

    @property
    def folder(self) -> Path:
        """Where the node keeps its data and its logs (`log/`); there once it was started."""
        assert self._folder is not None, "the node was not started"
        return self._folder

    @property
    def pid(self) -> int:
        """The process id of the node."""
        assert self._node is not None, "the node does not run"
        return self._node.pid

    def start(self) -> None:
        """Start the node, with the data it had when it ran before, and wait until it can be used."""
        assert self._node is None, "the node runs already"
        if self._folder is None:
            self._prepare()
        self._progress(f"starting {self.origin}")
        if self._epmd is None and self._beside is None:
            self._epmd = self._child("epmd", "-address", _HOST, "-port", self._environment["ERL_EPMD_PORT"])
            self._wait_for_epmd()
        self._node = self._child("rabbitmq-server")
        try:
            self._wait(_START, self._check)
        except BrokerError as error:
            self.kill()
            raise BrokerError(
                "could not start a RabbitMQ node",
                on=self.origin,
                why=f"{error.why or error}; the last it said was\n{self._last_words()}",
                hint="If a port was taken in that moment (eaddrinuse), trying again helps.",
            ) from error
        self._progress(f"RabbitMQ {self.version} is ready at {self.amqp_url}")

    def join(self) -> None:
        """Make one cluster with the node beside; what this one had is gone."""
        assert self._beside is not None, "there is no other node"
        self.ctl("stop_app")
        self.ctl("join_cluster", self._beside.name)
        self.ctl("start_app")

    @property
    def name(self) -> str:
        """What Erlang calls the node."""
        return self._environment["RABBITMQ_NODENAME"]

    def stop(self) -> None:
        """End the node in order; it can be started again."""
        if self._node is not None:
            self._node.stop(_STOP)
            self._node = None

    def kill(self) -> None:
        """End the node as a power failure would; it can be started again."""
        if self._node is not None:
            self._node.kill()
            self._node = None

    def restart(self) -> None:
        """Stop the node in order and start it again: same ports, same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the node and delete all it has left."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl`, return what it prints; BrokerError when it fails. Takes seconds: prefer `management`."""
        command = [*self._wrapper, self._program("rabbitmqctl", self._wrapper), "--quiet", *arguments]
        try:
            done = subprocess.run(
                command,
                env=self._environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_COMMAND,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            why = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
            raise BrokerError("a command to the RabbitMQ node failed", on=shlex.join(command), why=why) from error
        return done.stdout

    @staticmethod
    def _program(name: str, wrapper: Sequence[str]) -> str:
        """The program as it is to be called: found on this machine, or left to the wrapper to find."""
        if wrapper:
            return name
        path = program(name)
        if path is None:
            raise BrokerError("could not start a RabbitMQ node", on=name, why="there is no such program")
        return path

    def _child(self, name: str, *arguments: str) -> Child:
        log = self.folder / "log" / f"{name}.log"
        command = [*self._wrapper, self._program(name, self._wrapper), *arguments]
        try:
            return Child(command, env=self._environment, folder=self.folder, log=log)
        except OSError as error:
            raise BrokerError("could not start a RabbitMQ node", on=shlex.join(command), why=str(error)) from error

    def _prepare(self) -> None:
        """Make the node's folder, its configuration and the environment of its programs."""
        self._folder = folder = Path(tempfile.mkdtemp(prefix="auditor-broker-"))  # only its owner may enter
        (folder / "log").mkdir()
        self.port, management_port, dist_port, epmd_port = _free_ports(4)
        self.management_url = f"http://{_HOST}:{management_port}"
        configuration = folder / "rabbitmq.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                host=_HOST, port=self.port, management_port=management_port, user=self.user, password=self.password
            )
            + (_QUICK_COUNTERS if self._quick_counters else "")
        )
        advanced = folder / "advanced.config"
        advanced.write_text(self._advanced)
        plugins = folder / "enabled_plugins"
        plugins.write_text("[rabbitmq_management].\n")
        cookie = folder / ".erlang.cookie"
        cookie.write_text(
            secrets.token_hex(16) if self._beside is None else (self._beside.folder / cookie.name).read_text()
        )
        cookie.chmod(0o400)  # Erlang refuses one that others may read
        if self._beside is not None:
            epmd_port = int(self._beside._environment["ERL_EPMD_PORT"])
        # Nothing is inherited: whatever there is for another node (RABBITMQ_*, ERL_*) is not meant for this one. Each
        # path is named, since RabbitMQ looks under /etc and /var for those that are not.
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_AFLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",  # of every Erlang, rabbitmqctl's too
            "ERL_CRASH_DUMP": str(folder / "log" / "erl_crash.dump"),
            "ERL_EPMD_ADDRESS": _HOST,
            "ERL_EPMD_PORT": str(epmd_port),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(advanced),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "no-such-file"),
            "RABBITMQ_CONFIG_FILE": str(configuration),
            "RABBITMQ_CONFIG_FILES": str(folder / "no-such-folder" / "*.conf"),
            "RABBITMQ_DIST_PORT": str(dist_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": str(folder / "log" / "node.log"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_NODENAME": f"auditor-{self.port}@{_HOST}",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
            "RABBITMQ_USE_LONGNAME": "true",  # an address as host name: nothing has to be resolved
            # Makes the start script replace itself by the Erlang VM, so that the process we started is the node.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def _wait_for_epmd(self) -> None:
        """Wait until our epmd listens: a node that finds none starts one itself, and leaves it behind."""
        assert self._epmd is not None
        deadline = time.monotonic() + _EPMD
        address = (_HOST, int(self._environment["ERL_EPMD_PORT"]))
        while True:
            with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
                return
            if self._epmd.exit_code is not None or time.monotonic() > deadline:
                raise BrokerError("could not start a RabbitMQ node", on="epmd", why=self._last_words())
            time.sleep(0.05)

    def _check(self) -> None:
        assert self._node is not None
        code = self._node.exit_code
        if code is not None:
            raise BrokerError("the node has ended", why=f"it ended by itself with exit code {code}")

    def _last_words(self) -> str:
        """The end of each of the node's logs."""
        words = []
        for log in sorted((self.folder / "log").glob("*.log")):
            lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
            if lines:
                words += [f"{log.name}:", *(f"  {line}" for line in lines[-_SHOWN:])]
        return "\n".join(words) or "(nothing)"


def _free_ports(count: int) -> list[int]:
    """So many loopback ports that nobody listens on at this moment."""
    # From the system's randomness: two test runs that seed `random` alike must not choose the same ports.
    chosen: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError:
                continue
        chosen.append(port)
        if len(chosen) == count:
            return chosen
    raise BrokerError("could not start a RabbitMQ node", why="no free port is left on this machine")
