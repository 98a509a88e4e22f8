//! What a restart needs: the header `Figvine-Checkpoint` of every message.
//!
//! Text form: `1 <writer> <position>`: the version of the form, the session that
//! wrote the message, and where the source goes on behind it. More fields may
//! follow, each behind a blank: `b=<task>:<rows>:<cursor>` in that of a backfilled
//! row says how far its table was read, `e=<transaction>;<ordinal>.<part>` or
//! `e=<transaction>;<ordinal>.<part>;<rule>.<n>` in that of an event that is not the
//! last of its change says which one it is. Compact, since it is paid per message.

use std::fmt;

use figvine_change::{Cursor, Position, Within};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// The header's name.
pub const HEADER: &str = "Figvine-Checkpoint";

/// What stands in the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Who wrote the message.
    pub writer: Writer,
    /// Where the source goes on behind it.
    pub position: Position,
    /// In that of a backfilled row: how far its table was read.
    pub read: Option<ReadMark>,
    /// In that of an event behind which some of what was read must be read again: which event it is.
    pub told: Option<Told>,
}

/// An event by the change behind which it stands: it and all before it in its transaction are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The transaction, as its position is written.
    pub transaction: Box<str>,
    /// The change.
    pub at: Within,
    /// Of a domain event its rule, and how many of that rule there were before it behind the same change; of the change's
    /// own event nothing.
    pub rule: Option<(Box<str>, u32)>,
}

/// What would end a field, or a part of it.
const RESERVED: &AsciiSet = &CONTROLS.add(b' ').add(b';').add(b'%');

impl Told {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let (transaction, at, rule) = (parts.next()?, parts.next()?, parts.next());
        let (ordinal, part) = at.split_once('.')?;
        let rule = match rule {
            None => None,
            Some(rule) => {
                let (name, number) = rule.rsplit_once('.')?;
                Some((name.into(), number.parse().ok()?))
            }
        };
        Some(Self {
            transaction: percent_decode_str(transaction).decode_utf8().ok()?.into(),
            at: Within { ordinal: ordinal.parse().ok()?, part: part.parse().ok()? },
            rule,
        })
    }
}

/// How far one task of a backfill is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadMark {
    /// The task: a table of a backfill, `k3v9qa.0`.
    pub task: Box<str>,
    /// Rows gone past from the task's beginning on, left out or not. Marks of one task are ordered by it.
    pub rows: u64,
    /// The last of them.
    pub cursor: Cursor,
}

impl ReadMark {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (task, rows, cursor) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { task: task.into(), rows: rows.parse().ok()?, cursor: Cursor::parse(cursor)? })
    }
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

/// Appends, behind what [`write`] wrote, how far a task of a backfill is.
pub fn write_read(task: &str, rows: u64, cursor: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b" b=");
    out.extend_from_slice(task.as_bytes());
    out.push(b':');
    figvine_change::json::write_uint(rows, out);
    out.push(b':');
    out.extend_from_slice(cursor);
}

/// Appends, behind what [`write`] wrote, which event of its transaction the message is; see [`Told`].
pub fn write_told(transaction: &str, at: Within, rule: Option<(&str, u32)>, out: &mut Vec<u8>) {
    out.extend_from_slice(b" e=");
    for piece in utf8_percent_encode(transaction, RESERVED) {
        out.extend_from_slice(piece.as_bytes());
    }
    out.push(b';');
    figvine_change::json::write_uint(at.ordinal, out);
    out.push(b'.');
    figvine_change::json::write_uint(at.part.into(), out);
    if let Some((rule, number)) = rule {
        out.push(b';');
        out.extend_from_slice(rule.as_bytes());
        out.push(b'.');
        figvine_change::json::write_uint(number.into(), out);
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
        let mut found = Self { writer: Writer(writer.into()), position, read: None, told: None };
        for field in fields {
            match field.split_once('=') {
                Some(("b", mark)) => found.read = ReadMark::parse(mark),
                Some(("e", told)) => found.told = Told::parse(told),
                _ => {}
            }
        }
        valid.then_some(found)
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1 {} {}", self.writer.as_str(), self.position)?;
        if let Some(ReadMark { task, rows, cursor }) = &self.read {
            write!(f, " b={task}:{rows}:{cursor}")?;
        }
        if let Some(Told { transaction, at: Within { ordinal, part }, rule }) = &self.told {
            write!(f, " e={};{ordinal}.{part}", utf8_percent_encode(transaction, RESERVED))?;
            if let Some((name, number)) = rule {
                write!(f, ";{name}.{number}")?;
            }
        }
        Ok(())
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
    fn how_far_a_backfill_is_reads_back() {
        let mut out = Vec::new();
        write(&Writer::fresh(), "7/1/0/1", None, &mut out);
        write_read("k3.0", 12, b"DE,10:30%20h", &mut out);
        let text = String::from_utf8(out).expect("ascii");
        let checkpoint = Checkpoint::parse(&text).expect("valid");
        let cursor = Cursor::parse("DE,10:30%20h").expect("a cursor");
        assert_eq!(checkpoint.read, Some(ReadMark { task: "k3.0".into(), rows: 12, cursor }));
        assert_eq!(checkpoint.to_string(), text);
    }

    #[test]
    fn which_event_of_a_change_it_is_reads_back() {
        let at = Within { ordinal: 3, part: 1 };
        for (transaction, rule) in [("0/16B3748", None), ("0-1 2;%", Some(("order_placed", 12)))] {
            let mut out = Vec::new();
            write(&Writer::fresh(), "7/1/0/1", Some(Within { ordinal: 2, part: 1 }), &mut out);
            write_told(transaction, at, rule, &mut out);
            let text = String::from_utf8(out).expect("ascii");
            let checkpoint = Checkpoint::parse(&text).expect("valid");
            let rule = rule.map(|(name, number)| (name.into(), number));
            assert_eq!(checkpoint.told, Some(Told { transaction: transaction.into(), at, rule }));
            assert_eq!(checkpoint.to_string(), text);
        }
    }

    #[test]
    fn a_later_field_does_not_disturb() {
        let checkpoint = Checkpoint::parse("1 abc 7/1/0/1 x=1 b=k3.0:1:42 c=2").expect("valid");
        assert!(checkpoint.read.is_some());
        assert!(Checkpoint::parse("1 abc 7/1/0/1 b=odd").expect("valid").read.is_none());
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        for text in ["", "1", "1 a", "2 a 7", "1  7", "1 a\r 7", "1 a ;"] {
            assert_eq!(Checkpoint::parse(text), None, "{text:?}");
        }
    }
}
