//! What people read: a line and a text for each notification.

use std::sync::LazyLock;

use minijinja::Value;
use minijinja::value::Serde;

use super::notification::{Notification, NotifiedAlert, Why};
use crate::route::Channel;
use crate::template::{RenderError, Template, TemplateError};

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

/// Title and text that ship with the program, which a test renders.
static SHIPPED: LazyLock<[Template; 2]> = LazyLock::new(|| {
    [TITLE, TEXT].map(|source| Template::compile(source).expect("what ships is a template"))
});

/// A line and a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) title: String,
    pub(crate) text: String,
}

/// The texts of a notification on `channel`. A template that does not render gives its place to the
/// one that ships with the program: nothing is lost for its wording.
pub(crate) fn render(channel: &Channel, notification: &Notification) -> Rendered {
    let one = |own: Option<&Template>, shipped: &Template| {
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
        title: one(channel.texts.title.as_ref(), &SHIPPED[0]).replace(['\n', '\r'], " "),
        text: one(channel.texts.text.as_ref(), &SHIPPED[1]),
    }
}

/// Compiles a template, and tries it on a notification with every field.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn compile(source: &str) -> Result<Template, TemplateError> {
    let template = Template::compile(source)?;
    fill(&template, &sample())?;
    Ok(template)
}

fn fill(template: &Template, notification: &Notification) -> Result<String, RenderError> {
    template.render(Value::from(Serde(notification)), TEXT_BYTES_MAX)
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
    use super::super::notification::LISTED_MAX;
    use super::*;

    #[test]
    fn the_texts_that_ship_name_what_people_need() {
        let mut notification = sample();
        notification.firing = 3;
        let title = fill(&SHIPPED[0], &notification).unwrap();
        assert_eq!(
            title,
            "[FIRING:3] critical: TemperatureHigh in site-1/room-1"
        );
        let text = fill(&SHIPPED[1], &notification).unwrap();
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
    fn the_longest_notification_has_a_text() {
        let mut notification = sample();
        let alert = NotifiedAlert {
            message: "x".repeat(4_000),
            ..notification.alerts[0].clone()
        };
        notification.alerts = vec![alert; LISTED_MAX];
        let text = fill(&SHIPPED[1], &notification).unwrap();
        assert_eq!(text.len(), TEXT_BYTES_MAX);
    }

    #[test]
    fn a_template_that_names_what_is_not_there_is_refused() {
        assert!(compile("{{ alerts[0].message }}").is_ok());
        assert!(compile("{{ nothing.at.all }}").is_err());
        assert!(compile("{% if %}").is_err());
    }
}
