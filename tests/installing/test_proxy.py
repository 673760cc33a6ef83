"""The proxy's configuration on a real nginx: who is let in, who is refused, and that both are logged."""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PROXY = Path(__file__).parents[2] / "config" / "proxy"
INSIDE, OUTSIDE = "127.0.0.1", "127.0.0.2"
PASSWORDS = {"jane": "support's", "joe": "viewer's", "jim": "nobody's"}
JAEGER, PAGES = "jaeger.internal", "auditor.internal"


class Proxy(NamedTuple):
    port: int
    authority: ssl.SSLContext
    log: Path

    def ask(
        self, host: str, path: str, user: str | None = None, password: str | None = None, *, address: str = INSIDE
    ) -> tuple[int, str]:
        """Ask for a page; its status and body."""
        headers = {"Host": host, "X-Forwarded-User": "root", "X-Forwarded-Role": "admin"}
        if user is not None:
            word = PASSWORDS.get(user, "") if password is None else password
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{word}".encode()).decode()
        connection = http.client.HTTPSConnection(
            INSIDE, self.port, timeout=10, context=self.authority, source_address=(address, 0)
        )
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def logged(self, path: str) -> dict[str, Any]:
        """What the access log has of it; it is written once the answer is sent."""
        end = time.monotonic() + 10
        while True:
            for line in self.log.read_text().splitlines():
                entry: dict[str, Any] = json.loads(line)
                if entry["request"].split()[1] == path:
                    return entry
            assert time.monotonic() < end, f"{path} is not in the log"
            time.sleep(0.05)


@pytest.fixture
def path() -> str:
    """A page that nobody else asks for."""
    return f"/trace/{secrets.token_hex(8)}"


class _Backend(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    def do_GET(self) -> None:
        name = self.server.name  # type: ignore[attr-defined]
        body = json.dumps({"backend": name, "path": self.path, **dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def backend(name: str) -> ThreadingHTTPServer:
    server = ThreadingHTTPServer((INSIDE, 0), _Backend)
    server.name = name  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    assert nginx, "nginx is missing; on Debian, as root: apt-get install nginx-light"
    folder = tmp_path_factory.mktemp("proxy")
    for file in PROXY.iterdir():
        shutil.copy(file, folder)
    backends = [backend("jaeger"), backend("pages")]
    with socket.socket() as free:
        free.bind((INSIDE, 0))
        port = free.getsockname()[1]
    log = folder / "access.log"
    text = (folder / "nginx.conf").read_text()
    for ours, theirs in {
        "listen 8443": f"listen {INSIDE}:{port}",
        "jaeger:16686": f"{INSIDE}:{backends[0].server_port}",
        "auditor-web:8001": f"{INSIDE}:{backends[1].server_port}",
        "/dev/stdout": str(log),
        "/tmp/nginx": f"{folder}/nginx",
    }.items():
        assert ours in text
        text = text.replace(ours, theirs)
    (folder / "nginx.conf").write_text(text)
    (folder / "networks.conf").write_text(f"allow {INSIDE};\ndeny all;\n")
    words = [
        f"{user}:" + openssl("passwd", "-apr1", "-stdin", input=password).strip()
        for user, password in PASSWORDS.items()
    ]
    (folder / "users.htpasswd").write_text("\n".join(words) + "\n")
    openssl(
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=proxy"),
        *("-addext", f"subjectAltName=IP:{INSIDE}", "-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.crt"),
    )
    # its worker would not be let into the folder of the tests
    user = "user root;" if os.geteuid() == 0 else ""
    command = [nginx, "-p", f"{folder}/", "-c", f"{folder}/nginx.conf", "-g", f"daemon off; {user}"]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 20
        while True:
            assert process.poll() is None, "nginx has ended"
            try:
                socket.create_connection((INSIDE, port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end, "nginx does not listen"
                time.sleep(0.05)
        yield Proxy(port, ssl.create_default_context(cafile=f"{folder}/tls.crt"), log)
    finally:
        process.terminate()
        process.wait(10)
        for server in backends:
            server.shutdown()
            server.server_close()


def openssl(*arguments: str, input: str = "") -> str:
    done = subprocess.run(["openssl", *arguments], input=input, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout


def test_support_sees_traces_and_is_logged(proxy: Proxy, path: str) -> None:
    status, body = proxy.ask(JAEGER, path, "jane")
    came = json.loads(body)
    assert (status, came["backend"], came["path"]) == (200, "jaeger", path)
    # who it is says the proxy, and the password stays here
    assert (came["X-Forwarded-User"], came["X-Forwarded-Role"]) == ("jane", "support")
    assert "Authorization" not in came
    entry = proxy.logged(path)
    seen = {name: entry[name] for name in ("address", "user", "role", "host", "request", "status")}
    assert seen == {
        "address": INSIDE,
        "user": "jane",
        "role": "support",
        "host": JAEGER,
        "request": f"GET {path} HTTP/1.1",
        "status": 200,
    }


@pytest.mark.parametrize(
    ("host", "user", "password", "address", "status"),
    [
        pytest.param(JAEGER, None, None, INSIDE, 401, id="without login"),
        pytest.param(JAEGER, "jane", "guessed", INSIDE, 401, id="wrong password"),
        pytest.param(JAEGER, "joe", "guessed", INSIDE, 401, id="wrong role, and no word of it without the password"),
        pytest.param(JAEGER, "nobody", "guessed", INSIDE, 401, id="unknown user"),
        pytest.param(JAEGER, "joe", None, INSIDE, 403, id="wrong role"),
        pytest.param(JAEGER, "jim", None, INSIDE, 403, id="no role"),
        pytest.param(JAEGER, "jane", None, OUTSIDE, 403, id="outside address"),
        pytest.param(PAGES, None, None, INSIDE, 401, id="pages without login"),
        pytest.param(PAGES, "jim", None, INSIDE, 403, id="pages without a role"),
        pytest.param(PAGES, "jane", None, OUTSIDE, 403, id="pages from outside"),
    ],
)
def test_others_are_refused_and_logged(
    proxy: Proxy, path: str, host: str, user: str | None, password: str | None, address: str, status: int
) -> None:
    got, body = proxy.ask(host, path, user, password, address=address)
    assert got == status
    assert "backend" not in body
    entry = proxy.logged(path)
    assert (entry["status"], entry["address"], entry["host"], entry["user"]) == (status, address, host, user or "")


@pytest.mark.parametrize("user", ["jane", "joe"])
def test_the_pages_are_for_viewers_too(proxy: Proxy, path: str, user: str) -> None:
    status, body = proxy.ask(PAGES, path, user)
    assert (status, json.loads(body)["backend"]) == (200, "pages")
