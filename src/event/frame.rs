//! One event around its body: subject, headers, attributes, checkpoint.

use figvine_change::{Change, Transaction, Within, json};

use super::body::Fault;
use super::debezium::{self, Extras};
use super::domain::DomainPlace;
use super::envelope::{Attributes, Dress, Shape};
use super::number::write_padded;
use super::read::ReadPlace;
use super::texts::{EventType, Kind, SourceText, TransactionText};
use super::{EventAt, Events};
use crate::checkpoint;

/// What the wire adds to the headers: the line `NATS/1.0` before and the blank line behind them.
pub(super) const HEADER_FRAME: usize = "NATS/1.0\r\n\r\n".len();

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
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) source: &'a SourceText,
    pub(super) text: &'a TransactionText,
    pub(super) ordinal: u64,
    pub(super) part: u32,
    pub(super) behind: Behind<'a>,
    /// Whether it is told at all: it may be stored already.
    pub(super) is_told: bool,
    /// Set for a domain event.
    pub(super) domain: Option<DomainPlace<'a>>,
}

/// What an event stands behind.
#[derive(Clone, Copy)]
pub(super) enum Behind<'a> {
    /// A change in its transaction.
    Change(&'a Transaction, &'a Change),
    /// Events of a change, up to one that is not its last: behind that, and whatever was passed on before `from`, the
    /// transaction is read again.
    Part { transaction: &'a Transaction, from: Option<Within>, told: (Within, Option<(&'a str, u32)>) },
    /// So many rows of a backfill's task, the last of them at `cursor`.
    Read { read: &'a ReadPlace<'a>, rows: u64, cursor: &'a [u8] },
}

impl Frame<'_> {
    /// Appends one event, or nothing. Returns what `body` does, which writes up to the block `source`.
    pub(super) fn append(
        &self,
        out: &mut Events,
        event: &Event<'_>,
        subject: impl FnOnce(&mut Vec<u8>),
        body: impl FnOnce(&mut Vec<u8>) -> Result<u64, Fault>,
    ) -> Result<u64, Fault> {
        if !self.is_told {
            return Ok(0);
        }
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
            if self.domain.is_some() {
                bytes.extend_from_slice(self.source.envelope.close);
            } else if event.kind != Some(Kind::Tombstone) {
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
            if size > self.source.max_payload {
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
            Behind::Part { transaction, from, .. } => {
                out.extend_from_slice(&self.text.headers);
                json::write_uint(self.ordinal, out);
                out.extend_from_slice(b"\r\n");
                (&*transaction.start, *from)
            }
            // No transaction made it.
            Behind::Read { read, .. } => (&*read.position.log, read.position.within),
        };
        out.extend_from_slice(checkpoint::HEADER.as_bytes());
        out.extend_from_slice(b": ");
        checkpoint::write(&self.source.writer, log, within, out);
        match &self.behind {
            Behind::Change(..) => {}
            Behind::Part { transaction, told: (at, rule), .. } => {
                checkpoint::write_told(&transaction.position, *at, *rule, out);
            }
            Behind::Read { read, rows, cursor } => checkpoint::write_read(read.task, *rows, cursor, out),
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    fn write_attributes(&self, dress: &Dress, event: &Event<'_>, out: &mut Vec<u8>) {
        let Self { ordinal, part, .. } = *self;
        let about = self.domain.map_or(Within { ordinal, part }, |domain| domain.about);
        out.extend_from_slice(&self.text.id);
        json::write_uint(about.ordinal, out);
        out.push(b'.');
        json::write_uint(about.part.into(), out);
        out.extend_from_slice(self.domain.map_or(b"", |domain| domain.rule));
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
        if let Some(DomainPlace { rank, .. }) = self.domain {
            out.push(b'-');
            write_padded(rank, 5, out);
        }
        out.extend_from_slice(&self.text.traceparent);
        out.extend_from_slice(dress.end);
    }
}

/// Where the log goes on behind a change.
pub(super) fn behind<'a>(transaction: &'a Transaction, change: &Change) -> Option<(&'a str, Option<Within>)> {
    if change.last {
        Some((transaction.end.as_deref()?, None))
    } else {
        Some((&transaction.start, Some(Within { ordinal: change.ordinal, part: change.part })))
    }
}
