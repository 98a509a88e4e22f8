//! `figvine backfill`: spoken to a running bridge over NATS.

mod follow;

use async_nats::jetstream;
use serde::Serialize;

use super::line::Line;
use super::{CliError, Output};
use crate::backfill::desk::{Shown, shown};
use crate::backfill::{Shelf, StartRequest, Wish};
use crate::config::{self, Config, Source};
use crate::control::{Answer, Which, backfill_subject};
use crate::wiring;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Read the rows that tables hold now, while the stream goes on, and show how far that is.
    Start(Box<Start>),
    /// Show all backfills.
    List {
        /// Only this source.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
    },
    /// Show one backfill, table by table.
    Show(Named),
    /// Hold a backfill up.
    Pause(Named),
    /// Go on with a backfill that was held up, or whose tables failed.
    Resume(Named),
    /// Give a backfill up. What it published stays.
    Cancel(Named),
    /// Change a backfill while it runs.
    Set {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        limits: Limits,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct Start {
    /// The source; may be left out where there is one only.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Globs over schema.table, of captured tables; `!` takes away.
    #[arg(long, required = true, num_args = 1.., value_delimiter = ',', value_name = "GLOB")]
    tables: Vec<String>,
    /// Only rows for which this SQL expression holds.
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
    /// Only rows behind this key: its values with commas between, percent-encoded.
    #[arg(long, value_name = "KEY")]
    from: Option<String>,
    /// Only rows up to this key, and that itself.
    #[arg(long, value_name = "KEY")]
    to: Option<String>,
    #[command(flatten)]
    limits: Limits,
    /// To one consumer alone: publish to this subject instead of the source's stream.
    #[arg(long, value_name = "SUBJECT")]
    to_subject: Option<String>,
    /// Show the plan and begin nothing.
    #[arg(long)]
    dry_run: bool,
    /// Begin it and do not wait for its end.
    #[arg(long)]
    detach: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Limits {
    /// Rows a second; 0 is as fast as it goes.
    #[arg(long, value_name = "ROWS")]
    rate: Option<u32>,
    /// Bytes of events a second, as in `10MiB`; 0 is as fast as it goes.
    #[arg(long, value_name = "SIZE", value_parser = bytes_a_second)]
    bytes_rate: Option<u32>,
    /// Tables that are read at the same time.
    #[arg(long, value_name = "TABLES", value_parser = clap::value_parser!(u32).range(1..=32))]
    parallel: Option<u32>,
}

impl Limits {
    fn wish(&self) -> Wish {
        Wish { rows_per_s: self.rate, bytes_per_s: self.bytes_rate, parallel: self.parallel }
    }
}

fn bytes_a_second(text: &str) -> Result<u32, String> {
    // Digits alone are bytes, as for `--rate` they are rows.
    let size =
        text.parse().ok().or_else(|| config::bytes(text)).ok_or("a size is a number with a unit, as in `10MiB`")?;
    u32::try_from(size).map_err(|_| "4 GiB a second at most; 0 is as fast as it goes".to_owned())
}

#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// The backfill, as `list` names it.
    id: String,
    /// The source; may be left out where there is one only.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

pub(super) async fn backfill(config: &Config, command: &Command, output: Output) -> Result<(), CliError> {
    match command {
        Command::Start(args) => start(config, args, output).await,
        Command::List { source } => list(config, source.as_deref(), output).await,
        Command::Show(named) => {
            let source = one_source(config, named.source.as_deref())?;
            let line = Line::open(config, source).await?;
            let backfills = line.list(Some(&named.id)).await?;
            match output {
                Output::Json => super::print(listed(&backfills)),
                Output::Text => backfills.iter().try_for_each(print_tables),
            }
        }
        Command::Pause(named) => tell(config, named, "pause", Wish::default(), output).await,
        Command::Resume(named) => tell(config, named, "resume", Wish::default(), output).await,
        Command::Cancel(named) => tell(config, named, "cancel", Wish::default(), output).await,
        Command::Set { named, limits } => tell(config, named, "set", limits.wish(), output).await,
    }
}

/// The source that is meant.
fn one_source<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Source, CliError> {
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    match chosen.as_slice() {
        [source] => Ok(source),
        _ => Err(CliError::new(2, "FV-4020", "the configuration has several sources").hint("Say `--source NAME`.")),
    }
}

async fn start(config: &Config, args: &Start, output: Output) -> Result<(), CliError> {
    let source = one_source(config, args.source.as_deref())?;
    let line = Line::open(config, source).await?;
    let request = StartRequest {
        tables: args.tables.clone(),
        condition: args.condition.clone(),
        from: args.from.clone(),
        to: args.to.clone(),
        wish: args.limits.wish(),
        to_subject: args.to_subject.clone(),
    };
    let answer = line.tell(if args.dry_run { "plan" } else { "start" }, &request).await?;
    if output == Output::Json {
        return super::print(json(&answer));
    }
    if args.dry_run {
        return answer.backfills.iter().try_for_each(print_plan);
    }
    let Some(id) = answer.id else { return Ok(()) };
    super::print(format_args!("backfill {id} of source {} begun", source.name))?;
    if args.detach {
        return Ok(());
    }
    follow::follow(&line, &id).await
}

async fn tell(config: &Config, named: &Named, verb: &str, wish: Wish, output: Output) -> Result<(), CliError> {
    let source = one_source(config, named.source.as_deref())?;
    let line = Line::open(config, source).await?;
    let answer = line.tell(verb, &Which { id: Some(named.id.clone()), wish }).await?;
    match output {
        Output::Json => super::print(json(&answer)),
        Output::Text => answer.backfills.iter().try_for_each(|shown| super::print(one_line(shown))),
    }
}

async fn list(config: &Config, name: Option<&str>, output: Output) -> Result<(), CliError> {
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let mut all = Vec::new();
    for source in chosen {
        let line = Line::open(config, source).await?;
        all.extend(line.list(None).await?);
    }
    match output {
        Output::Json => super::print(listed(&all)),
        Output::Text if all.is_empty() => super::print("no backfills"),
        Output::Text => all.iter().try_for_each(|shown| super::print(one_line(shown))),
    }
}

fn json(value: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(value).unwrap_or_default()
}

fn listed(backfills: &[Shown]) -> serde_json::Value {
    serde_json::json!({ "schema_version": 1, "backfills": backfills })
}

impl Line<'_> {
    async fn tell(&self, verb: &str, request: &impl Serialize) -> Result<Answer, CliError> {
        self.ask(backfill_subject(&self.source.name, verb), request).await
    }

    /// Backfills as the bridge tells them; where none runs, as they were kept.
    async fn list(&self, id: Option<&str>) -> Result<Vec<Shown>, CliError> {
        match self.tell("list", &Which { id: id.map(str::to_owned), wish: Wish::default() }).await {
            Ok(answer) => Ok(answer.backfills),
            Err(error) if error.code() == "FV-4022" => self.kept(id).await,
            Err(error) => Err(error),
        }
    }

    async fn kept(&self, id: Option<&str>) -> Result<Vec<Shown>, CliError> {
        let failed = |error: crate::backfill::ShelfError| {
            CliError::new(7, "FV-2208", error.to_string()).because(error.source.unwrap_or_else(|| "".into()))
        };
        let context = jetstream::new(self.client.clone());
        let shelf = Box::pin(Shelf::open(&context, &self.source.stream)).await.map_err(failed)?;
        let book = shelf.read().await.map_err(failed)?;
        let jobs: Vec<_> = book.jobs.iter().filter(|job| id.is_none_or(|id| *job.id == *id)).collect();
        match id {
            Some(id) if jobs.is_empty() => Err(CliError::new(2, "FV-4024", format!("there is no backfill {id}"))),
            _ => Ok(jobs.into_iter().map(|job| shown(job, |_| Some((Some("no bridge runs".into()), 0.0)))).collect()),
        }
    }
}

/// `k3v9qa  running  orders  412,000 of 1,000,000 rows (41 %)  20,031 rows/s  29 s left  waits: the rate that is set`
pub(super) fn one_line(shown: &Shown) -> String {
    let tables: Vec<_> = shown.job.tables.iter().map(crate::backfill::book::Task::qualified_name).collect();
    let tables = match tables.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    };
    let mut line = format!(
        "{}  {:<9}  {tables}  {} of {} rows ({:.0} %)",
        shown.job.id,
        shown.job.state.as_str(),
        grouped(shown.rows),
        grouped(shown.rows_expected),
        shown.share * 100.0,
    );
    if shown.rows_per_s >= 1.0 {
        line.push_str(&format!("  {} rows/s", grouped(whole(shown.rows_per_s))));
    }
    if let Some(eta_s) = shown.eta_s {
        line.push_str(&format!("  {} left", length_of(eta_s)));
    }
    if let Some(waits) = &shown.waits {
        line.push_str(&format!("  waits: {waits}"));
    }
    line
}

