//! `strftime_now`: the date and time in UTC, in the words of a format.

use super::operators::wrong;
use minijinja::{Error, Value};
use std::fmt::Write;

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The longest format in bytes.
const FORMAT_BYTES_MAX: usize = 1024;
/// A bound of the seconds, so that the calendar can't overflow: the year stays below 10000.
const SECONDS_MAX: i64 = 253_402_300_799;

/// The time `seconds` after the beginning of 1970 in the words of a format of C's `strftime`.
///
/// # Errors
/// The format is too long or has an unknown directive.
pub(super) fn written(format: &str, seconds: i64) -> Result<Value, Error> {
    if format.len() > FORMAT_BYTES_MAX {
        return Err(wrong(format!("strftime_now: the format has more than {FORMAT_BYTES_MAX} bytes")));
    }
    let seconds = seconds.clamp(0, SECONDS_MAX);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let month_name = MONTHS[(month - 1) as usize];
    // 1970 began with a Thursday.
    let day_name = DAYS[((days + 3) % 7) as usize];
    let twelve = (hour + 11) % 12 + 1;
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut directive = rest.next();
        let bare = directive == Some('-');
        if bare {
            directive = rest.next();
        }
        let number = match directive {
            Some('d') => day,
            Some('m') => month,
            Some('H') => hour,
            Some('I') => twelve,
            Some('M') => minute,
            Some('S') => second,
            Some('y') => year % 100,
            other => {
                match other {
                    Some('Y') => text.push_str(&year.to_string()),
                    Some('B') => text.push_str(month_name),
                    Some('b' | 'h') => text.push_str(&month_name[..3]),
                    Some('A') => text.push_str(day_name),
                    Some('a') => text.push_str(&day_name[..3]),
                    Some('p') => text.push_str(if hour < 12 { "AM" } else { "PM" }),
                    Some('F') => text.push_str(&format!("{year}-{month:02}-{day:02}")),
                    Some('T') => text.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
                    Some('%') => text.push('%'),
                    _ => return Err(wrong(format!("strftime_now: unknown directive in {format:?}"))),
                }
                continue;
            }
        };
        let width = if bare { 1 } else { 2 };
        write!(text, "{number:0width$}").expect("a String takes every write");
    }
    Ok(Value::from(text))
}

/// Year, month and day of a day after the beginning of 1970, in the Gregorian calendar.
fn civil(days: i64) -> (i64, i64, i64) {
    // Eras of 400 years that begin on the first of March, so that the leap day is the last of a year.
    let shifted = days + 719_468;
    let (era, in_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let day_of_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_the_calendars() {
        let at = |format, seconds| written(format, seconds).unwrap().to_string();
        assert_eq!(at("%d %b %Y", 0), "01 Jan 1970");
        assert_eq!(at("%A, %-d %B %Y %H:%M:%S %y", 1_709_210_096), "Thursday, 29 February 2024 12:34:56 24");
        assert_eq!(at("%F %T %I %p %a%%", 1_735_689_599), "2024-12-31 23:59:59 11 PM Tue%");
        assert_eq!(at("%Y", i64::MAX), "9999");
        assert!(written("%Q", 0).is_err() && written("%", 0).is_err());
    }
}
