//! json and jsonb: the value itself, every digit and every duplicate name.
//!
//! PostgreSQL has checked the text; it is checked again while it is copied, so
//! that no byte can break the envelope around it. Blanks between tokens are left
//! out: an event is one line. Depth is bounded by the length of the text alone,
//! so nothing here recurses.
//!
//! One thing is changed: `json` (not `jsonb`) takes escapes that stand for half
//! a surrogate pair (`"\ud800"`). They are no characters, and readers differ from
//! replacing them to refusing the whole document (RFC 8259, section 8.2), so they
//! are written as `\ufffd`.

use super::number::after_number;

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    /// Behind `[`.
    ValueOrEnd,
    Name,
    /// Behind `{`.
    NameOrEnd,
    /// Behind a name.
    Colon,
    /// Behind a value: a comma or the end of what holds it.
    More,
}

const WRONG: &str = "not well-formed JSON";

/// Copies a JSON text without its blanks.
pub(super) fn write_json(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    std::str::from_utf8(raw).map_err(|_| "is not UTF-8")?;
    out.reserve(raw.len());
    let mut open = Open::default();
    let mut expect = Expect::Value;
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, expect) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => {
                rest = tail;
                continue;
            }
            (b'{', Expect::Value | Expect::ValueOrEnd) => {
                open.push(Inside::Object);
                expect = Expect::NameOrEnd;
            }
            (b'[', Expect::Value | Expect::ValueOrEnd) => {
                open.push(Inside::Array);
                expect = Expect::ValueOrEnd;
            }
            (b'}', Expect::NameOrEnd | Expect::More) if open.top() == Some(Inside::Object) => {
                open.pop();
                expect = Expect::More;
            }
            (b']', Expect::ValueOrEnd | Expect::More) if open.top() == Some(Inside::Array) => {
                open.pop();
                expect = Expect::More;
            }
            (b',', Expect::More) => {
                expect = match open.top().ok_or(WRONG)? {
                    Inside::Object => Expect::Name,
                    Inside::Array => Expect::Value,
                }
            }
            (b':', Expect::Colon) => expect = Expect::Value,
            (b'"', Expect::Name | Expect::NameOrEnd) => {
                rest = copy_string(tail, out)?;
                expect = Expect::Colon;
                continue;
            }
            (_, Expect::Value | Expect::ValueOrEnd) => {
                rest = copy_scalar(rest, out)?;
                expect = Expect::More;
                continue;
            }
            _ => return Err(WRONG),
        }
        out.push(byte);
        rest = tail;
    }
    if expect == Expect::More && open.top().is_none() { Ok(()) } else { Err(WRONG) }
}

/// Copies a string, a number or a word; returns what follows.
fn copy_scalar<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    if let Some(string) = text.strip_prefix(b"\"") {
        return copy_string(string, out);
    }
    for word in [b"null".as_slice(), b"true", b"false"] {
        if let Some(rest) = text.strip_prefix(word) {
            out.extend_from_slice(word);
            return Ok(rest);
        }
    }
    let rest = after_number(text).ok_or(WRONG)?;
    out.extend_from_slice(text.get(..text.len() - rest.len()).ok_or(WRONG)?);
    Ok(rest)
}

/// Copies a string whose opening quote was read; returns what follows its closing quote.
fn copy_string<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    out.push(b'"');
    let mut rest = text;
    loop {
        let at = rest.iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\').ok_or(WRONG)?;
        let (plain, tail) = rest.split_at_checked(at).ok_or(WRONG)?;
        out.extend_from_slice(plain);
        rest = match tail {
            [b'"', tail @ ..] => {
                out.push(b'"');
                return Ok(tail);
            }
            [b'\\', escape @ (b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't'), tail @ ..] => {
                out.extend_from_slice(&[b'\\', *escape]);
                tail
            }
            [b'\\', b'u', ..] => copy_code_unit(tail, out)?,
            _ => return Err(WRONG),
        };
    }
}

