"""Serving the pages: the engine with our plugin, on a socket of its own, until stopped."""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from datasette.app import Datasette
from datasette.database import Database
from datasette.plugins import pm
from datasette_auth_passwords.utils import hash_password

from auditor.errors import SettingsError
from auditor.ledger.queries import Reader, connect, follows
from auditor.settings import Settings
from auditor.web.gate import ENGINE, Gate
from auditor.web.pages import Pages
from auditor.web.plugin import CELL, QUERIES, Plugin
from auditor.windows.notify import notifier

_HERE = Path(__file__).parent
_INNER = (
    *("messages", "hops", "names", "clients", "blocks", "keys", "identities", "seen", "outbox", "order_traces"),
    *("stage_entries", "open_entries", "further_deliveries", "acknowledged_hops", "acknowledged_entries"),
    "_sqlite_migrations",
)  # the tables below the views: listed, but out of the way
_BYE = 5  # seconds that requests have to end when the pages are stopped


class LedgerFile(Database):  # type: ignore[misc]
    """The ledger as the engine sees it: read only, beside its writer or after its death."""

    def __init__(self, engine: Datasette, path: Path) -> None:
        """Nothing is opened yet."""
        super().__init__(engine, path=str(path))
        self._file = path
        self._kept = threading.local()

    async def execute_fn(self, fn: Callable[[Any], Any]) -> Any:
        """Ask on a connection like those of the other readers.

        The engine would keep each for good. One that was made while nobody wrote may take the file for one that never
        changes, which is true for one question; and another file may take its place.
        """

        def asking() -> Any:
            found = self._file.stat()
            file = (found.st_dev, found.st_ino)
            conn, of = getattr(self._kept, "connection", (None, None))
            if conn is not None and of == file:
                return fn(conn)
            if conn is not None:
                conn.close()
                del self._kept.connection
            conn = connect(self._file)
            self.ds._prepare_connection(conn, self.name)
            if follows(conn):
                self._kept.connection = conn, file
                return fn(conn)
            with closing(conn):
                return fn(conn)

        return await asyncio.get_running_loop().run_in_executor(self.ds.executor, asking)


class Server(uvicorn.Server):
    """The server as a service: it says when it is ready and when it ends, and meanwhile its loop feeds the watchdog."""

    def __init__(self, config: uvicorn.Config) -> None:
        """Nobody is told anything before `run`."""
        super().__init__(config)
        self._service = notifier()
        self._feeding: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer."""
        await super().startup(sockets)
        # the loop's turn is the sign of life: questions take their time in threads, and no restart makes a disk quicker
        self._feeding = asyncio.create_task(self._service.keep_alive(partial(asyncio.sleep, 0)), name="watchdog")
        self._service.say(READY=1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end."""
        self._service.say(STOPPING=1)
        await super().shutdown(sockets)
        if self._feeding is not None:
            self._feeding.cancel()


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. SettingsError when it cannot be served like this, LedgerError without a ledger."""
    web = settings.web
    host, _, port = web.listen.rpartition(":")
    host = host.strip("[]")
    if not (web.users or web.proxies or web.anonymous) and not _is_loopback(host):
        raise SettingsError(
            "The pages were not served",
            on=web.listen,
            why="whoever reaches this address could read every order",
            hint="Set web.users or web.proxies, or say with web.anonymous what those who have not logged in may see.",
        )
    if web.cert_file is None and web.users and not _is_loopback(host):
        sys.stderr.write("auditor: passwords will be sent in the clear: set web.cert_file, or put a proxy in front\n")
    Reader.open(settings.ledger.path).close()
    gate = Gate(web, secure=web.cert_file is not None)
    try:
        listener = _listen(host, int(port), web.listen)
        app = _engine(settings, gate).app()
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            proxy_headers=False,  # who may speak for whom is the gate's to say
            server_header=False,
            date_header=True,
            lifespan="off",
            ssl_certfile=web.cert_file,
            ssl_keyfile=web.key_file,
            timeout_graceful_shutdown=_BYE,
        )
        scheme = "http" if web.cert_file is None else "https"
        shown = f"[{host}]" if ":" in host else host
        sys.stderr.write(f"Serving the pages at {scheme}://{shown}:{listener.getsockname()[1]}/\n")
        sys.stderr.flush()
        # uvicorn ends by them, and then raises them again for whoever was there before: nobody has to die of them
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        Server(config).run(sockets=[listener])
    finally:
        gate.close()


def hashed(password: str) -> str:
    """Return a password's hash for `web.users`."""
    return str(hash_password(password))


def _engine(settings: Settings, gate: Gate) -> Datasette:
    web = settings.web
    actors = {name: {"id": name, "role": _role(entry.get_secret_value())} for name, entry in web.users.items()}
    hashes = {f"{name}_password_hash": entry.get_secret_value().partition(":")[2] for name, entry in web.users.items()}
    pages = Pages(settings)
    pm.register(Plugin(pages, gate), "auditor")
    engine = Datasette(
        template_dir=str(_HERE / "templates"),
        static_mounts=[("static", str(_HERE / "static"))],
        secret=secrets.token_hex(32),
        metadata={
            "title": "auditor",
            "databases": {
                "ledger": {"queries": QUERIES, "tables": {name: {"hidden": True} for name in _INNER}},
            },
            "plugins": {"datasette-auth-passwords": {**hashes, "actors": actors}},
        },
        settings={
            "default_allow_sql": False,
            "allow_download": False,
            "suggest_facets": False,  # they would read whole tables unasked
            "sql_time_limit_ms": round(web.query_time * 1000),
            "facet_time_limit_ms": round(web.query_time * 1000),
            "max_returned_rows": 5000,
            "truncate_cells_html": CELL,
            "num_sql_threads": 3,
            "default_cache_ttl": 0,
        },
    )
    engine.remove_database("_memory")
    engine.add_database(LedgerFile(engine, settings.ledger.path), name=ENGINE.strip("/"))
    if web.access_db is not None:
        engine.add_database(Database(engine, path=str(web.access_db)), name="access")
    return engine


def _role(entry: str) -> str:
    return entry.partition(":")[0]


def _listen(host: str, port: int, shown: str) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError("The pages were not served", on=shown, why=error.strerror or str(error)) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
