//! Outboxes: events that the application wrote itself, into a table or into the log.
//!
//! An inserted row, or a message, is one event; the application's own removal of the row says nothing.

use std::ops::Range;

use figvine_change::{Cell, Table};
use globset::GlobSet;

use super::error::Fault;
use super::plan::column_of;
use super::rows::RowRef;

/// A source's outbox.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    /// The table: `schema.table`.
    pub table: Option<(Box<str>, Box<str>)>,
    /// Its columns.
    pub columns: OutboxColumns,
    /// Prefixes of messages that are events.
    pub messages: GlobSet,
}

/// The columns of an outbox table, by default as Debezium has them.
#[derive(Debug, Clone)]
pub struct OutboxColumns {
    /// The type of the event.
    pub event_type: Box<str>,
    /// What it is keyed by.
    pub key: Box<str>,
    /// Its body: JSON as it is; any other text as a string.
    pub payload: Box<str>,
}

impl Default for OutboxColumns {
    fn default() -> Self {
        Self { event_type: "type".into(), key: "aggregateid".into(), payload: "payload".into() }
    }
}

impl Outbox {
    pub(super) fn is_table(&self, schema: &str, name: &str) -> bool {
        self.table.as_ref().is_some_and(|(s, n)| **s == *schema && **n == *name)
    }
}

/// Where its columns stand.
#[derive(Debug)]
pub(super) struct OutboxPlan {
    event_type: usize,
    key: usize,
    payload: usize,
}

/// One event of an outbox; the key and the body stand in the bytes.
pub(super) struct Sent {
    pub(super) event_type: String,
    pub(super) key: Range<usize>,
    pub(super) body: Range<usize>,
}

impl OutboxPlan {
    pub(super) fn new(outbox: &Outbox, table: &Table) -> Result<Self, String> {
        let OutboxColumns { event_type, key, payload } = &outbox.columns;
        Ok(Self {
            event_type: column_of(table, event_type)?,
            key: column_of(table, key)?,
            payload: column_of(table, payload)?,
        })
    }

    /// The event of an inserted row.
    pub(super) fn sent(&self, table: &Table, row: RowRef<'_>, bytes: &mut Vec<u8>) -> Result<Sent, Fault> {
        let json = |column: usize, bytes: &mut Vec<u8>| {
            let start = bytes.len();
            match (row.cells.get(column), table.columns.get(column)) {
                (Some(cell @ Cell::Value(_)), Some(described)) => {
                    let raw = row.bytes(cell).unwrap_or_default();
                    described.codec.write_json(raw, bytes).map_err(|source| Fault::Value { column, source })?;
                }
                _ => bytes.extend_from_slice(b"null"),
            }
            Ok(start..bytes.len())
        };
        let text = |range: Range<usize>, bytes: &[u8]| {
            let json = bytes.get(range).unwrap_or_default();
            match serde_json::from_slice::<serde_json::Value>(json) {
                Ok(serde_json::Value::String(text)) => Ok(text),
                Ok(serde_json::Value::Number(number)) => Ok(number.to_string()),
                _ => Err(Fault::Outbox("its type and its key are texts that are not null")),
            }
        };
        let start = bytes.len();
        let (event_type, key) = (json(self.event_type, bytes)?, json(self.key, bytes)?);
        let (event_type, key) = (text(event_type, bytes)?, text(key, bytes)?);
        bytes.truncate(start);
        bytes.extend_from_slice(key.as_bytes());
        let key = start..bytes.len();
        let body = json(self.payload, bytes)?;
        Ok(Sent { event_type, key, body: unwrapped(body, bytes) })
    }
}

/// The event of a message: `{"type": .., "key": .., "payload": ..}`.
pub(super) fn message(content: &[u8], bytes: &mut Vec<u8>) -> Result<Sent, Fault> {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(rename = "type", alias = "eventType")]
        event_type: String,
        #[serde(alias = "aggregateid", alias = "aggregateId")]
        key: Option<serde_json::Value>,
        #[serde(borrow)]
        payload: Option<&'a serde_json::value::RawValue>,
    }
    let unreadable = Fault::Outbox("a message of the outbox is JSON with type, key and payload");
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(content) else { return Err(unreadable) };
    let start = bytes.len();
    match envelope.key {
        Some(serde_json::Value::String(text)) => bytes.extend_from_slice(text.as_bytes()),
        Some(serde_json::Value::Number(number)) => bytes.extend_from_slice(number.to_string().as_bytes()),
        None => {}
        Some(_) => return Err(unreadable),
    }
    let key = start..bytes.len();
    bytes.extend_from_slice(envelope.payload.map_or("null", |payload| payload.get()).as_bytes());
    Ok(Sent { event_type: envelope.event_type, body: key.end..bytes.len(), key })
}

/// A payload that is JSON inside of a text column is JSON; what is none stays a string.
fn unwrapped(body: Range<usize>, bytes: &mut Vec<u8>) -> Range<usize> {
    let inside = bytes.get(body.clone()).and_then(|json| serde_json::from_slice::<String>(json).ok());
    match inside {
        Some(text) if serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok() => {
            bytes.truncate(body.start);
            bytes.extend_from_slice(text.trim().as_bytes());
            body.start..bytes.len()
        }
        _ => body,
    }
}
