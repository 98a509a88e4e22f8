//! Where a statement has comments. Its text is in the client's character set, so it is read as bytes: in none that a client
//! may have is a byte below 0x40 part of a longer character.

use std::ops::Range;

use memchr::memmem;

/// Between which quotes a backslash takes the next byte's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escapes {
    /// `'` and `"`: the default.
    All,
    /// `'`: with `sql_mode = ANSI_QUOTES` the other stands around names.
    InStrings,
    /// None: with NO_BACKSLASH_ESCAPES.
    None,
}

impl Escapes {
    fn hold_in(self, quote: u8) -> bool {
        match self {
            Self::All => quote != b'`',
            Self::InStrings => quote == b'\'',
            Self::None => false,
        }
    }
}

/// The insides of a statement's comments. What the servers run of a comment (`/*!50700 ... */`) is none.
#[must_use]
pub fn comments(statement: &[u8], escapes: Escapes) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut is_run = false;
    while let Some((&first, behind)) = statement.get(at..).and_then(<[u8]>::split_first) {
        let next = behind.first().copied();
        match (first, next) {
            (b'\'' | b'"' | b'`', _) => at += 1 + string(behind, first, escapes.hold_in(first)),
            (b'*', Some(b'/')) if is_run => {
                is_run = false;
                at += 2;
            }
            (b'/', Some(b'*')) => {
                let inside = behind.get(1..).unwrap_or_default();
                if inside.starts_with(b"!") || inside.starts_with(b"M!") {
                    is_run = true;
                    at += 2;
                } else {
                    // Without an end it is none: the server refuses that.
                    let Some(length) = memmem::find(inside, b"*/") else { break };
                    found.push(at + 2..at + 2 + length);
                    at += 2 + length + 2;
                }
            }
            (b'#', _) => at = line(statement, at + 1, &mut found),
            (b'-', Some(b'-')) if is_dashes(behind) => at = line(statement, at + 2, &mut found),
            _ => at += 1,
        }
    }
    found
}

/// Length of a string up to behind its closing quote. One that is doubled inside ends it, and begins the next.
fn string(text: &[u8], quote: u8, has_escapes: bool) -> usize {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        if byte == quote {
            break;
        }
        if byte == b'\\' && has_escapes {
            at += 1;
        }
    }
    at
}

/// `--` is the beginning of a comment where a blank or a control character follows, or nothing.
fn is_dashes(behind_first: &[u8]) -> bool {
    behind_first.get(1).is_none_or(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
}

/// A comment from `at` to the line's end; where the next line begins.
fn line(statement: &[u8], at: usize, found: &mut Vec<Range<usize>>) -> usize {
    let rest = statement.get(at..).unwrap_or_default();
    let end = at + memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    found.push(at..end);
    end + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comments_of_any_bytes_lie_in_them_one_behind_the_other(
            text in prop::collection::vec(prop::sample::select(&b"'\"`\\/*!M#- \na\xe4"[..]), 0..60),
            escapes in prop::sample::select(&[Escapes::All, Escapes::InStrings, Escapes::None][..]),
        ) {
            let mut end = 0;
            for range in comments(&text, escapes) {
                prop_assert!(range.start > end || range.start > 0 && end == 0, "{range:?} behind {end}");
                prop_assert!(range.start <= range.end && range.end <= text.len());
                end = range.end;
            }
        }
    }
}
