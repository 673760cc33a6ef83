"""The plugin: what the engine asks of us."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pluggy
from datasette.app import Datasette
from datasette.utils.asgi import Request, Response
from jinja2 import Environment

from auditor.web.gate import REFUSED, App, Gate
from auditor.web.pages import Pages
from auditor.web.words import Words, clock, plain

_hook = pluggy.HookimplMarker("datasette")

QUERIES: dict[str, dict[str, str]] = {
    "lost_by_reason": {
        "title": "What is lost, per flow and reason",
        "sql": "SELECT flow, state, reason, count(*) AS hops, min(published) AS first FROM lost GROUP BY 1, 2, 3",
    },
    "order_story": {
        "title": "The story of an order",
        "sql": "SELECT time, event, stage, queue, state, reason, wait_seconds FROM order_timeline"
        " WHERE order_id = :order_id ORDER BY at",
    },
    "slow_orders": {
        "title": "Orders that have been in a stage for more than so many seconds",
        "sql": "SELECT order_id, stage, entered, seconds FROM open_orders WHERE seconds > CAST(:seconds AS REAL)"
        " ORDER BY seconds DESC",
    },
    "gaps": {
        "title": "When the auditor was blind",
        "sql": "SELECT vhost, reason, began, ended, seconds, missing FROM gap_list ORDER BY id DESC",
    },
}
"""Queries over the ledger's views that need no SQL: name to title and SQL."""


CELL = 300  # characters of a value that the engine's tables show


class Plugin:
    """Routes, templates' words, and permissions. The engine calls each method by the hook of its name."""

    __name__ = "auditor"  # under which the engine lists it

    def __init__(self, pages: Pages, gate: Gate) -> None:
        """Bring pages and gate together with the engine."""
        self._pages = pages
        self._gate = gate

    @_hook
    def register_routes(self) -> list[tuple[str, Callable[..., Awaitable[Any]]]]:
        """Return our pages; they come before those of the engine."""
        pages = self._pages
        return [
            (r"^/$", pages.home),
            (r"^/status$", pages.status),
            (r"^/lost$", pages.lost),
            (r"^/lost\.csv$", pages.lost_csv),
            (r"^/orders$", pages.orders),
            (r"^/order$", pages.order),
            (r"^/message$", pages.message),
            (r"^/find$", pages.find),
            (rf"^{REFUSED}$", self._refused),
        ]

    async def _refused(self, request: Request, datasette: Datasette) -> Response:
        w, role, needed = (
            Words.of(request.headers),
            self._gate.role(request.scope.get("actor")),
            request.scope.get("needed"),
        )
        why = w("forbidden_why", role=role or w("nobody"), needed=needed) if needed else ""
        page = {"title": w("forbidden"), "why": why}
        return Response.html(await datasette.render_template("refused.html", page, request=request), status=403)

    @_hook(tryfirst=True)
    def handle_exception(
        self, datasette: Datasette, request: Request, exception: Exception
    ) -> Callable[[], Awaitable[Response]] | None:
        """Show what went wrong in our frame; None for JSON, which the engine answers."""
        status = getattr(exception, "status", 500)
        if request.path.endswith(".json"):
            return None

        async def show() -> Response:
            w = Words.of(request.headers)
            title = w("not_found") if status == 404 else w("error")
            # a bug's text is for the log, where the engine writes it
            page = {"title": title, "why": "" if status in (404, 500) else str(exception)}
            body = await datasette.render_template("refused.html", page, request=request)
            return Response.html(body, status=status)

        return show

    @_hook
    def prepare_jinja2_environment(self, env: Environment) -> None:
        """Give templates our filters."""
        env.filters["plain"] = plain
        env.filters["clock"] = clock

    @_hook
    def render_cell(self, value: object) -> str | None:
        """Show what cannot be seen in the engine's tables, too; None for what hides nothing, which the engine shows."""
        shown = plain(value) if isinstance(value, str) else value
        return None if shown == value else str(shown)[:CELL]

    @_hook
    def extra_template_vars(self, request: Request | None) -> dict[str, Any]:
        """Give all templates, the engine's too, what the frame around the page needs."""
        role = "" if request is None else self._gate.role(request.scope.get("actor"))
        return {"w": Words.of({} if request is None else request.headers), "role": role, "logins": self._gate.logins}

    @_hook
    def permission_allowed(self, actor: dict[str, str] | None, action: str) -> bool | None:
        """Let admins ask with SQL of their own; the gate has seen to the rest."""
        return self._gate.role(actor) == "admin" if action == "execute-sql" else None

    @_hook(trylast=True)  # the outermost
    def asgi_wrapper(self, datasette: Datasette) -> Callable[[App], App]:
        """Put the gate in front."""
        return lambda app: self._gate.wrap(datasette, app)
