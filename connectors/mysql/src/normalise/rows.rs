//! Rows.

use std::collections::VecDeque;

use figvine_change::assemble::Record;
use figvine_change::{Batch, Body, Cell, Row};

use super::error::misplaced;
use super::{NormaliseError, Normaliser, REBUILT, bytes_of};
use crate::decode::rows::Rows;
use crate::value::json_diff;

impl Normaliser {
    pub(super) fn rows(
        &mut self,
        rows: &Rows<'_>,
        data: &[u8],
        out: &mut VecDeque<Batch>,
    ) -> Result<(), NormaliseError> {
        self.rows_of(rows, data, out)?;
        if rows.ends_statement() {
            self.statement_ended();
        }
        Ok(())
    }

    /// A statement names the tables that it may change: a captured one of which no rows came may have been changed by
    /// a foreign key (or have a trigger that did nothing).
    pub(super) fn statement_ended(&mut self) {
        let Some(open) = &mut self.open else { return };
        for (id, has_rows) in open.named.drain(..) {
            if has_rows || open.is_passed || self.tables.logs_cascades {
                continue;
            }
            let Some(table) = self.tables.get_mut(id).and_then(|known| known.captured.clone()) else { continue };
            self.untold.cascades += 1;
            // The metric counts on.
            if self.tables.is_first_cascade(&table) {
                tracing::warn!(
                    table = %table.qualified_name(),
                    "a statement named it and told no rows: if a foreign key changed it, the log and the stream lack that"
                );
            }
        }
    }

    fn rows_of(&mut self, rows: &Rows<'_>, data: &[u8], out: &mut VecDeque<Batch>) -> Result<(), NormaliseError> {
        // A statement that ends without rows of its own names a table id that belongs to none.
        if rows.is_empty() {
            return Ok(());
        }
        let Some(open) = &mut self.open else { return Err(misplaced("rows", "outside a transaction")) };
        let (tables, assembler) = (&mut self.tables, &mut self.assembler);
        let known = tables.get_mut(rows.table_id).ok_or(NormaliseError::UnknownTable { id: rows.table_id })?;
        let captured = known.captured.as_ref().filter(|_| !open.is_passed);
        open.has_captured |= captured.is_some();
        open.named.iter_mut().filter(|(id, _)| *id == rows.table_id).for_each(|(_, has_rows)| *has_rows = true);
        let mut reader = rows.of(&known.map)?;
        loop {
            let cells = assembler.cells().len();
            let Some(images) = reader.next(assembler.cells()) else { return Ok(()) };
            let images = images?;
            let Some(ordinal) = assembler.count() else { return Ok(()) };
            let Some(table) = captured else {
                assembler.cells().truncate(cells);
                continue;
            };
            for &column in reader.partial() {
                rebuild(column, images.before, images.after, data, assembler.cells(), &mut self.rebuilt).map_err(
                    |()| NormaliseError::PartialJson {
                        column: table.columns.get(column).map(|c| c.name.clone()).unwrap_or_default(),
                        table: table.qualified_name(),
                    },
                )?;
            }
            let index = assembler.table(table);
            if !std::mem::replace(&mut known.is_told, true) {
                let all = assembler.cells().len();
                assembler.push(ordinal, 0, Body::Shape { table: index }, all, out);
            }
            let record =
                Record { table: index, before: images.before, before_is_key: false, after: images.after, cells };
            assembler.row(ordinal, record, data, out);
        }
    }
}

/// Puts the whole value in place of the differences to the one before.
fn rebuild(
    column: usize,
    before: Option<Row>,
    after: Option<Row>,
    data: &[u8],
    cells: &mut [Cell],
    rebuilt: &mut Vec<u8>,
) -> Result<(), ()> {
    let at = |row: Option<Row>| row.map(|row| row.first as usize + column);
    let (Some(old), Some(new)) = (at(before), at(after)) else { return Err(()) };
    let old = cells.get(old).cloned();
    let Some(target) = cells.get_mut(new) else { return Err(()) };
    let Cell::Value(differences) = target.clone() else { return Ok(()) };
    let value = match old {
        // The row before does not have it either: all that is known is that it is not told.
        None | Some(Cell::Unchanged) => Cell::Unchanged,
        Some(Cell::Value(old)) if differences.is_empty() => Cell::Value(old),
        Some(Cell::Value(old)) => {
            let start = rebuilt.len();
            json_diff::apply(bytes_of(data, &old), bytes_of(data, &differences), rebuilt).map_err(|_| ())?;
            let place =
                |length: usize| u32::try_from(length).ok().and_then(|length| REBUILT.checked_add(length)).ok_or(());
            Cell::Value(place(start)?..place(rebuilt.len())?)
        }
        Some(Cell::Null) => return Err(()),
    };
    *target = value;
    Ok(())
}
