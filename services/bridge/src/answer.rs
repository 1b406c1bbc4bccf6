//! What a command's response topic remembers, so that the bridge need not.

use fleet_shared::topic::{self, TopicError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Between the parts of the last level; it is encoded inside of them.
const BETWEEN: char = '~';

/// What goes into a topic level as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Which command of which device an answer belongs to.
///
/// It stands in the response topic, `responses/{client_id}/{device}~{command}~{correlation}`, so an
/// answer finds its way also when the bridge was restarted meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) device_id: String,
    pub(crate) command: String,
    pub(crate) correlation_id: String,
}

impl Answer {
    /// The response topic for a client.
    pub(crate) fn topic(&self, client_id: &str) -> Result<String, TopicError> {
        let encoded = |text| utf8_percent_encode(text, ENCODED);
        let level = format!(
            "{}{BETWEEN}{}{BETWEEN}{}",
            encoded(&self.device_id),
            encoded(&self.command),
            encoded(&self.correlation_id)
        );
        topic::response(client_id, &level)
    }

    /// From the last level of a response topic; none if the bridge did not make it.
    pub(crate) fn from_level(level: &str) -> Option<Self> {
        let mut parts = level
            .split(BETWEEN)
            .map(|part| percent_decode_str(part).decode_utf8().ok());
        let mut next = || parts.next()?.map(std::borrow::Cow::into_owned);
        let answer = Self {
            device_id: next()?,
            command: next()?,
            correlation_id: next()?,
        };
        parts.next().is_none().then_some(answer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn answer_comes_back_from_its_topic(device_id in "\\PC{1,12}", command in "\\PC{1,8}", correlation_id in "\\PC{0,12}") {
            let answer = Answer { device_id, command, correlation_id };
            let topic = answer.topic("bridge-1").unwrap();
            let level = topic.strip_prefix("responses/bridge-1/").unwrap();
            prop_assert!(!level.contains(['/', '+', '#']));
            prop_assert_eq!(Answer::from_level(level), Some(answer));
        }
    }

    #[test]
    fn level_of_somebody_else_is_none() {
        for level in ["", "a", "a~b", "a~b~c~d", "%ff~b~c"] {
            assert_eq!(Answer::from_level(level), None, "{level}");
        }
    }
}
