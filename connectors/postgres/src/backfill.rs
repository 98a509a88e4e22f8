//! Existing rows, read beside the log.
//!
//! ```text
//!   BEGIN, REPEATABLE READ, READ ONLY
//!   LOCK TABLE .. ACCESS SHARE     before the snapshot: what rewrites a table hides its rows from older ones
//!   pg_current_snapshot()          ── sight       what the rows show, told against the log's transaction ids
//!   the table's shape              ── shape       as the log would tell it; asked for when it may have changed
//!   COPY (SELECT ..) TO STDOUT     ── query, intake, rows  by the key's index, or as the rows lie on disk (place)
//!   COMMIT
//!   pg_logical_emit_message()      a record behind all that the snapshot showed: the log is sure to pass it
//! ```
//!
//! Rows of given values are looked up in the same way, by whatever index the planner takes, and no record is written
//! behind them (`look_up`).
//!
//! - COPY's text is the text of pgoutput: the same output functions under the same settings.
//! - A transaction is in the log before it is visible: opening a reader waits for those that are in between (`opening`).

mod intake;
mod listing;
mod look_up;
mod opening;
mod place;
mod query;
mod reading;
mod rows;
mod shape;
mod sight;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use figvine_change::{
    Chunk, ChunkReader, ChunkRequest, Found, LookUp, NamedColumn, SourceError, SourceErrorKind, Table,
};

pub(crate) use listing::{Added, Looks, load, tables};

use crate::catalogue::Catalogue;
use crate::connector::Postgres;
use crate::error::{failure, of_query};
use crate::lsn::Lsn;
use crate::messages::HEARTBEAT_PREFIX;
use crate::url::ConnectUrl;
use look_up::Compared;
use reading::PREPARE;
use shape::{Captured, Shape};

/// Of each chunk's session, beside what makes values deterministic.
///
/// - `row_security = off`: a policy that would hide rows from us is an error, not a gap.
/// - No sort and no scan of a whole table where an index, or a range of places, gives the rows in order.
/// - One process: what a backfill may cost the source is set elsewhere. And no compilation for queries of milliseconds.
/// - `plan_cache_mode`: what is prepared is planned once.
/// - `synchronize_seqscans`: a scan begins where the table does.
const SETTINGS: &str = "
    set row_security = off; set enable_sort = off; set enable_incremental_sort = off; set enable_seqscan = off;
    set enable_bitmapscan = off; set max_parallel_workers_per_gather = 0; set jit = off; set synchronize_seqscans = off;
    set default_transaction_read_only = off; set plan_cache_mode = force_generic_plan";

/// A connection that reads existing rows.
#[derive(Debug)]
pub struct PostgresReader {
    url: ConnectUrl,
    application: String,
    lock_timeout: Duration,
    captured: Captured,
    /// `server_version_num`.
    version: u32,
    /// Taken while a chunk is read, and put back only by one that was read to its end.
    catalogue: Option<Catalogue>,
    shapes: HashMap<(Box<str>, Box<str>), Known>,
    /// Whether we may write the message behind a chunk.
    may_emit: bool,
}

/// What earlier chunks of a table taught.
#[derive(Debug, Clone)]
struct Known {
    shape: Shape,
    /// Of the catalogue's rows that the shape was made of.
    digest: String,
    /// How columns are compared with what is looked up, as far as that was asked.
    compared: HashMap<Box<str>, Compared>,
    /// Bytes per row in the last chunk; 0 before the first.
    width: usize,
}

