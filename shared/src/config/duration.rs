//! Durations as people write them.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Parses `250ms`, `30s`, `1m30s`, `5m`, `1h`, `90d`, or `0`: whole numbers with a unit, the
/// larger unit first. For use as a clap value parser.
///
/// # Errors
/// A sentence that says what is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected =
        "a duration is a whole number with a unit (ms, s, m, h, d), such as 250ms, 30s or 1h";
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        // The iterator is not rewound: a unit may neither repeat nor follow a smaller one.
        let Some((_, unit_ms)) = units.find(|(name, _)| *name == unit) else {
            return Err(expected.to_owned());
        };
        let number: u64 = number.parse().map_err(|_| expected.to_owned())?;
        total_ms = number
            .checked_mul(*unit_ms)
            .and_then(|ms| total_ms.checked_add(ms))
            .ok_or("the duration is too long")?;
        rest = after;
    }
    if text.is_empty() {
        return Err(expected.to_owned());
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a duration the way [`duration`] reads it, to the millisecond.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut rest_ms = duration.as_millis();
    let mut text = String::new();
    for (name, unit_ms) in UNITS {
        let count = rest_ms / u128::from(unit_ms);
        if count > 0 {
            text.push_str(&format!("{count}{name}"));
            rest_ms %= u128::from(unit_ms);
        }
    }
    if text.is_empty() {
        "0".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_add_up() {
        for (text, ms) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("90d", 7_776_000_000),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_has_no_clear_meaning_is_refused() {
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5h",
            "1 s",
            " 1s",
            "1S",
            "1s1m",
            "1s1s",
            "1w",
            "é",
            "1é",
            "99999999999999999999s",
            "18446744073709551615d",
            "+1s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(ms in 0..u64::MAX) {
            let written = Duration::from_millis(ms);
            proptest::prop_assert_eq!(duration(&format_duration(written)), Ok(written));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            drop(duration(&text));
        }
    }
}
