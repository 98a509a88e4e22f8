//! Which rows of a chunk are still news when the log has come to the chunk's place.
//!
//! ```text
//!              begin            arrive                       emitted
//!   log  ──t1────|────t2────t3────|────t4────>high────t5───────|──>
//!                    └─ noted ─┘       └─── noted ───────────┘
//! ```
//!
//! What transactions touch is noted from before the first chunk is read. When a chunk is there, each transaction that was
//! passed on and that the chunk does not surely show makes the rows stale that it touched: the log's event is in the
//! stream already, and as new or newer. That goes on until the chunk's last row was passed on.
//!
//! Memory is bounded: beyond [`NOTED_MAX`] rows everything is given up, chunks too, and reading begins anew with other
//! connections, which see all that was passed on until then.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use figvine_change::{Batch, Chunk, Transaction};

use crate::event::{RowId, Touch, Touched};

/// Rows that are noted at most, over all transactions and chunks.
pub const NOTED_MAX: usize = 500_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Window {
    passed: VecDeque<Passed>,
    chunks: Vec<Waiting>,
    /// Chunks that are being read.
    reading: BTreeSet<ReadId>,
    /// Counts beginnings of chunks and transactions noted.
    clock: u64,
    noted: usize,
    /// How far the log was passed on.
    reached: Box<str>,
}

/// One chunk that is being read, or waits: when it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(u64);

/// A transaction that was passed on, as far as it touched watched tables.
#[derive(Debug)]
struct Passed {
    transaction: Transaction,
    touched: Vec<(Arc<str>, Touch)>,
    /// The clock when a chunk first showed it: what is read from then on shows it too.
    shown_at: Option<u64>,
}

/// A chunk whose rows wait for their place, or are being passed on.
#[derive(Debug)]
pub struct Waiting {
    /// Which it is.
    pub id: ReadId,
    /// The rows, and what they show.
    pub chunk: Chunk,
    /// `schema.table`.
    pub table: Arc<str>,
    stale: HashSet<RowId>,
    is_void: bool,
}

impl Waiting {
    /// Whether the log told of a row what is as new or newer.
    #[must_use]
    pub fn is_stale(&self, row: &RowId) -> bool {
        self.stale.contains(row)
    }

    /// Whether none of it can be used any more: the table was emptied, or has another shape. What was not passed on is
    /// to be read again.
    #[must_use]
    pub fn is_void(&self) -> bool {
        self.is_void
    }

    /// Takes in a transaction that the rows do not surely show.
    fn take_in(&mut self, touched: &[(Arc<str>, Touch)]) -> usize {
        let before = self.stale.len();
        for (_, touch) in touched.iter().filter(|(table, _)| *table == self.table) {
            match touch {
                Touch::Row(row) => {
                    self.stale.insert(*row);
                }
                Touch::Emptied => self.is_void = true,
                Touch::Shaped(table) => {
                    self.is_void |= self.chunk.batch.tables.first().is_some_and(|own| !own.has_shape_of(table));
                }
            }
        }
        self.stale.len() - before
    }
}

impl Window {
    /// Notes that a chunk is about to be read: called before its snapshot is taken.
    pub fn begin(&mut self) -> ReadId {
        // A tick of its own: what began before a chunk was there must not be taken for later.
        self.clock += 1;
        let id = ReadId(self.clock);
        self.reading.insert(id);
        id
    }

    /// A chunk that was begun will not come.
    pub fn forget(&mut self, id: ReadId) {
        self.reading.remove(&id);
        self.chunks.retain(|waiting| waiting.id != id);
        self.prune();
    }

    /// Takes in a chunk that was begun.
    pub fn arrive(&mut self, id: ReadId, table: Arc<str>, chunk: Chunk) {
        if !self.reading.remove(&id) {
            // Given up meanwhile.
            return;
        }
        let mut waiting = Waiting { id, chunk, table, stale: HashSet::new(), is_void: false };
        for passed in &mut self.passed {
            if waiting.chunk.sight.shows(&passed.transaction) {
                passed.shown_at.get_or_insert(self.clock);
            } else {
                self.noted += waiting.take_in(&passed.touched);
            }
        }
        self.chunks.push(waiting);
        self.prune();
    }

    /// Takes in what of the log was passed on: a batch, and what its changes touched of watched tables.
    pub fn pass(&mut self, batch: &Batch, touched: Vec<Touched>) {
        for Touched { transaction, table, touch } in touched {
            let Some(of) = batch.transactions.get(transaction as usize) else { continue };
            let is_same = self.passed.back().is_some_and(|passed| passed.transaction.position == of.position);
            if !is_same {
                self.clock += 1;
                self.passed.push_back(Passed { transaction: of.clone(), touched: Vec::new(), shown_at: None });
            }
            let Some(passed) = self.passed.back_mut() else { continue };
            let touched = [(table, touch)];
            for waiting in &mut self.chunks {
                if !waiting.chunk.sight.shows(of) {
                    self.noted += waiting.take_in(&touched);
                }
            }
            passed.touched.extend(touched);
            self.noted += 1;
        }
        if let Some(reached) = &batch.reached {
            self.reached.clone_from(reached);
        }
    }

    /// Whether a chunk's rows may be passed on now, between two transactions.
    #[must_use]
    pub fn is_due(&self, chunk: &Chunk) -> bool {
        *self.reached >= *chunk.high
    }

    /// A chunk that waits.
    #[must_use]
    pub fn get(&self, id: ReadId) -> Option<&Waiting> {
        self.chunks.iter().find(|waiting| waiting.id == id)
    }

    /// Lets go of a chunk that was passed on.
    pub fn done(&mut self, id: ReadId) {
        self.forget(id);
    }

    /// Whether more is noted than memory should take: then [`Window::clear`] is due.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.noted > NOTED_MAX
    }

    /// Gives up everything but how far the log was passed on.
    pub fn clear(&mut self) {
        self.passed.clear();
        self.chunks.clear();
        self.reading.clear();
        self.noted = 0;
    }

    /// Lets go of transactions that every chunk from now on shows: one has shown them, and none is being read that began
    /// before.
    fn prune(&mut self) {
        let oldest = self.reading.first().map_or(u64::MAX, |id| id.0);
        self.passed.retain(|passed| passed.shown_at.is_none_or(|shown_at| shown_at >= oldest));
        let noted = self.passed.iter().map(|passed| passed.touched.len());
        self.noted = noted.sum::<usize>() + self.chunks.iter().map(|waiting| waiting.stale.len()).sum::<usize>();
    }
}
