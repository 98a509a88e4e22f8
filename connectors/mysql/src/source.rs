//! An open log: chunks in, batches out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use figvine_change::{Batch, Engine, Position, Source, SourceError, SourceErrorKind, Untold};

use crate::backfill::PassedOn;
use crate::catalogue::{Catalogue, ColumnFacts, Server};
use crate::error::{Told, ahead, failure};
use crate::normalise::{NormaliseError, Normaliser, Progress};
use crate::scout::{Errand, Scout};
use crate::session::{Chunk, Dump};
use crate::tables::{Facts, TableError, Wanted};
use crate::url::ConnectUrl;

/// A binary log that is being read.
#[derive(Debug)]
pub struct MysqlSource {
    pub(crate) started_at: Position,
    pub(crate) engine: Engine,
    pub(crate) server: Server,
    pub(crate) heartbeat: Duration,
    pub(crate) dump: Dump,
    pub(crate) normaliser: Normaliser,
    pub(crate) url: ConnectUrl,
    pub(crate) program: String,
    /// For questions while the log is read; made when there is one.
    pub(crate) catalogue: Option<Catalogue>,
    /// The chunk that is being read, and how far.
    pub(crate) chunk: Option<(Chunk, usize)>,
    /// What a table map made us ask and is not answered yet.
    pub(crate) wanted: Option<Wanted>,
    /// Who asks, where the log does not tell columns.
    pub(crate) scout: Option<Scout>,
    /// Told when somebody else comes under our server id.
    pub(crate) is_replaced: Arc<AtomicBool>,
    /// Told what is handed out, for the readers of existing rows.
    pub(crate) passed_on: PassedOn,
    /// Batches read and not yet handed out.
    pub(crate) ready: VecDeque<Batch>,
}

impl MysqlSource {
    /// Asks the catalogue; where the log does not tell columns, by a scout.
    async fn answer(&mut self) -> Result<(), SourceError> {
        let Some(wanted) = self.wanted.clone() else { return Ok(()) };
        if wanted.is_nameless {
            let scout = self.scout.get_or_insert_with(|| {
                Scout::send(Errand {
                    url: self.url.clone(),
                    program: self.program.clone(),
                    server: self.server.clone(),
                    globs: self.normaliser.tables.globs.clone(),
                    place: self.normaliser.place(),
                    heartbeat: self.heartbeat,
                    is_first: !self.normaliser.tables.is_scouted(),
                    wanted,
                })
            });
            let found = scout.report().await?;
            self.scout = None;
            for (table, facts) in found {
                self.normaliser.tables.answer(&table, facts);
            }
        } else {
            let columns = Box::pin(self.columns(&wanted)).await?;
            self.normaliser.tables.answer(&wanted, Facts { columns, ..Facts::default() });
        }
        self.wanted = None;
        Ok(())
    }

    /// Asks for columns. A connection that broke meanwhile is made anew, once.
    async fn columns(&mut self, of: &Wanted) -> Result<Vec<ColumnFacts>, SourceError> {
        let flavour = self.server.flavour;
        if let Some(mut catalogue) = self.catalogue.take()
            && let Ok(columns) = catalogue.columns(flavour, &of.schema, &of.name).await
        {
            self.catalogue = Some(catalogue);
            return Ok(columns);
        }
        let mut catalogue = Catalogue::connect(&self.url, &self.program).await?;
        let columns = catalogue.columns(flavour, &of.schema, &of.name).await?;
        self.catalogue = Some(catalogue);
        Ok(columns)
    }
}

impl Source for MysqlSource {
    async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        // Everything half-done stands in `self`, so that a dropped call loses nothing.
        loop {
            if let Some(batch) = self.ready.pop_front() {
                self.passed_on.add(&batch);
                return Ok(Some(batch));
            }
            Box::pin(self.answer()).await?;
            let Some((chunk, at)) = &mut self.chunk else {
                // We wait for what comes: a server that ends a dump in order shuts down, or was told to end it.
                let next = self.dump.next().await.inspect_err(|error| {
                    if error.kind == SourceErrorKind::Busy {
                        self.is_replaced.store(true, Ordering::Relaxed);
                    }
                });
                let chunk = next?.ok_or_else(|| {
                    failure(SourceErrorKind::Unreachable, "FV-1120", "reading the log: the server ended it")
                })?;
                self.chunk = Some((chunk, 0));
                continue;
            };
            match self.normaliser.read(chunk, at, &mut self.ready).map_err(of_log)? {
                Progress::Done => self.chunk = None,
                Progress::More => {}
                Progress::Wants(wanted) => self.wanted = Some(wanted),
            }
        }
    }

    fn started_at(&self) -> &Position {
        &self.started_at
    }

    fn engine(&self) -> &Engine {
        &self.engine
    }

    fn untold(&mut self) -> Untold {
        self.normaliser.untold()
    }

    async fn close(self) {
        self.dump.close().await;
    }
}

/// What the log told and we do not go on behind.
fn of_log(error: NormaliseError) -> SourceError {
    if let NormaliseError::CommitUndone(undone) = &error {
        return ahead(format!("the stream has changes that the server no longer has: {undone}"));
    }
    let (code, what, hint) = match &error {
        NormaliseError::Statement { .. } | NormaliseError::Runs => (
            "FV-1402",
            error.to_string(),
            "Set `binlog_format = ROW`. Read the table again; `on_statement: warn` goes on without these rows.",
        ),
        NormaliseError::Table { error: TableError::Outdated { .. }, .. } => (
            "FV-1403",
            error.to_string(),
            "Nothing was skipped. Set `binlog_row_metadata = FULL`: from then on the log itself tells the columns. What was \
             logged without cannot be told any more: read the tables again, or begin anew with another stream.",
        ),
        NormaliseError::RolledBack => (
            "FV-1404",
            error.to_string(),
            "Tables of engines that cannot roll back were changed beside others. Nothing was skipped.",
        ),
        _ => (
            "FV-1401",
            "the log cannot be decoded".to_owned(),
            "Nothing was skipped. If the server's own `mysqlbinlog` reads it, report it with the server's version.",
        ),
    };
    failure(SourceErrorKind::Undecodable, code, what).hint(hint).because(error)
}
