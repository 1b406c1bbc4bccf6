use super::*;

fn readings(name: &str, topic: &str, payload: &str) -> Vec<SensorReading> {
    let mappings = Mappings::load(&[name.to_owned()]).unwrap();
    let now = "2024-05-01T00:00:00Z".parse().unwrap();
    mappings
        .decode(topic, payload.as_bytes(), now)
        .expect("the topic is mapped")
        .unwrap()
}

/// Sensor, type, value, unit, time, battery.
type Short<'a> = (&'a str, &'a str, f64, &'a str, String, Option<u8>);

fn short(readings: &[SensorReading]) -> Vec<Short<'_>> {
    readings
        .iter()
        .map(|reading| {
            (
                reading.sensor_id.as_str(),
                reading.kind.as_str(),
                (reading.value * 1e6).round() / 1e6,
                reading.unit.as_str(),
                reading.timestamp.to_string(),
                reading.battery_percent,
            )
        })
        .collect()
}

/// As a Tasmota plug with an AM2301 and a BME280 sends it.
#[test]
fn tasmota_gives_a_reading_a_chip_and_quantity() {
    let payload = r#"{"Time":"2024-04-30T21:58:17","AM2301":{"Temperature":21.7,"Humidity":45.3,"DewPoint":9.4},"BME280":{"Temperature":20.9,"Humidity":47.1,"DewPoint":9.2,"Pressure":1013.4},"PressureUnit":"hPa","TempUnit":"C"}"#;
    let found = readings("tasmota", "tele/office-plug/SENSOR", payload);
    let at = || "2024-04-30T21:58:17Z".to_owned();
    assert_eq!(
        short(&found),
        [
            (
                "office-plug-AM2301-temperature",
                "temperature",
                21.7,
                "celsius",
                at(),
                None
            ),
            (
                "office-plug-BME280-temperature",
                "temperature",
                20.9,
                "celsius",
                at(),
                None
            ),
            (
                "office-plug-AM2301-humidity",
                "humidity",
                45.3,
                "percent",
                at(),
                None
            ),
            (
                "office-plug-BME280-humidity",
                "humidity",
                47.1,
                "percent",
                at(),
                None
            ),
            (
                "office-plug-BME280-pressure",
                "pressure",
                1013.4,
                "hectopascal",
                at(),
                None
            ),
        ]
    );
    assert_eq!(found[0].location, "office-plug");
}

#[test]
fn tasmota_in_fahrenheit_becomes_celsius() {
    let payload = r#"{"Time":"2024-04-30T21:58:17","DS18B20":{"Id":"0316A279","Temperature":71.6},"TempUnit":"F"}"#;
    let found = readings("tasmota", "tele/cellar/SENSOR", payload);
    assert_eq!(short(&found)[0].2, 22.0);
}

/// As an Aqara climate sensor and a door contact look through Zigbee2MQTT.
#[test]
fn zigbee2mqtt_gives_battery_and_an_open_door() {
    let climate = r#"{"battery":97,"humidity":48.21,"last_seen":"2024-04-30T21:58:17.123Z","linkquality":120,"pressure":1009.6,"temperature":21.34,"voltage":3005}"#;
    let at = || "2024-04-30T21:58:17.123Z".to_owned();
    assert_eq!(
        short(&readings(
            "zigbee2mqtt",
            "zigbee2mqtt/bedroom_climate",
            climate
        )),
        [
            (
                "bedroom_climate-temperature",
                "temperature",
                21.34,
                "celsius",
                at(),
                Some(97)
            ),
            (
                "bedroom_climate-humidity",
                "humidity",
                48.21,
                "percent",
                at(),
                Some(97)
            ),
            (
                "bedroom_climate-pressure",
                "pressure",
                1009.6,
                "hectopascal",
                at(),
                Some(97)
            ),
        ]
    );
    let door = r#"{"battery":100,"contact":false,"last_seen":"2024-04-30T21:58:17+02:00","linkquality":87,"voltage":3025}"#;
    let found = readings("zigbee2mqtt", "zigbee2mqtt/front_door", door);
    assert_eq!(short(&found)[0].2, 1.0);
    assert_eq!(found[0].timestamp.to_string(), "2024-04-30T19:58:17Z");
}

