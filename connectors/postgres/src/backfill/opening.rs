//! What a new reader waits for: that what the log already told is visible.
//!
//! A commit is in the log before its transaction counts as ended, mostly for microseconds. Where a commit waits for a
//! synchronous standby it can be long, while the log (and so the stream) holds it already: it is sent once it is
//! flushed here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use figvine_change::SourceError;
use tokio::time::{Instant, sleep};

use crate::catalogue::Catalogue;
use crate::error::of_query;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// A transaction that is seen running at two looks so far apart was not in the last microseconds of its commit
/// at the first of them.
const APART: Duration = Duration::from_millis(200);
/// After so long it is said whom we wait for.
const SILENT: Duration = Duration::from_secs(1);

/// A running transaction.
#[derive(Debug)]
struct Running {
    id: String,
    pid: Option<i32>,
    state: State,
}

/// Whether it may have a commit in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No, as far as one look can tell.
    Working,
    /// It waits for a synchronous standby.
    Committing,
    /// We may not see what it waits for, and synchronous standbys are configured.
    Hidden,
    /// It is prepared, and whoever commits it may wait for a synchronous standby.
    Prepared,
}

/// Waits until all that the log held of ended transactions when we were called is visible.
pub(super) async fn visible(catalogue: &Catalogue) -> Result<(), SourceError> {
    let begun = Instant::now();
    let mut is_said = false;
    // When each was first seen; what began after the first look has nothing in the log that was read before it.
    let first = look(catalogue).await?;
    let mut waited: BTreeSet<String> = first.iter().map(|running| running.id.clone()).collect();
    let mut working: BTreeMap<String, Instant> = BTreeMap::new();
    let mut running = first;
    loop {
        let now = Instant::now();
        waited.retain(|id| running.iter().any(|other| other.id == *id));
        for one in &running {
            match one.state {
                State::Working => {
                    let since = *working.entry(one.id.clone()).or_insert(now);
                    if now - since >= APART {
                        waited.remove(&one.id);
                    }
                }
                State::Committing | State::Hidden | State::Prepared => {
                    working.remove(&one.id);
                }
            }
        }
        if waited.is_empty() {
            return Ok(());
        }
        if !is_said && begun.elapsed() >= SILENT {
            is_said = true;
            say(&running, &waited);
        }
        sleep(PAUSE).await;
        running = look(catalogue).await?;
    }
}

fn say(running: &[Running], waited: &BTreeSet<String>) {
    for one in running.iter().filter(|one| waited.contains(&one.id)) {
        let pid = one.pid.unwrap_or_default();
        match one.state {
            State::Hidden => tracing::warn!(
                pid,
                "existing rows are not read before this transaction ends: whether it waits for a synchronous standby is hidden from us; GRANT pg_read_all_stats would show it"
            ),
            State::Committing | State::Prepared | State::Working => tracing::warn!(
                pid,
                "existing rows are not read before this transaction ends: its commit waits for a synchronous standby"
            ),
        }
    }
}

/// The transactions of this database that run now.
async fn look(catalogue: &Catalogue) -> Result<Vec<Running>, SourceError> {
    // Not out of a snapshot: what began behind the newest transaction that has ended is in none, and runs all the same.
    // COMMIT PREPARED has no transaction id of its own, and what it commits counts as prepared until its end: such a
    // wait is laid to all that are prepared.
    let query = "
        select a.backend_xid::text, a.pid,
               case when a.wait_event = 'SyncRep' then 'c'
                    when a.query = '<insufficient privilege>' and current_setting('synchronous_standby_names') <> '' then 'h'
                    else 'w' end
        from pg_stat_activity a where a.backend_xid is not null and a.datname = current_database()
        union all
        select p.transaction::text, null,
               case when exists (select from pg_stat_activity w where w.wait_event = 'SyncRep' and w.backend_xid is null)
                    then 'p' else 'w' end
        from pg_prepared_xacts p where p.database = current_database()";
    let rows = catalogue.client().query(query, &[]).await;
    let rows = rows.map_err(|e| of_query(e, "looking for commits that are not visible yet"))?;
    let running = rows.iter().map(|row| Running {
        id: row.get(0),
        pid: row.get(1),
        state: match row.get(2) {
            "c" => State::Committing,
            "h" => State::Hidden,
            "p" => State::Prepared,
            _ => State::Working,
        },
    });
    Ok(running.collect())
}
