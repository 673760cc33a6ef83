"""Finding stored hops again, and keeping up what that needs: `keys`, `identities` and `blocks` (`schema` tells why)."""

from __future__ import annotations

import json
import sqlite3
from bisect import bisect_left

from auditor.core.changes import MessageRow, OrphanRow, StoredHop
from auditor.core.hops import OPEN
from auditor.ledger.layout import BLOCK, BLOCK_BITS, KEY_SHIFT, MERGED, MERGED_BITS
from auditor.ledger.words import OPEN_SQL, REASON_OF, STATE_OF

_HOP = """SELECT h.message, h.number, c.vhost, q.name, e.name, f.name, m.identity, m.priority, m.published_at,
    h.state_id, h.reason_id, h.deadline, h.wait, h.attempts,
    (SELECT count(*) FROM hops a WHERE a.message = h.message)"""

_NAMES = """CROSS JOIN clients c ON c.id = m.client_id CROSS JOIN names q ON q.id = h.queue_id
    CROSS JOIN names e ON e.id = m.exchange_id CROSS JOIN names f ON f.id = h.flow_id"""

_PAGE = f"""{_HOP}
    FROM (
        SELECT message, number FROM hops INDEXED BY hops_open
        WHERE state_id IN ({OPEN_SQL}) AND message >= :message AND (message > :message OR number > :number)
        ORDER BY message, number LIMIT :limit
    ) o CROSS JOIN hops h ON h.message = o.message AND h.number = o.number
    CROSS JOIN messages m ON m.id = h.message {_NAMES}"""

_NEWEST_OPEN = f"""{_HOP} FROM hops h INDEXED BY hops_open CROSS JOIN messages m ON m.id = h.message {_NAMES}
    WHERE h.state_id IN ({OPEN_SQL}) AND c.vhost = ? ORDER BY h.message DESC, h.number DESC LIMIT ?"""

# Without GROUP BY, which would sort them all in memory.
_OPEN_BEFORE = f"""SELECT h.queue_id, h.message
    FROM hops h INDEXED BY hops_open CROSS JOIN messages m ON m.id = h.message
        CROSS JOIN clients c ON c.id = m.client_id
    WHERE h.state_id IN ({OPEN_SQL}) AND c.vhost = :vhost
        AND h.message <= :message AND (h.message < :message OR h.number < :number)
    ORDER BY h.message"""

_RECALL = f"""{_HOP} FROM messages m CROSS JOIN hops h ON h.message = m.id {_NAMES}
    WHERE m.id = ? AND m.identity = ? AND q.name = ? AND c.vhost = ? ORDER BY h.number"""

# The blocks are in order of age, and a block's entries of one key in order of message.
_IN_BLOCKS = """SELECT i.message FROM json_each(?) b
    CROSS JOIN identities i ON i.block = b.value AND i.key = ? AND i.message >= ?
    CROSS JOIN messages m ON m.id = i.message AND m.identity = ? LIMIT ?"""

_IN_BLOCK = """SELECT i.message FROM identities i CROSS JOIN messages m ON m.id = i.message AND m.identity = ?
    WHERE i.block = ? AND i.key = ? ORDER BY i.message DESC LIMIT ?"""

# Sorted, so that a block is appended page by page.
_FILL_KEYS = f"""INSERT OR IGNORE INTO keys (block, key, message)
    SELECT id >> {BLOCK_BITS}, key, id FROM (
        SELECT id, message_id AS key FROM messages WHERE id BETWEEN :low AND :high AND message_id IS NOT NULL
        UNION ALL
        SELECT id, order_id FROM messages WHERE id BETWEEN :low AND :high AND order_id IS NOT NULL
    ) ORDER BY key, id"""

_FILL_IDENTITIES = f"""INSERT INTO identities (block, key, message)
    SELECT :block, identity >> {KEY_SHIFT} AS key, id FROM messages WHERE id BETWEEN :low AND :high ORDER BY key, id"""

_MERGE = """INSERT INTO identities (block, key, message)
    SELECT :merged, key, message FROM identities WHERE block BETWEEN :low AND :high ORDER BY key, message"""

_NEXT_BLOCK = "SELECT min(block) FROM identities WHERE block > ?"

MAX_RECALLED = 256
"""Hops that are given back: a heartbeat without an id is the same message a million times."""

_MAX_LOOKED_AT = 4 * MAX_RECALLED  # messages of one identity that are looked at for closed hops
_MAX_EQUAL = 10_000  # messages of one identity among which an open hop is looked for, some 50 ms


