//! JSON that is stored or sent as text: MariaDB's JSON columns, MySQL's JSON in answers to queries.
//!
//! The text is checked while it is copied, so that no byte can break the
//! envelope around it; blanks between tokens are left out, and strings are
//! escaped as everywhere here. Digits are not touched.
//!
//! MariaDB's `json_valid` takes two things that JSON does not have: a point without digits
//! behind it (`1.` is written as `1.0`) and escapes of any character (`\x` is `x`, as
//! its own functions read it). Escapes that stand for half a surrogate pair are no
//! characters and become U+FFFD.

use figvine_change::json::write_escaped;

use super::Outcome;

/// MySQL takes documents of 100 levels, MariaDB of 32.
const MAX_DEPTH: u32 = 128;

const WRONG: &str = "is not well-formed JSON";

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    /// Behind `[`.
    ValueOrEnd,
    Name,
    /// Behind `{`.
    NameOrEnd,
    Colon,
    /// Behind a value: a comma or the end of what holds it.
    More,
}

/// Writes one JSON text.
pub(super) fn write_json_text(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    let text = std::str::from_utf8(raw).map_err(|_| "is not UTF-8")?;
    let mut rest = text;
    let mut open = Open { depth: 0, objects: 0 };
    let mut expect = Expect::Value;
    while let Some(&byte) = rest.as_bytes().first() {
        let tail = rest.get(1..).unwrap_or_default();
        match (byte, expect) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => {
                rest = tail;
                continue;
            }
            (b'{', Expect::Value | Expect::ValueOrEnd) => {
                open.push(true)?;
                expect = Expect::NameOrEnd;
            }
            (b'[', Expect::Value | Expect::ValueOrEnd) => {
                open.push(false)?;
                expect = Expect::ValueOrEnd;
            }
            (b'}', Expect::NameOrEnd | Expect::More) if open.top() == Some(true) => {
                open.pop();
                expect = Expect::More;
            }
            (b']', Expect::ValueOrEnd | Expect::More) if open.top() == Some(false) => {
                open.pop();
                expect = Expect::More;
            }
            (b',', Expect::More) => {
                expect = if open.top().ok_or(WRONG)? { Expect::Name } else { Expect::Value };
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
    if expect == Expect::More && open.depth == 0 { Ok(()) } else { Err(WRONG) }
}

/// The containers that are open, a bit each, the innermost the lowest; 1 for objects.
struct Open {
    depth: u32,
    objects: u128,
}

impl Open {
    fn push(&mut self, is_object: bool) -> Outcome {
        if self.depth == MAX_DEPTH {
            return Err(super::json::DEPTH);
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(is_object);
        Ok(())
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.objects >>= 1;
    }

    fn top(&self) -> Option<bool> {
        (self.depth > 0).then_some(self.objects & 1 == 1)
    }
}

/// Copies a string, a number or a word; returns what follows.
fn copy_scalar<'a>(text: &'a str, out: &mut Vec<u8>) -> Result<&'a str, &'static str> {
    if let Some(string) = text.strip_prefix('"') {
        return copy_string(string, out);
    }
    for word in ["null", "true", "false"] {
        if let Some(rest) = text.strip_prefix(word) {
            out.extend_from_slice(word.as_bytes());
            return Ok(rest);
        }
    }
    copy_number(text, out).ok_or(WRONG)
}

/// Copies a number (RFC 8259, section 6); returns what follows.
fn copy_number<'a>(text: &'a str, out: &mut Vec<u8>) -> Option<&'a str> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let mut rest = match unsigned.strip_prefix('0') {
        Some(rest) => rest,
        None => after_digits(unsigned)?,
    };
    let mut done = text;
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction;
        match after_digits(fraction) {
            Some(behind) => rest = behind,
            None => {
                out.extend_from_slice(text.get(..text.len() - rest.len())?.as_bytes());
                out.push(b'0');
                done = rest;
            }
        }
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        rest = after_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))?;
    }
    out.extend_from_slice(done.get(..done.len() - rest.len())?.as_bytes());
    Some(rest)
}

fn after_digits(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches(|char: char| char.is_ascii_digit());
    (rest.len() < text.len()).then_some(rest)
}

/// Copies a string whose opening quote was read; returns what follows its closing quote.
fn copy_string<'a>(text: &'a str, out: &mut Vec<u8>) -> Result<&'a str, &'static str> {
    out.push(b'"');
    let mut rest = text;
    loop {
        let at = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\').ok_or(WRONG)?;
        let (plain, tail) = rest.split_at_checked(at).ok_or(WRONG)?;
        out.extend_from_slice(plain.as_bytes());
        if let Some(tail) = tail.strip_prefix('"') {
            out.push(b'"');
            return Ok(tail);
        }
        let escape = tail.strip_prefix('\\').ok_or(WRONG)?;
        let (char, behind) = unescape(escape).ok_or(WRONG)?;
        write_escaped(char.encode_utf8(&mut [0; 4]), out);
        rest = behind;
    }
}

/// The character of an escape whose backslash was read, and what follows.
pub(crate) fn unescape(text: &str) -> Option<(char, &str)> {
    let mut chars = text.chars();
    let char = match chars.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let (unit, rest) = code_unit(chars.as_str())?;
            if let 0xd800..=0xdbff = unit
                && let Some((low @ 0xdc00..=0xdfff, behind)) = rest.strip_prefix("\\u").and_then(code_unit)
            {
                let char = char::from_u32(0x10000 + ((unit - 0xd800) << 10 | (low - 0xdc00)))?;
                return Some((char, behind));
            }
            return Some((char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), rest));
        }
        char => char,
    };
    Some((char, chars.as_str()))
}

/// Four hex digits.
fn code_unit(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    let unit = digits.chars().try_fold(0, |unit, digit| Some(unit << 4 | digit.to_digit(16)?))?;
    Some((unit, rest))
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
            (
                r#""\" \\ \/ \b\f\n\r\t \u0000 \uD83D\uDC18 \u00e9""#,
                "\"\\\" \\\\ / \\u0008\\u000c\\n\\r\\t \\u0000 🐘 é\"",
            ),
            ("[1.,-0.,1.e5]", "[1.0,-0.0,1.0e5]"),
            (r#""\x\'\/""#, r#""x'/""#),
            (r#""\ud800x\udc18""#, "\"\u{fffd}x\u{fffd}\""),
        ] {
            assert_eq!(written(write_json_text, raw.as_bytes()), json);
        }
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for raw in [
            "",
            " ",
            "nul",
            "nulll",
            "01",
            "+1",
            ".5",
            "1e",
            "-",
            "NaN",
            "'a'",
            "\"",
            "\"a",
            "\"\\u12\"",
            "\"\n\"",
            "{",
            "}",
            "[",
            "[}",
            "{]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{1:2}",
            "1 2",
            "{}{}",
            "[]]",
            ",",
            "[1:2]",
            "\u{a0}1",
            "\"\\ué234\"",
        ] {
            refused(write_json_text, raw.as_bytes());
        }
        refused(write_json_text, b"\"\xff\"");
        let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
        assert_eq!(written(write_json_text, deep.as_bytes()), deep);
        refused(write_json_text, format!("[{deep}]").as_bytes());
    }
}