/// Copies `\u1234`, or a pair of surrogates; returns what follows.
fn copy_code_unit<'a>(text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    let (unit, rest) = code_unit(text).ok_or(WRONG)?;
    match unit {
        0xd800..=0xdbff => {
            if let Some((0xdc00..=0xdfff, behind)) = code_unit(rest) {
                out.extend_from_slice(text.get(..12).ok_or(WRONG)?);
                return Ok(behind);
            }
            out.extend_from_slice(b"\\ufffd");
        }
        0xdc00..=0xdfff => out.extend_from_slice(b"\\ufffd"),
        _ => out.extend_from_slice(text.get(..6).ok_or(WRONG)?),
    }
    Ok(rest)
}

/// Reads `\u1234` at the start of `text`.
fn code_unit(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.strip_prefix(b"\\u")?.split_first_chunk::<4>()?;
    let unit = digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))?;
    Some((unit, rest))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Array,
    Object,
}

/// The arrays and objects that are open, one bit each; allocates beyond a depth of 64 only.
#[derive(Default)]
struct Open {
    depth: usize,
    /// The innermost up to 64, the lowest bit being the innermost of all; 1 for objects.
    inner: u64,
    /// Full words of those further out.
    outer: Vec<u64>,
}

impl Open {
    fn push(&mut self, inside: Inside) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.inner);
        }
        self.depth += 1;
        self.inner = self.inner << 1 | u64::from(inside == Inside::Object);
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.inner >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.inner = self.outer.pop().unwrap_or_default();
        }
    }

    fn top(&self) -> Option<Inside> {
        (self.depth > 0).then_some(if self.inner & 1 == 1 { Inside::Object } else { Inside::Array })
    }
}

#[cfg(test)]
mod tests {
    use super::super::properties::{refused, written};
    use super::*;

    #[test]
    fn documents_keep_all_but_their_blanks() {
        for (raw, json) in [
            ("null", "null"),
            (" true\n", "true"),
            ("18446744073709551615", "18446744073709551615"),
            ("-0.10e+0400", "-0.10e+0400"),
            (r#"{"a": 1, "b": [1, 2, {}], "a": null}"#, r#"{"a":1,"b":[1,2,{}],"a":null}"#),
            ("{\r\n\t\"a b\" : [ ] }\n", r#"{"a b":[]}"#),
            (r#""\" \\ \/ \b\f\n\r\t \u0000 \uD83D\uDC18 é""#, r#""\" \\ \/ \b\f\n\r\t \u0000 \uD83D\uDC18 é""#),
        ] {
            assert_eq!(written(write_json, raw.as_bytes()), json);
        }
    }

    #[test]
    fn halves_of_surrogate_pairs_are_replaced() {
        for (raw, json) in [
            (r#""\ud800""#, r#""\ufffd""#),
            (r#""\udc18x""#, r#""\ufffdx""#),
            (r#""\ud83d\ud83d\udc18""#, r#""\ufffd\ud83d\udc18""#),
            (r#""\ud83d\u0041""#, r#""\ufffd\u0041""#),
        ] {
            assert_eq!(written(write_json, raw.as_bytes()), json);
        }
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for raw in [
            "",
            " ",
            "nul",
            "nulll",
            "tru",
            "01",
            "1.",
            "+1",
            ".5",
            "1e",
            "-",
            "NaN",
            "'a'",
            "\"",
            "\"a",
            "\"\\\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "{",
            "}",
            "[",
            "]",
            "[}",
            "{]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{1:2}",
            "{\"a\" 1}",
            "1 2",
            "{}{}",
            "[],",
            "[]]",
            ",",
            ":",
            "[1:2]",
            "\u{a0}1",
            "{\"a\"\u{b}:1}",
            "{\"a\"\u{c}:1}",
        ] {
            refused(write_json, raw.as_bytes());
        }
        assert_eq!(refused(write_json, b"\"\xff\""), "is not UTF-8");
    }

    #[test]
    fn depth_is_not_bounded() {
        for depth in [63, 64, 65, 127, 128, 129, 1_000_000] {
            let opening: String = (0..depth).map(|n| if n % 3 == 0 { "[" } else { "{\"a\":" }).collect();
            let closing: String = (0..depth).rev().map(|n| if n % 3 == 0 { "]" } else { "}" }).collect();
            let text = format!("{opening}1{closing}");
            assert!(written(write_json, text.as_bytes()) == text, "{depth}");
            refused(write_json, format!("{opening}1").as_bytes());
            refused(write_json, format!("{text}]").as_bytes());
        }
    }
}
