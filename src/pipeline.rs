//! One source's way into its stream: the stages, and what happens when one fails.
//!
//! ```text
//!        backfill::Runner ───────┐ rows between transactions
//!                                v
//!   Source::next ─> Private ─> Rules ─> Encoder ─> [Events] ─> Publisher ──> JetStream
//!        ^                 (reader)          bounded       (chain)          │ acks
//!        │                                                                  v
//!     Durable <────────────────── Keeper <────────────── Stored ──> Ledger (counters)
//!                            (checkpoint in KV)
//! ```
//!
//! A session runs all stages from one position on. It ends as a whole: when it is
//! told to, when its goal is reached, or when a stage fails; what was read is
//! stored first where that is possible, then the next session begins where the
//! stream says. There is no other way to recover.

mod attempts;
mod dry;
mod error;
mod ledger;
mod look;
mod schemas;
mod session;

use std::sync::Arc;
use std::time::Duration;

use figvine_change::{Connector, Position};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backfill::{self, Desk};
use crate::map::echo::Echoes;
use crate::map::{private, rules};
use crate::schema::Policy;
use crate::telemetry::{Phase, SourceTelemetry};
use crate::{event, nats, stream};

pub use error::PipelineError;

/// How long the last word on backfills may take.
const LAST_WRITE: Duration = Duration::from_secs(3);

/// One source, its stream, and what lies between.
#[derive(Debug)]
pub struct Pipeline<C> {
    /// The way to the database.
    pub connector: Arc<C>,
    /// How events look.
    pub events: event::Settings,
    /// The stream they go to.
    pub stream: stream::Settings,
    /// The way to it.
    pub nats: nats::Settings,
    /// What is hidden.
    pub private: Arc<private::Settings>,
    /// How event types may change; `None` where events name no schemas.
    pub schemas: Option<Policy>,
    /// What is parked rather than ends the source.
    pub parks: event::Parks,
    /// Where that is kept.
    pub letters: stream::LetterSettings,
    /// Whose transactions are left out.
    pub echoes: Echoes,
    /// What is made of changes.
    pub rules: Arc<rules::Settings>,
    /// What is backfilled.
    pub desk: Arc<Desk>,
    /// Where figures go.
    pub telemetry: Arc<SourceTelemetry>,
    /// When to end; `None` for never.
    pub until: Option<Until>,
}

/// When a run ends by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// Once everything is stored that was committed before the run began.
    Now,
    /// Once everything is stored that lies before a position.
    Position(Position),
}

impl<C: Connector + 'static> Pipeline<C> {
    /// Runs until the goal is reached or `stop` is called; then what was read is stored, and the source released.
    ///
    /// # Errors
    /// Those that trying again does not mend. A source or a NATS server that was never reached is given up
    /// after a minute; once it was reached, it is waited for.
    pub async fn run(self, stop: CancellationToken) -> Result<(), PipelineError> {
        let telemetry = Arc::clone(&self.telemetry);
        let desk = Arc::clone(&self.desk);
        // Ends with us; before that it writes how far we came.
        let mut shelf = JoinSet::new();
        shelf.spawn(backfill::keep(Arc::clone(&desk), self.nats.clone(), self.stream.clone()));
        let outcome = attempts::run(self, stop).await;
        if desk.is_active() && !desk.is_written(desk.version(), LAST_WRITE).await {
            tracing::warn!("how far backfills are could not be written: the stream tells it");
        }
        telemetry.phase(match &outcome {
            Ok(()) => Phase::Done,
            Err(error) => Phase::Failed(error.to_string()),
        });
        outcome
    }

    /// Reads and maps, and hands the events to `show`; stores nothing and releases nothing.
    ///
    /// # Errors
    /// The first failure.
    pub async fn dry_run(
        self,
        stop: CancellationToken,
        show: impl FnMut(&event::Events) -> std::io::Result<()> + Send,
    ) -> Result<(), PipelineError> {
        dry::run(self, stop, show).await
    }
}
