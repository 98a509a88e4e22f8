//! The encoder: batches of changes in, events out.
//!
//! This is the path of every row. Everything is appended to the one buffer of
//! [`Events`]; what many events have in common is made once per table and once
//! per transaction (see `texts`), and nothing is allocated per row.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use figvine_change::{Batch, Body, Change, Engine, Position, Table, Transaction, ValueError, Within, json};

use super::body::{Fault, RowView, write_message, write_schema_change, write_truncate};
use super::debezium::{self, Extras};
use super::envelope::{Attributes, Dress, Shape};
use super::identity::{Identity, Key, partition};
use super::number::write_padded;
use super::read::ReadPlace;
use super::subject::write_token;
use super::texts::{EventType, Kind, SourceText, TableText, TransactionText};
use super::touch::{RowId, Touch, Touched};
use super::{EventAt, Events, Settings, TemplateError};
use crate::checkpoint::{self, Writer};
use crate::schema::{Refusal, Schemas};

/// What the wire adds to the headers: the line `NATS/1.0` before and the blank line behind them.
const HEADER_FRAME: usize = "NATS/1.0\r\n\r\n".len();

/// A change that has no event.
///
/// The identity is the event's `ce-id`; no error tells values of rows.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A value is none of its column's type.
    #[error("change {identity}: column {column} of table {table} holds a value that cannot be encoded")]
    Value {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// The column's name.
        column: Box<str>,
        /// What is wrong with it.
        source: ValueError,
    },
    /// The table has no key, and no setting names one.
    #[error("change {identity}: table {table} has no key")]
    NoKey {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
    },
    /// The log carried the value of a key's column neither in the row after nor in the row before.
    #[error("change {identity}: the log does not carry column {column} of the key of table {table}")]
    KeyNotCarried {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// The column's name.
        column: Box<str>,
    },
    /// The event is larger than the server takes.
    #[error("change {identity} of {table}: the event has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The change.
        identity: Identity,
        /// `schema.table`, or `a message`.
        table: Box<str>,
        /// Headers and body, in bytes.
        size: usize,
        /// The most that may be sent, in bytes.
        limit: usize,
    },
    /// The table has another shape, which its event type's schema may not follow.
    #[error("change {identity} of table {table}: {refusal}")]
    Drift {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// What breaks.
        refusal: Arc<Refusal>,
    },
    /// The batch contradicts itself: a connector's fault.
    #[error("change {identity}: malformed batch: {what}")]
    Malformed {
        /// The change.
        identity: Identity,
        /// What does not hold.
        what: &'static str,
    },
}

impl EncodeError {
    /// The change that has no event.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        match self {
            Self::Value { identity, .. }
            | Self::NoKey { identity, .. }
            | Self::KeyNotCarried { identity, .. }
            | Self::TooLarge { identity, .. }
            | Self::Drift { identity, .. }
            | Self::Malformed { identity, .. } => identity,
        }
    }
}

/// Figures of one batch. Those of a batch that failed are told with the next one's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Events appended.
    pub events: u64,
    /// Values that the log did not carry: names in `unchanged`.
    pub unchanged_values: u64,
    /// Events by table and operation, each that occurred once.
    pub counts: Vec<Count>,
    /// Row changes of each transaction whose last change was seen, as far as this encoder saw them.
    pub completed_rows: Vec<u64>,
    /// The oldest commit time of the changes, in microseconds since 1970, UTC.
    pub oldest_committed_at: Option<i64>,
    /// The newest.
    pub newest_committed_at: Option<i64>,
}

/// How often something happened to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    /// `schema.table`; empty for messages.
    pub table: Arc<str>,
    /// `insert update delete read truncate schema_change message`.
    pub op: &'static str,
    /// The type of the events (`ce-type`).
    pub event_type: Arc<str>,
    /// How many changes, and events: each of these changes is one event.
    pub number: u64,
}

/// Makes events of changes, for one session of one source.
pub struct Encoder {
    pub(super) source: SourceText,
    pub(super) max_payload: usize,
    pub(super) tables: Tables,
    pub(super) transaction: TransactionText,
    /// Position of the transaction whose rows are counted.
    counted: String,
    counted_rows: u64,
    pub(super) scratch: Scratch,
    figures: Encoded,
    messages: u64,
    /// Tables, by `schema.table`, of which is noted what is touched.
    watched: HashSet<Arc<str>>,
    touched: Vec<Touched>,
}

