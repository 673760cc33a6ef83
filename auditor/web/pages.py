"""What the pages show: each asks the ledger on a thread, for so long at most, and renders a template."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlencode

from datasette.app import Datasette
from datasette.utils.asgi import Request, Response

from auditor.core.hops import AGAINST, Reason
from auditor.core.tally import OTHER
from auditor.errors import LedgerError
from auditor.ledger.queries import Reader
from auditor.settings import Settings, duration
from auditor.web.home import charts, standing, strips
from auditor.web.picture import MAX_HOPS, draw
from auditor.web.words import Words

T = TypeVar("T")
Row = dict[str, Any]

_PAGE = 100  # rows of a list
_MAX_CSV = 50_000  # rows: what a spreadsheet still opens
_MAX_LINES = 500  # of an order's timeline
_DAY = 86_400_000_000  # microseconds
_HOUR = 3_600_000_000
_HOURS = 12  # of the charts
_CLAIMS_NOTHING = (Reason.BLIND, Reason.OVERFLOW, Reason.QUEUE_GONE, Reason.DELAYED, Reason.TRANSACTION)
_STRIPPED = ("flow", "queue", "reason", "state", "vhost", "order")


class Pages:
    """The handlers of our routes, called by the engine."""

    def __init__(self, settings: Settings) -> None:
        """Take from the settings where the ledger is, and what else is shown of them."""
        self._path = settings.ledger.path
        self._patience = settings.web.query_time
        self._lag = settings.alerts.lag
        self._trace_page = settings.tracing.ui_url

    async def home(self, request: Request, datasette: Datasette) -> Response:
        """Show whether the audit is sound, what is lost, and where the orders are."""
        now = _now()

        def ask(reader: Reader) -> dict[str, Any]:
            return {
                "status": reader.status(),
                "coverage": reader.coverage(),
                "gaps": reader.gaps(200),
                "lost": reader.lost_by_hour(now // _HOUR * _HOUR - (_HOURS - 1) * _HOUR),
                "newest": reader.lost(acknowledged=False, limit=5),
                "stages": reader.stages_now(),
                "stuck": reader.open_orders(stuck=True, limit=5),
            }

        def show(found: dict[str, Any], w: Words) -> dict[str, Any]:
            first = now // _HOUR * _HOUR - (_HOURS - 1) * _HOUR
            return {
                **found,
                "standing": standing(found["status"], now, self._lag, w),
                "strips": strips(found["coverage"], found["gaps"], now - _DAY, now),
                "charts": charts(found["lost"], first, _HOURS),
            }

        return await self._page(request, datasette, "home.html", ask, show)

    async def status(self, request: Request, datasette: Datasette) -> Response:
        """Show how the audit stands, in full."""
        now = _now()

        def ask(reader: Reader) -> dict[str, Any]:
            return {"status": reader.status(), "coverage": reader.coverage(), "gaps": reader.gaps(200)}

        def show(found: dict[str, Any], w: Words) -> dict[str, Any]:
            return {
                **found,
                "standing": standing(found["status"], now, self._lag, w),
                "strips": strips(found["coverage"], found["gaps"], now - _DAY, now),
            }

        return await self._page(request, datasette, "status.html", ask, show)

    async def lost(self, request: Request, datasette: Datasette) -> Response:
        """Show the hops with a verdict against them; the filters are those of alerts' links."""
        given, filters, bad = _filters(request)
        before = _place(given.get("before", ""))

        def ask(reader: Reader) -> dict[str, Any]:
            rows = [] if bad else reader.lost(**filters, before=before, limit=_PAGE + 1)
            return {"rows": rows[:_PAGE], "more": len(rows) > _PAGE, "acks": reader.acknowledgements_of(rows[:_PAGE])}

        def show(found: dict[str, Any], w: Words) -> dict[str, Any]:
            kept = {name: value for name, value in given.items() if name != "before"}
            last = found["rows"][-1] if found["rows"] else None
            older = urlencode(kept | {"before": f"{last['message']}.{last['hop']}"}) if found["more"] and last else ""
            return {
                **found,
                "given": given,
                "bad_since": w("bad_since", value=given.get("since", "")) if bad else "",
                "address": urlencode(kept),
                "older": older,
                "states": sorted(AGAINST),
                "reasons": [reason.value for reason in Reason if reason not in _CLAIMS_NOTHING],
                "acknowledge": _acknowledge(kept),
            }

        return await self._page(request, datasette, "lost.html", ask, show)

    async def lost_csv(self, request: Request, datasette: Datasette) -> Response:
        """Give the same as CSV, all columns."""
        _, filters, bad = _filters(request)
        try:
            rows = [] if bad else await self._ask(lambda reader: reader.lost(**filters, limit=_MAX_CSV))
        except LedgerError as error:
            return await self._failed(request, datasette, error)
        text = io.StringIO()
        writer = csv.writer(text)
        if rows:
            writer.writerow(rows[0])
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
        headers = {"content-disposition": 'attachment; filename="lost.csv"'}
        return Response(text.getvalue(), headers=headers, content_type="text/csv; charset=utf-8")

    async def orders(self, request: Request, datasette: Datasette) -> Response:
        """Show the orders that are on their way, those longest in their stage first."""
        given = _given(request)
        filters: dict[str, Any] = {name: given[name] for name in ("stage", "system", "vhost") if given.get(name)}
        filters |= {"acknowledged": _flag(given.get("acknowledged")), "stuck": _flag(given.get("stuck")) is True}

        def ask(reader: Reader) -> dict[str, Any]:
            return {"rows": reader.open_orders(**filters, limit=_PAGE), "stages": reader.stages_now()}

        return await self._page(request, datasette, "orders.html", ask, lambda found, w: {**found, "given": given})

    async def order(self, request: Request, datasette: Datasette) -> Response:
        """Show the story of an order, as a picture and as a table."""
        order_id = request.args.get("id") or ""

        def ask(reader: Reader) -> dict[str, Any]:
            hops = reader.order_hops(order_id)
            return {
                "hops": hops,
                "summary": reader.order_summary(order_id),
                "stages": reader.order_stages(order_id),
                "orphans": reader.orphans(order=order_id),
                "lines": reader.order(order_id)[: _MAX_LINES + 1],
                "traces": reader.order_traces(order_id),
            }

        def show(found: dict[str, Any], w: Words) -> dict[str, Any]:
            return {
                **found,
                "order_id": order_id,
                "lines": found["lines"][:_MAX_LINES],
                "cut": MAX_HOPS if len(found["hops"]) > MAX_HOPS else 0,
                "picture": draw(found["hops"], found["stages"], found["orphans"], _now()),
                "against": [hop for hop in found["hops"] if hop["state"] in AGAINST or hop["state"] == "unknown"],
                "traces": [(trace, self._trace(trace)) for trace in found["traces"]],
            }

        return await self._page(
            request, datasette, "order.html", ask, show, lambda found: bool(found["lines"]), key=order_id
        )

    async def message(self, request: Request, datasette: Datasette) -> Response:
        """Show everything that is known of a message id."""
        message_id = request.args.get("id") or ""

        def ask(reader: Reader) -> dict[str, Any]:
            rows = reader.message(message_id)[:_PAGE]
            acks = reader.acknowledgements_of([row for row in rows if row["hop"] is not None])
            orphans = reader.orphans(message_id=message_id)
            return {
                "rows": rows,
                "acks": acks,
                "orphans": orphans,
                "traces": [reader.message_trace(row) for row in rows],
            }

        def show(found: dict[str, Any], w: Words) -> dict[str, Any]:
            traces = list(dict.fromkeys(trace for trace in found["traces"] if trace))
            grouped: dict[int, list[Row]] = {}
            for row in found["rows"]:
                grouped.setdefault(row["message"], []).append(row)
            return {
                **found,
                "message_id": message_id,
                "messages": list(grouped.values()),
                "traces": [(trace, self._trace(trace)) for trace in traces],
            }

        return await self._page(
            request,
            datasette,
            "message.html",
            ask,
            show,
            lambda found: bool(found["rows"] or found["orphans"]),
            key=message_id,
        )

    async def find(self, request: Request, datasette: Datasette) -> Response:
        """Go to the order or message that is called so."""
        key = (request.args.get("q") or "").strip()

        def ask(reader: Reader) -> str | None:
            if reader.order(key):
                return "order"
            return "message" if reader.message(key) or reader.orphans(message_id=key, limit=1) else None

        try:
            page = await self._ask(ask) if key else None
        except LedgerError as error:
            return await self._failed(request, datasette, error)
        if page:
            return Response.redirect(f"/{page}?{urlencode({'id': key})}")
        return await self._nothing(request, datasette, key)

    async def _page(
        self,
        request: Request,
        datasette: Datasette,
        template: str,
        ask: Callable[[Reader], dict[str, Any]],
        show: Callable[[dict[str, Any], Words], dict[str, Any]],
        is_there: Callable[[dict[str, Any]], bool] = bool,
        *,
        key: str = "",
    ) -> Response:
        w = Words.of(request.headers)
        try:
            found = await self._ask(ask)
        except LedgerError as error:
            return await self._failed(request, datasette, error)
        if not is_there(found):
            return await self._nothing(request, datasette, key)
        return Response.html(await datasette.render_template(template, show(found, w), request=request))

    async def _ask(self, ask: Callable[[Reader], T]) -> T:
        def asking() -> T:
            with Reader.open(self._path, patience=self._patience) as reader:
                return ask(reader)

        return await asyncio.to_thread(asking)

    async def _failed(self, request: Request, datasette: Datasette, error: LedgerError) -> Response:
        w = Words.of(request.headers)
        why = w("too_long") if error.why == "interrupted" else str(error)
        page = {"title": w("error"), "why": why}
        return Response.html(await datasette.render_template("refused.html", page, request=request), status=503)

    async def _nothing(self, request: Request, datasette: Datasette, key: str) -> Response:
        w = Words.of(request.headers)
        page = {"title": w("not_found"), "key": key}
        return Response.html(await datasette.render_template("nothing.html", page, request=request), status=404)

    def _trace(self, trace_id: str) -> str:
        return self._trace_page.replace("{trace_id}", trace_id)


