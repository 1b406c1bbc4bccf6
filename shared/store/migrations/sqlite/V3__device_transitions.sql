-- Every change of a device between on and offline. For one device the rows alternate: who writes
-- looks at the newest one first, in the same transaction.
CREATE TABLE device_transitions (
    device_id  TEXT NOT NULL,
    at         TEXT NOT NULL,
    online     INTEGER NOT NULL,
    reason     TEXT NOT NULL,
    -- The connection it belongs to, so that news of an older one is told from news.
    session_id TEXT,
    PRIMARY KEY (device_id, at, online)
) WITHOUT ROWID;

CREATE INDEX device_transitions_by_time ON device_transitions (at);
