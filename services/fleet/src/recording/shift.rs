//! Times inside payloads, moved with the message.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

/// Keys of a payload that say when something was: those of readings, statuses, wills and alerts. A
/// text that JSON had to escape is no time, so it need not be taken.
#[derive(Deserialize)]
struct Times<'a> {
    #[serde(borrow)]
    timestamp: Option<&'a str>,
    #[serde(borrow)]
    last_seen: Option<&'a str>,
}

/// The payload with its times moved by `by`; nothing when it has none. All else stays as it was,
/// byte for byte.
pub(super) fn shifted(payload: &str, by: SignedDuration) -> Option<Vec<u8>> {
    let times: Times<'_> = serde_json::from_str(payload).ok()?;
    let mut moved: Vec<_> = [times.timestamp, times.last_seen]
        .into_iter()
        .flatten()
        .filter_map(|text| {
            let time: Timestamp = text.parse().ok()?;
            let start = text.as_ptr().addr() - payload.as_ptr().addr();
            Some((start..start + text.len(), time.checked_add(by).ok()?))
        })
        .collect();
    if moved.is_empty() {
        return None;
    }
    moved.sort_by_key(|(range, _)| range.start);
    let mut out = Vec::with_capacity(payload.len() + 16);
    let mut from = 0;
    for (range, time) in moved {
        out.extend_from_slice(&payload.as_bytes()[from..range.start]);
        out.extend_from_slice(fleet_shared::model::to_micros(time).to_string().as_bytes());
        from = range.end;
    }
    out.extend_from_slice(&payload.as_bytes()[from..]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour_later(payload: &str) -> String {
        let moved = shifted(payload, SignedDuration::from_hours(1));
        moved.map_or_else(String::new, |bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn times_move_and_all_else_stays() {
        assert_eq!(
            hour_later(
                r#"{ "value":1.50, "timestamp" : "2026-01-02T03:04:05.000001Z","x":[{"timestamp":"2026-01-02T03:04:05Z"}]}"#
            ),
            r#"{ "value":1.50, "timestamp" : "2026-01-02T04:04:05.000001Z","x":[{"timestamp":"2026-01-02T03:04:05Z"}]}"#
        );
        assert_eq!(
            hour_later(
                r#"{"timestamp":"2026-01-02T03:04:05+02:00","last_seen":"2026-01-02T00:00:00Z"}"#
            ),
            r#"{"timestamp":"2026-01-02T02:04:05Z","last_seen":"2026-01-02T01:00:00Z"}"#
        );
    }

    #[test]
    fn a_payload_without_a_time_is_left_alone() {
        for payload in [
            "21.5",
            "",
            "{}",
            r#"{"timestamp":1767322800}"#,
            r#"{"timestamp":"noon"}"#,
            r#"{"timestamp":"9999-12-30T22:00:00Z"}"#,
            r#"{"timestamp":"2026-01-02T03:04:05Z""#,
        ] {
            assert_eq!(
                shifted(payload, SignedDuration::from_hours(48)),
                None,
                "{payload}"
            );
        }
    }
}
