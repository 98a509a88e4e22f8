//! Values of an answer as the bytes that a row image of the log has: the codecs are the same then.

use crate::value::JSON_TEXT;

/// How a column's values become those of a row image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// They are the same.
    Same,
    /// An integer of so many bytes; the answer's may be wider.
    Integer(usize),
    /// Years since 1900.
    Year,
    /// Digits, to be packed.
    Decimal {
        precision: usize,
        scale: usize,
    },
    Date,
    /// Digits of a second.
    Time(u8),
    DateTime(u8),
    Timestamp(u8),
    /// MySQL's JSON as text.
    Json,
}

/// Not a value of the column's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misfit;

impl Form {
    /// Appends a value.
    pub(super) fn write(self, value: &[u8], out: &mut Vec<u8>) -> Result<(), Misfit> {
        match self {
            Self::Same => out.extend_from_slice(value),
            Self::Integer(width) => {
                out.extend_from_slice(value.get(..width).ok_or(Misfit)?);
            }
            Self::Year => {
                let [low, high] = *value.first_chunk::<2>().ok_or(Misfit)?;
                let year = u16::from_le_bytes([low, high]);
                let since = if year == 0 { Some(0) } else { year.checked_sub(1900) };
                out.push(since.and_then(|since| u8::try_from(since).ok()).ok_or(Misfit)?);
            }
            Self::Decimal { precision, scale } => pack_decimal(value, precision, scale, out).ok_or(Misfit)?,
            Self::Date => {
                let (moment, _) = Moment::read(value).ok_or(Misfit)?;
                let packed = moment.day | moment.month << 5 | moment.year << 9;
                out.extend_from_slice(packed.to_le_bytes().first_chunk::<3>().ok_or(Misfit)?);
            }
            Self::DateTime(digits) => {
                let (moment, micros) = Moment::read(value).ok_or(Misfit)?;
                let whole = (moment.year * 13 + moment.month) << 22 | moment.day << 17 | moment.hms();
                push_big((1 << 39) + i128::from(whole), micros, 5, digits, out);
            }
            Self::Timestamp(digits) => {
                let (moment, micros) = Moment::read(value).ok_or(Misfit)?;
                let seconds = if moment.month == 0 { 0 } else { moment.seconds().ok_or(Misfit)? };
                push_big(i128::from(seconds), micros, 4, digits, out);
            }
            Self::Time(digits) => push_time(value, digits, out).ok_or(Misfit)?,
            Self::Json => {
                out.push(JSON_TEXT);
                out.extend_from_slice(value);
            }
        }
        Ok(())
    }
}

