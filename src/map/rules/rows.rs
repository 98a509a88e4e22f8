//! Rows as rules read them: a change's two sides, and rows kept beyond their batch.

use std::sync::Arc;

use figvine_change::{Batch, Cell, Op, Row, RowChange, Table};

use super::expression::Side;
use super::settings::On;

/// A row with the bytes that its cells point into.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowRef<'a> {
    pub(super) data: &'a [u8],
    pub(super) cells: &'a [Cell],
}

impl<'a> RowRef<'a> {
    pub(super) fn bytes(&self, cell: &Cell) -> Option<&'a [u8]> {
        match cell {
            Cell::Value(range) => self.data.get(range.start as usize..range.end as usize),
            Cell::Null | Cell::Unchanged => None,
        }
    }

    /// Whether two cells hold the same; `None` where that is not known.
    fn has_same(&self, other: &Self, column: usize) -> Option<bool> {
        match (self.cells.get(column)?, other.cells.get(column)?) {
            (Cell::Unchanged, _) | (_, Cell::Unchanged) => None,
            (Cell::Null, Cell::Null) => Some(true),
            (a @ Cell::Value(_), b @ Cell::Value(_)) => Some(self.bytes(a) == other.bytes(b)),
            _ => Some(false),
        }
    }
}

/// What rules see of a row change.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sides<'a> {
    pub(super) on: On,
    pub(super) after: Option<RowRef<'a>>,
    pub(super) before: Option<RowRef<'a>>,
    /// Whether of the row before only the key's columns are there.
    pub(super) before_is_key: bool,
}

/// What a change is to rules.
pub(super) enum Seen<'a> {
    /// An operation.
    Row(Sides<'a>),
    /// A row that goes on under another key: the other half is the operation.
    Rekeyed(RowRef<'a>),
    /// Nothing.
    Nothing,
}

impl<'a> Sides<'a> {
    /// Of a change. `old_is_key` says of the second half of a key change whether its old row holds the key alone.
    pub(super) fn of(batch: &'a Batch, change: &RowChange, old_is_key: bool) -> Seen<'a> {
        let row = |row: Row| RowRef { data: &batch.data, cells: batch.row(row) };
        let (after, before) = (change.after.map(row), change.before.map(row));
        let sides = |on, after, before, before_is_key| Seen::Row(Self { on, after, before, before_is_key });
        match (change.op, change.rekeyed) {
            (Op::Insert, Some(old)) => sides(On::Update, after, Some(row(old)), old_is_key),
            (Op::Delete, Some(_)) => before.map_or(Seen::Nothing, Seen::Rekeyed),
            (Op::Insert, _) => sides(On::Insert, after, None, false),
            (Op::Read, _) => sides(On::Read, after, None, false),
            (Op::Update, _) => sides(On::Update, after, before, change.before_is_key),
            (Op::Delete, _) => sides(On::Delete, None, before, change.before_is_key),
            (Op::Tombstone, _) => Seen::Nothing,
        }
    }

    /// Whether an update changed a column; `None` where the log does not tell.
    pub(super) fn is_changed(&self, table: &Table, column: usize) -> Option<bool> {
        let (after, before) = (self.after?, self.before);
        // What the log left out is as it was.
        if after.cells.get(column) == Some(&Cell::Unchanged) {
            return Some(false);
        }
        let before = before.filter(|_| !self.before_is_key || table.key.contains(&column))?;
        after.has_same(&before, column).map(|same| !same)
    }

    /// Where a column of a side stands: `Err` where there is no such row, `Ok(None)` where the log does not carry it.
    pub(super) fn cell(&self, table: &Table, side: Side, column: usize) -> Result<Option<(RowRef<'a>, &'a Cell)>, ()> {
        let carried =
            |row: RowRef<'a>| row.cells.get(column).filter(|cell| **cell != Cell::Unchanged).map(|cell| (row, cell));
        let before = self.before.filter(|_| !self.before_is_key || table.key.contains(&column));
        match side {
            Side::After => match self.after {
                None => Err(()),
                Some(row) => Ok(carried(row).or_else(|| before.and_then(carried))),
            },
            Side::Before if self.before.is_none() => Err(()),
            Side::Before => Ok(before.and_then(carried)),
        }
    }
}

/// A row that outlives its batch.
#[derive(Debug, Clone)]
pub(super) struct OwnedRow {
    pub(super) table: Arc<Table>,
    data: Box<[u8]>,
    cells: Box<[Cell]>,
}

impl OwnedRow {
    pub(super) fn new(table: &Arc<Table>, row: RowRef<'_>) -> Self {
        let mut data = Vec::new();
        let cells = row.cells.iter().map(|cell| match row.bytes(cell) {
            Some(bytes) => {
                let start = end(&data);
                data.extend_from_slice(bytes);
                Cell::Value(start..end(&data))
            }
            None if *cell == Cell::Null => Cell::Null,
            None => Cell::Unchanged,
        });
        let cells = cells.collect();
        Self { table: Arc::clone(table), data: data.into(), cells }
    }

    pub(super) fn view(&self) -> RowRef<'_> {
        RowRef { data: &self.data, cells: &self.cells }
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> u64 {
        (self.data.len() + self.cells.len() * size_of::<Cell>() + size_of::<Self>()) as u64
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a row is a part of a batch, whose bytes are numbered by a u32")]
fn end(data: &[u8]) -> u32 {
    data.len() as u32
}
