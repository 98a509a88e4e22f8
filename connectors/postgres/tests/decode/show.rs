//! Messages, batches and changes as text that is the same on every run.

use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use figvine_change::{Batch, Body, Cell, Change, Position, Row, Table, Within};
use figvine_postgres::decode::{self, Frame, Message, Old};
use figvine_postgres::lsn::Lsn;

/// A change with all that tells it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The transaction's place.
    pub(crate) transaction: String,
    pub(crate) ordinal: u64,
    pub(crate) part: u32,
    pub(crate) last: bool,
    /// The place behind it.
    pub(crate) position: Position,
    /// The tables it is of.
    pub(crate) table: Option<String>,
    pub(crate) is_shape: bool,
    /// What it says.
    pub(crate) text: String,
}

/// The changes of all batches.
pub(crate) fn seen(batches: &[Batch]) -> Vec<Seen> {
    batches.iter().flat_map(|batch| batch.changes.iter().map(move |change| one(batch, change))).collect()
}

/// The place behind a change: within its transaction, or, for the last, behind it.
pub(crate) fn position(batch: &Batch, change: &Change) -> Position {
    let transaction = batch.transaction(change).expect("a change has a transaction");
    if change.last {
        Position::between(transaction.end.clone().expect("the end of a transaction whose last change is there"))
    } else {
        let within = Within { ordinal: change.ordinal, part: change.part };
        Position { log: transaction.start.clone(), within: Some(within) }
    }
}

fn one(batch: &Batch, change: &Change) -> Seen {
    let transaction = batch.transaction(change).expect("a change has a transaction");
    let table = match &change.body {
        Body::Row(row) => Some(row.table),
        Body::Truncate { table } | Body::Shape { table } => Some(*table),
        Body::Message { .. } => None,
    };
    let table = table.map(|table| batch.table(table).expect("a change has a table"));
    let mut text = String::new();
    match &change.body {
        Body::Row(row) => {
            let table = table.expect("a row has a table");
            write!(text, "{:?} {}", row.op, table.qualified_name()).expect("text");
            for (name, half) in [("before", row.before), ("after", row.after), ("rekeyed", row.rekeyed)] {
                if let Some(half) = half {
                    let key = if name == "before" && row.before_is_key { " (key)" } else { "" };
                    write!(text, "\n      {name}{key} {}", named(batch, table, half)).expect("text");
                }
            }
        }
        Body::Truncate { .. } => text.push_str("Truncate"),
        Body::Shape { .. } => {
            let table = table.expect("a shape has a table");
            let columns = table.columns.iter().map(|column| format!("{:?} {}", column.name, column.type_name));
            let columns: Vec<String> = columns.collect();
            write!(text, "Shape ({}) key {:?}", columns.join(", "), table.key).expect("text");
        }
        Body::Message { prefix, content } => {
            let (prefix, content) = (value(&batch.data, prefix), value(&batch.data, content));
            write!(text, "Message {prefix} {content}").expect("text");
        }
    }
    Seen {
        transaction: transaction.position.to_string(),
        ordinal: change.ordinal,
        part: change.part,
        last: change.last,
        position: position(batch, change),
        table: table.map(|table| table.qualified_name()),
        is_shape: matches!(change.body, Body::Shape { .. }),
        text,
    }
}

fn named(batch: &Batch, table: &Table, row: Row) -> String {
    let cells = batch.row(row);
    assert_eq!(cells.len(), table.columns.len(), "a row has a cell per column");
    let cells = cells.iter().zip(&table.columns);
    let cells: Vec<String> = cells.map(|(c, column)| format!("{:?}={}", column.name, cell(&batch.data, c))).collect();
    cells.join(" ")
}

fn cell(data: &[u8], cell: &Cell) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Unchanged => "unchanged".to_owned(),
        Cell::Value(range) => value(data, range),
    }
}

fn value(data: &[u8], range: &Range<u32>) -> String {
    let bytes = &data[range.start as usize..range.end as usize];
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(40) {
        None => format!("{text:?}"),
        Some((at, _)) => format!("{:?}... {} bytes", &text[..at], bytes.len()),
    }
}

