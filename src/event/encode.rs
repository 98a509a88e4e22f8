//! The encoder: batches of changes in, events out.
//!
//! This is the path of every row. Everything is appended to the one buffer of
//! [`Events`]; what many events have in common is made once per table and once
//! per transaction (see `texts`), and nothing is allocated per row.

use std::collections::HashSet;
use std::sync::Arc;

use figvine_change::{Batch, Body, Change, Engine, Position, Transaction, Within};

use super::body::Fault;
use super::domain::{Derived, Domain, DomainEvent, Passed, passed};
use super::error::EncodeError;
use super::frame::{Behind, Frame, behind};
use super::identity::Identity;
use super::letter::{Letter, Parks};
use super::own::Teller;
use super::subject::Template;
use super::tables::Tally;
use super::texts::{SourceText, TransactionText};
use super::touch::Touched;
use super::{Events, Settings, TemplateError};
use crate::checkpoint::{Told, Writer};
use crate::schema::Schemas;

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
    /// `schema.table`; empty for messages and domain events.
    pub table: Arc<str>,
    /// `insert update delete read truncate schema_change message`, or `domain` for what no single change is.
    pub op: &'static str,
    /// The type of the events (`ce-type`).
    pub event_type: Arc<str>,
    /// How many changes.
    pub changes: u64,
    /// How many events: a change may be told by those of rules alone.
    pub events: u64,
}

