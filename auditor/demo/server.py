"""A broker that the demo and the tests may use as its administrator, whoever runs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote, urlsplit

import aiormq
import aiormq.exceptions

from auditor.demo.management import Management
from auditor.errors import BrokerError

Progress = Callable[[str], None]  # is told in a line what goes on

_LOGIN = 10.0  # seconds for one try to log in
_PAUSE = 0.25  # seconds between two tries


def silent(line: str) -> None:
    """Tell nobody."""


class Broker:
    """A broker, its administrator, and the few things that the tests ask of it.

    A context: entering starts it, or looks whether it answers; leaving ends what was started here and nothing else.
    """

    def __init__(self, origin: str) -> None:
        """`origin` says in words where the broker comes from."""
        self.origin = origin
        self.scheme = "amqp"
        self.host = ""
        self.port = 0
        self.user = ""
        self.password = ""
        self.management_url = ""  # "http://127.0.0.1:15672"; empty: there is none
        self.version = ""  # known once it has answered

    def start(self) -> None:
        """Make the broker ready for use; BrokerError when it cannot be used."""
        self.version = self.log_in()

    def close(self) -> None:
        """End what was started here."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def amqp_url(self) -> str:
        """Scheme, host and port, as the auditor's settings want it."""
        return f"{self.scheme}://{self.host}:{self.port}"

    def url(self, vhost: str = "/", user: str | None = None, password: str | None = None) -> str:
        """The URL by which a client logs in to a vhost, as the administrator or as another user."""
        name = quote(self.user if user is None else user, safe="")
        word = quote(self.password if password is None else password, safe="")
        return f"{self.scheme}://{name}:{word}@{self.host}:{self.port}/{quote(vhost, safe='')}"

    @property
    def management(self) -> Management:
        """The management API, as the administrator."""
        if not self.management_url:
            raise BrokerError(
                "the broker's management API is needed",
                on=self.origin,
                why="its URL was not given",
                hint="Set AUDITOR_TEST_MANAGEMENT_URL, for example to http://127.0.0.1:15672.",
            )
        return Management(self.management_url, self.user, self.password)

    def add_vhost(self, name: str) -> None:
        """Make a vhost on which the administrator may do everything."""
        self.management.put("vhosts", name, json={})
        self._permit(name, self.user, ".*", ".*", ".*")

    def delete_vhost(self, name: str) -> None:
        """Delete a vhost with all that is in it; fine when it is not there."""
        self.management.delete("vhosts", name)

    def add_user(
        self,
        name: str,
        password: str,
        *,
        vhost: str,
        configure: str = ".*",
        write: str = ".*",
        read: str = ".*",
        tags: Iterable[str] = (),
    ) -> None:
        """Make a user, or change it, with permissions on one vhost (each a regular expression of names)."""
        self.management.put("users", name, json={"password": password, "tags": ",".join(tags)})
        self._permit(vhost, name, configure, write, read)

    def delete_user(self, name: str) -> None:
        """Delete a user; fine when it is not there."""
        self.management.delete("users", name)

    def _permit(self, vhost: str, user: str, configure: str, write: str, read: str) -> None:
        self.management.put("permissions", vhost, user, json={"configure": configure, "write": write, "read": read})

    def log_in(self) -> str:
        """Log in over AMQP, as any client does, and return the broker's version; BrokerError when that fails."""
        # In a thread of its own, because an event loop may be running in this one.
        with ThreadPoolExecutor(1) as thread:
            try:
                return thread.submit(asyncio.run, _log_in(self.url())).result()
            except (OSError, TimeoutError, aiormq.exceptions.AMQPError) as error:
                raise BrokerError(
                    "could not log in to the broker",
                    on=f"{self.amqp_url}, {self.origin}",
                    why=f"{type(error).__name__} {error}".strip(),
                ) from error

    def _wait(self, seconds: float, check: Callable[[], None]) -> None:
        """Wait until one can log in and the management API answers; `check` may raise to give up early."""
        deadline = time.monotonic() + seconds
        while True:
            check()
            try:
                self.management.get("overview")
                self.version = self.log_in()
            except BrokerError:
                if time.monotonic() > deadline:
                    raise
            else:
                return
            time.sleep(_PAUSE)


class GivenBroker(Broker):
    """A broker that somebody else runs; it is only talked to."""

    def __init__(self, url: str, management_url: str = "") -> None:
        """`url` is that of its administrator: amqp://user:password@host:port, amqps:// for TLS."""
        super().__init__(origin="the broker that was given")
        parts = urlsplit(url)
        if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
            raise BrokerError(
                "the URL of the broker is wrong", hint="It should look like amqp://user:password@host:5672."
            )
        self.scheme = parts.scheme
        self.host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
        self.user = unquote(parts.username or "guest")
        self.password = unquote(parts.password or "guest")
        self.management_url = management_url


async def _log_in(url: str) -> str:
    async with asyncio.timeout(_LOGIN):
        connection = await aiormq.connect(url)
        version = connection.server_properties.get("version", "")
        await connection.close()
        return version.decode() if isinstance(version, bytes) else str(version)
