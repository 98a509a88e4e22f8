//! Wholes with their parts: one event per root row that a transaction touched, told at its end.
//!
//! What belongs together is collected while the transaction passes, whichever comes first, and written as it stands at the
//! commit. Held are copies of the rows of tables that a rule names, up to `max_bytes`, in a file beyond where that is said (see
//! `spill`); a transaction with more of them is no matter as long as it touches no root.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use figvine_change::{Table, Within};

use super::rows::{OwnedRow, RowRef, Sides};
use super::settings::On;
use super::spill::Spill;

/// What happens to a transaction whose rows are more than may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLarge {
    /// The source stops there.
    Stop,
    /// One event says that those of the rule are missing; the changes themselves are told as ever.
    #[default]
    Park,
    /// The rows go into a temporary file. An index of it stays in memory: one that is larger than the rows might be parks.
    Spill,
}

/// What one rule may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Lists of parts of each root.
    pub(super) lists: usize,
    pub(super) max_bytes: u64,
    pub(super) on_large: OnLarge,
}

/// What one rule holds of the open transaction.
#[derive(Debug, Default)]
pub(super) struct Held {
    kept: Kept,
    /// In memory.
    bytes: u64,
    rows: u64,
    touches_roots: bool,
}

#[derive(Debug)]
enum Kept {
    Memory(Roots),
    File(Box<Spill>),
    /// Nothing: it was more than may be held.
    Nothing,
}

impl Default for Kept {
    fn default() -> Self {
        Self::Memory(Roots::default())
    }
}

/// The roots in the order in which they, or the first of their parts, were touched.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// By the JSON of the root's key: a place in `roots`.
    pub(super) places: HashMap<Vec<u8>, usize>,
    pub(super) roots: Vec<Root>,
}

/// A root row, and what of its parts was touched.
#[derive(Debug)]
pub(super) struct Root {
    /// The first change of the root itself.
    pub(super) about: Option<Within>,
    /// Whether it was there before the transaction.
    pub(super) existed: bool,
    pub(super) is_rekeyed: bool,
    pub(super) before: Option<OwnedRow>,
    pub(super) before_is_key: bool,
    pub(super) after: Option<OwnedRow>,
    /// For each list the parts by their keys, in the order in which they were first touched; those that were looked up behind
    /// them.
    pub(super) lists: Vec<Parts>,
    /// Lists that were looked up, and when.
    pub(super) looked_up: Vec<(usize, i64)>,
    /// Whether there are more parts than may be looked up.
    pub(super) is_beyond: bool,
}

#[derive(Debug, Default)]
pub(super) struct Parts {
    places: HashMap<Vec<u8>, usize>,
    rows: Vec<Option<OwnedRow>>,
}

/// What one change says of a root.
#[derive(Debug)]
pub(super) enum Note {
    /// Of the row itself: what it is now, and what it was before.
    Root {
        at: Within,
        existed: bool,
        is_rekeyed: bool,
        before_is_key: bool,
        before: Option<OwnedRow>,
        after: Option<OwnedRow>,
    },
    /// Of a part by its key: as it is now, or that it is gone from there.
    Part { list: usize, key: Vec<u8>, row: Option<OwnedRow> },
}

impl Note {
    /// Bytes that it takes in memory.
    fn size(&self) -> u64 {
        match self {
            Self::Root { before, after, .. } => before.iter().chain(after).map(OwnedRow::size).sum(),
            Self::Part { key, row, .. } => {
                row.as_ref().map_or(0, OwnedRow::size) + 2 * key.len() as u64 + size_of::<usize>() as u64
            }
        }
    }
}

impl Parts {
    /// The rows that are there at the end.
    pub(super) fn rows(&self) -> impl Iterator<Item = &OwnedRow> {
        self.rows.iter().flatten()
    }

