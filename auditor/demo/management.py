"""The few calls of RabbitMQ's management API that the demo needs."""

from __future__ import annotations

import base64
import json as jsonlib
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from auditor.errors import BrokerError

_TIMEOUT = 20.0  # seconds for one call: deleting a vhost with many queues takes a few
_ANSWER = 2_000  # bytes of a refusal that are worth showing


class Management:
    """A broker's management API, as one user. Every call raises BrokerError when it is refused or not answered."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._user = user
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}

    def get(self, *path: str) -> Any:
        """Read a resource; the parts of its path are quoted here."""
        return self._call("GET", path)

    def put(self, *path: str, json: dict[str, Any]) -> None:
        """Make or change a resource."""
        self._call("PUT", path, json)

    def post(self, *path: str, json: dict[str, Any]) -> Any:
        """Post to a resource and return its answer."""
        return self._call("POST", path, json)

    def delete(self, *path: str) -> None:
        """Delete a resource; that it is not there is fine."""
        self._call("DELETE", path, missing_ok=True)

    def _call(
        self, method: str, path: tuple[str, ...], json: dict[str, Any] | None = None, *, missing_ok: bool = False
    ) -> Any:
        where = "/".join([self.url, "api", *(urllib.parse.quote(part, safe="") for part in path)])
        data = None if json is None else jsonlib.dumps(json).encode()
        request = urllib.request.Request(where, data=data, method=method, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404 and missing_ok:
                return None
            raise self._refusal(method, where, error) from error
        except (OSError, ValueError) as error:
            raise BrokerError(
                "could not ask the broker's management API",
                on=f"{method} {where}",
                why=str(getattr(error, "reason", error)),
                hint="Is the management plugin on (rabbitmq-plugins enable rabbitmq_management), and the URL right?",
            ) from error
        return jsonlib.loads(content) if content else None

    def _refusal(self, method: str, where: str, error: urllib.error.HTTPError) -> BrokerError:
        answer = error.read(_ANSWER).decode(errors="replace").strip()
        hint = ""
        if error.code in (401, 403):
            hint = f"The demo needs a user with the administrator tag and the right password; it is {self._user!r} now."
        return BrokerError(
            "the broker's management API refused", on=f"{method} {where}", why=f"{error.code} {answer}", hint=hint
        )
