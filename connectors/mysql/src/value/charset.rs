//! Character sets: which one a collation belongs to, and their text as UTF-8.
//!
//! Single-byte sets have tables read from the server; multi-byte ones are decoded
//! by the WHATWG encodings with the server's differences laid over them.
//! Text that has no meaning in its character set is refused, never guessed.

use std::collections::HashMap;

use encoding_rs::{BIG5, DecoderResult, EUC_JP, EUC_KR, Encoding, GB18030, GBK, SHIFT_JIS};
use figvine_change::json::write_escaped;

use super::Outcome;

mod collations;
mod differences;
mod single;

const INVALID: &str = "has bytes that are no characters of its character set";

/// The id of the collation `binary`: bytes, no text.
pub const BINARY: u32 = 63;

/// The character sets of collations: MySQL's and MariaDB's own, and what a server
/// tells of others.
#[derive(Debug, Clone, Default)]
pub struct Charsets {
    told: HashMap<u32, Charset>,
}

/// A character set.
#[derive(Debug, Clone)]
pub struct Charset {
    name: Box<str>,
    form: Form,
}

impl Charsets {
    /// What is built in: ids 1 to 323 of MySQL, those of MariaDB above.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what a server says, `id` and `character_set_name` of
    /// `information_schema.collation_character_set_applicability` (MariaDB) or
    /// `information_schema.collations` (MySQL); it goes before what is built in.
    pub fn tell(&mut self, collation: u32, charset: &str) {
        self.told.insert(collation, Charset::named(charset));
    }

    /// The character set of a collation; `None` for an unknown id.
    #[must_use]
    pub fn charset(&self, collation: u32) -> Option<Charset> {
        self.told.get(&collation).cloned().or_else(|| collations::charset_name(collation).map(Charset::named))
    }

    /// A collation of a character set that a server told; `None` for an unknown one.
    #[must_use]
    pub fn collation_of(&self, charset: &str) -> Option<u32> {
        self.told.iter().filter(|(_, told)| told.name() == charset).map(|(id, _)| *id).min()
    }
}

