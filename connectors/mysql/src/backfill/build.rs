//! Rows of an answer to the batch of a chunk.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use figvine_change::{
    Batch, Body, Cell, Change, Chunk, Cursor, Found, Op, Row, RowChange, SourceError, SourceErrorKind, Transaction,
};

use super::shape::Shape;
use super::sight::Moment;
use crate::error::{Told, failure, garbled};
use crate::session::Values;

/// A chunk that is being built.
#[derive(Debug)]
pub(super) struct Builder {
    batch: Batch,
    data: Vec<u8>,
    cursors: Vec<Range<u32>>,
    /// Whether each row's place stands behind its values.
    has_places: bool,
    /// Where the last row begins: bytes and cells.
    last: (usize, usize),
    /// Rows before these, where they have numbers alone.
    numbered: u64,
    /// The values of a key as text, and where each ends.
    key: Vec<u8>,
    ends: Vec<usize>,
    cursor: Vec<u8>,
}

impl Builder {
    pub(super) fn new(shape: &Shape) -> Self {
        let transaction = Transaction {
            id: Box::default(),
            position: Box::default(),
            sequence: Box::default(),
            committed_at: 0,
            start: Box::default(),
            end: None,
            origin: None,
            traceparent: None,
            is_ignored: false,
            file: None,
        };
        let batch =
            Batch { transactions: vec![transaction], tables: vec![Arc::clone(&shape.table)], ..Batch::default() };
        Self {
            batch,
            data: Vec::new(),
            cursors: Vec::new(),
            has_places: true,
            last: (0, 0),
            numbered: 0,
            key: Vec::new(),
            ends: Vec::new(),
            cursor: Vec::new(),
        }
    }

    /// Rows without their places.
    pub(super) fn of_rows_alone(shape: &Shape) -> Self {
        Self { has_places: false, ..Self::new(shape) }
    }

    /// Rows of a table without an order are numbered, behind this one.
    pub(super) fn number_from(&mut self, row: u64) {
        self.numbered = row;
    }

    pub(super) fn rows(&self) -> u64 {
        self.batch.changes.len() as u64
    }

    pub(super) fn bytes(&self) -> usize {
        self.data.len()
    }

    /// Bytes that all rows take in memory.
    pub(super) fn size(&self) -> usize {
        Found::size_of(self.data.len(), self.batch.cells.len(), self.batch.changes.len())
    }

    /// Bytes of a row, about; 0 where there is none.
    pub(super) fn row_bytes(&self) -> usize {
        self.data.len().checked_div(self.batch.changes.len()).unwrap_or(0)
    }

    /// Appends a row, whose columns have these types in the answer.
    pub(super) fn add(&mut self, shape: &Shape, row: &[u8], types: &[u8]) -> Result<(), SourceError> {
        let first = self.batch.cells.len();
        self.last = (self.data.len(), first);
        let mut values = Values::of(row, types.len()).ok_or_else(|| garbled("a row of the server's answer"))?;
        for (at, (form, type_code)) in shape.forms.iter().zip(types).enumerate() {
            let value = values.next(*type_code).ok_or_else(|| garbled("a row of the server's answer"))?;
            let cell = match value {
                None => Cell::Null,
                Some(value) => {
                    let start = self.data.len();
                    form.write(value, &mut self.data).map_err(|_| unreadable(shape, at))?;
                    Cell::Value(range(start, self.data.len())?)
                }
            };
            self.batch.cells.push(cell);
        }
        if self.has_places {
            self.write_cursor(shape, first)?;
            let start = self.data.len();
            self.data.extend_from_slice(&self.cursor);
            self.cursors.push(range(start, self.data.len())?);
        }
        let row = Row { first: index(first)?, len: index(self.batch.cells.len() - first)? };
        self.batch.changes.push(Change {
            transaction: 0,
            ordinal: self.batch.changes.len() as u64,
            part: 1,
            last: false,
            body: Body::Row(RowChange {
                table: 0,
                op: Op::Read,
                before: None,
                before_is_key: false,
                after: Some(row),
                rekeyed: None,
            }),
        });
        Ok(())
    }

    /// The place of the row whose cells begin at `first`.
    fn write_cursor(&mut self, shape: &Shape, first: usize) -> Result<(), SourceError> {
        self.cursor.clear();
        let Some(read_index) = &shape.index else {
            let number = self.numbered + self.batch.changes.len() as u64 + 1;
            self.cursor.extend_from_slice(number.to_string().as_bytes());
            return Ok(());
        };
        self.key.clear();
        self.ends.clear();
        for column in &read_index.columns {
            let Some(Cell::Value(range)) = self.batch.cells.get(first + column.at) else {
                return Err(unreadable(shape, column.at));
            };
            let image = self.data.get(range.start as usize..range.end as usize).unwrap_or_default();
            column.kind.write(image, &mut self.key).ok_or_else(|| unreadable(shape, column.at))?;
            self.ends.push(self.key.len());
        }
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let texts = starts.zip(&self.ends).map(|(start, &end)| self.key.get(start..end).unwrap_or_default());
        Cursor::write_key(texts, &mut self.cursor);
        Ok(())
    }

    /// Forgets the last row.
    pub(super) fn take_back(&mut self) {
        let (bytes, cells) = self.last;
        self.data.truncate(bytes);
        self.batch.cells.truncate(cells);
        self.batch.changes.pop();
        self.cursors.pop();
    }

    pub(super) fn batch(mut self) -> Batch {
        self.batch.data = Bytes::from(self.data);
        self.batch
    }

    pub(super) fn finish(mut self, moment: Moment, is_last: bool) -> Chunk {
        self.batch.data = Bytes::from(self.data);
        Chunk {
            batch: self.batch,
            cursors: self.cursors,
            sight: Box::new(moment.shown),
            high: moment.high,
            is_last,
            read_at: moment.at,
        }
    }
}

fn unreadable(shape: &Shape, at: usize) -> SourceError {
    let table = shape.table.qualified_name();
    let column = shape.table.columns.get(at).map(|column| &*column.name).unwrap_or_default();
    let what = format!("reading rows of {table}: a value of column {column} is not as its type says");
    failure(SourceErrorKind::Invalid, "FV-1605", what).hint("The table may have been changed while it was read.")
}

fn range(start: usize, end: usize) -> Result<Range<u32>, SourceError> {
    Ok(index(start)?..index(end)?)
}

fn index(at: usize) -> Result<u32, SourceError> {
    u32::try_from(at)
        .map_err(|_| failure(SourceErrorKind::Invalid, "FV-1605", "reading rows: a row is larger than 4 GiB"))
}
