//! A change's own event: its row, its truncation, its message, or its table's new shape.

use std::collections::HashSet;
use std::sync::Arc;

use figvine_change::{Batch, Body, Change};

use super::Events;
use super::body::{Fault, Missing, RowView, write_message, write_missing, write_schema_change, write_truncate};
use super::debezium::{self, Extras};
use super::envelope::Shape;
use super::error::EncodeError;
use super::frame::{Event, Frame};
use super::identity::{Key, partition};
use super::letter::{About, Content, Letter, Parks};
use super::subject::write_token;
use super::tables::{Entry, Tables, Tally};
use super::texts::{EventType, Kind, SourceText};
use super::touch::{RowId, Touch, Touched};

/// Tells changes by events of their own, for one session; what it has seen of tables is kept.
#[derive(Default)]
pub(super) struct Teller {
    pub(super) tables: Tables,
    pub(super) scratch: Scratch,
    pub(super) messages: Tally,
    /// Events in the place of messages.
    pub(super) missing_messages: u64,
    /// Tables, by `schema.table`, of which is noted what is touched.
    pub(super) watched: HashSet<Arc<str>>,
    pub(super) touched: Vec<Touched>,
    pub(super) parks: Parks,
    pub(super) letters: Vec<Letter>,
}

#[derive(Default)]
pub(super) struct Scratch {
    pub(super) key: Key,
    pub(super) unchanged: Vec<u8>,
    /// For Debezium's envelope alone.
    pub(super) extras: Extras,
}

/// What was told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    /// Values that the log did not carry.
    pub(super) unchanged_values: u64,
    /// Rows: one, or none.
    pub(super) rows: u64,
}

