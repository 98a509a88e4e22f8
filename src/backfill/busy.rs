//! What a backfill leaves to the log's changes while these come.

use std::time::Duration;

use tokio::time::Instant;

use super::pace::SLICE_ROWS;

/// Events on their way to the stream, beyond which no row is added: while the log is quiet, and while it is not.
const IN_FLIGHT_QUIET: u64 = 6000;
const IN_FLIGHT_BUSY: u64 = 384;
/// Rows of a slice and of a chunk while the log is not quiet: a change waits for the one on its way to the stream, and for
/// processors that the other is read with. Where many changes came since the last slice, as when nothing is left to be had,
/// it has half as many rows as those: a backfill is never starved.
const SLICE_ROWS_BUSY: u32 = 64;
const CHUNK_ROWS_BUSY: u32 = 500;
/// How many times as long as a slice took the rest behind it is, and the longest.
const REST: u32 = 2;
const REST_MAX: Duration = Duration::from_millis(20);
/// How long after a change the log counts as busy.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// How busy the log is, and what rows must leave to it.
#[derive(Debug, Default)]
pub(super) struct Busy {
    last_change: Option<Instant>,
    /// While the log is not quiet: when the last slice went, and its last message.
    on_its_way: Option<(Instant, u64)>,
    /// Changes since.
    changes_since: u32,
    /// Until then changes have everything for themselves.
    rests_until: Option<Instant>,
}

impl Busy {
    /// Takes in that so many changes were passed on.
    pub(super) fn passed(&mut self, changes: usize) {
        if changes > 0 {
            self.last_change = Some(Instant::now());
            let changes = u32::try_from(changes).unwrap_or(u32::MAX);
            self.changes_since = self.changes_since.saturating_add(changes);
        }
    }

    /// Takes in how far the stream is.
    pub(super) fn stored(&mut self, sequence: u64) {
        if let Some((sent_at, _)) = self.on_its_way.take_if(|(_, last)| *last <= sequence) {
            self.rests_until = Some(Instant::now() + (sent_at.elapsed() * REST).min(REST_MAX));
        }
    }

    /// Whether changes come.
    pub(super) fn is_now(&self) -> bool {
        self.last_change.is_some_and(|at| at.elapsed() < BUSY_FOR)
    }

    /// Rows of the next chunk, of which `rows` are wanted.
    pub(super) fn chunk_rows(is_busy: bool, rows: u32) -> u32 {
        if is_busy { rows.min(CHUNK_ROWS_BUSY) } else { rows }
    }

    /// Rows of the next slice.
    pub(super) fn slice_rows(&self, is_busy: bool) -> u32 {
        match is_busy {
            true => (self.changes_since / 2).clamp(SLICE_ROWS_BUSY, SLICE_ROWS),
            false => SLICE_ROWS,
        }
    }

    /// Whether rows may be added to the events on their way; and until when they rest, where they do.
    pub(super) fn room(&self, in_flight: u64) -> (bool, Option<Instant>) {
        if !self.is_now() {
            return (in_flight < IN_FLIGHT_QUIET, None);
        }
        let rests = self.rests_until.filter(|until| *until > Instant::now());
        (in_flight < IN_FLIGHT_BUSY && rests.is_none() && self.on_its_way.is_none(), rests)
    }

    /// A slice goes whose last event will be the message `last`.
    pub(super) fn sent(&mut self, last: u64) {
        self.on_its_way = Some((Instant::now(), last));
        self.changes_since = 0;
    }
}
