"""The views on the stages of orders, and on what was acknowledged."""

from __future__ import annotations

from auditor.ledger.columns import NOW, iso, name

_SECONDS = f"""CASE WHEN e.left_at IS NULL THEN {NOW} - e.entered_at / 1000000
        ELSE (e.left_at - e.entered_at) / 1e6 END"""

# By way of `order_messages`, because only that finds an order quickly.
_STAGES = f"""SELECT o.order_id,
    {name("e.stage_id", "stage")},
    {name("e.system_id", "system")},
    {iso("e.entered_at", "entered")},
    {iso("e.left_at", "left")},
    {_SECONDS} AS seconds,
    e.left_at IS NULL AS current,
    max(e.steps - 1, 0) AS skipped,
    e.repeated,
    ifnull(e.steps < 0, 0) AS backwards,
    e.ends,
    CASE WHEN e.ends THEN (e.entered_at - e.began_at) / 1e6 END AS processing_seconds,
    e.errors, e.error,
    {name("e.vhost_id", "vhost")},
    e.entered_at AS at, e.left_at, e.due_at, e.message
FROM order_messages o CROSS JOIN stage_entries e ON e.message = o.message"""

# A share of so many per cent is at most as large as this one of the sorted values (nearest rank).
_RANKED = """SELECT stage_id, system_id, (left_at - entered_at) / 1e6 AS seconds,
        row_number() OVER (PARTITION BY stage_id, system_id ORDER BY left_at - entered_at) AS rank,
        count(*) OVER (PARTITION BY stage_id, system_id) AS n
    FROM stage_entries WHERE left_at IS NOT NULL"""

_STAGE_TIMES = f"""SELECT {name("e.stage_id", "stage")},
    {name("e.system_id", "system")},
    e.entries, e.orders_in_it,
    t.mean_seconds, t.median_seconds, t.p95_seconds, t.max_seconds,
    CASE WHEN e.oldest_at IS NOT NULL THEN {NOW} - e.oldest_at / 1000000 END AS longest_now_seconds,
    e.skipped, e.repeated, e.backwards, e.errors
FROM (
    SELECT stage_id, system_id, count(*) AS entries, sum(left_at IS NULL) AS orders_in_it,
        min(CASE WHEN open THEN entered_at END) AS oldest_at,
        sum(ifnull(max(steps - 1, 0), 0)) AS skipped, sum(repeated) AS repeated, sum(ifnull(steps < 0, 0)) AS backwards,
        sum(errors) AS errors
    FROM stage_entries GROUP BY stage_id, system_id
) e LEFT JOIN (
    SELECT stage_id, system_id, avg(seconds) AS mean_seconds, max(seconds) AS max_seconds,
        max(CASE WHEN rank = (n + 1) / 2 THEN seconds END) AS median_seconds,
        max(CASE WHEN rank = (n * 95 + 99) / 100 THEN seconds END) AS p95_seconds
    FROM ({_RANKED}) GROUP BY stage_id, system_id
) t ON t.stage_id = e.stage_id AND t.system_id = e.system_id"""

# A vhost that is audited no longer has the number of an earlier process.
_SEEN = """(SELECT min(ifnull(watermark, 0)) FROM status
        WHERE pid = (SELECT pid FROM status ORDER BY updated_at DESC LIMIT 1))"""
"""Everything before it has been seen, in all vhosts: an order may pass through several."""

_OPEN_ORDERS = f"""SELECT order_id,
    {name("stage_id", "stage")},
    {name("system_id", "system")},
    {iso("entered_at", "entered")},
    {NOW} - entered_at / 1000000 AS seconds,
    {iso("due_at", "due")},
    ifnull(due_at < {_SEEN}, 0) AS stuck,
    EXISTS (SELECT 1 FROM gaps g WHERE ifnull(g.to_at, entered_at + 1) > entered_at AND g.from_at IS NOT NULL) AS blind,
    EXISTS (SELECT 1 FROM acknowledged_entries a WHERE a.message = stage_entries.message) AS acknowledged,
    errors, error,
    {name("vhost_id", "vhost")},
    entered_at, due_at, message
FROM stage_entries INDEXED BY stage_entries_due WHERE open = 1"""

_ACKNOWLEDGEMENT_LIST = f"""SELECT id, {iso("at", "acknowledged")}, who, note, chosen, hops, orders, at
FROM acknowledgements ORDER BY id DESC"""

VIEWS: dict[str, str] = {
    "stages": _STAGES,
    "stage_times": _STAGE_TIMES,
    "open_orders": _OPEN_ORDERS,
    "acknowledgement_list": _ACKNOWLEDGEMENT_LIST,
}
"""View to its SELECT."""
