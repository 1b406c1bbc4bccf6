//! Times of day, of the week and of the year, in the shape of Alertmanager's.

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

/// A set of times; everything that is left out holds always.
#[derive(Clone, Debug)]
pub struct TimeInterval {
    pub(super) zone: TimeZone,
    /// Minutes of the day, the end not included.
    pub(super) minutes: Vec<(u16, u16)>,
    /// From Sunday, 0, to Saturday, 6.
    pub(super) weekdays: Vec<(i8, i8)>,
    /// Days of the month; below 0 they count from its end.
    pub(super) days: Vec<(i8, i8)>,
    pub(super) months: Vec<(i8, i8)>,
    pub(super) years: Vec<(i16, i16)>,
}

impl TimeInterval {
    /// Whether `at` lies in it.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        let local = at.to_zoned(self.zone.clone()).datetime();
        let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
        let minute = u16::try_from(minute).unwrap_or_default();
        let weekday = local.weekday().to_sunday_zero_offset();
        let length = local.days_in_month();
        let day_of = |day: i8| if day < 0 { length + 1 + day } else { day };
        let any = |empty: bool, found: bool| empty || found;
        any(
            self.minutes.is_empty(),
            (self.minutes.iter()).any(|(from, to)| (*from..*to).contains(&minute)),
        ) && any(
            self.weekdays.is_empty(),
            (self.weekdays.iter()).any(|(from, to)| (*from..=*to).contains(&weekday)),
        ) && any(
            self.days.is_empty(),
            (self.days.iter())
                .any(|(from, to)| (day_of(*from)..=day_of(*to)).contains(&local.day())),
        ) && any(
            self.months.is_empty(),
            (self.months.iter()).any(|(from, to)| (*from..=*to).contains(&local.month())),
        ) && any(
            self.years.is_empty(),
            (self.years.iter()).any(|(from, to)| (*from..=*to).contains(&local.year())),
        )
    }
}

/// `HH:MM` as a minute of the day; `24:00` is its end.
pub(super) fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    if hour.len() != 2 || minute.len() != 2 {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let of_day = hour * 60 + minute;
    (minute < 60 && of_day <= 24 * 60).then_some(of_day)
}

/// `a` or `a:b` of what `one` reads, in order.
pub(super) fn range<T: Copy>(text: &str, one: impl Fn(&str) -> Option<T>) -> Option<(T, T)> {
    match text.split_once(':') {
        None => one(text.trim()).map(|only| (only, only)),
        Some((from, to)) => Some((one(from.trim())?, one(to.trim())?)),
    }
}

pub(super) fn weekday(text: &str) -> Option<i8> {
    let day = match text.to_ascii_lowercase().as_str() {
        "sunday" => Weekday::Sunday,
        "monday" => Weekday::Monday,
        "tuesday" => Weekday::Tuesday,
        "wednesday" => Weekday::Wednesday,
        "thursday" => Weekday::Thursday,
        "friday" => Weekday::Friday,
        "saturday" => Weekday::Saturday,
        _ => return None,
    };
    Some(day.to_sunday_zero_offset())
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

pub(super) fn month(text: &str) -> Option<i8> {
    let text = text.to_ascii_lowercase();
    let named = (1..).zip(MONTHS).find(|(_, name)| *name == text);
    let number = named
        .map(|(number, _)| number)
        .or_else(|| text.parse().ok());
    number.filter(|number| (1..=12).contains(number))
}

pub(super) fn day(text: &str) -> Option<i8> {
    let day: i8 = text.parse().ok()?;
    ((1..=31).contains(&day.abs())).then_some(day)
}