fn print_tables(shown: &Shown) -> Result<(), CliError> {
    super::print(one_line(shown))?;
    for task in &shown.job.tables {
        let state = json(&task.state);
        let state = state.as_str().unwrap_or_default();
        let at = task.cursor.as_deref().map(|cursor| format!("  up to {cursor}")).unwrap_or_default();
        let reason = task.reason.as_deref().map(|reason| format!("  {reason}")).unwrap_or_default();
        let (rows, expected) = (grouped(task.rows), grouped(task.rows_expected.max(task.rows)));
        super::print(format_args!("  {:<40} {state:<8} {rows} of {expected} rows{at}{reason}", task.qualified_name()))?;
    }
    Ok(())
}

fn print_plan(shown: &Shown) -> Result<(), CliError> {
    let settings = &shown.job.settings;
    for task in &shown.job.tables {
        let (rows, bytes) = (task.rows_expected, task.bytes_expected);
        super::print(format_args!(
            "{:<40} about {} rows, {}, {} chunks",
            task.qualified_name(),
            grouped(rows),
            size_of(bytes),
            grouped(crate::backfill::chunks_of(rows, bytes)),
        ))?;
    }
    let time = match settings.rows_per_s {
        Some(rate) => {
            format!("{} at {} rows/s", length_of(shown.rows_expected / u64::from(rate.max(1))), grouped(rate.into()))
        }
        None => "as fast as the source, the stream and the load allow".to_owned(),
    };
    super::print(format_args!("{} rows in all: {time}; nothing was begun", grouped(shown.rows_expected)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate, shown")]
fn whole(rate: f64) -> u64 {
    rate.max(0.0) as u64
}

/// `1,000,000`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 h 5 min`
fn length_of(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `1.5 GiB`
pub(super) fn size_of(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let mut size = bytes as f64;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{size:.0} {unit}") } else { format!("{size:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_for_people() {
        assert_eq!([grouped(0), grouped(999), grouped(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!([length_of(59), length_of(600), length_of(7260)], ["59 s", "10 min", "2 h 1 min"]);
        assert_eq!([size_of(12), size_of(1536), size_of(3 << 30)], ["12 B", "1.5 KiB", "3.0 GiB"]);
    }
}