/// Date and time without the fraction.
#[derive(Debug, Default)]
struct Moment {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Moment {
    /// What stands behind the length, and microseconds: nothing but zeros, a date, date and time, or those with microseconds.
    fn read(value: &[u8]) -> Option<(Self, u32)> {
        let byte = |at: usize| value.get(at).copied().map_or(0, u64::from);
        let moment = Self {
            year: byte(0) | byte(1) << 8,
            month: byte(2),
            day: byte(3),
            hour: byte(4),
            minute: byte(5),
            second: byte(6),
        };
        let micros = value.get(7..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
        matches!(value.len(), 0 | 4 | 7 | 11).then_some((moment, u32::from_le_bytes(micros)))
    }

    fn hms(&self) -> u64 {
        self.hour << 12 | self.minute << 6 | self.second
    }

    /// Seconds since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms"); TIMESTAMP has no earlier years.
    fn seconds(&self) -> Option<u64> {
        let year = self.year.checked_sub(u64::from(self.month <= 2))?;
        let (era, year_of_era) = (year / 400, year % 400);
        let month = if self.month > 2 { self.month - 3 } else { self.month + 9 };
        let day_of_year = (153 * month + 2) / 5 + self.day.checked_sub(1)?;
        let days = era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        Some(days.checked_sub(719_468)? * 86_400 + self.hour * 3600 + self.minute * 60 + self.second)
    }
}

/// The last `bytes` bytes of a number, and the fraction that belongs to `digits`, big-endian.
fn push_big(whole: i128, micros: u32, bytes: usize, digits: u8, out: &mut Vec<u8>) {
    let (width, scaled) = fraction(micros, digits);
    push_low(whole << (8 * width) | i128::from(scaled), bytes + width, out);
}

fn push_low(number: i128, bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(
        number.to_be_bytes().last_chunk::<8>().and_then(|low| low.get(8 - bytes..)).unwrap_or_default(),
    );
}

/// A stored fraction: its bytes, and hundredths, ten-thousandths or millionths.
fn fraction(micros: u32, digits: u8) -> (usize, u32) {
    match digits {
        0 => (0, 0),
        1 | 2 => (1, micros / 10_000),
        3 | 4 => (2, micros / 100),
        _ => (3, micros),
    }
}

/// A sign, days (4 bytes), hours, minutes, seconds, and perhaps microseconds; nothing for zero.
fn push_time(value: &[u8], digits: u8, out: &mut Vec<u8>) -> Option<()> {
    let (negative, hms, micros) = match value {
        [] => (false, 0, 0),
        [negative, a, b, c, d, hour, minute, second, rest @ ..] => {
            let hours = u64::from(u32::from_le_bytes([*a, *b, *c, *d])) * 24 + u64::from(*hour);
            let micros = match rest {
                [] => 0,
                [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]),
                _ => return None,
            };
            (*negative != 0, hours << 12 | u64::from(*minute) << 6 | u64::from(*second), micros)
        }
        _ => return None,
    };
    let (width, scaled) = fraction(micros, digits);
    let number = i128::from(hms) << (8 * width) | i128::from(scaled);
    let number = (0x80_0000_i128 << (8 * width)) + if negative { -number } else { number };
    push_low(number, 3 + width, out);
    Some(())
}

/// Digits as MySQL packs them: see the codec of DECIMAL.
fn pack_decimal(text: &[u8], precision: usize, scale: usize, out: &mut Vec<u8>) -> Option<()> {
    const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = match digits.iter().position(|&byte| byte == b'.') {
        Some(point) => (digits.get(..point)?, digits.get(point + 1..)?),
        None => (digits, &[][..]),
    };
    // Without the zeros of ZEROFILL, and of a number below 1.
    let zeros = whole.iter().take_while(|&&byte| byte == b'0').count();
    let whole = whole.get(zeros..)?;
    let room = precision.checked_sub(scale)?;
    if whole.len() > room || fraction.len() > scale {
        return None;
    }
    let start = out.len();
    let mut group = |number: u32, digits: usize| {
        let bytes = BYTES.get(digits).copied().unwrap_or(4);
        out.extend_from_slice(number.to_be_bytes().get(4 - bytes..).unwrap_or_default());
    };
    // All digits in the places that the type has for them.
    let at = |place: usize| -> Option<u32> {
        let byte = if place < room {
            match (place + whole.len()).checked_sub(room) {
                Some(place) => *whole.get(place)?,
                None => b'0',
            }
        } else {
            fraction.get(place - room).copied().unwrap_or(b'0')
        };
        byte.is_ascii_digit().then(|| u32::from(byte - b'0'))
    };
    let mut place = 0;
    let mut some = |digits: usize| -> Option<()> {
        if digits > 0 {
            let mut number = 0;
            for _ in 0..digits {
                number = number * 10 + at(place)?;
                place += 1;
            }
            group(number, digits);
        }
        Some(())
    };
    some(room % 9)?;
    for _ in 0..room / 9 + scale / 9 {
        some(9)?;
    }
    some(scale % 9)?;
    let packed = out.get_mut(start..)?;
    if negative {
        packed.iter_mut().for_each(|byte| *byte = !*byte);
    }
    if let Some(first) = packed.first_mut() {
        *first ^= 0x80;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::table_map::ColumnMap;
    use crate::decode::table_map::column_type as t;
    use crate::value::{Charsets, ValueOptions, codec};

    /// What the codec of a column makes of a value of an answer.
    fn json(form: Form, type_code: u8, metadata: u16, value: &[u8]) -> String {
        let mut image = Vec::new();
        form.write(value, &mut image).expect("a value");
        let column = ColumnMap { type_code, metadata, ..ColumnMap::default() };
        let mut out = Vec::new();
        codec(&column, None, &Charsets::new(), &ValueOptions::default())
            .write_json(&image, &mut out)
            .unwrap_or_else(|e| panic!("{image:02x?}: {e}"));
        String::from_utf8(out).expect("UTF-8")
    }

    proptest! {
        #[test]
        fn decimals_have_the_digits_they_had(
            precision in 1_usize..=65, scale in 0_usize..=30, digits in "[0-9]{65}", negative in any::<bool>()
        ) {
            let scale = scale.min(precision);
            let whole = digits[..precision - scale].trim_start_matches('0');
            let whole = if whole.is_empty() { "0" } else { whole };
            let fraction = &digits[65 - scale..];
            let point = if scale > 0 { "." } else { "" };
            let text = format!("{whole}{point}{fraction}");
            let is_zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
            let text = if negative && !is_zero { format!("-{text}") } else { text };
            let metadata = u16::try_from(scale | precision << 8).expect("small");
            let told = json(Form::Decimal { precision, scale }, t::NEWDECIMAL, metadata, text.as_bytes());
            prop_assert_eq!(told, format!("\"{text}\""));
        }

        #[test]
        fn times_are_what_they_were(
            negative in any::<bool>(), hours in 0_u32..838, minute in 0_u8..60, second in 0_u8..60, micros in 0_u32..1_000_000,
            digits in 0_u8..=6
        ) {
            let step = 10_u32.pow(6 - u32::from(digits));
            let micros = micros / step * step;
            let mut value = vec![u8::from(negative)];
            value.extend((hours / 24).to_le_bytes());
            value.extend([(hours % 24) as u8, minute, second]);
            value.extend(micros.to_le_bytes());
            let told = json(Form::Time(digits), t::TIME2, digits.into(), &value);
            let fraction = if digits > 0 { format!(".{:0w$}", micros / step, w = usize::from(digits)) } else { String::new() };
            let is_zero = hours == 0 && minute == 0 && second == 0 && micros == 0;
            let sign = if negative && !is_zero { "-" } else { "" };
            prop_assert_eq!(told, format!("\"{sign}{hours:02}:{minute:02}:{second:02}{fraction}\""));
        }
    }

    #[test]
    fn dates_are_what_they_were() {
        let value = [0xea, 0x07, 11, 23, 9, 1, 2, 0x40, 0xe2, 0x01, 0];
        assert_eq!(json(Form::Date, t::DATE, 0, &value[..4]), "\"2026-11-23\"");
        assert_eq!(json(Form::Date, t::DATE, 0, &[]), "\"0000-00-00\"");
        assert_eq!(json(Form::DateTime(6), t::DATETIME2, 6, &value), "\"2026-11-23T09:01:02.123456\"");
        assert_eq!(json(Form::DateTime(1), t::DATETIME2, 1, &value), "\"2026-11-23T09:01:02.1\"");
        assert_eq!(json(Form::DateTime(0), t::DATETIME2, 0, &value[..4]), "\"2026-11-23T00:00:00\"");
        assert_eq!(json(Form::Timestamp(3), t::TIMESTAMP2, 3, &value), "\"2026-11-23T09:01:02.123Z\"");
        assert_eq!(json(Form::Timestamp(0), t::TIMESTAMP2, 0, &[]), "\"0000-00-00T00:00:00Z\"");
        assert_eq!(json(Form::Timestamp(0), t::TIMESTAMP2, 0, &[0xb2, 7, 1, 1, 0, 0, 1]), "\"1970-01-01T00:00:01Z\"");
        assert_eq!(json(Form::Year, t::YEAR, 0, &[0x6b, 8]), "2155");
        assert_eq!(json(Form::Year, t::YEAR, 0, &[0, 0]), "0");
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for (form, value) in [
            (Form::Integer(4), &b"\x01"[..]),
            (Form::Decimal { precision: 3, scale: 1 }, b"123.4"),
            (Form::Decimal { precision: 3, scale: 1 }, b"1e5"),
            (Form::Date, b"\x01"),
            (Form::Time(0), b"\x01"),
            (Form::Year, b"\x01\x00"),
            (Form::Timestamp(0), &[0x01, 0, 1, 1]),
        ] {
            assert_eq!(form.write(value, &mut Vec::new()), Err(Misfit), "{form:?}");
        }
    }
}