#[derive(Default)]
pub(super) struct Scratch {
    pub(super) key: Key,
    pub(super) unchanged: Vec<u8>,
    /// For Debezium's envelope alone.
    pub(super) extras: Extras,
}

impl Encoder {
    /// An encoder that has seen no table yet. `max_payload` is what the server
    /// takes, in bytes of headers (with their frame) and body, less what the
    /// publisher adds.
    ///
    /// # Errors
    /// When the subject template cannot be used.
    pub fn new(
        settings: &Settings,
        engine: &Engine,
        writer: &Writer,
        max_payload: usize,
    ) -> Result<Self, TemplateError> {
        Ok(Self {
            source: SourceText::new(settings, engine, writer)?,
            max_payload,
            tables: Tables::default(),
            transaction: TransactionText::default(),
            counted: String::new(),
            counted_rows: 0,
            scratch: Scratch::default(),
            figures: Encoded::default(),
            messages: 0,
            watched: HashSet::new(),
            touched: Vec::new(),
        })
    }

    /// From now on events name the versions of their types, as far as these are known when a table comes.
    #[must_use]
    pub fn naming(mut self, schemas: &Arc<Schemas>) -> Self {
        self.source.name_schemas(Arc::clone(schemas));
        self
    }

    /// From now on notes what is touched of these tables, by `schema.table`.
    pub fn watch(&mut self, tables: HashSet<Arc<str>>) {
        self.watched = tables;
    }

    /// What was touched of the watched tables since the last call, in the order of the log.
    pub fn take_touched(&mut self) -> Vec<Touched> {
        std::mem::take(&mut self.touched)
    }

    /// Appends the events of a batch; `out` may hold earlier ones.
    ///
    /// The first [`Body::Shape`] of a table is remembered and is no event; a
    /// later one is, where the shape differs. The bytes of an event do not depend
    /// on how changes are spread over batches.
    ///
    /// # Errors
    /// When a change has no event. `out` then holds the events of all changes
    /// before it and nothing of it, and ends behind the last of them.
    pub fn encode(&mut self, batch: &Batch, out: &mut Events) -> Result<Encoded, EncodeError> {
        self.tables.begin(batch);
        let mut loaded = None;
        let mut passed = None;
        for change in &batch.changes {
            if let Err(fault) = self.change(batch, change, &mut loaded, out) {
                out.end = passed.and_then(|change| position_behind(batch, change)).or(out.end.take());
                return Err(self.error(batch, change, fault));
            }
            passed = Some(change);
        }
        let end = batch.end.clone().or_else(|| passed.and_then(|change| position_behind(batch, change)));
        out.end = end.or(out.end.take());
        Ok(self.take_figures())
    }

