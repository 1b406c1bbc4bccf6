use super::error::TopicError;
use super::excerpt::Excerpt;
use super::text::forbidden;
use super::{name, template};

/// The templates of the fleet's topics; also their values of the metric label `topic`.
pub mod templates {
    /// Readings of a sensor; the location may span levels, the type is the last one.
    pub const SENSOR: &str = "sensors/{location}/{type}";
    /// Presence of a device, retained, and its last will.
    pub const DEVICE_STATUS: &str = "devices/{device_id}/status";
    /// Measurements of the device itself.
    pub const DEVICE_TELEMETRY: &str = "devices/{device_id}/telemetry";
    /// The configuration a device should have, retained.
    pub const DEVICE_CONFIG: &str = "devices/{device_id}/config";
    /// The configuration a device has, retained.
    pub const DEVICE_CONFIG_REPORTED: &str = "devices/{device_id}/config/reported";
    /// Requests to a device.
    pub const DEVICE_COMMAND: &str = "devices/{device_id}/commands/{command}";
    /// Answers to requests.
    pub const RESPONSE: &str = "responses/{client_id}/{correlation_id}";
    /// Alerts by severity.
    pub const ALERT: &str = "alerts/{severity}/{sensor_id}";
    /// What a replica of alerting must know to take over, retained while firing.
    pub const ALERTING_STATE: &str = "fleet/alerting/state/{rule}/{sensor_id}";
    /// Requests to the active process of alerting.
    pub const ALERTING_REQUEST: &str = "fleet/alerting/requests/{name}";
    /// Messages a service could not use.
    pub const DEAD_LETTER: &str = "fleet/dead-letter/{service}";
    /// Presence of a service, retained, and its last will.
    pub const SERVICE_STATUS: &str = "fleet/services/{service}/{instance}/status";
    /// What a replica of a service has done lately.
    pub const SERVICE_REPORT: &str = "fleet/services/{service}/{instance}/report";
}

