//! Debezium's envelope: the change event's value as its connectors give it, with `schemas.enable=false`.
//!
//! How values look is the connectors' matter (`figvine_change::debezium`); here is what stands around them, and the key,
//! which is a message's header.

use figvine_change::debezium::{Binary, binary};
use figvine_change::{Cell, Engine, Table, Transaction, json};

use super::body::{Fault, RowView, close_object};
use super::envelope::{Attributes, Envelope, Shape};
use super::read::ReadPlace;
use super::texts::Kind;

pub(super) const ENVELOPE: Envelope =
    Envelope { headers: b"", attributes: Attributes::None, shape: Shape::Debezium, close: b"" };

/// What a row's event tells beside its body.
#[derive(Debug, Default)]
pub(super) struct Extras {
    /// Of the halves of a key change: the key of the other.
    other: Vec<u8>,
    /// Names of columns whose values the log did not carry, as a JSON array; empty without any.
    unchanged: Vec<u8>,
}

impl Extras {
    pub(super) fn clear(&mut self) {
        self.other.clear();
        self.unchanged.clear();
    }

    /// Notes what is to be told of a row.
    pub(super) fn load(&mut self, view: &RowView<'_>) -> Result<(), Fault> {
        self.clear();
        if let Some(other) = view.rekeyed {
            view.write_key_object([Some(other), view.before, None], &mut self.other, |_| {})?;
        }
        let cells = view.after.unwrap_or_default();
        for (column, (cell, text)) in cells.iter().zip(&view.table.columns).enumerate() {
            if *cell == Cell::Unchanged && view.carried_elsewhere(column, text).is_none() {
                self.unchanged.push(if self.unchanged.is_empty() { b'[' } else { b',' });
                self.unchanged.extend_from_slice(text.quoted_name());
            }
        }
        if !self.unchanged.is_empty() {
            self.unchanged.push(b']');
        }
        Ok(())
    }
}

/// Appends header lines: the key, and what a row's event tells beside its body.
pub(super) fn write_headers(kind: Option<Kind>, key: &[u8], extras: &Extras, out: &mut Vec<u8>) {
    let other: &[u8] = if kind == Some(Kind::Insert) { b"__debezium.oldkey: " } else { b"__debezium.newkey: " };
    for (name, value) in
        [(&b"Figvine-Key: "[..], key), (other, &extras.other), (b"Figvine-Unchanged: ", &extras.unchanged)]
    {
        if !value.is_empty() {
            out.extend_from_slice(name);
            write_ascii(value, out);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends JSON as a header's value: the same JSON in ASCII.
fn write_ascii(json: &[u8], out: &mut Vec<u8>) {
    for character in String::from_utf8_lossy(json).chars() {
        if matches!(character, ' '..='~') {
            out.push(character as u8);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
            }
        }
    }
}

/// Appends a row's body up to its block `source`. Returns how many values the log did not carry.
pub(super) fn write_row(view: &RowView<'_>, out: &mut Vec<u8>) -> Result<u64, Fault> {
    out.extend_from_slice(b"{\"before\":");
    match view.before.filter(|_| view.kind != Kind::Insert) {
        None => out.extend_from_slice(b"null"),
        Some(cells) => {
            let start = out.len();
            for (column, (cell, text)) in cells.iter().zip(&view.table.columns).enumerate() {
                out.extend_from_slice(&text.name);
                if view.before_is_key && !text.is_key {
                    out.extend_from_slice(b"null");
                } else {
                    write_cell(view, column, cell, out)?;
                }
            }
            close_object(start, out);
        }
    }
    out.extend_from_slice(b",\"after\":");
    let mut not_carried = 0;
    match view.after {
        None => out.extend_from_slice(b"null"),
        Some(cells) => {
            let start = out.len();
            for (column, (cell, text)) in cells.iter().zip(&view.table.columns).enumerate() {
                out.extend_from_slice(&text.name);
                let found = if *cell == Cell::Unchanged { view.carried_elsewhere(column, text) } else { Some(cell) };
                not_carried += u64::from(found.is_none());
                write_cell(view, column, found.unwrap_or(cell), out)?;
            }
            close_object(start, out);
        }
    }
    out.push(b',');
    Ok(not_carried)
}

fn write_cell(view: &RowView<'_>, column: usize, cell: &Cell, out: &mut Vec<u8>) -> Result<(), Fault> {
    match (cell, view.table.table.columns.get(column)) {
        (Cell::Unchanged, Some(described)) => {
            described.codec.write_unavailable(out);
            Ok(())
        }
        _ => view.write_cell(column, cell, out),
    }
}

/// Appends a truncate's body up to its block `source`.
pub(super) fn write_truncate(out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"before\":null,\"after\":null,");
}

/// Appends a logical message's body up to its block `source`.
pub(super) fn write_message(prefix: &[u8], content: &[u8], mode: Binary, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"message\":{\"prefix\":");
    json::write_string(prefix, out);
    out.extend_from_slice(b",\"content\":");
    binary::write(content, mode, out);
    out.extend_from_slice(b"},");
}

