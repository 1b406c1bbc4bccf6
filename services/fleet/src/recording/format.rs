//! One line of JSON for each message: the form of a recording.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fleet_shared::session::{Bytes, Message, Properties, Publish, QoS};
use fleet_shared::topic;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The form that this program writes, and the newest it reads.
const VERSION: u32 = 1;
/// Longest line: a packet of 1 MiB, in base64, with its properties.
const LINE_MAX: u64 = 4 * 1024 * 1024;

/// One line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// The first of a recording; a file may have several, one after the other.
    Header(Header),
    /// What was not seen.
    Gap(Gap),
    /// A message.
    Message(Recorded),
}

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the form.
    pub recording: u32,
    /// The broker, without user name and password.
    pub broker: String,
    /// What was subscribed to.
    pub filters: Vec<String>,
    /// When the recording began.
    pub at: Timestamp,
}

impl Header {
    /// The header of a recording that begins now.
    #[must_use]
    pub fn new(broker: String, filters: Vec<String>, at: Timestamp) -> Self {
        Self {
            recording: VERSION,
            broker,
            filters,
            at,
        }
    }
}

/// A time without a connection. Messages at QoS 0 are missing; others only if the broker has
/// forgotten the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// When the connection was lost.
    pub gap: Timestamp,
    /// When it was back.
    pub until: Timestamp,
    /// Whether the broker had kept what it could.
    pub session_kept: bool,
}

/// A message as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// When it arrived, at microsecond precision.
    pub at: Timestamp,
    /// Where it was published.
    pub topic: String,
    /// The payload, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The payload in base64, if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// With which guarantee it was delivered.
    pub qos: QoS,
    /// Whether it was published as the last value of its topic.
    #[serde(default, skip_serializing_if = "is_false")]
    pub retain: bool,
    /// Whether the broker may have delivered it before.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dup: bool,
    /// Name and value pairs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_properties: Vec<(String, String)>,
    /// Where an answer was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_topic: Option<String>,
    /// In base64: what ties an answer to its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_data_base64: Option<String>,
    /// MIME type of the payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// How long it was still to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_expiry_seconds: Option<u64>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl Recorded {
    /// A message that arrived then.
    #[must_use]
    pub fn new(message: &Message, at: Timestamp) -> Self {
        let text = std::str::from_utf8(&message.payload).ok();
        let properties = message.properties.as_deref();
        let property = |get: fn(&Properties) -> Option<String>| properties.and_then(get);
        Self {
            at,
            topic: message.topic.to_string(),
            payload: text.map(str::to_owned),
            payload_base64: text.is_none().then(|| BASE64.encode(&message.payload)),
            qos: message.qos,
            retain: message.retain,
            dup: message.dup,
            user_properties: properties.map_or_else(Vec::new, |properties| {
                let pair = |(name, value): &(_, _)| (to_string(name), to_string(value));
                properties.user.iter().map(pair).collect()
            }),
            response_topic: property(|it| it.response_topic.as_ref().map(to_string)),
            correlation_data_base64: property(|it| {
                it.correlation_data.as_ref().map(|data| BASE64.encode(data))
            }),
            content_type: property(|it| it.content_type.as_ref().map(to_string)),
            message_expiry_seconds: properties
                .and_then(|it| it.message_expiry)
                .map(|expiry| expiry.as_secs()),
        }
    }

    /// The message as it is published again, with another payload if there is one.
    ///
    /// # Errors
    /// What of it is not what it should be.
    pub fn publish(&self, shifted: Option<Vec<u8>>) -> Result<Publish, String> {
        let payload = match (shifted, &self.payload, &self.payload_base64) {
            (Some(shifted), ..) => shifted,
            (None, Some(text), None) => text.clone().into_bytes(),
            (None, None, Some(base64)) => decode("payload_base64", base64)?,
            (None, Some(_), Some(_)) | (None, None, None) => {
                return Err("it needs either `payload` or `payload_base64`".to_owned());
            }
        };
        let correlation_data = self
            .correlation_data_base64
            .as_ref()
            .map(|data| decode("correlation_data_base64", data).map(Bytes::from))
            .transpose()?;
        let properties = Properties {
            user: self
                .user_properties
                .iter()
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect(),
            response_topic: self.response_topic.as_deref().map(Into::into),
            correlation_data,
            content_type: self.content_type.as_deref().map(Into::into),
            message_expiry: self.message_expiry_seconds.map(Duration::from_secs),
        };
        let label = topic::label(&self.topic);
        let publish = Publish::new(self.topic.clone(), label, payload)
            .qos(self.qos)
            .retain(self.retain);
        Ok(if properties == Properties::default() {
            publish
        } else {
            publish.properties(properties)
        })
    }
}

