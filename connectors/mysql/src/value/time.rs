//! DATE, TIME, DATETIME, TIMESTAMP in the forms before and since MySQL 5.6.4
//! (MariaDB 10.1), and those inside of JSON.
//!
//! Fields are shown as they stand, never read into a clock: MySQL
//! stores `0000-00-00`, `2026-00-00` and, where it is told to, `2026-02-31`.

use super::{Outcome, ZeroDate};

const WIDTH: &str = "is not as long as the type";
const FIELD: &str = "has a field out of range";
const ZERO: &str = "is a zero or partial date, which zero_date does not allow";

/// Year, month, day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: u32,
    pub(super) month: u32,
    pub(super) day: u32,
}

impl Date {
    fn checked(year: u64, month: u64, day: u64) -> Result<Self, &'static str> {
        if year > 9999 || month > 12 || day > 31 {
            return Err(FIELD);
        }
        Ok(Self { year: year as u32, month: month as u32, day: day as u32 })
    }

    /// The date so many days after 1970-01-01. Valid for the years of a 32-bit
    /// TIMESTAMP (H. Hinnant, "chrono-compatible low-level date algorithms").
    fn from_days(days: u32) -> Self {
        let days = days + 719_468;
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Self { year: year_of_era + era * 400 + u32::from(month <= 2), month, day }
    }

    fn is_whole(self) -> bool {
        self.month > 0 && self.day > 0
    }

    fn push(self, out: &mut Vec<u8>) {
        let [a, b] = two(self.year / 100);
        let [c, d] = two(self.year);
        let [e, f] = two(self.month);
        let [g, h] = two(self.day);
        out.extend_from_slice(&[a, b, c, d, b'-', e, f, b'-', g, h]);
    }
}

/// Hours, minutes, seconds and a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clock {
    pub(super) hours: u32,
    pub(super) minutes: u32,
    pub(super) seconds: u32,
    pub(super) micros: u32,
}

impl Clock {
    /// From `hour << 12 | minute << 6 | second`.
    fn packed(hms: u64, max_hours: u64, micros: u64) -> Result<Self, &'static str> {
        Self::checked(hms >> 12, hms >> 6 & 63, hms & 63, max_hours, micros)
    }

    fn checked(hours: u64, minutes: u64, seconds: u64, max_hours: u64, micros: u64) -> Result<Self, &'static str> {
        if hours > max_hours || minutes > 59 || seconds > 59 || micros > 999_999 {
            return Err(FIELD);
        }
        Ok(Self { hours: hours as u32, minutes: minutes as u32, seconds: seconds as u32, micros: micros as u32 })
    }

    fn push(self, digits: u8, out: &mut Vec<u8>) {
        if self.hours > 99 {
            out.push(b'0' + (self.hours / 100 % 10) as u8);
        }
        let [a, b] = two(self.hours);
        let [c, d] = two(self.minutes);
        let [e, f] = two(self.seconds);
        out.extend_from_slice(&[a, b, b':', c, d, b':', e, f]);
        if digits > 0 {
            let [a, b] = two(self.micros / 10_000);
            let [c, d] = two(self.micros / 100);
            let [e, f] = two(self.micros);
            let fraction = [b'.', a, b, c, d, e, f];
            out.extend_from_slice(fraction.get(..=usize::from(digits)).unwrap_or(&fraction));
        }
    }
}

/// The last two digits.
fn two(number: u32) -> [u8; 2] {
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

/// A little-endian number of exactly `N` bytes.
fn little<const N: usize>(raw: &[u8]) -> Result<u64, &'static str> {
    let bytes: &[u8; N] = raw.try_into().map_err(|_| WIDTH)?;
    Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// A big-endian number of `whole` bytes with the fraction that belongs to `digits` behind it.
fn big_with_fraction(raw: &[u8], whole: usize, digits: u8) -> Result<(u64, u32), &'static str> {
    let fraction = usize::from(digits.min(6)).div_ceil(2);
    if raw.len() != whole + fraction {
        return Err(WIDTH);
    }
    Ok((raw.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)), 8 * fraction as u32))
}