impl Charset {
    /// The character set of that name. One that is not known here can be
    /// named, but none of its text can be read.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let form = match name {
            "utf8mb4" | "utf8mb3" | "utf8" => Form::Utf8,
            "ascii" => Form::Ascii,
            "binary" => Form::Binary,
            "swe7" => Form::Swe7,
            "ucs2" => Form::Ucs2,
            "utf16" => Form::Utf16,
            "utf16le" => Form::Utf16Le,
            "utf32" => Form::Utf32,
            "sjis" => Form::Multi(Multi { encoding: SHIFT_JIS, lead: Lead::Sjis, runs: differences::SJIS }),
            "cp932" => Form::Multi(Multi { encoding: SHIFT_JIS, lead: Lead::Sjis, runs: &[] }),
            "ujis" => Form::Multi(Multi { encoding: EUC_JP, lead: Lead::EucJp, runs: differences::UJIS }),
            "eucjpms" => Form::Multi(Multi { encoding: EUC_JP, lead: Lead::EucJp, runs: differences::EUCJPMS }),
            "euckr" => Form::Multi(Multi { encoding: EUC_KR, lead: Lead::Double, runs: &[] }),
            "big5" => Form::Multi(Multi { encoding: BIG5, lead: Lead::Double, runs: differences::BIG5 }),
            "gb2312" => Form::Multi(Multi { encoding: GBK, lead: Lead::Double, runs: differences::GB2312 }),
            "gbk" => Form::Multi(Multi { encoding: GBK, lead: Lead::Double, runs: &[] }),
            "gb18030" => Form::Multi(Multi { encoding: GB18030, lead: Lead::Gb18030, runs: differences::GB18030 }),
            _ => single::upper(name).map_or(Form::Unknown, Form::Single),
        };
        Self { name: name.into(), form }
    }

    /// The server's name for it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is no character set but bytes.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        matches!(self.form, Form::Binary)
    }

    /// The most bytes that a character takes: what a declared length is multiplied by.
    #[must_use]
    pub fn max_bytes(&self) -> u16 {
        match self.form {
            Form::Utf8 if &*self.name == "utf8mb4" => 4,
            Form::Utf8 => 3,
            Form::Ucs2 => 2,
            Form::Utf16 | Form::Utf16Le | Form::Utf32 => 4,
            Form::Multi(multi) => match multi.lead {
                Lead::EucJp => 3,
                Lead::Gb18030 => 4,
                Lead::Sjis | Lead::Double => 2,
            },
            Form::Ascii | Form::Binary | Form::Swe7 | Form::Single(_) | Form::Unknown => 1,
        }
    }

    /// Hands on text as UTF-8, without a copy where it is.
    pub(super) fn with_utf8(&self, raw: &[u8], write: impl FnOnce(&[u8]) -> Outcome) -> Outcome {
        if matches!(self.form, Form::Utf8) {
            return write(raw);
        }
        let mut text = String::with_capacity(raw.len());
        self.decode(raw, |piece| text.push_str(piece))?;
        write(text.as_bytes())
    }

    /// Appends text as the inside of a JSON string.
    pub(super) fn push(&self, raw: &[u8], out: &mut Vec<u8>) -> Outcome {
        self.decode(raw, |piece| write_escaped(piece, out))
    }

    /// Hands on text as UTF-8, in pieces.
    fn decode(&self, raw: &[u8], mut each: impl FnMut(&str)) -> Outcome {
        match self.form {
            // A label or name in the set `binary` is text all the same.
            Form::Utf8 | Form::Binary => each(std::str::from_utf8(raw).map_err(|_| INVALID)?),
            Form::Ascii => each(ascii(raw).ok_or(INVALID)?),
            Form::Single(upper) => {
                let mut rest = raw;
                loop {
                    // Most text is ASCII for the most part.
                    let plain = rest.iter().take_while(|byte| byte.is_ascii()).count();
                    let (plain, tail) = rest.split_at_checked(plain).ok_or(INVALID)?;
                    if !plain.is_empty() {
                        each(std::str::from_utf8(plain).map_err(|_| INVALID)?);
                    }
                    let Some((&byte, tail)) = tail.split_first() else { break };
                    let unit = upper.get(usize::from(byte & 0x7f)).copied().unwrap_or_default();
                    one(entry(u32::from(unit))?, &mut each);
                    rest = tail;
                }
            }
            Form::Multi(_) if raw.is_ascii() => each(std::str::from_utf8(raw).map_err(|_| INVALID)?),
            Form::Swe7 => {
                for &byte in raw {
                    match single::SWE7.iter().find(|(code, _)| *code == byte) {
                        Some(&(_, char)) => one(char, &mut each),
                        None if byte < 0x7f => one(char::from(byte), &mut each),
                        None => return Err(INVALID),
                    }
                }
            }
            Form::Ucs2 | Form::Utf16 => decode_utf16(raw, u16::from_be_bytes, each)?,
            Form::Utf16Le => decode_utf16(raw, u16::from_le_bytes, each)?,
            Form::Utf32 => {
                let (units, rest) = raw.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(INVALID);
                }
                for &unit in units {
                    one(char::from_u32(u32::from_be_bytes(unit)).ok_or(INVALID)?, &mut each);
                }
            }
            Form::Multi(multi) => multi.decode(raw, each)?,
            Form::Unknown => return Err("its character set is not known here"),
        }
        Ok(())
    }
}

/// How text is stored.
#[derive(Debug, Clone, Copy)]
enum Form {
    Utf8,
    Ascii,
    Binary,
    Single(&'static single::Upper),
    Swe7,
    Ucs2,
    Utf16,
    Utf16Le,
    Utf32,
    Multi(Multi),
    Unknown,
}

/// A multi-byte character set whose lower half is ASCII.
#[derive(Debug, Clone, Copy)]
struct Multi {
    encoding: &'static Encoding,
    lead: Lead,
    /// Where the server's table is another one; sorted within each length of codes.
    runs: &'static [differences::Run],
}

/// How many bytes belong to a first byte.
#[derive(Debug, Clone, Copy)]
enum Lead {
    /// Above 0x80 two.
    Double,
    /// The same, with single bytes for katakana.
    Sjis,
    /// Three behind 0x8f, else two.
    EucJp,
    /// Four where the second is a digit, else two.
    Gb18030,
}

impl Multi {
    fn decode(&self, raw: &[u8], mut each: impl FnMut(&str)) -> Outcome {
        let (mut done, mut at) = (0, 0);
        while let Some(rest) = raw.get(at..).filter(|rest| !rest.is_empty() && !self.runs.is_empty()) {
            let len = self.length(rest);
            let code = rest.iter().take(len).fold(0, |code, &byte| code << 8 | u32::from(byte));
            if len > 1
                && let Some(char) = self.difference(code)
            {
                self.decode_plain(raw.get(done..at).unwrap_or_default(), &mut each)?;
                one(entry(char)?, &mut each);
                done = at + len;
            }
            at += len;
        }
        self.decode_plain(raw.get(done..).unwrap_or_default(), &mut each)
    }

