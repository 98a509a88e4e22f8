//! Dates, times and intervals, as ISO 8601 writes them.
//!
//! PostgreSQL's range (4714 BC to 294276 AD, `infinity`) exceeds that of most
//! libraries; the text is rearranged, never read into a clock's number.

use figvine_change::json::write_uint;

const INFINITE: [&[u8]; 2] = [b"infinity", b"-infinity"];

/// `2026-11-23`; years outside 1..=9999 are signed, 1 BC being year +0000.
pub(super) fn write_date(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    if raw.first_chunk().is_some_and(is_common_date) && raw.len() == 10 {
        out.push(b'"');
        out.extend_from_slice(raw);
        out.push(b'"');
        return Ok(());
    }
    write_moment(raw, out, |raw, out| {
        let (date, era) = split_era(raw);
        push_date(date, era, out)
    })
}

/// `23:59:59.5`, `24:00:00`.
pub(super) fn write_time(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    out.push(b'"');
    push_time(raw, out)?;
    out.push(b'"');
    Ok(())
}

/// `23:59:59+02` as `23:59:59+02:00`; the offset may have minutes and seconds.
pub(super) fn write_timetz(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let (time, offset) = split_offset(raw)?;
    out.push(b'"');
    push_time(time, out)?;
    if !is_offset(offset) {
        return Err(OFFSET);
    }
    out.extend_from_slice(offset);
    if offset.len() == 3 {
        out.extend_from_slice(b":00");
    }
    out.push(b'"');
    Ok(())
}

/// `2026-11-23 09:00:00.123456` with a `T` for the blank.
pub(super) fn write_timestamp(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    if write_common_timestamp(raw, b"\"", out) {
        return Ok(());
    }
    write_moment(raw, out, |raw, out| {
        let (moment, era) = split_era(raw);
        let (date, time) = split_date(moment)?;
        push_date(date, era, out)?;
        out.push(b'T');
        push_time(time, out)
    })
}

/// `2026-11-23 09:00:00.123456+00` with a `T` and a `Z`. The session's time zone
/// is UTC, so another offset tells that somebody changed it.
pub(super) fn write_timestamptz(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    if raw.strip_suffix(b"+00").is_some_and(|moment| write_common_timestamp(moment, b"Z\"", out)) {
        return Ok(());
    }
    write_moment(raw, out, |raw, out| {
        let (moment, era) = split_era(raw);
        let (date, time) = split_date(moment)?;
        let (time, offset) = split_offset(time)?;
        push_date(date, era, out)?;
        out.push(b'T');
        push_time(time, out)?;
        if !is_offset(offset) {
            return Err(OFFSET);
        }
        if offset.iter().any(|b| matches!(b, b'1'..=b'9')) {
            return Err("not in UTC");
        }
        out.push(b'Z');
        Ok(())
    })
}

/// `P1Y2M3DT4H5M6.78S`, any part with its own sign; from 17 on also `infinity`.
pub(super) fn write_interval(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    write_moment(raw, out, |raw, out| {
        let mut rest = raw.strip_prefix(b"P").ok_or(INTERVAL)?;
        let mut units: &[u8] = b"YMWD";
        let mut parts = 0;
        while !rest.is_empty() {
            if let (Some(time), b"YMWD") = (rest.strip_prefix(b"T"), units) {
                rest = time;
                units = b"HMS";
            }
            let (unit, tail) = super::number::after_decimal(rest).and_then(<[u8]>::split_first).ok_or(INTERVAL)?;
            if !units.contains(unit) {
                return Err(INTERVAL);
            }
            rest = tail;
            parts += 1;
        }
        if parts == 0 {
            return Err(INTERVAL);
        }
        out.extend_from_slice(raw);
        Ok(())
    })
}

const DATE: &str = "not a date under datestyle ISO";
const TIME: &str = "not a time under datestyle ISO";
const OFFSET: &str = "without a valid offset from UTC";
const INTERVAL: &str = "not an interval under intervalstyle iso_8601";

