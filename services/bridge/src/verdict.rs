//! What to do about a record that Kafka did not take.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::reason::Reason;

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its batch was refused, and perhaps for another record's sake: send it once more by itself.
    Alone,
    /// Only this record is wrong.
    DeadLetter(Reason),
    /// The producer is being ended; whoever comes next gets the message again.
    Forget,
    /// Nothing can be done until somebody changes something: end, with nothing acknowledged.
    Stop,
}

/// Decides by Kafka's answer, by whether the record was in a batch of its own, and by whether its
/// topic is written in the routes (and not made from the message).
///
/// A producer without a message timeout retries by itself whatever may pass.
pub(crate) fn verdict(code: Code, alone: bool, topic_is_fixed: bool) -> Verdict {
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => {
            if alone {
                Verdict::DeadLetter(Reason::TooLarge)
            } else {
                Verdict::Alone
            }
        }
        Code::InvalidRecord
        | Code::InvalidDifferentRecord
        | Code::InvalidTimestamp
        | Code::PolicyViolation => {
            if alone {
                Verdict::DeadLetter(Reason::Refused)
            } else {
                Verdict::Alone
            }
        }
        // A topic of the routes must be there: its readings are not to become dead letters because
        // it is missing. One that a device's topic chose harms nobody else.
        Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed
            if !topic_is_fixed =>
        {
            Verdict::DeadLetter(Reason::UnknownTopic)
        }
        Code::PurgeQueue | Code::PurgeInflight | Code::DestroyBroker => Verdict::Forget,
        _ => Verdict::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_harms_no_other_and_a_missing_topic_loses_none() {
        let cases = [
            (Code::MessageSizeTooLarge, false, true, Verdict::Alone),
            (
                Code::MessageSizeTooLarge,
                true,
                true,
                Verdict::DeadLetter(Reason::TooLarge),
            ),
            (Code::InvalidDifferentRecord, false, true, Verdict::Alone),
            (
                Code::InvalidRecord,
                true,
                false,
                Verdict::DeadLetter(Reason::Refused),
            ),
            (Code::UnknownTopic, false, true, Verdict::Stop),
            (
                Code::UnknownTopic,
                false,
                false,
                Verdict::DeadLetter(Reason::UnknownTopic),
            ),
            (Code::TopicAuthorizationFailed, false, true, Verdict::Stop),
            (Code::PurgeQueue, false, true, Verdict::Forget),
            (Code::Fatal, false, true, Verdict::Stop),
        ];
        for (code, alone, fixed, expected) in cases {
            assert_eq!(verdict(code, alone, fixed), expected, "{code:?}");
        }
    }
}
