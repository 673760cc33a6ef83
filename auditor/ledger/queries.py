"""Reading the ledger: beside the writer, after its death, and in a folder that may only be read. Nothing is written.

Each call returns the rows of a view of `docs/ledger.md` as dictionaries with the view's column names.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

from auditor.core.alerts import Labels, Survey
from auditor.core.hops import AGAINST, OPEN
from auditor.core.outgoing import message_trace_id, order_key, order_trace_id
from auditor.core.trace_context import parse
from auditor.errors import LedgerError
from auditor.ledger import layout, letters, survey, views
from auditor.ledger.words import AGAINST_SQL, OPEN_SQL, STATES

Row = dict[str, Any]

_WHAT = "The ledger could not be read"
_STATUS = """SELECT s.*, c.since_at AS counted_since_at, c.compared_at AS counted_until_at, c.counted,
    c.seen_least, c.seen_most, c.missing, c.note AS completeness_note
FROM status s LEFT JOIN completeness c ON c.vhost = s.vhost ORDER BY s.vhost"""
_HOUR = 3_600_000_000  # microseconds
_LOST_BY_HOUR = f"""SELECT (SELECT name FROM names WHERE id = flow_id) AS flow, hour, hops FROM (
    SELECT h.flow_id, m.published_at / {_HOUR} * {_HOUR} AS hour, count(*) AS hops
    FROM hops h INDEXED BY hops_against CROSS JOIN messages m ON m.id = h.message
    WHERE h.state_id IN ({AGAINST_SQL}) AND h.message >= ? AND m.published_at >= ?
    GROUP BY h.flow_id, hour)"""
_ACKNOWLEDGEMENT_OF = """SELECT l.*
FROM acknowledged_hops a CROSS JOIN acknowledgement_list l ON l.id = a.acknowledgement
WHERE a.message = ? AND a.hop = ? AND a.state_id = ?"""
_ACKNOWLEDGED = """EXISTS (SELECT 1 FROM acknowledged_hops a
    WHERE a.message = lost.message AND a.hop = lost.hop AND a.state_id = lost.state_id)"""
_DAY = 86_400_000_000  # microseconds
_STEPS = 10_000  # of SQLite's machine between two looks at the clock: well below a millisecond


class Reader:
    """A read-only connection for a command or a request. Close it soon: an old reader keeps the log from shrinking."""

    def __init__(self, path: Path, conn: sqlite3.Connection) -> None:
        """Take over a connection; `open` makes one."""
        self._path = path
        self._conn = conn
        conn.row_factory = sqlite3.Row

    @classmethod
    def open(cls, path: Path, *, patience: float | None = None) -> Reader:
        """Open a ledger for reading; LedgerError if there is none, or if it is damaged or newer than this program.

        With `patience`, all queries together are given up after so many seconds, with a LedgerError.
        """
        try:
            there = path.is_file()
        except PermissionError as exc:
            hint = "Read it as root, as the auditor's user, or as a member of its group."
            raise LedgerError(_WHAT, on=str(path), why="its folder is closed to this user", hint=hint) from exc
        if not there:
            hint = "Name the ledger with --ledger, or start the auditor once: it makes it."
            raise LedgerError(_WHAT, on=str(path), why="there is no such file", hint=hint)
        try:
            conn = connect(path)
        except sqlite3.Error as exc:
            raise letters.refused(_WHAT, path, exc) from exc
        if patience is not None:
            end = time.monotonic() + patience
            conn.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        return cls(path, conn)

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def lost(
        self,
        *,
        since: int | None = None,
        flow: str | None = None,
        queue: str | None = None,
        order: str | None = None,
        state: str | None = None,
        reason: str | None = None,
        vhost: str | None = None,
        acknowledged: bool | None = None,
        before: tuple[int, int] | None = None,
        limit: int | None = 100,
    ) -> list[Row]:
        """Return the hops with a verdict against them, newest first; `since` is the publish time in microseconds.

        `before` is message and number of a hop: older ones only.
        """
        where, values = self._filters(since, flow, queue, order, state, reason, vhost, acknowledged)
        if before is not None:
            where += f"{' AND' if where else ' WHERE'} message <= ? AND (message, hop) < (?, ?)"
            values += [before[0], *before]
        return self._rows(f"SELECT * FROM lost{where} LIMIT ?", *values, -1 if limit is None else limit)

    def count_lost(
        self,
        *,
        since: int | None = None,
        flow: str | None = None,
        queue: str | None = None,
        order: str | None = None,
        state: str | None = None,
        reason: str | None = None,
        vhost: str | None = None,
        acknowledged: bool | None = None,
    ) -> int:
        """Return how many hops `lost` would list without a limit."""
        where, values = self._filters(since, flow, queue, order, state, reason, vhost, acknowledged)
        count: int = self._rows(f"SELECT count(*) AS n FROM lost{where}", *values)[0]["n"]
        return count

    def hops(
        self,
        *,
        since: int | None = None,
        flow: str | None = None,
        queue: str | None = None,
        order: str | None = None,
        state: str | None = None,
        reason: str | None = None,
        limit: int | None = 100,
    ) -> list[Row]:
        """Return hops in any state, newest first."""
        where, values = self._filters(since, flow, queue, order, None, reason)
        if state is not None:
            where += f"{' AND' if where else ' WHERE'} {_state(state)}"
        return self._rows(
            f"SELECT * FROM audit{where} ORDER BY message DESC, hop DESC LIMIT ?",
            *values,
            -1 if limit is None else limit,
        )

    def order(self, order_id: str) -> list[Row]:
        """Return an order's timeline, oldest first."""
        return self._rows(
            "SELECT * FROM order_timeline WHERE order_id = ? ORDER BY at, message, hop, event DESC", order_id
        )

    def order_summary(self, order_id: str) -> list[Row]:
        """Return the one row of `orders` about an order; none if the order was never seen."""
        return self._rows("SELECT * FROM orders WHERE order_id = ?", order_id)

    def order_hops(self, order_id: str) -> list[Row]:
        """Return every hop of an order's messages, oldest first."""
        messages = "SELECT message FROM order_messages WHERE order_id = ?"
        return self._rows(f"SELECT * FROM audit WHERE message IN ({messages}) ORDER BY message, hop", order_id)

    def message(self, message_id: str) -> list[Row]:
        """Return every hop of every message with this id, oldest first, as in `audit`.

        Each row has its hop's deliveries, rows of `deliveries`, under the key `deliveries`. A message from which no
        delivery was expected has one row, whose hop and state are None.
        """
        rows = self._rows(
            f"""SELECT {views.HOP_COLUMNS}, m.id AS message FROM messages m LEFT JOIN hops h ON h.message = m.id
            WHERE m.id IN (SELECT message FROM found WHERE key = ?) AND m.message_id = ? ORDER BY m.id, h.number""",
            message_id,
            message_id,
        )
        for row in rows:
            row["deliveries"] = self._rows(
                "SELECT * FROM deliveries WHERE message = ? AND hop = ? ORDER BY attempt", row["message"], row["hop"]
            )
        return rows

    def orphans(self, *, message_id: str | None = None, order: str | None = None, limit: int | None = 100) -> list[Row]:
        """Return deliveries whose publish was not seen, newest first."""
        where, values = _where({"message_id = ?": message_id, "order_id = ?": order})
        return self._rows(
            f"SELECT * FROM orphan_list{where} ORDER BY id DESC LIMIT ?", *values, -1 if limit is None else limit
        )

    def status(self) -> list[Row]:
        """Return how the audit stands, one row a vhost, with what `completeness` has of it."""
        return self._rows(_STATUS)

    def gaps(self, limit: int | None = 100) -> list[Row]:
        """Return the gaps, newest first."""
        return self._rows("SELECT * FROM gap_list ORDER BY id DESC LIMIT ?", -1 if limit is None else limit)

    def coverage(self) -> list[Row]:
        """Return how much of the time was audited, one row a vhost."""
        return self._rows("SELECT * FROM coverage ORDER BY vhost")

    def flow_health(self) -> list[Row]:
        """Return one row a flow; reads every hop."""
        return self._rows("SELECT * FROM flow_health ORDER BY flow")

    def order_traces(self, order_id: str) -> list[str]:
        """Return the ids of the traces that tell of an order: the one with its stages first, then its messages' own."""
        found = self._rows(
            """SELECT DISTINCT c.vhost, m.trace_context FROM order_messages o CROSS JOIN messages m ON m.id = o.message
            CROSS JOIN clients c ON c.id = m.client_id WHERE o.order_id = ? ORDER BY m.id""",
            order_id,
        )
        orders = [self._order_trace(vhost, order_id) for vhost in dict.fromkeys(row["vhost"] for row in found)]
        own = [_trace_id(row["trace_context"]) for row in found]
        return [id for id in dict.fromkeys([*orders, *own]) if id is not None]

    def message_trace(self, row: Row) -> str | None:
        """Return the id of the trace that tells of a message, given a row about it from `message`; None: none does."""
        own = _trace_id(row["trace_context"])
        if own is not None:
            return own
        if row["order_id"] is not None:
            return self._order_trace(row["vhost"], row["order_id"])
        if not self.tracing()["spans"]:
            return None
        return message_trace_id(row["vhost"], row["identity"], row["message"]).hex()

    def _order_trace(self, vhost: str, order_id: str) -> str | None:
        rows = self._rows("SELECT trace_context FROM order_traces WHERE key = ?", order_key(vhost, order_id))
        if not rows:
            return None
        return _trace_id(rows[0]["trace_context"]) or order_trace_id(vhost, order_id).hex()

    def tracing(self) -> Row:
        """Return what was exported, and `waiting`, how many rows of the outbox were not yet."""
        return self._rows("SELECT *, (SELECT count(*) FROM outbox) AS waiting FROM tracing")[0]

    def open_orders(
        self,
        *,
        stuck: bool = False,
        stage: str | None = None,
        system: str | None = None,
        vhost: str | None = None,
        acknowledged: bool | None = None,
        limit: int | None = 100,
    ) -> list[Row]:
        """Return the orders of which further stages are expected, the one longest in its stage first."""
        filters = {"stage = ?": stage, "system = ?": system, "vhost = ?": vhost, "acknowledged = ?": acknowledged}
        where, values = _where({"stuck = ?": 1 if stuck else None, **filters})
        sql = f"SELECT * FROM open_orders{where} ORDER BY entered_at LIMIT ?"
        return self._rows(sql, *values, -1 if limit is None else limit)

    def unacknowledged(
        self,
        *,
        since: int | None = None,
        flow: str | None = None,
        queue: str | None = None,
        order: str | None = None,
        state: str | None = None,
        reason: str | None = None,
    ) -> list[tuple[int, int, str]]:
        """Return message, hop and state of the hops that `lost` would list and that nobody has acknowledged."""
        where, values = self._filters(since, flow, queue, order, state, reason, None, False)
        rows = self._rows(f"SELECT message, hop, state FROM lost{where}", *values)
        return [(row["message"], row["hop"], row["state"]) for row in rows]

    def stuck_entries(self, *, stage: str | None = None, order: str | None = None) -> list[int]:
        """Return the entries of stuck orders that nobody has acknowledged."""
        where, values = _where({"stuck = ?": 1, "acknowledged = ?": 0, "stage = ?": stage, "order_id = ?": order})
        return [row["message"] for row in self._rows(f"SELECT message FROM open_orders{where}", *values)]

    def lost_by_hour(self, since: int) -> list[Row]:
        """Return how many hops of each flow have a verdict against them: `flow`, `hour` of the publish, `hops`.

        The hour is its first microsecond. `since` is the oldest publish, in microseconds.
        """
        return self._rows(_LOST_BY_HOUR, self._first_message(since), since)

    def acknowledgements_of(self, hops: Sequence[Row]) -> dict[tuple[int, int], Row]:
        """Return who has acknowledged these rows of `lost`, by message and hop."""
        found = {}
        for hop in hops:
            rows = self._rows(_ACKNOWLEDGEMENT_OF, hop["message"], hop["hop"], hop["state_id"])
            if rows:
                found[hop["message"], hop["hop"]] = rows[0]
        return found

    def order_stages(self, order_id: str) -> list[Row]:
        """Return the stages that an order has entered, oldest first."""
        return self._rows("SELECT * FROM stages WHERE order_id = ? ORDER BY at, message", order_id)

    def stages_now(self) -> list[Row]:
        """Return how many orders are in each stage: `stage`, `system`, `orders`, `stuck`, `longest_seconds`."""
        return self._rows(
            "SELECT stage, system, count(*) AS orders, sum(stuck) AS stuck, max(seconds) AS longest_seconds"
            " FROM open_orders GROUP BY stage, system ORDER BY min(entered_at)"
        )

    def stage_times(self) -> list[Row]:
        """Return one row a stage and system; reads every stage of every order."""
        return self._rows("SELECT * FROM stage_times ORDER BY stage, system")

    def processing(self) -> dict[str, Any]:
        """Return how many orders were seen from their first stage to their last, and their mean seconds."""
        (row,) = self._rows(
            "SELECT count(*) AS orders, avg(processing) / 1e6 AS mean_seconds FROM stage_entries"
            " WHERE ends AND processing IS NOT NULL AND NOT repeated"
        )
        return row

    def acknowledgements(self, limit: int | None = 100) -> list[Row]:
        """Return what operators have acknowledged, newest first."""
        return self._rows("SELECT * FROM acknowledgement_list LIMIT ?", -1 if limit is None else limit)

    def survey(self, *, pid: int, now: int, since: int, gaps_since: int) -> Survey:
        """Look at what might have to be told, as `survey.take`."""
        # a verdict comes after its publish, by the flow's deadline and some seconds
        first = self._first_message(since - (now - since))
        found = survey.take(self._ask, pid=pid, now=now, since=since, first_message=first, gaps_since=gaps_since)
        return found._replace(size=self.size())

    def examples(self, labels: Labels, *, limit: int, seen: int) -> list[Row]:
        """Return the newest hops, or orders, that an alert is about."""
        return survey.examples(self._ask, labels, limit=limit, seen=seen)

    def size(self) -> int:
        """Return the bytes of the ledger on disk, its log included."""
        return sum(file.stat().st_size for file in (self._path, _log(self._path)) if file.exists())

    def _filters(
        self,
        since: int | None,
        flow: str | None,
        queue: str | None,
        order: str | None,
        state: str | None,
        reason: str | None,
        vhost: str | None = None,
        acknowledged: bool | None = None,
    ) -> tuple[str, list[Any]]:
        ordered = "message IN (SELECT message FROM order_messages WHERE order_id = ?)"
        return _where(
            {
                "message >= ?": None if since is None else self._first_message(since),
                "published_at >= ?": since,
                "flow = ?": flow,
                "queue = ?": queue,
                ordered: order,
                "state = ?": state,
                "reason = ?": reason,
                "vhost = ?": vhost,
                f"{_ACKNOWLEDGED} = ?": acknowledged,
            }
        )

    def _first_message(self, since: int) -> int:
        """Return a message before which none was published since then, by halving.

        Numbers rise with time, but the clock may have been set back in between: right as long as that was by less than
        a day, which is why the search is for a day earlier. The caller compares the times of what follows.
        """
        # two queries: for both at once SQLite reads every message
        low = self._rows("SELECT ifnull(min(id), 0) AS id FROM messages")[0]["id"]
        high = self._rows("SELECT ifnull(max(id), 0) + 1 AS id FROM messages")[0]["id"]
        while low < high:
            middle = (low + high) // 2
            sql = "SELECT id, published_at FROM messages WHERE id >= ? ORDER BY id LIMIT 1"
            rows = self._rows(sql, middle)
            if rows and rows[0]["published_at"] < since - _DAY:
                low = rows[0]["id"] + 1
            else:
                high = middle
        return int(low)

    def _rows(self, sql: str, *values: object) -> list[Row]:
        return self._ask(sql, values)

    def _ask(self, sql: str, values: Sequence[object] | Mapping[str, object]) -> list[Row]:
        try:
            return [dict(row) for row in self._conn.execute(sql, values)]
        except sqlite3.Error as exc:
            raise letters.refused(_WHAT, self._path, exc) from exc