    /// The length of the first character.
    fn length(&self, rest: &[u8]) -> usize {
        match (self.lead, rest) {
            (_, [..=0x80 | 0xff, ..]) | (Lead::Sjis, [0xa0..=0xdf | 0xfd.., ..]) => 1,
            (Lead::EucJp, [0x8f, ..]) => 3,
            (Lead::Gb18030, [_, 0x30..=0x39, ..]) => 4,
            _ => 2,
        }
    }

    fn difference(&self, code: u32) -> Option<u32> {
        let behind = self.runs.partition_point(|run| run.0 <= code);
        let &(first, last, char) = self.runs.get(behind.checked_sub(1)?)?;
        (code <= last).then(|| char + (code - first))
    }

    /// Decodes text without differences, a piece at a time on the stack.
    fn decode_plain(&self, raw: &[u8], each: &mut impl FnMut(&str)) -> Outcome {
        let mut decoder = self.encoding.new_decoder_without_bom_handling();
        let mut rest = raw;
        let mut buffer = [0; 512];
        loop {
            let (result, read, written) = decoder.decode_to_utf8_without_replacement(rest, &mut buffer, true);
            each(buffer.get(..written).and_then(|piece| std::str::from_utf8(piece).ok()).ok_or(INVALID)?);
            rest = rest.get(read..).unwrap_or_default();
            match result {
                DecoderResult::InputEmpty => return Ok(()),
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => return Err(INVALID),
            }
        }
    }
}

fn ascii(raw: &[u8]) -> Option<&str> {
    std::str::from_utf8(raw).ok().filter(|text| text.is_ascii())
}

fn decode_utf16(raw: &[u8], unit: impl Fn([u8; 2]) -> u16, mut each: impl FnMut(&str)) -> Outcome {
    let (units, rest) = raw.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(INVALID);
    }
    for char in char::decode_utf16(units.iter().map(|&bytes| unit(bytes))) {
        one(char.map_err(|_| INVALID)?, &mut each);
    }
    Ok(())
}

/// A table's entry; 0 is none, for U+0000 is ASCII everywhere.
fn entry(unit: u32) -> Result<char, &'static str> {
    char::from_u32(unit).filter(|&char| char != '\0').ok_or(INVALID)
}

