//! Bodies: a change as JSON, members in a fixed order, no blanks.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use figvine_change::{Batch, Cell, Op, Row, RowChange, Table, ValueError, json};

use super::identity::Key;
use super::texts::{ColumnText, Kind, TableText};
use crate::schema::Refusal;

/// Why a change has no event; the caller knows which change it was.
#[derive(Debug)]
pub(super) enum Fault {
    /// A value is none of its column's type.
    Value { column: usize, source: ValueError },
    /// The table has no key.
    NoKey,
    /// The log carried the value of a key's column nowhere.
    KeyNotCarried { column: usize },
    /// The batch contradicts itself.
    Malformed(&'static str),
    /// The event is larger than may be sent: headers and body, in bytes.
    TooLarge { size: usize },
    /// The table's shape breaks its event type's schema, and may not.
    Drift(Arc<Refusal>),
}

/// What is told of an event that is missing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missing<'a> {
    /// What it would have told.
    pub(super) op: &'static str,
    /// Why it does not, in one word.
    pub(super) reason: &'static str,
    /// The code of the error that it would have been.
    pub(super) code: &'static str,
    /// The dead letter's id.
    pub(super) letter: &'a str,
}

impl Missing<'_> {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in [
            (&b"{\"op\":"[..], self.op),
            (b",\"reason\":", self.reason),
            (b",\"code\":", self.code),
            (b",\"dead_letter\":", self.letter),
        ] {
            out.extend_from_slice(name);
            json::write_str(value, out);
        }
        out.push(b'}');
    }
}

/// A row change with its rows at hand, and what is told of it.
pub(super) struct RowView<'a> {
    pub(super) batch: &'a Batch,
    pub(super) table: &'a TableText,
    pub(super) kind: Kind,
    pub(super) before: Option<&'a [Cell]>,
    pub(super) before_is_key: bool,
    pub(super) after: Option<&'a [Cell]>,
    pub(super) rekeyed: Option<&'a [Cell]>,
}

impl<'a> RowView<'a> {
    pub(super) fn new(batch: &'a Batch, table: &'a TableText, change: &RowChange) -> Result<Self, Fault> {
        let row = |row: Option<Row>| match row {
            None => Ok(None),
            Some(row) => {
                let cells = batch.row(row);
                if cells.len() == table.columns.len() {
                    Ok(Some(cells))
                } else {
                    Err(Fault::Malformed("a row has not as many cells as its table has columns"))
                }
            }
        };
        let view = Self {
            batch,
            table,
            kind: Kind::of(change.op),
            before: row(change.before)?,
            before_is_key: change.before_is_key,
            after: if matches!(change.op, Op::Delete | Op::Tombstone) { None } else { row(change.after)? },
            rekeyed: row(change.rekeyed)?,
        };
        // A table without columns has nothing but its whole row to be told apart by.
        if table.table.key.is_empty() && !table.columns.is_empty() {
            return Err(Fault::NoKey);
        }
        match (view.kind, view.before, view.after) {
            (Kind::Delete | Kind::Tombstone, None, _) => Err(Fault::Malformed("a delete has no row before")),
            (Kind::Insert | Kind::Update | Kind::Read, _, None) => Err(Fault::Malformed("there is no row after")),
            _ => Ok(view),
        }
    }

    /// Writes the event's key: that of the row after, of a delete that of the row before.
    pub(super) fn write_key(&self, key: &mut Key) -> Result<(), Fault> {
        key.clear();
        let rows = match self.kind {
            Kind::Delete | Kind::Tombstone => [self.before, None, None],
            _ => [self.after, self.before, self.rekeyed],
        };
        let Key { object, values, .. } = key;
        self.write_key_object(rows, object, |range| values.push(range))?;
        key.finish();
        Ok(())
    }

    /// Appends a key as an object; each value comes from the first row that carries it.
    pub(super) fn write_key_object(
        &self,
        rows: [Option<&[Cell]>; 3],
        out: &mut Vec<u8>,
        mut value_at: impl FnMut(std::ops::Range<usize>),
    ) -> Result<(), Fault> {
        let start = out.len();
        for &column in &self.table.table.key {
            let Some(text) = self.table.columns.get(column) else {
                return Err(Fault::Malformed("a key names a column that the table does not have"));
            };
            let cell = rows.iter().flatten().filter_map(|row| row.get(column)).find(|cell| **cell != Cell::Unchanged);
            out.extend_from_slice(&text.name);
            let value = out.len();
            match cell {
                None | Some(Cell::Unchanged) => return Err(Fault::KeyNotCarried { column }),
                Some(cell) => self.write_cell(column, cell, out)?,
            }
            value_at(value..out.len());
        }
        close_object(start, out);
        Ok(())
    }

    /// Appends a value, or `null`.
    pub(super) fn write_cell(&self, column: usize, cell: &Cell, out: &mut Vec<u8>) -> Result<(), Fault> {
        let Cell::Value(range) = cell else {
            out.extend_from_slice(b"null");
            return Ok(());
        };
        let raw = self.batch.data.get(range.start as usize..range.end as usize);
        let raw = raw.ok_or(Fault::Malformed("a cell lies outside the batch's data"))?;
        match self.table.table.columns.get(column) {
            Some(described) => described.codec.write_json(raw, out).map_err(|source| Fault::Value { column, source }),
            None => Err(Fault::Malformed("a row has not as many cells as its table has columns")),
        }
    }

