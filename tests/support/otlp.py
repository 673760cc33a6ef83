"""Receivers of spans that do as a test tells them: over HTTP and gRPC, on the loopback."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from auditor.demo.receiver import Span, read


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a receiver does with a request; by default it takes it."""

    status: int = 200  # of HTTP; for gRPC see _CODES
    says: str = ""  # the text of a refusal
    retry_after: int | None = None  # seconds
    rejected: int = 0  # spans that it takes not, of those that it takes
    hangs: float = 0.0  # seconds before it answers anything

    @property
    def takes(self) -> bool:
        return self.status == 200


TAKE = Answer()

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    502: grpc.StatusCode.ABORTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


@dataclass
class Inbox:
    """What a receiver was sent; shared by one that goes away and the one that comes back."""

    requests: list[ExportTraceServiceRequest] = field(default_factory=list)  # those that it took
    headers: list[dict[str, str]] = field(default_factory=list)  # of each request
    tries: list[float] = field(default_factory=list)  # when each request came
    next: deque[Answer] = field(default_factory=deque)  # to the next requests, and then
    always: Answer = TAKE
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spans(self) -> list[Span]:
        """All spans that were taken."""
        with self.lock:
            return [span for request in self.requests for span in read(request)]

    @property
    def messages(self) -> list[SpanMessage]:
        """The same, with all that OTLP has."""
        with self.lock:
            return [
                span
                for request in self.requests
                for resource in request.resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]

    def answer(self, request: ExportTraceServiceRequest, headers: dict[str, str]) -> Answer:
        with self.lock:
            self.tries.append(time.monotonic())
            self.headers.append(headers)
            answer = self.next.popleft() if self.next else self.always
        if answer.hangs:
            time.sleep(answer.hangs)
        if answer.takes:
            with self.lock:
                self.requests.append(request)
        return answer


class Receiver(Protocol):
    """One that listens."""

    inbox: Inbox
    protocol: str
    endpoint: str
    port: int


@dataclass
class _Receiver:
    inbox: Inbox
    protocol: str
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def http_receiver(inbox: Inbox | None = None, port: int = 0) -> Iterator[_Receiver]:
    """Listen for OTLP over HTTP."""
    box = inbox or Inbox()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {key.lower(): value for key, value in self.headers.items()}
            answer = box.answer(ExportTraceServiceRequest.FromString(body), headers)
            content = _response(answer).SerializeToString() if answer.takes else answer.says.encode()
            self.send_response(answer.status)
            self.send_header("content-length", str(len(content)))
            self.send_header("content-type", "application/x-protobuf" if answer.takes else "text/plain")
            if answer.retry_after is not None:
                self.send_header("retry-after", str(answer.retry_after))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(ConnectionError):  # whoever asked has not waited for the answer
                super().handle()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Server(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield _Receiver(box, "http/protobuf", server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def grpc_receiver(
    inbox: Inbox | None = None, port: int = 0, credentials: grpc.ServerCredentials | None = None
) -> Iterator[_Receiver]:
    """Listen for OTLP over gRPC, with credentials over TLS."""
    box = inbox or Inbox()

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
            answer = box.answer(request, dict(context.invocation_metadata()))
            if not answer.takes:
                if answer.retry_after is not None:
                    info = RetryInfo(retry_delay=Duration(seconds=answer.retry_after))
                    context.set_trailing_metadata((("google.rpc.retryinfo-bin", info.SerializeToString()),))
                context.abort(_CODES[answer.status], answer.says)
            return _response(answer)

    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    where = f"127.0.0.1:{port}"
    bound = server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
    assert bound
    server.start()
    try:
        yield _Receiver(box, "grpc", bound)
    finally:
        server.stop(None).wait()


def _response(answer: Answer) -> ExportTraceServiceResponse:
    if not answer.rejected:
        return ExportTraceServiceResponse()
    partial = ExportTracePartialSuccess(rejected_spans=answer.rejected, error_message=answer.says)
    return ExportTraceServiceResponse(partial_success=partial)


RECEIVERS: dict[str, Callable[..., Any]] = {"http/protobuf": http_receiver, "grpc": grpc_receiver}
