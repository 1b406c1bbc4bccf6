//! The file of routes as it is written: YAML in the shape of Alertmanager's configuration.

use std::path::PathBuf;

use fleet_shared::tls::TlsOptions;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::Kind;

/// A file of routes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Routes of mqtt-fleet alerting")]
pub struct RoutesFile {
    /// Which alerts go to whom. Without, by severity: critical to SMS and calls, warning to e-mail
    /// and pushes, info to the log; what has no receiver of its kind goes to the log.
    #[serde(default)]
    pub route: Option<RouteFile>,
    /// Who can be told.
    pub receivers: Vec<ReceiverFile>,
    /// Alerts that keep others quiet.
    #[serde(default)]
    pub inhibit_rules: Vec<InhibitFile>,
    /// Times that routes refer to.
    #[serde(default)]
    pub time_intervals: Vec<TimeIntervalFile>,
}

/// A node of the tree of routes; what it leaves out it has from its parent.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    /// Name of the receiver.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub receiver: Option<Spanned<String>>,
    /// All must hold, such as `severity="critical"` or `location=~"hall/.*"`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub matchers: Vec<Spanned<String>>,
    /// Labels that alerts of one notification have in common; `['...']` for each alert alone.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>")]
    pub group_by: Option<Vec<Spanned<String>>>,
    /// How long a new group waits for further alerts; 30s at the root.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub group_wait: Option<Spanned<String>>,
    /// Least time between notifications of a group; 5m at the root.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub group_interval: Option<Spanned<String>>,
    /// When what still fires is told again; 4h at the root.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub repeat_interval: Option<Spanned<String>>,
    /// Whether the routes after it are asked too.
    #[serde(default, rename = "continue")]
    pub goes_on: bool,
    /// Names of times in which nothing is told.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub mute_time_intervals: Vec<Spanned<String>>,
    /// Names of times outside of which nothing is told.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub active_time_intervals: Vec<Spanned<String>>,
    /// Routes below it.
    #[serde(default)]
    pub routes: Vec<RouteFile>,
}

/// Somebody who can be told, in any number of ways.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiverFile {
    /// Its name: letters, digits, `-`, `_` and `.`.
    #[schemars(with = "String", regex(pattern = "^[A-Za-z0-9_.-]{1,64}$"))]
    pub name: Spanned<String>,
    /// Messages a minute at most for each of its ways; more wait. 60 without.
    #[serde(default)]
    #[schemars(with = "Option<u32>", range(min = 1))]
    pub rate_per_minute: Option<Spanned<u32>>,
    /// Template of the line above the text.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub title: Option<Spanned<String>>,
    /// Template of the text.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub text: Option<Spanned<String>>,
    /// Signed HTTP requests.
    #[serde(default)]
    pub webhook_configs: Vec<WebhookFile>,
    /// E-mails.
    #[serde(default)]
    pub email_configs: Vec<EmailFile>,
    /// Text messages.
    #[serde(default)]
    pub sms_configs: Vec<TwilioFile>,
    /// Calls that read the text aloud.
    #[serde(default)]
    pub call_configs: Vec<TwilioFile>,
    /// Slack, Mattermost and whatever takes the same requests.
    #[serde(default)]
    pub slack_configs: Vec<SlackFile>,
    /// Pushes by ntfy.
    #[serde(default)]
    pub ntfy_configs: Vec<NtfyFile>,
    /// Alertmanagers.
    #[serde(default)]
    pub alertmanager_configs: Vec<AlertmanagerFile>,
    /// The log of alerting.
    #[serde(default)]
    pub log_configs: Vec<LogFile>,
}

/// A webhook.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookFile {
    /// Where to.
    #[schemars(with = "String")]
    pub url: Spanned<String>,
    /// File of one or more secrets `whsec_…`, one a line; the request is signed with each, so that
    /// they can be exchanged. Not signed without.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// Authorities to trust instead of the system's, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Our certificate, for a server that asks for one, PEM.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Whether ends are told too; yes without.
    #[serde(default)]
    pub send_resolved: Option<bool>,
}

/// E-mail.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailFile {
    /// Addresses of the recipients of one message.
    #[schemars(with = "Vec<String>")]
    pub to: Vec<Spanned<String>>,
    /// Address of the sender.
    #[schemars(with = "String")]
    pub from: Spanned<String>,
    /// Host and port of the mail server.
    #[schemars(with = "String")]
    pub smarthost: Spanned<String>,
    /// How it is secured; `starttls` without.
    #[serde(default)]
    pub tls: SmtpTls,
    /// Name to log in with.
    #[serde(default)]
    pub username: Option<String>,
    /// File of the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Authorities to trust instead of the system's, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether ends are told too; yes without.
    #[serde(default)]
    pub send_resolved: Option<bool>,
}

/// How the way to a mail server is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SmtpTls {
    /// TLS after STARTTLS, which the server must offer.
    #[default]
    Starttls,
    /// TLS from the start, as on port 465.
    Implicit,
    /// None.
    None,
}

/// An HTTP API in the shape of Twilio's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TwilioFile {
    /// Where the API is; Twilio without.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub api_url: Option<Spanned<String>>,
    /// The account.
    pub account_sid: String,
    /// File of its token.
    pub auth_token_file: PathBuf,
    /// Number of the sender.
    pub from: String,
    /// Numbers of the recipients, each of whom is told by a message of its own.
    #[schemars(with = "Vec<String>")]
    pub to: Vec<Spanned<String>>,
    /// Authorities to trust instead of the system's, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether ends are told too; no without.
    #[serde(default)]
    pub send_resolved: Option<bool>,
}