    /// Appends the body up to its block `source`; `unchanged` is scratch.
    /// Returns how many values the log did not carry.
    pub(super) fn write_body(&self, key: &Key, unchanged: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<u64, Fault> {
        out.extend_from_slice(b"{\"op\":\"");
        out.extend_from_slice(self.kind.op().as_bytes());
        out.extend_from_slice(b"\",\"key\":");
        out.extend_from_slice(&key.object);
        out.extend_from_slice(b",\"before\":");
        match self.before {
            None => out.extend_from_slice(b"null"),
            Some(cells) => self.write_before(cells, out)?,
        }
        out.extend_from_slice(b",\"after\":");
        let mut not_carried = 0;
        match self.after {
            None => out.extend_from_slice(b"null"),
            Some(cells) => not_carried = self.write_after(cells, unchanged, out)?,
        }
        if not_carried > 0 {
            out.extend_from_slice(b",\"unchanged\":[");
            out.extend_from_slice(unchanged);
            out.push(b']');
        }
        if let Some(other) = self.rekeyed {
            out.extend_from_slice(b",\"rekeyed\":");
            self.write_key_object([Some(other), self.before, None], out, |_| {})?;
        }
        out.push(b',');
        Ok(not_carried)
    }

    fn write_before(&self, cells: &[Cell], out: &mut Vec<u8>) -> Result<(), Fault> {
        let start = out.len();
        for (column, (cell, text)) in cells.iter().zip(&self.table.columns).enumerate() {
            if *cell != Cell::Unchanged && (text.is_key || !self.before_is_key) {
                out.extend_from_slice(&text.name);
                self.write_cell(column, cell, out)?;
            }
        }
        close_object(start, out);
        Ok(())
    }

    fn write_after(&self, cells: &[Cell], unchanged: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<u64, Fault> {
        unchanged.clear();
        let mut not_carried = 0;
        let start = out.len();
        for (column, (cell, text)) in cells.iter().zip(&self.table.columns).enumerate() {
            let cell = if *cell == Cell::Unchanged { self.carried_elsewhere(column, text) } else { Some(cell) };
            if let Some(cell) = cell {
                out.extend_from_slice(&text.name);
                self.write_cell(column, cell, out)?;
            } else {
                if not_carried > 0 {
                    unchanged.push(b',');
                }
                unchanged.extend_from_slice(text.quoted_name());
                not_carried += 1;
            }
        }
        close_object(start, out);
        Ok(not_carried)
    }

    /// The value of a column that the row after does not carry: what was there before holds still.
    pub(super) fn carried_elsewhere(&self, column: usize, text: &ColumnText) -> Option<&'a Cell> {
        let before = self.before.and_then(|cells| cells.get(column));
        match before {
            Some(cell @ (Cell::Value(_) | Cell::Null)) if text.is_key || !self.before_is_key => Some(cell),
            // The inserted half of a key change has its row before here. Only the key's
            // columns may be known, and the others `Null` without saying so.
            _ => {
                let other = if self.kind == Kind::Insert { self.rekeyed } else { None };
                other.and_then(|cells| cells.get(column)).filter(|cell| matches!(cell, Cell::Value(_)))
            }
        }
    }
}

/// Makes an object of members that each begin with a comma.
pub(super) fn close_object(start: usize, out: &mut Vec<u8>) {
    match out.get_mut(start) {
        Some(first) => *first = b'{',
        None => out.push(b'{'),
    }
    out.push(b'}');
}

/// Appends a truncate's body up to its block `source`.
pub(super) fn write_truncate(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"op\":\"truncate\",\"key\":null,\"before\":null,\"after\":null,");
}

/// Appends, up to the block `source`, the body of what stands in the place of an event; `key` is an object, where it is known.
pub(super) fn write_missing(key: Option<&[u8]>, missing: &Missing<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"op\":\"missing\",\"key\":");
    out.extend_from_slice(key.unwrap_or(b"null"));
    out.extend_from_slice(b",\"before\":null,\"after\":null,\"missing\":");
    missing.write(out);
    out.push(b',');
}

/// Appends a message's body up to its block `source`: the content as a string where it is UTF-8, else as base64.
pub(super) fn write_message(prefix: &[u8], content: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"op\":\"message\",\"prefix\":");
    json::write_string(prefix, out);
    match std::str::from_utf8(content) {
        Ok(text) => {
            out.extend_from_slice(b",\"content\":");
            json::write_str(text, out);
        }
        Err(_) => {
            out.extend_from_slice(b",\"content_base64\":\"");
            let start = out.len();
            out.resize(start + content.len().div_ceil(3) * 4, 0);
            let written = out.get_mut(start..).and_then(|to| STANDARD.encode_slice(content, to).ok());
            out.truncate(start + written.unwrap_or_default());
            out.push(b'"');
        }
    }
    out.push(b',');
}

/// Appends the body of a change of shape up to its block `source`.
pub(super) fn write_schema_change(name: &str, old: &Table, new: &Table, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"op\":\"schema_change\",\"table\":");
    json::write_str(name, out);
    out.extend_from_slice(b",\"old\":");
    write_shape(old, out);
    out.extend_from_slice(b",\"new\":");
    write_shape(new, out);
    out.extend_from_slice(b",\"ddl\":null,");
}

fn write_shape(table: &Table, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"columns\":[");
    for (place, column) in table.columns.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        json::write_str(&column.name, out);
        out.extend_from_slice(b",\"type\":");
        json::write_str(&column.type_name, out);
        out.push(b'}');
    }
    out.extend_from_slice(b"],\"key\":[");
    for (place, column) in table.key.iter().filter_map(|&column| table.columns.get(column)).enumerate() {
        if place > 0 {
            out.push(b',');
        }
        json::write_str(&column.name, out);
    }
    out.extend_from_slice(b"]}");
}