/// Makes events of changes, for one session of one source.
pub struct Encoder {
    pub(super) source: SourceText,
    pub(super) teller: Teller,
    pub(super) transaction: TransactionText,
    /// Position of the transaction whose rows are counted.
    counted: String,
    counted_rows: u64,
    figures: Encoded,
    pub(super) domain: Domain,
    /// The last change of the transaction that was passed on, by this session or one before.
    previous: Option<Within>,
    /// Set while the transaction has to be read again from there on.
    held: Option<Option<Within>>,
    /// Of a change that goes on: the domain events that lay in portions before.
    begun: Option<u64>,
    /// Where the session begins: what is stored already of what is read again.
    resumed: Option<(Position, Option<Told>)>,
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
            source: SourceText::new(settings, engine, writer, max_payload)?,
            teller: Teller::default(),
            transaction: TransactionText::default(),
            counted: String::new(),
            counted_rows: 0,
            figures: Encoded::default(),
            domain: Domain::new(Template::parse_domain(&settings.domain_subject)?),
            previous: None,
            held: None,
            begun: None,
            resumed: None,
        })
    }

    /// Says where the session begins, and what of a change that was told in part is stored.
    pub fn resume(&mut self, from: &Position, told: Option<Told>) {
        self.resumed = Some((from.clone(), told));
    }

    /// Whether a transaction that was passed on in part has to be read again from an earlier place on: nothing that is not
    /// of it may go in between.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// From now on events name the versions of their types, as far as these are known when a table comes.
    #[must_use]
    pub fn naming(mut self, schemas: &Arc<Schemas>) -> Self {
        self.source.name_schemas(Arc::clone(schemas));
        self
    }

    /// From now on parks what it cannot tell, as far as that is allowed.
    #[must_use]
    pub fn parking(mut self, parks: Parks) -> Self {
        self.teller.parks = parks;
        self
    }

    /// What was parked since the last call: to be kept before the events that stand in its place are.
    pub fn take_letters(&mut self) -> Vec<Letter> {
        std::mem::take(&mut self.teller.letters)
    }

    /// From now on notes what is touched of these tables, by `schema.table`.
    pub fn watch(&mut self, tables: HashSet<Arc<str>>) {
        self.teller.watched = tables;
    }

    /// What was touched of the watched tables since the last call, in the order of the log.
    pub fn take_touched(&mut self) -> Vec<Touched> {
        std::mem::take(&mut self.teller.touched)
    }

    /// Appends the events of a batch, or of the portion of it that `derived` is; `out` may hold earlier ones.
    ///
    /// The first [`Body::Shape`] of a table is remembered and is no event; a
    /// later one is, where the shape differs. The bytes of an event do not depend
    /// on how changes are spread over batches, nor on portions.
    ///
    /// # Errors
    /// When a change has no event. `out` then holds the events of all changes
    /// before it and nothing of it, and ends behind the last of them.
    pub fn encode(&mut self, batch: &Batch, derived: &Derived, out: &mut Events) -> Result<Encoded, EncodeError> {
        self.teller.tables.begin(batch);
        let begun = out.list.len();
        let mut loaded = None;
        let mut passed = None;
        let mut rest = Rest { derived, events: &derived.events, untold: &derived.untold, holds: &derived.holds };
        for (place, change) in batch.changes.iter().enumerate().skip(derived.from) {
            let before = (out.list.len(), out.bytes.len());
            let mine = rest.of(place);
            // Whether it is told by its own event alone is not known yet.
            if mine.goes_on && mine.events.is_empty() {
                break;
            }
            if let Err(fault) = self.change(batch, change, &mine, &mut loaded, out) {
                out.list.truncate(before.0);
                out.bytes.truncate(before.1);
                out.end = passed.and_then(|change| self.position_behind(batch, change)).or(out.end.take());
                return Err(self.error(batch, change, fault));
            }
            if mine.goes_on {
                break;
            }
            passed = Some(change);
        }
        let end = batch.end.as_ref().filter(|_| derived.goes_on.is_none());
        if end.is_some() {
            self.held = None;
        }
        let end = end.cloned().or_else(|| passed.and_then(|change| self.position_behind(batch, change)));
        out.end = end.or(out.end.take());
        Ok(self.take_figures(out.list.len() - begun))
    }

    /// Where the source goes on behind a change; `None` where that is no place to go on from.
    fn position_behind(&self, batch: &Batch, change: &Change) -> Option<Position> {
        let transaction = batch.transaction(change)?;
        let (log, within) = behind(transaction, change)?;
        self.held.is_none().then(|| Position { log: log.into(), within })
    }

    fn change<'b>(
        &mut self,
        batch: &'b Batch,
        change: &'b Change,
        mine: &Mine<'b>,
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
        let at = Within { ordinal: change.ordinal, part: change.part };
        if mine.is_held && self.held.is_none() {
            self.held = Some(self.previous);
        }
        let begun = self.begun.take();
        let told = self.resumed.as_ref().and_then(|(_, told)| told.as_ref());
        let (own, skipped) = match passed(told, &transaction.position, at, (mine.events, &mine.derived.order)) {
            Passed::Nothing => (!mine.is_untold, 0),
            Passed::Events(count) => (false, count),
            Passed::All => (false, mine.events.len()),
        };
        let rest = mine.events.get(skipped..).unwrap_or_default();
        let held = self.held;
        // Behind the last event of a change the log goes on; behind others the change is read again, and the rest told.
        let behind = |rule: Option<(&'b str, u32)>, is_last: bool| match held {
            None if is_last => Behind::Change(transaction, change),
            Some(_) if is_last && change.last => Behind::Change(transaction, change),
            _ => Behind::Part { transaction, from: held.unwrap_or(self.previous), told: (at, rule) },
        };
        let Change { ordinal, part, .. } = *change;
        let frame = Frame {
            source: &self.source,
            text: &self.transaction,
            ordinal,
            part,
            behind: behind(None, rest.is_empty() && !mine.goes_on),
            is_told: own,
            domain: None,
        };
        // Else it was told with an earlier portion of its events.
        if begun.is_none() {
            let told = match self.teller.tell(batch, change, &frame, out) {
                Err(fault) if self.teller.is_parked(change, &fault) => {
                    let error = self.error(batch, change, fault);
                    self.teller.tell_missing(batch, change, &frame, &error, out)?
                }
                told => told?,
            };
            self.figures.unchanged_values += told.unchanged_values;
            self.counted_rows += told.rows;
        }
        for (place, event) in rest.iter().enumerate() {
            let frame = Frame {
                source: &self.source,
                text: &self.transaction,
                ordinal,
                part,
                behind: behind(Some((&event.rule, event.number)), place + 1 == rest.len() && !mine.goes_on),
                is_told: true,
                domain: None,
            };
            let rank = begun.unwrap_or_default() + (skipped + place) as u64 + 1;
            match self.domain.append(&self.source, frame, (mine.derived, event, rank), out) {
                Err(fault @ Fault::TooLarge { .. }) if self.teller.parks.poison => {
                    let error = self.error(batch, change, fault);
                    let (derived, letter) = mine.derived.parked(event, transaction, &error);
                    for instead in &derived.events {
                        self.domain.append(&self.source, frame, (&derived, instead, rank), out)?;
                    }
                    self.teller.letters.push(letter);
                }
                appended => appended?,
            }
        }
        if mine.goes_on {
            self.begun = Some(begun.unwrap_or_default() + mine.events.len() as u64);
            return Ok(());
        }
        self.previous = Some(at);
        if change.last {
            self.held = None;
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
            let resumed = self.resumed.as_ref().map(|(from, _)| from).filter(|from| *from.log == *transaction.start);
            self.previous = resumed.and_then(|from| from.within);
            self.held = None;
        }
        let at = transaction.committed_at;
        let figures = &mut self.figures;
        figures.oldest_committed_at = Some(figures.oldest_committed_at.map_or(at, |oldest| oldest.min(at)));
        figures.newest_committed_at = Some(figures.newest_committed_at.map_or(at, |newest| newest.max(at)));
    }

    pub(super) fn take_figures(&mut self, events: usize) -> Encoded {
        let mut figures = std::mem::take(&mut self.figures);
        self.teller.tables.take_counts(&mut figures.counts);
        let Tally { changes, events: told } = std::mem::take(&mut self.teller.messages);
        if changes > 0 {
            figures.counts.push(Count {
                table: Arc::from(""),
                op: "message",
                event_type: Arc::clone(&self.source.message_type.name),
                changes,
                events: told,
            });
        }
        let missing = std::mem::take(&mut self.teller.missing_messages);
        if missing > 0 {
            let event_type = Arc::clone(&self.source.missing.name);
            figures.counts.push(Count { table: Arc::from(""), op: "message", event_type, changes: 0, events: missing });
        }
        for (event_type, events) in self.domain.take_counts() {
            figures.counts.push(Count { table: Arc::from(""), op: "domain", event_type, changes: 0, events });
        }
        figures.events = events as u64;
        figures
    }

    pub(super) fn error(&self, batch: &Batch, change: &Change, fault: Fault) -> EncodeError {
        let position = batch.transaction(change).map_or("?".into(), |transaction| transaction.position.clone());
        let identity = Identity { position, ordinal: change.ordinal, part: change.part };
        error_of(identity, batch, change, fault, self.source.max_payload)
    }
}

