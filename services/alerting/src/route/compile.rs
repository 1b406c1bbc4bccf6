//! From the file as it is written to routes that can be followed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_shared::config::duration;
use jiff::tz::TimeZone;
use serde_saphyr::{Location, Spanned};
use url::Url;

use super::file::{
    InhibitFile, ReceiverFile, RouteFile, RoutesFile, TimeIntervalFile, TimesFile, TwilioFile,
};
use super::interval::{self, TimeInterval};
use super::matcher::{CompiledMatcher, Labels, canonical};
use super::{Channel, GroupBy, Inhibition, Kind, Node, Routes, Texts};
use crate::notify::text;
use crate::rule::RuleError;
use crate::template::Template;

/// What the root has unless it says otherwise; Alertmanager's values.
const GROUP_WAIT: Duration = Duration::from_secs(30);
const GROUP_INTERVAL: Duration = Duration::from_secs(5 * 60);
const REPEAT_INTERVAL: Duration = Duration::from_secs(4 * 3_600);

/// The least time between two looks at a group.
const INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Nodes, channels and inhibitions of a file at most: each alert is held against them.
const ENTRIES_MAX: usize = 1_000;

/// Depth of the tree at most.
const DEPTH_MAX: usize = 16;

/// Messages a minute and channel unless the receiver says otherwise.
const RATE_PER_MINUTE: u32 = 60;

/// The receiver of what nobody else receives.
const LOG: &str = "log";

/// What of a node is handed down to its children.
#[derive(Clone)]
struct Inherited {
    path: String,
    receiver: String,
    group_by: GroupBy,
    group_wait: Duration,
    group_interval: Duration,
    repeat_interval: Duration,
}

struct Compiler {
    nodes: Vec<Node>,
    channels: Vec<Arc<Channel>>,
    /// Channels of each receiver.
    receivers: BTreeMap<String, Vec<usize>>,
    times: BTreeMap<String, Vec<TimeInterval>>,
    errors: Vec<RuleError>,
}

pub(super) fn compile(text: &str) -> Result<Routes, Vec<RuleError>> {
    let file: RoutesFile =
        serde_saphyr::from_str(text).map_err(|error| vec![RuleError::yaml(&error)])?;
    let mut compiler = Compiler {
        nodes: Vec::new(),
        channels: Vec::new(),
        receivers: BTreeMap::new(),
        times: BTreeMap::new(),
        errors: Vec::new(),
    };
    for receiver in &file.receivers {
        compiler.receiver(receiver);
    }
    if !compiler.receivers.contains_key(LOG) {
        compiler.add_log();
    }
    for times in &file.time_intervals {
        compiler.times(times);
    }
    let mut degraded = Vec::new();
    match &file.route {
        Some(route) => compiler.root(route),
        None => degraded = compiler.defaults(),
    }
    let inhibitions = file
        .inhibit_rules
        .iter()
        .map(|rule| compiler.inhibition(rule))
        .collect::<Vec<_>>();
    let sizes = [
        compiler.nodes.len(),
        compiler.channels.len(),
        inhibitions.len(),
    ];
    if sizes.iter().any(|size| *size > ENTRIES_MAX) {
        compiler.errors.push(RuleError {
            line: 0,
            column: 0,
            message: format!(
                "{} routes, {} ways to receivers and {} inhibitions: {ENTRIES_MAX} of each are the most",
                sizes[0], sizes[1], sizes[2]
            ),
        });
    }
    if compiler.errors.is_empty() {
        Ok(Routes {
            nodes: compiler.nodes,
            channels: compiler.channels,
            inhibitions,
            degraded,
        })
    } else {
        Err(compiler.errors)
    }
}

impl Compiler {
    fn refuse(&mut self, location: Location, message: impl Into<String>) {
        self.errors.push(RuleError::at(location, message));
    }

