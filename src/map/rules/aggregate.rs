//! Wholes with their parts: one event per root row that a transaction touched, told at its end.
//!
//! What belongs together is collected while the transaction passes, whichever comes first, and written as it stands at the
//! commit. Held are copies of the rows of tables that a rule names, up to `max_bytes`; a transaction with more of them is no
//! matter as long as it touches no root.

use std::collections::HashMap;
use std::sync::Arc;

use figvine_change::{Table, Within};

use super::rows::{OwnedRow, RowRef, Sides};
use super::settings::On;

/// What happens to a transaction whose rows are more than may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLarge {
    /// The source stops there.
    Stop,
    /// One event says that those of the rule are missing; the changes themselves are told as ever.
    #[default]
    Park,
}

/// What one rule holds of the open transaction.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By the JSON of the root's key: a place in `roots`.
    places: HashMap<Vec<u8>, usize>,
    roots: Vec<Root>,
    /// Of parts whose removal does not tell the root's key: where they are.
    bytes: u64,
    rows: u64,
    touches_roots: bool,
    is_large: bool,
}

/// A root row, and what of its parts was touched.
#[derive(Debug)]
pub(super) struct Root {
    /// The first change of the root itself.
    pub(super) about: Option<Within>,
    /// Whether it was there before the transaction.
    existed: bool,
    is_rekeyed: bool,
    pub(super) before: Option<OwnedRow>,
    pub(super) before_is_key: bool,
    pub(super) after: Option<OwnedRow>,
    /// For each list the parts by their keys, in the order in which they were first touched.
    pub(super) lists: Vec<Parts>,
}

#[derive(Debug, Default)]
pub(super) struct Parts {
    places: HashMap<Vec<u8>, usize>,
    rows: Vec<Option<OwnedRow>>,
}

impl Parts {
    /// The rows that are there at the end.
    pub(super) fn rows(&self) -> impl Iterator<Item = &OwnedRow> {
        self.rows.iter().flatten()
    }

    fn set(&mut self, key: &[u8], row: Option<OwnedRow>) {
        match self.places.get(key) {
            Some(place) => {
                if let Some(slot) = self.rows.get_mut(*place) {
                    *slot = row;
                }
            }
            None => {
                self.places.insert(key.to_vec(), self.rows.len());
                self.rows.push(row);
            }
        }
    }
}

impl Root {
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
}

impl Held {
    /// Whether it is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Rows touched of a transaction that holds roots and is larger than may be held.
    pub(super) fn overflow(&self) -> Option<u64> {
        (self.is_large && self.touches_roots).then_some(self.rows)
    }

    /// The roots in the order in which they, or the first of their parts, were touched.
    pub(super) fn roots(&self) -> &[Root] {
        &self.roots
    }

    fn root(&mut self, key: &[u8], lists: usize) -> Option<&mut Root> {
        let place = match self.places.get(key) {
            Some(place) => *place,
            None => {
                self.bytes += (2 * key.len() + size_of::<Root>()) as u64;
                self.places.insert(key.to_vec(), self.roots.len());
                self.roots.push(Root {
                    about: None,
                    existed: true,
                    is_rekeyed: false,
                    before: None,
                    before_is_key: false,
                    after: None,
                    lists: std::iter::repeat_with(Parts::default).take(lists).collect(),
                });
                self.roots.len() - 1
            }
        };
        self.roots.get_mut(place)
    }

    /// Notes one row more; whether it is to be held.
    fn holds(&mut self, size: u64, max_bytes: u64) -> bool {
        self.rows += 1;
        self.bytes += size;
        if self.bytes > max_bytes && !self.is_large {
            self.is_large = true;
            self.places = HashMap::new();
            self.roots = Vec::new();
        }
        !self.is_large
    }

    /// Notes a change of a root.
    pub(super) fn touch(
        &mut self,
        (table, sides): (&Arc<Table>, &Sides<'_>),
        key: &[u8],
        at: Within,
        (lists, max_bytes): (usize, u64),
    ) {
        self.touches_roots = true;
        let owned = |row: Option<RowRef<'_>>| row.map(|row| OwnedRow::new(table, row));
        let (after, before) = (owned(sides.after), owned(sides.before));
        let size = after.iter().chain(&before).map(OwnedRow::size).sum();
        if !self.holds(size, max_bytes) {
            return;
        }
        let Some(root) = self.root(key, lists) else { return };
        if root.about.is_none() {
            root.about = Some(at);
            root.existed = sides.on != On::Insert;
            root.before = before;
            root.before_is_key = sides.before_is_key;
        }
        root.after = after;
    }

    /// Notes that a root goes on under another key.
    pub(super) fn rekey(&mut self, key: &[u8], at: Within, (lists, max_bytes): (usize, u64)) {
        if self.holds(0, max_bytes)
            && let Some(root) = self.root(key, lists)
        {
            root.about.get_or_insert(at);
            root.is_rekeyed = true;
            root.after = None;
        }
    }

    /// Notes a part: as it is now, or that it is gone from there.
    pub(super) fn part(
        &mut self,
        (root, part): (&[u8], &[u8]),
        row: Option<(&Arc<Table>, RowRef<'_>)>,
        (list, lists): (usize, usize),
        max_bytes: u64,
    ) {
        let row = row.map(|(table, row)| OwnedRow::new(table, row));
        let size = row.as_ref().map_or(0, OwnedRow::size) + 2 * part.len() as u64 + size_of::<usize>() as u64;
        if self.holds(size, max_bytes)
            && let Some(parts) = self.root(root, lists).and_then(|root| root.lists.get_mut(list))
        {
            parts.set(part, row);
        }
    }

    /// Takes a part out wherever it is: what removed it did not say where it was.
    pub(super) fn part_gone(&mut self, part: &[u8], list: usize, max_bytes: u64) {
        if self.holds(0, max_bytes) {
            for parts in self.roots.iter_mut().filter_map(|root| root.lists.get_mut(list)) {
                if parts.places.contains_key(part) {
                    parts.set(part, None);
                }
            }
        }
    }
}
