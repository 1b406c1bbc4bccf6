-- `readings` is a table for whoever repairs or tests by hand, as it is in PostgreSQL. The fleet itself
-- writes to what is behind it.
CREATE TRIGGER readings_deleted INSTEAD OF DELETE ON readings
BEGIN
    DELETE FROM reading
    WHERE (minute, series, "offset") = (
        SELECT (second - (second % 60 + 60) % 60) / 60,
               (SELECT id FROM series WHERE sensor_id = OLD.sensor_id AND type = OLD.type),
               (second % 60 + 60) % 60 * 1000000 + micro
        FROM (SELECT CAST(strftime('%s', substr(OLD.timestamp, 1, 19)) AS INTEGER) AS second,
                     CAST(substr(OLD.timestamp, 21, 6) AS INTEGER) AS micro)
    );
END;

-- Fractions are taken off before SQLite reads an instant, for it rounds them to milliseconds.
CREATE TRIGGER readings_inserted INSTEAD OF INSERT ON readings
BEGIN
    SELECT RAISE(ABORT, 'readings: timestamp and received_at are instants such as 2026-01-02T03:04:05.678Z')
    WHERE strftime('%s', NEW.timestamp) IS NULL
       OR (NEW.received_at IS NOT NULL AND strftime('%s', NEW.received_at) IS NULL);
    SELECT RAISE(ABORT, 'readings: quality is good, fair, poor or NULL')
    WHERE NEW.quality NOT IN ('good', 'fair', 'poor');
    INSERT OR IGNORE INTO series (sensor_id, type) VALUES (NEW.sensor_id, NEW.type);
    INSERT OR IGNORE INTO place (unit, location) VALUES (NEW.unit, NEW.location);
    INSERT INTO reading (minute, series, "offset", value, place, battery_percent, quality, delay)
    SELECT (second - (second % 60 + 60) % 60) / 60,
           (SELECT id FROM series WHERE sensor_id = NEW.sensor_id AND type = NEW.type),
           (second % 60 + 60) % 60 * 1000000 + micro,
           NEW.value,
           (SELECT id FROM place WHERE unit = NEW.unit AND location = NEW.location),
           NEW.battery_percent,
           CASE NEW.quality WHEN 'good' THEN 1 WHEN 'fair' THEN 2 WHEN 'poor' THEN 3 END,
           (received_second - second) * 1000000 + received_micro - micro
    FROM (
        SELECT CAST(strftime('%s', substr(at, 1, 19) || ltrim(substr(at, 20), '.0123456789')) AS INTEGER) AS second,
               CASE substr(at, 20, 1)
                   WHEN '.' THEN min(CAST(CAST('0' || substr(at, 20) AS REAL) * 1000000 + 0.5 AS INTEGER), 999999)
                   ELSE 0
               END AS micro,
               CAST(strftime('%s', substr(received, 1, 19) || ltrim(substr(received, 20), '.0123456789')) AS INTEGER)
                   AS received_second,
               CASE substr(received, 20, 1)
                   WHEN '.' THEN min(CAST(CAST('0' || substr(received, 20) AS REAL) * 1000000 + 0.5 AS INTEGER), 999999)
                   ELSE 0
               END AS received_micro
        FROM (SELECT NEW.timestamp AS at, coalesce(NEW.received_at, NEW.timestamp) AS received)
    );
END;

CREATE TRIGGER readings_updated INSTEAD OF UPDATE ON readings
BEGIN
    DELETE FROM reading
    WHERE (minute, series, "offset") = (
        SELECT (second - (second % 60 + 60) % 60) / 60,
               (SELECT id FROM series WHERE sensor_id = OLD.sensor_id AND type = OLD.type),
               (second % 60 + 60) % 60 * 1000000 + micro
        FROM (SELECT CAST(strftime('%s', substr(OLD.timestamp, 1, 19)) AS INTEGER) AS second,
                     CAST(substr(OLD.timestamp, 21, 6) AS INTEGER) AS micro)
    );
    INSERT INTO readings (sensor_id, type, timestamp, value, unit, location, battery_percent, quality, received_at)
    VALUES (NEW.sensor_id, NEW.type, NEW.timestamp, NEW.value, NEW.unit, NEW.location, NEW.battery_percent,
            NEW.quality, NEW.received_at);
END;
