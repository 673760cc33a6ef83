"""The few questions that only the broker's management API answers: is the firehose on, and turn it on.

Blocking, on the standard library's HTTP client: it is asked a few times an hour. Call it from a thread.
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
from typing import Any
from urllib.parse import quote

from auditor.errors import BrokerError

_TIMEOUT = 20.0  # seconds; deleting a vhost with many queues takes a few
_MAX_REFUSAL = 500  # bytes of a refusal that are worth showing
_MAX_ANSWER = 16 * 1024 * 1024  # bytes; a broker with very many vhosts lists them in a few hundred kilobytes


class Missing(BrokerError):
    """The management API knows no such thing."""


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

    def server_time(self) -> float:
        """Return the broker's clock, seconds since the epoch, to the second."""
        _, headers = self._ask("GET", ("vhosts",), None)
        said = headers.get("Date")
        if said is None:
            raise BrokerError("The management API does not tell its time", on=self.url)
        return parsedate_to_datetime(said).timestamp()

    def call(self, method: str, *path: str, body: dict[str, Any] | None = None, expected: type[Any] = object) -> Any:
        """Make one call and return its answer; the parts of the path are quoted here.

        BrokerError when it is refused (Missing, when there is no such thing) or not answered by what was expected.
        """
        answer = self._ask(method, path, body)[0]
        if not isinstance(answer, expected):
            raise BrokerError(
                "This is no management API",
                on=self.url,
                why=f"{method} /{'/'.join(path)} was answered by {type(answer).__name__}, not {expected.__name__}",
                hint="Check broker.management.url.",
            )
        return answer

    def _ask(self, method: str, path: Sequence[str], body: dict[str, Any] | None) -> tuple[Any, Message]:
        credentials = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        try:
            request = urllib.request.Request(
                "/".join([self.url.rstrip("/"), "api", *(quote(part, safe="") for part in path)]),
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
