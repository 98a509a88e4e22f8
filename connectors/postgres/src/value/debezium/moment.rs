//! Dates, times and timestamps out of PostgreSQL's text under `datestyle = ISO`.

use figvine_change::debezium::Time;
use figvine_change::debezium::moment::{self, DAY};

const DATE: &str = "not a date under datestyle ISO";
const TIME: &str = "not a time under datestyle ISO";
const OFFSET: &str = "without a valid offset from UTC";

/// What comes of `infinity` and `-infinity` by the way of the JDBC driver's own numbers for them: in days, and in microseconds.
const INFINITE_DAYS: (i64, i64) = (-2_147_472_692, -2_147_472_691);
const INFINITE_MICROS: (i64, i64) = (9_223_372_036_825_200_000, -9_223_372_036_832_400_000);

fn infinite(raw: &[u8], (plus, minus): (i64, i64)) -> Option<i64> {
    match raw {
        b"infinity" => Some(plus),
        b"-infinity" => Some(minus),
        _ => None,
    }
}

pub(super) fn write_date(raw: &[u8], mode: Time, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let days = match infinite(raw, INFINITE_DAYS) {
        Some(days) => days,
        None => {
            let (date, is_before) = split_era(raw);
            days(date, is_before)?
        }
    };
    moment::write_date(days, mode, out);
    Ok(())
}

pub(super) fn write_time(raw: &[u8], digits: u32, mode: Time, out: &mut Vec<u8>) -> Result<(), &'static str> {
    moment::write_time(micros_of_day(raw)?, digits, mode, out);
    Ok(())
}

/// timetz: in UTC, wherever it was.
pub(super) fn write_timetz(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let at = memchr::memchr2(b'+', b'-', raw).ok_or(OFFSET)?;
    let (time, offset) = raw.split_at_checked(at).ok_or(OFFSET)?;
    moment::write_zoned_time(micros_of_day(time)? - offset_micros(offset)?, out);
    Ok(())
}

pub(super) fn write_timestamp(raw: &[u8], digits: u32, mode: Time, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let micros = match infinite(raw, INFINITE_MICROS) {
        Some(micros) => micros,
        None => {
            let (moment, is_before) = split_era(raw);
            micros(moment, is_before)?
        }
    };
    moment::write_timestamp(micros, digits, mode, out);
    Ok(())
}

/// timestamptz; the session's time zone is UTC.
pub(super) fn write_timestamptz(raw: &[u8], digits: u32, out: &mut Vec<u8>) -> Result<(), &'static str> {
    if infinite(raw, (0, 0)).is_some() {
        out.push(b'"');
        out.extend_from_slice(raw);
        out.push(b'"');
        return Ok(());
    }
    let (moment, is_before) = split_era(raw);
    let moment = moment.strip_suffix(b"+00").ok_or("not in UTC")?;
    moment::write_zoned(micros(moment, is_before)?, Some(digits), out);
    Ok(())
}

fn split_era(raw: &[u8]) -> (&[u8], bool) {
    match raw.strip_suffix(b" BC") {
        Some(rest) => (rest, true),
        None => (raw, false),
    }
}

fn micros(moment: &[u8], is_before: bool) -> Result<i64, &'static str> {
    let at = memchr::memchr(b' ', moment).ok_or(DATE)?;
    let (date, time) = moment.split_at_checked(at).ok_or(DATE)?;
    let of_day = micros_of_day(time.strip_prefix(b" ").unwrap_or(time))?;
    // The last days of PostgreSQL's calendar, in the year 294276, are beyond 64 bits from 1970 on.
    let micros = days(date, is_before)?.checked_mul(DAY).and_then(|days| days.checked_add(of_day));
    micros.ok_or("beyond the timestamps that 64 bits hold")
}

fn days(date: &[u8], is_before: bool) -> Result<i64, &'static str> {
    let mut parts = date.split(|byte| *byte == b'-');
    let mut part = |longest| parts.next().and_then(|digits| whole(digits, longest)).ok_or(DATE);
    let (year, month, day) = (part(7)?, part(2)?, part(2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) || year == 0 {
        return Err(DATE);
    }
    // Before the year 1 is the year 0, which PostgreSQL calls 1 BC.
    Ok(moment::days(if is_before { 1 - year } else { year }, month, day))
}

/// `23:59:59.5`
fn micros_of_day(time: &[u8]) -> Result<i64, &'static str> {
    let mut parts = time.splitn(2, |byte| *byte == b'.');
    let (clock, fraction) = (parts.next().unwrap_or_default(), parts.next());
    let mut micros = seconds(clock).ok_or(TIME)? * 1_000_000;
    if let Some(fraction) = fraction {
        let digits = whole(fraction, 6).ok_or(TIME)?;
        micros += digits * 10_i64.pow(6 - u32::try_from(fraction.len()).map_err(|_| TIME)?);
    }
    Ok(micros)
}

/// `23:59:59`, `23:59`, `23`.
fn seconds(clock: &[u8]) -> Option<i64> {
    let mut seconds = 0;
    let mut unit = 3600;
    for part in clock.split(|byte| *byte == b':') {
        seconds += whole(part, 2).filter(|_| unit > 0)? * unit;
        unit /= 60;
    }
    Some(seconds)
}

/// `+02`, `-05:30`, `+01:23:45`.
fn offset_micros(offset: &[u8]) -> Result<i64, &'static str> {
    let (sign, clock) = offset.split_first().ok_or(OFFSET)?;
    let seconds = seconds(clock).ok_or(OFFSET)?;
    Ok(if *sign == b'-' { -seconds } else { seconds } * 1_000_000)
}

fn whole(digits: &[u8], longest: usize) -> Option<i64> {
    let is_good = (1..=longest).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_good.then(|| digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}