fn one(char: char, each: &mut impl FnMut(&str)) {
    each(char.encode_utf8(&mut [0; 4]));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(charset: &str, raw: &[u8]) -> Result<String, &'static str> {
        let mut out = Vec::new();
        Charset::named(charset).push(raw, &mut out)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn the_same_text_is_read_from_every_character_set_that_has_it() {
        // Each as the server converts it: SELECT HEX(CONVERT(... USING ...)).
        for (charset, raw, expected) in [
            ("latin1", b"\x80\xe9\x81\x8d\x8f\x90\x9d".as_slice(), "€é\u{81}\u{8d}\u{8f}\u{90}\u{9d}"),
            ("latin2", b"\xb1\xbf", "ąż"),
            ("latin5", b"\xfd\xfe", "ış"),
            ("latin7", b"\xd0\xf0", "Šš"),
            ("cp1250", b"\x8a\x9e", "Šž"),
            ("cp1251", b"\xcf\xf0\xe8", "При"),
            ("cp1256", b"\xc8\xd1", "بر"),
            ("cp1257", b"\xd0\xf0", "Šš"),
            ("cp850", b"\x82\xd5", "éı"),
            ("cp852", b"\xa5\xd8", "ąě"),
            ("cp866", b"\x8f\xe0", "Пр"),
            ("koi8r", b"\xf0\xd2", "Пр"),
            ("koi8u", b"\xa4\xad", "єґ"),
            ("greek", b"\xe1\xf9", "αω"),
            ("hebrew", b"\xf9\xfa", "שת"),
            ("tis620", b"\xa1\xca", "กส"),
            ("macroman", b"\x8e\xca", "é\u{a0}"),
            ("macce", b"\x88\xe1", "ąŠ"),
            ("armscii8", b"\xb2\xb3", "Աա"),
            ("geostd8", b"\xc0\xc1", "აბ"),
            ("dec8", b"\xe9\xd7", "éŒ"),
            ("hp8", b"\xc5", "é"),
            ("swe7", b"a}{|`@~", "aåäöéÉü"),
            ("keybcs2", b"\xa8\x91", "šž"),
            ("sjis", b"\x93\xfa\x96{\xb1\x81\x5f\x81\x60", "日本ｱ\\\\〜"),
            ("cp932", b"\x93\xfa\x81\x60\x87\x40\xf0\x40", "日～①\u{e000}"),
            ("ujis", b"\xc6\xfc\xcb\xdc\x8e\xb1\x8f\xb0\xa1\xf5\xa1\xa1\xc1", "日本ｱ丂\u{e000}〜"),
            ("eucjpms", b"\xc6\xfc\x8f\xf3\xf3\x8f\xf5\xa1\xad\xa1", "日ⅰ\u{e3ac}①"),
            ("euckr", b"\xc7\xd1\xb1\xdb", "한글"),
            ("gb2312", b"\xd6\xd0\xce\xc4\xa1\xa4", "中文・"),
            ("gbk", b"\xd6\xd0\x81\x40", "中丂"),
            ("gb18030", b"\xd6\xd0\x94\x39\xfc\x36\xa6\xd9", "中😀\u{e78d}"),
            ("big5", b"\xa4\xa4\xa4\xe5\xc6\xa5", "中文ぁ"),
            ("ucs2", b"\x00a\x20\xac", "a€"),
            ("utf16", b"\xd8\x3d\xde\x00\x00\"", "😀\\\""),
            ("utf16le", b"\x3d\xd8\x00\xde\n\x00", "😀\\n"),
            ("utf32", b"\x00\x01\xf6\x00", "😀"),
            ("utf8mb4", "😀\0".as_bytes(), "😀\\u0000"),
            ("utf8mb3", "€".as_bytes(), "€"),
            ("ascii", b"a\\b", "a\\\\b"),
        ] {
            assert_eq!(text(charset, raw).as_deref(), Ok(expected), "{charset}");
        }
    }

    #[test]
    fn text_without_meaning_is_refused() {
        for (charset, raw) in [
            ("ascii", b"\x80".as_slice()),
            ("utf8mb4", b"\xff"),
            ("utf8mb4", b"a\xc3"),
            ("cp1250", b"\x81"),
            ("swe7", b"\x7f"),
            ("ucs2", b"\xd8\x00"),
            ("ucs2", b"a"),
            ("utf16", b"\xd8\x00\x00a"),
            ("utf32", b"\0\x11\0\0"),
            ("utf32", b"\0\0\0"),
            ("sjis", b"\x93"),
            ("ujis", b"\x8f\xb0"),
            ("gb18030", b"\x81\x30"),
            ("euckr", b"\xff\xff"),
        ] {
            assert_eq!(text(charset, raw), Err(INVALID), "{charset}");
        }
        assert_eq!(text("klingon", b"a"), Err("its character set is not known here"));
    }

    #[test]
    fn every_built_in_collation_has_a_character_set_that_can_be_read() {
        let charsets = Charsets::new();
        let mut known = 0;
        for id in 0..5000 {
            if let Some(charset) = charsets.charset(id) {
                known += 1;
                assert!(!matches!(charset.form, Form::Unknown), "{id} {}", charset.name());
            }
        }
        assert!(known > 1200);
        for (id, name) in [
            (8, "latin1"),
            (63, "binary"),
            (255, "utf8mb4"),
            (309, "utf8mb4"),
            (323, "utf8mb4"),
            (250, "gb18030"),
            (576, "utf8mb3"),
            (1032, "latin1"),
            (2304, "utf8mb4"),
            (2048, "utf8mb3"),
            (2560, "ucs2"),
            (2816, "utf16"),
            (3072, "utf32"),
        ] {
            assert_eq!(charsets.charset(id).expect("a known collation").name(), name);
        }
        assert!(charsets.charset(0).is_none() && charsets.charset(100_000).is_none());
    }

    #[test]
    fn what_the_server_tells_goes_first() {
        let mut charsets = Charsets::new();
        charsets.tell(8, "latin2");
        charsets.tell(9000, "utf8mb4");
        charsets.tell(9001, "klingon");
        assert_eq!(charsets.charset(8).expect("told").name(), "latin2");
        assert_eq!(charsets.charset(9000).expect("told").name(), "utf8mb4");
        assert_eq!(charsets.charset(9001).expect("told").name(), "klingon");
    }

    #[test]
    fn long_text_is_decoded_in_pieces() {
        let raw = b"\x93\xfa\x81\x60".repeat(5000);
        assert_eq!(text("sjis", &raw).expect("text"), "日〜".repeat(5000));
        assert_eq!(text("cp932", &raw).expect("text"), "日～".repeat(5000));
    }
}
