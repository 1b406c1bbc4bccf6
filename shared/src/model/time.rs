use jiff::Timestamp;

use crate::topic::Excerpt;

use super::reject::RejectError;

const EXPECTED: &str = "an RFC 3339 time such as 2026-05-04T12:00:00Z";

/// Cuts a time to the microsecond, towards the past.
///
/// PostgreSQL's `timestamptz` holds no more, and a reading's key must be the same in every store.
/// Whoever makes a time that is compared with a stored one later passes it through here first.
#[must_use]
pub fn to_micros(time: Timestamp) -> Timestamp {
    let nanos = time.as_nanosecond();
    Timestamp::from_nanosecond(nanos - nanos.rem_euclid(1_000))
        // Only before the very first instant jiff knows, in the year -9999, there is none.
        .unwrap_or(time)
}

/// Reads the time in the field of that name: RFC 3339, any offset, years 1970 to 9999, cut to the
/// microsecond. A leap second, `:60`, counts as the second before.
pub(super) fn parse(field: &'static str, text: &str) -> Result<Timestamp, RejectError> {
    let ill_typed = || RejectError::IllTyped {
        field,
        value: Excerpt::new(text),
        expected: EXPECTED,
    };
    if !has_shape(text.as_bytes()) {
        return Err(ill_typed());
    }
    let time: Timestamp = text.parse().map_err(|_| ill_typed())?;
    if time < Timestamp::UNIX_EPOCH {
        return Err(RejectError::InvalidField {
            field,
            value: Excerpt::new(text),
            rule: "it must not be before 1970",
        });
    }
    Ok(to_micros(time))
}

/// Whether `text` is a date, a time with seconds and an offset as in RFC 3339; jiff itself takes
/// more forms than the contract allows. Digits and ranges are left to jiff.
fn has_shape(text: &[u8]) -> bool {
    let is = |at: usize, wanted: &[u8]| text.get(at).is_some_and(|byte| wanted.contains(byte));
    let separated = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    let len = text.len();
    let zulu = is(len.wrapping_sub(1), b"Zz");
    let offset = len > 6 && is(len - 6, b"+-") && is(len - 3, b":");
    let end = if zulu { 1 } else { 6 };
    separated && (zulu || offset) && (len - end == 19 || (len - end > 20 && is(19, b".")))
}
