//! Integers and floating point numbers.

use std::io::Write as _;

use figvine_change::json::{write_int, write_uint};

use super::Outcome;

const WIDTH: &str = "is not as long as the type";

fn fixed<const N: usize>(raw: &[u8]) -> Result<[u8; N], &'static str> {
    raw.try_into().map_err(|_| WIDTH)
}

/// An integer of 1, 2, 3, 4 or 8 bytes, little-endian, with a sign.
pub(super) fn write_signed<const N: usize>(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    let [a, b, c, d, e, f, g, h] = widened::<N>(raw)?;
    let number = i64::from_le_bytes([a, b, c, d, e, f, g, h]);
    // The bytes that are there stand at the top for a moment, so that the sign is carried down.
    let unused = 64 - 8 * u32::try_from(N).unwrap_or(8);
    write_int(number << unused >> unused, out);
    Ok(())
}

/// The same without a sign.
pub(super) fn write_unsigned<const N: usize>(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    write_uint(u64::from_le_bytes(widened::<N>(raw)?), out);
    Ok(())
}

fn widened<const N: usize>(raw: &[u8]) -> Result<[u8; 8], &'static str> {
    let bytes: [u8; N] = fixed(raw)?;
    let mut wide = [0; 8];
    for (to, from) in wide.iter_mut().zip(bytes) {
        *to = from;
    }
    Ok(wide)
}

/// Another writer's output as a string.
pub(super) fn quoted(raw: &[u8], out: &mut Vec<u8>, write: super::Write) -> Outcome {
    out.push(b'"');
    write(raw, out)?;
    out.push(b'"');
    Ok(())
}

/// BIGINT for consumers whose numbers are doubles.
pub(super) fn write_bigint_string(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    quoted(raw, out, write_signed::<8>)
}

/// BIGINT UNSIGNED for consumers whose numbers are doubles.
pub(super) fn write_bigint_unsigned_string(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    quoted(raw, out, write_unsigned::<8>)
}

/// TINYINT(1) as a boolean: MySQL's own reading of BOOL.
pub(super) fn write_boolean(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    let [byte] = fixed(raw)?;
    out.extend_from_slice(if byte == 0 { b"false" } else { b"true" });
    Ok(())
}

/// YEAR: a byte, years since 1900; 0 is the year 0000.
pub(super) fn write_year(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    let [byte] = fixed(raw)?;
    write_uint(if byte == 0 { 0 } else { 1900 + u64::from(byte) }, out);
    Ok(())
}

/// FLOAT.
pub(super) fn write_float(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    push_float(f32::from_le_bytes(fixed(raw)?), out);
    Ok(())
}

/// DOUBLE.
pub(super) fn write_double(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    push_double(f64::from_le_bytes(fixed(raw)?), out);
    Ok(())
}

/// VECTOR: floats without anything between them.
pub(super) fn write_vector(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    let (floats, rest) = raw.as_chunks::<4>();
    if !rest.is_empty() {
        return Err("ends within an element");
    }
    out.push(b'[');
    for (index, &float) in floats.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_float(f32::from_le_bytes(float), out);
    }
    out.push(b']');
    Ok(())
}

fn push_float(number: f32, out: &mut Vec<u8>) {
    if number.is_finite() {
        push_shortest(format_args!("{number:e}"), out);
    } else {
        push_double(f64::from(number), out);
    }
}

/// The shortest digits that read back, laid out as MySQL does: an exponent from
/// 1e15 up and below 1e-15. What JSON's numbers cannot say, and no column
/// can hold by a statement, is a string.
pub(super) fn push_double(number: f64, out: &mut Vec<u8>) {
    if number.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if number.is_infinite() {
        out.extend_from_slice(if number > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" });
    } else {
        push_shortest(format_args!("{number:e}"), out);
    }
}

/// Lays out what Rust writes as `-1.2345e-7`.
fn push_shortest(scientific: std::fmt::Arguments<'_>, out: &mut Vec<u8>) {
    let mut buffer = [0_u8; 32];
    let mut left = buffer.as_mut_slice();
    // 17 digits, a point, two signs, an `e` and three digits always fit.
    let _ = left.write_fmt(scientific);
    let used = 32 - left.len();
    let text = buffer.get(..used).unwrap_or_default();
    let mut parts = text.splitn(2, |&b| b == b'e');
    let (mantissa, exponent) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let exponent: i32 = std::str::from_utf8(exponent).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    if !(-15..=14).contains(&exponent) {
        out.extend_from_slice(text);
        return;
    }
    let mantissa = match mantissa.strip_prefix(b"-") {
        Some(mantissa) => {
            out.push(b'-');
            mantissa
        }
        None => mantissa,
    };
    let digits = mantissa.iter().copied().filter(|&b| b != b'.');
    if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend((1..-exponent).map(|_| b'0'));
        out.extend(digits);
        return;
    }
    let mut missing = exponent + 1;
    for digit in digits {
        if missing == 0 {
            out.push(b'.');
        }
        out.push(digit);
        missing -= 1;
    }
    out.extend((0..missing).map(|_| b'0'));
}