    fn change(
        &mut self,
        batch: &Batch,
        change: &Change,
        loaded: &mut Option<u32>,
        out: &mut Events,
    ) -> Result<(), Fault> {
        let transaction =
            batch.transaction(change).ok_or(Fault::Malformed("a change names a transaction that is not there"))?;
        if *loaded != Some(change.transaction) {
            *loaded = None;
            self.transaction.load(&self.source, transaction).map_err(Fault::Malformed)?;
            self.note_transaction(transaction);
            *loaded = Some(change.transaction);
        }
        let Change { ordinal, part, .. } = *change;
        let shape = self.source.envelope.shape;
        let behind = Behind::Change(transaction, change);
        let frame = Frame { source: &self.source, text: &self.transaction, ordinal, part, behind };
        let touched = &mut self.touched;
        let mut note = |entry: &Entry, touch: &dyn Fn() -> Touch| {
            if !self.watched.is_empty() && self.watched.contains(&entry.text.name) {
                let table = Arc::clone(&entry.text.name);
                touched.push(Touched { transaction: change.transaction, table, touch: touch() });
            }
        };
        match &change.body {
            Body::Row(row) => {
                let place = self.tables.place(&self.source, batch, row.table)?;
                let entry = self.tables.entry(place)?;
                let view = RowView::new(batch, &entry.text, row)?;
                let Scratch { key, unchanged, extras } = &mut self.scratch;
                view.write_key(key)?;
                if shape == Shape::Debezium {
                    extras.load(&view)?;
                }
                let event = Event {
                    kind: Some(view.kind),
                    key: &key.object,
                    extras,
                    event_type: entry.text.event_type(view.kind),
                    subject: key.attribute(),
                    partitionkey: key.attribute(),
                    origin: &entry.text.origin,
                    snapshot: view.kind == Kind::Read,
                };
                let partition = partition(key.text(), self.source.partitions);
                let unchanged_values = frame.append(
                    self.max_payload,
                    out,
                    &event,
                    |out| entry.text.subject.write(view.kind.subject_op(), Some((key.text(), partition)), out),
                    |out| match shape {
                        Shape::Change => view.write_body(key, unchanged, out),
                        Shape::Debezium if view.kind == Kind::Tombstone => Ok(0),
                        Shape::Debezium => debezium::write_row(&view, out),
                    },
                )?;
                entry.counts.add(view.kind);
                note(entry, &|| Touch::Row(RowId::of(&entry.text.name, key.text())));
                self.figures.unchanged_values += unchanged_values;
                self.counted_rows += u64::from(view.kind != Kind::Tombstone);
            }
            Body::Truncate { table } => {
                let place = self.tables.place(&self.source, batch, *table)?;
                let entry = self.tables.entry(place)?;
                self.scratch.extras.clear();
                let event = Event {
                    kind: Some(Kind::Truncate),
                    key: b"",
                    extras: &self.scratch.extras,
                    event_type: entry.text.event_type(Kind::Truncate),
                    subject: b"",
                    partitionkey: b"",
                    origin: &entry.text.origin,
                    snapshot: false,
                };
                frame.append(
                    self.max_payload,
                    out,
                    &event,
                    |out| entry.text.subject.write(Kind::Truncate.op(), None, out),
                    |out| {
                        match shape {
                            Shape::Change => write_truncate(out),
                            Shape::Debezium => debezium::write_truncate(out),
                        }
                        Ok(0)
                    },
                )?;
                entry.counts.add(Kind::Truncate);
                note(entry, &|| Touch::Emptied);
            }
            Body::Shape { table } => {
                let place = self.tables.place(&self.source, batch, *table)?;
                let entry = self.tables.entry(place)?;
                let new = &entry.text.table;
                // Debezium's stream has no such events.
                let is_told = shape == Shape::Change;
                if let Some(old) = entry.shape.as_ref().filter(|old| is_told && !new.has_shape_of(old)) {
                    let event = Event {
                        kind: Some(Kind::SchemaChange),
                        key: b"",
                        extras: &self.scratch.extras,
                        event_type: entry.text.event_type(Kind::SchemaChange),
                        subject: entry.text.name.as_bytes(),
                        partitionkey: b"",
                        origin: &entry.text.origin,
                        snapshot: false,
                    };
                    frame.append(
                        self.max_payload,
                        out,
                        &event,
                        |out| {
                            out.extend_from_slice(b"cdc.");
                            write_token(self.source.name.as_bytes(), out);
                            out.extend_from_slice(b".schema_changes");
                        },
                        |out| {
                            write_schema_change(&entry.text.name, old, new, out);
                            Ok(0)
                        },
                    )?;
                    entry.counts.add(Kind::SchemaChange);
                }
                note(entry, &|| Touch::Shaped(Arc::clone(&entry.text.table)));
                entry.shape = Some(Arc::clone(&entry.text.table));
            }
            Body::Message { prefix, content } => {
                let bytes = |range: &std::ops::Range<u32>| {
                    let bytes = batch.data.get(range.start as usize..range.end as usize);
                    bytes.ok_or(Fault::Malformed("a message lies outside the batch's data"))
                };
                let (prefix, content) = (bytes(prefix)?, bytes(content)?);
                let Scratch { unchanged: message_key, extras, .. } = &mut self.scratch;
                extras.clear();
                if shape == Shape::Debezium {
                    debezium::write_message_key(prefix, message_key);
                }
                let event = Event {
                    kind: None,
                    key: message_key,
                    extras,
                    event_type: &self.source.message_type,
                    subject: prefix,
                    partitionkey: b"",
                    origin: &self.source.message_origin,
                    snapshot: false,
                };
                frame.append(
                    self.max_payload,
                    out,
                    &event,
                    |out| {
                        out.extend_from_slice(b"cdc.");
                        write_token(self.source.name.as_bytes(), out);
                        out.extend_from_slice(b".messages.");
                        write_token(prefix, out);
                    },
                    |out| {
                        match shape {
                            Shape::Change => write_message(prefix, content, out),
                            Shape::Debezium => {
                                debezium::write_message(prefix, content, self.source.debezium.binary, out)
                            }
                        }
                        Ok(0)
                    },
                )?;
                self.messages += 1;
            }
        }
        if change.last {
            if transaction.end.is_none() {
                return Err(Fault::Malformed("a transaction's last change is there but not its end"));
            }
            self.figures.completed_rows.push(std::mem::take(&mut self.counted_rows));
        }
        Ok(())
    }

