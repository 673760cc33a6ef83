"""TLS to broker, collector, Alertmanager by a private authority: right, wrong, expired, missing; errors say which."""

from __future__ import annotations

import asyncio
import logging
import shlex
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from aiohttp import web
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from auditor import tls
from auditor.core.alerts import Alert, labels
from auditor.demo.broker import PrivateBroker, program
from auditor.errors import BrokerError, SettingsError
from auditor.tap.connection import Endpoint, connect
from auditor.windows.alerts import Recipient, Teller, alertmanager
from auditor.windows.otlp import Later, Protocol, Taken, request, sender
from tests.support.authority import Authority, Certificate
from tests.support.otlp import grpc_receiver
from tests.windows.test_alerts import until

HOST = "localhost"
LOGGER = "auditor.windows.alerts"


class Files:
    """Everything that is right or wrong with certificates."""

    def __init__(self, folder: Path) -> None:
        """Make them."""
        self.ours, self.theirs = Authority(folder, "ours"), Authority(folder, "theirs")
        self.server = self.ours.sign("server")
        self.expired = self.ours.sign("expired", days=-1)
        self.elsewhere = self.ours.sign("elsewhere", host="elsewhere.internal")
        self.client = self.ours.sign("client")
        self.stranger = self.theirs.sign("stranger")


class Case(NamedTuple):
    """How the two come together, and words of the error; none: it works."""

    server: str = "server"
    trusted: str = "ours"
    client: str | None = "client"
    says: tuple[str, ...] = ()


