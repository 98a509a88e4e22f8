//! Numbers and times as text of known width.

/// Appends a number with at least `width` digits.
pub(super) fn write_padded(number: u64, width: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(number).as_bytes();
    for _ in digits.len()..width {
        out.push(b'0');
    }
    out.extend_from_slice(digits);
}

const DAY: i64 = 86_400_000_000;

/// Appends a time in microseconds since 1970 as RFC 3339, UTC, always with six
/// digits of fraction: `2026-11-23T09:00:00.123456Z`. Years outside 0001..9999
/// get a sign, as in ISO 8601.
pub(crate) fn write_timestamp(micros: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil(micros.div_euclid(DAY));
    let rest = micros.rem_euclid(DAY);
    let seconds = rest / 1_000_000;
    if !(1..=9999).contains(&year) {
        out.push(if year < 0 { b'-' } else { b'+' });
    }
    let mut field = |number: i64, width: usize, end: u8| {
        write_padded(number.unsigned_abs(), width, out);
        out.push(end);
    };
    field(year, 4, b'-');
    field(month, 2, b'-');
    field(day, 2, b'T');
    field(seconds / 3600, 2, b':');
    field(seconds / 60 % 60, 2, b':');
    field(seconds % 60, 2, b'.');
    field(rest % 1_000_000, 6, b'Z');
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic
/// Gregorian calendar. Years are counted from March, so that the day that is
/// sometimes there comes last; 400 of them are always 146,097 days.
fn civil(days: i64) -> (i64, i64, i64) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 31 30 31 30 31 days, over and over: 153 days in five.
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timestamp(micros: i64) -> String {
        let mut out = Vec::new();
        write_timestamp(micros, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_utc_with_six_digits() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(-1), "1969-12-31T23:59:59.999999Z");
        assert_eq!(timestamp(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(timestamp(1_795_424_400_123_456), "2026-11-23T09:00:00.123456Z");
        assert_eq!(timestamp(i64::MAX), "+294247-01-10T04:00:54.775807Z");
        assert_eq!(timestamp(i64::MIN), "-290308-12-21T19:59:05.224192Z");
    }

    proptest! {
        #[test]
        fn times_agree_with_another_calendar(micros in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            let other = jiff::Timestamp::from_microsecond(micros);
            if let Ok(other) = other {
                prop_assert_eq!(timestamp(micros), format!("{other:.6}"));
            }
        }

        #[test]
        fn any_time_is_written(micros in any::<i64>()) {
            prop_assert!(timestamp(micros).ends_with('Z'));
        }
    }
}