/// Microseconds of a stored fraction of `bits` bits: hundredths, ten-thousandths or millionths.
fn micros(fraction: u64, bits: u32) -> u64 {
    fraction
        * match bits {
            8 => 10_000,
            16 => 100,
            _ => 1,
        }
}

/// A date with a zero in it, where that is to be shown as something else.
fn replaced(date: Date, zero: ZeroDate, out: &mut Vec<u8>) -> Result<bool, &'static str> {
    if date.is_whole() {
        return Ok(false);
    }
    match zero {
        ZeroDate::Text => Ok(false),
        ZeroDate::Null => {
            out.extend_from_slice(b"null");
            Ok(true)
        }
        ZeroDate::Error => Err(ZERO),
    }
}

/// DATE: `year << 9 | month << 5 | day`, three bytes.
pub(super) fn read_date(raw: &[u8]) -> Result<Date, &'static str> {
    let packed = little::<3>(raw)?;
    Date::checked(packed >> 9, packed >> 5 & 15, packed & 31)
}

pub(super) fn write_date(raw: &[u8], zero: ZeroDate, out: &mut Vec<u8>) -> Outcome {
    let date = read_date(raw)?;
    if replaced(date, zero, out)? {
        return Ok(());
    }
    out.push(b'"');
    date.push(out);
    out.push(b'"');
    Ok(())
}

fn write_moment(date: Date, clock: Clock, digits: u8, end: &[u8], zero: ZeroDate, out: &mut Vec<u8>) -> Outcome {
    if replaced(date, zero, out)? {
        return Ok(());
    }
    out.push(b'"');
    date.push(out);
    out.push(b'T');
    clock.push(digits, out);
    out.extend_from_slice(end);
    Ok(())
}

/// Year, month, day and time of `((year * 13 + month) << 5 | day) << 17 | hms`.
fn unpack(packed: u64, micros: u64) -> Result<(Date, Clock), &'static str> {
    let (months, day) = (packed >> 22, packed >> 17 & 31);
    let date = Date::checked(months / 13, months % 13, day)?;
    Ok((date, Clock::packed(packed & 0x1ffff, 23, micros)?))
}

/// DATETIME, since 5.6.4: five bytes with the top bit set, and the fraction.
pub(super) fn read_datetime(raw: &[u8], digits: u8) -> Result<(Date, Clock), &'static str> {
    let (number, bits) = big_with_fraction(raw, 5, digits)?;
    let whole = (number >> bits).checked_sub(0x80_0000_0000).ok_or(FIELD)?;
    unpack(whole, micros(number & ((1 << bits) - 1), bits))
}

pub(super) fn write_datetime(raw: &[u8], digits: u8, zero: ZeroDate, out: &mut Vec<u8>) -> Outcome {
    let (date, clock) = read_datetime(raw, digits)?;
    write_moment(date, clock, digits, b"\"", zero, out)
}

/// DATETIME before: the decimal number YYYYMMDDhhmmss in eight bytes.
pub(super) fn read_datetime_old(raw: &[u8]) -> Result<(Date, Clock), &'static str> {
    let number = little::<8>(raw)?;
    let (day, time) = (number / 1_000_000, number % 1_000_000);
    let date = Date::checked(day / 10_000, day / 100 % 100, day % 100)?;
    Ok((date, Clock::checked(time / 10_000, time / 100 % 100, time % 100, 23, 0)?))
}

pub(super) fn write_datetime_old(raw: &[u8], zero: ZeroDate, out: &mut Vec<u8>) -> Outcome {
    let (date, clock) = read_datetime_old(raw)?;
    write_moment(date, clock, 0, b"\"", zero, out)
}

/// TIMESTAMP, since 5.6.4: four bytes, seconds since 1970 in UTC, and the fraction.
///
/// MariaDB since 11.5 uses all 32 bits (to 2106), MySQL never the top one.
pub(super) fn read_timestamp(raw: &[u8], digits: u8) -> Result<(Date, Clock), &'static str> {
    let (number, bits) = big_with_fraction(raw, 4, digits)?;
    of_seconds(number >> bits, micros(number & ((1 << bits) - 1), bits))
}

