//! All that a replica knows: devices, sensors, services, configurations.

mod configuration;

use std::sync::Arc;

use fleet_shared::model::{
    AlertMessage, Limits, RejectError, SensorReading, StatusMessage, TelemetryMessage,
};
use fleet_shared::session::Message;
use fleet_shared::topic::FleetTopic;

use configuration::{Configurations, Side};

use crate::presence::{Arrival, Measures, Now, Presence, Transition};
use crate::sensor::Sensors;
use crate::services::Services;
use crate::trend::{Sample, Trend};

/// User property of a status that a tracker published to repair what the broker remembers.
pub(crate) const REPAIRED_BY: &str = "repaired-by";

/// Readings looked into in a second; the rest are counted.
const READINGS_PER_SECOND: u32 = 2_000;

/// What a message amounted to.
#[derive(Debug, Default)]
pub(crate) struct Took {
    pub(crate) transition: Option<Transition>,
    /// Devices that look different.
    pub(crate) changed: Option<Arc<str>>,
    pub(crate) reading: Option<SensorReading>,
    pub(crate) alert: Option<AlertMessage>,
    /// Why it was no use, in a word.
    pub(crate) refused: Option<&'static str>,
    /// What was wrong with it, when it is to be kept as a dead letter.
    pub(crate) flaw: Option<String>,
    /// It was an answer to a request.
    pub(crate) answer: Option<String>,
}

/// What a replica knows.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) presence: Presence,
    pub(crate) sensors: Sensors,
    pub(crate) services: Services,
    pub(crate) trend: Trend,
    pub(crate) configurations: Configurations,
    second: i64,
    looked_into: u32,
}

impl Fleet {
    pub(crate) fn new(presence: Presence, sensors_max: usize) -> Self {
        Self {
            presence,
            sensors: Sensors::new(sensors_max),
            services: Services::default(),
            trend: Trend::default(),
            configurations: Configurations::default(),
            second: 0,
            looked_into: 0,
        }
    }

    /// Takes any message of the subscriptions.
    pub(crate) fn take(&mut self, message: &Message, now: Now) -> Took {
        match FleetTopic::parse(message.topic.as_str()) {
            Some(FleetTopic::DeviceStatus { device_id }) => self.status(device_id, message, now),
            Some(FleetTopic::DeviceTelemetry { device_id }) if !message.retain => {
                self.telemetry(device_id, message, now)
            }
            Some(FleetTopic::Sensor { .. }) => self.reading(message, now),
            Some(FleetTopic::DeviceConfig { device_id }) => {
                self.configuration(device_id, message, Side::Desired)
            }
            Some(FleetTopic::DeviceConfigReported { device_id }) => {
                self.configuration(device_id, message, Side::Reported)
            }
            Some(FleetTopic::ServiceStatus { service, instance }) => {
                let taken = self
                    .services
                    .status(service, instance, &message.payload, now);
                taken.map_or_else(refused, |()| Took::default())
            }
            Some(FleetTopic::ServiceReport { service, instance }) => {
                read(
                    self.services
                        .report(service, instance, &message.payload, now),
                )
            }
            Some(FleetTopic::Alert { .. }) => Self::alert(message),
            Some(FleetTopic::Response { correlation_id, .. }) => Took {
                answer: Some(correlation_id.to_owned()),
                ..Took::default()
            },
            _ => Took::default(),
        }
    }

    /// The device that a sensor belongs to; one that is about a device itself has its name.
    pub(crate) fn device_of<'a>(&'a self, sensor_id: &'a str) -> Option<&'a str> {
        let sensor = self.sensors.get(sensor_id);
        let owner = sensor.and_then(|sensor| sensor.device_id.as_deref());
        owner.or_else(|| self.presence.knows(sensor_id).then_some(sensor_id))
    }

    /// Notes how the fleet is, for the trend; called about once a second.
    pub(crate) fn note_trend(&mut self, now: Now) {
        let intake = self.services.intake(now);
        let [_, offline, flapping, _] = self.presence.counts();
        let sample = Sample {
            at: now.at,
            published: self.sensors.rate(now.at),
            stored: intake.stored_per_second,
            p50: intake.delays.percentile_ms(50.0),
            p99: intake.delays.percentile_ms(99.0),
        };
        self.trend.note(offline, flapping, sample);
    }

