//! What tells events apart: a change's identity, and its key as one string.

use std::fmt;
use std::num::NonZeroU16;
use std::ops::Range;

use memchr::memchr;
use sha2::{Digest, Sha256};

/// Longest key, in bytes, that stands whole in an attribute.
const KEY_MAX: usize = 1024;
/// How much of a longer one does.
const KEY_KEPT: usize = 512;

/// What names one change in one source, the same on every replay of the log.
/// Its text, `0/16B3748/3.1`, is the event's `ce-id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The transaction's place in the log.
    pub position: Box<str>,
    /// The change's place in the transaction.
    pub ordinal: u64,
    /// Which of the record's changes.
    pub part: u32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.position, self.ordinal, self.part)
    }
}

/// The partition of a key: FNV-1a, 32 bits, of the bytes of the key's string
/// (the attribute `ce-partitionkey` before it is shortened and percent-encoded),
/// modulo the number of partitions.
///
/// Stable: consumers may compute it. Start with 2166136261; for each byte, xor it
/// in, then multiply by 16777619 modulo 2^32.
#[must_use]
pub fn partition(key: &[u8], partitions: NonZeroU16) -> u16 {
    // The remainder is smaller than a u16.
    (fnv1a(key) % u32::from(partitions.get())) as u16
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A key in the forms that an event needs; its buffers are used again and again.
#[derive(Debug, Default)]
pub(super) struct Key {
    /// As a JSON object.
    pub(super) object: Vec<u8>,
    /// Where the values stand in it.
    pub(super) values: Vec<Range<usize>>,
    /// As one string: the value of a single column as plain text, several as a JSON array.
    text: Vec<u8>,
    shortened: Vec<u8>,
}

impl Key {
    pub(super) fn clear(&mut self) {
        self.object.clear();
        self.values.clear();
    }

    /// Takes a string that is one already.
    pub(super) fn set(&mut self, text: &[u8]) {
        self.clear();
        self.text.clear();
        self.text.extend_from_slice(text);
        self.shorten();
    }

    /// Derives the string from the object and its values.
    pub(super) fn finish(&mut self) {
        let Self { object, values, text, .. } = self;
        text.clear();
        let value = |range: &Range<usize>| object.get(range.clone()).unwrap_or_default();
        write_key_values(values.iter().map(value), values.len(), text);
        self.shorten();
    }

    fn shorten(&mut self) {
        self.shortened.clear();
        if self.text.len() > KEY_MAX {
            let mut kept = KEY_KEPT;
            while kept > 0 && self.text.get(kept).is_some_and(|byte| byte & 0xc0 == 0x80) {
                kept -= 1;
            }
            self.shortened.extend_from_slice(self.text.get(..kept).unwrap_or_default());
            self.shortened.extend_from_slice(b"...sha256:");
            write_hex(Sha256::digest(&self.text).iter(), &mut self.shortened);
        }
    }

    /// The key as one string.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The same as an attribute shows it: beyond 1 KiB its first 512 bytes,
    /// `...sha256:` and the digest of the whole.
    pub(super) fn attribute(&self) -> &[u8] {
        if self.shortened.is_empty() { &self.text } else { &self.shortened }
    }
}

/// Appends a key, given by the JSON of its values, as one string: the value of a single column as plain text, several as a
/// JSON array.
pub(crate) fn write_key_text(values: &[&[u8]], out: &mut Vec<u8>) {
    write_key_values(values.iter().copied(), values.len(), out);
}

fn write_key_values<'a>(values: impl Iterator<Item = &'a [u8]>, count: usize, out: &mut Vec<u8>) {
    if count != 1 {
        out.push(b'[');
    }
    for (place, value) in values.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        match value {
            [b'"', inside @ .., b'"'] if count == 1 => unescape(inside, out),
            value => out.extend_from_slice(value),
        }
    }
    if count != 1 {
        out.push(b']');
    }
}

/// Appends bytes as lowercase hexadecimal digits.
pub(super) fn write_hex<'a>(bytes: impl Iterator<Item = &'a u8>, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for nibble in [byte >> 4, byte & 0xf] {
            out.push(HEX.get(nibble as usize).copied().unwrap_or(b'0'));
        }
    }
}

