//! What of the log cannot be understood, or must not be passed over.

use std::io;

use crate::decode::EventError;
use crate::decode::reader::DecodeError;
use crate::tables::TableError;
use crate::xa::CommitUndone;

/// The log cannot be understood, or tells what must not be passed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NormaliseError {
    /// An event.
    #[error(transparent)]
    Event(#[from] EventError),
    /// A part of an event.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A table map.
    #[error("{transaction}, change {ordinal}: {error}")]
    Table {
        /// The name of its transaction.
        transaction: String,
        /// Rows of the transaction before it.
        ordinal: u64,
        /// What is wrong.
        error: TableError,
    },
    /// An event of an unknown type.
    #[error("an event of the unknown type {type_code}, which may carry rows")]
    Unknown {
        /// The type.
        type_code: u8,
    },
    /// An event at a place where it cannot stand.
    #[error("{event} {place}")]
    Misplaced {
        /// The event.
        event: &'static str,
        /// Where.
        place: &'static str,
    },
    /// Rows of a table that was not told.
    #[error("rows of table id {id}, which was not told")]
    UnknownTable {
        /// The id.
        id: u64,
    },
    /// A statement that changed rows without telling them.
    #[error("a statement changed rows of {table} and the log does not tell which")]
    Statement {
        /// `schema.table`.
        table: String,
    },
    /// The same where not even the tables are told.
    #[error("a stored program changed rows and the log does not tell which")]
    Runs,
    /// Rows that were rolled back.
    #[error("a transaction with rows of captured tables was rolled back in the log")]
    RolledBack,
    /// The log took a commit back.
    #[error(transparent)]
    CommitUndone(#[from] CommitUndone),
    /// A partial update of JSON.
    #[error("a partial update of column {column} of {table} does not fit the value before")]
    PartialJson {
        /// The column.
        column: Box<str>,
        /// `schema.table`.
        table: String,
    },
    /// A prepared XA transaction, or one that is too long for memory.
    #[error("a transaction that is kept in a file cannot be written or read")]
    Spool(#[from] io::Error),
}

pub(super) fn misplaced(event: &'static str, place: &'static str) -> NormaliseError {
    NormaliseError::Misplaced { event, place }
}
