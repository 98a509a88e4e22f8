//! Numbers: Kafka's decimals, and floating point numbers as Java writes them.

use std::io::Write as _;

use super::{Decimal, binary};
use crate::json::write_uint;

const WRONG: &str = "not a decimal number";

/// Appends a decimal number given by its digits, `-1234.56`. `scale` is that of its column: how many digits there are behind
/// the point; without one each number has its own.
///
/// # Errors
/// When it is none, or has more digits behind its point than the column.
pub fn write_decimal(text: &[u8], scale: Option<usize>, mode: Decimal, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let is_negative = unsigned.len() < text.len();
    let mut parts = unsigned.splitn(2, |byte| *byte == b'.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if whole.is_empty() || !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return Err(WRONG);
    }
    match mode {
        Decimal::Precise => match scale {
            Some(scale) => write_unscaled(is_negative, whole, fraction, scale, out)?,
            None => {
                let zeros = fraction.iter().rev().take_while(|digit| **digit == b'0').count();
                let fraction = fraction.get(..fraction.len() - zeros).unwrap_or_default();
                out.extend_from_slice(b"{\"scale\":");
                write_uint(fraction.len() as u64, out);
                out.extend_from_slice(b",\"value\":");
                write_unscaled(is_negative, whole, fraction, fraction.len(), out)?;
                out.push(b'}');
            }
        },
        Decimal::String => {
            out.push(b'"');
            out.extend_from_slice(text);
            let missing = scale.unwrap_or_default().saturating_sub(fraction.len());
            if missing > 0 && fraction.is_empty() {
                out.push(b'.');
            }
            out.extend(std::iter::repeat_n(b'0', missing));
            out.push(b'"');
        }
        Decimal::Double => {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(WRONG)?;
            write_double(number, out);
        }
    }
    Ok(())
}

/// Appends the number without its point, in two's complement, the highest byte first, as short as its sign allows.
fn write_unscaled(
    is_negative: bool,
    whole: &[u8],
    fraction: &[u8],
    scale: usize,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let zeros = scale.checked_sub(fraction.len()).ok_or("more digits behind the point than the column has")?;
    let digits = whole.iter().chain(fraction).copied().chain(std::iter::repeat_n(b'0', zeros));
    // 38 digits fit into 127 bits.
    if whole.len() + scale <= 38 {
        let number = digits.fold(0_i128, |number, digit| number * 10 + i128::from(digit - b'0'));
        let number = if is_negative { -number } else { number };
        binary::write_bytes(shortest(&number.to_be_bytes()), out);
        return Ok(());
    }
    // Nine digits at a time, into words of which the lowest stands first.
    let digits: Vec<u8> = digits.collect();
    let mut words: Vec<u32> = Vec::with_capacity(digits.len() / 9 + 1);
    let first = digits.len() % 9;
    let (head, tail) = digits.split_at_checked(first).unwrap_or((&digits, &[]));
    for group in std::iter::once(head).chain(tail.chunks(9)) {
        let mut carry = group.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        let factor = 10_u64.pow(u32::try_from(group.len()).unwrap_or_default());
        for word in &mut words {
            carry += u64::from(*word) * factor;
            *word = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            words.push(carry as u32);
        }
    }
    words.push(0);
    if is_negative {
        let mut carry = true;
        for word in &mut words {
            (*word, carry) = (!*word).overflowing_add(u32::from(carry));
        }
    }
    let bytes: Vec<u8> = words.iter().rev().flat_map(|word| word.to_be_bytes()).collect();
    binary::write_bytes(shortest(&bytes), out);
    Ok(())
}

/// Without bytes that only repeat the sign.
fn shortest(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [first, tail @ ..] = rest
        && let [second, ..] = tail
        && matches!((first, second), (0, 0..=0x7f) | (0xff, 0x80..=0xff))
    {
        rest = tail;
    }
    rest
}

/// Appends an unsigned whole number as a decimal of the scale 0.
pub fn write_unsigned(number: u64, out: &mut Vec<u8>) {
    binary::write_bytes(shortest(&i128::from(number).to_be_bytes()), out);
}

/// Appends a double as Java's `Double.toString` lays it out; what JSON has no number for is a string.
pub fn write_double(number: f64, out: &mut Vec<u8>) {
    if number.is_finite() {
        lay_out(format_args!("{number:e}"), out);
    } else {
        write_special(number, out);
    }
}

/// The same of a single precision number.
pub fn write_float(number: f32, out: &mut Vec<u8>) {
    if number.is_finite() {
        lay_out(format_args!("{number:e}"), out);
    } else {
        write_special(f64::from(number), out);
    }
}

fn write_special(number: f64, out: &mut Vec<u8>) {
    out.extend_from_slice(match number {
        number if number.is_nan() => b"\"NaN\"",
        number if number > 0.0 => b"\"Infinity\"",
        _ => b"\"-Infinity\"",
    });
}

