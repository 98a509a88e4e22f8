//! What is text, and what is bytes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Outcome;
use super::charset::Charset;

/// VARCHAR, TEXT.
pub(super) fn write_text(raw: &[u8], charset: &Charset, out: &mut Vec<u8>) -> Outcome {
    out.push(b'"');
    charset.push(raw, out)?;
    out.push(b'"');
    Ok(())
}

/// CHAR: the server never shows the blanks it is padded with.
pub(super) fn write_char(raw: &[u8], charset: &Charset, out: &mut Vec<u8>) -> Outcome {
    out.push(b'"');
    let start = out.len();
    charset.push(raw, out)?;
    let text = out.get(start..).unwrap_or_default();
    let blanks = text.iter().rev().take_while(|&&byte| byte == b' ').count();
    out.truncate(out.len() - blanks);
    out.push(b'"');
    Ok(())
}

/// VARBINARY, BLOB: base64.
pub(super) fn write_bytes(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    out.push(b'"');
    push_base64(raw, out);
    out.push(b'"');
    Ok(())
}

/// BINARY(n): the log leaves out the zeros it is padded with.
pub(super) fn write_binary(raw: &[u8], len: usize, out: &mut Vec<u8>) -> Outcome {
    padded::<MAX_BINARY>(raw, len, |raw| write_bytes(raw, out))
}

/// The longest BINARY; MariaDB's UUID and INET types are such too.
pub(super) const MAX_BINARY: usize = 255;

/// Hands on the value with zeros behind it up to its length.
pub(super) fn padded<const MAX: usize>(raw: &[u8], len: usize, write: impl FnOnce(&[u8]) -> Outcome) -> Outcome {
    if raw.len() >= len {
        return if raw.len() == len { write(raw) } else { Err("is longer than the type") };
    }
    let mut buffer = [0; MAX];
    let whole = buffer.get_mut(..len).ok_or("is of a type longer than any")?;
    for (to, &from) in whole.iter_mut().zip(raw) {
        *to = from;
    }
    write(whole)
}

/// Bytes that are encoded at a time; a multiple of 3, so that only the last part is padded.
const CHUNK: usize = 768;

/// Appends padded base64.
pub(super) fn push_base64(raw: &[u8], out: &mut Vec<u8>) {
    let mut text = [0; CHUNK / 3 * 4];
    out.reserve(raw.len().div_ceil(3) * 4);
    for part in raw.chunks(CHUNK) {
        // A chunk's text always fits.
        let len = STANDARD.encode_slice(part, &mut text).unwrap_or_default();
        out.extend_from_slice(text.get(..len).unwrap_or_default());
    }
}

/// GEOMETRY: the spatial reference's id, four bytes little-endian, then WKB.
pub(super) fn write_geometry(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    let (srid, wkb) = raw.split_first_chunk::<4>().ok_or("is too short for a spatial reference")?;
    out.extend_from_slice(b"{\"srid\":");
    figvine_change::json::write_uint(u64::from(u32::from_le_bytes(*srid)), out);
    out.extend_from_slice(b",\"wkb\":");
    write_bytes(wkb, out)?;
    out.push(b'}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::properties::{refused, written};
    use super::*;

    #[test]
    fn blanks_behind_a_char_are_padding_and_behind_a_varchar_are_text() {
        let charset = Charset::named("utf8mb4");
        let mut out = Vec::new();
        write_char(b" a b  ", &charset, &mut out).expect("text");
        write_char(b"   ", &charset, &mut out).expect("text");
        write_text(b" a ", &charset, &mut out).expect("text");
        assert_eq!(out, b"\" a b\"\"\"\" a \"");
    }

    #[test]
    fn bytes_are_base64_and_binary_has_its_zeros() {
        assert_eq!(written(write_bytes, b""), "\"\"");
        assert_eq!(written(write_bytes, b"\x00\xff"), "\"AP8=\"");
        let long: Vec<u8> = (0..10_000_u32).map(|n| (n * 7) as u8).collect();
        assert_eq!(written(write_bytes, &long), format!("\"{}\"", STANDARD.encode(&long)));
        let mut out = Vec::new();
        write_binary(b"a", 4, &mut out).expect("bytes");
        assert_eq!(out, b"\"YQAAAA==\"");
        assert!(write_binary(b"abcde", 4, &mut out).is_err());
        assert!(write_binary(b"a", 256, &mut out).is_err());
    }

    #[test]
    fn geometries_name_their_reference() {
        assert_eq!(written(write_geometry, &[0xe6, 0x10, 0, 0, 1, 2]), r#"{"srid":4326,"wkb":"AQI="}"#);
        assert_eq!(written(write_geometry, &[0; 4]), r#"{"srid":0,"wkb":""}"#);
        refused(write_geometry, &[0; 3]);
    }
}
