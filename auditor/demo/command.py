"""The command `auditor demo`.

What it needs is imported when it runs: the commands that only read the ledger should not wait for aio-pika.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from auditor.errors import AuditorError, BrokerError, SettingsError

if TYPE_CHECKING:
    from auditor.demo.run import Options, Outcome
    from auditor.demo.server import Broker

PASSWORD = "AUDITOR_DEMO_PASSWORD"


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(1, 3600),
    default=30.0,
    show_default=True,
    help="How long the shop takes orders; the last verdicts take some ten seconds more.",
)
@click.option("--rate", type=click.FloatRange(0.1, 100), default=5.0, show_default=True, help="Orders a second.")
@click.option("--seed", type=int, help="Repeats the plan of an earlier run.  [default: random]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option(
    "--broker-url",
    metavar="amqp://USER@HOST:PORT",
    help="Use this broker; its administrator's password is "
    f"taken from {PASSWORD} or asked for.  [default: a private one]",
)
@click.option(
    "--management-url", metavar="http://HOST:PORT", help="Management API of that broker.  [default: its port 15672]"
)
@click.option(
    "--ledger",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to leave the ledger; a new file.  [default: in a new folder for temporary files]",
)
@click.option(
    "--otlp-endpoint",
    metavar="http://HOST:PORT",
    envvar="OTEL_EXPORTER_OTLP_ENDPOINT",
    default="",
    help="Export the spans there, by OTLP over HTTP.  [default: the demo receives them itself, and shows two traces]",
)
def demo(
    seconds: float,
    rate: float,
    seed: int | None,
    as_json: bool,
    broker_url: str | None,
    management_url: str | None,
    ledger: Path | None,
    otlp_endpoint: str,
) -> None:
    """Show the auditor at work: a shop, a CRM and an MES exchange orders, and messages go astray.

    Ends with planned faults against found ones, and with exit code 1 when anything was missed or falsely claimed.

    Example: auditor demo --seconds 10 --seed 7
    """
    from auditor.demo.display import Display
    from auditor.demo.find import find_broker
    from auditor.demo.run import run

    if management_url and not broker_url:
        raise click.UsageError("--management-url belongs to --broker-url")
    display = Display(sys.stderr)
    try:
        with _interrupted_by(signal.SIGTERM, signal.SIGHUP):
            given = _given(broker_url, management_url) if broker_url else None
            options = _options(seconds, rate, seed, ledger, otlp_endpoint.rstrip("/"))
            display.say(f"seed {options.seed}; settings, logs and facts are left in {options.folder}")
            with given or find_broker(progress=display.say) as broker:
                outcome = run(options, broker, display)
    except AuditorError as error:
        display.say(f"the demo failed: {error}")
        sys.exit(error.exit_code)
    for title, lines in outcome.trees:
        display.trace(title, lines)
    display.result(outcome.report)
    click.echo(f"\nNow ask the ledger yourself:\n  auditor lost --ledger {shlex.quote(str(options.ledger))}", err=True)
    if as_json:
        click.echo(json.dumps(_summary(options, outcome, display.seconds)))
    sys.exit(0 if outcome.report.good else 1)


def _summary(options: Options, outcome: Outcome, took: float) -> dict[str, object]:
    """The JSON object of the result: a contract."""
    report = outcome.report
    return {
        "planned": report.planned,
        "found": report.found,
        "missed": len(report.missed),
        "false": len(report.false),
        "differences": len(report.differences),
        "in_flight": report.in_flight,
        "orders": outcome.orders,
        "published": report.published,
        "delivered": report.delivered,
        "events": outcome.events,
        "ledger": str(options.ledger),
        "broker": outcome.broker,
        "spans": None if outcome.spans is None else len(outcome.spans),
        "seed": options.seed,
        "seconds": options.seconds,
        "took": round(took, 1),
    }


def _options(seconds: float, rate: float, seed: int | None, ledger: Path | None, otlp: str) -> Options:
    """Check where the ledger goes, and make the folder for everything else."""
    from auditor.demo.run import Options

    if ledger is not None:
        ledger = ledger.absolute()
        what, hint = "Cannot leave the ledger there", "Name a new file in a folder that exists."
        if ledger.exists():  # an older one's messages would be taken for this run's
            raise SettingsError(what, on=str(ledger), why="the file exists", hint=hint)
        if not ledger.parent.is_dir():
            raise SettingsError(what, on=str(ledger), why="the folder does not exist", hint=hint)
    folder = Path(tempfile.mkdtemp(prefix="auditor-demo-"))
    return Options(
        seconds=seconds,
        rate=rate,
        seed=secrets.randbelow(1_000_000) if seed is None else seed,
        folder=folder,
        ledger=ledger or folder / "ledger.db",
        otlp=otlp,
    )


def _given(url: str, management_url: str | None) -> Broker:
    """The broker that the command line names; its password comes from the environment, or from whoever sits there."""
    from auditor.demo.server import GivenBroker

    parts = urlsplit(url)
    if parts.password is not None:
        raise SettingsError(
            "Cannot use --broker-url",
            why="it has a password in it, and everybody on this machine can read command lines",
            hint=f"Put the password into the environment variable {PASSWORD}, or wait to be asked.",
        )
    try:
        broker = GivenBroker(url)
    except (BrokerError, ValueError):
        raise SettingsError(
            "Cannot use --broker-url", on=url, hint="It should be like amqp://USER@HOST:5672."
        ) from None
    broker.management_url = management_url or f"http://{broker.host}:15672"
    broker.password = os.environ.get(PASSWORD) or click.prompt(f"Password of {broker.user}", hide_input=True, err=True)
    return broker


@contextmanager
def _interrupted_by(*signals: signal.Signals) -> Iterator[None]:
    """Let these signals interrupt as Ctrl-C does, so that whatever ends the demo, it clears away what it made."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
