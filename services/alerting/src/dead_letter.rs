//! What takes the place of a message that is given up.

use fleet_shared::session::Properties;
use fleet_shared::topic;
use fleet_store::{AttemptOutcome, DeadLetter, GivenUp, MQTT_CHANNEL, NewOutgoing, Outgoing};
use jiff::Timestamp;
use uuid::Uuid;

use crate::outbox::MqttBody;

/// The end of the name of a message that tells of a dead letter.
const SUFFIX: &str = "/dead-letter";

/// Whether a message tells of a dead letter; if it is given up too, nothing is lost: the letter is in
/// the store.
pub(crate) fn is_letter(message: &Outgoing) -> bool {
    message.name.ends_with(SUFFIX)
}

/// Ends the attempts at `message`: a dead letter of what should have gone to `topic` is stored and
/// published.
pub(crate) fn given_up(
    message: &Outgoing,
    topic: String,
    payload: &str,
    reason: &'static str,
    detail: &str,
    now: Timestamp,
) -> AttemptOutcome {
    let id = Uuid::now_v7();
    let user = Properties::dead_letter(reason, &topic, detail, &id.to_string()).user;
    let user = user
        .iter()
        .map(|(name, text)| (name.to_string(), text.to_string()));
    let body = MqttBody {
        user: user.collect(),
        ..MqttBody::new(
            topic::dead_letter("alerting").unwrap_or_default(),
            payload.to_owned(),
        )
    };
    AttemptOutcome::GivenUp(Box::new(GivenUp {
        dead_letter: DeadLetter {
            id,
            service: "alerting".to_owned(),
            topic,
            payload: payload.to_owned().into_bytes(),
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            received_at: now,
            redelivered: false,
        },
        message: NewOutgoing {
            name: format!("{}{SUFFIX}", message.name),
            alert_id: message.alert_id.clone(),
            channel: MQTT_CHANNEL.to_owned(),
            body: serde_json::to_string(&body).expect("texts and flags always serialize"),
            due_at: now,
        },
    }))
}