/// A timestamp of the years 1 to 9999, which nearly all are: checked and copied
/// in one go. Writes nothing and returns false when it is none.
fn write_common_timestamp(moment: &[u8], end: &[u8], out: &mut Vec<u8>) -> bool {
    let Some((date, [b' ', time @ ..])) = moment.split_first_chunk() else { return false };
    if !is_common_date(date) || !is_time(time) {
        return false;
    }
    let [y1, y2, y3, y4, _, m1, m2, _, d1, d2] = *date;
    out.extend_from_slice(&[b'"', y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T']);
    out.extend_from_slice(time);
    out.extend_from_slice(end);
    true
}

/// `0001-01-01` to `9999-12-31`.
fn is_common_date(date: &[u8; 10]) -> bool {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = date else { return false };
    let (century, year) = (two_digits(y1, y2), two_digits(y3, y4));
    century <= 99 && year <= 99 && century | year != 0 && is_month_day(m1, m2, d1, d2)
}

fn is_month_day(m1: u8, m2: u8, d1: u8, d2: u8) -> bool {
    matches!(two_digits(m1, m2), 1..=12) && matches!(two_digits(d1, d2), 1..=31)
}

/// The quotes, and `infinity` as it is.
fn write_moment(
    raw: &[u8],
    out: &mut Vec<u8>,
    push: impl FnOnce(&[u8], &mut Vec<u8>) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    out.push(b'"');
    if INFINITE.contains(&raw) {
        out.extend_from_slice(raw);
    } else {
        push(raw, out)?;
    }
    out.push(b'"');
    Ok(())
}

/// Which side of the year 1.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Era {
    Common,
    Before,
}

fn split_era(raw: &[u8]) -> (&[u8], Era) {
    match raw.strip_suffix(b" BC") {
        Some(rest) => (rest, Era::Before),
        None => (raw, Era::Common),
    }
}

fn split_date(moment: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let (date, time) = memchr::memchr(b' ', moment).and_then(|at| moment.split_at_checked(at)).ok_or(DATE)?;
    Ok((date, time.strip_prefix(b" ").unwrap_or(time)))
}

fn split_offset(time: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    memchr::memchr2(b'+', b'-', time).and_then(|at| time.split_at_checked(at)).ok_or(OFFSET)
}

fn push_date(date: &[u8], era: Era, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let (year, month_day) = memchr::memchr(b'-', date).and_then(|at| date.split_at_checked(at)).ok_or(DATE)?;
    let &[b'-', m1, m2, b'-', d1, d2] = month_day else { return Err(DATE) };
    if !is_month_day(m1, m2, d1, d2)
        || !(4..=7).contains(&year.len())
        || !year.iter().all(u8::is_ascii_digit)
        || year == b"0000"
    {
        return Err(DATE);
    }
    if year.len() > 4 && year.first() == Some(&b'0') {
        return Err(DATE);
    }
    match era {
        Era::Common => {
            if year.len() > 4 {
                out.push(b'+');
            }
            out.extend_from_slice(year);
        }
        Era::Before => {
            let before = year.iter().fold(0_u64, |year, digit| year * 10 + u64::from(digit - b'0')) - 1;
            // ISO 8601 knows no negative zero.
            out.push(if before > 0 { b'-' } else { b'+' });
            for limit in [1000, 100, 10] {
                if before < limit {
                    out.push(b'0');
                }
            }
            write_uint(before, out);
        }
    }
    out.extend_from_slice(month_day);
    Ok(())
}

fn push_time(time: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    if !is_time(time) {
        return Err(TIME);
    }
    out.extend_from_slice(time);
    Ok(())
}

/// `00:00:00` to `24:00:00`, perhaps with a fraction.
fn is_time(time: &[u8]) -> bool {
    let &[h1, h2, b':', m1, m2, b':', s1, s2, ref fraction @ ..] = time else { return false };
    let fraction_valid = match fraction {
        [] => true,
        [b'.', digits @ ..] => (1..=6).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    two_digits(h1, h2) <= 24 && two_digits(m1, m2) <= 59 && two_digits(s1, s2) <= 60 && fraction_valid
}

/// `+02`, `-05:30`, `+01:23:45`.
fn is_offset(offset: &[u8]) -> bool {
    let &[b'+' | b'-', h1, h2, ref rest @ ..] = offset else { return false };
    two_digits(h1, h2) <= 99
        && match *rest {
            [] => true,
            [b':', m1, m2] => two_digits(m1, m2) <= 59,
            [b':', m1, m2, b':', s1, s2] => two_digits(m1, m2) <= 59 && two_digits(s1, s2) <= 59,
            _ => false,
        }
}

/// The number of two digits; 255 when they are none.
fn two_digits(tens: u8, ones: u8) -> u8 {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    if tens > 9 || ones > 9 { u8::MAX } else { tens * 10 + ones }
}

#[cfg(test)]
mod tests {
    use super::super::Write;
    use super::super::properties::{refused, written};
    use super::*;

    fn table(write: Write, rows: &[(&str, &str)], wrong: &[&str]) {
        for (raw, json) in rows {
            assert_eq!(written(write, raw.as_bytes()), format!("\"{json}\""));
        }
        for raw in wrong {
            refused(write, raw.as_bytes());
        }
    }

    #[test]
    fn dates_have_signed_years_where_four_digits_do_not_do() {
        table(
            write_date,
            &[
                ("2026-11-23", "2026-11-23"),
                ("0001-01-01", "0001-01-01"),
                ("0018-04-01", "0018-04-01"),
                ("9999-12-31", "9999-12-31"),
                ("10000-01-01", "+10000-01-01"),
                ("5874897-12-31", "+5874897-12-31"),
                ("0001-12-31 BC", "+0000-12-31"),
                ("0002-01-01 BC", "-0001-01-01"),
                ("0044-03-15 BC", "-0043-03-15"),
                ("4714-11-24 BC", "-4713-11-24"),
                ("10001-01-01 BC", "-10000-01-01"),
                ("infinity", "infinity"),
                ("-infinity", "-infinity"),
            ],
            &[
                "",
                "2026-11",
                "26-11-23",
                "2026-13-01",
                "2026-00-01",
                "2026-01-32",
                "2026-1-1",
                "0000-01-01",
                "02026-01-01",
                "-2026-01-01",
                "11/23/2026",
                "2026-11-23 AD",
                "2026-11-23 ",
                "0000-01-01 BC",
                " BC",
                "Infinity",
                "58748970-01-01",
            ],
        );
    }

    #[test]
    fn times_are_kept() {
        table(
            write_time,
            &[
                ("00:00:00", "00:00:00"),
                ("23:59:59.5", "23:59:59.5"),
                ("23:59:59.999999", "23:59:59.999999"),
                ("24:00:00", "24:00:00"),
            ],
            &[
                "",
                "25:00:00",
                "12:60:00",
                "12:00",
                "12:00:00.",
                "12:00:00.1234567",
                "12:00:00+00",
                "1:00:00",
                "infinity",
            ],
        );
    }

    #[test]
    fn times_with_a_zone_get_the_minutes_of_the_offset() {
        table(
            write_timetz,
            &[
                ("23:59:59+02", "23:59:59+02:00"),
                ("24:00:00-15:59", "24:00:00-15:59"),
                ("11:51:30.123789+00", "11:51:30.123789+00:00"),
                ("12:00:00+05:30", "12:00:00+05:30"),
                ("12:00:00+01:23:45", "12:00:00+01:23:45"),
            ],
            &[
                "",
                "12:00:00",
                "12:00:00+",
                "12:00:00+2",
                "12:00:00+02:",
                "12:00:00+02:60",
                "12:00:00Z",
                "12:00:00+02:00:00:00",
            ],
        );
    }

    #[test]
    fn timestamps_get_a_t() {
        table(
            write_timestamp,
            &[
                ("2026-11-23 09:00:00", "2026-11-23T09:00:00"),
                ("2026-11-23 09:00:00.123456", "2026-11-23T09:00:00.123456"),
                ("294276-12-31 23:59:59.999999", "+294276-12-31T23:59:59.999999"),
                ("4714-11-24 00:00:00 BC", "-4713-11-24T00:00:00"),
                ("0001-12-31 23:59:59.999999 BC", "+0000-12-31T23:59:59.999999"),
                ("infinity", "infinity"),
                ("-infinity", "-infinity"),
            ],
            &[
                "",
                "2026-11-23",
                "2026-11-23T09:00:00",
                "2026-11-23  09:00:00",
                "2026-11-23 09:00:00+00",
                "2026-11-23 09:00:00 BC BC",
            ],
        );
    }

    #[test]
    fn timestamps_with_a_zone_are_utc() {
        table(
            write_timestamptz,
            &[
                ("2026-11-23 09:00:00+00", "2026-11-23T09:00:00Z"),
                ("2026-11-23 09:00:00.5+00", "2026-11-23T09:00:00.5Z"),
                ("21016-11-04 06:51:30.123456+00", "+21016-11-04T06:51:30.123456Z"),
                ("4713-12-31 23:59:59.999999+00 BC", "-4712-12-31T23:59:59.999999Z"),
                ("infinity", "infinity"),
                ("-infinity", "-infinity"),
            ],
            &[
                "",
                "2026-11-23 09:00:00",
                "2026-11-23 09:00:00+02",
                "2026-11-23 09:00:00+00:30",
                "2026-11-23 09:00:00-00:00:01",
                "2026-11-23 09:00:00Z",
                "2026-11-23 09:00:00+0",
                "2026-11-23 09:00:00 +00",
            ],
        );
    }

    #[test]
    fn intervals_are_durations() {
        for raw in [
            "PT0S",
            "P1Y2M3DT4H5M6.78S",
            "P-1Y-2M3DT-4H-5M-6.78S",
            "P178000000Y",
            "PT-0.000001S",
            "P1D",
            "PT2562047788H54.775807S",
            "infinity",
            "-infinity",
        ] {
            assert_eq!(written(write_interval, raw.as_bytes()), format!("\"{raw}\""));
        }
        for raw in
            ["", "P", "PT", "P1", "P1H", "PT1Y", "P1DT", "1 day", "P1DT1H\"", "PTT1S", "P--1D", "P1Y2M T1S", "P1e5D"]
        {
            refused(write_interval, raw.as_bytes());
        }
    }
}
