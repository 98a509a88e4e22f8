//! Intervals out of PostgreSQL's text under `intervalstyle = iso_8601`.

use figvine_change::debezium::Interval;
use figvine_change::json::write_int;

const WRONG: &str = "not an interval under intervalstyle iso_8601";

/// Microseconds of a second, an hour, a day.
const SECOND: i128 = 1_000_000;
const HOUR: i128 = 3600 * SECOND;
const DAY: i128 = 24 * HOUR;
/// A twelfth of 365.25 days.
const MONTH: i128 = 2_629_800 * SECOND;

/// `P1Y2M3DT4H5M6.78S`, any part with its own sign, each perhaps missing. From 17 on there is `infinity`, for which there is no word.
pub(super) fn write(raw: &[u8], mode: Interval, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut rest = raw.strip_prefix(b"P").ok_or(WRONG)?;
    let mut is_time = false;
    // Years, months, days, hours, minutes, seconds.
    let mut parts: [&[u8]; 6] = [b"0"; 6];
    while !rest.is_empty() {
        if let Some(time) = rest.strip_prefix(b"T").filter(|_| !is_time) {
            is_time = true;
            rest = time;
        }
        let end = rest.iter().position(u8::is_ascii_alphabetic).ok_or(WRONG)?;
        let (number, tail) = rest.split_at_checked(end).ok_or(WRONG)?;
        let (unit, tail) = tail.split_first().ok_or(WRONG)?;
        let place = match (unit, is_time) {
            (b'Y', false) => 0,
            (b'M', false) => 1,
            (b'D', false) => 2,
            (b'H', true) => 3,
            (b'M', true) => 4,
            (b'S', true) => 5,
            _ => return Err(WRONG),
        };
        if let Some(part) = parts.get_mut(place) {
            *part = number;
        }
        rest = tail;
    }
    let [years, months, days, hours, minutes, seconds] = parts;
    let units = [(years, 12 * MONTH), (months, MONTH), (days, DAY), (hours, HOUR), (minutes, 60 * SECOND)];
    let mut micros = micros_of(seconds)?;
    for (number, unit) in units {
        micros += micros_of(number)? / SECOND * unit;
    }
    match mode {
        Interval::Numeric => {
            let bounded = micros.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
            write_int(i64::try_from(bounded).map_err(|_| WRONG)?, out);
        }
        Interval::String => {
            out.extend_from_slice(b"\"P");
            for (number, unit) in
                [(years, "Y"), (months, "M"), (days, "DT"), (hours, "H"), (minutes, "M"), (seconds, "S")]
            {
                out.extend_from_slice(number);
                out.extend_from_slice(unit.as_bytes());
            }
            out.push(b'"');
        }
    }
    Ok(())
}

/// A decimal number with at most six digits behind the point, in millionths.
fn micros_of(number: &[u8]) -> Result<i128, &'static str> {
    let unsigned = number.strip_prefix(b"-").unwrap_or(number);
    let mut parts = unsigned.splitn(2, |byte| *byte == b'.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let is_good = (1..=12).contains(&whole.len()) && fraction.len() <= 6;
    if !is_good || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    let digits = whole.iter().chain(fraction).copied().chain(std::iter::repeat_n(b'0', 6 - fraction.len()));
    let micros = digits.fold(0, |number, digit| number * 10 + i128::from(digit - b'0'));
    Ok(if unsigned.len() < number.len() { -micros } else { micros })
}
