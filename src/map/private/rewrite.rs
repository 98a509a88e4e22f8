//! Batches rewritten: new cells and bytes behind those that are there.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use figvine_change::{Batch, Body, Cell, Chunk, Cursor, Row, RowChange};

use super::PrivateError;
use super::keys::Held;
use super::mask::Mask;
use super::master::{Master, SubjectId};
use super::plan::{How, Plan};
use super::rules::{Action, Shredded};
use super::text::{NOBODYS, Published, TEXT, UNREADABLE, published};
use super::{seal, token};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The rows of a change, for what one tells and another does not.
struct Rows<'a> {
    batch: &'a Batch,
    change: &'a RowChange,
}

impl Rows<'_> {
    fn all(&self) -> [Option<Row>; 3] {
        [self.change.after, self.change.before, self.change.rekeyed]
    }

    /// The cell that names the subject of a row: its own, else that of another row of the change. A row that may hold its
    /// key alone tells nothing by a null outside the key.
    fn subject(&self, row: Row, (at, is_key): (usize, bool)) -> Option<&Cell> {
        let told = |row: Row| {
            let is_whole =
                self.change.after == Some(row) || self.change.before == Some(row) && !self.change.before_is_key;
            let cell = self.batch.row(row).get(at)?;
            match cell {
                Cell::Value(_) => (is_key || is_whole || self.change.rekeyed == Some(row)).then_some(cell),
                Cell::Null => (is_key || is_whole).then_some(cell),
                Cell::Unchanged => None,
            }
        };
        told(row).or_else(|| self.all().into_iter().flatten().find_map(told))
    }

    /// The name of the subject of a row's column.
    fn subject_id(
        &self,
        plan: &Plan,
        row: Row,
        how: &How,
        master: &Master,
        scratch: &mut Vec<u8>,
    ) -> Option<SubjectId> {
        let (Action::Encrypt(encrypt), Some(place)) = (&how.action, how.subject) else { return None };
        let text = match self.subject(row, place)? {
            Cell::Value(range) => {
                let column = plan._came.columns.get(place.0)?;
                match published(&*column.codec, self.batch.bytes(range), scratch).ok()? {
                    Published::Text(text) => text,
                    Published::Null => String::new(),
                }
            }
            // Nobody's: under one key all the same.
            Cell::Null => String::new(),
            Cell::Unchanged => return None,
        };
        Some(master.subject(&encrypt.kind, &text))
    }
}

/// The row changes of a batch, each with its table's plan, where something of it is hidden.
fn touched<'a>(batch: &'a Batch, plans: &'a [Arc<Plan>]) -> impl Iterator<Item = (Rows<'a>, &'a Plan)> {
    batch.changes.iter().filter_map(move |change| {
        let Body::Row(change) = &change.body else { return None };
        let plan = plans.get(change.table as usize).filter(|plan| plan.made.is_some())?;
        Some((Rows { batch, change }, &**plan))
    })
}

/// The subjects whose data a batch holds in columns that are encrypted.
pub(super) fn subjects(batch: &Batch, plans: &[Arc<Plan>], master: &Master) -> HashSet<SubjectId> {
    let mut found = HashSet::new();
    let mut scratch = Vec::new();
    for (rows, plan) in touched(batch, plans).filter(|(_, plan)| plan.encrypts) {
        for row in rows.all().into_iter().flatten() {
            let cells = batch.row(row);
            for kept in &plan.kept {
                let Some(how) = kept.hidden.as_ref().filter(|how| how.subject.is_some()) else { continue };
                if matches!(cells.get(kept.at), Some(Cell::Value(_))) {
                    found.extend(rows.subject_id(plan, row, how, master, &mut scratch));
                }
            }
        }
    }
    found
}

/// Rewrites a batch. `keys` are those of [`subjects`].
pub(super) fn rewrite(
    batch: &mut Batch,
    plans: &[Arc<Plan>],
    keys: Option<(&Master, &Held)>,
) -> Result<(), PrivateError> {
    let mut data = Vec::with_capacity(batch.data.len() * 2);
    data.extend_from_slice(&batch.data);
    let mut writer = Writer { keys, scratch: Vec::new(), data, cells: Vec::new() };
    // Where each row went, by its first cell: the halves of a key change share theirs.
    let mut moved: Vec<Option<Row>> = vec![None; batch.cells.len()];
    for (rows, plan) in touched(batch, plans) {
        for row in rows.all().into_iter().flatten() {
            // One that is of another width would be taken for what it is not.
            let cells = batch.row(row);
            if cells.len() != plan.width {
                return Err(PrivateError::Malformed("a row has not as many cells as its table has columns"));
            }
            let slot = match moved.get_mut(row.first as usize) {
                Some(slot) if slot.is_none() => slot,
                // Done; or a table all of whose columns are dropped has rows without cells.
                _ => continue,
            };
            let first = batch.cells.len() + writer.cells.len();
            writer.row(&rows, plan, row, cells)?;
            *slot = Some(Row { first: place(first)?, len: place(plan.kept.len())? });
        }
    }
    for change in &mut batch.changes {
        let Body::Row(change) = &mut change.body else { continue };
        if plans.get(change.table as usize).is_none_or(|plan| plan.made.is_none()) {
            continue;
        }
        for row in [&mut change.before, &mut change.after, &mut change.rekeyed].into_iter().flatten() {
            *row = moved.get(row.first as usize).copied().flatten().unwrap_or(Row { first: 0, len: 0 });
        }
    }
    batch.cells.append(&mut writer.cells);
    batch.data = writer.data.into();
    for (table, plan) in batch.tables.iter_mut().zip(plans) {
        if let Some(made) = &plan.made {
            *table = Arc::clone(made);
        }
    }
    Ok(())
}