/// Writes a logical message's key.
pub(super) fn write_message_key(prefix: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(b"{\"prefix\":");
    json::write_string(prefix, out);
    out.push(b'}');
}

/// Closes the body behind the transaction's part of its block `source`.
pub(super) fn close(op: u8, is_read: bool, row: Option<u64>, times: &[u8], out: &mut Vec<u8>) {
    // Debezium's word for rows that are read while the stream goes on.
    out.extend_from_slice(if is_read { b"\"incremental\"" } else { b"null" });
    if let Some(row) = row {
        out.extend_from_slice(b",\"row\":");
        json::write_uint(row, out);
    }
    out.extend_from_slice(b"},\"transaction\":null,\"op\":\"");
    out.push(op);
    out.extend_from_slice(b"\",");
    out.extend_from_slice(times);
    out.push(b'}');
}

/// What is the same for all events of a source.
#[derive(Debug)]
pub(super) struct Origin {
    /// `"source":{"version":...,"connector":...,"name":...,"db":`
    head: Vec<u8>,
    /// The database, of a source that has one.
    database: Box<str>,
    pub(super) is_postgres: bool,
    /// How the content of messages is written.
    pub(super) binary: Binary,
}

impl Origin {
    pub(super) fn new(engine: &Engine, topic_prefix: &str, binary: Binary) -> Self {
        let is_postgres = engine.name == "postgres";
        let mut head = Vec::new();
        for (name, value) in [
            (&b"\"source\":{\"version\":"[..], env!("CARGO_PKG_VERSION")),
            (b",\"connector\":", if is_postgres { "postgresql" } else { engine.name }),
            (b",\"name\":", topic_prefix),
        ] {
            head.extend_from_slice(name);
            json::write_str(value, &mut head);
        }
        head.extend_from_slice(b",\"db\":");
        Self { head, database: engine.database.clone(), is_postgres, binary }
    }

    /// The block `source` up to the transaction's part, of events of a table; of none for logical messages.
    pub(super) fn of_table(&self, table: Option<&Table>) -> Vec<u8> {
        let (schema, name) = table.map_or(("", ""), |table| (&*table.schema, &*table.name));
        let mut origin = self.head.clone();
        if self.is_postgres {
            json::write_str(&self.database, &mut origin);
            origin.extend_from_slice(b",\"schema\":");
        }
        json::write_str(schema, &mut origin);
        origin.extend_from_slice(b",\"table\":");
        json::write_str(name, &mut origin);
        origin.push(b',');
        origin
    }

    /// Writes the transaction's part of the block `source`, up to the value of `snapshot`.
    pub(super) fn write_transaction(&self, transaction: &Transaction, times: &[u8], out: &mut Vec<u8>) {
        self.write_place(&transaction.position, Some(transaction), times, out);
    }

