//! `figvine run`

use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use figvine_change::Position;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{CliError, Output};
use crate::config::Config;
use crate::control as service;
use crate::event::Events;
use crate::http;
use crate::pipeline::Until;
use crate::stream::wire::Event;
use crate::telemetry::Telemetry;
use crate::wiring::{self, Wanted};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Drain up to a position, or to `now`, and exit.
    #[arg(long, value_name = "POSITION|now")]
    until: Option<Goal>,
    /// Read, map and print; store nothing and release nothing.
    #[arg(long)]
    dry_run: bool,
}

/// `--until`, as typed.
#[derive(Debug, Clone)]
struct Goal(Until);

impl FromStr for Goal {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "now" => Ok(Self(Until::Now)),
            _ => Position::parse(text)
                .map(|position| Self(Until::Position(position)))
                .ok_or("a position is what `figvine position show` prints, or `now`"),
        }
    }
}

pub(super) async fn run(config: &Config, args: &Args, output: Output) -> Result<(), CliError> {
    let name = args.source.as_deref();
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let wanted = Wanted { source: args.source.clone(), until: args.until.clone().map(|goal| goal.0) };
    let stop = stop_on_signals()?;
    if args.dry_run {
        if chosen.len() > 1 && wanted.until.is_none() {
            return Err(CliError::new(2, "FV-4012", "a dry run without an end shows one source")
                .hint("Say `--source NAME`, or `--until now` to see all of them, one behind the other."));
        }
        for source in chosen {
            let show = |events: &Events| show(events, output);
            Box::pin(wiring::dry_run(config, source, &wanted, stop.clone(), show)).await?;
        }
        return Ok(());
    }
    bridge(config, &wanted, stop).await
}

/// Runs the bridge until it ends or `stop`; then under the configured deadline.
pub(super) async fn bridge(config: &Config, wanted: &Wanted, stop: CancellationToken) -> Result<(), CliError> {
    let telemetry = Arc::new(Telemetry::new());
    // Ends with us, whichever way we end.
    let mut endpoint = tokio::task::JoinSet::new();
    if let Some(address) = config.http().listen {
        let listener = http::listen(address).await?;
        let served = stop.clone();
        endpoint.spawn(http::serve(listener, Arc::clone(&telemetry), async move { served.cancelled().await }));
        tracing::info!(%address, "health, metrics and status");
    }
    let desks = wiring::desks(config, wanted);
    let mut control = tokio::task::JoinSet::new();
    control.spawn(service::serve(config.nats().clone(), desks.clone()));
    let running = wiring::run(config, wanted, &desks, &telemetry, &stop);
    let mut running = std::pin::pin!(running);
    tokio::select! {
        biased;
        ended = &mut running => return Ok(ended?),
        () = stop.cancelled() => {}
    }
    tracing::info!("stopping: what was read is being stored");
    match timeout(config.shutdown_timeout(), running).await {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            // Nothing is lost: the next run reads again what was not stored.
            tracing::warn!(
                timeout_s = config.shutdown_timeout().as_secs(),
                "stopped before all that was read was stored"
            );
            Ok(())
        }
    }
}

/// A token that SIGINT or SIGTERM cancels. A second one changes nothing: the end has its deadline.
pub(super) fn stop_on_signals() -> Result<CancellationToken, CliError> {
    let failed = |error| CliError::new(1, "FV-4006", "signals cannot be heard").because(error);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let stop = CancellationToken::new();
    let heard = stop.clone();
    // Not in a JoinSet: it lives as long as the process, and holds nothing.
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        heard.cancel();
    });
    Ok(stop)
}

/// Prints events: subject and body, or one JSON object each.
fn show(events: &Events, output: Output) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for index in 0..events.list.len() {
        let Some(event) = Event::of(events, index) else { continue };
        let subject = String::from_utf8_lossy(event.subject);
        match output {
            Output::Text => {
                write!(out, "{subject} ")?;
                out.write_all(event.body)?;
            }
            Output::Json => {
                write!(out, r#"{{"schema_version":1,"subject":{},"data":"#, serde_json::Value::from(&*subject))?;
                out.write_all(event.body)?;
                out.write_all(b"}")?;
            }
        }
        out.write_all(b"\n")?;
    }
    out.flush()
}
