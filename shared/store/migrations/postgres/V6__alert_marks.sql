-- How far alerting has evaluated the messages of each sensor: most change no state, so they are noted in a journal
-- and not each in a row of its own. A row that replaces others is the whole of it.
CREATE TABLE alert_marks (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lease text NOT NULL,
    body text NOT NULL
);
CREATE INDEX alert_marks_by_lease ON alert_marks (lease, seq);
