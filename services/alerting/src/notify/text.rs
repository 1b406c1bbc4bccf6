//! What people read: a line and a text for each notification.

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value};

use super::notification::{Notification, NotifiedAlert, Why};
use crate::route::Channel;

/// Longest text in bytes; the rest is cut off.
const TEXT_BYTES_MAX: usize = 16_000;

const TITLE: &str = "[{{ status | upper }}{% if firing > 1 %}:{{ firing }}{% endif %}] \
{{ alerts[0].severity }}: {{ alerts[0].rule }}\
{% if alerts[0].labels.location %} in {{ alerts[0].labels.location }}{% endif %}\
{% if why == 'repeat' %} (still){% endif %}";

const TEXT: &str = "{% for alert in alerts %}\
{{ alert.status | upper }} {{ alert.severity }} {{ alert.rule }}: {{ alert.message }} \
(since {{ alert.starts_at }}{% if alert.ends_at %}, until {{ alert.ends_at }}{% endif %}\
{% if alert.acknowledged_by %}, acknowledged by {{ alert.acknowledged_by }}{% endif %}) \
{{ alert.alert_id }}\n{% endfor %}\
{% if firing + resolved > alerts | length %}and {{ firing + resolved - alerts | length }} more\n{% endif %}";

/// A line and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) title: String,
    pub(crate) text: String,
}

/// The texts of a notification on `channel`. A template that does not render gives its place to the
/// one that ships with the program: nothing is lost for its wording.
pub(crate) fn render(channel: &Channel, notification: &Notification) -> Rendered {
    let one = |own: Option<&str>, shipped: &str| {
        let rendered = own.map(|own| fill(own, notification));
        match rendered {
            Some(Ok(text)) => text,
            Some(Err(error)) => {
                tracing::warn!(receiver = channel.receiver, %error, "a template does not render");
                fill(shipped, notification).unwrap_or_default()
            }
            None => fill(shipped, notification).unwrap_or_default(),
        }
    };
    Rendered {
        title: one(channel.texts.title.as_deref(), TITLE).replace(['\n', '\r'], " "),
        text: one(channel.texts.text.as_deref(), TEXT),
    }
}

/// Whether a template can be used, tried on a notification with every field.
pub(crate) fn check(template: &str) -> Result<(), minijinja::Error> {
    fill(template, &sample()).map(drop)
}

fn fill(template: &str, notification: &Notification) -> Result<String, minijinja::Error> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.add_filter("upper", minijinja::filters::upper);
    environment.add_filter("lower", minijinja::filters::lower);
    environment.add_filter("length", minijinja::filters::length);
    environment.add_filter("round", minijinja::filters::round);
    environment.add_filter("join", minijinja::filters::join);
    let mut text = environment.render_str(template, Value::from(Serde(notification)))?;
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    Ok(text)
}

/// A notification with every field.
pub(crate) fn sample() -> Notification {
    let at = jiff::Timestamp::UNIX_EPOCH;
    let labels = [("location", "site-1/room-1"), ("rule", "TemperatureHigh")];
    let labels: std::collections::BTreeMap<String, String> = labels
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    Notification {
        receiver: "ops".to_owned(),
        group_key: "{}:{location=\"site-1/room-1\"}".to_owned(),
        group_labels: labels.clone(),
        status: "firing".to_owned(),
        why: Why::New,
        at,
        alerts: vec![NotifiedAlert {
            alert_id: "01998e52-0000-8000-8000-000000000001".to_owned(),
            status: "firing".to_owned(),
            rule: "TemperatureHigh".to_owned(),
            severity: "critical".to_owned(),
            sensor_id: "sensor-1".to_owned(),
            message: "sensor-1 is at 31 celsius".to_owned(),
            value: "31".to_owned(),
            starts_at: at,
            ends_at: Some(at),
            acknowledged_by: Some("ada".to_owned()),
            labels,
            annotations: std::collections::BTreeMap::new(),
        }],
        firing: 1,
        resolved: 0,
        traceparent: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_that_ship_name_what_people_need() {
        let mut notification = sample();
        notification.firing = 3;
        let title = fill(TITLE, &notification).unwrap();
        assert_eq!(
            title,
            "[FIRING:3] critical: TemperatureHigh in site-1/room-1"
        );
        let text = fill(TEXT, &notification).unwrap();
        assert!(text.starts_with(
            "FIRING critical TemperatureHigh: sensor-1 is at 31 celsius (since 1970-01-01T00:00:00Z"
        ));
        assert!(
            text.ends_with(
                "acknowledged by ada) 01998e52-0000-8000-8000-000000000001\nand 2 more\n"
            )
        );
    }

    #[test]
    fn a_template_that_names_what_is_not_there_is_refused() {
        assert!(check("{{ alerts[0].message }}").is_ok());
        assert!(check("{{ nothing.at.all }}").is_err());
        assert!(check("{% if %}").is_err());
    }
}
