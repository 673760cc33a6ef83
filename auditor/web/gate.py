"""The gate, which everything passes: it knows who asks, says who may, and writes down who looked at what.

One place and not a check in each page: a page of the engine that nobody thought of is closed, too.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, quote

from datasette.app import Datasette
from datasette.plugins import pm
from datasette.utils import await_me_maybe
from datasette.utils.asgi import Request, Response

from auditor.errors import LedgerError
from auditor.ledger.access import Access, AccessTable
from auditor.settings.model import Web

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ROLES = ("viewer", "support", "admin")
"""From the one that sees least; each sees what those before it see."""

ENGINE = "/ledger"
"""Where the engine's own pages of the ledger are."""

REFUSED = "/-/refused"
"""Where the page is that says why another may not be seen; scope["needed"] is the role that it takes."""

_EVERYBODY = ""
# The first pattern that matches a path says which role it needs; what none matches is for admins.
_RULES = [
    (re.compile(pattern), role)
    for pattern, role in (
        (r"/(static|-/static)/|/favicon\.ico$|/-/log(in|out)$", _EVERYBODY),
        (r"/$|/status$", "viewer"),
        (r"/(lost|lost\.csv|orders|order|message|find)$", "support"),
        (rf"{ENGINE}(\.json)?$|{ENGINE}/", "support"),
    )
]
_POSTED = ("/-/login", "/-/logout")
_LONGEST = 4096  # bytes of an address in the access log
_OWN_STYLE = "default-src 'none'; script-src 'self'; style-src 'self'; "
_REST = "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
POLICY = _OWN_STYLE + _REST
# The engine's own pages colour and size some things with style attributes; scripts of theirs run from files only.
_ENGINE_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}


