"""The few calls of RabbitMQ's management API that the demo needs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from auditor.tap import management


class Management:
    """A broker's management API, as one user. Every call raises BrokerError when it is refused or not answered."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._api = management.Management(url=self.url, user=user, password=password)

    def get(self, *path: str) -> Any:
        """Read a resource; the parts of its path are quoted here."""
        return self._api.call("GET", *path)

    def put(self, *path: str, json: dict[str, Any]) -> None:
        """Make or change a resource."""
        self._api.call("PUT", *path, body=json)

    def post(self, *path: str, json: dict[str, Any]) -> Any:
        """Post to a resource and return its answer."""
        return self._api.call("POST", *path, body=json)

    def delete(self, *path: str) -> None:
        """Delete a resource; that it is not there is fine."""
        with suppress(management.Missing):
            self._api.call("DELETE", *path)
