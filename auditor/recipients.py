"""Who is told: Alertmanagers, webhooks, the receiver of spans: made from the settings, tried for `auditor check`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote

from auditor import tls
from auditor.errors import AuditorError, SettingsError
from auditor.finding import Finding
from auditor.settings import Settings
from auditor.windows.alerts import Reach, Recipient, alertmanager, reach

if TYPE_CHECKING:
    from auditor.windows.otlp import Sender

_LIMIT = 5.0  # seconds for a receiver of spans to answer

_ADVICE = {
    Reach.AWAY: "Is it running there, does it speak http or https, and does no firewall stand between?",
    Reach.TLS: "alerts.ca_file names the authority that signed its certificate, which is for the host in its address;\n"
    "alerts.cert_file and alerts.key_file are the auditor's own, where it wants to see one.",
    Reach.UNKNOWN_TO_IT: "Who the auditor is: alerts.user with the secret alerts.password, or the secret alerts.token.",
    Reach.OTHER: "Is that its address? Behind --web.route-prefix an Alertmanager's has a path; and it may want https.",
    Reach.ILL: "Its own log should say what is the matter with it.",
}

_PORTS = "By custom http/protobuf is spoken on port 4318 and grpc on 4317, see tracing.protocol; it may want https."
_AWAY = f"Is it running there? What is to be told waits in the ledger.\n{_PORTS}"
_UNTRUSTED = (
    "tracing.ca_file names the authority that signed its certificate, which is for the host in its address; the\n"
    "variables OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and _KEY the auditor's own, where it wants to see one."
)
_UNKNOWN_TO_IT = "What it wants to see, a token say, goes to the secret tracing.headers: name=value,name=value"
_UNWANTED = f"What it refuses is not sent again.\n{_PORTS}"
_NO_TRUST = ("CERTIFICATE", "SSL", "TLS")  # words of errors, which say it in no other way
_NO_ENTRY = ("HTTP 401", "HTTP 403", "UNAUTHENTICATED", "PERMISSION_DENIED")


def recipients(settings: Settings) -> Iterator[Recipient]:
    """Return the Alertmanagers and webhooks; SettingsError when a TLS file cannot be used."""
    alerts = settings.alerts
    urls = [*map(alertmanager, alerts.alertmanagers), *alerts.webhooks]
    make: Callable[..., Recipient] = partial(
        Recipient,
        user=alerts.user,
        password=alerts.password.get_secret_value(),
        token=alerts.token.get_secret_value(),
    )
    for url in urls:
        secure = url.startswith("https:")
        yield make(url=url, tls=tls.context(alerts.ca_file, alerts.cert_file, alerts.key_file) if secure else None)


def receiver(settings: Settings) -> Sender:
    """Return what sends spans; SettingsError when it cannot be done as the settings say."""
    # here, because OpenTelemetry takes time and memory that an auditor without it can spare
    from auditor.windows.otlp import sender

    wanted = settings.tracing
    try:
        return sender(
            protocol=wanted.protocol,
            endpoint=wanted.endpoint,
            headers="" if wanted.headers is None else wanted.headers.get_secret_value(),
            ca_file=wanted.ca_file,
        )
    except (ValueError, OSError) as error:
        raise SettingsError("Spans cannot be exported", on="tracing", why=str(error)) from error


async def try_all(settings: Settings) -> list[Finding]:
    """Try everybody who is to be told something. Nobody is told anything by it."""
    try:
        known = list(recipients(settings))
    except AuditorError as error:
        tried = [Finding(subject="alerts", good=False, says=str(error))]
    else:
        tried = await asyncio.gather(*(_recipient(settings, one) for one in known))
    if settings.tracing.enabled:
        tried.append(await asyncio.to_thread(_receiver, settings))
    return tried


async def _recipient(settings: Settings, recipient: Recipient) -> Finding:
    is_webhook = recipient.url in settings.alerts.webhooks
    subject = f"{'webhook' if is_webhook else 'Alertmanager'} {recipient.name}"
    # an Alertmanager takes an empty list and does nothing; of a webhook nobody knows what it would do with one
    found, says = await reach(recipient, "HEAD" if is_webhook else "POST")
    if found is Reach.WELL or (is_webhook and found is Reach.OTHER):
        return Finding(subject=subject, good=True, says="answers" if is_webhook else "takes alerts")
    return Finding(subject=subject, good=False, says=_masked(says, settings), advice=_ADVICE[found])


def _receiver(settings: Settings) -> Finding:
    from auditor.windows.otlp import Later, Taken, request

    subject = "receiver of spans"
    try:
        sender = receiver(settings)
    except AuditorError as error:
        return Finding(subject=subject, good=False, says=str(error))
    try:
        result = sender.send(request([], service=settings.tracing.service_name, version=""), limit=_LIMIT)
    finally:
        sender.close()
    subject = f"{subject} {sender.endpoint}"
    if isinstance(result, Taken):
        return Finding(subject=subject, good=True, says="takes spans")
    if any(word in result.why for word in _NO_ENTRY):
        advice = _UNKNOWN_TO_IT
    elif any(word in result.why.upper() for word in _NO_TRUST):
        advice = _UNTRUSTED
    else:
        advice = _AWAY if isinstance(result, Later) else _UNWANTED
    return Finding(subject=subject, good=False, says=_masked(result.why, settings), advice=advice)


def _masked(text: str, settings: Settings) -> str:
    """Return what somebody else said without our secrets, which it may repeat."""
    secrets = [settings.alerts.password.get_secret_value(), settings.alerts.token.get_secret_value()]
    if settings.tracing.headers is not None:
        values = [part.partition("=")[2].strip() for part in settings.tracing.headers.get_secret_value().split(",")]
        secrets += [*values, *map(unquote, values)]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text
