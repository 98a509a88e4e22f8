//! XA transactions that the log told of and that have not ended for sure.
//!
//! MariaDB writes its log before the engine acts, at PREPARE, COMMIT and ROLLBACK of an XA transaction alike, and its
//! recovery from a crash does not hold the engine against the log (MDEV-32830, MDEV-33168). So behind a crash
//!
//! - a transaction whose PREPARE stands at the log's end may never have been prepared: nobody will end it;
//! - one whose ROLLBACK stands there may be prepared again, and be committed: its changes are those of the PREPARE;
//! - one whose COMMIT stands there may be prepared again. A second COMMIT changes nothing; a ROLLBACK makes the
//!   database lack what was passed on.
//!
//! What the engine has, XA RECOVER tells once the server is up again: [`Recovered`]. MySQL's recovery does what its log
//! says, since 8.0.30.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use crate::gtid::MariaDbSet;
use crate::normalise::Name;
use crate::position::Place;
use crate::prepared::Spool;

/// Behind this the engine has done what the log said: it marks the transaction at once, and writes its own log every second.
const UNSURE: Duration = Duration::from_secs(10);

/// What COMMIT makes changes of.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) spool: Spool,
    /// The name of what its PREPARE ended.
    pub(crate) name: Name,
}

/// A transaction that was committed in the log, and then rolled back behind a crash.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("XA transaction {0} was rolled back behind a crash that had undone its commit")]
pub(crate) struct CommitUndone(String);

/// What MariaDB's engine had when the session began.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The names of the prepared transactions, as the log writes them.
    pub(crate) prepared: HashSet<String>,
    /// The log up to here tells of all that had ended by then.
    pub(crate) until: MariaDbSet,
}

/// An XA transaction whose PREPARE was read.
#[derive(Debug)]
struct Known {
    prepared: Prepared,
    /// The place before its PREPARE.
    before: Place,
    /// Where its PREPARE stands among those of the others.
    order: u64,
    ended: Option<(End, Instant)>,
    /// The server was started since the last that was read of it.
    is_before_start: bool,
}

/// What the log says became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Committed,
    RolledBack,
}

/// XA transactions by their names, from PREPARE on.
#[derive(Debug, Default)]
pub(crate) struct XaTransactions {
    known: BTreeMap<String, Known>,
    count: u64,
    recovered: Option<Recovered>,
    /// All was read that the log had when that was asked.
    is_past: bool,
}

impl XaTransactions {
    /// In a session with a server that may undo what its log says, and of which `recovered` is known.
    pub(crate) fn new(recovered: Option<Recovered>) -> Self {
        Self { recovered, ..Self::default() }
    }

    /// A PREPARE was read, which stands behind `before`. A name that was there before is another transaction's now.
    pub(crate) fn prepare(&mut self, xid: String, prepared: Prepared, before: Place) {
        let order = self.count;
        self.count += 1;
        self.known.insert(xid, Known { prepared, before, order, ended: None, is_before_start: false });
    }

    /// A COMMIT was read: what it commits. One that is not known had no rows in the log: those that were prepared before the
    /// first session began are waited for.
    pub(crate) fn commit(&mut self, xid: &str, now: Instant) -> Option<Prepared> {
        if self.recovered.is_none() {
            return self.known.remove(xid).map(|known| known.prepared);
        }
        let known = self.known.get_mut(xid)?;
        known.is_before_start = false;
        let before = known.ended.replace((End::Committed, now));
        if let Some((End::RolledBack, _)) = before {
            tracing::warn!(%xid, "a transaction is committed behind a crash that had undone its rollback");
        }
        let spool = std::mem::take(&mut known.prepared.spool);
        let is_first = !matches!(before, Some((End::Committed, _)));
        is_first.then(|| Prepared { spool, name: known.prepared.name.clone() })
    }

    /// A ROLLBACK was read: what it ended, where that is sure.
    ///
    /// # Errors
    /// When its changes were passed on already.
    pub(crate) fn roll_back(&mut self, xid: &str, now: Instant) -> Result<Option<Prepared>, CommitUndone> {
        if self.recovered.is_none() {
            return Ok(self.known.remove(xid).map(|known| known.prepared));
        }
        if let Some(known) = self.known.get_mut(xid) {
            if known.is_before_start && matches!(known.ended, Some((End::Committed, _))) {
                return Err(CommitUndone(xid.to_owned()));
            }
            known.ended = Some((End::RolledBack, now));
            known.is_before_start = false;
        }
        Ok(None)
    }

    /// The server was started here.
    pub(crate) fn started(&mut self) {
        self.known.values_mut().for_each(|known| known.is_before_start = true);
    }

    /// Forgets what has ended for sure, `at` being how far was read.
    pub(crate) fn settle(&mut self, at: &Place, now: Instant) {
        let Self { known, recovered: Some(recovered), is_past, .. } = self else { return };
        let was_past = *is_past;
        *is_past |= matches!(at, Place::MariaDb(at) if recovered.until.is_reached_by(at));
        known.retain(|xid, known| {
            let is_there = recovered.prepared.contains(xid);
            match known.ended {
                // A crash ends the session: each start that is read came before the engine was asked.
                _ if known.is_before_start && !*is_past => true,
                None if known.is_before_start && !is_there => {
                    tracing::warn!(%xid, "a crash undid that a transaction was prepared");
                    false
                }
                // The crash undid its end, or not.
                Some(_) if known.is_before_start => is_there,
                // It ended before the engine was asked.
                Some(_) if *is_past && !was_past && !is_there => false,
                Some((_, since)) => now.duration_since(since) < UNSURE,
                None => true,
            }
        });
    }

    /// The place before the first that is known.
    pub(crate) fn first(&self) -> Option<&Place> {
        self.known.values().min_by_key(|known| known.order).map(|known| &known.before)
    }
}

#[cfg(test)]
mod tests;
