//! `figvine man`

use std::path::PathBuf;

use clap::CommandFactory;

use super::CliError;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Write a page for each command into this folder instead.
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

pub(super) fn man(args: &Args) -> Result<(), CliError> {
    let command = super::Args::command();
    if let Some(folder) = &args.into {
        return clap_mangen::generate_to(command, folder).map_err(CliError::output);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(CliError::output)?;
    super::print(String::from_utf8_lossy(&page))
}
