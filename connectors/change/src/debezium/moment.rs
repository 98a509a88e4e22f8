//! Dates, times and timestamps, out of numbers: days and microseconds.

use super::Time;
use crate::json::{write_int, write_uint};

/// Microseconds of a day.
pub const DAY: i64 = 86_400_000_000;

/// The day counted from 1970-01-01, in the proleptic Gregorian calendar.
#[must_use]
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years are counted from March, so that the day that is sometimes there comes last; 400 of them are 146,097 days.
    let year = if month > 2 { year } else { year - 1 };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day counted from 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Appends a date.
pub fn write_date(days: i64, mode: Time, out: &mut Vec<u8>) {
    if mode == Time::IsoString {
        out.push(b'"');
        push_date(days, out);
        out.extend_from_slice(b"Z\"");
    } else {
        write_int(days, out);
    }
}

/// Appends a time of day in microseconds, of a column that has so many digits behind the second. 24:00:00 is a whole day.
pub fn write_time(micros: i64, digits: u32, mode: Time, out: &mut Vec<u8>) {
    match mode {
        Time::Adaptive if digits > 3 => write_int(micros, out),
        Time::Adaptive | Time::Connect => write_int(micros.div_euclid(1000), out),
        Time::AdaptiveTimeMicroseconds => write_int(micros, out),
        Time::IsoString => {
            out.push(b'"');
            push_time(micros.rem_euclid(DAY), None, out);
            out.extend_from_slice(b"Z\"");
        }
    }
}

/// Appends a timestamp without a zone, in microseconds since 1970, of a column that has so many digits behind the second.
pub fn write_timestamp(micros: i64, digits: u32, mode: Time, out: &mut Vec<u8>) {
    match mode {
        Time::Adaptive | Time::AdaptiveTimeMicroseconds if digits > 3 => write_int(micros, out),
        Time::Adaptive | Time::AdaptiveTimeMicroseconds | Time::Connect => write_int(micros.div_euclid(1000), out),
        Time::IsoString => write_zoned(micros, None, out),
    }
}

/// Appends a moment as ISO 8601 in UTC: with so many digits behind the second, or with those that it has.
pub fn write_zoned(micros: i64, digits: Option<u32>, out: &mut Vec<u8>) {
    out.push(b'"');
    push_date(micros.div_euclid(DAY), out);
    out.push(b'T');
    push_time(micros.rem_euclid(DAY), digits, out);
    out.extend_from_slice(b"Z\"");
}

/// Appends a time of day in UTC.
pub fn write_zoned_time(micros: i64, out: &mut Vec<u8>) {
    out.push(b'"');
    push_time(micros.rem_euclid(DAY), None, out);
    out.extend_from_slice(b"Z\"");
}

fn push_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(days);
    // ISO 8601 as Java writes it: year 0 has no sign.
    if year < 0 {
        out.push(b'-');
    } else if year > 9999 {
        out.push(b'+');
    }
    push_padded(year.unsigned_abs(), 4, out);
    out.push(b'-');
    push_padded(month.unsigned_abs(), 2, out);
    out.push(b'-');
    push_padded(day.unsigned_abs(), 2, out);
}

/// With so many digits behind the second, or with those that it has.
fn push_time(micros: i64, digits: Option<u32>, out: &mut Vec<u8>) {
    let seconds = micros.unsigned_abs() / 1_000_000;
    push_padded(seconds / 3600, 2, out);
    out.push(b':');
    push_padded(seconds / 60 % 60, 2, out);
    out.push(b':');
    push_padded(seconds % 60, 2, out);
    let point = out.len();
    out.push(b'.');
    push_padded(micros.unsigned_abs() % 1_000_000, 6, out);
    match digits {
        Some(0) => out.truncate(point),
        Some(digits) => out.truncate(point + 1 + digits.min(6) as usize),
        None => {
            let zeros = out.iter().skip(point).rev().take_while(|byte| **byte == b'0').count();
            out.truncate(out.len() - zeros);
            if out.len() == point + 1 {
                out.truncate(point);
            }
        }
    }
}

fn push_padded(number: u64, width: u32, out: &mut Vec<u8>) {
    for power in (1..width).rev() {
        if number < 10_u64.pow(power) {
            out.push(b'0');
        }
    }
    write_uint(number, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn fractions_are_those_of_the_column_or_of_the_value() {
        let micros = 1_795_424_400_120_000;
        assert_eq!(written(|out| write_zoned(micros, Some(6), out)), "\"2026-11-23T09:00:00.120000Z\"");
        assert_eq!(written(|out| write_zoned(micros, Some(3), out)), "\"2026-11-23T09:00:00.120Z\"");
        assert_eq!(written(|out| write_zoned(micros, Some(0), out)), "\"2026-11-23T09:00:00Z\"");
        assert_eq!(written(|out| write_zoned(micros, None, out)), "\"2026-11-23T09:00:00.12Z\"");
        assert_eq!(written(|out| write_zoned(0, None, out)), "\"1970-01-01T00:00:00Z\"");
        assert_eq!(written(|out| write_zoned(-1, None, out)), "\"1969-12-31T23:59:59.999999Z\"");
        assert_eq!(written(|out| write_zoned(i64::MAX, None, out)), "\"+294247-01-10T04:00:54.775807Z\"");
    }

    #[test]
    fn the_precision_of_the_column_chooses_the_unit() {
        let shown = |digits, mode| {
            (
                written(|out| write_time(-1, digits, mode, out)),
                written(|out| write_timestamp(1_999, digits, mode, out)),
                written(|out| write_date(-719_529, mode, out)),
            )
        };
        let three = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(shown(3, Time::Adaptive), three("-1", "1", "-719529"));
        assert_eq!(shown(4, Time::Adaptive), three("-1", "1999", "-719529"));
        assert_eq!(shown(3, Time::AdaptiveTimeMicroseconds), three("-1", "1", "-719529"));
        assert_eq!(shown(6, Time::Connect), three("-1", "1", "-719529"));
        let iso = three("\"23:59:59.999999Z\"", "\"1970-01-01T00:00:00.001999Z\"", "\"-0001-12-31Z\"");
        assert_eq!(shown(6, Time::IsoString), iso);
    }

    proptest! {
        #[test]
        fn days_and_dates_are_each_others_inverse(day in -3_000_000_000_i64..3_000_000_000) {
            let (year, month, date) = civil(day);
            prop_assert_eq!(days(year, month, date), day);
        }
    }
}
