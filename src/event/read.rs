//! Events of existing rows, out of a backfill's chunks.

use std::ops::Range;

use figvine_change::{Batch, Body, Change, Position, Within};

use super::body::RowView;
use super::debezium;
use super::domain::Domain;
use super::encode::{Encoded, Encoder, error_of};
use super::envelope::Shape;
use super::error::EncodeError;
use super::frame::{Behind, Event, Frame};
use super::identity::{Identity, partition};
use super::own::{Scratch, Teller};
use super::texts::Kind;
use super::touch::RowId;
use super::{Derived, DomainEvent, Events, body::Fault};

/// The rows of a chunk.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Changes with [`figvine_change::Op::Read`].
    pub batch: &'a Batch,
    /// Each row's cursor: ranges of the batch's data.
    pub cursors: &'a [Range<u32>],
    /// Events that tell rows instead of their own: one of a row at most.
    pub derived: &'a Derived,
}

/// Where rows are passed on.
#[derive(Debug, Clone, Copy)]
pub struct ReadPlace<'a> {
    /// The task that they belong to; with the number of the row it is the event's identity.
    pub task: &'a str,
    /// Rows of the task before the first of the chunk.
    pub before: u64,
    /// Where the log goes on behind what was passed on; between transactions.
    pub position: &'a Position,
    /// The `sequence` of the last transaction before.
    pub sequence: &'a str,
    /// Whether rows that have no event are parked; else the first of them ends it.
    pub may_park: bool,
    /// When the rows were read, in microseconds since 1970, UTC.
    pub read_at: i64,
}

/// How far rows were encoded.
#[derive(Debug)]
pub struct ReadOutcome {
    /// The first row that was not.
    pub next: usize,
    /// Figures.
    pub encoded: Encoded,
    /// Why the row at `next` has no event.
    pub fault: Option<EncodeError>,
}

impl Encoder {
    /// Appends events of a chunk's rows from `from` on, until `out` holds `most` events or `most_bytes` bytes. Rows that
    /// `is_stale` says of are left out. A row that has no event ends it. `out` ends at the place's position.
    pub fn encode_rows(
        &mut self,
        rows: &Rows<'_>,
        place: &ReadPlace<'_>,
        from: usize,
        (most, most_bytes): (usize, usize),
        mut is_stale: impl FnMut(&RowId) -> bool,
        out: &mut Events,
    ) -> ReadOutcome {
        self.teller.tables.begin(rows.batch);
        self.transaction.load_read(&self.source, place);
        let begun = out.list.len();
        let mut next = from;
        let mut fault = None;
        while let Some(change) = rows.batch.changes.get(next) {
            if out.list.len() >= most || out.bytes.len() >= most_bytes {
                break;
            }
            if let Err(found) = self.existing_row(rows, place, next, change, &mut is_stale, out) {
                fault = Some(self.error(rows.batch, change, found));
                break;
            }
            next += 1;
        }
        out.end = Some(place.position.clone());
        ReadOutcome { next, encoded: self.take_figures(out.list.len() - begun), fault }
    }

    fn existing_row(
        &mut self,
        rows: &Rows<'_>,
        read: &ReadPlace<'_>,
        index: usize,
        change: &Change,
        is_stale: &mut impl FnMut(&RowId) -> bool,
        out: &mut Events,
    ) -> Result<(), Fault> {
        let cursor = rows.cursors.get(index).ok_or(Fault::Malformed("a row has no cursor"))?;
        let number = read.before + index as u64 + 1;
        let frame = Frame {
            source: &self.source,
            text: &self.transaction,
            ordinal: number,
            part: 0,
            behind: Behind::Read { read, rows: number, cursor: rows.batch.bytes(cursor) },
            is_told: true,
            domain: None,
        };
        let told = rows.derived.events.binary_search_by_key(&index, |event| event.behind).ok();
        let told = told.and_then(|at| rows.derived.events.get(at)).map(|event| {
            let about = Within { ordinal: number, part: 0 };
            (rows.derived, DomainEvent { about, ..event.clone() })
        });
        let Self { teller, domain, .. } = self;
        match teller.tell_row(rows.batch, change, &frame, (told.as_ref(), domain), is_stale, out) {
            // One shape is wrong for all rows: the backfill of the table ends.
            Err(fault) if read.may_park && !matches!(fault, Fault::Drift(_)) && teller.is_parked(change, &fault) => {
                let identity = Identity { position: read.task.into(), ordinal: number, part: 0 };
                let error = error_of(identity, rows.batch, change, fault, self.source.max_payload);
                teller.tell_missing(rows.batch, change, &frame, &error, out).map(drop)
            }
            told => told,
        }
    }
}

impl Teller {
    /// Appends the event of an existing row, its own or that of a rule, unless it is stale.
    fn tell_row(
        &mut self,
        batch: &Batch,
        change: &Change,
        frame: &Frame<'_>,
        (told, domain): (Option<&(&Derived, DomainEvent)>, &mut Domain),
        is_stale: &mut impl FnMut(&RowId) -> bool,
        out: &mut Events,
    ) -> Result<(), Fault> {
        let Body::Row(row) = &change.body else {
            return Err(Fault::Malformed("a chunk holds something else than rows"));
        };
        let source = frame.source;
        let place = self.tables.place(source, batch, row.table)?;
        let entry = self.tables.fit(place)?;
        let view = RowView::new(batch, &entry.text, row)?;
        let Scratch { key, unchanged, extras } = &mut self.scratch;
        view.write_key(key)?;
        if is_stale(&RowId::of(&entry.text.name, key.text())) {
            return Ok(());
        }
        if let Some((derived, event)) = told {
            entry.counts.add(Kind::Read, false);
            return domain.append(source, *frame, (derived, event, 1), out);
        }
        let shape = source.envelope.shape;
        if shape == Shape::Debezium {
            extras.load(&view)?;
        }
        let event = Event {
            kind: Some(Kind::Read),
            key: &key.object,
            extras,
            event_type: entry.text.event_type(Kind::Read),
            subject: key.attribute(),
            partitionkey: key.attribute(),
            origin: &entry.text.origin,
            snapshot: true,
        };
        let partition = partition(key.text(), source.partitions);
        frame.append(
            out,
            &event,
            |out| entry.text.subject.write(Kind::Read.op(), Some((key.text(), partition)), out),
            |out| match shape {
                Shape::Change => view.write_body(key, unchanged, out),
                Shape::Debezium => debezium::write_row(&view, out),
            },
        )?;
        entry.counts.add(Kind::Read, true);
        Ok(())
    }
}