# What the peer's TLS library makes of our certificate it tells in an alert, and not always before it closes.
REFUSED = (
    "certificate required",
    "unknown ca",
    "reset by peer",
    "handshake failure",
    "broken pipe",
    "lost",
    "eof",
    "closed",
)
CASES = [
    pytest.param(Case(), id="right"),
    pytest.param(Case(trusted="theirs", says=("unable to get local issuer", "self-signed")), id="wrong authority"),
    pytest.param(Case(server="expired", says=("certificate has expired",)), id="expired"),
    pytest.param(
        Case(server="elsewhere", says=("hostname mismatch", "doesn't match", "hostname verification")),
        id="another host's",
    ),
    pytest.param(Case(client=None, says=REFUSED), id="ours is missing"),
    pytest.param(Case(client="stranger", says=REFUSED), id="ours is wrong"),
    pytest.param(Case(client="expired", says=("certificate expired", *REFUSED)), id="ours has expired"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def of_client(files: Files, case: Case) -> tuple[Path, Path | None, Path | None]:
    """The files that the settings would name: authority, certificate, key."""
    authority: Authority = getattr(files, case.trusted)
    certificate: Certificate | None = getattr(files, case.client) if case.client else None
    return authority.ca, certificate and certificate.cert, certificate and certificate.key


def says(case: Case, text: str) -> bool:
    return any(words in text.lower() for words in case.says)


@asynccontextmanager
async def receiver(files: Files, case: Case) -> AsyncIterator[str]:
    """Something that takes posts over TLS from those who show a certificate; its URL."""

    async def take(_: web.Request) -> web.Response:
        return web.Response()

    certificate: Certificate = getattr(files, case.server)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files.ours.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate.cert, certificate.key)
    app = web.Application()
    app.add_routes([web.post("/{path:.*}", take)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield f"https://{HOST}:{runner.addresses[0][1]}"
    await runner.cleanup()


@asynccontextmanager
async def grpc_of(files: Files, case: Case) -> AsyncIterator[str]:
    """The same by gRPC."""
    certificate: Certificate = getattr(files, case.server)
    pair = (certificate.key.read_bytes(), certificate.cert.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], files.ours.ca.read_bytes(), require_client_auth=True)
    with grpc_receiver(credentials=credentials) as listening:
        yield f"https://{HOST}:{listening.port}"


@pytest.mark.parametrize("case", CASES)
async def test_alertmanager(files: Files, case: Case, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    firing = Alert(labels(alertname="A"), 1, None, 1, {"summary": "a", "description": "b"})
    async with receiver(files, case) as url:
        recipient = Recipient(url=alertmanager(url), tls=tls.context(*of_client(files, case)))
        teller = Teller(recipient, lambda: [firing])
        telling = asyncio.create_task(teller.run())
        await until(lambda: any(teller.results.values()))
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling
    if case.says:
        assert teller.results["failed"]
        assert says(case, caplog.text), caplog.text
    else:
        assert teller.results["taken"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_collector(files: Files, case: Case, protocol: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, cert, key = of_client(files, case)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(files.theirs.ca))  # the library's own way; the settings go before it
    if cert is not None:  # of the standard variables, as docs/tracing.md says
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", str(cert))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", str(key))
    async with receiver(files, case) if protocol == "http/protobuf" else grpc_of(files, case) as url:
        spans = sender(protocol=protocol, endpoint=url, ca_file=authority)
        sent = request([Span(name="one")], service="rabbitmq", version="1")
        result = await asyncio.to_thread(spans.send, sent, limit=5)
        spans.close()
    if case.says:
        assert isinstance(result, Later), "it is kept, until somebody mends the certificates"
        assert says(case, result.why), result.why
    else:
        assert result == Taken()


class TlsBroker(NamedTuple):
    """A broker that wants certificates of its clients, and the file in which it finds its own."""

    broker: PrivateBroker
    port: int
    shown: Certificate


@pytest.fixture(scope="module")
def tls_broker(
    test_environ: dict[str, str], files: Files, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TlsBroker]:
    wrapper = shlex.split(test_environ.get("AUDITOR_TEST_RABBITMQ_COMMAND", ""))
    if not wrapper and not program("rabbitmq-server"):
        pytest.skip("RabbitMQ is not installed here: the tests use a broker that was given, or a container")
    folder = tmp_path_factory.mktemp("broker")
    shown = Certificate(folder / "shown.pem", folder / "shown.key")
    _show(files.server, shown)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    advanced = f"""[{{rabbit, [
        {{ssl_listeners, [{{"127.0.0.1", {port}}}]}},
        {{ssl_options, [{{cacertfile, "{files.ours.ca}"}}, {{certfile, "{shown.cert}"}}, {{keyfile, "{shown.key}"}},
                        {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}]}}
    ]}}].
    """
    with PrivateBroker(wrapper, advanced=advanced) as broker:
        yield TlsBroker(broker, port, shown)


def _show(certificate: Certificate, at: Certificate) -> None:
    at.cert.write_bytes(certificate.cert.read_bytes())
    at.key.write_bytes(certificate.key.read_bytes())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", CASES)
async def test_broker(tls_broker: TlsBroker, files: Files, case: Case) -> None:
    broker = tls_broker.broker
    _show(getattr(files, case.server), tls_broker.shown)
    # what it has read before it keeps for two minutes
    await asyncio.to_thread(broker.ctl, "eval", "ssl:clear_pem_cache().")
    endpoint = Endpoint(
        host=HOST,
        port=tls_broker.port,
        vhost="/",
        user=broker.user,
        password=broker.password,
        tls=tls.context(*of_client(files, case)),
    )
    if case.says:
        with pytest.raises(BrokerError) as raised:
            await connect(endpoint, "a test")
        assert says(case, str(raised.value)), str(raised.value)
        assert f"amqps://{broker.user}@{HOST}:{tls_broker.port}" in str(raised.value)
        assert broker.password not in str(raised.value)
    else:
        connection = await connect(endpoint, "a test")
        await connection.close()


@pytest.mark.parametrize("missing", ["ca", "cert", "key"])
def test_a_file_that_is_missing_is_named(files: Files, missing: str, tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    with pytest.raises(SettingsError, match=r"absent\.pem|client\.pem"):
        tls.context(
            absent if missing == "ca" else files.ours.ca,
            absent if missing == "cert" else files.client.cert,
            absent if missing == "key" else files.client.key,
        )
