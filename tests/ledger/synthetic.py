"""Big ledgers of made-up traffic, written by the writer itself: for tests of plans and for benchmarks.

python -m tests.ledger.synthetic build/ledger.db 1000000
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from auditor.core.changes import Changes, DeliveryRow, HopRow, MessageRow
from auditor.core.hops import Reason, State
from auditor.core.stages import Orders, Recall, Stage, StageTable
from auditor.ledger.writer import Ledger, Status

START = 1_760_000_000_000_000  # microseconds since the epoch
STEP = 500  # microseconds between two publishes
HOUR = 3_600_000_000  # microseconds
STAGES = ("INITIATED", "FILE_UPLOADED", "SUBMITTED", "PRICE_CALCULATED", "MANUFACTURING_APPROVED")
VERDICTS = (
    (State.LOST, Reason.QUEUE_EMPTY),
    (State.STUCK, Reason.NO_CONSUMER),
    (State.DEAD_LETTERED, Reason.EXPIRED),
    (State.UNROUTABLE, Reason.NO_QUEUE),
)


def status(vhost: str = "/", *, updated_at: int = START, **others: object) -> Status:
    """Return a status with everything at rest."""
    values: dict[str, object] = {
        "vhost": vhost,
        "connected": True,
        "watermark": updated_at,
        "last_event_at": updated_at,
        "updated_at": updated_at,
        "queue_depth": 0,
        "open_hops": 0,
        "published": 0,
        "delivered": 0,
        "undecodable": 0,
        "orphans": 0,
        "traced": 0,
        "pid": 1,
        "version": "0",
        "broker": "RabbitMQ 3.10.8",
        "problem": None,
    }
    return Status(**(values | others))  # type: ignore[arg-type]


def traffic(messages: int, *, lost: int = 100, first: int = 1, seed: int = 1, batch: int = 1000) -> Iterator[Changes]:
    """Give batches of messages with one hop each, all delivered but for `lost` of them, which are spread evenly.

    Typical sizes: a UUID as message id, an order id of 12 characters, ten messages an order.
    """
    random = Random(seed)
    orders = Orders(StageTable(Stage(name, "", HOUR) for name in STAGES), Recall(lambda order: None, lambda entry: []))
    every = max(1, messages // lost) if lost else 0
    for start in range(0, messages, batch):
        changes = Changes()
        for index in range(start, min(start + batch, messages)):
            number = first + index
            digits = f"{random.getrandbits(128):032x}"
            order = f"ORD-{index // 10 + random.randrange(500):08d}"
            published_at = START + number * STEP
            side = random.randrange(16)
            changes.messages.append(
                MessageRow(
                    id=number,
                    vhost="/",
                    exchange="crm.orders",
                    routing_key="order.status.changed",
                    message_id=f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}",
                    identity=random.getrandbits(64) - (1 << 63),
                    order_id=order,
                    stage=STAGES[index % len(STAGES)],
                    sender="crm",
                    user_id=None,
                    error=None,
                    user="crm",
                    connection=f"10.0.0.{side}:41000 -> 10.0.0.100:5672",
                    node="rabbit@broker",
                    priority=0,
                    size=512,
                    trace_context=None,
                    published_at=published_at,
                    time_source="arrival",
                )
            )
            if every and index % every == every // 2:
                state, reason = VERDICTS[index // every % len(VERDICTS)]
                judged_at = published_at + 60_000_000
                queue = "" if state is State.UNROUTABLE else "mes.orders"
                hop = HopRow(number, 0, queue, "crm->mes", state, reason, 60_000_000, None, 0, judged_at)
            else:
                wait = random.randrange(1_000, 200_000)
                hop = HopRow(number, 0, "mes.orders", "crm->mes", State.DELIVERED, None, 60_000_000, wait, 1, None)
                connection = f"10.0.1.{side}:42000 -> 10.0.0.100:5672"
                changes.deliveries.append(DeliveryRow(number, 0, 1, wait, "mes", connection, False))
            changes.hops.append(hop)
        changes.entries += orders.see(changes.messages)
        yield changes


def write(path: Path, messages: int, *, lost: int = 100, batch: int = 1000, seed: int = 1) -> tuple[float, float]:
    """Write a ledger; return the writer's seconds of CPU and of time, the making of the rows left out."""
    ledger = Ledger.open(path)
    cpu = elapsed = 0.0
    for changes in traffic(messages, lost=lost, first=ledger.next_message_id, seed=seed, batch=batch):
        now = changes.messages[-1].published_at
        cpu_before, before = time.process_time(), time.perf_counter()
        ledger.commit(changes, status=status(updated_at=now))
        cpu += time.process_time() - cpu_before
        elapsed += time.perf_counter() - before
    ledger.close()
    return cpu, elapsed


if __name__ == "__main__":
    target, count = Path(sys.argv[1]), int(sys.argv[2])
    cpu_seconds, seconds = write(target, count, batch=int(sys.argv[3]) if len(sys.argv) > 3 else 1000)
    sys.stdout.write(
        f"{count} messages: {cpu_seconds / count * 1e6:.1f} us CPU and {seconds / count * 1e6:.1f} us each, "
        f"{target.stat().st_size / count:.0f} bytes each\n"
    )
