//! `figvine run`

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use figvine_change::Position;
use tokio::signal::unix::{Signal, SignalKind, signal};
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

pub(super) async fn run(path: &Path, args: &Args, output: Output) -> Result<(), CliError> {
    let mut config = super::load(path)?;
    let name = args.source.as_deref();
    let chosen = wiring::chosen(&config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let wanted = Wanted { source: args.source.clone(), until: args.until.clone().map(|goal| goal.0) };
    let stop = stop_on_signals()?;
    if args.dry_run {
        if chosen.len() > 1 && wanted.until.is_none() {
            return Err(CliError::new(2, "FV-4012", "a dry run without an end shows one source")
                .hint("Say `--source NAME`, or `--until now` to see all of them, one behind the other."));
        }
        for source in chosen {
            let show = |events: &Events| show(events, output);
            Box::pin(wiring::dry_run(&config, source, &wanted, stop.clone(), show)).await?;
        }
        return Ok(());
    }
    let telemetry = Arc::new(Telemetry::new());
    let mut endpoint = Endpoint::default();
    endpoint.serve(&config, &telemetry).await?;
    let mut reload = Reload::new(path)?;
    while let Some(next) = Box::pin(bridge(&config, &wanted, &telemetry, &stop, &mut reload)).await? {
        config = next;
        // What can be served already is not worth an end.
        if let Err(error) = endpoint.serve(&config, &telemetry).await {
            tracing::error!(code = error.code(), "health and metrics stay where they were: {}", error.what());
        }
    }
    Ok(())
}

/// Runs the bridge until it ends or `stop`, then under the configured deadline. Another configuration ends it too, and is
/// returned: nothing is lost, the next one goes on where the stream is.
async fn bridge(
    config: &Config,
    wanted: &Wanted,
    telemetry: &Arc<Telemetry>,
    stop: &CancellationToken,
    reload: &mut Reload<'_>,
) -> Result<Option<Config>, CliError> {
    let desks = wiring::desks(config, wanted);
    let mut control = tokio::task::JoinSet::new();
    control.spawn(service::serve(config.nats().clone(), desks.clone(), Arc::clone(telemetry)));
    let ours = stop.child_token();
    let running = wiring::run(config, wanted, &desks, telemetry, &ours);
    let mut running = std::pin::pin!(running);
    let next = tokio::select! {
        biased;
        ended = &mut running => return Ok(ended.map(|()| None)?),
        () = stop.cancelled() => None,
        next = reload.next(wanted) => Some(next),
    };
    ours.cancel();
    tracing::info!("stopping: what was read is being stored");
    match timeout(config.shutdown_timeout(), running).await {
        // A source that failed before has another chance, with another configuration.
        Ok(Err(failed)) if next.is_some() => tracing::error!(code = failed.error.code(), "{failed}"),
        Ok(ended) => ended?,
        Err(_) => {
            // Nothing is lost: the next run reads again what was not stored.
            tracing::warn!(
                timeout_s = config.shutdown_timeout().as_secs(),
                "stopped before all that was read was stored"
            );
        }
    }
    Ok(next)
}

/// Health, metrics and status over HTTP, where the configuration says. Ends with us, whichever way we end.
#[derive(Default)]
struct Endpoint {
    address: Option<SocketAddr>,
    server: tokio::task::JoinSet<()>,
}

impl Endpoint {
    async fn serve(&mut self, config: &Config, telemetry: &Arc<Telemetry>) -> Result<(), CliError> {
        let wanted = config.http().listen;
        if wanted == self.address {
            return Ok(());
        }
        let listener = match wanted {
            Some(address) => Some(http::listen(address).await?),
            None => None,
        };
        self.server.shutdown().await;
        self.address = wanted;
        if let Some((listener, address)) = listener.zip(wanted) {
            let served = http::serve(listener, Arc::clone(telemetry), std::future::pending());
            self.server.spawn(async move {
                if let Err(error) = served.await {
                    tracing::error!("{error}");
                }
            });
            tracing::info!(%address, "health, metrics and status");
        }
        Ok(())
    }
}

/// Reads the configuration again on SIGHUP.
struct Reload<'a> {
    path: &'a Path,
    hang_up: Signal,
}

impl<'a> Reload<'a> {
    fn new(path: &'a Path) -> Result<Self, CliError> {
        let hang_up = signal(SignalKind::hangup()).map_err(unheard)?;
        Ok(Self { path, hang_up })
    }

    /// The next configuration that holds. One that does not is told of, and changes nothing.
    async fn next(&mut self, wanted: &Wanted) -> Config {
        loop {
            if self.hang_up.recv().await.is_none() {
                return std::future::pending().await;
            }
            match super::load(self.path) {
                Ok(config) if wiring::chosen(&config, wanted.source.as_deref()).is_some() => {
                    tracing::info!("the configuration was read again: all sources begin anew where they are");
                    return config;
                }
                Ok(_) => tracing::error!("the configuration lacks the source that runs: it stays as it was"),
                Err(error) => {
                    tracing::error!(code = error.code(), "the configuration stays as it was: {}", error.what());
                }
            }
        }
    }
}

fn unheard(error: std::io::Error) -> CliError {
    CliError::new(1, "FV-4006", "signals cannot be heard").because(error)
}

/// A token that SIGINT or SIGTERM cancels. A second one changes nothing: the end has its deadline.
pub(super) fn stop_on_signals() -> Result<CancellationToken, CliError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
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