def _filters(request: Request) -> tuple[dict[str, str], dict[str, Any], bool]:
    """Return what stands in the address, the reader's filters that it means, and whether the time cannot be read."""
    given = _given(request)
    filters: dict[str, Any] = {name: given[name] for name in _STRIPPED if given.get(name)}
    if filters.get("queue") == OTHER:  # an alert on more queues than are told one by one
        del filters["queue"]
    filters["acknowledged"] = _flag(given.get("acknowledged"))
    bad = False
    if given.get("since"):
        try:
            filters["since"] = _since(given["since"])
        except (ValueError, OverflowError):
            bad = True
    return given, filters, bad


def _given(request: Request) -> dict[str, str]:
    return {name: value for name in request.args if (value := request.args.get(name) or "")}


def _since(text: str) -> int:
    """Read an age or a time, as the command line's `--since`."""
    text = text.strip()
    if text[:5].endswith("-"):
        at = datetime.fromisoformat(text)
        return int(at.replace(tzinfo=at.tzinfo or UTC).timestamp() * 1e6)
    return int((time.time() - duration(text)) * 1e6)


def _flag(text: str | None) -> bool | None:
    return {"yes": True, "1": True, "no": False, "0": False}.get(text or "")


def _place(text: str) -> tuple[int, int] | None:
    """Read message and number of a hop; eighteen digits are what an integer of the ledger can have."""
    found = re.fullmatch(r"([0-9]{1,18})\.([0-9]{1,9})", text)
    return (int(found[1]), int(found[2])) if found else None


def _acknowledge(kept: dict[str, str]) -> list[str]:
    """Return the words of the command that acknowledges what the filters choose."""
    words = ["auditor", "ack"]
    for name in ("since", "flow", "queue", "order", "state", "reason"):
        if kept.get(name):
            words += [f"--{name}", kept[name]]
    return words


def _cell(value: object) -> object:
    """Return a value for a spreadsheet, which would take some foreign text for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _now() -> int:
    return time.time_ns() // 1000
