"""The commands that speak to the broker: run and check."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from auditor import log
from auditor.settings import load

_config = click.option(
    "--config", type=click.Path(path_type=Path), help="Settings file.  [default: /etc/auditor/auditor.toml]"
)
_ledger = click.option("--ledger", type=click.Path(path_type=Path), help="Ledger file, in place of the settings'.")


@click.command()
@_config
@_ledger
def run(config: Path | None, ledger: Path | None) -> None:
    """Audit until stopped: the daemon, in the foreground.

    SIGTERM and SIGINT end it after the batch in hand is written.
    """
    settings = load(config, overrides=_overrides(ledger))
    log.setup(settings.log.level, settings.log.format)
    from auditor import daemon  # here, because the reading commands should not wait for aio-pika

    asyncio.run(daemon.run(settings))


@click.command()
@_config
@_ledger
def check(config: Path | None, ledger: Path | None) -> None:
    """Check settings, broker, permissions, firehose, clock and ledger, and say what to do about each finding.

    Also tries the Alertmanagers, the webhooks and the receiver of spans. Exits with 1 when something is wrong; changes
    nothing, and tells nobody anything.
    """
    settings = load(config, overrides=_overrides(ledger))
    log.setup("error")  # the findings say it all; the libraries would add lines of their own
    from auditor import check as checks

    findings = asyncio.run(checks.run(settings))
    for finding in findings:
        mark = "ok  " if finding.good else "BAD "
        click.echo(f"{mark} {finding.subject}: {finding.says}")
        if finding.advice:
            click.echo("\n".join(f"       {line}" for line in finding.advice.splitlines()))
    if not all(finding.good for finding in findings):
        sys.exit(1)


def _overrides(ledger: Path | None) -> dict[str, Any]:
    return {} if ledger is None else {"ledger": {"path": ledger}}
