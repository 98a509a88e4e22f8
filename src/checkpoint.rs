//! What a restart needs: the header `Figvine-Checkpoint` of every message.
//!
//! Text form: `1 <writer> <position>`: the version of the form, the session that
//! wrote the message, and where the source goes on behind it. More fields may
//! follow, each behind a blank. Compact, since it is paid per message.

use std::fmt;

use figvine_change::{Position, Within};

/// The header's name.
pub const HEADER: &str = "Figvine-Checkpoint";

/// What stands in the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Who wrote the message.
    pub writer: Writer,
    /// Where the source goes on behind it.
    pub position: Position,
}

/// One run of the bridge for one source: what tells our own messages from a second writer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writer(Box<str>);

impl Writer {
    /// A new one, unlike any other (8 of 62 characters, from a nuid).
    #[must_use]
    pub fn fresh() -> Self {
        let id = nuid::next();
        let tail: String = id.chars().rev().take(8).collect();
        Self(tail.into())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Appends the header's value for an event whose position is `log` and `within`.
pub fn write(writer: &Writer, log: &str, within: Option<Within>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"1 ");
    out.extend_from_slice(writer.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(log.as_bytes());
    if let Some(Within { ordinal, part }) = within {
        out.push(b';');
        figvine_change::json::write_uint(ordinal, out);
        out.push(b'.');
        figvine_change::json::write_uint(part.into(), out);
    }
}

impl Checkpoint {
    /// Reads the header's value; `None` when it is none of ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let ("1", writer, position) = (fields.next()?, fields.next()?, fields.next()?) else { return None };
        let valid = !writer.is_empty() && writer.bytes().all(|b| b.is_ascii_alphanumeric());
        let position = Position::parse(position)?;
        valid.then(|| Self { writer: Writer(writer.into()), position })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1 {} {}", self.writer.as_str(), self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let writer = Writer::fresh();
        for within in [None, Some(Within { ordinal: 7, part: 2 })] {
            let mut out = Vec::new();
            write(&writer, "7412/1/0/16B3748", within, &mut out);
            let text = String::from_utf8(out).expect("ascii");
            let checkpoint = Checkpoint::parse(&text).expect("valid");
            assert_eq!(checkpoint.position, Position { log: "7412/1/0/16B3748".into(), within });
            assert_eq!(checkpoint.writer, writer);
            assert_eq!(checkpoint.to_string(), text);
        }
    }

    #[test]
    fn a_later_field_does_not_disturb() {
        assert!(Checkpoint::parse("1 abc 7/1/0/1 b=orders:42").is_some());
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        for text in ["", "1", "1 a", "2 a 7", "1  7", "1 a\r 7", "1 a ;"] {
            assert_eq!(Checkpoint::parse(text), None, "{text:?}");
        }
    }
}
