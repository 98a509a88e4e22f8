//! Existing rows, read beside the log: chunks between watermarks.
//!
//! ```text
//!   log     ──── t1 ──── t2 ──── t3 ──── t4 ──── t5 ────>
//!   chunk          |  rows are read  |
//!                  shows t1, t2              high ^
//! ```
//!
//! A chunk shows what some transactions did and not what others did, and the order in which transactions become
//! visible need not be that of the log. The rows may be passed on as soon as the log was read up to `high`, before which
//! all stand that the rows may show; a row that a transaction touched which the rows do not surely show, and which was
//! passed on already, is left out: what the log told is as new or newer.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::time::Duration;

use crate::{Batch, SourceError, SourceErrorKind, Transaction};

/// A captured table, as a plan needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSize {
    /// The schema; for MySQL the database.
    pub schema: Box<str>,
    /// The table's own name.
    pub name: Box<str>,
    /// Rows, as the server estimates them.
    pub rows: u64,
    /// Bytes of the rows, as the server estimates them.
    pub bytes: u64,
    /// How its rows can be gone through.
    pub order: ReadOrder,
}

/// How a table's rows can be gone through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOrder {
    /// By the key: it can be gone on with at any time.
    Key,
    /// As the rows lie on disk: it can be gone on with at any time.
    Physical,
    /// In one pass, in one snapshot: what is interrupted begins anew.
    OnePass,
}

/// A row's place in the order in which its table is gone through, in the connector's words: graphic ASCII
/// characters only. For a key, its columns' values in the order of the index as the database writes them,
/// percent-encoded but for `A-Z a-z 0-9 - _ . : +`, with commas between: `42`, `DE,1000%2F7`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor(Box<str>);

impl Cursor {
    /// Reads the text form; `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.into()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Appends the text form of a key.
    pub fn write_key<'v>(values: impl IntoIterator<Item = &'v [u8]>, out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let start = out.len();
        for (at, value) in values.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            for &byte in value {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'+') {
                    out.push(byte);
                } else {
                    out.push(b'%');
                    for nibble in [byte >> 4, byte & 0xf] {
                        out.push(HEX.get(nibble as usize).copied().unwrap_or(b'0'));
                    }
                }
            }
        }
        // An empty text is a value too, and a cursor is not empty.
        if out.len() == start {
            out.push(b'%');
        }
    }

    /// The values of a key; `None` when the text is none.
    #[must_use]
    pub fn key(&self) -> Option<Vec<Vec<u8>>> {
        if &*self.0 == "%" {
            return Some(vec![Vec::new()]);
        }
        self.0.split(',').map(unescaped).collect()
    }
}

fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut value = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        value.push(match byte {
            b'%' => {
                let mut nibble = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (nibble()?, nibble()?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    Some(value)
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which rows are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRequest {
    /// The schema; for MySQL the database.
    pub schema: Box<str>,
    /// The table's own name.
    pub name: Box<str>,
    /// Only rows for which this SQL expression holds.
    pub condition: Option<Box<str>>,
    /// Only rows behind this one.
    pub after: Option<Cursor>,
    /// Only rows up to this one, and that itself.
    pub upto: Option<Cursor>,
    /// About how many rows; a chunk that holds fewer for want of bytes is no end.
    pub rows: u32,
    /// The most bytes that a chunk may hold; one row may exceed it alone.
    pub bytes: usize,
}

/// Rows as one snapshot of the database showed them.
#[derive(Debug)]
pub struct Chunk {
    /// The rows: changes with [`crate::Op::Read`] of one table, in the order in which it is gone through. One
    /// transaction stands for all of them, whose fields are left empty; their identity is given by who passes them on.
    pub batch: Batch,
    /// Each row's [`Cursor`] as text: ranges of the batch's data, one per change.
    pub cursors: Vec<Range<u32>>,
    /// What the snapshot showed.
    pub sight: Box<dyn Sight>,
    /// A place in the log, as [`Transaction::sequence`] sorts: all transactions that the rows may show stand before it.
    pub high: Box<str>,
    /// Whether no row is left behind these.
    pub is_last: bool,
    /// When the rows were read, in microseconds since 1970, UTC, by the server's clock.
    pub read_at: i64,
}

/// What a snapshot showed.
pub trait Sight: fmt::Debug + Send + Sync {
    /// Whether the snapshot surely showed all that a transaction of the log did.
    fn shows(&self, transaction: &Transaction) -> bool;
}

/// Which rows are looked up: those of a table whose column holds one of these values.
#[derive(Debug, Clone)]
pub struct LookUp {
    /// The schema; for MySQL the database.
    pub schema: Box<str>,
    /// The table's own name.
    pub name: Box<str>,
    /// The column.
    pub column: Box<str>,
    /// The values, at least one.
    pub values: Vec<Sought>,
    /// What these transactions of the log did must be shown.
    pub behind: Vec<Transaction>,
    /// The most bytes that the rows may take in memory.
    pub bytes: usize,
}

/// A value of another table's column, as that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    /// As the log carries it.
    pub raw: Box<[u8]>,
    /// As events carry it: what the column's codec makes of it.
    pub json: Box<str>,
}

/// Rows that were looked up.
#[derive(Debug)]
pub struct Found {
    /// Changes with [`crate::Op::Read`], by the table's key where it has one, whose transaction is left empty.
    pub batch: Batch,
    /// False where there are more rows than may be held, or the values have to be looked up by themselves: these are of no use
    /// then.
    pub is_whole: bool,
    /// When they were read, in microseconds since 1970, UTC, by the server's clock.
    pub read_at: i64,
}

impl Found {
    /// Bytes that so many rows take in memory, with these bytes of values and cells.
    #[must_use]
    pub fn size_of(bytes: usize, cells: usize, rows: usize) -> usize {
        bytes + cells * size_of::<crate::Cell>() + rows * size_of::<crate::Change>()
    }

    /// Bytes that the rows take in memory.
    #[must_use]
    pub fn size(&self) -> usize {
        let Batch { data, cells, changes, .. } = &self.batch;
        Self::size_of(data.len(), cells.len(), changes.len())
    }
}

/// One connection that reads existing rows.
///
/// Changes nothing in the database. What the log holds of transactions that ended before the connection was opened
/// is shown by all of its chunks; opening one waits for such transactions to become visible where that can take time.
pub trait ChunkReader: Send {
    /// Reads one chunk. A table without rows behind `after` gives one without changes.
    ///
    /// Not cancel-safe: a reader whose call was dropped is of no use any more.
    ///
    /// # Errors
    /// When the rows cannot be read. [`crate::SourceErrorKind::Invalid`]: they cannot as they are asked for (the table or
    /// its key is another by now, a bad condition or cursor); [`crate::SourceErrorKind::Refused`]: a permission is
    /// missing; [`crate::SourceErrorKind::Unreachable`]: another reader may be able to.
    fn read(&mut self, request: &ChunkRequest) -> impl Future<Output = Result<Chunk, SourceError>> + Send;

    /// Looks rows up, in one snapshot, by whatever index the database likes. Waits until the transactions that they are to
    /// show are visible: their log may have been passed on before that.
    ///
    /// Not cancel-safe either.
    ///
    /// # Errors
    /// As [`ChunkReader::read`]; [`crate::SourceErrorKind::Invalid`] also where a value cannot be one of the column's.
    fn look_up(&mut self, request: &LookUp) -> impl Future<Output = Result<Found, SourceError>> + Send;
}

/// The reader of a connector that has no tables.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRows;

impl ChunkReader for NoRows {
    async fn read(&mut self, request: &ChunkRequest) -> Result<Chunk, SourceError> {
        Err(no_table(&request.schema, &request.name))
    }

    async fn look_up(&mut self, request: &LookUp) -> Result<Found, SourceError> {
        Err(no_table(&request.schema, &request.name))
    }
}

fn no_table(schema: &str, name: &str) -> SourceError {
    SourceError {
        kind: SourceErrorKind::Invalid,
        code: "FV-1601",
        what: format!("there is no table {schema}.{name}"),
        hint: None,
        source: None,
    }
}

/// How busy a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Sessions that work right now, ours left out.
    pub active_sessions: u32,
    /// How far the slowest replica is behind, where the server can tell or replicas are configured.
    pub replica_lag: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_text_of_any_key_reads_back(
            key in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..4)
        ) {
            let mut out = Vec::new();
            Cursor::write_key(key.iter().map(Vec::as_slice), &mut out);
            let text = String::from_utf8(out).expect("ascii");
            prop_assert_eq!(Cursor::parse(&text).expect("a cursor").key(), Some(key));
        }
    }

    #[test]
    fn an_empty_key_behind_other_bytes_is_a_cursor_too() {
        let mut out = b"before".to_vec();
        Cursor::write_key([&b""[..]], &mut out);
        assert_eq!(out, b"before%");
    }

    #[test]
    fn what_people_type_is_a_cursor() {
        let key = |text: &str| Cursor::parse(text).and_then(|cursor| cursor.key());
        assert_eq!(key("42"), Some(vec![b"42".to_vec()]));
        assert_eq!(key("DE,1000%2F7"), Some(vec![b"DE".to_vec(), b"1000/7".to_vec()]));
        for text in ["", "a b", "a%", "a%2", "a%zz", "ä"] {
            assert_eq!(key(text), None, "{text:?}");
        }
    }
}
