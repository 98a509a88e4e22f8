//! Writing JSON straight into a buffer: what codecs and envelopes share.

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends `text` as a JSON string. Bytes that are no UTF-8 are replaced by U+FFFD.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(text) {
        Ok(text) => write_str(text, out),
        Err(_) => write_str(&String::from_utf8_lossy(text), out),
    }
}

/// Appends `text` as a JSON string.
pub fn write_str(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped(text, out);
    out.push(b'"');
}

/// Appends `text` as the inside of a JSON string, without the quotes.
pub fn write_escaped(text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\') {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, tail)) = tail.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                for nibble in [byte >> 4, byte & 0xf] {
                    out.push(HEX.get(nibble as usize).copied().unwrap_or(b'0'));
                }
            }
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
}

/// Appends a whole number.
pub fn write_int(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends a whole number.
pub fn write_uint(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_reads_back(text in any::<String>()) {
            let mut out = Vec::new();
            write_str(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("valid JSON"), text);
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut out = Vec::new();
        write_str("a\u{0}\u{1f}\"\\\n\r\tz", &mut out);
        assert_eq!(out, br#""a\u0000\u001f\"\\\n\r\tz""#);
    }
}
