ALTER TABLE alerts ADD COLUMN acknowledged_by TEXT;
-- When nothing more was to be notified about it; what ended before this was kept is settled.
ALTER TABLE alerts ADD COLUMN settled_at TEXT;
UPDATE alerts SET settled_at = resolved_at WHERE resolved_at IS NOT NULL;
CREATE INDEX alerts_unsettled ON alerts (alert_id) WHERE settled_at IS NULL;
CREATE INDEX alerts_by_severity ON alerts (severity, fired_at, alert_id);

-- The course of an alert, to explain it by: its inputs, its states, its routes, who was silent why.
CREATE TABLE alert_events (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT,
    alert_id TEXT NOT NULL,
    at       TEXT NOT NULL,
    -- pending, firing, clearing, firing_again, resolved, acknowledged, routed, suppressed or released.
    kind     TEXT NOT NULL,
    -- JSON of the alerting service.
    detail   TEXT NOT NULL,
    -- The same whoever writes it.
    UNIQUE (alert_id, at, kind)
);

-- The group of alerts that a notification is about, and when it was written.
ALTER TABLE alert_outbox ADD COLUMN group_key TEXT;
ALTER TABLE alert_outbox ADD COLUMN queued_at TEXT;
CREATE INDEX alert_outbox_by_channel ON alert_outbox (channel, due_at, seq)
    WHERE done_at IS NULL AND channel <> 'mqtt';

-- What a notification says of which alert: firing, or resolved.
CREATE TABLE alert_notified (
    alert_id TEXT NOT NULL,
    seq      INTEGER NOT NULL,
    state    TEXT NOT NULL,
    PRIMARY KEY (alert_id, seq)
) WITHOUT ROWID;

CREATE INDEX alert_notified_by_message ON alert_notified (seq);

-- Every attempt to send a notification.
CREATE TABLE notification_attempts (
    seq         INTEGER NOT NULL,
    attempt     INTEGER NOT NULL,
    at          TEXT NOT NULL,
    took_millis INTEGER NOT NULL,
    -- sent, failed, or given_up.
    outcome     TEXT NOT NULL,
    error       TEXT,
    PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;

CREATE TABLE silences (
    id         TEXT PRIMARY KEY NOT NULL,
    -- A JSON array of {name, op, value}.
    matchers   TEXT NOT NULL,
    starts_at  TEXT NOT NULL,
    ends_at    TEXT NOT NULL,
    created_by TEXT NOT NULL,
    comment    TEXT NOT NULL,
    created_at TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX silences_by_end ON silences (ends_at);
