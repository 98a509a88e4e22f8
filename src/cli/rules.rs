//! `figvine rules`

mod explain;
mod recorded;
mod test;

use super::{CliError, Output};
use crate::config::{Config, Source};
use crate::wiring;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Try the rules: transactions of a file in, and whether the events come out that it says. Needs no server.
    Test(test::Args),
    /// Show what the rules do with a transaction that the stream holds: of each change which rule matched, or why not.
    Explain(explain::Args),
}

pub(super) async fn rules(config: &Config, command: &Command, output: Output) -> Result<(), CliError> {
    match command {
        Command::Test(args) => test::test(config, args, output),
        Command::Explain(args) => Box::pin(explain::explain(config, args, output)).await,
    }
}

/// The source whose rules are meant: that of a name, else the only one that has any.
fn source<'a>(config: &'a Config, name: Option<&str>) -> Result<&'a Source, CliError> {
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let with_rules: Vec<&Source> = chosen.into_iter().filter(|source| !source.rules.is_empty()).collect();
    match with_rules.as_slice() {
        [source] => Ok(source),
        [] => Err(CliError::new(1, "FV-4040", "the configuration has no rules")
            .hint("They stand under `rules` of a source, or in files under `rule_files`.")),
        [..] => {
            let names: Vec<&str> = with_rules.iter().map(|source| source.name.as_str()).collect();
            Err(CliError::new(2, "FV-4041", format!("several sources have rules: {}", names.join(", ")))
                .hint("Say which with `--source`."))
        }
    }
}
