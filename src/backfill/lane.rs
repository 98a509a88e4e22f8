//! One table that is being read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use figvine_change::{ChunkRequest, Cursor};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::book::{Job, Task};
use super::window::ReadId;
use crate::checkpoint::ReadMark;
use crate::event::Derived;

/// Rows of a table's first chunk; later ones are as large as the time allows that one may take.
const FIRST_ROWS: u32 = 1000;
const ROWS_MIN: u32 = 100;
const ROWS_MAX: u32 = 20_000;
/// Bytes of a chunk.
const CHUNK_BYTES: usize = 4 << 20;
/// Pauses before a chunk is tried again.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// One table that is being read.
pub(super) struct Lane<R> {
    pub(super) task: String,
    pub(super) job: Box<str>,
    pub(super) table: Arc<str>,
    pub(super) request: ChunkRequest,
    pub(super) chunk_rows: u32,
    /// A connection that is not reading just now.
    pub(super) reader: Option<R>,
    pub(super) reading: Option<ReadId>,
    pub(super) ready: VecDeque<Ready>,
    /// Rows up to the end of what was read.
    pub(super) rows_read: u64,
    /// The last chunk was read.
    pub(super) is_read: bool,
    /// Without a key or another place to go on from: whoever read it has to go on.
    pub(super) is_one_pass: bool,
    /// Where its rows go instead of the stream; and how many slices of them are on their way.
    pub(super) to_subject: Option<Box<str>>,
    pub(super) on_their_way: usize,
    /// Goes with the lane.
    pub(super) given_up: DropGuard,
    pub(super) retry_at: Option<Instant>,
    retry_pause: Duration,
}

/// A chunk in the window.
pub(super) struct Ready {
    pub(super) id: ReadId,
    /// The next of its rows.
    pub(super) next: usize,
    /// Rows of the task before its first.
    pub(super) before: u64,
    /// What rules made of its rows.
    pub(super) derived: Derived,
}

/// About how many chunks a table is read in.
pub(super) fn chunks_of(rows: u64, bytes: u64) -> u64 {
    rows.div_ceil(ROWS_MAX.into()).max(bytes.div_ceil(CHUNK_BYTES as u64)).max(1)
}

impl<R> Lane<R> {
    /// For a task of a job, of which the session's rows are up to `mark`.
    pub(super) fn new(name: String, job: &Job, task: &Task, mark: Option<&ReadMark>) -> Self {
        Self {
            table: task.qualified_name().into(),
            request: ChunkRequest {
                schema: task.schema.clone(),
                name: task.table.clone(),
                condition: job.condition.clone(),
                after: mark.map(|mark| mark.cursor.clone()).or_else(|| task.after()),
                upto: task.to.as_deref().and_then(Cursor::parse),
                rows: FIRST_ROWS,
                bytes: CHUNK_BYTES,
            },
            rows_read: mark.map_or(task.rows, |mark| mark.rows),
            task: name,
            job: job.id.clone(),
            chunk_rows: FIRST_ROWS,
            reader: None,
            reading: None,
            ready: VecDeque::new(),
            is_read: false,
            is_one_pass: task.is_one_pass,
            to_subject: job.to_subject.clone(),
            on_their_way: 0,
            given_up: CancellationToken::new().drop_guard(),
            retry_at: None,
            retry_pause: RETRY_MIN,
        }
    }

    /// A chunk was read.
    pub(super) fn answered(&mut self) {
        self.retry_at = None;
        self.retry_pause = RETRY_MIN;
    }

    /// A chunk could not be read just now: it is tried again after a pause, twice as long as the last.
    pub(super) fn refused(&mut self) {
        self.retry_at = Some(Instant::now() + self.retry_pause);
        self.retry_pause = (self.retry_pause * 2).min(RETRY_MAX);
    }

    /// Fits the size of chunks to the time that one may take.
    pub(super) fn adapt(&mut self, rows: usize, took: Duration, wanted: Duration) {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        // A chunk cut short by its bytes, or the last, tells nothing of more rows.
        if rows < self.chunk_rows / 2 {
            return;
        }
        let ratio = wanted.as_secs_f64() / took.as_secs_f64().max(0.001);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between the bounds behind it")]
        let fit = (f64::from(self.chunk_rows) * ratio.clamp(0.5, 2.0)) as u32;
        self.chunk_rows = fit.clamp(ROWS_MIN, ROWS_MAX);
    }
}
