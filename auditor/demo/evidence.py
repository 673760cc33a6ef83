"""The auditor of the demo: its settings, its process, and what its ledger says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from auditor.core.hops import Reason, State
from auditor.demo.faults import DEAD_LETTERS
from auditor.demo.orders import STAGES
from auditor.demo.processes import Daemon
from auditor.demo.report import SeenHop
from auditor.demo.topology import Place
from auditor.errors import LedgerError
from auditor.ledger.queries import Reader

Row = dict[str, Any]

DEADLINE = 4.0  # seconds; real flows have minutes, but the demo's verdicts are to fall while somebody watches
STUCK = 6.0  # seconds that an order may be in a stage; none needs one in this hasty factory
REINSPECT = 2.0  # seconds until a stuck hop's queue is looked at again


def settings(url: str, place: Place, ledger: Path, otlp: str) -> str:
    """The auditor.toml of the demo; the password goes by the environment, spans to the OTLP receiver at a base URL."""
    body = 'order_id = ["body:order.id"]\nstage = ["body:order.stage"]\nuser_id = ["body:user"]'
    *steps, (last, ending) = STAGES.items()
    stages = [f'[[stages]]\nname = "{name}"\nsystem = "{system}"\ndeadline = "{STUCK:g}s"\n' for name, system in steps]
    stages.append(f'[[stages]]\nname = "{last}"\nsystem = "{ending}"\n')
    return f"""\
# The settings of the demo's auditor. config/auditor.toml explains every option.

[broker]
url = "{url}"
user = "{place.users["auditor"]}"
vhosts = ["{place.vhost}"]

[tap]
enable_firehose = false  # the demo turned it on when it made the vhost

[ledger]
path = "{ledger}"

[audit]
reinspect = "{REINSPECT:g}s"

[tracing]
enabled = true
protocol = "http/protobuf"
endpoint = "{otlp}"

[http]
listen = "127.0.0.1:0"

{chr(10).join(stages)}
[[flows]]
name = "shop->crm"
deadline = "{DEADLINE:g}s"
exchanges = ["shop.orders"]
queues = ["crm.*"]
{body}

[[flows]]
name = "crm->mes"
deadline = "{DEADLINE:g}s"
exchanges = ["crm.orders"]
queues = ["mes.*"]
dead_letter_queues = ["{DEAD_LETTERS}"]
{body}

[[flows]]
name = "mes->crm"
deadline = "{DEADLINE:g}s"
exchanges = ["mes.orders"]
queues = ["crm.*"]
{body}
"""


def start(config: Path, place: Place, log: Path) -> Daemon:
    """Start the auditor as an operator would, as a process of its own."""
    password = {"AUDITOR_BROKER__PASSWORD": place.passwords["auditor"]}
    return Daemon("auditor", ["auditor.cli", "run", "--config", str(config)], log, env=password)


class Evidence:
    """Reads the ledger while the auditor writes it; before there is one, it is empty."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._seen = False  # a status has been read

    def status(self) -> Row:
        """The auditor's status of the demo's vhost; empty before there is one."""
        rows = self._ask(Reader.status)
        self._seen = self._seen or bool(rows)
        return rows[0] if rows else {}

    def verdicts(self) -> list[SeenHop]:
        """The hops that something is claimed against, newest first."""
        return [_hop(row) for row in self._ask(lambda reader: reader.lost(limit=None))]

    def hops(self) -> list[SeenHop]:
        """Every hop."""
        return [_hop(row) for row in self._ask(lambda reader: reader.hops(limit=None))]

    def _ask(self, question: Callable[[Reader], list[Row]]) -> list[Row]:
        try:
            with Reader.open(self._ledger) as reader:
                return question(reader)
        except LedgerError:
            # The auditor makes the file and then its tables; until the first status is in it, this is no failure.
            if self._seen:
                raise
            return []


def _hop(row: Row) -> SeenHop:
    return SeenHop(
        message=row["message"],
        message_id=row["message_id"],
        order=row["order_id"],
        queue=row["queue"],
        state=State(row["state"]),
        reason=Reason(row["reason"]) if row["reason"] else None,
        attempts=row["attempts"],
    )
