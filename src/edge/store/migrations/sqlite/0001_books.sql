CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL
);

-- What happened. A pair (epoch, seq) is written once.
CREATE TABLE facts (
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    call TEXT,
    body TEXT NOT NULL,
    PRIMARY KEY (epoch, seq)
) WITHOUT ROWID;
CREATE INDEX facts_call ON facts (call) WHERE call IS NOT NULL;
CREATE INDEX facts_at ON facts (at);

-- The record of a call while it lives.
CREATE TABLE open_calls (
    call TEXT PRIMARY KEY,
    cdr TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE cdr (
    call TEXT PRIMARY KEY,
    direction TEXT NOT NULL,
    caller TEXT NOT NULL,
    called TEXT NOT NULL,
    line TEXT NOT NULL,
    trunk TEXT,
    queue TEXT,
    operator TEXT,
    arrived_at INTEGER NOT NULL,
    answered_at INTEGER,
    ended_at INTEGER,
    wait_ms INTEGER NOT NULL,
    talk_ms INTEGER NOT NULL,
    result TEXT NOT NULL,
    q850 INTEGER NOT NULL,
    sip INTEGER NOT NULL,
    words TEXT NOT NULL,
    ended_by TEXT NOT NULL,
    card TEXT
);
CREATE INDEX cdr_arrived ON cdr (arrived_at);
CREATE INDEX cdr_caller ON cdr (caller, arrived_at);
CREATE INDEX cdr_called ON cdr (called, arrived_at);

CREATE TABLE cards (
    card TEXT PRIMARY KEY,
    call TEXT,
    caller TEXT NOT NULL,
    line TEXT NOT NULL,
    trunk TEXT,
    queue TEXT,
    operator TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('draft', 'accepted', 'discarded')),
    fields TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    core_order TEXT,
    opened_at INTEGER NOT NULL,
    closed_at INTEGER
);
CREATE INDEX cards_open ON cards (state) WHERE state = 'draft';
CREATE INDEX cards_closed ON cards (closed_at) WHERE closed_at IS NOT NULL;
CREATE INDEX cards_caller ON cards (caller, opened_at);

-- Letters to the order core. A key is written once and stays after delivery.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    lane TEXT NOT NULL,
    path TEXT NOT NULL,
    body TEXT NOT NULL,
    card TEXT,
    made_at INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT NOT NULL DEFAULT '',
    closed_at INTEGER
);
CREATE INDEX outbox_waiting ON outbox (id) WHERE state = 'waiting';
CREATE INDEX outbox_closed ON outbox (closed_at) WHERE closed_at IS NOT NULL;

CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY REFERENCES outbox (id) ON DELETE CASCADE,
    status INTEGER NOT NULL,
    answer TEXT NOT NULL,
    at INTEGER NOT NULL
);

-- The embedded order core.
CREATE TABLE core_orders (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    phone TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    at TEXT NOT NULL,
    fields TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX core_orders_phone ON core_orders (phone, id);

-- Keys of PATCH and discard requests that were carried out.
CREATE TABLE core_done (
    key TEXT PRIMARY KEY,
    core_order INTEGER NOT NULL REFERENCES core_orders (id) ON DELETE CASCADE
) WITHOUT ROWID;

CREATE TABLE core_customers (
    phone TEXT PRIMARY KEY,
    name TEXT NOT NULL DEFAULT '',
    blocked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE core_calls (
    key TEXT PRIMARY KEY,
    call TEXT NOT NULL,
    phone TEXT NOT NULL,
    body TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE accounts (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    hash TEXT NOT NULL,
    queues TEXT NOT NULL,
    skills TEXT NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE sessions (
    token_hash TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_expires ON sessions (expires_at);