class Gate:
    """See the module's text."""

    def __init__(self, web: Web, *, secure: bool) -> None:
        """`secure`: TLS is spoken, so that cookies need never travel otherwise."""
        self._web = web
        self._secure = secure
        self._proxies = {ipaddress.ip_address(str(proxy)) for proxy in web.proxies}
        self._logins = bool(web.users)
        self._anonymous = web.anonymous or ("" if web.users or web.proxies else "support")
        self._writing = ThreadPoolExecutor(1, "access")
        keep = int(web.keep_access * 1e6)
        self._table = None if web.access_db is None else AccessTable(web.access_db, keep)

    @property
    def logins(self) -> bool:
        """Whether one can log in here."""
        return self._logins

    def role(self, actor: dict[str, str] | None) -> str:
        """Return the role of who asks; empty: none."""
        return actor["role"] if actor else self._anonymous

    def wrap(self, datasette: Datasette, app: App) -> App:
        """Put the gate in front of the engine."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            request = Request(scope, receive)
            actor = await self._actor(datasette, request)
            scope = {**scope, "actor": actor}
            role = self.role(actor)
            status = 500

            async def send_safely(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    message = {**message, "headers": self._headers(request, message)}
                await send(message)

            refused = self._refusal(request, role)
            try:
                if refused is None:
                    await app(scope, receive, send_safely)
                elif refused and not role and self._logins and request.method == "GET":
                    login = Response.redirect(f"/-/login?next={quote(_asked(request), safe='')}")
                    await login.asgi_send(send_safely)
                else:
                    inside = {"path": REFUSED, "raw_path": REFUSED.encode(), "method": "GET", "query_string": b""}
                    await app({**scope, **inside, "needed": refused}, receive, send_safely)
            finally:
                self._record(request, actor, role, status)

        return guarded

    async def _actor(self, datasette: Datasette, request: Request) -> dict[str, str] | None:
        """Return who asks, by name and role: as a trusted proxy says, or by having logged in."""
        client = (request.scope.get("client") or ("", 0))[0]
        if self._proxies and _address(client) in self._proxies:
            name, role = (
                request.headers.get(name.lower(), "") for name in (self._web.user_header, self._web.role_header)
            )
            return {"id": name, "role": role} if name and role in ROLES else None
        for found in pm.hook.actor_from_request(datasette=datasette, request=request):
            actor = await await_me_maybe(found)
            if isinstance(actor, dict) and actor.get("role") in ROLES:
                return {"id": str(actor["id"]), "role": actor["role"]}
        return None

    def _refusal(self, request: Request, role: str) -> str | None:
        """Return the role that is needed and missing; "" when the request itself is not allowed; None: it may pass."""
        path = _path(request)
        if request.method not in ("GET", "HEAD") and path not in _POSTED:
            return ""
        # without a login a page elsewhere could have its own name point here, and read along (DNS rebinding)
        if not self._logins and not self._proxies and not _is_local(request.headers.get("host", "")):
            return ""
        needed = next((needed for pattern, needed in _RULES if pattern.match(path)), ROLES[-1])
        if "sql=" in request.query_string and path.startswith(ENGINE):
            needed = ROLES[-1]
        return None if needed == _EVERYBODY or (role and ROLES.index(role) >= ROLES.index(needed)) else needed

    def _headers(self, request: Request, message: Message) -> list[tuple[bytes, bytes]]:
        path = _path(request)
        ours = path in ("/", "/status", "/lost", "/orders", "/order", "/message", "/find", "/-/login")
        headers: list[tuple[bytes, bytes]] = []
        for name, value in message.get("headers", []):
            name = name.lower()
            if name == b"set-cookie" and b"ds_" in value:
                value += b"; HttpOnly" if b"httponly" not in value.lower() else b""
                value += b"; Secure" if self._secure and b"secure" not in value.lower() else b""
            if name == b"location" and path == "/-/login" and message["status"] == 302:
                value = _next(request).encode()
            if name == b"vary":
                value += b", Accept-Language"
            if name not in (b"link", b"cache-control") and name not in _HEADERS:
                headers.append((name, value))
        policy = POLICY if ours else _ENGINE_POLICY
        headers += [(b"content-security-policy", policy.encode()), *_HEADERS.items()]
        if _is_static(path):
            headers.append((b"cache-control", b"max-age=600"))  # a new version of the auditor is seen soon
        else:
            headers.append((b"cache-control", b"private, no-store"))
        return headers

    def _record(self, request: Request, actor: dict[str, str] | None, role: str, status: int) -> None:
        path = _path(request)
        if _is_static(path):
            return
        now = time.time_ns() // 1000
        access = Access(
            at=now,
            time=datetime.fromtimestamp(now / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            who=actor["id"] if actor else "",
            role=role,
            client=(request.scope.get("client") or ("", 0))[0],
            method=request.method,
            page=_asked(request)[:_LONGEST],
            status=status,
        )
        sys.stdout.write(json.dumps({name: value for name, value in access._asdict().items() if name != "at"}) + "\n")
        sys.stdout.flush()
        if self._table is not None:
            asyncio.get_running_loop().run_in_executor(self._writing, self._add, access)

    def _add(self, access: Access) -> None:
        assert self._table is not None
        try:
            self._table.add(access)
        except LedgerError as error:
            log.error("%s", error)

    def close(self) -> None:
        """Write what is still to be written, and close the table."""
        self._writing.shutdown()
        if self._table is not None:
            self._table.close()


def _path(request: Request) -> str:
    """Return the path as the engine reads it: from the raw one, without decoding."""
    raw: bytes | None = request.scope.get("raw_path")
    path: str = request.scope["path"] if raw is None else raw.decode("latin-1")
    return path.partition("?")[0]


def _asked(request: Request) -> str:
    """Return path and query."""
    return _path(request) + (f"?{request.query_string}" if request.query_string else "")


def _is_static(path: str) -> bool:
    return path.startswith(("/static/", "/-/static/")) or path == "/favicon.ico"


def _next(request: Request) -> str:
    """Return the page of ours that was asked for before the login."""
    wished = parse_qs(request.query_string).get("next", ["/"])[0]
    # "//host" and "/\host" would lead elsewhere
    return wished if re.fullmatch(r"/(?![/\\])[\x21-\x7e]*", wished) and "\\" not in wished else "/"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _is_local(host: str) -> bool:
    """Tell whether a Host header is an address, which nobody can make point elsewhere, or localhost."""
    name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
    return name == "localhost" or _address(name.strip("[]")) is not None
