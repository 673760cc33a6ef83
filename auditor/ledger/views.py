"""The views: what people ask the ledger, in text and ISO 8601 beside the numbers. `docs/ledger.md` tells their columns.

Names are looked up by scalar subqueries and not by joins: a column that is not asked for costs nothing, and the planner
cannot be tempted to start from `names`. Where the order of tables matters, `CROSS JOIN` and `INDEXED BY` fix it.
"""

from __future__ import annotations

from auditor.ledger import stage_views
from auditor.ledger.columns import NOW, iso
from auditor.ledger.columns import client as _client
from auditor.ledger.columns import name as _name
from auditor.ledger.layout import BLOCK_BITS
from auditor.ledger.words import AGAINST_SQL, STATES


def _routing_key(table: str) -> str:
    stored = f"{table}.routing_key"
    return f"ifnull({stored}, (SELECT name FROM names WHERE id = {table}.routing_key_id)) AS routing_key"


_HOP = f"""m.order_id, m.message_id,
    {_name("h.flow_id", "flow")},
    {_name("h.queue_id", "queue")},
    {_name("h.state_id", "state")},
    {_name("h.reason_id", "reason")},
    {iso("m.published_at", "published")},
    {NOW} - m.published_at / 1000000 AS age_seconds,
    {_name("m.exchange_id", "exchange")},
    {_routing_key("m")},
    {_name("m.stage_id", "stage")},
    {_name("m.sender_id", "sender")},
    m.user_id, m.error,
    h.deadline / 1e6 AS deadline_seconds,
    h.wait / 1e6 AS wait_seconds,
    h.attempts,
    {iso("h.judged_at", "judged")},
    {_client("m.client_id", "vhost", "vhost")},
    m.published_at, h.judged_at, h.number AS hop, h.state_id"""

HOP_COLUMNS = f"""{_HOP},
    m.size, m.priority, m.identity, m.trace_context,
    {_name("m.time_source_id", "time_source")},
    {_client("m.client_id", "user", "publisher_user")},
    {_client("m.client_id", "connection", "publisher_connection")},
    {_client("m.client_id", "node", "publisher_node")},
    {_client("h.consumer_id", "user", "consumer_user")},
    {_client("h.consumer_id", "connection", "consumer_connection")}"""
"""What `audit` tells of a hop `h` and its message `m`, besides the message's number."""

_AUDIT = f"""SELECT {HOP_COLUMNS}, h.message
FROM hops h CROSS JOIN messages m ON m.id = h.message"""

_LOST = f"""SELECT {_HOP}, h.message
FROM hops h INDEXED BY hops_against CROSS JOIN messages m ON m.id = h.message
WHERE h.state_id IN ({AGAINST_SQL})
ORDER BY h.message DESC, h.number DESC"""

_UNKNOWN = f"""SELECT {_HOP}, h.message
FROM hops h INDEXED BY hops_unknown CROSS JOIN messages m ON m.id = h.message
WHERE h.state_id = {STATES["unknown"]}
ORDER BY h.message DESC, h.number DESC"""

_DELIVERIES = f"""SELECT h.message, h.number AS hop, 1 AS attempt,
    {_name("h.queue_id", "queue")},
    {iso("m.published_at + h.wait", "received")},
    h.wait / 1e6 AS wait_seconds,
    {_client("h.consumer_id", "user", "consumer_user")},
    {_client("h.consumer_id", "connection", "consumer_connection")},
    h.redelivered, m.published_at + h.wait AS received_at, NULL AS orphan
FROM hops h CROSS JOIN messages m ON m.id = h.message WHERE h.consumer_id IS NOT NULL
UNION ALL
SELECT d.message, d.hop, d.attempt,
    (SELECT name FROM names WHERE id = (SELECT queue_id FROM hops h WHERE h.message = d.message AND h.number = d.hop)),
    {iso("m.published_at + d.wait", "received")},
    d.wait / 1e6,
    {_client("d.consumer_id", "user", "consumer_user")},
    {_client("d.consumer_id", "connection", "consumer_connection")},
    d.redelivered, m.published_at + d.wait, NULL
FROM further_deliveries d CROSS JOIN messages m ON m.id = d.message
UNION ALL
SELECT NULL, NULL, NULL,
    {_name("o.queue_id", "queue")},
    {iso("o.received_at", "received")},
    NULL,
    {_client("o.consumer_id", "user", "consumer_user")},
    {_client("o.consumer_id", "connection", "consumer_connection")},
    o.redelivered, o.received_at, o.id
FROM orphans o"""

