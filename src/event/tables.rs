//! The tables that a session has seen, each with its texts, its last shape, and its counts.

use std::collections::HashMap;
use std::sync::Arc;

use figvine_change::{Batch, Table};

use super::body::Fault;
use super::encode::Count;
use super::texts::{Kind, SourceText, TableText};
use crate::schema::Refusal;

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
    /// Why rows in this shape may not be told.
    pub(super) refusal: Option<Arc<Refusal>>,
    /// The shape last told.
    pub(super) shape: Option<Arc<Table>>,
    pub(super) counts: Counts,
}

/// Changes, and how many of them were told by an event of their own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) changes: u64,
    pub(super) events: u64,
}

impl Tally {
    pub(super) fn add(&mut self, is_told: bool) {
        self.changes += 1;
        self.events += u64::from(is_told);
    }
}

#[derive(Default)]
pub(super) struct Counts([Tally; Kind::ALL.len()]);

impl Counts {
    /// Notes a change in whose place another event is told.
    pub(super) fn replace(&mut self, kind: Kind, is_told: bool) {
        self.add(kind, false);
        if let Some(tally) = self.0.get_mut(Kind::Missing as usize) {
            tally.events += u64::from(is_told);
        }
    }

    pub(super) fn add(&mut self, kind: Kind, is_told: bool) {
        if let Some(tally) = self.0.get_mut(kind as usize) {
            tally.add(is_told);
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
                    None => self.add(source, table),
                };
                if let Some(slot) = self.places.get_mut(index as usize) {
                    *slot = Some(place);
                }
                place
            }
        };
        let entry = self.entry(place)?;
        if !Arc::ptr_eq(&entry.text.table, table) {
            (entry.text, entry.refusal) = TableText::new(source, table);
        }
        Ok(place)
    }

    fn add(&mut self, source: &SourceText, table: &Arc<Table>) -> usize {
        let place = self.entries.len();
        let (text, refusal) = TableText::new(source, table);
        self.entries.push(Entry { text, refusal, shape: None, counts: Counts::default() });
        self.by_name.entry(table.schema.clone()).or_default().insert(table.name.clone(), place);
        place
    }

    /// The table of an event, unless its shape is refused.
    pub(super) fn fit(&mut self, place: usize) -> Result<&mut Entry, Fault> {
        let entry = self.entry(place)?;
        match &entry.refusal {
            Some(refusal) => Err(Fault::Drift(Arc::clone(refusal))),
            None => Ok(entry),
        }
    }

    pub(super) fn entry(&mut self, place: usize) -> Result<&mut Entry, Fault> {
        self.entries.get_mut(place).ok_or(Fault::Malformed("a change names a table that is not there"))
    }

    /// Moves the counts of the current batch's tables out.
    pub(super) fn take_counts(&mut self, out: &mut Vec<Count>) {
        for place in self.places.iter().copied().flatten() {
            let Some(entry) = self.entries.get_mut(place) else { continue };
            for (kind, tally) in Kind::ALL.into_iter().zip(std::mem::take(&mut entry.counts).0) {
                if tally.changes > 0 || tally.events > 0 {
                    out.push(Count {
                        table: Arc::clone(&entry.text.name),
                        op: kind.op(),
                        event_type: Arc::clone(&entry.text.event_type(kind).name),
                        changes: tally.changes,
                        events: tally.events,
                    });
                }
            }
        }
    }
}
