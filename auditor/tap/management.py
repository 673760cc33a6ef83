"""The few questions that only the broker's management API answers: is the firehose on, and what was counted.

Blocking, on the standard library's HTTP client: it is asked a few times a minute. Call it from a thread.
"""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.parse import quote

from auditor.errors import BrokerError
from auditor.tap.topology import TRACE_EXCHANGE

_TIMEOUT = 20.0  # seconds; deleting a vhost with many queues takes a few
_MAX_REFUSAL = 500  # bytes of a refusal that are worth showing
_MAX_ANSWER = 16 * 1024 * 1024  # bytes; a broker with very many vhosts lists them in a few hundred kilobytes


class Missing(BrokerError):
    """The management API knows no such thing."""


class Counters(NamedTuple):
    """The broker's counters of a vhost, as they were last collected, since its nodes were started."""

    published: int  # publishes to any exchange
    canaries: int  # of these, to the canaries' exchange
    nodes: tuple[str, ...]  # that counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Management:
    """The management API of one broker node."""

    url: str  # "http://127.0.0.1:15672"
    user: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None = None

    def firehose_is_on(self, vhost: str) -> bool | None:
        """Tell whether the answering node traces the vhost; None when this user does not see the vhost.

        Any management tag will do.
        """
        for entry in self.call("GET", "vhosts", expected=list):
            if isinstance(entry, dict) and entry.get("name") == vhost:
                return bool(entry.get("tracing"))
        return None

    def turn_firehose_on(self, vhost: str) -> None:
        """Turn the firehose on, on the answering node; needs the tag `administrator`.

        The call that the documentation shows wipes description, tags and default queue type, so what is there is sent
        back.
        """
        present = self.call("GET", "vhosts", vhost, expected=dict)
        metadata = {**present.get("metadata", {}), **present}
        body: dict[str, Any] = {"tracing": True}
        if metadata.get("description"):
            body["description"] = metadata["description"]
        if metadata.get("tags"):
            body["tags"] = ",".join(metadata["tags"])
        if metadata.get("default_queue_type") not in (None, "", "undefined"):
            body["default_queue_type"] = metadata["default_queue_type"]
        self.call("PUT", "vhosts", vhost, body=body)

    def counters(self, vhost: str, exchange: str) -> Counters | None:
        """Return what the broker counted in the vhost; `exchange` is that of the canaries.

        None when there is nothing to go by now: a node is down, the counters were collected between two questions, or
        not at all yet. Needs the tag `monitoring` and some permission in the vhost.
        """
        before = self._published(vhost)
        stats = self.call("GET", "exchanges", vhost, exchange, expected=dict).get("message_stats") or {}
        if before is None or "publish_in" not in stats or self._published(vhost) != before:
            return None
        return Counters(before[0], int(stats["publish_in"]), before[1])

    def uses_transactions(self, vhost: str) -> bool:
        """Tell whether some channel of the vhost uses transactions; needs what `counters` needs."""
        tags = self.call("GET", "whoami", expected=dict).get("tags", ())
        tags = tags.split(",") if isinstance(tags, str) else tags
        if not {"monitoring", "administrator"} & set(tags):
            raise BrokerError(
                "The management API tells this user of its own channels only",
                on=f"{self.url} as {self.user}",
                hint=f"rabbitmqctl set_user_tags {self.user} monitoring",
            )
        channels = self.call("GET", "vhosts", vhost, "channels", columns="transactional", expected=list)
        return any(isinstance(channel, dict) and channel.get("transactional") is True for channel in channels)

    def _published(self, vhost: str) -> tuple[int, tuple[str, ...]] | None:
        """Return the counter of publishes and the nodes, if all of them are up."""
        columns = "name,message_stats.publish,cluster_state"
        for entry in self.call("GET", "vhosts", columns=columns, expected=list):
            if isinstance(entry, dict) and entry.get("name") == vhost:
                state = entry.get("cluster_state") or {}
                count = (entry.get("message_stats") or {}).get("publish")
                up = all(word == "running" for word in state.values())
                return (int(count), tuple(sorted(state))) if up and count is not None else None
        return None

    def node(self) -> str:
        """Return the name of the answering node, such as "rabbit@host"."""
        return str(self.call("GET", "overview", expected=dict).get("node", self.url))

    def binding_keys(self, vhost: str, queue: str) -> set[str]:
        """Return the keys by which a queue is bound to the trace exchange; Missing when there is no such queue."""
        bindings = self.call("GET", "queues", vhost, queue, "bindings", expected=list)
        return {one["routing_key"] for one in bindings if isinstance(one, dict) and one.get("source") == TRACE_EXCHANGE}

    def server_time(self) -> float:
        """Return the broker's clock, seconds since the epoch, to the second."""
        _, headers = self._ask("GET", ("vhosts",), None)
        said = headers.get("Date")
        if said is None:
            raise BrokerError("The management API does not tell its time", on=self.url)
        return parsedate_to_datetime(said).timestamp()

    def call(
        self,
        method: str,
        *path: str,
        columns: str = "",
        body: dict[str, Any] | None = None,
        expected: type[Any] = object,
    ) -> Any:
        """Make one call and return its answer; the parts of the path are quoted here.

        `columns` are those wanted of a list; some versions give all of them all the same.

        BrokerError when it is refused (Missing, when there is no such thing) or not answered by what was expected.
        """
        answer = self._ask(method, path, body, columns)[0]
        if not isinstance(answer, expected):
            raise BrokerError(
                "This is no management API",
                on=self.url,
                why=f"{method} /{'/'.join(path)} was answered by {type(answer).__name__}, not {expected.__name__}",
                hint="Check broker.management.url.",
            )
        return answer

    def _ask(
        self, method: str, path: Sequence[str], body: dict[str, Any] | None, columns: str = ""
    ) -> tuple[Any, Message]:
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        try:
            request = urllib.request.Request(
                "/".join([self.url.rstrip("/"), "api", *(quote(part, safe="") for part in path)])
                + (f"?columns={columns}" if columns else ""),
                method=method,
                data=None if body is None else json.dumps(body).encode(),
                headers={"Authorization": f"Basic {credentials}", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=_TIMEOUT, context=self.tls) as answer:
                content = answer.read(_MAX_ANSWER)
            return (json.loads(content) if content else None), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(_MAX_REFUSAL).decode(errors="replace").strip()
            raise (Missing if error.code == 404 else BrokerError)(
                f"The management API refused {method} /{'/'.join(path)}",
                on=f"{self.url} as {self.user}",
                why=f"HTTP {error.code} {said or error.reason}",
                hint=_HINTS.get(error.code, "See the broker's log."),
            ) from error
        except (OSError, ValueError, HTTPException) as error:
            raise BrokerError(
                "Could not reach the management API",
                on=self.url,
                why=str(error),
                hint="Check broker.management.url; the plugin rabbitmq_management must be enabled.",
            ) from error


_HINTS = {
    401: "Check broker.management.user and its password; the user needs a tag (management, monitoring, administrator).",
    403: "Turning the firehose on needs the tag administrator: rabbitmqctl set_user_tags USER administrator.",
    404: "The vhost does not exist, or this is not a management API.",
}