/// A topic of the fleet, taken apart. The list is closed: other topics are not the fleet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "the fields are the placeholders of the templates named above them"
)]
pub enum FleetTopic<'a> {
    /// [`templates::SENSOR`]
    Sensor { location: &'a str, kind: &'a str },
    /// [`templates::DEVICE_STATUS`]
    DeviceStatus { device_id: &'a str },
    /// [`templates::DEVICE_TELEMETRY`]
    DeviceTelemetry { device_id: &'a str },
    /// [`templates::DEVICE_CONFIG`]
    DeviceConfig { device_id: &'a str },
    /// [`templates::DEVICE_CONFIG_REPORTED`]
    DeviceConfigReported { device_id: &'a str },
    /// [`templates::DEVICE_COMMAND`]
    DeviceCommand {
        device_id: &'a str,
        command: &'a str,
    },
    /// [`templates::RESPONSE`]
    Response {
        client_id: &'a str,
        correlation_id: &'a str,
    },
    /// [`templates::ALERT`]
    Alert {
        severity: &'a str,
        sensor_id: &'a str,
    },
    /// [`templates::ALERTING_STATE`]
    AlertingState { rule: &'a str, sensor_id: &'a str },
    /// [`templates::ALERTING_REQUEST`]
    AlertingRequest { name: &'a str },
    /// [`templates::DEAD_LETTER`]
    DeadLetter { service: &'a str },
    /// [`templates::SERVICE_STATUS`]
    ServiceStatus { service: &'a str, instance: &'a str },
    /// [`templates::SERVICE_REPORT`]
    ServiceReport { service: &'a str, instance: &'a str },
}

impl<'a> FleetTopic<'a> {
    /// Takes `topic` apart, which must be a valid topic name; none if it is not the fleet's.
    ///
    /// No value is empty. Nothing is allocated.
    #[must_use]
    pub fn parse(topic: &'a str) -> Option<Self> {
        let (root, rest) = topic.split_once('/')?;
        match root {
            "sensors" => {
                let (location, kind) = rest.rsplit_once('/')?;
                both(location, kind).map(|(location, kind)| Self::Sensor { location, kind })
            }
            "devices" => Self::parse_device(rest),
            "responses" => pair(rest).map(|(client_id, correlation_id)| Self::Response {
                client_id,
                correlation_id,
            }),
            "alerts" => pair(rest).map(|(severity, sensor_id)| Self::Alert {
                severity,
                sensor_id,
            }),
            "fleet" => Self::parse_fleet(rest),
            _ => None,
        }
    }

    fn parse_device(rest: &'a str) -> Option<Self> {
        let (device_id, what) = rest.split_once('/')?;
        if device_id.is_empty() {
            return None;
        }
        match what {
            "status" => Some(Self::DeviceStatus { device_id }),
            "telemetry" => Some(Self::DeviceTelemetry { device_id }),
            "config" => Some(Self::DeviceConfig { device_id }),
            "config/reported" => Some(Self::DeviceConfigReported { device_id }),
            _ => one(what.strip_prefix("commands/")?)
                .map(|command| Self::DeviceCommand { device_id, command }),
        }
    }

    fn parse_fleet(rest: &'a str) -> Option<Self> {
        if let Some(service) = rest.strip_prefix("dead-letter/") {
            return one(service).map(|service| Self::DeadLetter { service });
        }
        if let Some(rest) = rest.strip_prefix("alerting/state/") {
            return pair(rest).map(|(rule, sensor_id)| Self::AlertingState { rule, sensor_id });
        }
        if let Some(name) = rest.strip_prefix("alerting/requests/") {
            return one(name).map(|name| Self::AlertingRequest { name });
        }
        let rest = rest.strip_prefix("services/")?;
        if let Some(rest) = rest.strip_suffix("/report") {
            return pair(rest).map(|(service, instance)| Self::ServiceReport { service, instance });
        }
        pair(rest.strip_suffix("/status")?)
            .map(|(service, instance)| Self::ServiceStatus { service, instance })
    }

    /// The template the topic follows.
    #[must_use]
    pub fn template(&self) -> &'static str {
        match self {
            Self::Sensor { .. } => templates::SENSOR,
            Self::DeviceStatus { .. } => templates::DEVICE_STATUS,
            Self::DeviceTelemetry { .. } => templates::DEVICE_TELEMETRY,
            Self::DeviceConfig { .. } => templates::DEVICE_CONFIG,
            Self::DeviceConfigReported { .. } => templates::DEVICE_CONFIG_REPORTED,
            Self::DeviceCommand { .. } => templates::DEVICE_COMMAND,
            Self::Response { .. } => templates::RESPONSE,
            Self::Alert { .. } => templates::ALERT,
            Self::AlertingState { .. } => templates::ALERTING_STATE,
            Self::AlertingRequest { .. } => templates::ALERTING_REQUEST,
            Self::DeadLetter { .. } => templates::DEAD_LETTER,
            Self::ServiceStatus { .. } => templates::SERVICE_STATUS,
            Self::ServiceReport { .. } => templates::SERVICE_REPORT,
        }
    }
}

fn one(level: &str) -> Option<&str> {
    (!level.is_empty() && !level.contains('/')).then_some(level)
}

fn pair(levels: &str) -> Option<(&str, &str)> {
    let (first, second) = levels.split_once('/')?;
    both(first, one(second)?)
}

fn both<'a>(first: &'a str, second: &'a str) -> Option<(&'a str, &'a str)> {
    (!first.is_empty() && !second.is_empty()).then_some((first, second))
}

/// Fills a template of ours, whose text needs no further check; `values` are in its order.
fn fill(template: &'static str, values: &[&str]) -> Result<String, TopicError> {
    let mut topic = String::with_capacity(template.len() + 64);
    let mut values = values.iter();
    for (at, level) in template.split('/').enumerate() {
        if at > 0 {
            topic.push('/');
        }
        match level
            .strip_prefix('{')
            .and_then(|level| level.strip_suffix('}'))
        {
            Some(placeholder) => {
                let value = values
                    .next()
                    .expect("every function below passes one value a placeholder");
                template::check_value(template, placeholder, value)?;
                topic.push_str(value);
            }
            None => topic.push_str(level),
        }
    }
    name::check(&topic)?;
    match forbidden(&topic) {
        None => Ok(topic),
        Some(at) => Err(TopicError::Unprintable {
            topic: Excerpt::new(&topic),
            at,
        }),
    }
}

/// Where readings of that location and type go; the location may span levels.
///
/// # Errors
/// As every function here: [`TopicError::BadValue`] if a value is empty, holds a wildcard or NUL
/// or, unless it is a location, a `/`; [`TopicError::TooLong`].
pub fn sensor(location: &str, kind: &str) -> Result<String, TopicError> {
    fill(templates::SENSOR, &[location, kind])
}

/// Where the presence of a device is kept.
///
/// # Errors
/// As [`sensor`].
pub fn device_status(device_id: &str) -> Result<String, TopicError> {
    fill(templates::DEVICE_STATUS, &[device_id])
}

/// Where measurements of the device itself go.
///
/// # Errors
/// As [`sensor`].
pub fn device_telemetry(device_id: &str) -> Result<String, TopicError> {
    fill(templates::DEVICE_TELEMETRY, &[device_id])
}

/// Where the configuration a device should have is kept.
///
/// # Errors
/// As [`sensor`].
pub fn device_config(device_id: &str) -> Result<String, TopicError> {
    fill(templates::DEVICE_CONFIG, &[device_id])
}

/// Where a device says which configuration it has.
///
/// # Errors
/// As [`sensor`].
pub fn device_config_reported(device_id: &str) -> Result<String, TopicError> {
    fill(templates::DEVICE_CONFIG_REPORTED, &[device_id])
}

/// Where a device takes that command.
///
/// # Errors
/// As [`sensor`].
pub fn device_command(device_id: &str, command: &str) -> Result<String, TopicError> {
    fill(templates::DEVICE_COMMAND, &[device_id, command])
}

/// Where a client expects the answer to a request.
///
/// # Errors
/// As [`sensor`].
pub fn response(client_id: &str, correlation_id: &str) -> Result<String, TopicError> {
    fill(templates::RESPONSE, &[client_id, correlation_id])
}

/// Where alerts of that severity about a sensor go.
///
/// # Errors
/// As [`sensor`].
pub fn alert(severity: &str, sensor_id: &str) -> Result<String, TopicError> {
    fill(templates::ALERT, &[severity, sensor_id])
}

/// Where the state of a firing rule is kept.
///
/// # Errors
/// As [`sensor`].
pub fn alerting_state(rule: &str, sensor_id: &str) -> Result<String, TopicError> {
    fill(templates::ALERTING_STATE, &[rule, sensor_id])
}

/// Where the active process of alerting takes that request.
///
/// # Errors
/// As [`sensor`].
pub fn alerting_request(name: &str) -> Result<String, TopicError> {
    fill(templates::ALERTING_REQUEST, &[name])
}

/// Where messages a service could not use go.
///
/// # Errors
/// As [`sensor`].
pub fn dead_letter(service: &str) -> Result<String, TopicError> {
    fill(templates::DEAD_LETTER, &[service])
}

/// Where the presence of a service is kept.
///
/// # Errors
/// As [`sensor`].
pub fn service_status(service: &str, instance: &str) -> Result<String, TopicError> {
    fill(templates::SERVICE_STATUS, &[service, instance])
}

/// Where a service says what it has done lately.
///
/// # Errors
/// As [`sensor`].
pub fn service_report(service: &str, instance: &str) -> Result<String, TopicError> {
    fill(templates::SERVICE_REPORT, &[service, instance])
}