/// Appends the text that the inside of a JSON string stands for. What is no
/// escape is kept as it is; half of a surrogate pair becomes U+FFFD.
fn unescape(mut inside: &[u8], out: &mut Vec<u8>) {
    while let Some(at) = memchr(b'\\', inside) {
        let (plain, tail) = inside.split_at(at);
        out.extend_from_slice(plain);
        let (character, tail) = match tail {
            [_, b'n', tail @ ..] => ('\n', tail),
            [_, b'r', tail @ ..] => ('\r', tail),
            [_, b't', tail @ ..] => ('\t', tail),
            [_, b'b', tail @ ..] => ('\u{8}', tail),
            [_, b'f', tail @ ..] => ('\u{c}', tail),
            [_, b'u', tail @ ..] => code_point(tail),
            [_, byte @ (b'"' | b'\\' | b'/'), tail @ ..] => (char::from(*byte), tail),
            [_, tail @ ..] => ('\\', tail),
            [] => return,
        };
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        inside = tail;
    }
    out.extend_from_slice(inside);
}

/// Reads what follows `\u`.
fn code_point(text: &[u8]) -> (char, &[u8]) {
    let unit = |text: &[u8]| -> Option<u32> {
        let digits = std::str::from_utf8(text.get(..4)?).ok()?;
        u32::from_str_radix(digits, 16).ok()
    };
    let Some(first) = unit(text) else { return (char::REPLACEMENT_CHARACTER, text) };
    let tail = text.get(4..).unwrap_or_default();
    if let (0xd800..0xdc00, Some(low)) = (first, tail.strip_prefix(b"\\u"))
        && let Some(second @ 0xdc00..0xe000) = unit(low)
    {
        let point = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return (char::from_u32(point).unwrap_or(char::REPLACEMENT_CHARACTER), low.get(4..).unwrap_or_default());
    }
    (char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER), tail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(values: &[&str]) -> Key {
        let mut key = Key::default();
        for value in values {
            let start = key.object.len();
            key.object.extend_from_slice(value.as_bytes());
            key.values.push(start..key.object.len());
        }
        key.finish();
        key
    }

    #[test]
    fn the_hash_is_fnv1a() {
        for (text, hash) in [("", 0x811c_9dc5_u32), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)] {
            assert_eq!(fnv1a(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn partitions_are_as_documented() {
        let sixteen = NonZeroU16::new(16).unwrap();
        for (key, expected) in [("", 5), ("a", 12), ("foobar", 8), ("42", 3), ("[1,\"a\"]", 15)] {
            assert_eq!(partition(key.as_bytes(), sixteen), expected, "{key}");
        }
        assert_eq!(partition(b"anything", NonZeroU16::MIN), 0);
        assert!(partition(b"anything", NonZeroU16::MAX) < u16::MAX);
    }

    #[test]
    fn the_key_of_one_column_is_its_plain_text() {
        assert_eq!(key(&["42"]).text(), b"42");
        assert_eq!(key(&["true"]).text(), b"true");
        assert_eq!(key(&["null"]).text(), b"null");
        assert_eq!(key(&["\"\""]).text(), b"");
        assert_eq!(key(&[r#""a\"b\\\n\u00e4\ud83d\ude00""#]).text(), "a\"b\\\nä😀".as_bytes());
    }

    #[test]
    fn the_key_of_several_columns_is_an_array() {
        assert_eq!(key(&["1", "\"a\""]).text(), b"[1,\"a\"]");
    }

    #[test]
    fn a_long_key_is_shortened_between_characters_and_marked() {
        let text = format!("{}{}", "x".repeat(511), "ä".repeat(300));
        let key = key(&[&format!("\"{text}\"")]);
        assert_eq!(key.text(), text.as_bytes());
        let attribute = String::from_utf8(key.attribute().to_vec()).expect("cut between characters");
        let (kept, digest) = attribute.split_once("...sha256:").expect("marked");
        assert_eq!(kept, "x".repeat(511));
        assert_eq!(digest.len(), 64);
    }

    #[test]
    fn a_key_of_just_1_kib_stands_whole() {
        let key = key(&[&format!("\"{}\"", "x".repeat(1024))]);
        assert_eq!(key.attribute(), key.text());
    }

    proptest! {
        #[test]
        fn any_json_string_is_unescaped(text in any::<String>()) {
            let json = serde_json::to_string(&text).expect("a string");
            let key = key(&[&json]);
            prop_assert_eq!(key.text(), text.as_bytes());
        }

        #[test]
        fn whatever_stands_between_quotes_does_no_harm(inside in prop::collection::vec(prop_oneof![Just(b'\\'), Just(b'u'), Just(b'd'), Just(b'8'), any::<u8>()], 0..40)) {
            unescape(&inside, &mut Vec::new());
        }
    }
}