    fn note_transaction(&mut self, transaction: &Transaction) {
        if *self.counted != *transaction.position {
            self.counted.clear();
            self.counted.push_str(&transaction.position);
            self.counted_rows = 0;
        }
        let at = transaction.committed_at;
        let figures = &mut self.figures;
        figures.oldest_committed_at = Some(figures.oldest_committed_at.map_or(at, |oldest| oldest.min(at)));
        figures.newest_committed_at = Some(figures.newest_committed_at.map_or(at, |newest| newest.max(at)));
    }

    pub(super) fn take_figures(&mut self) -> Encoded {
        let mut figures = std::mem::take(&mut self.figures);
        self.tables.take_counts(&mut figures.counts);
        if self.messages > 0 {
            figures.counts.push(Count {
                table: Arc::from(""),
                op: "message",
                event_type: Arc::clone(&self.source.message_type.name),
                number: std::mem::take(&mut self.messages),
            });
        }
        figures.events = figures.counts.iter().map(|count| count.number).sum();
        figures
    }

    pub(super) fn error(&self, batch: &Batch, change: &Change, fault: Fault) -> EncodeError {
        let identity = Identity {
            position: batch.transaction(change).map_or("?".into(), |transaction| transaction.position.clone()),
            ordinal: change.ordinal,
            part: change.part,
        };
        let table = match &change.body {
            Body::Row(row) => batch.table(row.table),
            Body::Truncate { table } | Body::Shape { table } => batch.table(*table),
            Body::Message { .. } => None,
        };
        let name = || table.map_or("a message".into(), |table| table.qualified_name().into());
        let column_name = |column: usize| {
            let column = table.and_then(|table| table.columns.get(column));
            column.map_or("?".into(), |column| column.name.clone())
        };
        match fault {
            Fault::Value { column, source } => {
                EncodeError::Value { identity, table: name(), column: column_name(column), source }
            }
            Fault::NoKey => EncodeError::NoKey { identity, table: name() },
            Fault::KeyNotCarried { column } => {
                EncodeError::KeyNotCarried { identity, table: name(), column: column_name(column) }
            }
            Fault::TooLarge { size } => {
                EncodeError::TooLarge { identity, table: name(), size, limit: self.max_payload }
            }
            Fault::Drift(refusal) => EncodeError::Drift { identity, table: name(), refusal },
            Fault::Malformed(what) => EncodeError::Malformed { identity, what },
        }
    }
}

/// Where the source goes on behind a change.
fn position_behind(batch: &Batch, change: &Change) -> Option<Position> {
    let transaction = batch.transaction(change)?;
    let (log, within) = behind(transaction, change)?;
    Some(Position { log: log.into(), within })
}

fn behind<'a>(transaction: &'a Transaction, change: &Change) -> Option<(&'a str, Option<Within>)> {
    if change.last {
        Some((transaction.end.as_deref()?, None))
    } else {
        Some((&transaction.start, Some(Within { ordinal: change.ordinal, part: change.part })))
    }
}

/// What an event is made of beside its body.
pub(super) struct Event<'a> {
    /// `None` is a message.
    pub(super) kind: Option<Kind>,
    /// The key as a JSON object; for Debezium's envelope.
    pub(super) key: &'a [u8],
    pub(super) extras: &'a Extras,
    pub(super) event_type: &'a EventType,
    /// Attributes that are left out when empty, as CloudEvents wants it.
    pub(super) subject: &'a [u8],
    pub(super) partitionkey: &'a [u8],
    /// The start of the block `source`.
    pub(super) origin: &'a [u8],
    pub(super) snapshot: bool,
}

