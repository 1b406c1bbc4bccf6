//! The JSON Schemas under docs/schemas are those of the types.
//!
//! `UPDATE_SCHEMAS=1 cargo test -p fleet-shared --test model` writes them anew.

use std::fs;
use std::path::Path;

use fleet_shared::model::{AlertMessage, DeviceStatus, DeviceWill, SensorReading};
use schemars::{Schema, schema_for};
use serde_json::Value;

#[expect(
    clippy::disallowed_methods,
    reason = "a switch of this test, not a setting"
)]
fn check(name: &str, schema: Schema) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/schemas")
        .join(format!("{name}.json"));
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        fs::write(&path, text).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    let kept: Value = serde_json::from_str(&kept).unwrap_or_default();
    // Compared as values: the order of keys is that of serde_json's features, not of the types.
    assert_eq!(
        kept,
        schema.to_value(),
        "{} is not the schema of its type; run this test with UPDATE_SCHEMAS=1 and commit it",
        path.display()
    );
}

#[test]
fn schema_of_sensor_reading_is_kept() {
    check("sensor-reading", schema_for!(SensorReading));
}

#[test]
fn schema_of_device_status_is_kept() {
    check("device-status", schema_for!(DeviceStatus));
}

#[test]
fn schema_of_device_will_is_kept() {
    check("device-will", schema_for!(DeviceWill));
}

#[test]
fn schema_of_alert_message_is_kept() {
    check("alert-message", schema_for!(AlertMessage));
}
