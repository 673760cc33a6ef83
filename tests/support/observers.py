"""Prometheus and Alertmanager of Debian as private processes, and a receiver that witnesses what is notified."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

START = 30.0  # seconds that a process has to get ready
_POLL = 0.1

T = TypeVar("T")


def program(name: str) -> str:
    """Find a program; there is no test without it."""
    found = shutil.which(name)
    assert found, f"{name} is not installed: tests/support/get-tools gets it"
    return found


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str) -> Any:
    """Get JSON."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def until(question: Callable[[], T | None], what: str, bound: float = START) -> T:
    """Wait until the answer is a true one, and return it."""
    end = time.monotonic() + bound
    while True:
        if answer := question():
            return answer
        assert time.monotonic() < end, f"not within {bound} s: {what}"
        time.sleep(_POLL)


class Witness:
    """An HTTP server that keeps what is posted to it; `status` is its answer, `delay` how long it takes for that."""

    def __init__(self) -> None:
        self.posts: list[tuple[str, dict[str, str], Any]] = []  # path, headers, body
        self.status = 200
        self.delay = 0.0
        witness = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(witness.delay)
                witness.posts.append((self.path, dict(self.headers), json.loads(body)))
                self.send_response(witness.status)
                self.end_headers()
                self.wfile.write(b"said by the witness")

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                pass  # who hangs up before the answer has a reason

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def notified(self, status: str, name: str) -> list[dict[str, Any]]:
        """What Alertmanager has notified: every alert of this name and status ("firing", "resolved"), in each post."""
        return [
            alert
            for _, _, body in list(self.posts)
            for alert in body["alerts"]
            if alert["status"] == status and alert["labels"]["alertname"] == name
        ]

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Service:
    """A private process with a port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with (self.folder / "service.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, env=_environment()
            )
        until(self._ready, f"{self.command()[0]} is ready: {(self.folder / 'service.log').read_text()}")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START)
            self._process = None

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "service.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                return True
        except OSError:
            return False


class Alertmanager(_Service):
    """An Alertmanager that notifies a witness, at once and of each alert for itself."""

    def __init__(self, folder: Path, witness: Witness) -> None:
        super().__init__(folder)
        self._config = folder / "alertmanager.yml"
        self._config.write_text(
            f"""\
route:
  receiver: witness
  group_by: ['...']
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: witness
    webhook_configs: [{{url: "{witness.url}/notified", send_resolved: true}}]
"""
        )

    def command(self) -> list[str]:
        return [
            program("prometheus-alertmanager"),
            f"--config.file={self._config}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that it has."""
        found: list[dict[str, Any]] = ask(f"{self.url}/api/v2/alerts")
        return found


class Prometheus(_Service):
    """A Prometheus that scrapes an auditor each second, with the project's rules."""

    def __init__(self, folder: Path, target: str, rules: Path) -> None:
        super().__init__(folder)
        self._config = folder / "prometheus.yml"
        self._config.write_text(
            f"""\
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: auditor
    static_configs: [{{targets: ["{target}"]}}]
"""
        )

    def command(self) -> list[str]:
        return [
            program("prometheus"),
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]

    def query(self, expression: str, at: float | None = None) -> list[tuple[dict[str, str], float]]:
        """What an expression gives now, or at a time: labels and value."""
        asked = {"query": expression} | ({} if at is None else {"time": str(at)})
        answer = ask(f"{self.url}/api/v1/query?{urllib.parse.urlencode(asked)}")
        assert answer["status"] == "success", answer
        result = answer["data"]["result"]
        if answer["data"]["resultType"] == "scalar":
            return [({}, float(result[1]))]
        return [(one["metric"], float(one["value"][1])) for one in result]


def _environment() -> dict[str, str]:
    """Without a proxy: they speak to this machine only."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
