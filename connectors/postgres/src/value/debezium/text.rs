//! What is text or bytes, and numbers that are more than digits.

use figvine_change::debezium::{Binary, Decimal, binary, number};

/// numeric. Only doubles and strings have words for what is no number.
pub(super) fn write_numeric(
    raw: &[u8],
    scale: Option<usize>,
    mode: Decimal,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let word = match (raw, mode) {
        (b"NaN" | b"Infinity" | b"-Infinity", Decimal::Precise) => b"null".as_slice(),
        (b"NaN", Decimal::String) => b"\"NAN\"",
        (b"Infinity", Decimal::String) => b"\"POSITIVE_INFINITY\"",
        (b"-Infinity", Decimal::String) => b"\"NEGATIVE_INFINITY\"",
        (b"NaN", Decimal::Double) => b"\"NaN\"",
        (b"Infinity", Decimal::Double) => b"\"Infinity\"",
        (b"-Infinity", Decimal::Double) => b"\"-Infinity\"",
        _ => return number::write_decimal(raw, scale, mode, out),
    };
    out.extend_from_slice(word);
    Ok(())
}

/// bytea, out of `\x0aff`.
pub(super) fn write_bytea(raw: &[u8], mode: Binary, out: &mut Vec<u8>) -> Result<(), &'static str> {
    const WRONG: &str = "not in hex format";
    if matches!(mode, Binary::Bytes | Binary::Base64) {
        return super::super::text::write_bytea(raw, out);
    }
    let hex = raw.strip_prefix(b"\\x").ok_or(WRONG)?;
    let (pairs, rest) = hex.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes: Option<Vec<u8>> =
        pairs.iter().map(|&[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok()).collect();
    match bytes {
        Some(bytes) if rest.is_empty() => binary::write(&bytes, mode, out),
        _ => return Err(WRONG),
    }
    Ok(())
}

/// bit and varbit, out of their digits.
pub(super) fn write_bits(raw: &[u8], is_one: bool, out: &mut Vec<u8>) -> Result<(), &'static str> {
    if !raw.iter().all(|byte| matches!(byte, b'0' | b'1')) {
        return Err("neither 0 nor 1");
    }
    if is_one {
        out.extend_from_slice(if raw == b"1" { b"true" } else { b"false" });
        return Ok(());
    }
    let bytes: Vec<u8> =
        raw.rchunks(8).rev().map(|digits| digits.iter().fold(0, |byte, digit| byte << 1 | (digit - b'0'))).collect();
    binary::write_bits(&bytes, out);
    Ok(())
}

/// point, `(1,-2.5)`: its coordinates, and the same as WKB, lowest bytes first.
pub(super) fn write_point(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    const WRONG: &str = "not a point";
    let inside = raw.strip_prefix(b"(").and_then(|rest| rest.strip_suffix(b")")).ok_or(WRONG)?;
    let mut parts = inside.splitn(2, |byte| *byte == b',');
    let mut coordinate = || super::parsed::<f64>(parts.next().unwrap_or_default());
    let (x, y) = (coordinate()?, coordinate()?);
    let mut wkb = Vec::from([1, 1, 0, 0, 0]);
    wkb.extend_from_slice(&x.to_le_bytes());
    wkb.extend_from_slice(&y.to_le_bytes());
    out.extend_from_slice(b"{\"x\":");
    number::write_double(x, out);
    out.extend_from_slice(b",\"y\":");
    number::write_double(y, out);
    out.extend_from_slice(b",\"wkb\":");
    binary::write_bytes(&wkb, out);
    out.extend_from_slice(b",\"srid\":null}");
    Ok(())
}

/// The other geometric types: numbers between parentheses, brackets, braces and commas.
pub(super) fn write_geometric(raw: &[u8], mode: Binary, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut text = Vec::with_capacity(raw.len() * 2);
    let mut rest = raw;
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
    while let Some((first, tail)) = rest.split_first() {
        if !is_digit(first) {
            text.push(*first);
            rest = tail;
            continue;
        }
        let end = rest.iter().position(|byte| !is_digit(byte)).unwrap_or(rest.len());
        let (digits, tail) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        let number: f64 = super::parsed(digits)?;
        let start = text.len();
        number::write_double(number, &mut text);
        // In text, what is no number has no quotes.
        if !number.is_finite() {
            text.pop();
            text.remove(start);
        }
        rest = tail;
    }
    binary::write(&text, mode, out);
    Ok(())
}
