-- The alerts of a device's sensors are shown on its page: without this every alert ever would be read for it.
CREATE INDEX alerts_by_sensor ON alerts (sensor_id, fired_at, alert_id);
