-- A reading is kept under (minute, series, offset): readings that arrive together lie together,
-- so a batch touches few pages whatever the number of sensors, and one sensor's history is still
-- found with one seek a minute. Microseconds since the epoch are minute * 60000000 + "offset".
CREATE TABLE series (
    id        INTEGER PRIMARY KEY,
    sensor_id TEXT NOT NULL,
    type      TEXT NOT NULL,
    UNIQUE (sensor_id, type)
);

CREATE TABLE place (
    id       INTEGER PRIMARY KEY,
    unit     TEXT NOT NULL,
    location TEXT NOT NULL,
    UNIQUE (unit, location)
);

CREATE TABLE reading (
    minute          INTEGER NOT NULL,
    series          INTEGER NOT NULL,
    "offset"        INTEGER NOT NULL,
    value           REAL NOT NULL,
    place           INTEGER NOT NULL,
    battery_percent INTEGER,
    -- 1 good, 2 fair, 3 poor.
    quality         INTEGER,
    -- Microseconds from the reading's timestamp to its receipt.
    delay           INTEGER NOT NULL,
    PRIMARY KEY (minute, series, "offset")
) WITHOUT ROWID;

-- What the outside reads. Instants are RFC 3339 with six decimals, so they sort as text. With
-- subqueries instead of joins, a query that asks for no name, a count for one, reads no dictionary.
CREATE VIEW readings AS
SELECT (SELECT sensor_id FROM series WHERE id = r.series) AS sensor_id,
       (SELECT type FROM series WHERE id = r.series) AS type,
       strftime('%Y-%m-%dT%H:%M:%S', r.minute * 60 + r."offset" / 1000000, 'unixepoch')
           || printf('.%06dZ', r."offset" % 1000000) AS timestamp,
       r.value AS value,
       (SELECT unit FROM place WHERE id = r.place) AS unit,
       (SELECT location FROM place WHERE id = r.place) AS location,
       r.battery_percent AS battery_percent,
       CASE r.quality WHEN 1 THEN 'good' WHEN 2 THEN 'fair' WHEN 3 THEN 'poor' END AS quality,
       strftime('%Y-%m-%dT%H:%M:%S', (r.minute * 60000000 + r."offset" + r.delay) / 1000000, 'unixepoch')
           || printf('.%06dZ', (r.minute * 60000000 + r."offset" + r.delay) % 1000000) AS received_at
FROM reading AS r;

CREATE TABLE dead_letters (
    id           TEXT PRIMARY KEY NOT NULL,
    service      TEXT NOT NULL,
    topic        TEXT NOT NULL,
    payload      BLOB NOT NULL,
    reason       TEXT NOT NULL,
    detail       TEXT NOT NULL,
    received_at  TEXT NOT NULL,
    -- A hash of service, topic, payload and reason: finds the first copy of a redelivered message.
    content_hash INTEGER NOT NULL
);

CREATE INDEX dead_letters_by_content ON dead_letters (content_hash);
CREATE INDEX dead_letters_by_reason ON dead_letters (service, reason, id);
