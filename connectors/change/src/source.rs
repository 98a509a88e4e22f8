//! The contract between a connector and the bridge.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

use crate::{Batch, ChunkReader, Finding, Load, NamedColumn, Position, SourceError, Table, TableSize};

/// Committed row changes of one database, in commit order.
///
/// - **Order**: changes come in commit order, inside a transaction in the order
///   of the log; nothing of a transaction that rolled back is seen.
/// - **Identity**: (transaction, ordinal, part) of a change is the same on every
///   replay of the log, whatever the configuration says.
/// - **Duplicates**: none in one session; a new session opened at a position
///   starts with the first change behind it.
/// - **Memory**: bounded, whatever the size of a transaction.
pub trait Source: Send {
    /// Returns the next batch; `None` once the log has ended for good.
    ///
    /// Waits while the log has nothing new. On an idle log it returns, from time
    /// to time, empty batches whose [`Batch::end`] moves on, so that the log is released.
    ///
    /// Cancel-safe: a call dropped half-way loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Option<Batch>, SourceError>> + Send;

    /// Where this session began to read.
    fn started_at(&self) -> &Position;

    /// What the server says of itself, for events and logs.
    fn engine(&self) -> &Engine;

    /// What was not told, as far as the log lets see, since the last call.
    fn untold(&mut self) -> Untold {
        Untold::default()
    }

    /// Ends the session in order: tells the server the last [`Durable`] and
    /// leaves, so that another may read at once. Dropping ends it too, without a word.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Changes that were made, or may have been, and that the log does not tell: how often each kind was met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Untold {
    /// Statements that may have changed a captured table by a foreign key.
    pub cascades: u64,
    /// Statements that changed captured tables and are in the log as such, without rows.
    pub statements: u64,
    /// Partitions that went, or came from elsewhere.
    pub partitions: u64,
}

/// How much log a server keeps because of us.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retention {
    /// Bytes of log kept for us.
    pub bytes: u64,
    /// Share of what the server's settings allow that is still free; at 0 the
    /// server may take the log away. `None` where it sets no limit.
    pub safe_ratio: Option<f64>,
}

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Engine {
    /// `postgres`, `mysql` or `mariadb`.
    pub name: &'static str,
    /// The server's version, `15.18`.
    pub version: Box<str>,
    /// The database that is read; empty where a server's log covers all of them.
    pub database: Box<str>,
}

/// A way to one database.
pub trait Connector: Send + Sync {
    /// What it reads the log through.
    type Source: Source;
    /// What it reads existing rows through.
    type Reader: ChunkReader;

    /// Verifies, changing nothing, that the server can be replicated from.
    ///
    /// # Errors
    /// When the server cannot be asked at all; whatever it answers is a finding.
    fn check(&self) -> impl Future<Output = Result<Vec<Finding>, SourceError>> + Send;

    /// The newest position of the log, now: everything committed before the call lies before it.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn newest(&self) -> impl Future<Output = Result<Position, SourceError>> + Send;

    /// Whether the server knows that its log was read for us before: where the stream and its checkpoint are
    /// gone, what was released meanwhile is a gap. False where the server keeps no such memory.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn was_read(&self) -> impl Future<Output = Result<bool, SourceError>> + Send;

    /// How much log the server keeps because of us; `None` where it cannot tell.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn retention(&self) -> impl Future<Output = Result<Option<Retention>, SourceError>> + Send;

    /// The captured tables as they are now. Tables that were made since the log was opened are captured from the
    /// return of this call on, where the server must be told of them.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn tables(&self) -> impl Future<Output = Result<Vec<TableSize>, SourceError>> + Send;

    /// The columns of the tables that the configuration means, table by table in the order of the row; changes nothing. None
    /// of a connector that has no catalogue to ask.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn columns(&self) -> impl Future<Output = Result<Vec<NamedColumn>, SourceError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// The captured tables in the shape that they have now, as the log would tell it of rows that are written next; changes
    /// nothing. A table that cannot be looked at is left out. None of a connector that has no catalogue to ask.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn shapes(&self) -> impl Future<Output = Result<Vec<Arc<Table>>, SourceError>> + Send {
        async { Ok(Vec::new()) }
    }

    /// Opens a way to existing rows. See [`ChunkReader`] for what was passed on of the log before the call.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses us.
    fn reader(&self) -> impl Future<Output = Result<Self::Reader, SourceError>> + Send;

    /// How busy the server is.
    ///
    /// # Errors
    /// When the server cannot be asked.
    fn load(&self) -> impl Future<Output = Result<Load, SourceError>> + Send;

    /// Whether `reached`, a position out of a [`Batch`], lies at or behind `target`.
    /// For `--until` only: recognising what was already stored goes by identity.
    fn is_reached(&self, target: &Position, reached: &Position) -> bool;

    /// Opens the log behind `from`; on `None` (nothing was ever read) at the
    /// place where the server keeps the log for us from now on.
    ///
    /// Tells the server to discard log up to `durable`, never further.
    ///
    /// # Errors
    /// [`crate::SourceErrorKind::PositionLost`] when the log no longer holds `from`
    /// or is another log; it never goes on behind a gap by itself.
    fn open(
        &self,
        from: Option<Position>,
        durable: Durable,
    ) -> impl Future<Output = Result<Self::Source, SourceError>> + Send;
}

/// What is safely stored: everything up to this position. The one thing that
/// flows from the stream back to the source.
#[derive(Debug, Clone)]
pub struct Durable(watch::Receiver<Option<Position>>);

impl Durable {
    /// A pair: who stores, tells; who reads the log, listens.
    #[must_use]
    pub fn channel() -> (watch::Sender<Option<Position>>, Self) {
        let (sender, receiver) = watch::channel(None);
        (sender, Self(receiver))
    }

    /// The newest stored position; `None` as long as this session stored nothing.
    #[must_use]
    pub fn latest(&self) -> Option<Position> {
        self.0.borrow().clone()
    }

    /// Waits until [`Durable::latest`] has moved since the last call. Never
    /// returns again once the teller is gone. Cancel-safe.
    pub async fn changed(&mut self) -> Option<Position> {
        if self.0.changed().await.is_err() {
            return std::future::pending().await;
        }
        self.0.borrow_and_update().clone()
    }
}