pub(super) fn write_timestamp(raw: &[u8], digits: u8, zero: ZeroDate, out: &mut Vec<u8>) -> Outcome {
    let (date, clock) = read_timestamp(raw, digits)?;
    write_moment(date, clock, digits, b"Z\"", zero, out)
}

/// TIMESTAMP before: the seconds, little-endian.
pub(super) fn read_timestamp_old(raw: &[u8]) -> Result<(Date, Clock), &'static str> {
    of_seconds(little::<4>(raw)?, 0)
}

pub(super) fn write_timestamp_old(raw: &[u8], zero: ZeroDate, out: &mut Vec<u8>) -> Outcome {
    let (date, clock) = read_timestamp_old(raw)?;
    write_moment(date, clock, 0, b"Z\"", zero, out)
}

fn of_seconds(seconds: u64, micros: u64) -> Result<(Date, Clock), &'static str> {
    // Second 0 is no moment: the servers keep it for `0000-00-00 00:00:00`.
    let date = match seconds {
        0 => Date { year: 0, month: 0, day: 0 },
        _ => Date::from_days((seconds / 86_400) as u32),
    };
    let of_day = seconds % 86_400;
    Ok((date, Clock::checked(of_day / 3600, of_day / 60 % 60, of_day % 60, 23, micros)?))
}

/// TIME, since 5.6.4: `hour << 12 | minute << 6 | second` in three bytes with the fraction
/// behind them, one signed number above an offset of half its range.
pub(super) fn read_time(raw: &[u8], digits: u8) -> Result<(bool, Clock), &'static str> {
    let (number, bits) = big_with_fraction(raw, 3, digits)?;
    let offset = 0x80_0000 << bits;
    let negative = number < offset;
    let magnitude = number.abs_diff(offset);
    Ok((negative, Clock::packed(magnitude >> bits, 838, micros(magnitude & ((1 << bits) - 1), bits))?))
}

pub(super) fn write_time(raw: &[u8], digits: u8, out: &mut Vec<u8>) -> Outcome {
    let (negative, clock) = read_time(raw, digits)?;
    write_clock(negative, clock, digits, out);
    Ok(())
}

/// TIME before: the decimal number hhmmss in three bytes, with a sign.
pub(super) fn read_time_old(raw: &[u8]) -> Result<(bool, Clock), &'static str> {
    let number = little::<3>(raw)?;
    let negative = number >= 0x80_0000;
    let number = if negative { 0x100_0000 - number } else { number };
    Ok((negative, Clock::checked(number / 10_000, number / 100 % 100, number % 100, 838, 0)?))
}

pub(super) fn write_time_old(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    let (negative, clock) = read_time_old(raw)?;
    write_clock(negative, clock, 0, out);
    Ok(())
}

fn write_clock(negative: bool, clock: Clock, digits: u8, out: &mut Vec<u8>) {
    out.push(b'"');
    if negative {
        out.push(b'-');
    }
    clock.push(digits, out);
    out.push(b'"');
}

/// DATE inside of JSON: eight bytes as [`write_json_datetime`]'s, shown without a time.
pub(super) fn write_json_date(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    let (date, _) = unpack(little::<8>(raw)? >> 24, 0)?;
    out.push(b'"');
    date.push(out);
    out.push(b'"');
    Ok(())
}

/// DATETIME or TIMESTAMP inside of JSON: packed fields above 24 bits of
/// microseconds; shown in the server's form, with a blank and six digits.
pub(super) fn write_json_datetime(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    let packed = little::<8>(raw)?;
    let (date, clock) = unpack(packed >> 24, packed & 0xff_ffff)?;
    out.push(b'"');
    date.push(out);
    out.push(b' ');
    clock.push(6, out);
    out.push(b'"');
    Ok(())
}

