//! Which rows the log's changes touched: what a backfill needs to know of them.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use figvine_change::Table;

/// A row of one table by its key: 128 bits of a hash of both, so that two rows are never taken for one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowId(u64, u64);

impl RowId {
    /// Of the key's text as it is partitioned by.
    #[must_use]
    pub fn of(table: &str, key: &[u8]) -> Self {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, table, key).hash(&mut hasher);
            hasher.finish()
        };
        Self(half(0), half(1))
    }
}

impl fmt::Debug for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowId({:016x}{:016x})", self.0, self.1)
    }
}

/// What a change did to a watched table.
#[derive(Debug, Clone)]
pub struct Touched {
    /// The transaction: an index into the batch's.
    pub transaction: u32,
    /// `schema.table`.
    pub table: Arc<str>,
    /// What it touched.
    pub touch: Touch,
}

/// What a change touched of a table.
#[derive(Debug, Clone)]
pub enum Touch {
    /// One row.
    Row(RowId),
    /// All rows.
    Emptied,
    /// From here on it has this shape; whether it is another than before is not known.
    Shaped(Arc<Table>),
}
