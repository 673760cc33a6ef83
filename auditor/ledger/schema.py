"""The schema as migrations. A released migration is never changed: what comes later is a further one.

**How a message is found.** An ordinary index over message ids would cost more than all the rest: they are random, so
each insert changes another page, and each changed page is written to the log and later to the file (measured: 40 us a
message at a million messages and rising, against 4 us for the row itself). So nothing random is indexed while it is
written. Message numbers come in blocks (`layout.BLOCK`). When a block is full, its message ids and order ids are sorted
and appended to `keys` in one go, its identities to `identities`, and `blocks` says that it is done. Looking up a key
means one look into each block, plus a look through the newest messages, which no block holds yet: the view `found` does
both. Identities are looked up by the auditor itself, sometimes at each delivery, so their blocks are merged again, some
at a time (`layout.MERGED`), into large ones, whose numbers are negative.
"""

from __future__ import annotations

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from auditor.ledger import views
from auditor.ledger.layout import APPLICATION_ID
from auditor.ledger.words import AGAINST_SQL, EMPTY_NAME, OPEN_SQL, REASONS, STATES

ledger = Migrations("ledger")

_TABLES = f"""
CREATE TABLE names (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    last_used INTEGER NOT NULL
) STRICT;

CREATE TABLE clients (
    id INTEGER PRIMARY KEY,
    vhost TEXT NOT NULL,
    user TEXT NOT NULL,
    connection TEXT NOT NULL,
    node TEXT NOT NULL,
    last_used INTEGER NOT NULL,
    UNIQUE (connection, user, node, vhost)
) STRICT;

CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    client_id INTEGER NOT NULL,
    exchange_id INTEGER NOT NULL,
    routing_key_id INTEGER,
    routing_key TEXT,
    message_id TEXT,
    identity INTEGER NOT NULL,
    order_id TEXT,
    stage_id INTEGER,
    sender_id INTEGER NOT NULL,
    user_id TEXT,
    error TEXT,
    priority INTEGER NOT NULL,
    size INTEGER NOT NULL,
    trace_context TEXT,
    published_at INTEGER NOT NULL,
    time_source_id INTEGER NOT NULL
) STRICT;

CREATE TABLE hops (
    message INTEGER NOT NULL,
    number INTEGER NOT NULL,
    queue_id INTEGER NOT NULL,
    flow_id INTEGER NOT NULL,
    state_id INTEGER NOT NULL CHECK (state_id BETWEEN 1 AND 15),
    reason_id INTEGER CHECK (reason_id BETWEEN 16 AND 62),
    deadline INTEGER NOT NULL,
    wait INTEGER,
    attempts INTEGER NOT NULL,
    judged_at INTEGER,
    consumer_id INTEGER,
    redelivered INTEGER NOT NULL,
    PRIMARY KEY (message, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX hops_open ON hops (message) WHERE state_id IN ({OPEN_SQL});
CREATE INDEX hops_against ON hops (message) WHERE state_id IN ({AGAINST_SQL});
CREATE INDEX hops_unknown ON hops (message) WHERE state_id = {STATES["unknown"]};

CREATE TABLE further_deliveries (
    message INTEGER NOT NULL,
    hop INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    wait INTEGER NOT NULL,
    consumer_id INTEGER NOT NULL,
    redelivered INTEGER NOT NULL,
    PRIMARY KEY (message, hop, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE orphans (
    id INTEGER PRIMARY KEY,
    queue_id INTEGER NOT NULL,
    exchange_id INTEGER NOT NULL,
    routing_key TEXT NOT NULL,
    identity INTEGER NOT NULL,
    message_id TEXT,
    order_id TEXT,
    stage_id INTEGER,
    flow_id INTEGER,
    size INTEGER NOT NULL,
    consumer_id INTEGER NOT NULL,
    redelivered INTEGER NOT NULL,
    received_at INTEGER NOT NULL
) STRICT;

CREATE INDEX orphans_received_at ON orphans (received_at);
CREATE INDEX orphans_order_id ON orphans (order_id) WHERE order_id IS NOT NULL;

CREATE TABLE undecodable (
    id INTEGER PRIMARY KEY,
    received_at INTEGER NOT NULL,
    vhost TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    cause TEXT NOT NULL,
    header BLOB NOT NULL,
    body_size INTEGER NOT NULL,
    body_digest BLOB NOT NULL
) STRICT;

CREATE TABLE gaps (
    id INTEGER PRIMARY KEY,
    vhost TEXT NOT NULL,
    reason TEXT NOT NULL,
    from_at INTEGER,
    to_at INTEGER,
    missing INTEGER
) STRICT;

CREATE TABLE seen (
    vhost TEXT PRIMARY KEY,
    before BLOB NOT NULL,
    last BLOB NOT NULL,
    rest BLOB NOT NULL
) STRICT;

CREATE TABLE status (
    vhost TEXT PRIMARY KEY,
    connected INTEGER NOT NULL,
    watermark INTEGER,
    last_event_at INTEGER,
    updated_at INTEGER NOT NULL,
    queue_depth INTEGER,
    open_hops INTEGER NOT NULL,
    published INTEGER NOT NULL,
    delivered INTEGER NOT NULL,
    undecodable INTEGER NOT NULL,
    orphans INTEGER NOT NULL,
    traced INTEGER NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT NOT NULL,
    broker TEXT NOT NULL,
    problem TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE completeness (
    vhost TEXT PRIMARY KEY,
    note TEXT,
    since_at INTEGER,
    compared_at INTEGER,
    counted INTEGER,
    seen_least INTEGER,
    seen_most INTEGER,
    missing INTEGER,
    counter INTEGER,
    canaries INTEGER,
    nodes TEXT,
    lowest INTEGER,
    highest INTEGER,
    highest_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE blocks (
    block INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE keys (
    block INTEGER NOT NULL,
    key TEXT NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (block, key, message)
) STRICT, WITHOUT ROWID;

CREATE TABLE identities (
    block INTEGER NOT NULL,
    key INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (block, key, message)
) STRICT, WITHOUT ROWID;
"""


