//! An open log: chunks in, batches out.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use figvine_change::{Batch, Engine, Position, Source, SourceError};
use tokio::task::JoinSet;

use crate::catalogue::Catalogue;
use crate::error::{of_decode, of_io, of_query};
use crate::lsn::{LogId, Lsn};
use crate::messages::HEARTBEAT_PREFIX;
use crate::normalise::{Normaliser, Progress};
use crate::publication;
use crate::session::Replication;
use crate::tables::{Facts, Wanted};
use crate::timeline::Timeline;
use crate::url::ConnectUrl;

/// How long the catalogue may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// A slot that is being read.
#[derive(Debug)]
pub struct PostgresSource {
    pub(crate) started_at: Position,
    pub(crate) engine: Engine,
    pub(crate) replication: Replication,
    pub(crate) normaliser: Normaliser,
    pub(crate) facts: Facts,
    pub(crate) catalogue: Questions,
    /// A publication that was made for a look, and goes with it.
    pub(crate) passing_publication: Option<String>,
    /// On a standby: what tells that it was promoted, or follows another primary.
    pub(crate) timeline: Option<Timeline>,
    /// The chunk that is being read, and how far.
    pub(crate) chunk: Option<(Bytes, usize)>,
    /// What a RELATION made us ask and is not answered yet.
    pub(crate) wanted: Option<Wanted>,
    /// Batches read and not yet handed out.
    pub(crate) ready: VecDeque<Batch>,
    /// Tasks beside the stream: heartbeats.
    pub(crate) _beside: JoinSet<()>,
}

impl Source for PostgresSource {
    async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        // Everything half-done stands in `self`, so that a dropped call loses nothing.
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if let Some(wanted) = &self.wanted {
                self.catalogue.answer(wanted, &mut self.facts).await?;
                self.wanted = None;
            }
            let Some((chunk, at)) = &mut self.chunk else {
                match self.replication.next().await? {
                    Some(chunk) => self.chunk = Some((chunk, 0)),
                    None => return Ok(None),
                }
                continue;
            };
            if *at == 0
                && let Some(timeline) = &mut self.timeline
            {
                timeline.holds().await?;
            }
            let progress = self.normaliser.read(chunk, at, &mut self.facts, &mut self.ready);
            match progress.map_err(|e| of_decode(e, self.normaliser.near()))? {
                Progress::Done => self.chunk = None,
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

    async fn close(mut self) {
        self.replication.close().await;
        if let Some(name) = self.passing_publication
            && let Err(error) = self.catalogue.remove(&name).await
        {
            tracing::warn!(code = error.code, publication = %name, %error, "what was made for this look is still there");
        }
    }
}

/// How long it may take to take away what was made for a look.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the catalogue that comes back after it broke.
#[derive(Debug)]
pub(crate) struct Questions {
    pub(crate) url: ConnectUrl,
    pub(crate) application: String,
    pub(crate) catalogue: Option<Catalogue>,
}

impl Questions {
    async fn connected(&mut self) -> Result<Option<&Catalogue>, SourceError> {
        if self.catalogue.as_ref().is_none_or(|catalogue| catalogue.client().is_closed()) {
            self.catalogue = Some(Catalogue::connect(&self.url, &self.application).await?);
        }
        Ok(self.catalogue.as_ref())
    }

    async fn remove(&mut self, publication: &str) -> Result<(), SourceError> {
        let Some(catalogue) = self.connected().await? else { return Ok(()) };
        let removed = tokio::time::timeout(REMOVAL_TIMEOUT, publication::remove(catalogue, publication)).await;
        removed.unwrap_or_else(|_| Err(of_io(std::io::ErrorKind::TimedOut.into(), "removing the publication")))
    }

    async fn answer(&mut self, wanted: &Wanted, facts: &mut Facts) -> Result<(), SourceError> {
        let Some(catalogue) = self.connected().await? else { return Ok(()) };
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, catalogue.answer(wanted, facts)).await;
        // A connection that was silent for long may have been cut without a word: the next try takes a new one.
        answered.unwrap_or_else(|_| {
            self.catalogue = None;
            Err(of_io(std::io::ErrorKind::TimedOut.into(), "asking the catalogue"))
        })
    }
}

/// Writes a message into the log now and then: on a database where nothing else is written, lag stays
/// measurable and the slot moves. Not transactional: it takes no transaction id.
pub(crate) async fn heartbeat(url: ConnectUrl, application: String, every: Duration) {
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut catalogue: Option<Catalogue> = None;
    loop {
        tick.tick().await;
        let beat = async {
            let open = match catalogue.take().filter(|c| !c.client().is_closed()) {
                Some(open) => open,
                None => Catalogue::connect(&url, &application).await?,
            };
            let query = "select pg_logical_emit_message(false, $1, '')";
            let written = open.client().execute(query, &[&HEARTBEAT_PREFIX]).await;
            written.map_err(|e| of_query(e, "writing a heartbeat"))?;
            Ok::<_, SourceError>(open)
        };
        match beat.await {
            Ok(open) => catalogue = Some(open),
            // The stream goes on without; the next beat tries again.
            Err(error) => tracing::warn!(code = error.code, %error, "no heartbeat"),
        }
    }
}

/// The text of a position between transactions.
pub(crate) fn position(log: LogId, lsn: Lsn) -> Position {
    Position::between(log.at(lsn))
}
