//! Private data: what of a row is hidden before anything else sees it.
//!
//! ```text
//!   Source::next ──┐
//!                  ├──> Private::map ──> Encoder, window, figures, errors
//!   ChunkReader ───┘         │
//!                            └── keys of subjects (encrypted columns only) ──> a KV bucket
//! ```
//!
//! A [`Batch`] is rewritten as a whole: the hidden cells point at new bytes behind the server's own, their columns are
//! texts in a [`Table`] of ours, and dropped columns are in neither. So whatever comes behind, keys, subjects, changes of
//! shape, errors, never has the values. A batch without a hidden column is passed on as it came.
//!
//! What is hashed, tokenised or cut is the value's text as it would be published (`42` of the number and of the string),
//! so equal values look equal whatever the column's type, in the log and in a backfill. SQL's null stays null.

mod check;
mod keys;
mod mask;
mod master;
mod plan;
mod rewrite;
mod rules;
mod seal;
mod text;
mod token;

use std::collections::HashMap;
use std::sync::Arc;

use figvine_change::{Batch, Chunk, Cursor, Table};

pub use keys::{Entry, KeyError, KeyRing, KeyStore, Passing};
pub use mask::Mask;
pub use master::{Master, SubjectId};
pub use plan::PlanError;
pub use rules::{Action, Encrypt, Rule, RuleError, Settings, Shredded};
pub use seal::{Sealed, Unsealed};

use plan::Plan;

/// Tables whose plans are kept. A connector makes a table anew when its shape may have changed, a backfill for each chunk.
const PLANS_MAX: usize = 4096;

/// What to do about a secret that is another.
pub(crate) const OTHER_SECRET: &str = "Set `private.key` to what it was at the first start. Where it is to be another from now on, see docs/private-data.md.";

/// A batch that cannot be rewritten. No error tells values of rows, subjects, or keys.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// A rule does not fit its table.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The key of a subject cannot be had.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The batch contradicts itself: a connector's fault.
    #[error("malformed batch: {0}")]
    Malformed(&'static str),
}

impl PrivateError {
    /// Whether trying again may mend it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Key(error) => error.is_transient(),
            Self::Plan(_) | Self::Malformed(_) => false,
        }
    }

    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Plan(_) => "FV-3104",
            Self::Key(error) if error.is_transient() => "FV-2209",
            Self::Key(_) => "FV-3105",
            Self::Malformed(_) => "FV-3106",
        }
    }

    /// What to do; a sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Plan(error) => error.hint(),
            Self::Key(error) if error.is_transient() => "Look at the nats server's log.",
            Self::Key(_) => OTHER_SECRET,
            Self::Malformed(_) => "Nothing was skipped: the source's log is kept from there.",
        }
    }
}

/// Hides what one source's rules hide. Clones share the subjects' keys.
pub struct Private<K> {
    settings: Arc<Settings>,
    ring: Arc<KeyRing<K>>,
    /// By the tables' addresses; each plan holds its table, so that no other comes to stand there.
    plans: HashMap<usize, Arc<Plan>>,
}

impl<K> Clone for Private<K> {
    fn clone(&self) -> Self {
        Self { settings: Arc::clone(&self.settings), ring: Arc::clone(&self.ring), plans: HashMap::new() }
    }
}

impl<K> std::fmt::Debug for Private<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Private").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl<K: KeyStore> Private<K> {
    /// By a source's settings, with its subjects' keys in `store`.
    #[must_use]
    pub fn new(settings: Arc<Settings>, store: K) -> Self {
        Self { settings, ring: Arc::new(KeyRing::new(store)), plans: HashMap::new() }
    }

    /// The source's settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Rewrites a batch of the log.
    ///
    /// A value that cannot be read is left to the encoder to complain about, at its change, so that the changes before it
    /// still go.
    ///
    /// # Errors
    /// When a rule does not fit a table of the batch, or a subject's key cannot be had. The batch is of no use then.
    pub async fn map(&mut self, batch: &mut Batch) -> Result<(), PrivateError> {
        let Some(plans) = self.plans(&batch.tables)? else { return Ok(()) };
        let Some(master) = self.settings.master() else { return rewrite::rewrite(batch, &plans, None) };
        let subjects = rewrite::subjects(batch, &plans, master);
        let held = self.ring.hold(master, subjects).await?;
        rewrite::rewrite(batch, &plans, Some((master, &held)))
    }

    /// Rewrites a chunk of existing rows, whose cursors are made of key values.
    ///
    /// # Errors
    /// As [`Private::map`].
    pub async fn map_chunk(&mut self, chunk: &mut Chunk) -> Result<(), PrivateError> {
        let before = chunk.batch.tables.first().map(Arc::as_ptr).map(<*const Table>::addr);
        self.map(&mut chunk.batch).await?;
        let is_rewritten = chunk.batch.tables.first().map(Arc::as_ptr).map(<*const Table>::addr) != before;
        match self.settings.master().filter(|_| is_rewritten) {
            Some(master) => rewrite::seal_cursors(chunk, master),
            // Without a master key no column of a key is hidden.
            None => Ok(()),
        }
    }

    /// The plans of a batch's tables; `None` where nothing of any is hidden.
    fn plans(&mut self, tables: &[Arc<Table>]) -> Result<Option<Vec<Arc<Plan>>>, PlanError> {
        if self.settings.hides_nothing() {
            return Ok(None);
        }
        if self.plans.len() > PLANS_MAX {
            self.plans.clear();
        }
        let mut plans = Vec::with_capacity(tables.len());
        for table in tables {
            let address = Arc::as_ptr(table).addr();
            let plan = match self.plans.get(&address) {
                Some(plan) => Arc::clone(plan),
                None => {
                    let plan = Arc::new(Plan::new(&self.settings, table)?);
                    self.plans.insert(address, Arc::clone(&plan));
                    plan
                }
            };
            plans.push(plan);
        }
        Ok(plans.iter().any(|plan| plan.made.is_some()).then_some(plans))
    }
}

impl Settings {
    /// A cursor as the database may be asked with it: opened, where it was sealed.
    #[must_use]
    pub fn open_cursor(&self, cursor: Cursor) -> Option<Cursor> {
        match (seal::is_sealed_cursor(&cursor), self.master()) {
            (false, _) => Some(cursor),
            (true, Some(master)) => seal::open_cursor(master, &cursor),
            (true, None) => None,
        }
    }

    /// A cursor as it may be kept: sealed, wherever a key may be hidden.
    #[must_use]
    pub fn seal_cursor(&self, cursor: Cursor) -> Cursor {
        match self.master().filter(|_| !seal::is_sealed_cursor(&cursor)) {
            Some(master) => seal::seal_cursor(master, &cursor).unwrap_or(cursor),
            None => cursor,
        }
    }
}

#[cfg(test)]
mod tests;
