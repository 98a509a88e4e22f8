//! From the configuration to running pipelines: the one place with concrete connectors.

use std::collections::BTreeMap;
use std::sync::Arc;

use figvine_change::{Batch, Connector, Finding, SourceError, SourceErrorKind, Table};
use figvine_mysql::Mysql;
use figvine_postgres::Postgres;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::backfill::Desk;
use crate::config::{Config, EngineConfig, Source};
use crate::event::Events;
use crate::map::private::{Passing, Private};
use crate::pipeline::{Pipeline, PipelineError, Until};
use crate::telemetry::Telemetry;

/// Calls `$body` with `$connector` made of a source's engine: where a new engine gets its arm.
macro_rules! with_connector {
    ($engine:expr, $connector:ident => $body:expr) => {
        match $engine {
            EngineConfig::Postgres(config) => {
                let $connector = Postgres::new(config.clone()).map_err(invalid)?;
                $body
            }
            EngineConfig::Mysql(config) => {
                let $connector = Mysql::new(config.clone()).map_err(invalid)?;
                $body
            }
        }
    };
}

/// What `run` is told beside the configuration.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only this source.
    pub source: Option<String>,
    /// When to end.
    pub until: Option<Until>,
}

/// A source that ended with a failure.
#[derive(Debug, thiserror::Error)]
#[error("source {name}: {error}")]
pub struct Failed {
    /// The source.
    pub name: String,
    /// Why.
    #[source]
    pub error: PipelineError,
}

/// The sources that are meant, by name; `None` when there is none of that name.
#[must_use]
pub fn chosen<'a>(config: &'a Config, name: Option<&str>) -> Option<Vec<&'a Source>> {
    let chosen: Vec<_> = config.sources().iter().filter(|source| name.is_none_or(|name| source.name == name)).collect();
    (!chosen.is_empty()).then_some(chosen)
}

/// The desks of all sources, by the sources' names: where backfills are asked for while [`run`] runs.
pub type Desks = BTreeMap<String, Arc<Desk>>;

/// Makes the desks of the sources that are meant.
#[must_use]
pub fn desks(config: &Config, wanted: &Wanted) -> Desks {
    let chosen = chosen(config, wanted.source.as_deref()).unwrap_or_default();
    chosen
        .into_iter()
        .map(|source| (source.name.clone(), Arc::new(Desk::new(source.backfill.clone(), Arc::clone(&source.private)))))
        .collect()
}

/// Runs the sources, each by itself: one that fails for good does not stop the others.
///
/// # Errors
/// Once all have ended: the first failure. A configuration that cannot hold, before anything has begun.
pub async fn run(
    config: &Config,
    wanted: &Wanted,
    desks: &Desks,
    telemetry: &Telemetry,
    stop: &CancellationToken,
) -> Result<(), Failed> {
    let mut running = JoinSet::new();
    for source in chosen(config, wanted.source.as_deref()).unwrap_or_default() {
        let started = start(config, source, wanted, desks, telemetry, stop.clone(), &mut running);
        started.map_err(|error| Failed { name: source.name.clone(), error })?;
    }
    let mut first = None;
    while let Some(ended) = running.join_next().await {
        let (name, outcome) = match ended {
            Ok(ended) => ended,
            Err(stage) => ("of unknown name".to_owned(), Err(PipelineError::Stage(stage))),
        };
        match outcome {
            Ok(()) => tracing::info!(source = %name, "ended; all that was read is stored"),
            Err(error) => {
                let failed = Failed { name, error };
                // The first is told by whoever called; the others only here.
                if first.is_some() {
                    tracing::error!(code = failed.error.code(), "{failed}");
                } else {
                    if !running.is_empty() {
                        tracing::error!(code = failed.error.code(), "{failed}; the other sources go on");
                    }
                    first = Some(failed);
                }
            }
        }
    }
    first.map_or(Ok(()), Err)
}

type Ended = (String, Result<(), PipelineError>);

