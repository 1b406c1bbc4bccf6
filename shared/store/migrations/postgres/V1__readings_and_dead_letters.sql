-- Byte order instead of a language's: comparing keys is most of an insert's cost.
CREATE TABLE readings (
    sensor_id       text COLLATE "C" NOT NULL,
    type            text COLLATE "C" NOT NULL,
    timestamp       timestamptz NOT NULL,
    value           double precision NOT NULL,
    unit            text NOT NULL,
    location        text NOT NULL,
    battery_percent smallint,
    quality         text,
    received_at     timestamptz NOT NULL,
    PRIMARY KEY (sensor_id, type, timestamp)
);

-- Lets retention find old readings; costs next to nothing to keep.
CREATE INDEX readings_by_time ON readings USING brin (timestamp) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE dead_letters (
    id           uuid PRIMARY KEY,
    service      text COLLATE "C" NOT NULL,
    topic        text NOT NULL,
    payload      bytea NOT NULL,
    reason       text COLLATE "C" NOT NULL,
    detail       text NOT NULL,
    received_at  timestamptz NOT NULL,
    -- A hash of service, topic, payload and reason: finds the first copy of a redelivered message.
    content_hash bigint NOT NULL
);

CREATE INDEX dead_letters_by_content ON dead_letters (content_hash);
CREATE INDEX dead_letters_by_reason ON dead_letters (service, reason, id);