/// A full status as a Shelly Plus H&T sends it when it wakes.
#[test]
fn shelly_plus_is_read_from_its_notification() {
    let payload = r#"{"src":"shellyplusht-c049ef8d9898","dst":"shellyplusht-c049ef8d9898/events","method":"NotifyFullStatus","params":{"ts":1636727890.61,"ble":{},"devicepower:0":{"id":0,"battery":{"V":5.83,"percent":98},"external":{"present":false}},"humidity:0":{"id":0,"rh":45.2},"temperature:0":{"id":0,"tC":22.3,"tF":72.1}}}"#;
    let found = readings("shelly", "shellyplusht-c049ef8d9898/events/rpc", payload);
    let at = || "2021-11-12T14:38:10.61Z".to_owned();
    assert_eq!(
        short(&found),
        [
            (
                "shellyplusht-c049ef8d9898-temperature",
                "temperature",
                22.3,
                "celsius",
                at(),
                Some(98)
            ),
            (
                "shellyplusht-c049ef8d9898-humidity",
                "humidity",
                45.2,
                "percent",
                at(),
                Some(98)
            ),
        ]
    );
}

#[test]
fn bare_number_of_a_first_generation_shelly_is_dated_on_arrival() {
    let found = readings(
        "shelly",
        "shellies/shellyht-1A2B3C/sensor/temperature",
        "21.50",
    );
    assert_eq!(
        short(&found),
        [(
            "shellyht-1A2B3C-temperature",
            "temperature",
            21.5,
            "celsius",
            "2024-05-01T00:00:00Z".to_owned(),
            None
        )]
    );
}

#[test]
fn what_cannot_be_mapped_is_refused_with_its_own_reason() {
    let mappings = Mappings::load(&["zigbee2mqtt".to_owned()]).unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let refused = |payload: &[u8]| {
        mappings
            .decode("zigbee2mqtt/x", payload, now)
            .expect("mapped")
            .unwrap_err()
            .reason
            .as_str()
    };
    let deep = "[".repeat(500);
    assert_eq!(refused(b"{"), "malformed");
    assert_eq!(refused(b"\xff\xfe"), "not_utf8");
    assert_eq!(refused(deep.as_bytes()), "too_deep");
    assert_eq!(
        refused(br#"{"last_seen":"2024-04-30T21:58:17Z","temperature":1e999}"#),
        "not_finite"
    );
    assert_eq!(
        refused(br#"{"last_seen":"yesterday","temperature":1}"#),
        "malformed"
    );
    assert_eq!(
        refused(br#"{"last_seen":"2024-04-30T21:58:17Z","temperature":"warm"}"#),
        "malformed"
    );
    assert_eq!(
        refused(br#"{"last_seen":"2024-04-30T21:58:17Z","linkquality":3}"#),
        "unmapped"
    );
    assert!(
        mappings
            .decode("sensors/x/temperature", b"{}", now)
            .is_none()
    );
}

#[test]
fn file_that_makes_no_sense_is_refused_with_place_and_reason() {
    let error = |text: &str| file::parse("my.toml", text).unwrap_err().to_string();
    assert!(error("[[mapping]]\ntopic = 3").contains("line 2"));
    let reading = "\n[[mapping.reading]]\nvalue = { pointer = \"/t\" }\nsensor_id = \"{dev}\"\ntype = \"t\"\nunit = \"\"\nlocation = \"l\"\n";
    assert_eq!(
        error(&format!("[[mapping]]\ntopic = \"a/{{device}}\"{reading}")),
        "mapping file my.toml, mapping of `a/{device}`: sensor_id `{dev}`: `{dev}` is no placeholder of the topic, which has device"
    );
    let error = Mappings::load(&["nowhere.toml".to_owned()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "mapping `nowhere.toml` is neither a readable file nor one of tasmota, zigbee2mqtt, shelly"
    );
}