/// Lays out what Rust writes as `-1.2345e-7`: with an exponent below 10^-3 and from 10^7 on, always with a digit behind the point.
fn lay_out(scientific: std::fmt::Arguments<'_>, out: &mut Vec<u8>) {
    let mut buffer = [0_u8; 32];
    let mut left = buffer.as_mut_slice();
    // 17 digits, a point, two signs, an `e` and three digits always fit.
    let _ = left.write_fmt(scientific);
    let used = 32 - left.len();
    let text = buffer.get(..used).unwrap_or_default();
    let mut parts = text.splitn(2, |byte| *byte == b'e');
    let (mantissa, exponent) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let power: i32 = std::str::from_utf8(exponent).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    if !(-3..7).contains(&power) {
        out.extend_from_slice(mantissa);
        if !mantissa.contains(&b'.') {
            out.extend_from_slice(b".0");
        }
        out.push(b'E');
        out.extend_from_slice(exponent);
        return;
    }
    let unsigned = mantissa.strip_prefix(b"-").unwrap_or(mantissa);
    if unsigned.len() < mantissa.len() {
        out.push(b'-');
    }
    let digits = unsigned.iter().copied().filter(|byte| *byte != b'.');
    if power < 0 {
        out.extend_from_slice(b"0.");
        out.extend((1..-power).map(|_| b'0'));
        out.extend(digits);
        return;
    }
    let mut missing = power + 1;
    for digit in digits {
        if missing == 0 {
            out.push(b'.');
        }
        out.push(digit);
        missing -= 1;
    }
    out.extend((0..missing).map(|_| b'0'));
    if missing >= 0 {
        out.extend_from_slice(b".0");
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str, scale: Option<usize>, mode: Decimal) -> Result<String, &'static str> {
        let mut out = Vec::new();
        write_decimal(text.as_bytes(), scale, mode, &mut out)?;
        Ok(String::from_utf8(out).expect("ASCII"))
    }

    #[test]
    fn decimals_are_as_the_mode_says() {
        for (text, scale, precise, string, double) in [
            ("1.10", Some(2), "\"bg==\"", "\"1.10\"", "1.1"),
            ("1.10", None, "{\"scale\":1,\"value\":\"Cw==\"}", "\"1.10\"", "1.1"),
            ("-999.99", Some(2), "\"/nlh\"", "\"-999.99\"", "-999.99"),
            ("128", Some(0), "\"AIA=\"", "\"128\"", "128.0"),
            ("-128", Some(0), "\"gA==\"", "\"-128\"", "-128.0"),
            ("0", Some(3), "\"AA==\"", "\"0.000\"", "0.0"),
            ("-0.5", Some(3), "\"/gw=\"", "\"-0.500\"", "-0.5"),
            ("100", None, "{\"scale\":0,\"value\":\"ZA==\"}", "\"100\"", "100.0"),
        ] {
            assert_eq!(decimal(text, scale, Decimal::Precise).as_deref(), Ok(precise), "{text}");
            assert_eq!(decimal(text, scale, Decimal::String).as_deref(), Ok(string), "{text}");
            assert_eq!(decimal(text, scale, Decimal::Double).as_deref(), Ok(double), "{text}");
        }
        for text in ["", "-", ".", "1,5", "1e5", "NaN", "--1", "1.2.3"] {
            assert!(decimal(text, None, Decimal::Precise).is_err(), "{text}");
        }
        assert!(decimal("1.25", Some(1), Decimal::Precise).is_err());
    }

    #[test]
    fn doubles_are_laid_out_as_java_does() {
        for (number, shown) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (100.0, "100.0"),
            (1.5, "1.5"),
            (0.001, "0.001"),
            (0.0001, "1.0E-4"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (12_345_678.9, "1.23456789E7"),
            (-1.7976931348623157e308, "-1.7976931348623157E308"),
            (f64::NAN, "\"NaN\""),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            let mut out = Vec::new();
            write_double(number, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), shown);
        }
        let mut out = Vec::new();
        write_float(0.1, &mut out);
        assert_eq!(out, b"0.1");
    }

    proptest! {
        #[test]
        fn long_numbers_agree_with_short_ones(number in any::<i128>(), zeros in 0_usize..60) {
            // Zeros in front take the way of long numbers.
            let sign = if number < 0 { "-" } else { "" };
            let text = format!("{sign}{}{}", "0".repeat(zeros), number.unsigned_abs());
            let shown = decimal(&text, Some(0), Decimal::Precise).expect("a number");
            let bytes = number.to_be_bytes();
            prop_assert_eq!(STANDARD.decode(shown.trim_matches('"')).expect("base64"), shortest(&bytes));
        }

        #[test]
        fn any_double_reads_back(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            let mut out = Vec::new();
            write_double(number, &mut out);
            let text = std::str::from_utf8(&out).expect("ASCII");
            prop_assert_eq!(text.parse::<f64>().expect("a number").to_bits(), number.to_bits());
            prop_assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
        }

        #[test]
        fn no_text_panics(text in ".*", scale in proptest::option::of(0_usize..50)) {
            for mode in [Decimal::Precise, Decimal::String, Decimal::Double] {
                let _ = decimal(&text, scale, mode);
            }
        }
    }
}
