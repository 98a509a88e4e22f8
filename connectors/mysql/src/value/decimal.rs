//! DECIMAL: exact digits out of MySQL's packed form.
//!
//! The integer part and the fraction stand in groups of nine decimal digits,
//! four bytes each, big-endian; what is left over (the first digits of the integer part,
//! the last of the fraction) takes as few bytes as it needs. The top bit is the sign,
//! inverted; of a negative number every bit is inverted. (MySQL, `decimal2bin`.)

use super::Outcome;

/// Bytes of 0 to 9 digits.
const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// Digits that the servers keep of a number: nine groups of nine (`DECIMAL_BUFF_LENGTH`). A DECIMAL has 65 at most; inside of
/// JSON zeros that fill up its first group count too.
const MAX_DIGITS: usize = 81;

const WRONG: &str = "is not a packed decimal of this precision";

/// A DECIMAL's declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// All digits.
    pub(super) precision: usize,
    /// Those behind the point.
    pub(super) scale: usize,
}

impl Shape {
    /// Bytes of a packed value.
    fn packed_len(self) -> Option<usize> {
        let whole = self.precision.checked_sub(self.scale).filter(|_| self.precision <= MAX_DIGITS)?;
        let bytes = |digits: usize| Some(digits / 9 * 4 + BYTES.get(digits % 9)?);
        Some(bytes(whole)? + bytes(self.scale)?)
    }
}

/// Appends the digits, the scale's number of them behind the point, without zeros in front.
pub(super) fn push_decimal(raw: &[u8], shape: Shape, out: &mut Vec<u8>) -> Outcome {
    if shape.packed_len() != Some(raw.len()) {
        return Err(WRONG);
    }
    let negative = raw.first().is_some_and(|&byte| byte & 0x80 == 0);
    let mut digits = [b'0'; MAX_DIGITS];
    let mut filled = 0;
    let mut rest = raw;
    let mut first = true;
    let whole = shape.precision - shape.scale;
    let some = |digits: usize| (digits > 0).then_some(digits);
    let groups = some(whole % 9)
        .into_iter()
        .chain(std::iter::repeat_n(9, whole / 9))
        .chain(std::iter::repeat_n(9, shape.scale / 9))
        .chain(some(shape.scale % 9));
    for group in groups {
        let len = BYTES.get(group).copied().ok_or(WRONG)?;
        let (bytes, tail) = rest.split_at_checked(len).ok_or(WRONG)?;
        rest = tail;
        let mut number = 0_u32;
        for &byte in bytes {
            let mut byte = byte;
            if first {
                byte ^= 0x80;
                first = false;
            }
            number = number << 8 | u32::from(if negative { !byte } else { byte });
        }
        for digit in digits.get_mut(filled..filled + group).ok_or(WRONG)?.iter_mut().rev() {
            *digit = b'0' + u8::try_from(number % 10).map_err(|_| WRONG)?;
            number /= 10;
        }
        if number > 0 {
            return Err(WRONG);
        }
        filled += group;
    }
    let digits = digits.get(..filled).ok_or(WRONG)?;
    let (whole, fraction) = digits.split_at_checked(whole).ok_or(WRONG)?;
    if negative && digits.iter().any(|&digit| digit != b'0') {
        out.push(b'-');
    }
    let zeros = whole.iter().take_while(|&&digit| digit == b'0').count();
    match whole.get(zeros..) {
        None | Some([]) => out.push(b'0'),
        Some(whole) => out.extend_from_slice(whole),
    }
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(raw: &[u8], precision: usize, scale: usize) -> Result<String, &'static str> {
        let mut out = Vec::new();
        push_decimal(raw, Shape { precision, scale }, &mut out)?;
        Ok(String::from_utf8(out).expect("ASCII"))
    }

    #[test]
    fn digits_are_exact_at_every_precision() {
        let hundred_million = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        assert_eq!(decimal(&hundred_million, 14, 4).expect("a decimal"), "1234567890.1234");
        let negative = hundred_million.map(|byte| !byte);
        assert_eq!(decimal(&negative, 14, 4).expect("a decimal"), "-1234567890.1234");
        assert_eq!(decimal(&[0x80, 0x00], 3, 2).expect("a decimal"), "0.00");
        assert_eq!(decimal(&[0x7f, 0xff], 3, 2).expect("a decimal"), "0.00");
        assert_eq!(decimal(&[0x7f, 0xfe], 3, 2).expect("a decimal"), "-0.01");
        assert_eq!(decimal(&[0x80, 0x00, 0xeb], 7, 0).err(), Some(WRONG));
        assert_eq!(decimal(&[0x80, 0x00, 0x00, 0xeb], 7, 0).expect("a decimal"), "235");
        assert_eq!(decimal(&[0x8a], 2, 2).expect("a decimal"), "0.10");
    }

    #[test]
    fn the_longest_decimals_have_all_their_digits() {
        let mut raw = vec![0x80 | 99];
        for _ in 0..7 {
            raw.extend_from_slice(&999_999_999_u32.to_be_bytes());
        }
        assert_eq!(decimal(&raw, 65, 0).expect("a decimal"), "9".repeat(65));
        let inverted: Vec<u8> = raw.iter().map(|byte| !byte).collect();
        assert_eq!(decimal(&inverted, 65, 0).expect("a decimal"), format!("-{}", "9".repeat(65)));

        // 35 digits, 30 behind the point.
        let mut raw = (0x80_0000 | 12_345_u32).to_be_bytes()[1..].to_vec();
        for group in [1_u32, 999_999_999, 0] {
            raw.extend_from_slice(&group.to_be_bytes());
        }
        raw.extend_from_slice(&[0, 7]);
        assert_eq!(decimal(&raw, 35, 30).expect("a decimal"), "12345.000000001999999999000000000007");
    }

    #[test]
    fn decimals_in_json_may_have_zeros_in_front() {
        let mut raw = vec![0x7a, 0x0a, 0x1f, 0x00];
        raw.extend([0xc4, 0x65, 0x36, 0x00].repeat(6));
        raw.extend([0xfc, 0x18]);
        let expected = format!("-{}.{}", "9".repeat(35), "9".repeat(30));
        assert_eq!(decimal(&raw, 66, 30).expect("a decimal"), expected);
    }

    #[test]
    fn bytes_that_are_no_decimal_are_refused() {
        assert_eq!(decimal(&[], 10, 2).err(), Some(WRONG));
        assert_eq!(decimal(&[0x80, 0xff], 3, 2).err(), Some(WRONG));
        assert_eq!(decimal(&[0x80], 2, 3).err(), Some(WRONG));
        assert_eq!(decimal(&[0; 60], 80, 0).err(), Some(WRONG));
        assert_eq!(decimal(&[0; 40], 90, 0).err(), Some(WRONG));
    }
}