_TAIL = f"(SELECT ifnull(max(block) + 1, 0) << {BLOCK_BITS} FROM blocks)"

_FOUND = f"""SELECT k.key, k.message FROM blocks b CROSS JOIN keys k ON k.block = b.block
UNION ALL
SELECT message_id, id FROM messages WHERE id >= {_TAIL} AND message_id IS NOT NULL
UNION ALL
SELECT order_id, id FROM messages WHERE id >= {_TAIL} AND order_id IS NOT NULL AND order_id IS NOT message_id"""

_ORDER_MESSAGES = """SELECT f.key AS order_id, f.message
FROM found f CROSS JOIN messages m ON m.id = f.message WHERE m.order_id = f.key"""

_VERDICT_COUNTS = ",\n    ".join(
    f"count(CASE WHEN h.state_id = {number} THEN 1 END) AS {state}" for state, number in STATES.items()
)


_STATE_COLUMNS = ", ".join(STATES)

_STATE_WINDOWS = ",\n        ".join(
    f"count(CASE WHEN h.state_id = {number} THEN 1 END) OVER o AS {state}" for state, number in STATES.items()
)

# Windows where GROUP BY seems to fit: a condition on the order reaches into them, and would not reach through GROUP BY.
# The newest stage is the end of the greatest text of time, message and stage.
_ORDERS = f"""SELECT order_id,
    {_name("CAST(substr(newest, 42) AS INTEGER)", "stage")},
    {_name("worst", "worst_state")},
    messages, hops, {_STATE_COLUMNS},
    {iso("first_seen_at", "first_seen")},
    {iso("last_seen_at", "last_seen")},
    first_seen_at, last_seen_at
FROM (
    SELECT n.order_id, max(h.state_id) OVER o AS worst, count(h.message) OVER o AS hops,
        count(CASE WHEN ifnull(h.number, 0) = 0 THEN 1 END) OVER o AS messages,
        {_STATE_WINDOWS},
        max(printf('%020d %020d ', m.published_at, m.id) || m.stage_id) OVER o AS newest,
        min(m.published_at) OVER o AS first_seen_at, max(m.published_at) OVER o AS last_seen_at,
        row_number() OVER o AS row
    FROM order_messages n CROSS JOIN messages m ON m.id = n.message LEFT JOIN hops h ON h.message = n.message
    WINDOW o AS (PARTITION BY n.order_id)
)
WHERE row = 1"""


def _line(at: str, event: str, hop: bool, consumer: str, wait: str, redelivered: str, source: str) -> str:
    """Return one arm of `order_timeline`."""
    queue = _name("h.queue_id", "queue") if hop else "NULL AS queue"
    flow = _name("h.flow_id", "flow") if hop else "NULL AS flow"
    verdict = event == "verdict"
    state = _name("h.state_id", "state") if verdict else "NULL AS state"
    reason = _name("h.reason_id", "reason") if verdict else "NULL AS reason"
    return f"""SELECT o.order_id,
    {iso(at, "time")}, '{event}' AS event,
    {_name("m.stage_id", "stage")},
    m.message_id,
    {_name("m.sender_id", "sender")},
    {_name("m.exchange_id", "exchange")},
    {_routing_key("m")},
    {flow}, {queue}, {state}, {reason},
    {wait} / 1e6 AS wait_seconds,
    {_client(consumer, "user", "consumer_user")},
    {redelivered} AS redelivered,
    m.user_id, m.error, {at} AS at, m.id AS message, {"h.number" if hop else "NULL"} AS hop
FROM order_messages o CROSS JOIN messages m ON m.id = o.message {source}"""