    /// The same of rows of a backfill, which no transaction made.
    pub(super) fn write_read(&self, place: &ReadPlace<'_>, times: &[u8], out: &mut Vec<u8>) {
        self.write_place(&place.position.log, None, times, out);
    }

    fn write_place(&self, place: &str, transaction: Option<&Transaction>, times: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(times);
        out.extend_from_slice(b",\"sequence\":");
        if self.is_postgres {
            let lsn = lsn(place);
            match lsn {
                Some(lsn) => {
                    out.extend_from_slice(b"\"[null,\\\"");
                    json::write_uint(lsn, out);
                    out.extend_from_slice(b"\\\"]\"");
                }
                None => out.extend_from_slice(b"null"),
            }
            write_number(b",\"txId\":", transaction.and_then(|transaction| transaction.id.parse().ok()), out);
            write_number(b",\"lsn\":", lsn, out);
            out.extend_from_slice(b",\"xmin\":null,\"origin\":");
            match transaction.and_then(|transaction| transaction.origin.as_deref()) {
                Some(origin) => json::write_str(origin, out),
                None => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(b",\"origin_lsn\":null");
        } else {
            out.extend_from_slice(b"null");
            let file = transaction.and_then(|transaction| transaction.file.as_ref());
            write_number(b",\"server_id\":", Some(file.map_or(0, |file| file.server_id.into())), out);
            out.extend_from_slice(b",\"gtid\":");
            // A transaction without a GTID is called by its place, `file:offset`.
            match transaction.map(|transaction| &*transaction.id).filter(|id| is_gtid(id)) {
                Some(gtid) => json::write_str(gtid, out),
                None => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(b",\"file\":");
            json::write_str(file.map_or("", |file| &file.name), out);
            write_number(b",\"pos\":", Some(file.map_or(0, |file| file.offset)), out);
            out.extend_from_slice(b",\"thread\":null,\"query\":null");
        }
        out.extend_from_slice(b",\"snapshot\":");
    }
}

fn write_number(name: &[u8], number: Option<u64>, out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    match number {
        Some(number) => json::write_uint(number, out),
        None => out.extend_from_slice(b"null"),
    }
}

/// Whether it begins with a server's UUID and a colon.
fn is_gtid(id: &str) -> bool {
    id.split_once(':').is_some_and(|(server, _)| server.len() == 36 && server.split('-').count() == 5)
}

/// Where a place of PostgreSQL's log ends in `16/B3748`, the same as one number.
fn lsn(place: &str) -> Option<u64> {
    let mut parts = place.rsplitn(3, '/');
    let (low, high) = (parts.next()?, parts.next()?);
    let part = |digits| u32::from_str_radix(digits, 16).ok().map(u64::from);
    Some(part(high)? << 32 | part(low)?)
}

/// Writes a time in microseconds since 1970 in Debezium's three units.
pub(super) fn write_times(micros: i64, out: &mut Vec<u8>) {
    out.clear();
    for (name, number) in [
        (&b"\"ts_ms\":"[..], micros.div_euclid(1000)),
        (b",\"ts_us\":", micros),
        (b",\"ts_ns\":", micros.saturating_mul(1000)),
    ] {
        out.extend_from_slice(name);
        json::write_int(number, out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_lsn_is_one_number() {
        assert_eq!(lsn("16/B374D848"), Some(0x16_B374_D848));
        assert_eq!(lsn("7412/1/0/16B3748"), Some(0x16B_3748));
        assert_eq!(lsn("nothing"), None);
    }

    proptest! {
        #[test]
        fn any_key_is_one_line_of_ascii_and_reads_back(text in any::<String>()) {
            let value = Value::from(text);
            let mut out = Vec::new();
            write_ascii(value.to_string().as_bytes(), &mut out);
            prop_assert!(out.iter().all(|byte| (b' '..=b'~').contains(byte)));
            prop_assert_eq!(serde_json::from_slice::<Value>(&out).expect("JSON"), value);
        }
    }
}