def _trace_id(header: str | None) -> str | None:
    context = None if header is None else parse(header)
    return None if context is None else context.trace_id.hex()


def _where(filters: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return the WHERE clause of those filters that have a value, and the values."""
    given = {term: value for term, value in filters.items() if value is not None}
    return (" WHERE " + " AND ".join(given) if given else ""), list(given.values())


def _state(state: str) -> str:
    """Return a condition for one state, in words from which SQLite sees that a partial index serves."""
    number = STATES.get(state, 0)
    if state in OPEN and state not in AGAINST:
        return f"state_id IN ({OPEN_SQL}) AND state_id = {number}"
    if state in AGAINST:
        return f"state_id IN ({AGAINST_SQL}) AND state_id = {number}"
    return f"state_id = {number}"


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def connect(path: Path) -> sqlite3.Connection:
    """Return a checked connection.

    SQLite needs the log's index beside the file even for reading. Where nobody writes and the folder is read-only,
    there is none and none can be made: then the file is read as one that does not change. That is true unless a log
    is left.
    """
    try:
        return _checked(path, "mode=ro")
    except sqlite3.OperationalError as exc:
        # which of the two it is depends on how the folder is closed to us
        cannot_make_it = exc.sqlite_errorname.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY"))
        if not cannot_make_it or (_log(path).exists() and _log(path).stat().st_size):
            raise
    return _checked(path, "mode=ro&immutable=1")


def follows(conn: sqlite3.Connection) -> bool:
    """Say whether a connection of `connect` sees what is written after it was made."""
    # a file that is read as one that does not change has no log
    return bool(conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal")


def _checked(path: Path, how: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?{how}"
    conn = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        layout.check(conn, path, _WHAT)
    except BaseException:
        conn.close()
        raise
    return conn
