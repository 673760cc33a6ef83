"""Sending spans over OTLP. The transport is opentelemetry-exporter-otlp's: endpoint, headers, TLS, compression, timeout
and the standard variables are its business.

Its `export()` is not used: it tells no more than whether it worked, tries again by a plan of its own, and does not read
`partial_success`. So one request is sent by what stands below it, in both libraries not public but short, and what came
back is looked at here. The versions are pinned to the minor one for that reason.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.util.re import parse_env_headers

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
"""The semantic conventions that the attributes follow."""

Protocol = Literal["http/protobuf", "grpc"]

_AGAIN = frozenset({429, 502, 503, 504})  # OTLP 1.x, "Retryable Response Codes"
_MAX_TEXT = 1000  # characters of a refusal
_RETRY_INFO = "google.rpc.retryinfo-bin"


@dataclass(frozen=True, slots=True)
class Taken:
    """The receiver has the spans, but for so many that it refused."""

    rejected: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The receiver does not want these spans, now or later."""

    why: str


@dataclass(frozen=True, slots=True)
class Later:
    """The receiver is away or busy; it may have said for how many seconds."""

    why: str
    after: float | None = None


Result = Taken | Refused | Later


class Sender(ABC):
    """Sends requests to one receiver, each once."""

    endpoint: str  # for people; nothing secret is in it

    @abstractmethod
    def send(self, request: ExportTraceServiceRequest, *, limit: float | None = None) -> Result:
        """Send a request and wait for the answer; no longer than the configured timeout, or `limit` in seconds."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections; a request under way ends soon."""


def sender(
    *,
    protocol: Protocol | Literal[""] = "",
    endpoint: str = "",
    headers: str = "",
    ca_file: Path | None = None,
) -> Sender:
    """Make a sender; what is empty is taken from the standard variables. ValueError: they cannot be used."""
    return _SENDERS[protocol or _protocol()](endpoint, dict(parse_env_headers(headers, liberal=True)), ca_file)


def request(spans: Sequence[Span], *, service: str, version: str) -> ExportTraceServiceRequest:
    """Put spans into a request."""
    made = ExportTraceServiceRequest()
    # in place: a message that is given to another one is copied, with all spans in it
    resource = made.resource_spans.add(schema_url=SCHEMA_URL)
    resource.resource.attributes.add(key="service.name", value=AnyValue(string_value=service))
    scope = resource.scope_spans.add(schema_url=SCHEMA_URL)
    scope.scope.name, scope.scope.version = "auditor", version
    scope.spans.extend(spans)
    return made


def _protocol() -> Protocol:
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        match os.environ.get(name, "").strip():
            case "":
                continue
            case "grpc":
                return "grpc"
            case "http/protobuf":
                return "http/protobuf"
            case other:
                raise ValueError(f"{name} is {other!r}; known are http/protobuf and grpc")
    return "http/protobuf"


def _file(variable: str) -> Path | None:
    """Return the file that a standard variable names, that for traces first."""
    names = (f"OTEL_EXPORTER_OTLP_TRACES_{variable}", f"OTEL_EXPORTER_OTLP_{variable}")
    return next((Path(os.environ[name]) for name in names if os.environ.get(name)), None)


class _Http(Sender):
    def __init__(self, endpoint: str, headers: dict[str, str], ca_file: Path | None) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter: Any = OTLPSpanExporter(
            endpoint=f"{endpoint}/v1/traces" if endpoint else None,
            headers=headers or None,
            certificate_file=None if ca_file is None else str(ca_file),
        )
        if ca_file is not None:
            self._trust_no_other(exporter)
        self._exporter = exporter
        self._client = exporter._client
        self.endpoint = _shown(exporter._endpoint)

    @staticmethod
    def _trust_no_other(exporter: Any) -> None:
        """Keep the authorities that the settings name: for requests, REQUESTS_CA_BUNDLE goes before its session's."""
        session = exporter._client._transport._session
        merge = session.merge_environment_settings
        session.merge_environment_settings = lambda *given: {**merge(*given), "verify": session.verify}

    def send(self, request: ExportTraceServiceRequest, *, limit: float | None = None) -> Result:
        body = self._client._compress(request.SerializeToString())
        timeout = self._client._timeout if limit is None else min(limit, self._client._timeout)
        answer = self._client._submit(body, timeout)
        if answer.status_code is None:
            # a URL that cannot be used, say, is no reason to give spans up: somebody will mend it
            return Later(_short(_cause(answer.error)))
        if 200 <= answer.status_code < 300:
            return _taken(answer.content)
        why = _short(f"HTTP {answer.status_code} {answer.reason or ''}: {_said(answer)}".rstrip(": "))
        if answer.status_code in _AGAIN:
            return Later(why, _retry_after(answer.headers().get("retry-after")))
        return Refused(why)

    def close(self) -> None:
        self._exporter.shutdown()


