//! A backfill's way to its end, on the screen.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};

use super::{Line, grouped, length_of, one_line, whole};
use crate::backfill::book::{JobState, TaskState};
use crate::backfill::desk::Shown;
use crate::cli::{CliError, run};

/// How often the bridge is asked.
const EVERY: Duration = Duration::from_millis(500);
/// How often a line is written where no bar can be drawn.
const LINE_EVERY: u32 = 10;

/// Shows how far it is until it ends. Interrupted, it goes on in the bridge.
pub(super) async fn follow(line: &Line<'_>, id: &str) -> Result<(), CliError> {
    let stop = run::stop_on_signals()?;
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    let draws = std::io::stderr().is_terminal();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                bar.abandon();
                return super::super::print(format_args!("it goes on in the bridge: `figvine backfill show {id}` shows how far it is"));
            }
            _ = ticks.tick() => {}
        }
        let shown = match line.list(Some(id)).await {
            Ok(mut shown) => shown.pop(),
            // It was there: a server that is away comes back, and so does a bridge.
            Err(error) => {
                bar.set_message(format!("no answer, waiting: {}", error.what()));
                None
            }
        };
        let Some(shown) = shown else { continue };
        bar.set_length(shown.rows_expected);
        bar.set_position(shown.rows);
        bar.set_message(message(&shown));
        if !draws && asked % LINE_EVERY == 0 && shown.job.state == JobState::Running {
            writeln!(std::io::stderr(), "{}", one_line(&shown)).map_err(CliError::output)?;
        }
        asked += 1;
        match shown.job.state {
            JobState::Running | JobState::Paused => continue,
            JobState::Done => {
                bar.finish_and_clear();
                return super::super::print(format_args!("backfill {id} is done: {} rows", grouped(shown.rows)));
            }
            JobState::Cancelled => {
                bar.abandon();
                return Err(CliError::new(1, "FV-4026", format!("backfill {id} was cancelled")));
            }
            JobState::Failed => {
                bar.abandon();
                return Err(failed(&shown));
            }
        }
    }
}

fn message(shown: &Shown) -> String {
    let mut text = format!("{} of {} rows", grouped(shown.rows), grouped(shown.rows_expected));
    if shown.rows_per_s >= 1.0 {
        text.push_str(&format!("  {} rows/s", grouped(whole(shown.rows_per_s))));
    }
    if let Some(eta_s) = shown.eta_s {
        text.push_str(&format!("  ETA {}", length_of(eta_s)));
    }
    if let Some(waits) = &shown.waits {
        text.push_str(&format!("  waits: {waits}"));
    }
    text
}

fn failed(shown: &Shown) -> CliError {
    let id = &shown.job.id;
    let failed = shown.job.tables.iter().filter(|task| task.state == TaskState::Failed);
    let told: Vec<_> = failed
        .map(|task| format!("{}: {}", task.qualified_name(), task.reason.as_deref().unwrap_or("unknown")))
        .collect();
    CliError::new(1, "FV-4027", format!("backfill {id} failed: {}", told.join("; ")))
        .hint(format!("Mend it, then `figvine backfill resume {id}`."))
}