/// An event's place.
pub(super) struct Frame<'a> {
    pub(super) source: &'a SourceText,
    pub(super) text: &'a TransactionText,
    pub(super) ordinal: u64,
    pub(super) part: u32,
    pub(super) behind: Behind<'a>,
}

/// What an event stands behind.
pub(super) enum Behind<'a> {
    /// A change in its transaction.
    Change(&'a Transaction, &'a Change),
    /// So many rows of a backfill's task, the last of them at `cursor`.
    Read { read: &'a ReadPlace<'a>, rows: u64, cursor: &'a [u8] },
}

impl Frame<'_> {
    /// Appends one event, or nothing. Returns what `body` does, which writes up to the block `source`.
    pub(super) fn append(
        &self,
        max_payload: usize,
        out: &mut Events,
        event: &Event<'_>,
        subject: impl FnOnce(&mut Vec<u8>),
        body: impl FnOnce(&mut Vec<u8>) -> Result<u64, Fault>,
    ) -> Result<u64, Fault> {
        let start = out.bytes.len();
        let write = |bytes: &mut Vec<u8>| {
            subject(bytes);
            let headers_at = bytes.len();
            self.write_headers(event, bytes)?;
            let body_at = bytes.len();
            if let Attributes::Body(dress) = &self.source.envelope.attributes {
                self.write_attributes(dress, event, bytes);
            }
            let unchanged_values = body(bytes)?;
            if event.kind != Some(Kind::Tombstone) {
                bytes.extend_from_slice(event.origin);
                bytes.extend_from_slice(&self.text.origin);
                match self.source.envelope.shape {
                    Shape::Change => {
                        bytes.extend_from_slice(if event.snapshot { b"true}}" } else { b"false}}" });
                        bytes.extend_from_slice(self.source.envelope.close);
                    }
                    Shape::Debezium => {
                        let letter = event.kind.map_or(b'm', Kind::letter);
                        // A row's place among all of its transaction.
                        let row = (!self.source.debezium.is_postgres).then_some(self.ordinal);
                        debezium::close(letter, event.snapshot, row, &self.text.times, bytes);
                    }
                }
            }
            let size = bytes.len() - headers_at + HEADER_FRAME;
            if size > max_payload {
                return Err(Fault::TooLarge { size });
            }
            let place = |at: usize| u32::try_from(at).map_err(|_| Fault::Malformed("it fills more than 4 GiB"));
            let at = EventAt {
                subject: place(start)?,
                headers: place(headers_at)?,
                body: place(body_at)?,
                end: place(bytes.len())?,
            };
            Ok((at, unchanged_values))
        };
        match write(&mut out.bytes) {
            Ok((at, unchanged_values)) => {
                out.list.push(at);
                Ok(unchanged_values)
            }
            Err(fault) => {
                out.bytes.truncate(start);
                Err(fault)
            }
        }
    }

    fn write_headers(&self, event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        out.extend_from_slice(self.source.envelope.headers);
        if let Attributes::Headers(dress) = &self.source.envelope.attributes {
            self.write_attributes(dress, event, out);
        }
        if self.source.envelope.shape == Shape::Debezium {
            debezium::write_headers(event.kind, event.key, event.extras, out);
        }
        let (log, within) = match &self.behind {
            Behind::Change(transaction, change) => {
                out.extend_from_slice(&self.text.headers);
                json::write_uint(self.ordinal, out);
                let tail: &[u8] = if change.last { b"\r\nFigvine-Tx-Last: true\r\n" } else { b"\r\n" };
                out.extend_from_slice(tail);
                behind(transaction, change)
                    .ok_or(Fault::Malformed("a transaction's last change is there but not its end"))?
            }
            // No transaction made it.
            Behind::Read { read, .. } => (&*read.position.log, read.position.within),
        };
        out.extend_from_slice(checkpoint::HEADER.as_bytes());
        out.extend_from_slice(b": ");
        checkpoint::write(&self.source.writer, log, within, out);
        if let Behind::Read { read, rows, cursor } = &self.behind {
            checkpoint::write_read(read.task, *rows, cursor, out);
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn write_attributes(&self, dress: &Dress, event: &Event<'_>, out: &mut Vec<u8>) {
        let Self { ordinal, part, .. } = *self;
        out.extend_from_slice(&self.text.id);
        json::write_uint(ordinal, out);
        out.push(b'.');
        json::write_uint(part.into(), out);
        out.extend_from_slice(&event.event_type.attributes);
        if !event.subject.is_empty() {
            out.extend_from_slice(dress.subject);
            (dress.escape)(event.subject, out);
        }
        out.extend_from_slice(&self.text.time);
        if !event.partitionkey.is_empty() {
            out.extend_from_slice(dress.partitionkey);
            (dress.escape)(event.partitionkey, out);
        }
        out.extend_from_slice(&self.text.sequence);
        write_padded(ordinal, 10, out);
        out.push(b'-');
        // A truncate may name thousands of tables, each a part: they sort as text, too.
        write_padded(part.into(), 5, out);
        out.extend_from_slice(dress.end);
    }
}

/// The tables seen in this session, by name.
#[derive(Default)]
pub(super) struct Tables {
    entries: Vec<Entry>,
    by_name: HashMap<Box<str>, HashMap<Box<str>, usize>>,
    /// Where the tables of the current batch stand in `entries`, as far as they were needed.
    places: Vec<Option<usize>>,
}

pub(super) struct Entry {
    pub(super) text: TableText,
    /// The shape last told.
    shape: Option<Arc<Table>>,
    pub(super) counts: Counts,
}

#[derive(Default)]
pub(super) struct Counts([u64; Kind::ALL.len()]);

impl Counts {
    pub(super) fn add(&mut self, kind: Kind) {
        if let Some(count) = self.0.get_mut(kind as usize) {
            *count += 1;
        }
    }
}

impl Tables {
    pub(super) fn begin(&mut self, batch: &Batch) {
        self.places.clear();
        self.places.resize(batch.tables.len(), None);
    }

    /// Where a table of the batch stands, with its text made for the very shape that the batch has.
    pub(super) fn place(&mut self, source: &SourceText, batch: &Batch, index: u32) -> Result<usize, Fault> {
        let missing = Fault::Malformed("a change names a table that is not there");
        let Some(table) = batch.table(index) else { return Err(missing) };
        let known = self.places.get(index as usize).copied().flatten();
        let place = match known {
            Some(place) => place,
            None => {
                let by_name = self.by_name.get(&*table.schema).and_then(|tables| tables.get(&*table.name));
                let place = match by_name {
                    Some(place) => *place,
                    None => self.add(source, table)?,
                };
                if let Some(slot) = self.places.get_mut(index as usize) {
                    *slot = Some(place);
                }
                place
            }
        };
        let entry = self.entry(place)?;
        if !Arc::ptr_eq(&entry.text.table, table) {
            entry.text = TableText::new(source, table).map_err(Fault::Drift)?;
        }
        Ok(place)
    }

    fn add(&mut self, source: &SourceText, table: &Arc<Table>) -> Result<usize, Fault> {
        let place = self.entries.len();
        let text = TableText::new(source, table).map_err(Fault::Drift)?;
        self.entries.push(Entry { text, shape: None, counts: Counts::default() });
        self.by_name.entry(table.schema.clone()).or_default().insert(table.name.clone(), place);
        Ok(place)
    }

    pub(super) fn entry(&mut self, place: usize) -> Result<&mut Entry, Fault> {
        self.entries.get_mut(place).ok_or(Fault::Malformed("a change names a table that is not there"))
    }

    /// Moves the counts of the current batch's tables out.
    fn take_counts(&mut self, out: &mut Vec<Count>) {
        for place in self.places.iter().copied().flatten() {
            let Some(entry) = self.entries.get_mut(place) else { continue };
            for (kind, number) in Kind::ALL.into_iter().zip(std::mem::take(&mut entry.counts).0) {
                if number > 0 {
                    out.push(Count {
                        table: Arc::clone(&entry.text.name),
                        op: kind.op(),
                        event_type: Arc::clone(&entry.text.event_type(kind).name),
                        number,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
