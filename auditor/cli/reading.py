"""The commands that read the ledger: lost, order, orders, stages, and so on. They need neither daemon nor broker."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from auditor.cli.output import Format, Since, clock, formats, show, span
from auditor.core.hops import AGAINST, Reason, State
from auditor.ledger.queries import Reader
from auditor.settings import load

_HOP = ("published", "age_seconds", "order_id", "message_id", "flow", "queue", "state", "reason")
_TIMELINE = ("time", "event", "stage", "sender", "exchange", "queue", "state", "reason", "wait_seconds", "message_id")
_DELIVERY = ("received", "queue", "attempt", "wait_seconds", "redelivered", "consumer_user", "consumer_connection")
_GAP = ("vhost", "reason", "began", "ended", "seconds", "missing")
_ORDER = ("order_id", "stage", "system", "entered", "seconds", "due", "stuck", "blind", "acknowledged", "errors")
_STAGE = (
    "stage", "system", "entries", "mean_seconds", "median_seconds", "p95_seconds", "max_seconds", "orders_in_it",
    "longest_now_seconds", "skipped", "repeated", "backwards", "errors",
)  # fmt: skip
_BAD_NEWS = 1
_STALE = 10.0  # seconds; the daemon renews its status every second

Command = Callable[..., None]


def reads_ledger(command: Command) -> Command:
    """Add `--ledger` and `--config`; the command is called with an open Reader first."""

    @click.option("--ledger", type=click.Path(path_type=Path), help="Ledger file.  [default: that of the settings]")
    @click.option("--config", type=click.Path(path_type=Path), help="Settings file, to find the ledger.")
    @functools.wraps(command)
    def with_reader(ledger: Path | None, config: Path | None, **options: Any) -> None:
        # with --ledger alone the settings are not read: they may hold a password that this user may not see
        settings = load(config) if ledger is None or config is not None else None
        path = ledger
        if settings is not None:
            click.get_current_context().obj = settings.tracing.ui_url
            path = path or settings.ledger.path
        assert path is not None
        with Reader.open(path) as reader:
            command(reader, **options)

    return with_reader


def filters(states: list[State]) -> Callable[[Command], Command]:
    """Add the filters that `lost` and `hops` share."""
    options = (
        click.option("--since", type=Since(), help="Published since: an age (2h, 7d) or an ISO 8601 time (UTC)."),
        click.option("--flow", metavar="NAME", help="Of this flow."),
        click.option("--queue", metavar="NAME", help="To this queue."),
        click.option("--order", metavar="ID", help="Of this order."),
        click.option("--state", type=click.Choice([state.value for state in states]), help="In this state."),
        click.option("--reason", type=click.Choice([reason.value for reason in Reason]), help="For this reason."),
        click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many."),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command()
@filters(sorted(AGAINST))
@click.option("--fail", is_flag=True, help="Exit with 1 if there is any: for scripts and cron.")
@formats
@reads_ledger
def lost(reader: Reader, *, fail: bool, output: Format, limit: int, **chosen: Any) -> None:
    """Show what was published and not delivered: every hop that is stuck, lost, dead-lettered or unroutable.

    Newest first. The reason says what the claim rests on.

    \b
    auditor lost --since 1d --flow 'crm->mes'
    auditor lost --order A-1047 --json
    """
    rows = reader.lost(limit=limit, **chosen)
    show(rows, _HOP, output)
    if not rows:
        click.echo("No hop is stuck, lost, dead-lettered or unroutable.", err=True)
    elif len(rows) == limit and (total := reader.count_lost(**chosen)) > limit:
        click.echo(f"Shown: the newest {limit} of {total}. See --limit.", err=True)
    if rows and fail:
        sys.exit(_BAD_NEWS)


@click.command()
@filters(list(State))
@formats
@reads_ledger
def hops(reader: Reader, *, output: Format, limit: int, **chosen: Any) -> None:
    """Show hops, each a message on its way to one queue, newest first, whatever their state."""
    rows = reader.hops(limit=limit, **chosen)
    show(rows, (*_HOP, "wait_seconds", "attempts"), output)
    if not rows:
        click.echo("No such hop.", err=True)


@click.command()
@click.argument("order_id")
@formats
@reads_ledger
def order(reader: Reader, *, order_id: str, output: Format) -> None:
    """Show the story of an order: its stages, messages, deliveries and verdicts, and how long each waited."""
    traces = reader.order_traces(order_id)
    rows = [{**row, "trace_id": traces[0] if traces else None} for row in reader.order(order_id)]
    show(rows, _TIMELINE, output)
    if not rows:
        click.echo(f"The ledger has nothing of order {order_id}.", err=True)
        sys.exit(_BAD_NEWS)
    if output == "table":
        _show_traces(traces)


@click.command()
@click.argument("message_id")
@formats
@reads_ledger
def message(reader: Reader, *, message_id: str, output: Format) -> None:
    """Show everything known of a message: where it was published, each hop, each delivery."""
    rows = [{**row, "trace_id": reader.message_trace(row)} for row in reader.message(message_id)]
    show(rows, (*_HOP, "attempts", "exchange", "routing_key", "publisher_user"), output)
    if not rows:
        click.echo(f"The ledger has no message {message_id}.", err=True)
        sys.exit(_BAD_NEWS)
    deliveries = [delivery for row in rows for delivery in row["deliveries"]]
    if output == "table" and deliveries:
        click.echo()
        show(deliveries, _DELIVERY, output)
    if output == "table":
        _show_traces(list(dict.fromkeys(row["trace_id"] for row in rows if row["trace_id"])))


def _show_traces(traces: list[str]) -> None:
    """Say in which traces it is told, and where they can be seen."""
    if traces:
        click.echo()
    page = click.get_current_context().obj
    for trace_id in traces:
        click.echo(f"trace {trace_id}" + (f"  {page.replace('{trace_id}', trace_id)}" if page else ""))


@click.command()
@click.option("--fail", is_flag=True, help="Exit with 1 unless all is well right now: for scripts and containers.")
@formats
@reads_ledger
def status(reader: Reader, *, fail: bool, output: Format) -> None:
    """Show how the audit stands: connected, how far it has seen, what is open, which time was not audited."""
    rows = [_aged(row) for row in reader.status()]
    if output == "table":
        _tell_status(reader, rows)
    else:
        show(rows, (), output)
    # of a vhost that the settings no longer name the last row stays
    now = [row for row in rows if row["running"]]
    if fail and not (now and all(row["connected"] and not row["problem"] for row in now)):
        sys.exit(_BAD_NEWS)


def _tell_status(reader: Reader, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        _tell(row)
    if not rows:
        click.echo("The ledger is there, but no auditor has written to it yet.", err=True)
    _tell_tracing(reader.tracing())
    gaps = reader.gaps(limit=5)
    if gaps:
        click.echo("\nNot audited (the newest 5 gaps):")
        show(gaps, _GAP, "table")
    click.echo(f"\nLedger: {reader.size() / 1_000_000:,.1f} MB")


@click.command()
@formats
@reads_ledger
def coverage(reader: Reader, *, output: Format) -> None:
    """Show how much of the time since the first start was audited, and each span that was not."""
    rows = reader.coverage()
    show(rows, ("vhost", "since", "until", "seconds", "gaps", "gap_seconds", "missing", "audited_share"), output)
    gaps = reader.gaps()
    if output == "table" and gaps:
        click.echo("\nNot audited:")
        show(gaps, _GAP, output)


@click.command()
@click.option("--stuck", is_flag=True, help="Only those too long in their stage.")
@click.option("--stage", metavar="NAME", help="In this stage.")
@click.option("--system", metavar="NAME", help="In a stage of this system.")
@click.option("--fail", is_flag=True, help="Exit with 1 if there is any: for scripts and cron.")
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
@formats
@reads_ledger
def orders(reader: Reader, *, fail: bool, output: Format, **chosen: Any) -> None:
    """Show orders that are on their way: the stage that each is in and since when, the longest first.

    Stuck is one that is in its stage for longer than the stage's deadline. Blind means that a span of time since it
    entered was not audited: it may have gone on unseen.

    
    auditor orders --stuck
    auditor orders --stage MANUFACTURING_APPROVED --json
    """
    rows = reader.open_orders(**chosen)
    show(rows, _ORDER, output)
    if not rows:
        click.echo("No such order is on its way.", err=True)
    if rows and fail:
        sys.exit(_BAD_NEWS)


@click.command()
@formats
@reads_ledger
def stages(reader: Reader, *, output: Format) -> None:
    """Show how long orders are in each stage: mean, median, 95th percentile, and who is in it now."""
    show(reader.stage_times(), _STAGE, output)
    if output == "table":
        done = reader.processing()
        if done["orders"]:
            mean = span(done["mean_seconds"])
            click.echo(f"\nFrom the first stage to the last: {done['orders']:,} orders, {mean} on average")


def _aged(row: dict[str, Any]) -> dict[str, Any]:
    now = time.time()
    age = now - row["updated_at"] / 1e6
    lag = None if row["watermark"] is None else now - row["watermark"] / 1e6
    return {**row, "running": age < _STALE, "age_seconds": age, "lag_seconds": lag}


def _tell(row: dict[str, Any]) -> None:
    if not row["running"]:
        at_work = f"no auditor is at work (last sign {span(row['age_seconds'])} ago)"
    elif row["connected"]:
        at_work = f"reading the firehose of RabbitMQ {row['broker']}"
    else:
        at_work = "running, but not connected to the broker"
    seen = "nothing was seen yet" if row["lag_seconds"] is None else f"seen until {span(row['lag_seconds'])} ago"
    click.echo(f"vhost {row['vhost']}: {at_work}")
    if row["problem"]:
        click.echo(f"  problem      {row['problem']}")
    click.echo(f"  watermark    {seen}")
    click.echo(f"  open hops    {row['open_hops']:,}")
    click.echo(f"  events       {row['published']:,} published, {row['delivered']:,} delivered")
    click.echo(f"  completeness {_completeness(row)}")
    if row["completeness_note"]:
        click.echo(f"               {row['completeness_note']}")
    click.echo(f"  orphans      {row['orphans']:,} deliveries without a known publish")
    click.echo(f"  undecodable  {row['undecodable']:,} events")


def _completeness(row: dict[str, Any]) -> str:
    """Tell how the broker's counter compares with the ledger."""
    if row["counted"] is None:
        return "not compared with the broker's counters"
    since = clock(row["counted_since_at"])
    least, most = row["seen_least"], row["seen_most"]
    # under traffic the two cannot be read at one instant
    seen = f"{least:,}" if least == most else f"between {least:,} and {most:,}"
    told = f"the broker counted {row['counted']:,} publishes since {since}, the ledger has {seen}"
    return f"{told}; {row['missing']:,} are missing" if row["missing"] else told


def _tell_tracing(row: dict[str, Any]) -> None:
    if not (row["spans"] or row["waiting"] or row["refused"] or row["dropped"] or row["problem"]):
        return  # it was never on
    click.echo(f"\nTracing: {row['spans']:,} spans exported, {row['waiting']:,} things wait to be")
    if row["problem"]:
        click.echo(f"  problem      {row['problem']}")
    if row["refused"]:
        click.echo(f"  refused      {row['refused']:,} spans, by the receiver")
    if row["dropped"]:
        click.echo(f"  dropped      {row['dropped']:,} things, before they were exported")
    if row["invalid_contexts"]:
        click.echo(f"  not usable   the trace context of {row['invalid_contexts']:,} messages")
