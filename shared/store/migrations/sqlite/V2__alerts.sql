-- Instants are RFC 3339 with six decimals, so they sort as text.
CREATE TABLE alerts (
    alert_id        TEXT PRIMARY KEY NOT NULL,
    rule            TEXT NOT NULL,
    severity        TEXT NOT NULL,
    sensor_id       TEXT NOT NULL,
    message         TEXT NOT NULL,
    fired_at        TEXT NOT NULL,
    resolved_at     TEXT,
    acknowledged_at TEXT,
    -- A JSON object of strings.
    metadata        TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX alerts_by_time ON alerts (fired_at, alert_id);
CREATE INDEX alerts_firing ON alerts (fired_at) WHERE resolved_at IS NULL;

-- Where each rule is with each sensor, as JSON of the alerting service.
CREATE TABLE alert_states (
    rule       TEXT NOT NULL,
    sensor_id  TEXT NOT NULL,
    state      TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    PRIMARY KEY (rule, sensor_id)
) WITHOUT ROWID;

-- What is to be sent because of alerts, written in the transaction that made them.
CREATE TABLE alert_outbox (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The same whoever writes it, so that nothing is sent because it was computed twice.
    name     TEXT NOT NULL UNIQUE,
    alert_id TEXT NOT NULL,
    -- mqtt, or the receiver of a notification.
    channel  TEXT NOT NULL,
    -- JSON of the alerting service.
    body     TEXT NOT NULL,
    due_at   TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    done_at  TEXT,
    -- sent, given_up, or suppressed.
    outcome  TEXT,
    -- What the last attempt that failed was told.
    error    TEXT
);

CREATE INDEX alert_outbox_due ON alert_outbox (due_at, seq) WHERE done_at IS NULL;
CREATE INDEX alert_outbox_by_alert ON alert_outbox (alert_id, seq);
CREATE INDEX alert_outbox_done ON alert_outbox (done_at) WHERE done_at IS NOT NULL;

-- Who does a job that only one may do. The epoch grows with every holder, and fences off the last.
CREATE TABLE leases (
    name       TEXT PRIMARY KEY NOT NULL,
    holder     TEXT NOT NULL,
    epoch      INTEGER NOT NULL,
    expires_at TEXT NOT NULL
) WITHOUT ROWID;
