//! What is shown as text, and the two others whose text is no number: bool and bytea.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use figvine_change::json::write_str;

/// Any text, escaped.
pub(super) fn write_text(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    write_str(std::str::from_utf8(raw).map_err(|_| "is not UTF-8")?, out);
    Ok(())
}

/// `t` and `f`.
pub(super) fn write_bool(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    out.extend_from_slice(match raw {
        b"t" => b"true",
        b"f" => b"false",
        _ => return Err("neither t nor f"),
    });
    Ok(())
}

/// `"char"`: one byte of any value. Newer servers send a byte above
/// 127 as `\303`; older ones send it as it is, which is no UTF-8, and it is
/// written as the newer ones would.
pub(super) fn write_char(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let &[byte @ 0x80..=0xff] = raw else { return write_text(raw, out) };
    out.extend_from_slice(b"\"\\\\");
    for shift in [6, 3, 0] {
        out.push(b'0' + (byte >> shift & 7));
    }
    out.push(b'"');
    Ok(())
}

/// Bytes that are decoded from hex at a time; a multiple of 3, so that only the last part is padded.
const CHUNK: usize = 384;

/// `\x0aff` as base64, padded.
pub(super) fn write_bytea(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    const WRONG: &str = "not in hex format";
    let hex = raw.strip_prefix(b"\\x").ok_or(WRONG)?;
    if hex.len() % 2 != 0 {
        return Err(WRONG);
    }
    out.reserve(hex.len() / 6 * 4 + 6);
    out.push(b'"');
    let mut bytes = [0; CHUNK];
    let mut base64 = [0; CHUNK / 3 * 4];
    for part in hex.chunks(CHUNK * 2) {
        let mut wrong = 0;
        let (pairs, _) = part.as_chunks::<2>();
        for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
            let (high, low) = (hex_digit(high), hex_digit(low));
            wrong |= high | low;
            *byte = high << 4 | low & 0xf;
        }
        if wrong > 0xf {
            return Err(WRONG);
        }
        let bytes = bytes.get(..pairs.len()).ok_or(WRONG)?;
        let len = STANDARD.encode_slice(bytes, &mut base64).map_err(|_| WRONG)?;
        out.extend_from_slice(base64.get(..len).ok_or(WRONG)?);
    }
    out.push(b'"');
    Ok(())
}

/// The digit's value; 0xff for what is none.
fn hex_digit(digit: u8) -> u8 {
    const VALUES: [u8; 256] = {
        let mut values = [0xff; 256];
        let mut digit = 0;
        #[expect(clippy::indexing_slicing, reason = "a wrong index here does not compile")]
        while digit < 16 {
            values[b"0123456789abcdef"[digit] as usize] = digit as u8;
            values[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
            digit += 1;
        }
        values
    };
    VALUES.get(digit as usize).copied().unwrap_or(0xff)
}

#[cfg(test)]
mod tests {
    use super::super::properties::{refused, written};
    use super::*;

    #[test]
    fn bools_are_true_and_false() {
        assert_eq!(written(write_bool, b"t"), "true");
        assert_eq!(written(write_bool, b"f"), "false");
        for raw in [b"".as_slice(), b"true", b"T", b"1", b"t "] {
            refused(write_bool, raw);
        }
    }

    #[test]
    fn text_is_escaped_and_kept() {
        for (raw, json) in [
            ("", r#""""#),
            ("abc ", r#""abc ""#),
            ("a\"b\\c\nd\u{1}", r#""a\"b\\c\nd\u0001""#),
            ("grüß 🐘", r#""grüß 🐘""#),
            ("NULL", r#""NULL""#),
            ("192.168.2.0/12", r#""192.168.2.0/12""#),
            ("[\"2019-03-31 15:30:00\",infinity)", r#""[\"2019-03-31 15:30:00\",infinity)""#),
            ("'fat':2 'rat':3", r#""'fat':2 'rat':3""#),
        ] {
            assert_eq!(written(write_text, raw.as_bytes()), json);
        }
        assert_eq!(refused(write_text, b"a\xffb"), "is not UTF-8");
    }

    #[test]
    fn a_single_byte_character_of_any_value_is_kept() {
        assert_eq!(written(write_char, b"x"), r#""x""#);
        assert_eq!(written(write_char, b""), r#""""#);
        assert_eq!(written(write_char, b"\xc3"), r#""\\303""#);
        assert_eq!(written(write_char, b"\\303"), r#""\\303""#);
        refused(write_char, b"\xc3\xc3");
    }

    #[test]
    fn bytes_become_base64() {
        for (raw, json) in [
            ("\\x", "\"\""),
            ("\\x00", "\"AA==\""),
            ("\\x0aFf", "\"Cv8=\""),
            ("\\x000102", "\"AAEC\""),
            ("\\xdeadbeef", "\"3q2+7w==\""),
        ] {
            assert_eq!(written(write_bytea, raw.as_bytes()), json);
        }
        for raw in ["", "x00", "\\x0", "\\x0g", "\\x 0", "\\000", "abc"] {
            refused(write_bytea, raw.as_bytes());
        }
    }

    #[test]
    fn bytes_of_any_length_read_back() {
        for len in [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let json = written(write_bytea, format!("\\x{hex}").as_bytes());
            assert_eq!(STANDARD.decode(json.trim_matches('"')).expect("base64"), bytes);
        }
    }
}
