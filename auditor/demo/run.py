"""The demo from its beginning to its end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from auditor.demo import evidence, topology
from auditor.demo.display import Display
from auditor.demo.facts import FactsReader
from auditor.demo.faults import FAULTS, Plan, make_plan, queue_of
from auditor.demo.management import Management
from auditor.demo.orders import STAGES
from auditor.demo.processes import Daemon, Listener
from auditor.demo.progress import Ending, Progress
from auditor.demo.receiver import Receiver, Span
from auditor.demo.report import Report
from auditor.demo.server import Broker
from auditor.demo.services import SYSTEMS
from auditor.demo.topology import Place
from auditor.demo.tree import traces_of, tree
from auditor.errors import AuditorError, BrokerError

_START = 30.0  # seconds that the systems and the auditor have to get ready
_TRAFFIC = 60.0  # seconds that the orders have, after the last one was taken, to come to their end
_VERDICTS = 45.0  # seconds that the auditor has, after the traffic, to reach its verdicts
# For this long a right result has to stand: every deadline has passed by then, and every stuck hop was looked at again.
_STEADY = evidence.DEADLINE + evidence.REINSPECT  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for."""

    seconds: float  # for which the shop takes orders
    rate: float  # orders a second
    seed: int
    folder: Path  # for facts, logs and settings; there already
    ledger: Path  # not there yet
    otlp: str = ""  # base URL of who takes spans; empty: the demo itself does

    @property
    def orders(self) -> int:
        """How many orders that makes."""
        return round(self.seconds * self.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it."""

    report: Report
    orders: int
    events: int  # trace events, as the auditor counted them
    broker: str  # its version
    spans: tuple[Span, ...] | None  # that came in; None: they went elsewhere
    trees: tuple[tuple[str, tuple[str, ...]], ...]  # a trace's title and lines: of a good order, and of a lost one


def run(options: Options, broker: Broker, display: Display) -> Outcome:
    """Run the demo on a broker and leave nothing of it there; AuditorError when a part of it fails."""
    api = broker.management
    place = Place.random()
    plan = make_plan(options.seed, options.orders)
    ledger = evidence.Evidence(options.ledger)
    with ExitStack() as cleanup:
        cleanup.callback(_remove, api, place, display)
        receiver = None if options.otlp else cleanup.enter_context(Receiver())
        options = replace(options, otlp=options.otlp if receiver is None else receiver.endpoint)
        topology.build(api, place)
        display.say(f"made the virtual host {place.vhost} with its users, exchanges and queues")

        config = options.folder / "auditor.toml"
        config.write_text(evidence.settings(broker.amqp_url, place, options.ledger, options.otlp))
        auditor = cleanup.enter_context(evidence.start(config, place, options.folder / "auditor.log"))
        systems = {name: cleanup.enter_context(start(name, options, broker, place)) for name in SYSTEMS}
        progress = Progress(
            plan=plan,
            facts=FactsReader({name: facts_file(name, options) for name in SYSTEMS}),
            evidence=ledger,
            processes=[auditor, *systems.values()],
            endings=endings(api, place, systems["mes"]),
            display=display,
        )
        _play(progress, systems["shop"], auditor, options, display)

        # Facts and ledger are compared as they stand in the end: nobody sends any more, and the auditor has drained.
        for process in (*systems.values(), auditor):
            process.finish()
        report, status = progress.report(), ledger.status()
        return Outcome(
            report=replace(report, differences=(*report.differences, *_totals(report, status))),
            orders=len(plan.orders),
            events=status["published"] + status["delivered"],
            broker=broker.version,
            spans=None if receiver is None else tuple(receiver.spans),
            trees=() if receiver is None else tuple(_trees(plan, receiver.spans)),
        )


def _trees(plan: Plan, spans: Sequence[Span]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the traces of the first order that met no fault, and of one that was lost."""
    good = next(order for order, line in plan.lines.items() if line not in FAULTS)
    lost = next(claim.order for claim in plan.claims if claim.fault == "purged")
    for order, what in ((good, "which came through"), (lost, "whose approval was purged from the queue")):
        for trace_id in traces_of(spans, order):
            yield f"order {order}, {what}: trace {trace_id}", tuple(tree(spans, trace_id))


def _totals(report: Report, status: evidence.Row) -> Iterator[str]:
    """Yield what the auditor counted and the systems did not: beside the messages, nothing may have come or gone."""
    expected = {"published": report.published, "delivered": report.delivered, "undecodable": 0, "orphans": 0}
    for name, number in expected.items():
        if status[name] != number:
            yield f"{name}: {status[name]} by the auditor's count, and it should be {number}"


def _play(progress: Progress, shop: Listener, auditor: Daemon, options: Options, display: Display) -> None:
    """Open the shop, and wait until the last order and the last verdict are done."""
    if not progress.until(lambda: progress.systems_ready and progress.auditor_ready, _START):
        who = "the auditor" if progress.systems_ready else "a system"
        raise AuditorError(
            "the demo could not begin",
            why=f"{who} was not ready within {_START:g} s",
            hint=f"The logs are in {options.folder}.",
        )
    display.say(f"the auditor, process {auditor.pid}, sees the traffic from now on; the shop opens")
    display.say(f"the stages of an order: {', '.join(STAGES)}")
    shop.tell("open")
    if not progress.until(lambda: progress.traffic_done, len(progress.plan.orders) / options.rate + _TRAFFIC):
        raise AuditorError(
            "the orders of the demo did not come to their end",
            why=f"{len(progress.facts.closed)} of {progress.plan.closing} were closed in time",
            hint=f"What the systems did is in {options.folder}.",
        )
    display.say("every order has come as far as it can; waiting for the last verdicts")
    since: float | None = None  # when the result became right

    def settled() -> bool:
        nonlocal since
        since = (since or time.monotonic()) if progress.report().good else None
        return since is not None and time.monotonic() - since >= _STEADY

    progress.until(settled, _VERDICTS)


def start(name: str, options: Options, broker: Broker, place: Place) -> Listener:
    """Start shop, crm or mes; its settings go by its standard input, since they hold its password."""
    job = {
        "url": broker.url(place.vhost, place.users[name], place.passwords[name]),
        "facts": str(facts_file(name, options)),
        "seed": options.seed,
        "orders": options.orders,
        "rate": options.rate,
        "otlp": options.otlp,
    }
    log = options.folder / f"{name}.log"
    return Listener(name, ["auditor.demo.services", name], log, first_line=json.dumps(job))


def facts_file(system: str, options: Options) -> Path:
    """Where a system writes its facts."""
    return options.folder / f"{system}.jsonl"


def endings(api: Management, place: Place, mes: Listener) -> dict[str, Ending]:
    """The ways in which a line with planned messages is put to an end."""
    return {
        "resume": lambda line: mes.tell(f"resume {line}"),
        "purge": lambda line: api.delete("queues", place.vhost, queue_of(line), "contents"),
        "delete": lambda line: api.delete("queues", place.vhost, queue_of(line)),
    }


def _remove(api: Management, place: Place, display: Display) -> None:
    """Leave the broker as it was found; what cannot be removed is named, and hides no other failure."""
    try:
        topology.remove(api, place)
    except BrokerError as error:
        display.say(
            f"{error}\nThe virtual host {place.vhost} and the users {', '.join(place.users.values())} may be left."
        )