fn start(
    config: &Config,
    source: &Source,
    wanted: &Wanted,
    desks: &Desks,
    telemetry: &Telemetry,
    stop: CancellationToken,
    running: &mut JoinSet<Ended>,
) -> Result<(), PipelineError> {
    let name = source.name.clone();
    let desk = desks
        .get(&name)
        .map_or_else(|| Arc::new(Desk::new(source.backfill.clone(), Arc::clone(&source.private))), Arc::clone);
    with_connector!(&source.engine, connector => {
        let pipeline = pipeline(config, source, wanted, desk, telemetry, connector);
        running.spawn(async move { (name, Box::pin(pipeline.run(stop)).await) });
    });
    Ok(())
}

fn pipeline<C: Connector>(
    config: &Config,
    source: &Source,
    wanted: &Wanted,
    desk: Arc<Desk>,
    telemetry: &Telemetry,
    connector: C,
) -> Pipeline<C> {
    Pipeline {
        connector: Arc::new(connector),
        events: source.events.clone(),
        stream: source.stream.clone(),
        nats: config.nats().clone(),
        private: Arc::clone(&source.private),
        schemas: source.schemas,
        parks: source.parks,
        letters: source.letters.clone(),
        echoes: source.echoes.clone(),
        rules: Arc::clone(&source.rules),
        desk,
        telemetry: telemetry.source(&source.name),
        until: wanted.until.clone(),
    }
}

/// Reads and maps one source, and hands its events to `show`; stores nothing and releases nothing.
///
/// # Errors
/// The first failure.
pub async fn dry_run(
    config: &Config,
    source: &Source,
    wanted: &Wanted,
    stop: CancellationToken,
    show: impl FnMut(&Events) -> std::io::Result<()> + Send,
) -> Result<(), Failed> {
    let failed = |error| Failed { name: source.name.clone(), error };
    let telemetry = Telemetry::new();
    let run = async {
        // A slot would stay behind; a binary log knows nothing of who has read it.
        let engine = match &source.engine {
            EngineConfig::Postgres(settings) => EngineConfig::Postgres(settings.clone().passing()),
            EngineConfig::Mysql(settings) => EngineConfig::Mysql(settings.clone()),
        };
        with_connector!(&engine, connector => {
            let desk = Arc::new(Desk::new(source.backfill.clone(), Arc::clone(&source.private)));
            Box::pin(pipeline(config, source, wanted, desk, &telemetry, connector).dry_run(stop, show)).await
        })
    };
    Box::pin(run).await.map_err(failed)
}

/// Looks at one source's database.
///
/// # Errors
/// When it cannot be asked.
pub async fn check(source: &Source) -> Result<Vec<Finding>, SourceError> {
    let check = async {
        with_connector!(&source.engine, connector => {
            let mut findings = connector.check().await?;
            if !source.private.rules().is_empty() || !source.private.hides_nothing() {
                findings.extend(source.private.check(&connector.columns().await?));
            }
            if !source.rules.is_empty() {
                findings.extend(source.rules.check(&connector.columns().await?, &source.private));
            }
            Ok::<_, PipelineError>(findings)
        })
    };
    match Box::pin(check).await {
        Ok(findings) => Ok(findings),
        Err(PipelineError::Source(error)) => Err(error),
        Err(other) => Err(invalid(other)),
    }
}

/// The captured tables of one source as the catalogue tells them now, without what is hidden.
///
/// # Errors
/// When the database cannot be asked, or a rule does not fit a table.
pub async fn shapes(source: &Source) -> Result<Vec<Arc<Table>>, PipelineError> {
    let ask = async {
        with_connector!(&source.engine, connector => {
            let mut batch = Batch { tables: connector.shapes().await?, ..Batch::default() };
            // No value is mapped, so no subject needs a key.
            Private::new(Arc::clone(&source.private), Passing::default()).map(&mut batch).await?;
            Ok(batch.tables)
        })
    };
    Box::pin(ask).await
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> SourceError {
    SourceError {
        kind: SourceErrorKind::Invalid,
        code: "FV-1000",
        what: error.to_string(),
        hint: None,
        source: std::error::Error::source(&error).map(|told| told.to_string().into()),
    }
}
