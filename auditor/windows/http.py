"""The small HTTP server: `/metrics`, `/healthz`, `/readyz`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from auditor.errors import AuditorError
from auditor.windows.metrics import CONTENT_TYPE, Metrics


class NotServed(AuditorError):
    """The address cannot be listened on."""


@asynccontextmanager
async def serve(listen: str, metrics: Metrics, ready: Callable[[], dict[str, Any]]) -> AsyncIterator[str]:
    """Serve on HOST:PORT and give the address, in which a free port stands for 0; NotServed when that cannot be."""
    host, _, port = listen.rpartition(":")

    async def get_metrics(_: web.Request) -> web.Response:
        # in a thread: with many labels it takes some milliseconds, and the loop reads the firehose
        return web.Response(body=await asyncio.to_thread(metrics.text), headers={"Content-Type": CONTENT_TYPE})

    async def get_health(_: web.Request) -> web.Response:
        return web.json_response({"alive": True})  # that somebody answers is the answer

    async def get_ready(_: web.Request) -> web.Response:
        found = ready()
        return web.json_response(found, status=200 if found["ready"] else 503)

    app = web.Application(client_max_size=0)
    app.add_routes([web.get("/metrics", get_metrics), web.get("/healthz", get_health), web.get("/readyz", get_ready)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host.strip("[]"), int(port))
        try:
            await site.start()
        except OSError as error:
            hint = "Name another address in http.listen, or none."
            raise NotServed("Could not serve metrics and health", on=listen, why=str(error), hint=hint) from error
        yield "{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()
