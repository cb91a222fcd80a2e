//! Weekly time windows in a time zone.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::snapshot::TimeWindow;

const DAY_NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MINUTES_A_DAY: u16 = 24 * 60;

/// A compiled [`TimeWindow`].
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// One flag a weekday, Monday first.
    days: [bool; 7],
    start: u16,
    end: u16,
    zone: TimeZone,
    text: String,
}

impl Window {
    /// Compiles a window, or says what is wrong with it.
    pub(super) fn compile(window: &TimeWindow) -> Result<Self, String> {
        if window.start_minute >= MINUTES_A_DAY || window.end_minute > MINUTES_A_DAY {
            return Err("time window must start before 24:00 and end by 24:00".to_owned());
        }
        let mut days = [window.days.is_empty(); 7];
        for day in &window.days {
            let slot = day.checked_sub(1).and_then(|day| days.get_mut(usize::from(day)));
            *slot.ok_or_else(|| format!("time window has day {day}; days are 1 (Monday) to 7 (Sunday)"))? = true;
        }
        let zone = zone(&window.time_zone)?;
        let text = describe(days, window);
        Ok(Self { days, start: window.start_minute, end: window.end_minute, zone, text })
    }

    /// Whether the window is open. Wall-clock time decides, so a window on the hour that a zone repeats in autumn is
    /// open twice, and one on the hour that it skips in spring does not open.
    pub(super) fn contains(&self, now: Timestamp) -> bool {
        let local: Zoned = now.to_zoned(self.zone.clone());
        let minute = minute_of_day(local.time());
        let today = usize::try_from(local.weekday().to_monday_zero_offset()).unwrap_or(0);
        let starts = |day: usize| self.days.get(day % 7).copied().unwrap_or(false);
        if self.start < self.end {
            return starts(today) && self.start <= minute && minute < self.end;
        }
        // Wraps over midnight: the part after midnight belongs to the day before. Equal ends make 24 hours.
        (starts(today) && minute >= self.start) || (starts(today + 6) && minute < self.end)
    }

    /// The window in words: `Mon-Fri 09:00-17:00 Europe/Berlin`.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// A time zone of the bundled IANA database.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name)
        .map_err(|_| format!("time zone {name:?} is unknown; use an IANA name such as \"Europe/Berlin\""))
}

fn minute_of_day(time: Time) -> u16 {
    let minute = i32::from(time.hour()) * 60 + i32::from(time.minute());
    u16::try_from(minute).unwrap_or(0) // jiff's hours and minutes are never negative.
}

fn describe(days: [bool; 7], window: &TimeWindow) -> String {
    let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    let named: Vec<(usize, &str)> =
        DAY_NAMES.iter().enumerate().filter(|(i, _)| days.get(*i) == Some(&true)).map(|(i, d)| (i, *d)).collect();
    let run = named.windows(2).all(|pair| matches!(pair, [(a, _), (b, _)] if a + 1 == *b));
    let days = match named.as_slice() {
        [_, _, _, _, _, _, _] => "every day".to_owned(),
        [(_, first), _, .., (_, last)] if run => format!("{first}-{last}"),
        list => list.iter().map(|(_, day)| *day).collect::<Vec<_>>().join(","),
    };
    format!("{days} {}-{} {}", clock(window.start_minute), clock(window.end_minute), window.time_zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[u8], start: u16, end: u16, zone: &str) -> Window {
        let window =
            TimeWindow { days: days.to_vec(), start_minute: start, end_minute: end, time_zone: zone.to_owned() };
        Window::compile(&window).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn office_hours_follow_the_zone_through_daylight_saving() {
        let office = window(&[1, 2, 3, 4, 5], 9 * 60, 17 * 60, "Europe/Berlin");
        assert!(office.contains(at("2026-01-05T08:00:00Z")), "09:00 winter time");
        assert!(!office.contains(at("2026-01-05T07:59:59Z")));
        assert!(office.contains(at("2026-07-06T07:00:00Z")), "09:00 summer time");
        assert!(!office.contains(at("2026-07-06T15:00:00Z")), "17:00 is outside");
        assert!(!office.contains(at("2026-07-05T10:00:00Z")), "Sunday");
        assert_eq!(office.text(), "Mon-Fri 09:00-17:00 Europe/Berlin");
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_starts_on() {
        let friday_night = window(&[5], 22 * 60, 6 * 60, "UTC");
        assert!(friday_night.contains(at("2026-01-09T23:00:00Z")));
        assert!(friday_night.contains(at("2026-01-10T05:59:00Z")), "Saturday morning");
        assert!(!friday_night.contains(at("2026-01-09T05:00:00Z")), "Friday morning belongs to Thursday");
        let sunday_night = window(&[7], 22 * 60, 6 * 60, "UTC");
        assert!(sunday_night.contains(at("2026-01-12T01:00:00Z")), "Monday morning");
    }

    #[test]
    fn equal_ends_make_twenty_four_hours() {
        let monday = window(&[1], 8 * 60, 8 * 60, "UTC");
        assert!(monday.contains(at("2026-01-05T08:00:00Z")));
        assert!(monday.contains(at("2026-01-06T07:59:00Z")));
        assert!(!monday.contains(at("2026-01-06T08:00:00Z")));
        assert!(!monday.contains(at("2026-01-05T07:59:00Z")));
    }

    #[test]
    fn the_whole_day_can_be_written() {
        let tuesday = window(&[2], 0, 1440, "UTC");
        assert!(tuesday.contains(at("2026-01-06T23:59:59Z")) && !tuesday.contains(at("2026-01-07T00:00:00Z")));
        assert_eq!(window(&[], 0, 1440, "UTC").text(), "every day 00:00-24:00 UTC");
        assert_eq!(window(&[1, 3], 0, 1440, "UTC").text(), "Mon,Wed 00:00-24:00 UTC");
    }

    #[test]
    fn bad_windows_say_what_is_wrong() {
        let base = TimeWindow { days: vec![], start_minute: 0, end_minute: 60, time_zone: "UTC".to_owned() };
        let error = |window: TimeWindow| Window::compile(&window).unwrap_err();
        assert!(error(TimeWindow { time_zone: "Mars/Olympus".to_owned(), ..base.clone() }).contains("Mars/Olympus"));
        assert!(error(TimeWindow { days: vec![8], ..base.clone() }).contains("day 8"));
        assert!(error(TimeWindow { days: vec![0], ..base.clone() }).contains("day 0"));
        assert!(error(TimeWindow { start_minute: 1440, ..base }).contains("24:00"));
    }
}
