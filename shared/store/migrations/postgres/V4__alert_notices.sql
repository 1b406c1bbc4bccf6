ALTER TABLE alerts ADD COLUMN acknowledged_by text;
-- When nothing more was to be notified about it; what ended before this was kept is settled.
ALTER TABLE alerts ADD COLUMN settled_at timestamptz;
UPDATE alerts SET settled_at = resolved_at WHERE resolved_at IS NOT NULL;
CREATE INDEX alerts_unsettled ON alerts (alert_id) WHERE settled_at IS NULL;
CREATE INDEX alerts_by_severity ON alerts (severity, fired_at, alert_id);

-- The course of an alert, to explain it by: its inputs, its states, its routes, who was silent why.
CREATE TABLE alert_events (
    seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id text COLLATE "C" NOT NULL,
    at       timestamptz NOT NULL,
    -- pending, firing, clearing, firing_again, resolved, acknowledged, routed, suppressed or released.
    kind     text COLLATE "C" NOT NULL,
    -- JSON of the alerting service.
    detail   text NOT NULL,
    -- The same whoever writes it.
    UNIQUE (alert_id, at, kind)
);

-- The group of alerts that a notification is about, and when it was written.
ALTER TABLE alert_outbox ADD COLUMN group_key text COLLATE "C";
ALTER TABLE alert_outbox ADD COLUMN queued_at timestamptz;
CREATE INDEX alert_outbox_by_channel ON alert_outbox (channel, due_at, seq)
    WHERE done_at IS NULL AND channel <> 'mqtt';

-- What a notification says of which alert: firing, or resolved.
CREATE TABLE alert_notified (
    alert_id text COLLATE "C" NOT NULL,
    seq      bigint NOT NULL,
    state    text NOT NULL,
    PRIMARY KEY (alert_id, seq)
);

CREATE INDEX alert_notified_by_message ON alert_notified (seq);

-- Every attempt to send a notification.
CREATE TABLE notification_attempts (
    seq         bigint NOT NULL,
    attempt     integer NOT NULL,
    at          timestamptz NOT NULL,
    took_millis bigint NOT NULL,
    -- sent, failed, or given_up.
    outcome     text NOT NULL,
    error       text,
    PRIMARY KEY (seq, attempt)
);

CREATE TABLE silences (
    id         uuid PRIMARY KEY,
    -- A JSON array of {name, op, value}.
    matchers   text NOT NULL,
    starts_at  timestamptz NOT NULL,
    ends_at    timestamptz NOT NULL,
    created_by text NOT NULL,
    comment    text NOT NULL,
    created_at timestamptz NOT NULL
);

CREATE INDEX silences_by_end ON silences (ends_at);