class _Grpc(Sender):
    def __init__(self, endpoint: str, headers: dict[str, str], ca_file: Path | None) -> None:
        # else it writes of each failed handshake to stderr, besides raising it
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        # not left to the library: it shows a client's certificate only where a variable names the authorities
        ca = ca_file or _file("CERTIFICATE")
        key, certificate = _file("CLIENT_KEY"), _file("CLIENT_CERTIFICATE")
        credentials = None
        if ca or key or certificate:
            credentials = grpc.ssl_channel_credentials(*(file and file.read_bytes() for file in (ca, key, certificate)))
        self._exporter: Any = OTLPSpanExporter(
            endpoint=endpoint or None,
            headers=headers or None,
            credentials=credentials,
            # the channel's own pause before it connects again grows to two minutes: ours is the one that counts
            channel_options=(("grpc.max_reconnect_backoff_ms", 2_000), ("grpc.min_reconnect_backoff_ms", 200)),  # type: ignore[arg-type]
        )
        self._error = grpc.RpcError
        self._again = {
            grpc.StatusCode.CANCELLED,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.ABORTED,
            grpc.StatusCode.OUT_OF_RANGE,
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DATA_LOSS,
        }
        self._exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
        self.endpoint = str(self._exporter._endpoint)

    def send(self, request: ExportTraceServiceRequest, *, limit: float | None = None) -> Result:
        timeout = self._exporter._timeout if limit is None else min(limit, self._exporter._timeout)
        client = self._exporter._client
        try:
            response = client.Export(request=request, metadata=self._exporter._headers, timeout=timeout)
        except self._error as error:
            return self._failed(error)
        except ValueError as error:  # the channel was closed under it
            return Later(_short(str(error)))
        return _partial(response)

    def _failed(self, error: Any) -> Result:
        why = _short(f"{error.code().name}: {error.details()}")
        delay = _retry_delay(dict(error.trailing_metadata() or ()).get(_RETRY_INFO))
        # exhausted is for later only where the receiver says when: else it is the request that is too large
        if error.code() in self._again or (error.code() is self._exhausted and delay is not None):
            return Later(why, delay)
        return Refused(why)

    def close(self) -> None:
        self._exporter.shutdown()


_SENDERS: dict[str, Callable[[str, dict[str, str], Path | None], Sender]] = {"http/protobuf": _Http, "grpc": _Grpc}


def _taken(content: Callable[[], bytes]) -> Result:
    """Read the answer to a request that was taken."""
    try:
        return _partial(ExportTraceServiceResponse.FromString(content()))
    except Exception:  # not a protobuf message: some receivers answer nothing, or in JSON
        return Taken()


def _partial(response: ExportTraceServiceResponse) -> Result:
    partial = response.partial_success
    return Taken(partial.rejected_spans, _short(partial.error_message))


def _cause(error: BaseException) -> str:
    """Return what the error says that all others around it came from; the library's name its own objects."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) if isinstance(error, OSError) else repr(error)


def _said(answer: Any) -> str:
    """Return what a receiver says in its refusal: a google.rpc.Status by the specification, text in practice."""
    from google.rpc.status_pb2 import Status

    content = bytes(answer.content())
    try:
        if answer.headers().get("content-type", "").startswith("application/x-protobuf"):
            return str(Status.FromString(content).message)
    except Exception:
        return ""
    return content.decode("utf-8", "replace")


def _retry_after(value: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date, which is told apart and measured by our own clock."""
    if value is None:
        return None
    try:
        return max(0.0, float(int(value)))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, at.replace(tzinfo=at.tzinfo or UTC).timestamp() - time.time())


def _retry_delay(value: bytes | None) -> float | None:
    from google.rpc.error_details_pb2 import RetryInfo

    if value is None:
        return None
    try:
        delay = RetryInfo.FromString(value).retry_delay
    except Exception:
        return None
    return float(delay.seconds + delay.nanos / 1e9)


def _short(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT]).strip()


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
