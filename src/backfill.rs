//! Existing rows, while the stream goes on.
//!
//! ```text
//!   control ──> Desk ──> Runner ──> ChunkReader (one per table that is read)
//!                 ^        │  chunks
//!                 │        v
//!                 │     Window ── rows that the log has not told newer ──> the chain
//!                 └── how far the stream holds them <── Stored
//! ```
//!
//! - `book`: what is to be read and how far that is; kept in KV beside the stream (`shelf`).
//! - `desk`: the book in a running bridge: commands change it, the runner works by it.
//! - `window`: which rows of a chunk are still news; pure.
//! - `runner`: reads chunks ahead, and hands their rows on in slices, between the log's transactions; `lane` is one table of those.
//! - `seed`: rows for one consumer alone, beside the stream.
//! - `pace`: when the next slice may go, by the rate that is set; `busy`: what it leaves to the log's changes.
//!
//! Each row's message says in its checkpoint how far its table was read. So what the stream holds is where a backfill goes
//! on; the book is only a lower bound of it, and where the settings stand.

pub mod book;
mod busy;
pub mod desk;
mod lane;
mod pace;
mod runner;
mod seed;
mod shelf;
mod watch;
pub mod window;

use std::time::Duration;

pub use desk::{Desk, StartRequest, Wish};
pub use runner::{Runner, Slice};
pub(crate) use shelf::keep;
pub use shelf::{Shelf, ShelfError, marks_behind};
pub(crate) use watch::{load, tables};

/// About how many chunks a table is read in, of so many rows and bytes.
#[must_use]
pub fn chunks_of(rows: u64, bytes: u64) -> u64 {
    lane::chunks_of(rows, bytes)
}

/// How one source's backfills behave.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is done about rows that are there before the first start, and in tables that are captured from later on.
    pub initial: Initial,
    /// Rows a second, where a backfill does not say otherwise; `None` is as fast as it goes.
    pub rows_per_s: Option<u32>,
    /// Bytes of events a second; `None` is as fast as it goes.
    pub bytes_per_s: Option<u32>,
    /// Tables that are read at the same time.
    pub parallel: u32,
    /// How long the reading of one chunk should take.
    pub chunk_time: Duration,
    /// Backfills wait while a replica of the source is further behind; `None` does not look.
    pub max_replica_lag: Option<Duration>,
    /// They wait while more sessions than that are at work in the source; `None` does not look.
    pub max_active_sessions: Option<u32>,
    /// They wait while the source keeps log for us and less than this share of what it allows is free, in percent.
    pub min_log_free_percent: u32,
}

/// What is done about rows that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    /// They are backfilled.
    Backfill,
    /// Nothing: only changes are published.
    None,
}
