"""Telling alerts: to Alertmanagers and webhooks, over HTTP. Each is told everything, by a task of its own.

Alertmanager forgets an alert that nobody sends again (`endsAt`), takes the same alert any number of times, and makes
one of those with equal labels. So everything is sent each time, whatever came before: when something has changed, once
a minute, and again after a failure.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp

from auditor.core.alerts import Alert
from auditor.errors import AuditorError

log = logging.getLogger(__name__)

RESEND = 60.0  # seconds, as Prometheus does
_EXPIRES = 4 * 60_000_000  # microseconds: a dead auditor's alerts end after that
_BATCH = 256  # alerts in a request, as Prometheus sends
_TIMEOUT = 10.0  # seconds for a request
_REACHED = 5.0  # seconds for one that only tries
_PAUSE = 1.0, 10.0  # seconds until a failed request is tried again, at first and at most
_MAX_REFUSAL = 500  # bytes of a refusal that are worth showing

_TAKEN = range(200, 300)
_NEVER_TAKEN = frozenset({400, 413, 422})  # the same request would be refused again


class Reach(StrEnum):
    """What comes of reaching for a recipient."""

    WELL = "well"
    AWAY = "away"  # nobody answers
    TLS = "tls"  # one of the two does not trust the other's certificate
    UNKNOWN_TO_IT = "unknown_to_it"  # it does not know us, or not well enough
    OTHER = "other"  # it is something else, or somewhere else
    ILL = "ill"  # it answers that it cannot


_REACH = {401: Reach.UNKNOWN_TO_IT, 403: Reach.UNKNOWN_TO_IT, 501: Reach.OTHER}  # statuses, the others by their kind


class NotTaken(AuditorError):
    """Alerts could not be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Whom to tell, and as whom."""

    url: str  # what is posted to
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None

    @property
    def name(self) -> str:
        """Host and port, for logs and metrics."""
        return urlsplit(self.url).netloc


def alertmanager(url: str) -> str:
    """Return where an Alertmanager takes alerts."""
    return f"{url}/api/v2/alerts"


class Teller:
    """Tells one recipient."""

    def __init__(self, recipient: Recipient, alerts: Callable[[], Sequence[Alert]], page: str = "") -> None:
        """`alerts` gives what is to be told at the moment, `page` is where the ledger's pages are."""
        self.recipient = recipient
        self.results: Counter[str] = Counter({"taken": 0, "refused": 0, "failed": 0})  # alerts, by what came of them
        self._alerts = alerts
        self._page = page
        self._news = asyncio.Event()
        self._problem: str | None = None

    def wake(self) -> None:
        """Have it tell at once: something has changed."""
        self._news.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        async with _session(self.recipient, _TIMEOUT) as session:
            pause = _PAUSE[0]
            while True:
                self._news.clear()
                if await self._tell(session):
                    pause = _PAUSE[0]
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._news.wait(), RESEND)
                else:
                    # news do not shorten this one: it must not be asked more often because more goes wrong
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, _PAUSE[1])

    async def _tell(self, session: aiohttp.ClientSession) -> bool:
        """Send everything once; False when it has to be tried again."""
        alerts = self._alerts()
        now = time.time_ns() // 1000
        result = "taken"
        for start in range(0, len(alerts), _BATCH):
            batch = alerts[start : start + _BATCH]
            result, why = await self._post(session, [message(alert, now, self._page) for alert in batch])
            self.results[result] += len(batch)
            if why is not None:
                self._report(why)
            if result == "failed":
                return False
        if alerts and self._problem is not None and result == "taken":
            self._problem = None
            log.info("Alerts are taken again", extra={"by": self.recipient.name})
        return True

    async def _post(self, session: aiohttp.ClientSession, body: list[dict[str, Any]]) -> tuple[str, str | None]:
        try:
            async with session.post(self.recipient.url, json=body, allow_redirects=False) as answer:
                if answer.status in _TAKEN:
                    return "taken", None
                said = (await answer.content.read(_MAX_REFUSAL)).decode(errors="replace").strip()
                why = f"HTTP {answer.status} {said or answer.reason}"
                # Alertmanager may have taken the valid ones among them
                return ("refused" if answer.status in _NEVER_TAKEN else "failed"), why
        except TimeoutError:
            return "failed", f"no answer within {_TIMEOUT:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return "failed", str(error) or repr(error)

    def _report(self, why: str) -> None:
        """Say once what is wrong."""
        if why != self._problem:
            self._problem = why
            log.warning("%s", NotTaken("Alerts were not taken", on=self.recipient.name, why=why))


async def reach(recipient: Recipient, method: str) -> tuple[Reach, str]:
    """Send a request that tells nothing; return what comes of it, and what says so."""
    try:
        async with (
            _session(recipient, _REACHED) as session,
            session.request(
                method, recipient.url, json=[] if method == "POST" else None, allow_redirects=False
            ) as answer,
        ):
            said = (await answer.content.read(_MAX_REFUSAL)).decode(errors="replace").strip()
            return _REACH.get(answer.status, _reach(answer.status)), f"HTTP {answer.status} {said or answer.reason}"
    except TimeoutError:
        return Reach.AWAY, f"no answer within {_REACHED:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        # what its TLS makes of our certificate comes after the connection was made, and not always in words
        unconnected = isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError)
        return Reach.AWAY if unconnected or recipient.tls is None else Reach.TLS, str(error) or repr(error)


def _reach(status: int) -> Reach:
    if status in _TAKEN:
        return Reach.WELL
    return Reach.OTHER if status < 500 else Reach.ILL


def _session(recipient: Recipient, limit: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=limit),
        connector=aiohttp.TCPConnector(ssl=True if recipient.tls is None else recipient.tls),
        headers=_authorization(recipient),
    )


def _authorization(recipient: Recipient) -> dict[str, str]:
    if recipient.token:
        return {"Authorization": f"Bearer {recipient.token}"}
    if recipient.user:
        credentials = base64.b64encode(f"{recipient.user}:{recipient.password}".encode()).decode()
        return {"Authorization": f"Basic {credentials}"}
    return {}


def message(alert: Alert, now: int, page: str = "") -> dict[str, Any]:
    """Return an alert as Alertmanager's API wants it."""
    ends_at = now + _EXPIRES if alert.ended_at is None else alert.ended_at
    body: dict[str, Any] = {
        "labels": dict(alert.labels),
        "annotations": alert.annotations,
        "startsAt": iso(alert.starts_at),
        "endsAt": iso(ends_at),
    }
    if page:
        # twice: the one is what Alertmanager's own pages link to, the other goes with the notification
        body["generatorURL"] = url = link(alert, page)
        body["annotations"] = {**alert.annotations, "page": url}
    return body


def link(alert: Alert, page: str) -> str:
    """Return the address of the page that shows exactly what an alert is about."""
    about = {name: value for name, value in alert.labels if name not in ("alertname", "severity")}
    if alert.name == "OrderStuck":
        about["stuck"] = "yes"
    if not alert.name.startswith("Auditor"):
        about["acknowledged"] = "no"
    where = "orders" if alert.name == "OrderStuck" else "status" if alert.name.startswith("Auditor") else "lost"
    return f"{page.rstrip('/')}/{where}{'?' if about else ''}{urlencode(about)}"


def iso(at: int) -> str:
    """Return microseconds since the epoch as RFC 3339."""
    return datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