    fn receiver(&mut self, file: &ReceiverFile) {
        let name = file.name.value.clone();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !(1..=64).contains(&name.len()) || !name.chars().all(plain) {
            self.refuse(
                file.name.referenced,
                format!("`{name}` is no name of a receiver: use 1 to 64 letters, digits, `-`, `_` and `.`"),
            );
        }
        if self.receivers.contains_key(&name) {
            let message = format!("there is another receiver `{name}`: rename one");
            self.refuse(file.name.referenced, message);
        }
        let rate = match &file.rate_per_minute {
            None => RATE_PER_MINUTE,
            Some(rate) if rate.value == 0 => {
                self.refuse(rate.referenced, "`rate_per_minute` is at least 1, not 0");
                RATE_PER_MINUTE
            }
            Some(rate) => rate.value,
        };
        let texts = Texts {
            title: self.template(file.title.as_ref()),
            text: self.template(file.text.as_ref()),
        };
        let mut ways = Vec::new();
        for webhook in &file.webhook_configs {
            self.server(
                &webhook.url,
                webhook.cert_file.is_some(),
                webhook.key_file.is_some(),
            );
            let kind = Kind::Webhook(webhook.clone());
            ways.push((kind, webhook.send_resolved.unwrap_or(true)));
        }
        for email in &file.email_configs {
            for address in email.to.iter().chain([&email.from]) {
                if let Err(error) = address.value.parse::<lettre::message::Mailbox>() {
                    let message = format!("`{}` is no address: {error}", address.value);
                    self.refuse(address.referenced, message);
                }
            }
            let port = email.smarthost.value.rsplit_once(':');
            if !port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
                let message = format!("`{}` is not host:port", email.smarthost.value);
                self.refuse(email.smarthost.referenced, message);
            }
            if email.to.is_empty() {
                self.refuse(email.from.referenced, "`to` names nobody");
            }
            let kind = Kind::Email(email.clone());
            ways.push((kind, email.send_resolved.unwrap_or(true)));
        }
        for sms in &file.sms_configs {
            let resolved = sms.send_resolved.unwrap_or(false);
            ways.extend(
                self.numbers(sms)
                    .map(|to| (Kind::Sms(sms.clone(), to), resolved)),
            );
        }
        for call in &file.call_configs {
            let resolved = call.send_resolved.unwrap_or(false);
            ways.extend(
                self.numbers(call)
                    .map(|to| (Kind::Call(call.clone(), to), resolved)),
            );
        }
        for slack in &file.slack_configs {
            let kind = Kind::Slack(slack.clone());
            ways.push((kind, slack.send_resolved.unwrap_or(true)));
        }
        for ntfy in &file.ntfy_configs {
            self.server(&ntfy.url, ntfy.cert_file.is_some(), ntfy.key_file.is_some());
            let kind = Kind::Ntfy(ntfy.clone());
            ways.push((kind, ntfy.send_resolved.unwrap_or(true)));
        }
        for alertmanager in &file.alertmanager_configs {
            self.server(
                &alertmanager.url,
                alertmanager.cert_file.is_some(),
                alertmanager.key_file.is_some(),
            );
            ways.push((Kind::Alertmanager(alertmanager.clone()), true));
        }
        for log in &file.log_configs {
            ways.push((Kind::Log, log.send_resolved.unwrap_or(true)));
        }
        let mut counts = BTreeMap::<&str, u32>::new();
        let mut places = Vec::with_capacity(ways.len());
        for (kind, send_resolved) in ways {
            let count = counts.entry(kind.as_str()).or_default();
            places.push(self.channels.len());
            self.channels.push(Arc::new(Channel {
                name: format!("{name}/{}/{count}", kind.as_str()),
                receiver: name.clone(),
                kind,
                send_resolved,
                rate_per_minute: rate,
                texts: texts.clone(),
            }));
            *count += 1;
        }
        self.receivers.insert(name, places);
    }

    fn add_log(&mut self) {
        let place = self.channels.len();
        self.channels.push(Arc::new(Channel {
            name: format!("{LOG}/log/0"),
            receiver: LOG.to_owned(),
            kind: Kind::Log,
            send_resolved: true,
            rate_per_minute: RATE_PER_MINUTE,
            texts: Texts::default(),
        }));
        self.receivers.insert(LOG.to_owned(), vec![place]);
    }

    fn template(&mut self, source: Option<&Spanned<String>>) -> Option<Template> {
        let source = source?;
        let refused = |error| format!("the template cannot be used: {error}");
        text::compile(&source.value)
            .map_err(|error| self.refuse(source.referenced, refused(error)))
            .ok()
    }

    /// A server of somebody's own, which may ask for a certificate.
    fn server(&mut self, url: &Spanned<String>, has_cert: bool, has_key: bool) {
        self.url(url);
        if has_cert != has_key {
            let message = "`cert_file` and `key_file` go together: name both, or neither";
            self.refuse(url.referenced, message);
        }
    }

    fn url(&mut self, url: &Spanned<String>) {
        let parsed = Url::parse(&url.value);
        let web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if !parsed.as_ref().is_ok_and(web) {
            let message = format!("`{}` is no URL of http:// or https://", url.value);
            self.refuse(url.referenced, message);
        } else if parsed.is_ok_and(|url| url.password().is_some()) {
            let message = "a password in a URL is no secret: use a file".to_owned();
            self.refuse(url.referenced, message);
        }
    }

    fn numbers(&mut self, file: &TwilioFile) -> impl Iterator<Item = String> + use<> {
        if let Some(url) = &file.api_url {
            self.url(url);
        }
        for to in &file.to {
            let digits = to.value.strip_prefix('+').unwrap_or_default();
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            if !plain || !(4..=15).contains(&digits.len()) {
                let message = format!("`{}` is no number such as +4915112345678 (E.164)", to.value);
                self.refuse(to.referenced, message);
            }
        }
        let numbers: Vec<String> = file.to.iter().map(|to| to.value.clone()).collect();
        numbers.into_iter()
    }

    fn times(&mut self, file: &TimeIntervalFile) {
        let name = file.name.value.clone();
        if self.times.contains_key(&name) {
            let message = format!("there is another time interval `{name}`: rename one");
            self.refuse(file.name.referenced, message);
        }
        let compiled = (file.time_intervals.iter())
            .map(|times| self.interval(times))
            .collect();
        self.times.insert(name, compiled);
    }

    fn interval(&mut self, file: &TimesFile) -> TimeInterval {
        let mut minutes = Vec::new();
        for part in &file.times {
            let mut minute = |text: &Spanned<String>| {
                interval::minute(&text.value).unwrap_or_else(|| {
                    let message = format!("`{}` is no time HH:MM up to 24:00", text.value);
                    self.refuse(text.referenced, message);
                    0
                })
            };
            let (from, to) = (minute(&part.start_time), minute(&part.end_time));
            if from >= to {
                let message = "the end is not after the start: for a night write two parts, up to 24:00 and from 00:00";
                self.refuse(part.end_time.referenced, message);
            }
            minutes.push((from, to));
        }
        let zone = match &file.location {
            None => TimeZone::UTC,
            Some(name) => TimeZone::get(&name.value).unwrap_or_else(|_| {
                let message = format!(
                    "`{}` is no time zone of the IANA database, such as Europe/Berlin",
                    name.value
                );
                self.refuse(name.referenced, message);
                TimeZone::UTC
            }),
        };
        TimeInterval {
            zone,
            minutes,
            weekdays: self.ranges(&file.weekdays, "a weekday", interval::weekday),
            days: self.ranges(&file.days_of_month, "a day of the month", interval::day),
            months: self.ranges(&file.months, "a month", interval::month),
            years: self.ranges(&file.years, "a year", |text| text.parse().ok()),
        }
    }

    fn ranges<T: Copy>(
        &mut self,
        texts: &[Spanned<String>],
        what: &str,
        one: impl Fn(&str) -> Option<T>,
    ) -> Vec<(T, T)> {
        let mut ranges = Vec::with_capacity(texts.len());
        for text in texts {
            match interval::range(&text.value, &one) {
                Some(range) => ranges.push(range),
                None => self.refuse(
                    text.referenced,
                    format!(
                        "`{}` is not {what} or a range of them, such as from:to",
                        text.value
                    ),
                ),
            }
        }
        ranges
    }

    fn root(&mut self, file: &RouteFile) {
        if let Some(matcher) = file.matchers.first() {
            let message = "the root takes every alert: it has no matchers";
            self.refuse(matcher.referenced, message);
        }
        if file.receiver.is_none() {
            self.errors.push(RuleError {
                line: 0,
                column: 0,
                message: "the root route needs a `receiver`".to_owned(),
            });
        }
        let above = Inherited {
            path: String::new(),
            receiver: LOG.to_owned(),
            group_by: GroupBy::Labels(Vec::new()),
            group_wait: GROUP_WAIT,
            group_interval: GROUP_INTERVAL,
            repeat_interval: REPEAT_INTERVAL,
        };
        self.node(file, &above, 0);
    }

    fn node(&mut self, file: &RouteFile, above: &Inherited, depth: usize) -> usize {
        let matchers = self.matchers(&file.matchers);
        let own: Vec<String> = matchers.iter().map(ToString::to_string).collect();
        let path = if depth == 0 {
            "{}".to_owned()
        } else {
            format!("{}/{{{}}}", above.path, own.join(","))
        };
        let receiver = match &file.receiver {
            None => above.receiver.clone(),
            Some(name) => {
                if !self.receivers.contains_key(&name.value) {
                    let known: Vec<&str> = self.receivers.keys().map(String::as_str).collect();
                    let known = known.join(", ");
                    let message =
                        format!("there is no receiver `{}`: known are {known}", name.value);
                    self.refuse(name.referenced, message);
                }
                name.value.clone()
            }
        };
        let inherited = Inherited {
            path: path.clone(),
            receiver: receiver.clone(),
            group_by: match &file.group_by {
                None => above.group_by.clone(),
                Some(labels) => group_by(labels),
            },
            group_wait: self.span(file.group_wait.as_ref(), above.group_wait, Duration::ZERO),
            group_interval: self.span(
                file.group_interval.as_ref(),
                above.group_interval,
                INTERVAL_MIN,
            ),
            repeat_interval: self.span(
                file.repeat_interval.as_ref(),
                above.repeat_interval,
                INTERVAL_MIN,
            ),
        };
        let index = self.nodes.len();
        let mute = self.named_times(&file.mute_time_intervals);
        let active = self.named_times(&file.active_time_intervals);
        self.nodes.push(Node {
            path,
            matchers,
            goes_on: file.goes_on,
            children: Vec::new(),
            channels: self.receivers.get(&receiver).cloned().unwrap_or_default(),
            receiver,
            group_by: inherited.group_by.clone(),
            group_wait: inherited.group_wait,
            group_interval: inherited.group_interval,
            repeat_interval: inherited.repeat_interval,
            mute,
            active,
        });
        if depth >= DEPTH_MAX && !file.routes.is_empty() {
            self.errors.push(RuleError {
                line: 0,
                column: 0,
                message: format!("routes lie in routes more than {DEPTH_MAX} deep"),
            });
            return index;
        }
        for child in &file.routes {
            let child = self.node(child, &inherited, depth + 1);
            self.nodes[index].children.push(child);
        }
        index
    }

    /// Routes by severity, and the severities for which nobody but the log is there.
    fn defaults(&mut self) -> Vec<&'static str> {
        let with = |kinds: &[&str]| -> Vec<usize> {
            let all = self.channels.iter().enumerate();
            all.filter(|(_, channel)| kinds.contains(&channel.kind.as_str()))
                .map(|(place, _)| place)
                .collect()
        };
        let log = with(&["log"]);
        let urgent = with(&["sms", "call"]);
        let soon = with(&["email", "ntfy", "slack", "webhook"]);
        let always = with(&["alertmanager"]);
        let mut degraded = Vec::new();
        let mut or_log = |severity: &'static str, wanted: &[&Vec<usize>]| match wanted
            .iter()
            .find(|places| !places.is_empty())
        {
            Some(places) => (*places).clone(),
            None => {
                degraded.push(severity);
                log.clone()
            }
        };
        let critical = or_log("critical", &[&urgent, &soon]);
        let warning = or_log("warning", &[&soon]);
        let node = |severity: &str, wait, mut channels: Vec<usize>| {
            channels.extend(&always);
            let matcher = CompiledMatcher::parse(&format!("severity={severity}"))
                .expect("a label and a word make a matcher");
            Node {
                path: format!("{{}}/{{{matcher}}}"),
                matchers: vec![matcher],
                goes_on: false,
                children: Vec::new(),
                receiver: format!("default for {severity}"),
                channels,
                group_by: GroupBy::Labels(vec!["rule".to_owned(), "location".to_owned()]),
                group_wait: wait,
                group_interval: GROUP_INTERVAL,
                repeat_interval: REPEAT_INTERVAL,
                mute: Vec::new(),
                active: Vec::new(),
            }
        };
        let nodes = [
            // A critical alert waits only long enough for those that come with it.
            node("critical", Duration::from_secs(5), critical),
            node("warning", GROUP_WAIT, warning),
        ];
        let mut root = node("info", GROUP_WAIT, log.clone());
        root.path = "{}".to_owned();
        root.matchers.clear();
        root.children = vec![1, 2];
        self.nodes.push(root);
        self.nodes.extend(nodes);
        degraded
    }

    fn inhibition(&mut self, file: &InhibitFile) -> Inhibition {
        Inhibition {
            source: self.matchers(&file.source_matchers),
            target: self.matchers(&file.target_matchers),
            equal: file
                .equal
                .iter()
                .map(|name| canonical(name).to_owned())
                .collect(),
        }
    }

    fn matchers(&mut self, texts: &[Spanned<String>]) -> Vec<CompiledMatcher> {
        let mut matchers = Vec::with_capacity(texts.len());
        for text in texts {
            match CompiledMatcher::parse(&text.value) {
                Ok(matcher) => matchers.push(matcher),
                Err(error) => self.refuse(text.referenced, error.to_string()),
            }
        }
        matchers
    }

    fn named_times(&mut self, names: &[Spanned<String>]) -> Vec<TimeInterval> {
        let mut times = Vec::new();
        for name in names {
            match self.times.get(&name.value) {
                Some(known) => times.extend(known.iter().cloned()),
                None => {
                    let message = format!("there is no time interval `{}`", name.value);
                    self.refuse(name.referenced, message);
                }
            }
        }
        times
    }

    fn span(
        &mut self,
        text: Option<&Spanned<String>>,
        inherited: Duration,
        least: Duration,
    ) -> Duration {
        let Some(text) = text else { return inherited };
        match duration(&text.value) {
            Ok(span) if span >= least => span,
            Ok(_) => {
                let message = format!("`{}` is too short: a second is the least", text.value);
                self.refuse(text.referenced, message);
                inherited
            }
            Err(error) => {
                self.refuse(text.referenced, format!("`{}`: {error}", text.value));
                inherited
            }
        }
    }
}

fn group_by(labels: &[Spanned<String>]) -> GroupBy {
    if labels.iter().any(|label| label.value == "...") {
        return GroupBy::Each;
    }
    let mut names: Vec<String> = labels
        .iter()
        .map(|label| canonical(&label.value).to_owned())
        .collect();
    names.sort_unstable();
    names.dedup();
    GroupBy::Labels(names)
}

impl GroupBy {
    /// The labels that name the group of an alert.
    pub(crate) fn group(&self, labels: &Labels) -> BTreeMap<String, String> {
        match self {
            Self::Each => labels.map().clone(),
            Self::Labels(names) => names
                .iter()
                .map(|name| (name.clone(), labels.get(name).to_owned()))
                .collect(),
        }
    }
}
