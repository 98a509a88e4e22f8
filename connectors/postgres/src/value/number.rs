//! Numbers: PostgreSQL's digits are copied, never read into a binary number.

/// int2.
pub(super) fn write_int2(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    write_signed::<5>(raw, out)
}

/// int4.
pub(super) fn write_int4(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    write_signed::<10>(raw, out)
}

/// int8.
pub(super) fn write_int8(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    write_signed::<19>(raw, out)
}

/// int8 for consumers whose numbers are doubles.
pub(super) fn write_int8_string(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    quoted(raw, out, write_int8)
}

/// oid, xid, cid: 32 bits without a sign.
pub(super) fn write_unsigned(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    write_digits::<10>(raw, raw, out)
}

fn write_signed<const MAX_DIGITS: usize>(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    write_digits::<MAX_DIGITS>(raw.strip_prefix(b"-").unwrap_or(raw), raw, out)
}

fn write_digits<const MAX: usize>(digits: &[u8], raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let leading_zero = digits.len() > 1 && digits.first() == Some(&b'0');
    if digits.is_empty() || digits.len() > MAX || leading_zero || !digits.iter().all(u8::is_ascii_digit) {
        return Err("not a whole number");
    }
    out.extend_from_slice(raw);
    Ok(())
}

/// float4, float8: the shortest digits that read back, as the server gives them.
pub(super) fn write_float(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    if is_special(raw) {
        return quoted(raw, out, copy);
    }
    write_number(raw, out)
}

/// numeric, as a string.
pub(super) fn write_numeric(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    if is_special(raw) {
        return quoted(raw, out, copy);
    }
    quoted(raw, out, write_decimal)
}

/// numeric, as a number, all digits.
pub(super) fn write_numeric_number(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    if is_special(raw) {
        return quoted(raw, out, copy);
    }
    write_decimal(raw, out)
}

/// money, as a string of its digits.
pub(super) fn write_money(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    quoted(raw, out, write_money_number)
}

/// money, as a number. Under `lc_monetary = C` it comes as `-$1,234.56`.
pub(super) fn write_money_number(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    const WRONG: &str = "not an amount under lc_monetary C";
    let rest = match raw.strip_prefix(b"-") {
        Some(rest) => {
            out.push(b'-');
            rest
        }
        None => raw,
    };
    let amount = rest.strip_prefix(b"$").filter(|amount| !amount.starts_with(b"-")).ok_or(WRONG)?;
    let start = out.len();
    out.extend(amount.iter().copied().filter(|&b| b != b','));
    match out.get(start..).map(after_decimal) {
        Some(Some([])) => Ok(()),
        _ => Err(WRONG),
    }
}

/// pgvector's `[1,2.5,3]`.
pub(super) fn write_vector(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let inside = raw.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")).ok_or("not in brackets")?;
    write_numbers(inside, b',', out, write_number)
}

/// int2vector, oidvector: `1 2 3`.
pub(super) fn write_int_vector(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    write_numbers(raw, b' ', out, write_int4)
}

fn write_numbers(raw: &[u8], delimiter: u8, out: &mut Vec<u8>, write: super::Write) -> Result<(), &'static str> {
    out.push(b'[');
    if !raw.is_empty() {
        for (index, number) in raw.split(|&b| b == delimiter).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write(number, out)?;
        }
    }
    out.push(b']');
    Ok(())
}

/// What JSON's numbers cannot say. `-NaN` does not exist.
fn is_special(raw: &[u8]) -> bool {
    matches!(raw, b"NaN" | b"Infinity" | b"-Infinity")
}

fn copy(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    out.extend_from_slice(raw);
    Ok(())
}

fn quoted(raw: &[u8], out: &mut Vec<u8>, write: super::Write) -> Result<(), &'static str> {
    out.push(b'"');
    write(raw, out)?;
    out.push(b'"');
    Ok(())
}

fn write_number(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    match after_number(raw) {
        Some([]) => copy(raw, out),
        _ => Err("not a number"),
    }
}

fn write_decimal(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    match after_decimal(raw) {
        Some([]) => copy(raw, out),
        _ => Err("not a decimal number"),
    }
}

/// What follows the JSON number (RFC 8259, section 6) at the start of `text`; `None` when there is none.
pub(super) fn after_number(text: &[u8]) -> Option<&[u8]> {
    let rest = after_decimal(text)?;
    match rest {
        [b'e' | b'E', b'+' | b'-', exponent @ ..] | [b'e' | b'E', exponent @ ..] => after_digits(exponent),
        _ => Some(rest),
    }
}