    /// All by their keys, in the order in which they were first touched.
    pub(super) fn into_each(self) -> impl Iterator<Item = (Vec<u8>, Option<OwnedRow>)> {
        let mut keys: Vec<_> = self.places.into_iter().collect();
        keys.sort_unstable_by_key(|(_, place)| *place);
        keys.into_iter().map(|(key, _)| key).zip(self.rows)
    }

    /// Adds one that was looked up: what was said of it before holds.
    pub(super) fn add(&mut self, key: &[u8], row: &OwnedRow) {
        if !self.places.contains_key(key) {
            self.set(key.to_vec(), Some(row.clone()));
        }
    }

    fn set(&mut self, key: Vec<u8>, row: Option<OwnedRow>) {
        match self.places.get(&key) {
            Some(place) => {
                if let Some(slot) = self.rows.get_mut(*place) {
                    *slot = row;
                }
            }
            None => {
                self.places.insert(key, self.rows.len());
                self.rows.push(row);
            }
        }
    }
}

impl Root {
    /// One that nothing was said of.
    pub(super) fn new(lists: usize) -> Self {
        Self {
            about: None,
            existed: true,
            is_rekeyed: false,
            before: None,
            before_is_key: false,
            after: None,
            lists: std::iter::repeat_with(Parts::default).take(lists).collect(),
            looked_up: Vec::new(),
            is_beyond: false,
        }
    }

    /// What the transaction did to it as a whole; `None` where that is nothing, or nothing that is told.
    pub(super) fn on(&self) -> Option<On> {
        self.about?;
        match (self.existed, &self.after) {
            (false, Some(_)) => Some(On::Insert),
            (true, Some(_)) => Some(On::Update),
            (true, None) if !self.is_rekeyed => Some(On::Delete),
            _ => None,
        }
    }

    /// Bytes that its rows take.
    pub(super) fn size(&self) -> u64 {
        let parts = self.lists.iter().flat_map(Parts::rows);
        self.before.iter().chain(&self.after).chain(parts).map(OwnedRow::size).sum()
    }

    /// What it is to rules, where it is to be told: the change that it is about, and the row as it is now or was.
    pub(super) fn sides(&self) -> Option<(Within, &OwnedRow, Sides<'_>)> {
        let sides = Sides {
            on: self.on()?,
            after: self.after.as_ref().map(OwnedRow::view),
            before: self.before.as_ref().map(OwnedRow::view),
            before_is_key: self.before_is_key,
        };
        Some((self.about?, self.after.as_ref().or(self.before.as_ref())?, sides))
    }

    pub(super) fn note(&mut self, note: Note) {
        match note {
            Note::Root { at, existed, is_rekeyed, before_is_key, before, after } => {
                if self.about.is_none() {
                    self.about = Some(at);
                    self.existed = existed;
                    self.before = before;
                    self.before_is_key = before_is_key;
                }
                self.is_rekeyed |= is_rekeyed;
                self.after = after;
            }
            Note::Part { list, key, row } => {
                if let Some(parts) = self.lists.get_mut(list) {
                    parts.set(key, row);
                }
            }
        }
    }
}

impl Roots {
    fn note(&mut self, key: &[u8], note: Note, lists: usize) {
        let place = match self.places.get(key) {
            Some(place) => *place,
            None => {
                self.places.insert(key.to_vec(), self.roots.len());
                self.roots.push(Root::new(lists));
                self.roots.len() - 1
            }
        };
        if let Some(root) = self.roots.get_mut(place) {
            root.note(note);
        }
    }
}

impl Held {
    /// Whether it is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Rows touched of a transaction that holds roots and is larger than may be held.
    pub(super) fn overflow(&self) -> Option<u64> {
        (self.touches_roots && matches!(self.kept, Kept::Nothing)).then_some(self.rows)
    }

    /// How many roots there are, in the order in which they, or the first of their parts, were touched.
    pub(super) fn roots(&self) -> usize {
        match &self.kept {
            Kept::Memory(roots) => roots.roots.len(),
            Kept::File(spill) => spill.roots(),
            Kept::Nothing => 0,
        }
    }

