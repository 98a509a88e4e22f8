//! `figvine status`: how the bridges are, over NATS.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::backfill::{grouped, one_line, size_of};
use super::line::Line;
use super::{CliError, Output, run};
use crate::config::Config;
use crate::control::{Told, status_subject};
use crate::telemetry::Figures;
use crate::wiring;

/// How often bridges are asked again.
const EVERY: Duration = Duration::from_secs(2);
/// Clears the screen and goes to its beginning (ECMA-48: ED 2, CUP).
const CLEAR: &str = "\x1b[2J\x1b[H";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Show it again and again, until interrupted.
    #[arg(long)]
    watch: bool,
}

pub(super) async fn status(config: &Config, args: &Args, output: Output) -> Result<(), CliError> {
    let name = args.source.as_deref();
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let mut lines = Vec::new();
    for source in chosen {
        lines.push(Line::open(config, source).await?);
    }
    if !args.watch {
        // One that does not answer does not hide the others.
        let (told, failed) = ask(&lines).await;
        print(&told, output)?;
        return failed.map_or(Ok(()), Err);
    }
    let stop = run::stop_on_signals()?;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let (told, failed) = ask(&lines).await;
        if output == Output::Text && std::io::stdout().is_terminal() {
            write!(std::io::stdout(), "{CLEAR}").map_err(CliError::output)?;
        }
        print(&told, output)?;
        if let Some(failed) = failed {
            writeln!(std::io::stderr(), "{}", failed.what()).map_err(CliError::output)?;
        }
    }
}

/// What each bridge tells, and the first that tells nothing.
async fn ask(lines: &[Line<'_>]) -> (Vec<Told>, Option<CliError>) {
    let (mut told, mut failed) = (Vec::new(), None);
    for line in lines {
        match line.ask(status_subject(&line.source.name), &()).await {
            Ok(one) => told.push(one),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    (told, failed)
}

fn print(told: &[Told], output: Output) -> Result<(), CliError> {
    match output {
        Output::Json => super::print(serde_json::json!({ "schema_version": 1, "sources": told })),
        Output::Text => told.iter().try_for_each(|told| super::print(shown(told))),
    }
}

/// A source in a few lines.
fn shown(told: &Told) -> String {
    let Told { status, backfills, .. } = told;
    let mut text = format!("{}  {}", status.source, status.phase);
    if let Some(reason) = &status.reason {
        text.push_str(&format!(": {reason}"));
    }
    if let Some(position) = &status.position {
        text.push_str(&format!("\n  position   {position}"));
    }
    let Figures { end_to_end_lag_seconds, publish_lag_seconds, retained_log_bytes, publish_inflight, .. } =
        status.figures;
    text.push_str(&format!("\n  lag        {end_to_end_lag_seconds:.3} s from commit to stored, of the newest"));
    let in_flight = u64::try_from(publish_inflight).unwrap_or_default();
    if in_flight > 0 {
        text.push_str(&format!(
            "\n  on the way {} events, the oldest for {publish_lag_seconds:.3} s",
            grouped(in_flight)
        ));
    }
    text.push_str(&format!(
        "\n  log        {} kept by the server because of us",
        size_of(u64::try_from(retained_log_bytes).unwrap_or_default())
    ));
    if let Some(free) = status.figures.log_safe_ratio {
        text.push_str(&format!(", {:.0} % of what it may keep is free", free * 100.0));
    }
    if status.figures.dead_letters > 0 {
        text.push_str(&format!(
            "\n  parked     {} messages of dead letters, see `figvine dlq list`",
            status.figures.dead_letters
        ));
    }
    for shown in backfills {
        text.push_str(&format!("\n  backfill   {}", one_line(shown)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Status;

    #[test]
    fn a_source_is_told_in_a_few_lines() {
        let figures = Figures {
            source_lag_seconds: 0.0,
            publish_lag_seconds: 1.5,
            end_to_end_lag_seconds: 0.25,
            retained_log_bytes: 3 << 20,
            log_safe_ratio: Some(0.5),
            publish_inflight: 1200,
            dead_letters: 2,
        };
        let status = Status {
            source: "shop".into(),
            phase: "waiting".into(),
            reason: Some("NATS is away".into()),
            position: Some("7/1/0/16B3748".into()),
            figures,
        };
        let told = Told { version: "1.0.0".into(), status, backfills: Vec::new() };
        let lines = [
            "shop  waiting: NATS is away",
            "  position   7/1/0/16B3748",
            "  lag        0.250 s from commit to stored, of the newest",
            "  on the way 1,200 events, the oldest for 1.500 s",
            "  log        3.0 MiB kept by the server because of us, 50 % of what it may keep is free",
            "  parked     2 messages of dead letters, see `figvine dlq list`",
        ];
        assert_eq!(shown(&told), lines.join("\n"));
    }
}
