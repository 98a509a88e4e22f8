//! The command line: arguments as typed, one file per command, errors as people and programs read them.

mod backfill;
mod check;
mod completions;
mod demo;
mod dlq;
mod error;
mod line;
mod logs;
mod man;
mod position;
mod render;
mod rules;
mod run;
mod schema;
mod shred;
mod status;
mod tail;
mod unseal;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::{self, Config};

pub use error::CliError;

/// Change data capture from PostgreSQL, MySQL and MariaDB into NATS JetStream: in order, each change exactly once.
#[derive(Debug, Parser)]
#[command(name = "figvine", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Args {
    /// The configuration.
    #[arg(short, long, global = true, value_name = "FILE", default_value = "figvine.yaml", env = "FIGVINE_CONFIG")]
    config: PathBuf,
    /// How results are written to stdout.
    #[arg(long, global = true, value_name = "FORM", default_value = "text")]
    output: Output,
    /// How logs are written to stderr.
    #[arg(long, global = true, value_name = "FORM", default_value = "text", env = "FIGVINE_LOG")]
    log: Output,
    /// More in the logs; twice for all.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: JSON, with a `schema_version`.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Verify that everything is in place, changing nothing; print what is not, and the SQL that mends it.
    Check(check::Args),
    /// Run the bridge.
    Run(run::Args),
    /// Show events as they are stored, from the stream.
    Tail(Box<tail::Args>),
    /// See it at work: a busy shop on a throwaway database, a throwaway NATS, and the bridge; leaves nothing behind.
    Demo(demo::Args),
    /// Show how running bridges are: phase, lag, retained log, backfills.
    Status(status::Args),
    /// Read the rows that are there already, while the stream goes on.
    #[command(subcommand)]
    Backfill(backfill::Command),
    /// Try the rules that make domain events, and see why a transaction gave those that it gave.
    #[command(subcommand)]
    Rules(rules::Command),
    /// Show, and remove, what could not be told and was parked.
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Show or set where a source goes on.
    #[command(subcommand)]
    Position(position::Command),
    /// Show the schemas of event types, and what a change of a table would break.
    #[command(subcommand)]
    Schema(schema::Command),
    /// Destroy the key of a subject: all that was published of it encrypted can never be read again.
    Shred(shred::Args),
    /// Open encrypted values, with the keys of their subjects.
    Unseal(unseal::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Print the manual page, or write the pages of all commands into a folder.
    Man(man::Args),
}

/// Runs a command.
///
/// # Errors
/// What ended it, with its exit code.
pub async fn run(args: Args) -> Result<(), CliError> {
    let Args { config, output, log, verbose, command } = args;
    // The demo's screen is its events.
    logs::begin(log, verbose, matches!(command, Command::Demo(_)));
    match command {
        Command::Check(args) => check::check(&load(&config)?, &args, output).await,
        Command::Run(args) => Box::pin(run::run(&config, &args, output)).await,
        Command::Tail(args) => tail::tail(&load(&config)?, &args, output).await,
        Command::Demo(args) => demo::demo(&args, output).await,
        Command::Status(args) => status::status(&load(&config)?, &args, output).await,
        Command::Backfill(command) => backfill::backfill(&load(&config)?, &command, output).await,
        Command::Rules(command) => rules::rules(&load(&config)?, &command, output).await,
        Command::Dlq(command) => Box::pin(dlq::dlq(&load(&config)?, &command, output)).await,
        Command::Position(command) => position::position(&load(&config)?, &command, output).await,
        Command::Schema(command) => Box::pin(schema::schema(&load(&config)?, &command, output)).await,
        Command::Shred(args) => Box::pin(shred::shred(&load(&config)?, &args, output)).await,
        Command::Unseal(args) => Box::pin(unseal::unseal(&load(&config)?, &args)).await,
        Command::Completions(args) => completions::completions(&args),
        Command::Man(args) => man::man(&args),
    }
}

impl Args {
    /// The form in which the command's end is told.
    #[must_use]
    pub fn output(&self) -> Output {
        self.output
    }
}

fn load(path: &std::path::Path) -> Result<Config, CliError> {
    // A variable that is not UTF-8 cannot be meant by a YAML file.
    let vars: BTreeMap<String, String> =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    Ok(config::load(path, &vars)?)
}

/// Writes a line, or more, to stdout.
fn print(text: impl std::fmt::Display) -> Result<(), CliError> {
    use std::io::Write;
    writeln!(std::io::stdout().lock(), "{text}").map_err(CliError::output)
}
