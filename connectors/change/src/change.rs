//! A batch of changes: flat tables that point into the server's own bytes.
//!
//! A batch costs a handful of allocations however many rows it carries: the
//! cells of all its rows stand in one vector, and their values stay in the
//! bytes that came from the server until they are encoded.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Cell, Position, Table};

/// Changes in commit order, as they were read from a log.
///
/// A transaction may be spread over any number of batches. A batch without
/// changes still carries progress: see [`Batch::end`].
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The server's bytes; every range of this batch points into them.
    pub data: Bytes,
    /// The transactions of [`Batch::changes`], in order. One whose changes come from several traces stands here once for each
    /// run of them.
    pub transactions: Vec<Transaction>,
    /// The tables of [`Batch::changes`], in the shape that held for them.
    pub tables: Vec<Arc<Table>>,
    /// The cells of all rows; a [`Row`] is a range of these.
    pub cells: Vec<Cell>,
    /// The changes, in the order of the log.
    pub changes: Vec<Change>,
    /// Where reading goes on once everything up to and including this batch is
    /// stored; `None` when the batch tells no position of its own (it cannot be
    /// later than the last change's then).
    pub end: Option<Position>,
    /// Set with [`Batch::end`] where the log tells: all transactions whose [`Transaction::sequence`] does not
    /// sort behind this were passed on.
    pub reached: Option<Box<str>>,
    /// When the server wrote the newest of this, in microseconds since 1970, UTC.
    pub written_at: Option<i64>,
}

impl Batch {
    /// The bytes of one range.
    #[must_use]
    pub fn bytes(&self, range: &Range<u32>) -> &[u8] {
        self.data.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// The cells of one row, one per column of its table.
    #[must_use]
    pub fn row(&self, row: Row) -> &[Cell] {
        let first = row.first as usize;
        self.cells.get(first..first + row.len as usize).unwrap_or_default()
    }

    /// The table of a row change.
    #[must_use]
    pub fn table(&self, index: u32) -> Option<&Arc<Table>> {
        self.tables.get(index as usize)
    }

    /// The transaction of a change.
    #[must_use]
    pub fn transaction(&self, change: &Change) -> Option<&Transaction> {
        self.transactions.get(change.transaction as usize)
    }
}

/// What is known of a transaction while its changes pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The database's name for it (PostgreSQL: xid; MySQL: GTID), for people.
    pub id: Box<str>,
    /// Its place in the log as people write it (PostgreSQL: commit LSN `0/16B3748`).
    /// Unique in one log; with [`Change::ordinal`] and [`Change::part`] it is a change's identity.
    pub position: Box<str>,
    /// The same, of fixed width, so that strings sort as the log does.
    pub sequence: Box<str>,
    /// Commit time in microseconds since 1970, UTC.
    pub committed_at: i64,
    /// The log from here on holds this transaction whole. [`Position::log`] of every change but the last.
    pub start: Box<str>,
    /// The log from here on holds all that follows this transaction. Known once
    /// its end was read: always set in a batch that holds its last change.
    pub end: Option<Box<str>>,
    /// Where it came from, as far as the server says: PostgreSQL's replication origin, of MySQL the UUID of the server that
    /// committed it first, of MariaDB the GTID's domain.
    pub origin: Option<Box<str>>,
    /// The trace that these changes of it came from, where the application left one: see [`crate::trace`].
    pub traceparent: Option<Box<str>>,
    /// Whether the application marked it, before the first of its changes, as one that is not to be told.
    pub is_ignored: bool,
    /// Its place in the server's files, where the log is kept in such.
    pub file: Option<FilePlace>,
}

/// A place in a file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlace {
    /// The file's name, without a folder.
    pub name: Arc<str>,
    /// Bytes from its beginning.
    pub offset: u64,
    /// The server that wrote what stands there.
    pub server_id: u32,
}

/// One thing that happened in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Index into [`Batch::transactions`].
    pub transaction: u32,
    /// Place in the transaction, from 0, counted over all that the log holds of
    /// it, captured or not, so that it is the same whatever the configuration says.
    pub ordinal: u64,
    /// Tells apart what one record of the log gave: 0 a change of the table's
    /// shape, 1 the row (or the deleted half of a key change), 2 the inserted
    /// half; for a truncate the table's place in the statement, from 1. A tombstone has the number of its removal and
    /// [`TOMBSTONE`] in it.
    pub part: u32,
    /// The last captured change of its transaction.
    pub last: bool,
    /// What happened.
    pub body: Body,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A row was written.
    Row(RowChange),
    /// A table (index into [`Batch::tables`]) was emptied.
    Truncate {
        /// Index into [`Batch::tables`].
        table: u32,
    },
    /// From here on the table has this shape. Sent before the first row of a
    /// table in a session and after each change of its shape; whether it is
    /// news is for the receiver to judge.
    Shape {
        /// Index into [`Batch::tables`].
        table: u32,
    },
    /// A message that an application wrote into the log.
    Message {
        /// Its prefix, UTF-8, as a range of [`Batch::data`].
        prefix: Range<u32>,
        /// Its content, as a range of [`Batch::data`].
        content: Range<u32>,
    },
}

/// One row operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowChange {
    /// Index into [`Batch::tables`].
    pub table: u32,
    /// The operation.
    pub op: Op,
    /// The row before, as far as the log gives it.
    pub before: Option<Row>,
    /// Whether `before` holds only the key's columns; the other cells then say
    /// nothing (they are not `null`).
    pub before_is_key: bool,
    /// The row after.
    pub after: Option<Row>,
    /// For the two halves of a key change: the row that holds the other half's key.
    pub rekeyed: Option<Row>,
}

/// Row operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// A new row.
    Insert,
    /// A changed row with the same key.
    Update,
    /// A removed row.
    Delete,
    /// An existing row, read by a backfill.
    Read,
    /// Says once more that the row of the removal before is gone; only where that is asked for.
    Tombstone,
}

/// What the part of a tombstone has beside the number of its removal. It stands behind that and before all other parts
/// (see [`crate::Within`]), so that these have the same numbers with tombstones and without.
pub const TOMBSTONE: u32 = 1 << 31;

/// A row: a range of [`Batch::cells`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Index of the first cell.
    pub first: u32,
    /// Number of cells: the number of the table's columns.
    pub len: u32,
}
