//! Bytes.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, URL_SAFE};

use super::Binary;

/// Bytes that are encoded at a time; a multiple of 3, so that only the last part is padded.
const CHUNK: usize = 768;

/// Appends bytes as a JSON string in the form that the mode says.
pub fn write(raw: &[u8], mode: Binary, out: &mut Vec<u8>) {
    out.push(b'"');
    match mode {
        Binary::Bytes | Binary::Base64 => push_base64(&STANDARD, raw, out),
        Binary::Base64UrlSafe => push_base64(&URL_SAFE, raw, out),
        Binary::Hex => push_hex(raw, out),
    }
    out.push(b'"');
}

/// Appends bytes as a JSON string in base64, as what is bytes whatever the mode says.
pub fn write_bytes(raw: &[u8], out: &mut Vec<u8>) {
    write(raw, Binary::Bytes, out);
}

fn push_base64(alphabet: &GeneralPurpose, raw: &[u8], out: &mut Vec<u8>) {
    let mut text = [0; CHUNK / 3 * 4];
    out.reserve(raw.len().div_ceil(3) * 4);
    for part in raw.chunks(CHUNK) {
        // A chunk's text always fits.
        let len = alphabet.encode_slice(part, &mut text).unwrap_or_default();
        out.extend_from_slice(text.get(..len).unwrap_or_default());
    }
}

fn push_hex(raw: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.reserve(raw.len() * 2);
    for byte in raw {
        for nibble in [byte >> 4, byte & 0xf] {
            out.push(HEX.get(usize::from(nibble)).copied().unwrap_or(b'0'));
        }
    }
}

/// Appends a number of bits as a JSON string: its bytes, the lowest first, without zero bytes behind the last that is
/// none, as Java's `BitSet` gives them. `raw` has the highest byte first.
pub fn write_bits(raw: &[u8], out: &mut Vec<u8>) {
    let zeros = raw.iter().take_while(|byte| **byte == 0).count();
    let lowest_first: Vec<u8> = raw.iter().skip(zeros).rev().copied().collect();
    write_bytes(&lowest_first, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn bytes_are_shown_as_the_mode_says() {
        for (mode, shown) in [
            (Binary::Bytes, "\"+++//w==\""),
            (Binary::Base64, "\"+++//w==\""),
            (Binary::Base64UrlSafe, "\"---__w==\""),
            (Binary::Hex, "\"fbefbfff\""),
        ] {
            assert_eq!(written(|out| write(&[0xfb, 0xef, 0xbf, 0xff], mode, out)), shown);
            assert_eq!(written(|out| write(&[], mode, out)), "\"\"");
        }
        let long = vec![7; CHUNK + 1];
        assert_eq!(written(|out| write_bytes(&long, out)), format!("\"{}\"", STANDARD.encode(&long)));
    }

    #[test]
    fn bits_are_shown_lowest_byte_first_and_without_zeros_behind() {
        assert_eq!(written(|out| write_bits(&[0x80, 0, 1], out)), "\"AQCA\"");
        assert_eq!(written(|out| write_bits(&[0, 0, 0x40], out)), "\"QA==\"");
        assert_eq!(written(|out| write_bits(&[0, 0], out)), "\"\"");
    }
}
