//! What rules read of a change: the columns that they name as JSON, each written once, and the transaction.

use figvine_change::{Cell, Table, Transaction};

use super::error::Fault;
use super::expression::{Slot, Tx};
use super::plan::{RulePlan, TablePlan};
use super::rows::{RowRef, Sides};
use crate::event::write_timestamp;

/// Columns of the current change as JSON.
#[derive(Default)]
pub(super) struct Read {
    pub(super) json: Vec<u8>,
    texts: Vec<Text>,
}

#[derive(Clone)]
pub(super) enum Text {
    NoRow,
    NotCarried,
    Json(std::ops::Range<usize>),
}

/// What expressions see of the transaction.
#[derive(Default)]
pub(super) struct TxText {
    id: String,
    position: String,
    committed_at: String,
    origin: Option<String>,
    traceparent: Option<String>,
}

impl TxText {
    pub(super) fn load(&mut self, transaction: &Transaction) {
        let Self { id, position, committed_at, origin, traceparent } = self;
        id.clear();
        id.push_str(&transaction.id);
        position.clear();
        position.push_str(&transaction.position);
        let mut time = Vec::new();
        write_timestamp(transaction.committed_at, &mut time);
        committed_at.clear();
        committed_at.push_str(&String::from_utf8_lossy(&time));
        *origin = transaction.origin.as_deref().map(Into::into);
        *traceparent = transaction.traceparent.as_deref().map(Into::into);
    }

    pub(super) fn tx(&self) -> Tx<'_> {
        Tx {
            id: &self.id,
            position: &self.position,
            committed_at: &self.committed_at,
            origin: self.origin.as_deref(),
            traceparent: self.traceparent.as_deref(),
        }
    }
}

impl Read {
    /// Writes what rules read of a row.
    pub(super) fn load(&mut self, plan: &TablePlan, sides: &Sides<'_>) -> Result<(), Fault> {
        self.json.clear();
        self.texts.clear();
        for &(side, column) in &plan.read {
            let text = match sides.cell(&plan.table, side, column) {
                Err(()) => Text::NoRow,
                Ok(None) => Text::NotCarried,
                Ok(Some((row, cell))) => {
                    let start = self.json.len();
                    write_cell(&plan.table, row, cell, column, &mut self.json)?;
                    Text::Json(start..self.json.len())
                }
            };
            self.texts.push(text);
        }
        Ok(())
    }

    /// The slots of one rule.
    pub(super) fn slots<'a>(&'a self, table: &'a TablePlan, plan: &RulePlan, json: &'a str, slots: &mut Vec<Slot<'a>>) {
        slots.extend(plan.slots.iter().map(|&(place, reading)| match self.texts.get(place) {
            Some(Text::Json(range)) => Slot::Json(json.get(range.clone()).unwrap_or_default(), reading),
            Some(Text::NotCarried) => Slot::NotCarried(table.column_name(place)),
            Some(Text::NoRow) => Slot::NoRow(table.side_name(place)),
            None => Slot::NoRow("before"),
        }));
    }
}

impl TablePlan {
    fn column_name(&self, place: usize) -> &str {
        let column = self.read.get(place).and_then(|(_, column)| self.table.columns.get(*column));
        column.map_or("?", |column| &column.name)
    }

    fn side_name(&self, place: usize) -> &'static str {
        self.read.get(place).map_or("before", |(side, _)| side.name())
    }
}

pub(super) fn write_cell(
    table: &Table,
    row: RowRef<'_>,
    cell: &Cell,
    column: usize,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    match (row.bytes(cell), table.columns.get(column)) {
        (Some(raw), Some(described)) => {
            described.codec.write_json(raw, out).map_err(|source| Fault::Value { column, source })
        }
        _ => {
            out.extend_from_slice(b"null");
            Ok(())
        }
    }
}