/// The same without an exponent.
pub(super) fn after_decimal(text: &[u8]) -> Option<&[u8]> {
    let rest = match text.strip_prefix(b"-").unwrap_or(text) {
        [b'0', rest @ ..] => rest,
        digits => after_digits(digits)?,
    };
    match rest {
        [b'.', fraction @ ..] => after_digits(fraction),
        _ => Some(rest),
    }
}

/// What follows at least one digit.
fn after_digits(text: &[u8]) -> Option<&[u8]> {
    match text.iter().position(|b| !b.is_ascii_digit()) {
        Some(0) => None,
        Some(at) => text.get(at..),
        None if text.is_empty() => None,
        None => Some(&[]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::properties::{refused, written};
    use super::*;

    #[test]
    fn integers_keep_all_digits() {
        for raw in ["0", "-1", "32767", "-32768"] {
            assert_eq!(written(write_int2, raw.as_bytes()), raw);
        }
        for raw in ["2147483647", "-2147483648"] {
            assert_eq!(written(write_int4, raw.as_bytes()), raw);
        }
        for raw in ["9223372036854775807", "-9223372036854775808"] {
            assert_eq!(written(write_int8, raw.as_bytes()), raw);
            assert_eq!(written(write_int8_string, raw.as_bytes()), format!("\"{raw}\""));
        }
        assert_eq!(written(write_unsigned, b"4000000000"), "4000000000");
    }

    #[test]
    fn what_is_no_integer_is_refused() {
        for raw in ["", "-", "+1", "01", "1.0", " 1", "1 ", "1e3", "0x1", "١", "12345678901234567890"] {
            for write in [write_int2, write_int4, write_int8, write_int8_string, write_unsigned] {
                refused(write, raw.as_bytes());
            }
        }
        refused(write_int2, b"100000");
        refused(write_unsigned, b"-1");
    }

    #[test]
    fn floats_keep_the_shortest_digits() {
        for raw in
            ["0", "-0", "0.1", "1e+20", "1e-07", "1.17549435e-38", "3.4028235e+38", "5e-324", "1.7976931348623157e+308"]
        {
            assert_eq!(written(write_float, raw.as_bytes()), raw);
        }
        for raw in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(written(write_float, raw.as_bytes()), format!("\"{raw}\""));
        }
        for raw in ["", "-", ".5", "5.", "1e", "1e+", "1e5.0", "nan", "inf", "-NaN", "0x1p3", "00", "1 "] {
            refused(write_float, raw.as_bytes());
        }
    }

    #[test]
    fn numerics_keep_scale_and_all_digits() {
        let longest = format!("{}.{}", "9".repeat(131_072), "0".repeat(16_383));
        for raw in ["0", "0.00", "1.10", "-10.1111", "10", &longest] {
            assert_eq!(written(write_numeric, raw.as_bytes()), format!("\"{raw}\""));
            assert_eq!(written(write_numeric_number, raw.as_bytes()), raw);
        }
        for raw in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(written(write_numeric, raw.as_bytes()), format!("\"{raw}\""));
            assert_eq!(written(write_numeric_number, raw.as_bytes()), format!("\"{raw}\""));
        }
        for raw in ["", "1e5", "1.", ".1", "1,2", "--1", "1.1.1", "-"] {
            refused(write_numeric, raw.as_bytes());
            refused(write_numeric_number, raw.as_bytes());
        }
    }

    #[test]
    fn money_loses_its_sign_of_currency_and_its_commas() {
        for (raw, json) in [
            ("$0.00", "0.00"),
            ("$1,234.11", "1234.11"),
            ("-$1,234.56", "-1234.56"),
            ("-$92,233,720,368,547,758.08", "-92233720368547758.08"),
        ] {
            assert_eq!(written(write_money_number, raw.as_bytes()), json);
            assert_eq!(written(write_money, raw.as_bytes()), format!("\"{json}\""));
        }
        for raw in ["", "$", "1.00", "$-1.00", "€1.00", "$1.00 ", "$,", "$1e5", "($1.00)"] {
            refused(write_money, raw.as_bytes());
        }
    }

    #[test]
    fn vectors_become_arrays_of_numbers() {
        assert_eq!(written(write_vector, b"[1,2.5,-3e-05]"), "[1,2.5,-3e-05]");
        assert_eq!(written(write_vector, b"[]"), "[]");
        for raw in ["", "[", "]", "1,2", "[1,]", "[,]", "[1;2]", "[NaN]", "[[1]]"] {
            refused(write_vector, raw.as_bytes());
        }
        assert_eq!(written(write_int_vector, b"1 2 3"), "[1,2,3]");
        assert_eq!(written(write_int_vector, b""), "[]");
        for raw in [" ", "1  2", "1,2", "1 ", "a"] {
            refused(write_int_vector, raw.as_bytes());
        }
    }
}