_ORDER_TIMELINE = "\nUNION ALL\n".join(
    [
        _line("m.published_at", "published", False, "NULL", "NULL", "NULL", ""),
        _line(
            "m.published_at + h.wait",
            "delivered",
            True,
            "h.consumer_id",
            "h.wait",
            "h.redelivered",
            "CROSS JOIN hops h ON h.message = o.message WHERE h.consumer_id IS NOT NULL",
        ),
        _line(
            "m.published_at + d.wait",
            "delivered",
            True,
            "d.consumer_id",
            "d.wait",
            "d.redelivered",
            "CROSS JOIN further_deliveries d ON d.message = o.message "
            "CROSS JOIN hops h ON h.message = d.message AND h.number = d.hop",
        ),
        _line(
            "ifnull(h.judged_at, m.published_at)",
            "verdict",
            True,
            "NULL",
            "NULL",
            "NULL",
            f"CROSS JOIN hops h ON h.message = o.message WHERE h.state_id IN ({STATES['unknown']}, {AGAINST_SQL})",
        ),
        f"""SELECT o.order_id,
    {iso("o.received_at", "time")}, 'delivered without known publish' AS event,
    {_name("o.stage_id", "stage")},
    o.message_id, NULL AS sender,
    {_name("o.exchange_id", "exchange")},
    o.routing_key,
    {_name("o.flow_id", "flow")},
    {_name("o.queue_id", "queue")},
    NULL AS state, NULL AS reason, NULL AS wait_seconds,
    {_client("o.consumer_id", "user", "consumer_user")},
    o.redelivered, NULL AS user_id, NULL AS error, o.received_at AS at, NULL AS message, NULL AS hop
FROM orphans o WHERE o.order_id IS NOT NULL""",
    ]
)

_FLOW_HEALTH = f"""SELECT {_name("h.flow_id", "flow")},
    count(*) AS hops,
    {_VERDICT_COUNTS},
    avg(h.wait) / 1e6 AS mean_wait_seconds,
    max(h.wait) / 1e6 AS max_wait_seconds
FROM hops h GROUP BY h.flow_id"""

_ORPHAN_LIST = f"""SELECT o.order_id, o.message_id,
    {_name("o.flow_id", "flow")},
    {_name("o.queue_id", "queue")},
    {iso("o.received_at", "received")},
    {_name("o.exchange_id", "exchange")},
    o.routing_key,
    {_name("o.stage_id", "stage")},
    {_client("o.consumer_id", "vhost", "vhost")},
    {_client("o.consumer_id", "user", "consumer_user")},
    {_client("o.consumer_id", "connection", "consumer_connection")},
    o.redelivered, o.size, o.identity, o.received_at, o.id
FROM orphans o"""

_GAP_LIST = f"""SELECT id, vhost, reason,
    {iso("from_at", "began")},
    {iso("to_at", "ended")},
    (ifnull(to_at, {NOW} * 1000000) - from_at) / 1e6 AS seconds,
    missing, to_at IS NULL AS open, from_at, to_at
FROM gaps"""

_COVERAGE = f"""SELECT vhost,
    {iso("audited_from", "since")},
    {iso("audited_to", "until")},
    (audited_to - audited_from) / 1e6 AS seconds, gaps, gap_seconds, missing,
    CASE WHEN audited_to > audited_from
        THEN max(0.0, 1.0 - gap_seconds * 1e6 / (audited_to - audited_from)) END AS audited_share,
    audited_from AS since_at, audited_to AS until_at
FROM (
    SELECT s.vhost, s.watermark AS audited_to,
        ifnull(
            (SELECT min(g.to_at) FROM gaps g WHERE g.vhost = s.vhost AND g.from_at IS NULL),
            (SELECT m.published_at FROM messages m CROSS JOIN clients c ON c.id = m.client_id
                WHERE c.vhost = s.vhost ORDER BY m.id LIMIT 1)
        ) AS audited_from,
        (SELECT count(*) FROM gaps g WHERE g.vhost = s.vhost AND g.from_at IS NOT NULL) AS gaps,
        (SELECT ifnull(sum(ifnull(g.to_at, max(s.watermark, g.from_at)) - g.from_at), 0) / 1e6
            FROM gaps g WHERE g.vhost = s.vhost AND g.from_at IS NOT NULL) AS gap_seconds,
        (SELECT sum(g.missing) FROM gaps g WHERE g.vhost = s.vhost) AS missing
    FROM status s
)"""

VIEWS: dict[str, str] = {
    "found": _FOUND,
    "order_messages": _ORDER_MESSAGES,
    "audit": _AUDIT,
    "lost": _LOST,
    "unknown": _UNKNOWN,
    "deliveries": _DELIVERIES,
    **stage_views.VIEWS,
    "orders": _ORDERS,
    "order_timeline": _ORDER_TIMELINE,
    "flow_health": _FLOW_HEALTH,
    "orphan_list": _ORPHAN_LIST,
    "gap_list": _GAP_LIST,
    "coverage": _COVERAGE,
}
"""View to its SELECT, in the order in which they are made."""