class Lookup:
    """Finds hops by identity. The newest messages, at most a block, it has in memory."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._newest: dict[int, int | list[int]] = {}  # identity -> message, or messages in order
        self._next_block = 0  # the first that is not done
        self._blocks: list[int] = []  # the blocks of `identities`, the oldest first
        self._blocks_json = "[]"
        self.next_message = 1
        self.reload()

    def reload(self) -> None:
        """Read from the file what is kept in memory."""
        (self._next_block,) = self._conn.execute("SELECT ifnull(max(block) + 1, 0) FROM blocks").fetchone()
        blocks: list[int] = []
        (block,) = self._conn.execute("SELECT min(block) FROM identities").fetchone()
        while block is not None:
            blocks.append(block)
            (block,) = self._conn.execute(_NEXT_BLOCK, (block,)).fetchone()
        self._blocks = sorted(blocks, key=_first_block)
        self._blocks_json = json.dumps(self._blocks)
        self._newest.clear()
        start = self._next_block << BLOCK_BITS
        self.next_message = max(1, start)
        sql = "SELECT id, identity FROM messages WHERE id >= ? ORDER BY id"
        for message, identity in self._conn.execute(sql, (start,)):
            self._note(identity, message)
            self.next_message = message + 1

    def add(self, messages: list[MessageRow]) -> None:
        """Take in messages that were just written, in order of number; when they have filled a block, do it."""
        if not messages:
            return
        start = self._next_block << BLOCK_BITS
        if messages[0].id < start:
            # numbers are given out to several vhosts: another one's batch was quicker and has closed this one's block
            for row in messages:
                if row.id < start:
                    self._insert(row.id, row.id, row.id >> BLOCK_BITS)
            self.reload()
        newest = self._newest
        for row in messages:
            message, identity = row[0], row[5]
            if newest.setdefault(identity, message) != message:
                self._note(identity, message)
        last = messages[-1].id
        self.next_message = max(self.next_message, last + 1)
        if last >> BLOCK_BITS > self._next_block:
            self._fill(last >> BLOCK_BITS)

    def _note(self, identity: int, message: int) -> None:
        known = self._newest.setdefault(identity, message)
        if isinstance(known, list):
            known.append(message)
        elif known != message:
            self._newest[identity] = [known, message]

    def _newest_of(self, identity: int) -> list[int]:
        found = self._newest.get(identity)
        if found is None:
            return []
        return found if isinstance(found, list) else [found]

    def _fill(self, until: int) -> None:
        """Do every block before `until`."""
        for block in range(self._next_block, until):
            low = block << BLOCK_BITS
            self._insert(low, low + BLOCK - 1, block)
            self._conn.execute("INSERT INTO blocks (block) VALUES (?)", (block,))
            if (block + 1) % MERGED == 0:
                merge = {"merged": merged_block(block), "low": block + 1 - MERGED, "high": block}
                self._conn.execute(_MERGE, merge)
                self._conn.execute("DELETE FROM identities WHERE block BETWEEN :low AND :high", merge)
        self.reload()

    def _insert(self, low: int, high: int, block: int) -> None:
        messages = {"low": low, "high": high, "block": block}
        self._conn.execute(_FILL_KEYS, messages)
        self._conn.execute(_FILL_IDENTITIES, messages)

    def open_hops(self, vhost: str, limit: int) -> list[StoredHop]:
        """Return the newest open hops of a vhost, at most so many, in order of message and number."""
        return [_stored(row) for row in self._conn.execute(_NEWEST_OPEN, (vhost, limit))][::-1]

    def open_before(self, vhost: str, place: tuple[int, int]) -> list[tuple[str, int, int]]:
        """Return of each queue how many hops of a vhost are open before a place, and the first one's message."""
        values = {"vhost": vhost, "message": place[0], "number": place[1]}
        counts: dict[int, int] = {}
        first: dict[int, int] = {}
        for queue, message in self._conn.execute(_OPEN_BEFORE, values):
            counts[queue] = counts.get(queue, 0) + 1
            first.setdefault(queue, message)
        name = "SELECT name FROM names WHERE id = ?"
        return [
            (self._conn.execute(name, (queue,)).fetchone()[0], count, first[queue]) for queue, count in counts.items()
        ]

    def open_page(
        self, vhost: str, after: tuple[int, int], limit: int
    ) -> tuple[list[StoredHop], tuple[int, int] | None]:
        """Return those of a vhost among the next `limit` open hops after a place, in order of message and number, and
        the place to go on from; None at the end."""
        values = {"message": after[0], "number": after[1], "limit": limit}
        rows = self._conn.execute(_PAGE, values).fetchall()
        place = None if len(rows) < limit else rows[-1][:2]
        return [_stored(row) for row in rows if row[2] == vhost], place

    def recall(self, vhost: str, identity: int, queue: str) -> list[StoredHop]:
        """Return the newest MAX_RECALLED stored hops of messages with this identity to this queue, oldest first."""
        found: list[StoredHop] = []
        for message in self._newest_equal(identity):
            rows = self._conn.execute(_RECALL, (message, identity, queue, vhost)).fetchall()
            found += map(_stored, reversed(rows))
            if len(found) >= MAX_RECALLED:
                break
        return found[::-1]

    def _newest_equal(self, identity: int) -> list[int]:
        """Return the newest messages with an identity, at most _MAX_LOOKED_AT, the newest first."""
        messages = self._newest_of(identity)[-_MAX_LOOKED_AT:]
        in_blocks = self._in_blocks(identity, 0, _MAX_LOOKED_AT)
        if len(in_blocks) < _MAX_LOOKED_AT:
            messages = in_blocks + messages
        else:
            # there are more, and those were the oldest
            for block in reversed(self._blocks):
                if len(messages) >= _MAX_LOOKED_AT:
                    break
                looked_up = (identity, block, identity >> KEY_SHIFT, _MAX_LOOKED_AT)
                messages = [*(message for (message,) in self._conn.execute(_IN_BLOCK, looked_up)), *messages]
        return sorted(set(messages), reverse=True)[:_MAX_LOOKED_AT]

    def _in_blocks(self, identity: int, since: int, limit: int) -> list[int]:
        """Return the oldest messages with an identity from `since` on, as far as they are in blocks."""
        looked_up = (self._blocks_json, identity >> KEY_SHIFT, since, identity, limit)
        return [message for (message,) in self._conn.execute(_IN_BLOCKS, looked_up)]

    def recall_open(self, vhost: str, identity: int, queue: str, since: int) -> list[StoredHop]:
        """Return the oldest MAX_RECALLED open hops of messages with this identity to this queue, oldest first.

        Messages before `since` are left out; past _MAX_EQUAL equal ones no more is looked for.
        """
        newest = self._newest_of(identity)
        messages = {*self._in_blocks(identity, since, _MAX_EQUAL), *newest[bisect_left(newest, since) :]}
        found: list[StoredHop] = []
        for message in sorted(messages)[:_MAX_EQUAL]:
            rows = self._conn.execute(_RECALL, (message, identity, queue, vhost)).fetchall()
            found += (hop for hop in map(_stored, rows) if hop.state in OPEN)
            if len(found) >= MAX_RECALLED:
                break
        return found

    def recent_orphans(self, vhost: str, since: int) -> list[OrphanRow]:
        """Return the orphans received since then, in order of id."""
        rows = self._conn.execute(
            """SELECT o.id, c.vhost, q.name, e.name, o.routing_key, o.identity, o.message_id, o.order_id,
                (SELECT name FROM names WHERE id = o.stage_id), (SELECT name FROM names WHERE id = o.flow_id),
                o.size, c.user, c.connection, o.redelivered, o.received_at
            FROM orphans o INDEXED BY orphans_received_at CROSS JOIN clients c ON c.id = o.consumer_id
                CROSS JOIN names q ON q.id = o.queue_id CROSS JOIN names e ON e.id = o.exchange_id
            WHERE o.received_at >= ? AND c.vhost = ? ORDER BY o.id""",
            (since, vhost),
        )
        return [OrphanRow._make(row)._replace(redelivered=bool(row[13])) for row in rows]


def merged_block(block: int) -> int:
    """Return the number of the large block that a block's identities end in."""
    return -(block >> MERGED_BITS) - 1


def _first_block(block: int) -> int:
    """Return the first of the blocks that were merged into a block; itself, when none were."""
    return block if block >= 0 else (-block - 1) << MERGED_BITS


def _stored(row: tuple[int, ...]) -> StoredHop:
    values = list[object](row)
    values[9] = STATE_OF[row[9]]
    values[10] = REASON_OF[row[10]]
    return StoredHop._make(values)