def _make(db: Database, statements: str) -> None:
    for statement in statements.split(";\n"):
        if statement.strip():
            db.execute(statement)


_ORDERS_AND_ALERTS = """
CREATE TABLE stage_entries (
    message INTEGER PRIMARY KEY,
    stage_id INTEGER NOT NULL,
    system_id INTEGER NOT NULL,
    previous INTEGER,
    stay INTEGER,
    steps INTEGER,
    repeated INTEGER NOT NULL,
    ends INTEGER NOT NULL,
    processing INTEGER,
    errors INTEGER NOT NULL,
    error TEXT
) STRICT;

CREATE TABLE open_entries (
    message INTEGER PRIMARY KEY,
    order_id TEXT NOT NULL,
    stage_id INTEGER NOT NULL,
    system_id INTEGER NOT NULL,
    vhost_id INTEGER NOT NULL,
    entered_at INTEGER NOT NULL,
    due_at INTEGER,
    began_at INTEGER
) STRICT;

CREATE INDEX open_entries_order_id ON open_entries (order_id);

CREATE TABLE acknowledgements (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    note TEXT NOT NULL,
    chosen TEXT NOT NULL,
    hops INTEGER NOT NULL,
    orders INTEGER NOT NULL
) STRICT;

CREATE TABLE acknowledged_hops (
    message INTEGER NOT NULL,
    hop INTEGER NOT NULL,
    state_id INTEGER NOT NULL,
    acknowledgement INTEGER NOT NULL,
    PRIMARY KEY (message, hop)
) STRICT, WITHOUT ROWID;

CREATE TABLE acknowledged_entries (
    message INTEGER PRIMARY KEY,
    acknowledgement INTEGER NOT NULL
) STRICT;

CREATE TABLE alerts (
    labels TEXT PRIMARY KEY,
    alertname TEXT NOT NULL,
    starts_at INTEGER NOT NULL,
    ended_at INTEGER,
    count INTEGER NOT NULL,
    annotations TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


@ledger()
def first(db: Database) -> None:
    """Make the tables, the fixed names and the views."""
    for tables in (_TABLES, _ORDERS_AND_ALERTS):
        _make(db, tables)
    fixed = [(number, word) for word, number in (STATES | REASONS).items()] + [(EMPTY_NAME, "")]
    db.conn.executemany("INSERT INTO names (id, name, last_used) VALUES (?, ?, 0)", fixed)
    for name, select in views.VIEWS.items():
        db.execute(f"CREATE VIEW {name} AS {select}")
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


_OUTBOX = """
ALTER TABLE messages ADD COLUMN correlation_id TEXT;

CREATE TABLE outbox (
    message INTEGER NOT NULL,
    hop INTEGER NOT NULL,
    state_id INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    reason_id INTEGER,
    before_id INTEGER,
    PRIMARY KEY (message, hop, state_id, attempts)
) STRICT, WITHOUT ROWID;

CREATE TABLE order_traces (
    key INTEGER PRIMARY KEY,
    trace_context TEXT,
    rooted INTEGER NOT NULL,
    stage TEXT,
    stage_message INTEGER,
    stage_since INTEGER,
    told_at INTEGER NOT NULL
) STRICT;

CREATE TABLE tracing (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    spans INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0,
    unsampled INTEGER NOT NULL DEFAULT 0,
    invalid_contexts INTEGER NOT NULL DEFAULT 0,
    exported_at INTEGER,
    problem TEXT
) STRICT;

INSERT INTO tracing (id) VALUES (1);
"""


@ledger()
def outbox(db: Database) -> None:
    """Make what tracing needs: what it still has to be told, what it was told of orders, and the counts."""
    _make(db, _OUTBOX)