/// TIME inside of JSON: as above, with a sign.
pub(super) fn write_json_time(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    let packed = little::<8>(raw)?.cast_signed();
    let magnitude = packed.unsigned_abs();
    let clock = Clock::packed(magnitude >> 24, 838, magnitude & 0xff_ffff)?;
    write_clock(packed < 0, clock, 6, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: ZeroDate = ZeroDate::Text;

    fn shown(write: impl Fn(&mut Vec<u8>) -> Outcome) -> String {
        let mut out = Vec::new();
        match write(&mut out) {
            Ok(()) => String::from_utf8(out).expect("ASCII"),
            Err(reason) => reason.to_owned(),
        }
    }

    fn date(year: u32, month: u32, day: u32) -> [u8; 3] {
        let [a, b, c, _] = (year << 9 | month << 5 | day).to_le_bytes();
        [a, b, c]
    }

    fn datetime(year: u64, month: u64, day: u64, hms: (u64, u64, u64)) -> u64 {
        ((year * 13 + month) << 5 | day) << 17 | hms.0 << 12 | hms.1 << 6 | hms.2
    }

    fn datetime_bytes(packed: u64, fraction: &[u8]) -> Vec<u8> {
        [&(packed + 0x80_0000_0000).to_be_bytes()[3..], fraction].concat()
    }

    #[test]
    fn dates_are_shown_as_stored() {
        for (raw, json) in [
            (date(2018, 4, 1), "\"2018-04-01\""),
            (date(18, 4, 1), "\"0018-04-01\""),
            (date(9999, 12, 31), "\"9999-12-31\""),
            (date(0, 0, 0), "\"0000-00-00\""),
            (date(2026, 0, 0), "\"2026-00-00\""),
            (date(2026, 2, 31), "\"2026-02-31\""),
            (date(2026, 13, 1), FIELD),
        ] {
            assert_eq!(shown(|out| write_date(&raw, TEXT, out)), json);
        }
        assert_eq!(shown(|out| write_date(&date(2026, 0, 0), ZeroDate::Null, out)), "null");
        assert_eq!(shown(|out| write_date(&date(0, 0, 0), ZeroDate::Error, out)), ZERO);
        assert_eq!(shown(|out| write_date(&date(1, 1, 1), ZeroDate::Error, out)), "\"0001-01-01\"");
        assert_eq!(shown(|out| write_date(&[0; 4], TEXT, out)), WIDTH);
    }

    #[test]
    fn datetimes_have_the_declared_digits() {
        let packed = datetime(2015, 1, 15, (23, 24, 25));
        for (digits, fraction, json) in [
            (0, [].as_slice(), "\"2015-01-15T23:24:25\""),
            (1, &[10], "\"2015-01-15T23:24:25.1\""),
            (2, &[12], "\"2015-01-15T23:24:25.12\""),
            (3, &[0x04, 0xce], "\"2015-01-15T23:24:25.123\""),
            (4, &[0x04, 0xd2], "\"2015-01-15T23:24:25.1234\""),
            (5, &[0x01, 0xe2, 0x3a], "\"2015-01-15T23:24:25.12345\""),
            (6, &[0x0f, 0x42, 0x3f], "\"2015-01-15T23:24:25.999999\""),
            (6, &[0x0f, 0x42, 0x40], FIELD),
            (6, &[0], WIDTH),
        ] {
            assert_eq!(shown(|out| write_datetime(&datetime_bytes(packed, fraction), digits, TEXT, out)), json);
        }
        let zero = datetime_bytes(0, &[0, 0, 0]);
        assert_eq!(shown(|out| write_datetime(&zero, 6, TEXT, out)), "\"0000-00-00T00:00:00.000000\"");
        assert_eq!(shown(|out| write_datetime(&zero, 6, ZeroDate::Null, out)), "null");
        assert_eq!(shown(|out| write_datetime(&[0; 5], 0, TEXT, out)), FIELD);
        let partial = datetime_bytes(datetime(2026, 0, 0, (1, 2, 3)), &[]);
        assert_eq!(shown(|out| write_datetime(&partial, 0, TEXT, out)), "\"2026-00-00T01:02:03\"");
        let old = 99_991_231_235_959_u64.to_le_bytes();
        assert_eq!(shown(|out| write_datetime_old(&old, TEXT, out)), "\"9999-12-31T23:59:59\"");
        assert_eq!(shown(|out| write_datetime_old(&[0; 8], TEXT, out)), "\"0000-00-00T00:00:00\"");
        assert_eq!(shown(|out| write_datetime_old(&[0xff; 8], TEXT, out)), FIELD);
    }

    #[test]
    fn timestamps_are_utc_and_second_zero_is_the_zero_date() {
        for (seconds, json) in [
            (0, "\"0000-00-00T00:00:00Z\""),
            (1, "\"1970-01-01T00:00:01Z\""),
            (951_782_400, "\"2000-02-29T00:00:00Z\""),
            (1_095_379_199, "\"2004-09-16T23:59:59Z\""),
            (2_147_483_647, "\"2038-01-19T03:14:07Z\""),
            (u32::MAX, "\"2106-02-07T06:28:15Z\""),
        ] {
            assert_eq!(shown(|out| write_timestamp(&seconds.to_be_bytes(), 0, TEXT, out)), json);
            assert_eq!(shown(|out| write_timestamp_old(&seconds.to_le_bytes(), TEXT, out)), json);
        }
        let raw = [0x7f, 0xff, 0xff, 0xff, 0x0f, 0x42, 0x3f];
        assert_eq!(shown(|out| write_timestamp(&raw, 6, TEXT, out)), "\"2038-01-19T03:14:07.999999Z\"");
        assert_eq!(shown(|out| write_timestamp(&[0; 6], 3, TEXT, out)), "\"0000-00-00T00:00:00.000Z\"");
        assert_eq!(shown(|out| write_timestamp(&[0; 4], 0, ZeroDate::Error, out)), ZERO);
    }

    #[test]
    fn times_keep_sign_and_fraction() {
        let bytes = |number: i64, bits: u32, len: usize| {
            let number = (0x80_0000_i64 << bits) + number;
            number.to_be_bytes()[8 - len..].to_vec()
        };
        let hms = |h: i64, m: i64, s: i64| h << 12 | m << 6 | s;
        for (raw, digits, json) in [
            (bytes(0, 0, 3), 0, "\"00:00:00\""),
            (bytes(hms(838, 59, 59), 0, 3), 0, "\"838:59:59\""),
            (bytes(-hms(838, 59, 59), 0, 3), 0, "\"-838:59:59\""),
            (bytes(-hms(0, 20, 38), 0, 3), 0, "\"-00:20:38\""),
            (bytes(-(hms(1, 1, 1) << 24 | 1), 24, 6), 6, "\"-01:01:01.000001\""),
            (bytes(-1, 8, 4), 2, "\"-00:00:00.01\""),
            (bytes(-(hms(0, 0, 1) << 8 | 50), 8, 4), 1, "\"-00:00:01.5\""),
            (bytes(-(hms(838, 59, 58) << 16 | 9990), 16, 5), 3, "\"-838:59:58.999\""),
            (bytes(hms(839, 0, 0), 0, 3), 0, FIELD),
        ] {
            assert_eq!(shown(|out| write_time(&raw, digits, out)), json);
        }
        // As MySQL stores -00:00:00.01: the whole part rounded down, the fraction made good.
        assert_eq!(shown(|out| write_time(&[0x7f, 0xff, 0xff, 0xff], 2, out)), "\"-00:00:00.01\"");
        for (number, json) in [(8_385_959_i32, "\"838:59:59\""), (-8_385_959, "\"-838:59:59\""), (123, "\"00:01:23\"")]
        {
            assert_eq!(shown(|out| write_time_old(&number.to_le_bytes()[..3], out)), json);
        }
    }

    #[test]
    fn times_in_json_have_the_servers_form() {
        let packed = (datetime(2015, 1, 15, (23, 24, 25)) << 24 | 120_000).to_le_bytes();
        assert_eq!(shown(|out| write_json_datetime(&packed, out)), "\"2015-01-15 23:24:25.120000\"");
        assert_eq!(shown(|out| write_json_date(&packed, out)), "\"2015-01-15\"");
        let time = (-(838_i64 << 12 | 59 << 6 | 59) << 24).to_le_bytes();
        assert_eq!(shown(|out| write_json_time(&time, out)), "\"-838:59:59.000000\"");
        assert_eq!(shown(|out| write_json_time(&i64::MIN.to_le_bytes(), out)), FIELD);
    }
}
