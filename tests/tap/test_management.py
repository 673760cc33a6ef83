"""The management API's client against a fake of that API; `tests/broker` has it against the real one."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

from auditor.errors import BrokerError
from auditor.tap.management import Management

PASSWORD = "pass:wörd-0815"


class FakeManagementApi(HTTPServer):
    """A fake of the two resources that are asked for; as in RabbitMQ, a PUT forgets what it is not told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.vhosts: dict[str, dict[str, Any]] = {}
        self.status = 200  # other than 200: what every call is answered with
        self.body: bytes | None = None  # what every call is answered with
        self.puts: list[dict[str, Any]] = []
        self.authorizations: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeManagementApi

    def do_GET(self) -> None:
        fake = self.server
        if self.path == "/api/vhosts":
            self._answer(200, list(fake.vhosts.values()))
        elif (name := self._vhost()) in fake.vhosts:
            self._answer(200, fake.vhosts[name])
        else:
            self._answer(404, {"error": "Object Not Found", "reason": "Not Found"})

    def do_PUT(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.puts.append(given)
        tags = [tag for tag in given.get("tags", "").split(",") if tag]
        self.server.vhosts[self._vhost()] = vhost(
            self._vhost(), given["tracing"], given.get("description", ""), tags, given.get("default_queue_type")
        )
        self._answer(204, None)

    def _vhost(self) -> str:
        return unquote(self.path.removeprefix("/api/vhosts/"))

    def _answer(self, status: int, value: Any) -> None:
        self.server.authorizations.add(self.headers["Authorization"])
        if self.server.status != 200:
            status, value = self.server.status, {"error": "not_authorised", "reason": "Access refused"}
        content = self.server.body if self.server.body is not None else json.dumps(value).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status != 204:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def vhost(name: str, tracing: bool, description: str = "", tags: Any = (), queue_type: Any = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"description": description, "tags": list(tags)}
    if queue_type is not None:
        metadata["default_queue_type"] = queue_type
    return {
        "name": name,
        "tracing": tracing,
        **metadata,
        "metadata": metadata,
        "cluster_state": {"rabbit@h": "running"},
    }


@pytest.fixture
def fake() -> Iterator[FakeManagementApi]:
    with FakeManagementApi() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="fake management API")
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def client(fake: FakeManagementApi, user: str = "auditor") -> Management:
    return Management(url=fake.url + "/", user=user, password=PASSWORD)


def test_it_tells_whether_the_firehose_is_on(fake: FakeManagementApi) -> None:
    fake.vhosts = {"/": vhost("/", True), "orders": vhost("orders", False)}
    assert client(fake).firehose_is_on("/") is True
    assert client(fake).firehose_is_on("orders") is False
    assert client(fake).firehose_is_on("of somebody else") is None
    expected = base64.b64encode(f"auditor:{PASSWORD}".encode()).decode()
    assert fake.authorizations == {f"Basic {expected}"}


@pytest.mark.parametrize("name", ["/", "orders", "a/b c%d", "ü"])
@pytest.mark.parametrize(
    ("description", "tags", "queue_type"),
    [("", [], None), ("Orders of the shop", ["production", "eu"], "quorum"), ("", ["one"], "classic")],
)
def test_turning_it_on_keeps_what_the_vhost_says_of_itself(
    fake: FakeManagementApi, name: str, description: str, tags: list[str], queue_type: str | None
) -> None:
    fake.vhosts = {name: vhost(name, False, description, tags, queue_type)}
    client(fake).turn_firehose_on(name)
    assert fake.vhosts == {name: vhost(name, True, description, tags, queue_type)}


def test_a_queue_type_that_was_never_chosen_is_not_chosen_now(fake: FakeManagementApi) -> None:
    fake.vhosts = {"/": vhost("/", False, queue_type="undefined")}
    client(fake).turn_firehose_on("/")
    assert fake.puts == [{"tracing": True}]


def letter_of(management: Management, name: str = "/") -> str:
    with pytest.raises(BrokerError) as caught:
        management.turn_firehose_on(name)
    letter = str(caught.value)
    secret = base64.b64encode(f"{management.user}:{management.password}".encode()).decode()
    for told in (letter, repr(caught.value), repr(management)):
        assert PASSWORD not in told
        assert secret not in told
    return letter


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "broker.management.user"), (403, "set_user_tags"), (404, "vhost does not exist"), (500, "broker's log")],
)
def test_a_refusal_says_what_to_do(fake: FakeManagementApi, status: int, hint: str) -> None:
    fake.status = status
    letter = letter_of(client(fake))
    assert f"HTTP {status}" in letter
    assert hint in letter
    assert fake.url in letter


def test_an_unknown_vhost_is_not_made(fake: FakeManagementApi) -> None:
    assert "vhost does not exist" in letter_of(client(fake), "misspelt")
    assert fake.vhosts == {}


@pytest.mark.parametrize("body", [b"<html>welcome to nginx</html>", b"", b"17", b'"text"', b"\xff", b"null"])
def test_an_answer_of_something_else_is_no_management_api(fake: FakeManagementApi, body: bytes) -> None:
    fake.body = body
    assert "management API" in letter_of(client(fake))
    with pytest.raises(BrokerError, match="management API"):
        client(fake).firehose_is_on("/")


def test_nobody_there(fake: FakeManagementApi) -> None:
    url = fake.url
    fake.server_close()
    assert url in letter_of(Management(url=url, user="auditor", password=PASSWORD))


@pytest.mark.parametrize("url", ["127.0.0.1:15672", "not a url", "http://", "ftp://127.0.0.1/"])
def test_a_url_that_is_none_is_an_error_of_ours(url: str) -> None:
    letter_of(Management(url=url, user="auditor", password=PASSWORD))