/// The tables of these columns as the log would tell them now.
pub(crate) async fn shapes(postgres: &Postgres, columns: &[NamedColumn]) -> Result<Vec<Arc<Table>>, SourceError> {
    let catalogue = postgres.catalogue().await?;
    let version = catalogue.server().await?.version;
    let captured = Captured::new(&postgres.config, &postgres.globs);
    let names: BTreeSet<_> = columns.iter().map(|column| (&*column.schema, &*column.table)).collect();
    let mut shapes = Vec::with_capacity(names.len());
    for (schema, table) in names {
        match shape::learn(&catalogue, version, &captured, (schema, table)).await {
            Ok(shape) => shapes.push(shape.table),
            // Dropped meanwhile, or not in the publication (yet).
            Err(error) if error.kind == SourceErrorKind::Invalid => {
                tracing::debug!(%error, "a table without a shape");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(shapes)
}

impl PostgresReader {
    pub(crate) async fn open(postgres: &Postgres) -> Result<Self, SourceError> {
        let mut reader = Self {
            url: postgres.url.clone(),
            application: postgres.application().to_owned(),
            lock_timeout: postgres.config.lock_timeout,
            captured: Captured::new(&postgres.config, &postgres.globs),
            version: 0,
            catalogue: None,
            shapes: HashMap::new(),
            may_emit: true,
        };
        let catalogue = reader.connect().await?;
        let server = catalogue.server().await?;
        reader.version = server.version;
        // A standby shows a commit before it gives it to a reader of its log.
        if !server.in_recovery {
            opening::visible(&catalogue).await?;
        }
        reader.catalogue = Some(catalogue);
        Ok(reader)
    }

    async fn connect(&self) -> Result<Catalogue, SourceError> {
        let catalogue = Catalogue::connect(&self.url, &self.application).await?;
        let settings = format!("{SETTINGS}; set lock_timeout = {}; {PREPARE}", self.lock_timeout.as_millis());
        let set = catalogue.client().batch_execute(&settings).await;
        set.map_err(|e| of_query(e, "preparing to read existing rows"))?;
        Ok(catalogue)
    }

    /// A place in the log behind all that a snapshot taken before the call shows.
    async fn high(&mut self, catalogue: &Catalogue, in_recovery: bool) -> Result<Lsn, SourceError> {
        if in_recovery {
            return replayed(catalogue).await;
        }
        let client = catalogue.client();
        if self.may_emit {
            // Flushed here at once, whatever the standbys do: the log is read up to there.
            let statement = format!(
                "begin read write; set local synchronous_commit = local;
                 select pg_logical_emit_message(true, '{HEARTBEAT_PREFIX}', 'chunk'); commit"
            );
            match client.simple_query(&statement).await {
                Ok(answer) => return lsn(reading::first(&answer, 0)),
                Err(error) if error.code().is_some_and(|code| code.code() == "42501") => {
                    tracing::info!("no right to call pg_logical_emit_message: chunks wait for other log behind them");
                    self.may_emit = false;
                    let ended = client.batch_execute("rollback").await;
                    ended.map_err(|e| of_query(e, "writing a message behind a chunk"))?;
                }
                Err(error) => return Err(of_query(error, "writing a message behind a chunk")),
            }
        }
        let answer = client.simple_query("select pg_current_wal_insert_lsn()").await;
        lsn(reading::first(&answer.map_err(|e| of_query(e, "asking how far the log goes"))?, 0))
    }
}

fn lsn(text: Option<&str>) -> Result<Lsn, SourceError> {
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| failure(SourceErrorKind::Refused, "FV-1116", "the server does not say how far its log goes"))
}

/// How far a standby has come. What it has made visible counts as replayed a moment later: while there is more to
/// replay the record is awaited that comes next.
async fn replayed(catalogue: &Catalogue) -> Result<Lsn, SourceError> {
    const PAUSE: Duration = Duration::from_millis(10);
    const LOOKS: u32 = 100;
    let mut first = None;
    let mut last = Lsn(0);
    for _ in 0..LOOKS {
        let query = "select pg_last_wal_replay_lsn(), coalesce(pg_last_wal_receive_lsn(), '0/0')";
        let answer = catalogue.client().simple_query(query).await;
        let answer = answer.map_err(|e| of_query(e, "asking how far the standby is"))?;
        let received;
        (last, received) = (lsn(reading::first(&answer, 0))?, lsn(reading::first(&answer, 1))?);
        if last >= received || last > *first.get_or_insert(last) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(last)
}

impl ChunkReader for PostgresReader {
    async fn read(&mut self, request: &ChunkRequest) -> Result<Chunk, SourceError> {
        Box::pin(self.chunk(request)).await
    }

    async fn look_up(&mut self, request: &LookUp) -> Result<Found, SourceError> {
        Box::pin(self.find(request)).await
    }
}
