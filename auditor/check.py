"""`auditor check`: what would stand in the way of an audit, and what to do about it. It leaves nothing behind."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from auditor.daemon import endpoints, managements, trace_keys
from auditor.errors import AuditorError, BrokerError
from auditor.finding import Finding
from auditor.ledger.queries import Reader
from auditor.recipients import try_all
from auditor.settings import Settings
from auditor.tap.canary import Canary, Sighting
from auditor.tap.connection import CONNECTION_ERRORS, VhostRefused
from auditor.tap.control import Control
from auditor.tap.management import Management
from auditor.tap.topology import permissions

_OLDEST = (3, 10)  # the oldest RabbitMQ that the firehose was tried on
_CLOCK_TOLERANCE = 2.0  # seconds; deadlines are longer than that
_FREE = 2  # times ledger.min_free; at the default that leaves room for a million messages
_LIMIT = 5.0  # seconds for the firehose to show a canary
_LOOK = 0.5  # seconds for a look into a queue in which nothing is expected


async def run(settings: Settings) -> list[Finding]:
    """Look at everything; what cannot be looked at is a finding too, never an error."""
    findings = [Finding(subject="settings", good=True, says="understood"), _ledger(settings)]
    api = next(iter(managements(settings)), None)
    if api is not None:
        findings.append(await asyncio.to_thread(_clock, api))
    for vhost in settings.broker.vhosts:
        findings += [finding async for finding in _vhost(settings, vhost, api)]
    return findings + await try_all(settings)


def _ledger(settings: Settings) -> Finding:
    path = settings.ledger.path
    folder = path.parent
    try:
        if path.exists():
            with Reader.open(path):
                pass
        probe = folder / f".{path.name}.check"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return Finding(
            subject="ledger",
            good=False,
            says=f"{folder} cannot be written: {error.strerror}",
            advice=f"Make the folder and give it to the user that runs the auditor:\ninstall -d -o USER {folder}",
        )
    except AuditorError as error:
        return Finding(subject="ledger", good=False, says=str(error))
    free = shutil.disk_usage(folder).free
    if free < _FREE * settings.ledger.min_free:
        return Finding(
            subject="ledger",
            good=False,
            says=f"only {free / 1e6:,.0f} MB are free in {folder}, and below ledger.min_free nothing is written",
            advice="Make room, set ledger.path to another disk, or keep less (ledger.keep_healthy).",
        )
    return Finding(subject="ledger", good=True, says=f"{path} ({free / 1e9:,.1f} GB free)")


def _clock(api: Management) -> Finding:
    try:
        apart = api.server_time() - time.time()
    except BrokerError as error:
        return Finding(subject="management API", good=False, says=str(error))
    if abs(apart) > _CLOCK_TOLERANCE:
        return Finding(
            subject="clock",
            good=False,
            says=f"the broker's clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's",
            advice="Let both follow a time server: the ledger's times are this machine's.",
        )
    return Finding(subject="clock", good=True, says="agrees with the broker's")


async def _vhost(settings: Settings, vhost: str, api: Management | None) -> AsyncIterator[Finding]:
    where = endpoints(settings, vhost)[0]
    try:
        control = await Control.open(where, "auditor check")
    except BrokerError as error:
        says = f"{error.what} ({error.on}): {error.why}"
        advice = _grant(settings, vhost) if isinstance(error, VhostRefused) else error.hint
        yield Finding(subject=f"broker, vhost {vhost}", good=False, says=says, advice=advice)
        return
    try:
        version = control.version
        supported = tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) >= _OLDEST
        yield Finding(
            subject=f"broker, vhost {vhost}",
            good=supported,
            says=f"RabbitMQ {version} at {where}",
            advice="" if supported else "The auditor was not tried on RabbitMQ older than 3.10.",
        )
        async for finding in _rights_and_firehose(settings, vhost, control, api):
            yield finding
    except CONNECTION_ERRORS as error:
        yield Finding(subject=f"broker, vhost {vhost}", good=False, says=f"the connection broke: {error}")
    finally:
        await control.aclose()


async def _rights_and_firehose(
    settings: Settings, vhost: str, control: Control, api: Management | None
) -> AsyncIterator[Finding]:
    tap = settings.tap
    rights = f"permissions on {vhost}"
    grant = _grant(settings, vhost)
    try:
        made = await control.declare(tap.canary_exchange, tap.queue, trace_keys(settings), tap.max_bytes)
    except BrokerError as error:
        yield Finding(subject=rights, good=False, says=f"{error.what} ({error.on}): {error.why}", advice=grant)
        return
    if not made.queue:
        try:
            await control.newest(_canary(settings))
        except BrokerError as error:
            yield Finding(subject=rights, good=False, says=f"{error.what}: {error.why}", advice=grant)
        else:
            yield Finding(subject=rights, good=True, says="enough to declare, bind and publish")
        found = await control.inspector().inspect(tap.queue)
        yield Finding(
            subject=f"trace queue on {vhost}",
            good=True,
            says=f"{tap.queue} is there, {found.ready} events wait, {found.consumers} consumers",
        )
        yield await _firehose(settings, vhost, None, api)
        return
    try:
        canary = _canary(settings)
        await control.newest(canary)
        await control.send(canary, Sighting(0, time.time_ns() // 1000))
        # where it is known to be off, only the permission to read is in question
        seen = await control.take_one(tap.queue, _LOOK if await _is_known_to_be_off(api, vhost) else _LIMIT)
        yield Finding(subject=rights, good=True, says="enough")
        yield await _firehose(settings, vhost, seen, api)
    except BrokerError as error:
        yield Finding(subject=rights, good=False, says=f"{error.what}: {error.why}", advice=grant)
    finally:
        # made for this look only: left behind, it would fill up with nobody to read it
        for queue in (tap.queue, tap.canary_exchange):
            await control.delete_queue(queue)


def _canary(settings: Settings) -> Canary:
    return Canary(exchange=settings.tap.canary_exchange, auditor=settings.tap.queue, user=settings.broker.user)


async def _is_known_to_be_off(api: Management | None, vhost: str) -> bool:
    with suppress(BrokerError):  # which is a finding of its own
        return api is not None and await asyncio.to_thread(api.firehose_is_on, vhost) is False
    return False


async def _firehose(settings: Settings, vhost: str, seen: bool | None, api: Management | None) -> Finding:
    subject = f"firehose on {vhost}"
    on = seen
    if on is None and api is not None:
        try:
            on = await asyncio.to_thread(api.firehose_is_on, vhost)
        except BrokerError as error:
            return Finding(subject=subject, good=False, says=str(error))
    if on:
        return Finding(subject=subject, good=True, says="on")
    if on is None:
        return Finding(
            subject=subject,
            good=True,
            says="not looked at: the trace queue belongs to an auditor, and no management API is set",
            advice="`auditor status` tells whether its canaries come back.",
        )
    if api is not None and settings.tap.enable_firehose:
        return Finding(subject=subject, good=True, says="off; `auditor run` will turn it on")
    return Finding(
        subject=subject,
        good=False,
        says="off: the broker does not show its messages",
        advice=f"Turn it on, and again after each restart of the broker, on every node:\n"
        f"rabbitmqctl trace_on -p {vhost}\n"
        "or set broker.management.url and a user with the tag administrator, and the auditor does it.",
    )


def _grant(settings: Settings, vhost: str) -> str:
    configure, write, read = permissions(settings.tap.queue, settings.tap.canary_exchange)
    return (
        f"Grant the least that is needed:\n"
        f"rabbitmqctl set_permissions -p '{vhost}' '{settings.broker.user}' '{configure}' '{write}' '{read}'"
    )
