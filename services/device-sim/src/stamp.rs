//! Instants as text, fast: each reading says one, and each line of the ledger four.

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// The text of an instant, as `Timestamp` itself shows it, in a place of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    text: [u8; 27],
    length: usize,
}

impl Stamp {
    /// The text of an instant with whole microseconds, from 1970 to 9999; none for others.
    pub(crate) fn new(time: Timestamp) -> Option<Self> {
        let micros = time.as_microsecond();
        if micros < 0 || time.subsec_nanosecond() % 1_000 != 0 {
            return None;
        }
        let (year, month, day) = civil(micros / DAY);
        if year > 9_999 {
            return None;
        }
        let of_day = micros % DAY;
        let seconds = of_day / 1_000_000;
        let mut stamp = Self {
            text: *b"0000-00-00T00:00:00.000000Z",
            length: 0,
        };
        stamp.put(0, 4, year);
        stamp.put(5, 2, month);
        stamp.put(8, 2, day);
        stamp.put(11, 2, seconds / 3_600);
        stamp.put(14, 2, seconds / 60 % 60);
        stamp.put(17, 2, seconds % 60);
        stamp.put(20, 6, of_day % 1_000_000);
        // No zeros at the end, and no point in front of nothing.
        let mut length = 26;
        while stamp.text[length - 1] == b'0' && length > 20 {
            length -= 1;
        }
        if length == 20 {
            length = 19;
        }
        stamp.text[length] = b'Z';
        stamp.length = length + 1;
        Some(stamp)
    }

    fn put(&mut self, at: usize, digits: usize, mut number: i64) {
        for place in (at..at + digits).rev() {
            // The remainder is a digit.
            self.text[place] = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).unwrap_or_default()
    }
}

/// For serde: an instant as text.
pub(crate) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    match Stamp::new(*time) {
        Some(stamp) => serializer.serialize_str(stamp.as_str()),
        None => time.serialize(serializer),
    }
}

/// As [`serialize`], where there may be none.
pub(crate) mod option {
    use super::*;

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }
}

/// Year, month and day of a day since 1970, by the days of four centuries, which repeat.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years begin in March, so that the leap day is the last of them.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_text_is_that_of_the_library(
            seconds in 0..253_402_207_200_i64, micros in prop_oneof![Just(0), 0..1_000_000_i64, (0..1_000_i64).prop_map(|it| it * 1_000)],
        ) {
            let time = Timestamp::from_microsecond(seconds * 1_000_000 + micros).unwrap();
            let stamp = Stamp::new(time).unwrap();
            prop_assert_eq!(stamp.as_str(), time.to_string());
        }
    }

    #[test]
    fn what_has_another_form_is_left_to_the_library() {
        assert!(Stamp::new(Timestamp::from_nanosecond(1).unwrap()).is_none());
        assert!(Stamp::new(Timestamp::from_microsecond(-1).unwrap()).is_none());
        assert!(Stamp::new(Timestamp::MAX).is_none());
    }
}
