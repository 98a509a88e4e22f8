//! What was read and is not stored yet: for counters that count what is in the stream, and for lags.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use crate::event::{Count, Encoded};
use crate::stream::Stored;
use crate::telemetry::{SourceTelemetry, seconds_since};

/// The operation of rows out of a backfill, which no log told.
const EXISTING: &str = "read";

/// Notes batches as they are read and as they are stored. Its length is bounded by the window.
#[derive(Debug)]
pub(super) struct Ledger {
    telemetry: Arc<SourceTelemetry>,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct Open {
    entries: VecDeque<Entry>,
    /// Sequence of the last event read.
    sequence: u64,
    in_flight: u64,
    read: HashMap<(Arc<str>, &'static str), Counter>,
    published: HashMap<Arc<str>, Counter>,
    existing: HashMap<Arc<str>, Counter>,
}

#[derive(Debug)]
struct Entry {
    /// Sequence of its last event.
    sequence: u64,
    events: u64,
    counts: Vec<Count>,
    oldest_committed_at: Option<i64>,
    newest_committed_at: Option<i64>,
}

impl Ledger {
    /// For a session that goes on behind `last_seq`.
    pub(super) fn new(telemetry: Arc<SourceTelemetry>, last_seq: u64) -> Self {
        let open = Open {
            entries: VecDeque::new(),
            sequence: last_seq,
            in_flight: 0,
            read: HashMap::new(),
            published: HashMap::new(),
            existing: HashMap::new(),
        };
        Self { telemetry, open: Mutex::new(open) }
    }

    /// Notes a batch that was read and goes to the stream.
    pub(super) fn read(&self, encoded: Encoded) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Open { entries, sequence, in_flight, read, .. } = &mut *open;
        for count in encoded.counts.iter().filter(|count| count.op != EXISTING && count.changes > 0) {
            let key = (Arc::clone(&count.table), count.op);
            read.entry(key)
                .or_insert_with(|| self.telemetry.changes_read(&count.table, count.op))
                .inc_by(count.changes);
        }
        self.telemetry.unchanged_values(encoded.unchanged_values);
        for rows in encoded.completed_rows {
            self.telemetry.transaction_rows(rows);
        }
        if encoded.events == 0 {
            return;
        }
        *sequence += encoded.events;
        *in_flight += encoded.events;
        entries.push_back(Entry {
            sequence: *sequence,
            events: encoded.events,
            counts: encoded.counts,
            oldest_committed_at: encoded.oldest_committed_at,
            newest_committed_at: encoded.newest_committed_at,
        });
        self.tell(&open);
    }

    /// The sequence of the last event read: what the stream will end at.
    pub(super) fn assigned(&self) -> u64 {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).sequence
    }

    /// Follows what is stored until the chain ends.
    pub(super) async fn follow(&self, mut stored: watch::Receiver<Stored>) {
        loop {
            let now = stored.borrow_and_update().clone();
            self.stored(&now);
            if stored.changed().await.is_err() {
                return;
            }
        }
    }

    fn stored(&self, stored: &Stored) {
        if let Some(position) = &stored.position {
            self.telemetry.position(position.to_string());
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while open.entries.front().is_some_and(|entry| entry.sequence <= stored.sequence) {
            let Some(entry) = open.entries.pop_front() else { break };
            open.in_flight -= entry.events;
            for count in entry.counts {
                if count.op == EXISTING {
                    let counter = open.existing.entry(Arc::clone(&count.table));
                    counter.or_insert_with(|| self.telemetry.backfill_rows(&count.table)).inc_by(count.events);
                }
                let published = &mut open.published;
                let counter = published.entry(Arc::clone(&count.event_type));
                counter.or_insert_with(|| self.telemetry.events_published(&count.event_type)).inc_by(count.events);
            }
            if let Some(committed_at) = entry.newest_committed_at {
                self.telemetry.end_to_end_lag(seconds_since(committed_at));
            }
        }
        self.tell(&open);
    }

    fn tell(&self, open: &Open) {
        let oldest = open.entries.front().and_then(|entry| entry.oldest_committed_at);
        self.telemetry.inflight(open.in_flight, oldest);
    }
}
