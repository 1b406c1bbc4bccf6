use super::fleet::{FleetTopic, templates};

/// The value of the metric label `topic` for a raw topic: one of a closed list, so that the number
/// of series is bounded whatever is published.
///
/// A sensor's topic keeps its type if the type is a usual one (`sensors/{location}/temperature`);
/// the fleet's other topics give their template and all the rest `other`.
#[must_use]
pub fn label(topic: &str) -> &'static str {
    match FleetTopic::parse(topic) {
        Some(FleetTopic::Sensor { kind, .. }) => sensor_label(kind),
        Some(other) => other.template(),
        None => "other",
    }
}

fn sensor_label(kind: &str) -> &'static str {
    match kind {
        "temperature" => "sensors/{location}/temperature",
        "humidity" => "sensors/{location}/humidity",
        "humidity_ratio" => "sensors/{location}/humidity_ratio",
        "pressure" => "sensors/{location}/pressure",
        "motion" => "sensors/{location}/motion",
        "occupancy" => "sensors/{location}/occupancy",
        "presence" => "sensors/{location}/presence",
        "door" => "sensors/{location}/door",
        "window" => "sensors/{location}/window",
        "contact" => "sensors/{location}/contact",
        "light" => "sensors/{location}/light",
        "co2" => "sensors/{location}/co2",
        "tvoc" => "sensors/{location}/tvoc",
        "pm25" => "sensors/{location}/pm25",
        "pm10" => "sensors/{location}/pm10",
        "noise" => "sensors/{location}/noise",
        "smoke" => "sensors/{location}/smoke",
        "water_leak" => "sensors/{location}/water_leak",
        "vibration" => "sensors/{location}/vibration",
        "power" => "sensors/{location}/power",
        "energy" => "sensors/{location}/energy",
        "voltage" => "sensors/{location}/voltage",
        "current" => "sensors/{location}/current",
        "battery" => "sensors/{location}/battery",
        "signal_strength" => "sensors/{location}/signal_strength",
        _ => templates::SENSOR,
    }
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn label_is_a_template_of_a_closed_list() {
        for (topic, expected) in [
            ("sensors/hall/temperature", "sensors/{location}/temperature"),
            ("sensors/site-1/floor-2/co2", "sensors/{location}/co2"),
            (
                "sensors/hall/made-up-by-a-device",
                "sensors/{location}/{type}",
            ),
            ("sensors/temperature", "other"),
            ("devices/d-1/status", "devices/{device_id}/status"),
            (
                "devices/d-1/commands/ping",
                "devices/{device_id}/commands/{command}",
            ),
            ("devices/d-1/anything", "other"),
            ("$SYS/broker/uptime", "other"),
            ("", "other"),
        ] {
            assert_eq!(label(topic), expected, "{topic}");
        }
    }
}
