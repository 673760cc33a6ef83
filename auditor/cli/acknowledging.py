"""The command that says "seen": ack. It reads the ledger, and hands what was chosen to the daemon."""

from __future__ import annotations

import getpass
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import click

from auditor.cli.output import Format, Since, formats, show
from auditor.core.hops import AGAINST, Reason
from auditor.ledger import inbox
from auditor.ledger.inbox import Acknowledgement
from auditor.ledger.queries import Reader
from auditor.settings import load

_TAKEN_WITHIN = 10.0  # seconds; the daemon looks every two
_POLL = 0.1  # seconds
_LIST = ("acknowledged", "who", "hops", "orders", "chosen", "note")


@click.command()
@click.option("--note", help="Why: for whoever asks later.")
@click.option("--by", "who", metavar="NAME", help="Who acknowledges.  [default: the user of this shell]")
@click.option("--all", "everything", is_flag=True, help="All that has not been acknowledged yet.")
@click.option("--since", type=Since(), help="Published since: an age (2h, 7d) or an ISO 8601 time (UTC).")
@click.option("--flow", metavar="NAME", help="Of this flow.")
@click.option("--queue", metavar="NAME", help="To this queue.")
@click.option("--order", metavar="ID", help="Of this order; its stage too, if it is stuck there.")
@click.option("--state", type=click.Choice(sorted(state.value for state in AGAINST)), help="In this state.")
@click.option("--reason", type=click.Choice([reason.value for reason in Reason]), help="For this reason.")
@click.option("--stage", metavar="NAME", help="Orders that are stuck in this stage, and no messages.")
@click.option("--list", "listing", is_flag=True, help="Show what was acknowledged, and change nothing.")
@formats
@click.option("--ledger", type=click.Path(path_type=Path), help="Ledger file.  [default: that of the settings]")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file, to find the ledger.")
def ack(
    *,
    ledger: Path | None,
    config: Path | None,
    listing: bool,
    output: Format,
    note: str | None,
    who: str | None,
    everything: bool,
    stage: str | None,
    **chosen: Any,
) -> None:
    """Acknowledge verdicts against messages, and orders that are stuck, so that their alerts end.

    What is lost can never be delivered: somebody has to say that it is dealt with. What is acknowledged is what the
    ledger holds at this moment; later losses are told again, and so is a message whose state changes. It stays in
    `auditor lost`.

    \b
    auditor ack --flow 'crm->mes' --queue mes.orders --note 'sent again by hand, ticket 4711'
    auditor ack --order A-1047 --note 'cancelled by the customer'
    """
    path = ledger if ledger is not None else load(config).ledger.path
    with Reader.open(path) as reader:
        if listing:
            show(reader.acknowledgements(), _LIST, output)
            return
        if note is None:
            raise click.UsageError("Missing option '--note'.")
        if not everything and stage is None and all(value is None for value in chosen.values()):
            raise click.UsageError("Say what is acknowledged, by a filter or --all.")
        hops = [] if stage is not None else reader.unacknowledged(**chosen)
        others = {name for name, value in chosen.items() if value is not None} - {"order"}
        entries = [] if others else reader.stuck_entries(stage=stage, order=chosen["order"])
    request = Acknowledgement(
        at=time.time_ns() // 1000,
        who=who or getpass.getuser(),
        note=note,
        chosen=shlex.join(_chosen(everything, {**chosen, "stage": stage})),
        hops=hops,
        entries=entries,
    )
    if not hops and not entries:
        click.echo("There is nothing of that kind to acknowledge.", err=True)
        sys.exit(1)
    _hand_over(path, request)


def _chosen(everything: bool, chosen: dict[str, Any]) -> list[str]:
    words = [f"--{name}={value}" for name, value in chosen.items() if value is not None]
    return [*(["--all"] if everything else []), *words]


def _hand_over(path: Path, request: Acknowledgement) -> None:
    file = inbox.put(path, request)
    what = f"{len(request.hops):,} hops and {len(request.entries):,} orders"
    end = time.monotonic() + _TAKEN_WITHIN
    while file.exists() and time.monotonic() < end:
        time.sleep(_POLL)
    if file.exists():
        click.echo(f"Handed over: {what}. No auditor has taken it yet; the next one that runs will.", err=True)
    else:
        click.echo(f"Acknowledged: {what}.", err=True)