/// The messages of a capture, one per line.
pub(crate) fn messages(capture: &Bytes, frames: &[Bytes]) -> String {
    let mut out = String::new();
    let mut base = 0;
    for frame in frames {
        let payload = u32::try_from(base + 5).expect("a short capture");
        base += frame.len();
        let line = match decode::frame(&frame[5..], payload).expect("a frame of a capture") {
            Frame::Keepalive { wal_end, sent_at: _, reply } => format!("keepalive {} reply {reply}", Lsn(wal_end)),
            Frame::XLogData { start, message, .. } => {
                let mut cells = Vec::new();
                let message = decode::message(message, &mut cells).expect("a message of a capture");
                format!("{:<10} {}", Lsn(start).to_string(), shown(capture, &message, &cells))
            }
        };
        out.push_str(&line);
        out.push('\n');
    }
    assert_eq!(base, capture.len(), "a capture is whole frames");
    out
}

fn shown(data: &[u8], message: &Message<'_>, cells: &[Cell]) -> String {
    let row = |row: &Row| {
        let cells = &cells[row.first as usize..(row.first + row.len) as usize];
        let cells: Vec<String> = cells.iter().map(|c| cell(data, c)).collect();
        format!("({})", cells.join(", "))
    };
    let old = |old: &Old| format!("{} {}", if old.is_key { "key" } else { "old" }, row(&old.row));
    match message {
        Message::Begin { commit_lsn, committed_at, xid } => {
            format!("begin {} xid {xid} at {committed_at}", Lsn(*commit_lsn))
        }
        Message::Commit { commit_lsn, end_lsn, committed_at } => {
            format!("commit {} end {} at {committed_at}", Lsn(*commit_lsn), Lsn(*end_lsn))
        }
        Message::Origin { name } => format!("origin {name:?}"),
        Message::Relation(relation) => {
            let columns = relation.columns.iter().map(|column| {
                let identity = if column.identity { "*" } else { "" };
                format!("{identity}{:?} {}:{}", column.name, column.type_oid, column.modifier)
            });
            let columns: Vec<String> = columns.collect();
            let (schema, name, identity) = (relation.schema, relation.name, char::from(relation.identity));
            format!("relation {} {schema:?}.{name:?} identity {identity} ({})", relation.oid, columns.join(", "))
        }
        Message::Type { oid } => format!("type {oid}"),
        Message::Insert { relation, new } => format!("insert {relation} {}", row(new)),
        Message::Update { relation, old: None, new } => format!("update {relation} new {}", row(new)),
        Message::Update { relation, old: Some(before), new } => {
            format!("update {relation} {} new {}", old(before), row(new))
        }
        Message::Delete { relation, old: before } => format!("delete {relation} {}", old(before)),
        Message::Truncate { relations } => format!("truncate {:?}", relations.iter().collect::<Vec<_>>()),
        Message::Logical { transactional, lsn, prefix, content } => {
            let (prefix, content) = (value(data, prefix), value(data, content));
            format!("message {} transactional {transactional} {prefix} {content}", Lsn(*lsn))
        }
    }
}

/// Batches, with everything in them.
pub(crate) fn batches(batches: &[Batch]) -> String {
    let mut out = String::new();
    for batch in batches {
        let end = batch.end.as_ref().map_or("none".to_owned(), ToString::to_string);
        writeln!(out, "batch end {end} written_at {:?}", batch.written_at).expect("text");
        let mut transaction = None;
        for change in &batch.changes {
            if transaction.replace(change.transaction) != Some(change.transaction) {
                let t = batch.transaction(change).expect("a change has a transaction");
                let end = t.end.as_deref().unwrap_or("none");
                write!(out, "  transaction {} at {} = {}", t.id, t.position, t.sequence).expect("text");
                write!(out, " committed {} start {} end {end}", t.committed_at, t.start).expect("text");
                writeln!(out, "{}", t.origin.as_deref().map(|o| format!(" origin {o:?}")).unwrap_or_default())
                    .expect("text");
            }
            let seen = one(batch, change);
            let last = if seen.last { " last" } else { "" };
            let table = match &change.body {
                Body::Truncate { .. } | Body::Shape { .. } => format!(" of {}", seen.table.unwrap_or_default()),
                _ => String::new(),
            };
            writeln!(out, "    {}.{}{last} {}{table}", seen.ordinal, seen.part, seen.text).expect("text");
        }
    }
    out
}
