//! What is posted to whom: pure, so that every form can be looked at in a test.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::webhook::signature;
use super::{SendError, bearer, secret};
use crate::notify::notification::{Notification, NotifiedAlert};
use crate::notify::text::Rendered;
use crate::route::{Kind, TwilioFile};
use crate::state::after;

/// Longest SMS in characters; Twilio takes 1,600.
const SMS_CHARS_MAX: usize = 1_500;

/// Longest text of a push in bytes; ntfy makes an attachment of more than 4,096.
const PUSH_BYTES_MAX: usize = 4_000;

/// How long an Alertmanager takes an alert for firing that it hears no more of: four times the time
/// between two reminders.
const ALERTMANAGER_KEEPS: Duration = Duration::from_secs(240);

const TWILIO: &str = "https://api.twilio.com";

/// A POST.
pub(super) struct Request {
    pub(super) url: String,
    pub(super) content_type: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) basic_auth: Option<(String, String)>,
    pub(super) body: String,
}

impl Request {
    fn json(url: impl Into<String>, body: &Value) -> Self {
        Self {
            url: url.into(),
            content_type: "application/json",
            headers: Vec::new(),
            basic_auth: None,
            body: body.to_string(),
        }
    }
}

pub(super) fn of(
    kind: &Kind,
    id: &str,
    notification: &Notification,
    rendered: &Rendered,
    now: Timestamp,
) -> Result<Request, SendError> {
    match kind {
        Kind::Webhook(file) => {
            let body = json!({
                "type": format!("alerts.{}", notification.status),
                "timestamp": notification.at,
                "data": { "title": rendered.title, "text": rendered.text, "notification": notification },
            });
            let mut request = Request::json(&file.url.value, &body);
            let timestamp = now.as_second();
            request.headers.push(("webhook-id", id.to_owned()));
            request
                .headers
                .push(("webhook-timestamp", timestamp.to_string()));
            if let Some(path) = &file.secret_file {
                let secrets = secret(path, "secret_file")?;
                let signed = signature(secrets.expose_secret(), id, timestamp, &request.body);
                request
                    .headers
                    .push(("webhook-signature", signed.map_err(SendError::later)?));
            }
            Ok(request)
        }
        Kind::Sms(file, to) => {
            let text = format!("{}\n{}", rendered.title, rendered.text);
            let text: String = text.trim_end().chars().take(SMS_CHARS_MAX).collect();
            twilio(file, to, "Messages", ("Body", &text))
        }
        Kind::Call(file, to) => {
            let said = xml(&format!(
                "{}. {}",
                rendered.title,
                first_message(notification)
            ));
            let twiml = format!("<Response><Say>{said}</Say><Pause/><Say>{said}</Say></Response>");
            twilio(file, to, "Calls", ("Twiml", &twiml))
        }
        Kind::Slack(file) => {
            let url = secret(&file.url_file, "url_file")?;
            let color = match (notification.status.as_str(), notification.severity()) {
                ("resolved", _) => "good",
                (_, "critical") => "danger",
                _ => "warning",
            };
            let mut body = json!({
                "text": rendered.title,
                "attachments": [{
                    "color": color,
                    "fallback": rendered.title,
                    "text": rendered.text,
                    "ts": notification.at.as_second(),
                }],
            });
            if let Some(channel) = &file.channel {
                body["channel"] = channel.as_str().into();
            }
            Ok(Request::json(url.expose_secret(), &body))
        }
        Kind::Ntfy(file) => {
            let (priority, tag) = match (notification.status.as_str(), notification.severity()) {
                ("resolved", _) => (2, "white_check_mark"),
                (_, "critical") => (5, "rotating_light"),
                (_, "warning") => (4, "warning"),
                _ => (3, "information_source"),
            };
            let text = &rendered.text;
            let message = &text[..text.floor_char_boundary(PUSH_BYTES_MAX)];
            let body = json!({
                "topic": file.topic, "title": rendered.title, "message": message,
                "priority": priority, "tags": [tag],
            });
            let mut request = Request::json(&file.url.value, &body);
            let token = bearer(file.token_file.as_ref())?;
            request
                .headers
                .extend(token.map(|token| ("authorization", token)));
            Ok(request)
        }
        Kind::Alertmanager(file) => {
            let alerts: Vec<Value> = notification
                .alerts
                .iter()
                .map(|alert| alertmanager_alert(alert, now))
                .collect();
            let url = format!("{}/api/v2/alerts", file.url.value.trim_end_matches('/'));
            let mut request = Request::json(url, &Value::Array(alerts));
            let token = bearer(file.token_file.as_ref())?;
            request
                .headers
                .extend(token.map(|token| ("authorization", token)));
            Ok(request)
        }
        Kind::Email(_) | Kind::Log => Err(SendError::refused("it is not told by HTTP")),
    }
}

fn twilio(
    file: &TwilioFile,
    to: &str,
    resource: &str,
    (field, text): (&str, &str),
) -> Result<Request, SendError> {
    let token = secret(&file.auth_token_file, "auth_token_file")?;
    let base = file
        .api_url
        .as_ref()
        .map_or(TWILIO, |url| url.value.as_str());
    let base = base.trim_end_matches('/');
    let account = &file.account_sid;
    let body = form_urlencoded::Serializer::new(String::new())
        .append_pair("To", to)
        .append_pair("From", &file.from)
        .append_pair(field, text)
        .finish();
    Ok(Request {
        url: format!("{base}/2010-04-01/Accounts/{account}/{resource}.json"),
        content_type: "application/x-www-form-urlencoded",
        headers: Vec::new(),
        basic_auth: Some((account.clone(), token.expose_secret().to_owned())),
        body,
    })
}

fn alertmanager_alert(alert: &NotifiedAlert, now: Timestamp) -> Value {
    let mut labels: Map<String, Value> = alert
        .labels
        .iter()
        .filter(|(name, value)| *name != "rule" && !value.is_empty())
        .map(|(name, value)| (label_name(name), value.as_str().into()))
        .collect();
    labels.insert("alertname".to_owned(), alert.rule.as_str().into());
    let mut annotations: Map<String, Value> = alert
        .annotations
        .iter()
        .map(|(name, text)| (label_name(name), text.as_str().into()))
        .collect();
    annotations.insert("summary".to_owned(), alert.message.as_str().into());
    annotations.insert("alert_id".to_owned(), alert.alert_id.as_str().into());
    let ends_at = alert
        .ends_at
        .unwrap_or_else(|| after(now, ALERTMANAGER_KEEPS));
    json!({
        "labels": labels,
        "annotations": annotations,
        "startsAt": alert.starts_at,
        "endsAt": ends_at,
    })
}

/// A name that Alertmanager takes for a label's: letters, digits and underscores.
fn label_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let name: String = name.chars().map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        format!("_{name}")
    } else {
        name
    }
}

fn first_message(notification: &Notification) -> &str {
    let first = notification.alerts.first();
    first.map_or("", |alert| alert.message.as_str())
}

fn xml(text: &str) -> String {
    let cut: String = text.chars().take(SMS_CHARS_MAX).collect();
    cut.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