    /// Takes one out; `None` at most where it was not touched itself.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn take(&mut self, place: usize, lists: usize) -> io::Result<Option<Root>> {
        match &mut self.kept {
            Kept::Memory(roots) => Ok(roots.roots.get_mut(place).map(|root| std::mem::replace(root, Root::new(0)))),
            Kept::File(spill) => spill.read(place, lists),
            Kept::Nothing => Ok(None),
        }
    }

    /// Puts one back.
    pub(super) fn put_back(&mut self, place: usize, root: Option<Root>) {
        // In a file it is still there.
        if let (Kept::Memory(roots), Some(root)) = (&mut self.kept, root)
            && let Some(slot) = roots.roots.get_mut(place)
        {
            *slot = root;
        }
    }

    /// Notes a change of a root.
    pub(super) fn touch(
        &mut self,
        (table, sides): (&Arc<Table>, &Sides<'_>),
        key: &[u8],
        at: Within,
        limits: Limits,
    ) -> io::Result<()> {
        self.touches_roots = true;
        let owned = |row: Option<RowRef<'_>>| row.map(|row| OwnedRow::new(table, row));
        let note = Note::Root {
            at,
            existed: sides.on != On::Insert,
            is_rekeyed: false,
            before_is_key: sides.before_is_key,
            before: owned(sides.before),
            after: owned(sides.after),
        };
        self.note(key, note, limits)
    }

    /// Notes that a root goes on under another key.
    pub(super) fn rekey(&mut self, key: &[u8], at: Within, limits: Limits) -> io::Result<()> {
        let note = Note::Root { at, existed: true, is_rekeyed: true, before_is_key: false, before: None, after: None };
        self.note(key, note, limits)
    }

    /// Notes a part: as it is now, or that it is gone from there.
    pub(super) fn part(
        &mut self,
        root: &[u8],
        (list, key): (usize, Vec<u8>),
        row: Option<(&Arc<Table>, RowRef<'_>)>,
        limits: Limits,
    ) -> io::Result<()> {
        let row = row.map(|(table, row)| OwnedRow::new(table, row));
        self.note(root, Note::Part { list, key, row }, limits)
    }

    /// Takes a part out wherever it is: what removed it did not say where it was.
    pub(super) fn part_gone(&mut self, list: usize, key: &[u8]) {
        self.rows += 1;
        match &mut self.kept {
            Kept::Memory(roots) => {
                for parts in roots.roots.iter_mut().filter_map(|root| root.lists.get_mut(list)) {
                    if parts.places.contains_key(key) {
                        parts.set(key.to_vec(), None);
                    }
                }
            }
            Kept::File(spill) => spill.part_gone(list, key),
            Kept::Nothing => {}
        }
        self.bound();
    }

    fn note(&mut self, key: &[u8], note: Note, limits: Limits) -> io::Result<()> {
        self.rows += 1;
        if let Kept::Memory(roots) = &mut self.kept {
            self.bytes += note.size();
            if !roots.places.contains_key(key) {
                self.bytes += (2 * key.len() + size_of::<Root>()) as u64;
            }
            if self.bytes <= limits.max_bytes {
                roots.note(key, note, limits.lists);
                return Ok(());
            }
            self.kept = match limits.on_large {
                OnLarge::Spill => Kept::File(Box::new(Spill::of(std::mem::take(roots), limits.max_bytes)?)),
                OnLarge::Stop | OnLarge::Park => Kept::Nothing,
            };
        }
        if let Kept::File(spill) = &mut self.kept {
            spill.note(key, &note)?;
        }
        self.bound();
        Ok(())
    }

    fn bound(&mut self) {
        if matches!(&self.kept, Kept::File(spill) if spill.is_large()) {
            self.kept = Kept::Nothing;
        }
    }
}