fn to_string(text: &impl std::ops::Deref<Target = str>) -> String {
    str::to_owned(text)
}

fn decode(field: &str, base64: &str) -> Result<Vec<u8>, String> {
    BASE64
        .decode(base64)
        .map_err(|error| format!("`{field}` is no base64: {error}"))
}

/// Why a recording cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// The file cannot be opened.
    #[error("cannot open the recording {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Reading failed.
    #[error("cannot read the recording {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// A whole line is not one of a recording.
    #[error("line {line} of {} is not one of a recording: {reason}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line in the file, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// The lines of a file, one in memory at a time.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    line: u64,
    text: Vec<u8>,
}

impl Lines {
    /// Opens a recording.
    ///
    /// # Errors
    /// When the file is not there, or cannot be read.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let file = File::open(path).map_err(|source| RecordingError::Open {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(256 * 1024, file),
            line: 0,
            text: Vec::new(),
        })
    }

    /// The number of the line that was read last.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.line
    }

    /// An error about that line.
    #[must_use]
    pub fn wrong(&self, reason: String) -> RecordingError {
        RecordingError::Line {
            path: self.path.clone(),
            line: self.line,
            reason,
        }
    }

    fn read(&mut self) -> Result<Option<Line>, RecordingError> {
        loop {
            self.text.clear();
            let mut limited = (&mut self.file).take(LINE_MAX + 1);
            let read = limited.read_until(b'\n', &mut self.text);
            let read = read.map_err(|source| RecordingError::Read {
                path: self.path.clone(),
                source,
            })?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            if read as u64 > LINE_MAX {
                return Err(self.wrong(format!("it is longer than {LINE_MAX} bytes")));
            }
            // The line that was being written when the recorder was killed.
            if self.text.pop() != Some(b'\n') {
                return Ok(None);
            }
            if !self.text.trim_ascii().is_empty() {
                break;
            }
        }
        let line = parse(&self.text).map_err(|reason| self.wrong(reason))?;
        match line {
            Line::Header(header) if header.recording > VERSION => Err(self.wrong(format!(
                "it is of version {}, and this program reads {VERSION}",
                header.recording
            ))),
            line => Ok(Some(line)),
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Line, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// The field that only one kind of line has tells which it is, so that an error names a field
/// instead of every kind that the line is not.
fn parse(text: &[u8]) -> Result<Line, String> {
    #[derive(Deserialize)]
    struct Kind {
        recording: Option<serde::de::IgnoredAny>,
        gap: Option<serde::de::IgnoredAny>,
    }
    let kind: Kind = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let line = if kind.recording.is_some() {
        serde_json::from_slice(text).map(Line::Header)
    } else if kind.gap.is_some() {
        serde_json::from_slice(text).map(Line::Gap)
    } else {
        serde_json::from_slice(text).map(Line::Message)
    };
    line.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time() -> Timestamp {
        "2026-01-02T03:04:05.25Z".parse().unwrap()
    }

    fn message(payload: &[u8]) -> Message {
        Message::new("a/b", payload.to_vec())
    }

    fn json(line: &Line) -> String {
        serde_json::to_string(line).unwrap()
    }

    #[test]
    fn lines_are_as_the_documentation_shows_them() {
        let header = Header::new("mqtt://b:1883".to_owned(), vec!["a/#".to_owned()], time());
        insta::assert_snapshot!(json(&Line::Header(header)), @r#"{"recording":1,"broker":"mqtt://b:1883","filters":["a/#"],"at":"2026-01-02T03:04:05.25Z"}"#);
        let text = Recorded::new(&message(b"21.5"), time());
        insta::assert_snapshot!(json(&Line::Message(text)), @r#"{"at":"2026-01-02T03:04:05.25Z","topic":"a/b","payload":"21.5","qos":1}"#);
        let mut all = message(b"\xff\x00");
        all.retain = true;
        all.dup = true;
        all.properties = Some(Box::new(Properties {
            user: vec![("k".into(), "v".into()), ("k".into(), "w".into())],
            response_topic: Some("r".into()),
            correlation_data: Some(b"\x01".to_vec().into()),
            content_type: Some("text/plain".into()),
            message_expiry: Some(Duration::from_secs(60)),
        }));
        insta::assert_snapshot!(json(&Line::Message(Recorded::new(&all, time()))), @r#"{"at":"2026-01-02T03:04:05.25Z","topic":"a/b","payload_base64":"/wA=","qos":1,"retain":true,"dup":true,"user_properties":[["k","v"],["k","w"]],"response_topic":"r","correlation_data_base64":"AQ==","content_type":"text/plain","message_expiry_seconds":60}"#);
        let gap = Gap {
            gap: time(),
            until: time(),
            session_kept: true,
        };
        insta::assert_snapshot!(json(&Line::Gap(gap)), @r#"{"gap":"2026-01-02T03:04:05.25Z","until":"2026-01-02T03:04:05.25Z","session_kept":true}"#);
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named_with_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            let error = Lines::open(file.path()).unwrap().find_map(Result::err);
            let error = error.map(|error| error.to_string()).unwrap_or_default();
            error.replace(file.path().to_str().unwrap(), "FILE")
        };
        assert_eq!(error("\n\n{\"at\":\"2026-01-02T03:04:0"), "");
        insta::assert_snapshot!(error("{\"recording\":2,\"broker\":\"\",\"filters\":[],\"at\":\"2026-01-02T03:04:05Z\"}\n"), @"line 1 of FILE is not one of a recording: it is of version 2, and this program reads 1");
        insta::assert_snapshot!(error("\n{\"at\":\"2026-01-02T03:04:05Z\",\"qos\":1}\n"), @"line 2 of FILE is not one of a recording: missing field `topic` at line 1 column 37");
        insta::assert_snapshot!(error("sensors/a 21.5\n"), @"line 1 of FILE is not one of a recording: expected value at line 1 column 1");
    }

    proptest! {
        #[test]
        fn a_message_is_published_again_as_it_was(
            payload in any::<Vec<u8>>(), correlation in prop::option::of(any::<Vec<u8>>()),
            user in prop::collection::vec(("[a-z]*", ".*"), 0..3), qos in 0..3_u8, retain in any::<bool>(),
        ) {
            let mut wanted = message(&payload);
            wanted.qos = QoS::try_from(qos).unwrap();
            wanted.retain = retain;
            let properties = Properties {
                user: user.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect(),
                correlation_data: correlation.map(Into::into),
                ..Properties::default()
            };
            wanted.properties = (properties != Properties::default()).then(|| Box::new(properties));
            let line = json(&Line::Message(Recorded::new(&wanted, time())));
            let Line::Message(read) = parse(line.as_bytes()).unwrap() else { panic!("{line}") };
            let publish = read.publish(None).unwrap();
            prop_assert_eq!(&publish.payload, &wanted.payload);
            prop_assert_eq!(&publish.topic, &wanted.topic);
            prop_assert_eq!((publish.qos, publish.retain), (wanted.qos, wanted.retain));
            prop_assert_eq!(publish.properties, wanted.properties);
        }

        #[test]
        fn no_line_is_a_panic(text in any::<Vec<u8>>()) {
            if let Ok(Line::Message(message)) = parse(&text) {
                drop(message.publish(None));
            }
        }
    }
}