    fn status(&mut self, device_id: &str, message: &Message, now: Now) -> Took {
        if message.payload.is_empty() {
            self.configurations.forget(device_id);
            let changed = self.presence.forget(device_id).then(|| device_id.into());
            return Took {
                changed,
                ..Took::default()
            };
        }
        let status = match StatusMessage::parse(device_id, &message.payload) {
            Ok(status) => status,
            Err(error) => return dead(&error),
        };
        let properties = message.properties.as_ref();
        let arrival = if properties.is_some_and(|it| it.user(REPAIRED_BY).is_some()) {
            Arrival::Repair
        } else if message.retain {
            Arrival::Retained
        } else {
            Arrival::Live
        };
        let effect = self.presence.status(&status, arrival, now);
        Took {
            transition: effect.transition,
            changed: effect.changed.then(|| device_id.into()),
            refused: effect.stale.then_some("stale"),
            ..Took::default()
        }
    }

    /// What is refused is no sign of life either, as with a reading.
    fn telemetry(&mut self, device_id: &str, message: &Message, now: Now) -> Took {
        match TelemetryMessage::parse(device_id, &message.payload) {
            Ok(said) => {
                let measures = Measures {
                    battery_percent: said.battery_percent,
                    signal_strength: said.signal_strength,
                    uptime_seconds: said.uptime_seconds,
                };
                self.presence.measured(device_id, measures);
                self.alive(device_id, now)
            }
            Err(error) => dead(&error),
        }
    }

    fn alive(&mut self, device_id: &str, now: Now) -> Took {
        if !self.presence.knows(device_id) {
            return Took::default();
        }
        let effect = self.presence.alive(device_id, now);
        Took {
            transition: effect.transition,
            changed: effect.changed.then(|| device_id.into()),
            ..Took::default()
        }
    }

    fn reading(&mut self, message: &Message, now: Now) -> Took {
        if !message.retain {
            self.sensors.count(now.at);
        }
        let second = now.at.as_second();
        if second != self.second {
            self.second = second;
            self.looked_into = 0;
        }
        self.looked_into += 1;
        if self.looked_into > READINGS_PER_SECOND {
            return Took::default();
        }
        let reading = match SensorReading::parse(&message.payload, &Limits::default()) {
            Ok(reading) => reading,
            Err(error) => return refused(error.reason()),
        };
        let presence = &self.presence;
        let device = self
            .sensors
            .heard(&reading, |device_id| presence.knows(device_id));
        let mut took = match device {
            Some(device_id) if !message.retain => self.alive(&device_id, now),
            _ => Took::default(),
        };
        took.reading = (!message.retain).then_some(reading);
        took
    }

    fn configuration(&mut self, device_id: &str, message: &Message, side: Side) -> Took {
        if !self.presence.knows(device_id)
            && self.configurations.len() >= self.presence.len() + 1_000
        {
            return refused("unknown_device");
        }
        match self.configurations.set(device_id, side, &message.payload) {
            Ok(()) => Took {
                changed: Some(device_id.into()),
                ..Took::default()
            },
            Err(reason) => refused(reason),
        }
    }

    fn alert(message: &Message) -> Took {
        match AlertMessage::parse(&message.payload, &Limits::default()) {
            Ok(alert) => Took {
                alert: Some(alert),
                ..Took::default()
            },
            Err(error) => refused(error.reason()),
        }
    }
}

/// A message that is only noted, and may not be what it should be.
fn read(sound: bool) -> Took {
    if sound {
        Took::default()
    } else {
        refused("malformed")
    }
}

/// A message that nobody else takes, and which is kept therefore.
fn dead(error: &RejectError) -> Took {
    Took {
        flaw: Some(error.to_string()),
        ..refused(error.reason())
    }
}

fn refused(reason: &'static str) -> Took {
    Took {
        refused: Some(reason),
        ..Took::default()
    }
}