/// A place in a batch.
fn place(at: usize) -> Result<u32, PrivateError> {
    u32::try_from(at).map_err(|_| PrivateError::Malformed("it fills more than 4 GiB"))
}

struct Writer<'k> {
    keys: Option<(&'k Master, &'k Held)>,
    scratch: Vec<u8>,
    data: Vec<u8>,
    cells: Vec<Cell>,
}

impl Writer<'_> {
    fn row(&mut self, rows: &Rows<'_>, plan: &Plan, row: Row, cells: &[Cell]) -> Result<(), PrivateError> {
        for kept in &plan.kept {
            let cell = cells.get(kept.at).ok_or(PrivateError::Malformed("a row lacks a cell"))?;
            let cell = match (&kept.hidden, cell) {
                (Some(how), Cell::Value(range)) => self.value(rows, plan, row, (kept.at, kept.is_key), how, range)?,
                _ => cell.clone(),
            };
            self.cells.push(cell);
        }
        Ok(())
    }

    /// A value's cell, hidden.
    fn value(
        &mut self,
        rows: &Rows<'_>,
        plan: &Plan,
        row: Row,
        (at, is_key): (usize, bool),
        how: &How,
        range: &Range<u32>,
    ) -> Result<Cell, PrivateError> {
        let raw = rows.batch.data.get(range.start as usize..range.end as usize);
        let raw = raw.ok_or(PrivateError::Malformed("a cell lies outside the batch's data"))?;
        let start = self.data.len();
        let codec = plan._came.columns.get(at).map(|column| &*column.codec);
        let codec = codec.ok_or(PrivateError::Malformed("a row has more cells than its table has columns"))?;
        match published(codec, raw, &mut self.scratch) {
            Ok(Published::Null) => return Ok(Cell::Null),
            Err(_) => {
                self.data.push(UNREADABLE);
                self.data.extend_from_slice(raw);
            }
            Ok(Published::Text(text)) => {
                self.data.push(TEXT);
                match (&how.action, self.keys) {
                    (Action::Mask(mask), _) => mask.write(&text, &mut self.data),
                    (Action::Hash, Some((master, _))) => {
                        for byte in master.hash(text.as_bytes()) {
                            for nibble in [byte >> 4, byte & 0xf] {
                                self.data.push(HEX.get(nibble as usize).copied().unwrap_or(b'0'));
                            }
                        }
                    }
                    (Action::Tokenise, Some((master, _))) => token::write(master, &text, &mut self.data),
                    (Action::Encrypt(_), Some((master, held))) => {
                        return self.encrypted(rows, plan, row, is_key, how, (master, held), start);
                    }
                    // Plans see to it that there are keys; and what is published or dropped does not come here.
                    (Action::Hash | Action::Tokenise | Action::Encrypt(_), None)
                    | (Action::Publish | Action::Drop, _) => {
                        return Err(PrivateError::Malformed("a value is to be hidden without a key"));
                    }
                }
            }
        }
        self.cell(start)
    }

    /// The same for a column that is encrypted; the value's JSON stands in `scratch`.
    #[expect(clippy::too_many_arguments, reason = "the value's place, and what hides it")]
    fn encrypted(
        &mut self,
        rows: &Rows<'_>,
        plan: &Plan,
        row: Row,
        is_key: bool,
        how: &How,
        (master, held): (&Master, &Held),
        start: usize,
    ) -> Result<Cell, PrivateError> {
        let mut scratch = Vec::new();
        let Some(subject) = rows.subject_id(plan, row, how, master, &mut scratch) else {
            self.data.truncate(start);
            self.data.push(NOBODYS);
            return self.cell(start);
        };
        let Action::Encrypt(encrypt) = &how.action else {
            return Err(PrivateError::Malformed("a column is encrypted without a rule"));
        };
        match held.get(&subject) {
            Some(Some(key)) => {
                let written = seal::write(key, &subject, &how.name, &self.scratch, &mut self.data);
                written.ok_or(PrivateError::Malformed("a value is too large to be encrypted"))?;
            }
            Some(None) if is_key => seal::write_gone(master, &subject, &how.name, &self.scratch, &mut self.data),
            Some(None) => match encrypt.shredded {
                Shredded::Null => {
                    self.data.truncate(start);
                    return Ok(Cell::Null);
                }
                Shredded::Mask => Mask::default().write("", &mut self.data),
            },
            None => return Err(PrivateError::Malformed("a subject's key was not looked for")),
        }
        self.cell(start)
    }

    /// The cell of what was written from `start` on.
    fn cell(&self, start: usize) -> Result<Cell, PrivateError> {
        Ok(Cell::Value(place(start)?..place(self.data.len())?))
    }
}

/// Seals the cursors of a chunk.
pub(super) fn seal_cursors(chunk: &mut Chunk, master: &Master) -> Result<(), PrivateError> {
    let mut data = Vec::from(std::mem::take(&mut chunk.batch.data));
    for cursor in &mut chunk.cursors {
        let text = data.get(cursor.start as usize..cursor.end as usize).and_then(|text| std::str::from_utf8(text).ok());
        let sealed = text.and_then(Cursor::parse).and_then(|cursor| seal::seal_cursor(master, &cursor));
        let sealed = sealed.ok_or(PrivateError::Malformed("a row's cursor is none"))?;
        let start = place(data.len())?;
        data.extend_from_slice(sealed.as_str().as_bytes());
        *cursor = start..place(data.len())?;
    }
    chunk.batch.data = data.into();
    Ok(())
}
