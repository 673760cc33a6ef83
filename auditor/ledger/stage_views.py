"""The views on the stages of orders, and on what was acknowledged."""

from __future__ import annotations

from auditor.ledger.columns import NOW, client, iso, name

_SECONDS = f"CASE WHEN e.stay IS NULL THEN {NOW} - m.published_at / 1000000 ELSE e.stay / 1e6 END"

# By way of `order_messages`, because only that finds an order quickly.
_STAGES = f"""SELECT o.order_id,
    {name("e.stage_id", "stage")},
    {name("e.system_id", "system")},
    {iso("m.published_at", "entered")},
    {iso("m.published_at + e.stay", "left")},
    {_SECONDS} AS seconds,
    e.stay IS NULL AS current,
    max(e.steps - 1, 0) AS skipped,
    e.repeated,
    ifnull(e.steps < 0, 0) AS backwards,
    e.ends,
    CASE WHEN e.ends THEN e.processing / 1e6 END AS processing_seconds,
    e.errors, e.error,
    {client("m.client_id", "vhost", "vhost")},
    m.published_at AS at, m.published_at + e.stay AS left_at,
    (SELECT due_at FROM open_entries p WHERE p.message = e.message) AS due_at, e.message
FROM order_messages o CROSS JOIN stage_entries e ON e.message = o.message CROSS JOIN messages m ON m.id = o.message"""

# A share of so many per cent is at most as large as this one of the sorted values (nearest rank).
_RANKED = """SELECT stage_id, system_id, stay / 1e6 AS seconds,
        row_number() OVER (PARTITION BY stage_id, system_id ORDER BY stay) AS rank,
        count(*) OVER (PARTITION BY stage_id, system_id) AS n
    FROM stage_entries WHERE stay IS NOT NULL"""

_STAGE_TIMES = f"""SELECT {name("e.stage_id", "stage")},
    {name("e.system_id", "system")},
    e.entries, e.orders_in_it,
    t.mean_seconds, t.median_seconds, t.p95_seconds, t.max_seconds,
    {NOW} - o.oldest_at / 1000000 AS longest_now_seconds,
    e.skipped, e.repeated, e.backwards, e.errors
FROM (
    SELECT stage_id, system_id, count(*) AS entries, sum(stay IS NULL) AS orders_in_it,
        sum(ifnull(max(steps - 1, 0), 0)) AS skipped, sum(repeated) AS repeated, sum(ifnull(steps < 0, 0)) AS backwards,
        sum(errors) AS errors
    FROM stage_entries GROUP BY stage_id, system_id
) e LEFT JOIN (
    SELECT stage_id, system_id, avg(seconds) AS mean_seconds, max(seconds) AS max_seconds,
        max(CASE WHEN rank = (n + 1) / 2 THEN seconds END) AS median_seconds,
        max(CASE WHEN rank = (n * 95 + 99) / 100 THEN seconds END) AS p95_seconds
    FROM ({_RANKED}) GROUP BY stage_id, system_id
) t ON t.stage_id = e.stage_id AND t.system_id = e.system_id LEFT JOIN (
    SELECT stage_id, system_id, min(entered_at) AS oldest_at FROM open_entries GROUP BY stage_id, system_id
) o ON o.stage_id = e.stage_id AND o.system_id = e.system_id"""

# A vhost that is audited no longer has the number of an earlier process.
_SEEN = """(SELECT min(ifnull(watermark, 0)) FROM status
        WHERE pid = (SELECT pid FROM status ORDER BY updated_at DESC LIMIT 1))"""
"""Everything before it has been seen, in all vhosts: an order may pass through several."""

_OPEN_ORDERS = f"""SELECT order_id,
    {name("o.stage_id", "stage")},
    {name("o.system_id", "system")},
    {iso("o.entered_at", "entered")},
    {NOW} - o.entered_at / 1000000 AS seconds,
    {iso("o.due_at", "due")},
    ifnull(o.due_at < {_SEEN}, 0) AS stuck,
    EXISTS (SELECT 1 FROM gaps g
        WHERE ifnull(g.to_at, o.entered_at + 1) > o.entered_at AND g.from_at IS NOT NULL) AS blind,
    EXISTS (SELECT 1 FROM acknowledged_entries a WHERE a.message = o.message) AS acknowledged,
    e.errors, e.error,
    {name("o.vhost_id", "vhost")},
    o.entered_at, o.due_at, o.message
FROM open_entries o CROSS JOIN stage_entries e ON e.message = o.message"""

_ACKNOWLEDGEMENT_LIST = f"""SELECT id, {iso("at", "acknowledged")}, who, note, chosen, hops, orders, at
FROM acknowledgements ORDER BY id DESC"""

VIEWS: dict[str, str] = {
    "stages": _STAGES,
    "stage_times": _STAGE_TIMES,
    "open_orders": _OPEN_ORDERS,
    "acknowledgement_list": _ACKNOWLEDGEMENT_LIST,
}
"""View to its SELECT."""
