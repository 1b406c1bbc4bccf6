//! What a command's response topic remembers, so that the bridge need not.

use fleet_shared::topic::{self, FleetTopic, TopicError};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Between the parts of the last level; it is encoded inside of them.
const BETWEEN: char = '~';

/// What goes into a topic level as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Which command of which device an answer belongs to.
///
/// It stands in the response topic, `responses/{device}/{client_id}~{command}~{correlation}`, so an
/// answer finds its way also when the bridge was restarted meanwhile. A device may publish below its own
/// id only, and so answers for nobody else.
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
            encoded(client_id),
            encoded(&self.command),
            encoded(&self.correlation_id)
        );
        topic::response(&self.device_id, &level)
    }

    /// From a response topic; none if it is not one that the bridge with this client id gave out.
    pub(crate) fn from_topic(topic: &str, client_id: &str) -> Option<Self> {
        let FleetTopic::Response {
            client_id: device_id,
            correlation_id: level,
        } = FleetTopic::parse(topic)?
        else {
            return None;
        };
        let mut parts = level
            .split(BETWEEN)
            .map(|part| percent_decode_str(part).decode_utf8().ok());
        let mut next = || parts.next()?.map(std::borrow::Cow::into_owned);
        if next()? != client_id {
            return None;
        }
        let answer = Self {
            device_id: device_id.to_owned(),
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
        fn answer_comes_back_from_its_topic(
            device_id in "[^/+#\\pC]{1,12}",
            command in "\\PC{1,8}",
            correlation_id in "\\PC{0,12}",
            client_id in "\\PC{1,12}",
        ) {
            let answer = Answer { device_id, command, correlation_id };
            let topic = answer.topic(&client_id).unwrap();
            prop_assert_eq!(topic.split('/').count(), 3);
            prop_assert_eq!(Answer::from_topic(&topic, "another bridge"), None);
            prop_assert_eq!(Answer::from_topic(&topic, &client_id), Some(answer));
        }
    }

    #[test]
    fn topic_of_somebody_else_is_none() {
        for level in ["", "b", "b~c", "b~c~d~e", "%ff~c~d", "c~d~e"] {
            let topic = format!("responses/d-1/{level}");
            assert_eq!(Answer::from_topic(&topic, "b"), None, "{level}");
        }
        assert!(Answer::from_topic("responses/d-1/b~c~d", "b").is_some());
    }
}
