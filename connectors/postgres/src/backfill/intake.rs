//! Rows as COPY sends them, to the batch that they become.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use figvine_change::{Batch, Body, Cell, Change, Cursor, Found, Op, Row, RowChange, Table, Transaction};
use futures_util::StreamExt;

use super::place::{Pass, Place};
use super::rows::{self, RowError};
use super::shape::KeyColumn;
use crate::catalogue::Catalogue;

/// No batch may hold more: its ranges have 32 bits.
const MOST_BYTES: usize = 1 << 31;

/// Rows as they come in.
#[derive(Debug, Default)]
pub(super) struct Rows {
    data: Vec<u8>,
    cells: Vec<Cell>,
    changes: Vec<Change>,
    cursors: Vec<Range<u32>>,
    /// Where the row that is being read begins in `data`.
    from: usize,
    /// The cursor that is being written.
    key: Vec<u8>,
    /// Rows that the server sent, kept or not.
    pub(super) seen: u32,
    /// Whether there was no room for the row that came next.
    pub(super) is_full: bool,
}

/// Why a COPY gave no rows.
#[derive(Debug)]
pub(super) enum NotCopied {
    Refused(tokio_postgres::Error),
    Strange(RowError),
}

impl Rows {
    /// Takes in what COPY sends, up to so many bytes but one row at least. `close` ends a row whose cells begin at an
    /// index; false when they are none.
    pub(super) async fn copy(
        &mut self,
        catalogue: &Catalogue,
        statement: &str,
        columns: usize,
        bytes: usize,
        mut close: impl FnMut(&mut Self, usize) -> bool,
    ) -> Result<(), NotCopied> {
        let most = bytes.min(MOST_BYTES);
        let stream = catalogue.client().copy_out(statement).await.map_err(NotCopied::Refused)?;
        let mut stream = pin!(stream);
        while let Some(line) = stream.next().await {
            let line = line.map_err(NotCopied::Refused)?;
            if !self.changes.is_empty() && self.data.len() + line.len() > most {
                self.is_full = true;
                return Ok(());
            }
            let first = self.cells.len();
            self.from = self.data.len();
            rows::read(&line, columns, &mut self.data, &mut self.cells).map_err(NotCopied::Strange)?;
            self.seen += 1;
            if !close(self, first) {
                return Err(NotCopied::Strange(RowError::Fields { fields: 0, columns }));
            }
            if self.changes.len() > 1 && self.data.len() > most {
                self.take_back(first);
                self.is_full = true;
            }
            if self.is_full {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Bytes that all rows take in memory.
    pub(super) fn size(&self) -> usize {
        Found::size_of(self.data.len(), self.cells.len(), self.changes.len())
    }

    /// Bytes per row.
    pub(super) fn width(&self) -> Option<usize> {
        self.data.len().checked_div(self.changes.len())
    }

    /// Ends a row of a table that is read in the order of its key.
    pub(super) fn close_key(&mut self, order: &[KeyColumn], first: usize) {
        let from = self.data.len();
        let Self { data, cells, key, .. } = self;
        let row = cells.get(first..).unwrap_or_default();
        let values = order.iter().map(|column| match row.get(column.column) {
            Some(Cell::Value(range)) => data.get(range.start as usize..range.end as usize).unwrap_or_default(),
            _ => &[],
        });
        key.clear();
        Cursor::write_key(values, key);
        data.extend_from_slice(key);
        self.cursors.push(rows::range(from..self.data.len()));
        self.close(first);
    }

    /// Ends a row that is read as it lies on disk; its place and its maker stand behind its columns.
    pub(super) fn close_place(
        &mut self,
        first: usize,
        columns: usize,
        part: u32,
        pass: &Pass,
        now: u64,
        suffix: &str,
    ) -> bool {
        let extra = self.cells.split_off(first + columns);
        let value = |at: usize| match extra.get(at) {
            Some(Cell::Value(range)) => self.data.get(range.start as usize..range.end as usize),
            _ => None,
        };
        let place = value(0).and_then(|ctid| Place::of_ctid(part, ctid));
        let made_by = value(1).and_then(|xmin| std::str::from_utf8(xmin).ok()?.parse::<u32>().ok());
        let (Some(place), Some(made_by)) = (place, made_by) else { return false };
        if pass.leaves_out(made_by, now) {
            self.cells.truncate(first);
            self.data.truncate(self.from);
            return true;
        }
        let from = self.data.len();
        self.data.extend_from_slice(format!("{place}{suffix}").as_bytes());
        self.cursors.push(rows::range(from..self.data.len()));
        self.close(first);
        true
    }

    /// Ends a row without a place.
    pub(super) fn close(&mut self, first: usize) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "each takes a byte of a buffer shorter than 4 GiB at least"
        )]
        let row = Row { first: first as u32, len: (self.cells.len() - first) as u32 };
        let read =
            RowChange { table: 0, op: Op::Read, before: None, before_is_key: false, after: Some(row), rekeyed: None };
        let ordinal = self.changes.len() as u64;
        self.changes.push(Change { transaction: 0, ordinal, part: 1, last: false, body: Body::Row(read) });
    }

    /// Forgets the last row.
    fn take_back(&mut self, first: usize) {
        self.changes.pop();
        self.cursors.pop();
        self.cells.truncate(first);
        self.data.truncate(self.from);
    }

    /// The batch of these rows, and the places of those that have one.
    pub(super) fn batch(self, table: Arc<Table>, read_at: i64) -> (Batch, Vec<Range<u32>>) {
        let batch = Batch {
            data: Bytes::from(self.data),
            transactions: vec![nameless()],
            tables: vec![table],
            cells: self.cells,
            changes: self.changes,
            end: None,
            reached: None,
            written_at: Some(read_at),
        };
        (batch, self.cursors)
    }
}

/// The transaction that stands for rows that were read.
fn nameless() -> Transaction {
    Transaction {
        id: "".into(),
        position: "".into(),
        sequence: "".into(),
        committed_at: 0,
        start: "".into(),
        end: None,
        origin: None,
        traceparent: None,
        is_ignored: false,
        file: None,
    }
}