/// A fault with its place.
pub(super) fn error_of(identity: Identity, batch: &Batch, change: &Change, fault: Fault, limit: usize) -> EncodeError {
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
        Fault::TooLarge { size } => EncodeError::TooLarge { identity, table: name(), size, limit },
        Fault::Drift(refusal) => EncodeError::Drift { identity, table: name(), refusal },
        Fault::Malformed(what) => EncodeError::Malformed { identity, what },
    }
}

/// What rules made of the changes that are still to come.
struct Rest<'a> {
    derived: &'a Derived,
    events: &'a [DomainEvent],
    untold: &'a [usize],
    holds: &'a [usize],
}

/// What they made of one.
struct Mine<'a> {
    derived: &'a Derived,
    events: &'a [DomainEvent],
    is_untold: bool,
    is_held: bool,
    /// Whether there are more in the next portion.
    goes_on: bool,
}

impl<'a> Rest<'a> {
    /// Takes what is of the change at `place`; places only rise.
    fn of(&mut self, place: usize) -> Mine<'a> {
        let count = self.events.iter().take_while(|event| event.behind <= place).count();
        let (events, rest) = self.events.split_at_checked(count).unwrap_or((self.events, &[]));
        self.events = rest;
        let goes_on = self.derived.goes_on == Some(place);
        let told_now = if goes_on { events.len().saturating_sub(1) } else { events.len() };
        let events = events.get(..told_now).unwrap_or_default();
        let is_next = |places: &mut &'a [usize]| match places.split_first() {
            Some((first, rest)) if *first <= place => {
                *places = rest;
                true
            }
            _ => false,
        };
        let is_untold = is_next(&mut self.untold);
        Mine { derived: self.derived, events, is_untold, is_held: is_next(&mut self.holds), goes_on }
    }
}

#[cfg(test)]
mod tests;
