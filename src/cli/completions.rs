//! `figvine completions`

use clap::CommandFactory;
use clap_complete::Shell;

use super::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The shell.
    shell: Shell,
}

pub(super) fn completions(args: &Args) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Args::command(), "figvine", &mut script);
    super::print(String::from_utf8_lossy(&script))
}
