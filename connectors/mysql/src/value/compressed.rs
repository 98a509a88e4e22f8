//! MariaDB's COMPRESSED columns.
//!
//! ```text
//!   0x00  bytes as they are
//!   0x8n  zlib;  n = number of bytes of the length, plus 8 for a raw deflate stream
//!         length of the content, big-endian, then the stream
//! ```
//! An empty value has no header. (MariaDB, `compress_zlib` of sql/field.cc.)

use std::io::Read as _;

use flate2::read::{DeflateDecoder, ZlibDecoder};

use super::Outcome;

/// Deflate never makes more than 1032 bytes of one: a longer content is a lie.
const MAX_RATIO: usize = 1032;

const WRONG: &str = "is not a compressed value";

/// Hands on the content, no longer than `max` bytes.
pub(super) fn expand(raw: &[u8], max: usize, write: impl FnOnce(&[u8]) -> Outcome) -> Outcome {
    let Some((&header, body)) = raw.split_first() else { return write(raw) };
    if header == 0 {
        return write(body);
    }
    let width = usize::from(header & 7);
    if header & 0xf0 != 0x80 || !(1..=4).contains(&width) {
        return Err("is compressed in a way that is not known here");
    }
    let (length, stream) = body.split_at_checked(width).ok_or(WRONG)?;
    let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
    if length > max || length > stream.len().saturating_mul(MAX_RATIO) {
        return Err("says a length that cannot be");
    }
    let mut content = Vec::with_capacity(length.min(0x1_0000));
    // One byte more tells a stream that goes on.
    let limit = length as u64 + 1;
    let read = if header & 8 == 0 {
        ZlibDecoder::new(stream).take(limit).read_to_end(&mut content)
    } else {
        DeflateDecoder::new(stream).take(limit).read_to_end(&mut content)
    };
    read.map_err(|_| WRONG)?;
    if content.len() != length {
        return Err("has another length than it says");
    }
    write(&content)
}