#[cfg(test)]
mod tests {
    use super::super::properties::{refused, written};
    use super::*;

    #[test]
    fn integers_keep_their_sign_at_every_width() {
        assert_eq!(written(write_signed::<1>, &[0x80]), "-128");
        assert_eq!(written(write_unsigned::<1>, &[0xff]), "255");
        assert_eq!(written(write_signed::<2>, &[0, 0x80]), "-32768");
        assert_eq!(written(write_unsigned::<2>, &[0xff, 0xff]), "65535");
        assert_eq!(written(write_signed::<3>, &[0xff, 0xff, 0xff]), "-1");
        assert_eq!(written(write_signed::<3>, &[0, 0, 0x80]), "-8388608");
        assert_eq!(written(write_signed::<3>, &[0xff, 0xff, 0x7f]), "8388607");
        assert_eq!(written(write_unsigned::<3>, &[0xff, 0xff, 0xff]), "16777215");
        assert_eq!(written(write_signed::<4>, &i32::MIN.to_le_bytes()), "-2147483648");
        assert_eq!(written(write_unsigned::<4>, &u32::MAX.to_le_bytes()), "4294967295");
        assert_eq!(written(write_signed::<8>, &i64::MIN.to_le_bytes()), "-9223372036854775808");
        assert_eq!(written(write_unsigned::<8>, &u64::MAX.to_le_bytes()), "18446744073709551615");
        assert_eq!(written(write_bigint_string, &i64::MIN.to_le_bytes()), "\"-9223372036854775808\"");
        assert_eq!(written(write_bigint_unsigned_string, &u64::MAX.to_le_bytes()), "\"18446744073709551615\"");
        assert_eq!(refused(write_signed::<3>, &[0, 0]), WIDTH);
        assert_eq!(refused(write_unsigned::<8>, &[0; 9]), WIDTH);
    }

    #[test]
    fn years_begin_in_1901_and_zero_stays_zero() {
        for (raw, json) in [(0, "0"), (1, "1901"), (78, "1978"), (118, "2018"), (255, "2155")] {
            assert_eq!(written(write_year, &[raw]), json);
        }
        assert_eq!(written(write_boolean, &[0]), "false");
        assert_eq!(written(write_boolean, &[0xff]), "true");
    }

    #[test]
    fn floats_are_the_shortest_that_read_back() {
        for (number, json) in [
            (0.1_f32, "0.1"),
            (3.4028235e38, "3.4028235e38"),
            (1.175_494_4e-38, "1.1754944e-38"),
            (1e-45, "1e-45"),
            (-0.0, "-0"),
            (16_777_216.0, "16777216"),
            (f32::INFINITY, "\"Infinity\""),
        ] {
            assert_eq!(written(write_float, &number.to_le_bytes()), json);
        }
        for (number, json) in [
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (100.0, "100"),
            (1e14, "100000000000000"),
            (123_456_789_012_345.6, "123456789012345.6"),
            (1e15, "1e15"),
            (1.25e15, "1.25e15"),
            (1e-15, "0.000000000000001"),
            (1e-16, "1e-16"),
            (1.7976931348623157e308, "1.7976931348623157e308"),
            (-2.2250738585072014e-308, "-2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (f64::NAN, "\"NaN\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            assert_eq!(written(write_double, &number.to_le_bytes()), json);
        }
    }

    #[test]
    fn vectors_are_arrays_of_numbers() {
        let raw: Vec<u8> = [1.0_f32, -2.5, 0.1, 1e-20].iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(written(write_vector, &raw), "[1,-2.5,0.1,1e-20]");
        assert_eq!(written(write_vector, b""), "[]");
        assert_eq!(refused(write_vector, &[0; 5]), "ends within an element");
    }
}
