//! Dead letters: what could not be told, as it is kept beside the stream until somebody has looked at it.
//!
//! An event stands in its place in the stream (`op: missing`, or the type `<type>_missing`) and names the letter. What is
//! hidden is hidden here, too: letters are made of batches that were rewritten already.

use std::error::Error;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use figvine_change::{Batch, Body, Cell, Change, RowChange, Table, Transaction, json};

use super::number::write_timestamp;
use super::texts::Kind;

/// What may be parked instead of ending the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parks {
    /// Changes that cannot be told, and events that a rule cannot make.
    pub poison: bool,
    /// Rows of a table whose shape breaks its event type's schema.
    pub drift: bool,
}

/// Something that could not be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The identity of the event in whose place another stands: its `ce-id`.
    pub id: String,
    /// Why, in one word: `value key too_large schema_drift rule outbox`.
    pub reason: &'static str,
    /// The code of the error that it would have been.
    pub code: &'static str,
    /// The type of the event that is missing.
    pub event_type: String,
    /// All of it as one JSON object.
    pub body: Vec<u8>,
}

/// A row with the bytes that its cells point into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) table: &'a Table,
    pub(crate) data: &'a [u8],
    pub(crate) cells: &'a [Cell],
    /// Whether it holds its key alone, and nothing else is told.
    pub(crate) is_key: bool,
}

/// What a letter holds.
pub(crate) enum Content<'a> {
    /// A change as the log had it.
    Change(&'a Batch, &'a Change),
    /// Rows as a rule saw them, and the JSON of what belongs to them.
    Rows { op: &'static str, before: Option<Row<'a>>, after: Option<Row<'a>>, parts: Option<&'a [u8]> },
    /// The body of an event of a rule.
    Data(&'a [u8]),
    /// None: all of it was told by events of its own.
    Nothing,
}

/// What a letter is about.
pub(crate) struct About<'a> {
    pub(crate) id: String,
    pub(crate) event_type: String,
    pub(crate) rule: Option<&'a str>,
    pub(crate) transaction: Option<&'a Transaction>,
}

impl Letter {
    /// Writes a letter; an error tells no values.
    pub(crate) fn new(
        about: About<'_>,
        (reason, code): (&'static str, &'static str),
        error: &dyn Error,
        content: &Content<'_>,
    ) -> Self {
        let About { id, event_type, rule, transaction } = about;
        let mut what = error.to_string();
        let mut cause = error.source();
        while let Some(told) = cause {
            let _ = write!(what, ": {told}");
            cause = told.source();
        }
        let mut body = b"{\"schema_version\":1".to_vec();
        let text = |name: &[u8], value: Option<&str>, out: &mut Vec<u8>| {
            out.extend_from_slice(name);
            match value {
                Some(value) => json::write_str(value, out),
                None => out.extend_from_slice(b"null"),
            }
        };
        text(b",\"id\":", Some(&id), &mut body);
        text(b",\"reason\":", Some(reason), &mut body);
        text(b",\"code\":", Some(code), &mut body);
        text(b",\"error\":", Some(&what), &mut body);
        text(b",\"type\":", Some(&event_type), &mut body);
        text(b",\"rule\":", rule, &mut body);
        if let Some(transaction) = transaction {
            text(b",\"transaction\":{\"id\":", Some(&transaction.id), &mut body);
            text(b",\"position\":", Some(&transaction.position), &mut body);
            body.extend_from_slice(b",\"committed_at\":\"");
            write_timestamp(transaction.committed_at, &mut body);
            body.extend_from_slice(b"\"}");
        }
        content.write(&mut body);
        body.push(b'}');
        Self { id, reason, code, event_type, body }
    }
}

impl Content<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => {}
            Self::Data(data) => {
                out.extend_from_slice(b",\"data\":");
                out.extend_from_slice(data);
            }
            Self::Change(batch, change) => match &change.body {
                Body::Row(row) => {
                    let sides = sides(batch, row);
                    write_rows(Kind::of(row.op).op(), sides, out);
                }
                Body::Message { prefix, content } => {
                    out.extend_from_slice(b",\"message\":{\"prefix\":");
                    json::write_str(&String::from_utf8_lossy(batch.bytes(prefix)), out);
                    out.extend_from_slice(b",\"content_base64\":\"");
                    out.extend_from_slice(STANDARD.encode(batch.bytes(content)).as_bytes());
                    out.extend_from_slice(b"\"}");
                }
                Body::Truncate { .. } | Body::Shape { .. } => {}
            },
            Self::Rows { op, before, after, parts } => {
                write_rows(op, [*before, *after], out);
                if let Some(parts) = parts {
                    out.extend_from_slice(b",\"parts\":");
                    out.extend_from_slice(parts);
                }
            }
        }
    }
}

/// The rows before and after.
fn sides<'a>(batch: &'a Batch, change: &RowChange) -> [Option<Row<'a>>; 2] {
    let Some(table) = batch.table(change.table) else { return [None, None] };
    [(change.before, change.before_is_key), (change.after, false)]
        .map(|(row, is_key)| row.map(|row| Row { table, data: &batch.data, cells: batch.row(row), is_key }))
}

fn write_rows(op: &str, rows: [Option<Row<'_>>; 2], out: &mut Vec<u8>) {
    if let Some(row) = rows.iter().flatten().next() {
        out.extend_from_slice(b",\"table\":");
        json::write_str(&row.table.qualified_name(), out);
    }
    out.extend_from_slice(b",\"op\":\"");
    out.extend_from_slice(op.as_bytes());
    out.push(b'"');
    for (name, row) in [&b"before"[..], b"after"].into_iter().zip(rows) {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(name);
        out.extend_from_slice(b"\":");
        match row {
            None => out.extend_from_slice(b"null"),
            Some(row) => row.write(out),
        }
    }
}

impl Row<'_> {
    /// Appends what the log carried of it; of a value that cannot be read its bytes, unless they are hidden.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(b'{');
        for (place, (column, cell)) in self.table.columns.iter().zip(self.cells).enumerate() {
            if *cell == Cell::Unchanged || self.is_key && !self.table.key.contains(&place) {
                continue;
            }
            if out.len() > start + 1 {
                out.push(b',');
            }
            json::write_str(&column.name, out);
            out.push(b':');
            let value = out.len();
            let Cell::Value(range) = cell else {
                out.extend_from_slice(b"null");
                continue;
            };
            let raw = self.data.get(range.start as usize..range.end as usize).unwrap_or_default();
            if column.codec.write_json(raw, out).is_err() {
                out.truncate(value);
                out.extend_from_slice(b"{\"unreadable\":");
                if column.codec.is_hidden() {
                    out.extend_from_slice(b"\"hidden\"}");
                } else {
                    out.extend_from_slice(b"\"base64\",\"bytes\":\"");
                    out.extend_from_slice(STANDARD.encode(raw).as_bytes());
                    out.extend_from_slice(b"\"}");
                }
            }
        }
        out.push(b'}');
    }
}
