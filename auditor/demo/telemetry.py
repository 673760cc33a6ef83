"""What an instrumented system of the demo tells of its work, as most applications do: by opentelemetry-sdk.

A system that is not instrumented has `Telemetry` all the same, the one that tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_DELAY = 1000  # milliseconds that spans are gathered before they are sent

Headers = dict[str, Any]


class Telemetry:
    """Tells nothing, and puts nothing into messages."""

    @contextmanager
    def work(self, name: str) -> Iterator[None]:
        """Something that a system does by itself, and in which it publishes."""
        yield

    @contextmanager
    def sending(self, exchange: str, key: str) -> Iterator[Headers]:
        """A publish; gives the headers that the message is to have."""
        yield {}

    @contextmanager
    def processing(self, queue: str, order: str, headers: Mapping[str, Any]) -> Iterator[None]:
        """The work on a message that was received."""
        yield

    def close(self) -> None:
        """Send what is left."""


class Instrumented(Telemetry):
    """Tells of publishes and of the work on messages, and hands its context on in their headers.

    A message that brings no context is worked in that of its order, which is kept with the order: how an application
    goes on with a story of days when it wants one trace of it.
    """

    def __init__(self, system: str, endpoint: str) -> None:
        """Tell it to an OTLP receiver, by HTTP, given its base URL."""
        self._provider = TracerProvider(resource=Resource.create({"service.name": system}), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{endpoint}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=_DELAY))
        self._tracer = self._provider.get_tracer("auditor.demo")
        self._propagator = TraceContextTextMapPropagator()
        self._contexts: dict[str, Context] = {}  # order -> the context of the first that was heard of it

    @contextmanager
    def work(self, name: str) -> Iterator[None]:
        """A span of its own, at the root of a trace."""
        with self._tracer.start_as_current_span(name, kind=SpanKind.INTERNAL):
            yield

    @contextmanager
    def sending(self, exchange: str, key: str) -> Iterator[Headers]:
        """A span `send EXCHANGE:KEY`; the message gets its context."""
        with self._tracer.start_as_current_span(f"send {exchange}:{key}", kind=SpanKind.PRODUCER):
            headers: Headers = {}
            self._propagator.inject(headers)
            yield headers

    @contextmanager
    def processing(self, queue: str, order: str, headers: Mapping[str, Any]) -> Iterator[None]:
        """A span `process QUEUE`, as a child of the message's context, or else of the order's."""
        context = self._propagator.extract(headers) if "traceparent" in headers else self._contexts.get(order)
        with self._tracer.start_as_current_span(f"process {queue}", context=context, kind=SpanKind.CONSUMER) as span:
            self._contexts.setdefault(order, trace.set_span_in_context(span))
            yield

    def close(self) -> None:
        """Send what is left, for as long as the exporter's timeout."""
        self._provider.shutdown()
