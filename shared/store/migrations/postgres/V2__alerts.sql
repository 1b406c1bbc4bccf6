CREATE TABLE alerts (
    alert_id        text COLLATE "C" PRIMARY KEY,
    rule            text COLLATE "C" NOT NULL,
    severity        text COLLATE "C" NOT NULL,
    sensor_id       text COLLATE "C" NOT NULL,
    message         text NOT NULL,
    fired_at        timestamptz NOT NULL,
    resolved_at     timestamptz,
    acknowledged_at timestamptz,
    -- A JSON object of strings, as text: it is handed on, not searched.
    metadata        text NOT NULL
);

CREATE INDEX alerts_by_time ON alerts (fired_at, alert_id);
CREATE INDEX alerts_firing ON alerts (fired_at) WHERE resolved_at IS NULL;

-- Where each rule is with each sensor, as JSON of the alerting service.
CREATE TABLE alert_states (
    rule       text COLLATE "C" NOT NULL,
    sensor_id  text COLLATE "C" NOT NULL,
    state      text NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (rule, sensor_id)
);

-- What is to be sent because of alerts, written in the transaction that made them.
CREATE TABLE alert_outbox (
    seq      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The same whoever writes it, so that nothing is sent because it was computed twice.
    name     text COLLATE "C" NOT NULL UNIQUE,
    alert_id text COLLATE "C" NOT NULL,
    -- mqtt, or the receiver of a notification.
    channel  text COLLATE "C" NOT NULL,
    -- JSON of the alerting service.
    body     text NOT NULL,
    due_at   timestamptz NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    done_at  timestamptz,
    -- sent, given_up, or suppressed.
    outcome  text,
    -- What the last attempt that failed was told.
    error    text
);

CREATE INDEX alert_outbox_due ON alert_outbox (due_at, seq) WHERE done_at IS NULL;
CREATE INDEX alert_outbox_by_alert ON alert_outbox (alert_id, seq);
CREATE INDEX alert_outbox_done ON alert_outbox (done_at) WHERE done_at IS NOT NULL;

-- Who does a job that only one may do. The epoch grows with every holder, and fences off the last.
CREATE TABLE leases (
    name       text COLLATE "C" PRIMARY KEY,
    holder     text NOT NULL,
    epoch      bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