/// An incoming webhook in the shape of Slack's.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlackFile {
    /// File of the URL, which is a secret.
    pub url_file: PathBuf,
    /// Channel, where the webhook may choose.
    #[serde(default)]
    pub channel: Option<String>,
    /// Authorities to trust instead of the system's, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whether ends are told too; yes without.
    #[serde(default)]
    pub send_resolved: Option<bool>,
}

/// A push by ntfy.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NtfyFile {
    /// The server, such as `https://ntfy.sh`.
    #[schemars(with = "String")]
    pub url: Spanned<String>,
    /// The topic.
    pub topic: String,
    /// File of an access token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Authorities to trust instead of the system's, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Our certificate, for a server that asks for one, PEM.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Whether ends are told too; yes without.
    #[serde(default)]
    pub send_resolved: Option<bool>,
}

/// An Alertmanager.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerFile {
    /// The server, such as `http://alertmanager:9093`.
    #[schemars(with = "String")]
    pub url: Spanned<String>,
    /// File of a bearer token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Authorities to trust instead of the system's, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Our certificate, for a server that asks for one, PEM.
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

/// The log.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// Whether ends are told too; yes without.
    #[serde(default)]
    pub send_resolved: Option<bool>,
}

/// Alerts that keep others quiet.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InhibitFile {
    /// While an alert fires for which all of these hold …
    #[schemars(with = "Vec<String>")]
    pub source_matchers: Vec<Spanned<String>>,
    /// … those for which all of these hold are not told …
    #[schemars(with = "Vec<String>")]
    pub target_matchers: Vec<Spanned<String>>,
    /// … if these labels have the same values in both.
    #[serde(default)]
    pub equal: Vec<String>,
}

/// Times with a name.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimeIntervalFile {
    /// The name.
    #[schemars(with = "String")]
    pub name: Spanned<String>,
    /// Any of these.
    pub time_intervals: Vec<TimesFile>,
}

/// Times for which all of what is said here holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimesFile {
    /// Parts of the day, the end not included.
    #[serde(default)]
    pub times: Vec<PartOfDayFile>,
    /// Such as `saturday` or `monday:friday`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub weekdays: Vec<Spanned<String>>,
    /// Such as `1:5`, or `-3:-1` for the last three days.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub days_of_month: Vec<Spanned<String>>,
    /// Such as `december` or `6:8`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub months: Vec<Spanned<String>>,
    /// Such as `2026` or `2026:2027`.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub years: Vec<Spanned<String>>,
    /// Time zone such as `Europe/Berlin`; UTC without.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub location: Option<Spanned<String>>,
}

/// A part of the day.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartOfDayFile {
    /// `HH:MM`.
    #[schemars(with = "String")]
    pub start_time: Spanned<String>,
    /// `HH:MM`, up to `24:00`.
    #[schemars(with = "String")]
    pub end_time: Spanned<String>,
}

impl Kind {
    /// The files it reads, by their settings.
    pub(super) fn files(&self) -> Vec<(&'static str, PathBuf)> {
        let mut files = Vec::new();
        let mut add = |setting, path: Option<&PathBuf>| {
            files.extend(path.map(|path| (setting, path.clone())));
        };
        match self {
            Self::Webhook(file) => {
                add("secret_file", file.secret_file.as_ref());
                add("ca_file", file.ca_file.as_ref());
                add("cert_file", file.cert_file.as_ref());
                add("key_file", file.key_file.as_ref());
            }
            Self::Email(file) => {
                add("password_file", file.password_file.as_ref());
                add("ca_file", file.ca_file.as_ref());
            }
            Self::Sms(file, _) | Self::Call(file, _) => {
                add("auth_token_file", Some(&file.auth_token_file));
                add("ca_file", file.ca_file.as_ref());
            }
            Self::Slack(file) => {
                add("url_file", Some(&file.url_file));
                add("ca_file", file.ca_file.as_ref());
            }
            Self::Ntfy(file) => {
                add("token_file", file.token_file.as_ref());
                add("ca_file", file.ca_file.as_ref());
                add("cert_file", file.cert_file.as_ref());
                add("key_file", file.key_file.as_ref());
            }
            Self::Alertmanager(file) => {
                add("token_file", file.token_file.as_ref());
                add("ca_file", file.ca_file.as_ref());
                add("cert_file", file.cert_file.as_ref());
                add("key_file", file.key_file.as_ref());
            }
            Self::Log => {}
        }
        files
    }

    /// Whom to trust and what to show over HTTPS.
    pub(crate) fn tls(&self) -> TlsOptions {
        let (ca, cert, key) = match self {
            Self::Webhook(file) => (&file.ca_file, &file.cert_file, &file.key_file),
            Self::Ntfy(file) => (&file.ca_file, &file.cert_file, &file.key_file),
            Self::Alertmanager(file) => (&file.ca_file, &file.cert_file, &file.key_file),
            Self::Email(file) => (&file.ca_file, &None, &None),
            Self::Sms(file, _) | Self::Call(file, _) => (&file.ca_file, &None, &None),
            Self::Slack(file) => (&file.ca_file, &None, &None),
            Self::Log => (&None, &None, &None),
        };
        TlsOptions {
            ca_file: ca.clone(),
            cert_file: cert.clone(),
            key_file: key.clone(),
        }
    }
}
