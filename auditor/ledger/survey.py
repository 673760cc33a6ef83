"""What the alerts and the gauges ask the ledger, every few seconds, on a connection of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from auditor.core.alerts import Against, Exports, GapSpan, InStage, Labels, Survey, Vhost
from auditor.core.tally import OTHER
from auditor.ledger.words import AGAINST_SQL

Row = dict[str, Any]
Ask = Callable[[str, Sequence[object] | Mapping[str, object]], list[Row]]

_AGAINST = f"""SELECT vhost, (SELECT name FROM names WHERE id = flow_id) AS flow,
    (SELECT name FROM names WHERE id = queue_id) AS queue,
    (SELECT name FROM names WHERE id = state_id) AS state,
    (SELECT name FROM names WHERE id = reason_id) AS reason, hops, oldest_at, newest
FROM (
    SELECT c.vhost, h.flow_id, h.queue_id, h.state_id, h.reason_id,
        count(*) AS hops, min(m.published_at) AS oldest_at, max(h.message) AS newest
    FROM hops h INDEXED BY hops_against CROSS JOIN messages m ON m.id = h.message
        CROSS JOIN clients c ON c.id = m.client_id
        LEFT JOIN acknowledged_hops a ON a.message = h.message AND a.hop = h.number AND a.state_id = h.state_id
    WHERE h.state_id IN ({AGAINST_SQL}) AND h.message >= ? AND a.message IS NULL
        AND ifnull(h.judged_at, m.published_at) >= ?
    GROUP BY c.vhost, h.flow_id, h.queue_id, h.state_id, h.reason_id)"""

_STAGES = """SELECT (SELECT name FROM names WHERE id = vhost_id) AS vhost,
    (SELECT name FROM names WHERE id = stage_id) AS stage, (SELECT name FROM names WHERE id = system_id) AS system,
    orders, oldest_at, stuck, to_tell, to_tell_oldest_at
FROM (
    SELECT e.vhost_id, e.stage_id, e.system_id, count(*) AS orders, min(e.entered_at) AS oldest_at,
        sum(ifnull(e.due_at < :seen, 0)) AS stuck,
        sum(ifnull(e.due_at < :seen AND e.due_at >= :since AND a.message IS NULL, 0)) AS to_tell,
        min(CASE WHEN e.due_at < :seen AND e.due_at >= :since AND a.message IS NULL THEN e.entered_at END)
            AS to_tell_oldest_at
    FROM open_entries e LEFT JOIN acknowledged_entries a ON a.message = e.message
    GROUP BY e.vhost_id, e.stage_id, e.system_id)"""

_GAPS = "SELECT vhost, reason, from_at, to_at FROM gaps WHERE to_at IS NULL OR to_at >= ?"

_GAP_SECONDS = """SELECT vhost, sum(ifnull(to_at, max(from_at, ?)) - from_at) / 1e6 AS seconds
FROM gaps WHERE from_at IS NOT NULL GROUP BY vhost"""

_EXPORTS = """SELECT spans, refused, dropped, invalid_contexts, (SELECT count(*) FROM outbox) AS waiting,
    (SELECT published_at FROM messages WHERE id = (SELECT min(message) FROM outbox)) AS oldest_at
FROM tracing"""

_VHOSTS = "SELECT vhost AS name, connected, watermark, updated_at, problem FROM status WHERE pid = ? ORDER BY vhost"

_EXAMPLES = f"""SELECT m.order_id, m.message_id, m.published_at, m.trace_context
FROM hops h INDEXED BY hops_against CROSS JOIN messages m ON m.id = h.message
WHERE h.state_id IN ({AGAINST_SQL}) AND h.state_id = (SELECT id FROM names WHERE name = :state)
    AND h.flow_id = (SELECT id FROM names WHERE name = :flow)
    AND (:queue IS NULL OR h.queue_id = (SELECT id FROM names WHERE name = :queue))
    AND h.reason_id = (SELECT id FROM names WHERE name = :reason)
    AND EXISTS (SELECT 1 FROM clients c WHERE c.id = m.client_id AND c.vhost = :vhost)
    AND NOT EXISTS (SELECT 1 FROM acknowledged_hops a
        WHERE a.message = h.message AND a.hop = h.number AND a.state_id = h.state_id)
ORDER BY h.message DESC LIMIT :limit"""

_STUCK_EXAMPLES = """SELECT e.order_id, NULL AS message_id, e.entered_at AS published_at, NULL AS trace_context
FROM open_entries e
WHERE e.stage_id = (SELECT id FROM names WHERE name = :stage) AND e.due_at < :seen
    AND e.system_id = (SELECT id FROM names WHERE name = :system)
    AND NOT EXISTS (SELECT 1 FROM acknowledged_entries a WHERE a.message = e.message)
ORDER BY e.due_at DESC LIMIT :limit"""

_STATE_OF = {"MessageDeadLettered": "dead_lettered", "MessageUnroutable": "unroutable"}
_STUCK = ("waiting", "no_consumer")


def take(ask: Ask, *, pid: int, now: int, since: int, first_message: int, gaps_since: int) -> Survey:
    """Look at everything that might have to be told.

    `pid` is the process whose vhosts count, `since` the oldest verdict that is told, `first_message` one before which
    none was published whose verdict is; times are microseconds.
    """
    vhosts = [Vhost(**{**row, "connected": bool(row["connected"])}) for row in ask(_VHOSTS, (pid,))]
    return Survey(
        against=[Against(**row) for row in ask(_AGAINST, (first_message, since))],
        stages=[InStage(**row) for row in ask(_STAGES, {"seen": seen(vhosts), "since": since})],
        gaps=[GapSpan(**row) for row in ask(_GAPS, (gaps_since,))],
        vhosts=vhosts,
        gap_seconds=[(row["vhost"], row["seconds"]) for row in ask(_GAP_SECONDS, (now,))],
        exports=Exports(**ask(_EXPORTS, ())[0]),
    )


def seen(vhosts: list[Vhost]) -> int:
    """Return the time before which everything has been seen, in all vhosts: an order may pass through several."""
    return min((vhost.watermark or 0 for vhost in vhosts), default=0)


def examples(ask: Ask, labels: Labels, *, limit: int, seen: int) -> list[Row]:
    """Return the newest hops, or orders, that an alert is about."""
    about = {"vhost": "", "flow": "", "queue": "", "reason": "", "stage": "", "system": ""} | dict(labels)
    name = about["alertname"]
    if name == "OrderStuck":
        return ask(_STUCK_EXAMPLES, {**about, "limit": limit, "seen": seen})
    state = _STATE_OF.get(name) or ("stuck" if about["reason"] in _STUCK else "lost")
    queue = None if about["queue"] == OTHER else about["queue"]
    return ask(_EXAMPLES, {**about, "state": state, "queue": queue, "limit": limit})