impl Teller {
    /// Appends a change's own event, where its frame says that it is told, and notes what it touches.
    pub(super) fn tell(
        &mut self,
        batch: &Batch,
        change: &Change,
        frame: &Frame<'_>,
        out: &mut Events,
    ) -> Result<Told, Fault> {
        let shape = frame.source.envelope.shape;
        let mut told = Told::default();
        let Self { tables, scratch, messages, watched, touched, parks, .. } = self;
        let mut note = |entry: &Entry, touch: &dyn Fn() -> Touch| {
            if !watched.is_empty() && watched.contains(&entry.text.name) {
                let table = Arc::clone(&entry.text.name);
                touched.push(Touched { transaction: change.transaction, table, touch: touch() });
            }
        };
        match &change.body {
            Body::Row(row) => {
                let place = tables.place(frame.source, batch, row.table)?;
                let entry = tables.fit(place)?;
                let view = RowView::new(batch, &entry.text, row)?;
                let Scratch { key, unchanged, extras } = &mut *scratch;
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
                let partition = partition(key.text(), frame.source.partitions);
                let unchanged_values = frame.append(
                    out,
                    &event,
                    |out| entry.text.subject.write(view.kind.subject_op(), Some((key.text(), partition)), out),
                    |out| match shape {
                        Shape::Change => view.write_body(key, unchanged, out),
                        Shape::Debezium if view.kind == Kind::Tombstone => Ok(0),
                        Shape::Debezium => debezium::write_row(&view, out),
                    },
                )?;
                entry.counts.add(view.kind, frame.is_told);
                note(entry, &|| Touch::Row(RowId::of(&entry.text.name, key.text())));
                told.unchanged_values = unchanged_values;
                told.rows = u64::from(view.kind != Kind::Tombstone);
            }
            Body::Truncate { table } => {
                let place = tables.place(frame.source, batch, *table)?;
                let entry = if parks.drift { tables.entry(place)? } else { tables.fit(place)? };
                scratch.extras.clear();
                let event = Event {
                    kind: Some(Kind::Truncate),
                    key: b"",
                    extras: &scratch.extras,
                    event_type: entry.text.event_type(Kind::Truncate),
                    subject: b"",
                    partitionkey: b"",
                    origin: &entry.text.origin,
                    snapshot: false,
                };
                frame.append(
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
                entry.counts.add(Kind::Truncate, frame.is_told);
                note(entry, &|| Touch::Emptied);
            }
            Body::Shape { table } => {
                let place = tables.place(frame.source, batch, *table)?;
                // Where rows are parked the shape is news all the same.
                let entry = if parks.drift { tables.entry(place)? } else { tables.fit(place)? };
                let new = &entry.text.table;
                // Debezium's stream has no such events.
                let is_told = shape == Shape::Change;
                if let Some(old) = entry.shape.as_ref().filter(|old| is_told && !new.has_shape_of(old)) {
                    let event = Event {
                        kind: Some(Kind::SchemaChange),
                        key: b"",
                        extras: &scratch.extras,
                        event_type: entry.text.event_type(Kind::SchemaChange),
                        subject: entry.text.name.as_bytes(),
                        partitionkey: b"",
                        origin: &entry.text.origin,
                        snapshot: false,
                    };
                    frame.append(
                        out,
                        &event,
                        |out| {
                            out.extend_from_slice(b"cdc.");
                            write_token(frame.source.name.as_bytes(), out);
                            out.extend_from_slice(b".schema_changes");
                        },
                        |out| {
                            write_schema_change(&entry.text.name, old, new, out);
                            Ok(0)
                        },
                    )?;
                    entry.counts.add(Kind::SchemaChange, frame.is_told);
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
                let Scratch { unchanged: message_key, extras, .. } = &mut *scratch;
                extras.clear();
                if shape == Shape::Debezium {
                    debezium::write_message_key(prefix, message_key);
                }
                let event = Event {
                    kind: None,
                    key: message_key,
                    extras,
                    event_type: &frame.source.message_type,
                    subject: prefix,
                    partitionkey: b"",
                    origin: &frame.source.message_origin,
                    snapshot: false,
                };
                frame.append(
                    out,
                    &event,
                    |out| write_message_subject(frame.source, prefix, out),
                    |out| {
                        match shape {
                            Shape::Change => write_message(prefix, content, out),
                            Shape::Debezium => {
                                debezium::write_message(prefix, content, frame.source.debezium.binary, out)
                            }
                        }
                        Ok(0)
                    },
                )?;
                messages.add(frame.is_told);
            }
        }
        Ok(told)
    }

    /// Whether a change that cannot be told is parked rather than ends the source.
    pub(super) fn is_parked(&self, change: &Change, fault: &Fault) -> bool {
        if matches!(change.body, Body::Truncate { .. } | Body::Shape { .. }) {
            return false;
        }
        match fault {
            Fault::Value { .. } | Fault::KeyNotCarried { .. } | Fault::TooLarge { .. } => self.parks.poison,
            Fault::Drift(_) => self.parks.drift,
            // A setting, and a fault of ours.
            Fault::NoKey | Fault::Malformed(_) => false,
        }
    }

    /// Appends what stands in the place of a row or message that could not be told, and keeps that as a letter.
    pub(super) fn tell_missing(
        &mut self,
        batch: &Batch,
        change: &Change,
        frame: &Frame<'_>,
        error: &EncodeError,
        out: &mut Events,
    ) -> Result<Told, Fault> {
        let source = frame.source;
        let id = error.identity().to_string();
        let Self {
            tables,
            scratch: Scratch { key, extras, unchanged },
            messages,
            watched,
            touched,
            letters,
            missing_messages,
            ..
        } = self;
        // What is not told itself, or is stored already, is not missing.
        let mut letter = |event_type: &EventType| {
            if !frame.is_told {
                return;
            }
            let about = About {
                id: id.clone(),
                event_type: event_type.name.to_string(),
                rule: None,
                transaction: batch.transaction(change),
            };
            let content = Content::Change(batch, change);
            letters.push(Letter::new(about, (error.reason(), error.code()), error, &content));
        };
        let missing = |op| Missing { op, reason: error.reason(), code: error.code(), letter: &id };
        extras.clear();
        match &change.body {
            Body::Row(row) => {
                let place = tables.place(source, batch, row.table)?;
                let entry = tables.entry(place)?;
                let kind = Kind::of(row.op);
                let view = RowView::new(batch, &entry.text, row)?;
                let is_known = view.write_key(key).is_ok();
                let mut is_keyed = is_known;
                loop {
                    let told_key = if is_keyed { key.attribute() } else { b"" };
                    let event = Event {
                        kind: Some(Kind::Missing),
                        key: if is_keyed { &key.object } else { b"" },
                        extras,
                        event_type: entry.text.event_type(Kind::Missing),
                        subject: told_key,
                        partitionkey: told_key,
                        origin: &entry.text.origin,
                        snapshot: kind == Kind::Read,
                    };
                    let keyed = is_keyed.then(|| (key.text(), partition(key.text(), source.partitions)));
                    let appended = frame.append(
                        out,
                        &event,
                        |out| entry.text.subject.write(Kind::Missing.op(), keyed, out),
                        |out| {
                            let told_key = is_keyed.then_some(&*key.object);
                            write_body(told_key, &missing(kind.op()), frame, unchanged, out);
                            Ok(0)
                        },
                    );
                    match appended {
                        // Of a table without a key it is the row.
                        Err(Fault::TooLarge { .. }) if is_keyed => is_keyed = false,
                        Err(fault) => return Err(fault),
                        Ok(_) => break,
                    }
                }
                letter(entry.text.event_type(kind));
                entry.counts.replace(kind, frame.is_told);
                if kind != Kind::Read && watched.contains(&entry.text.name) {
                    let table = Arc::clone(&entry.text.name);
                    // Which row it was is not known: any may be.
                    let touch = if is_known { Touch::Row(RowId::of(&table, key.text())) } else { Touch::Emptied };
                    touched.push(Touched { transaction: change.transaction, table, touch });
                }
                Ok(Told { unchanged_values: 0, rows: u64::from(kind != Kind::Tombstone) })
            }
            Body::Message { prefix, .. } => {
                let prefix = batch.bytes(prefix);
                let event = Event {
                    kind: Some(Kind::Missing),
                    key: b"",
                    extras,
                    event_type: &source.missing,
                    subject: prefix,
                    partitionkey: b"",
                    origin: &source.message_origin,
                    snapshot: false,
                };
                frame.append(
                    out,
                    &event,
                    |out| write_message_subject(source, prefix, out),
                    |out| {
                        write_body(None, &missing("message"), frame, unchanged, out);
                        Ok(0)
                    },
                )?;
                letter(&source.message_type);
                messages.add(false);
                *missing_messages += u64::from(frame.is_told);
                Ok(Told::default())
            }
            // They hold no rows, and are not parked.
            Body::Truncate { .. } | Body::Shape { .. } => Ok(Told::default()),
        }
    }
}

/// The prefix under which Debezium's envelope, which has no word for it, tells as a message what is missing.
const MISSING: &[u8] = b"figvine.missing";

fn write_body(key: Option<&[u8]>, missing: &Missing<'_>, frame: &Frame<'_>, content: &mut Vec<u8>, out: &mut Vec<u8>) {
    match frame.source.envelope.shape {
        Shape::Change => write_missing(key, missing, out),
        Shape::Debezium => {
            content.clear();
            missing.write(content);
            debezium::write_message(MISSING, content, frame.source.debezium.binary, out);
        }
    }
}

fn write_message_subject(source: &SourceText, prefix: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"cdc.");
    write_token(source.name.as_bytes(), out);
    out.extend_from_slice(b".messages.");
    write_token(prefix, out);
}
