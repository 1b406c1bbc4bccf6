-- Every change of a device between on and offline. For one device the rows alternate: who writes
-- looks at the newest one first, in the same transaction.
CREATE TABLE device_transitions (
    device_id  text COLLATE "C" NOT NULL,
    at         timestamptz NOT NULL,
    online     boolean NOT NULL,
    reason     text NOT NULL,
    -- The connection it belongs to, so that news of an older one is told from news.
    session_id uuid,
    PRIMARY KEY (device_id, at, online)
);

CREATE INDEX device_transitions_by_time ON device_transitions (at);
