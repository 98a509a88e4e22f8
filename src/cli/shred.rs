//! `figvine shred`

use async_nats::jetstream;
use jiff::Timestamp;

use super::{CliError, Output};
use crate::config::Config;
use crate::map::private::{KeyError, OTHER_SECRET};
use crate::stream::{Shredding, SubjectKeys};
use crate::wiring;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The subject: the value of the column that names it, as it would be published.
    subject: String,
    /// What kind of subject it is, as `encrypt.kind` says.
    #[arg(long, value_name = "KIND", default_value = "subject")]
    kind: String,
    /// Only in this source; by default in all that encrypt for subjects of this kind.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

pub(super) async fn shred(config: &Config, args: &Args, output: Output) -> Result<(), CliError> {
    let name = args.source.as_deref();
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let encrypting: Vec<_> = chosen.iter().filter(|source| source.private.kinds().contains(&&*args.kind)).collect();
    if encrypting.is_empty() {
        let mut kinds: Vec<_> = chosen.iter().flat_map(|source| source.private.kinds()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let what = format!("no column is encrypted for subjects of kind `{}`", args.kind);
        let hint = match kinds.as_slice() {
            [] => "No source has a rule with `encrypt`.".to_owned(),
            kinds => format!("Say `--kind` with one of: {}.", kinds.join(", ")),
        };
        return Err(CliError::new(2, "FV-4030", what).hint(hint));
    }
    let client = config.nats().client("figvine shred").await?;
    let context = jetstream::new(client);
    let at = Timestamp::now().to_string();
    let mut shredded = Vec::new();
    for source in encrypting {
        let Some(master) = source.private.master() else { continue };
        let subject = master.subject(&args.kind, &args.subject);
        let keys = SubjectKeys::open(&context, &source.stream, master).await.map_err(kept)?;
        let outcome = Box::pin(keys.shred(&subject, &at)).await.map_err(kept)?;
        let (word, words) = match outcome {
            Shredding::Done => ("shredded", "is shredded: what was published of it cannot be read any more"),
            Shredding::NoKey => ("no_key", "had no key, and will get none: nothing encrypted was published of it"),
            Shredding::Before => ("before", "was shredded before"),
        };
        if output == Output::Text {
            super::print(format_args!("{}: subject {} {words}", source.name, subject.as_str()))?;
        }
        shredded
            .push(serde_json::json!({ "source": source.name, "subject": subject.as_str(), "outcome": word, "at": at }));
    }
    match output {
        Output::Text => Ok(()),
        Output::Json => super::print(serde_json::json!({ "schema_version": 1, "shredded": shredded })),
    }
}

/// The store's failure.
pub(super) fn kept(error: KeyError) -> CliError {
    let is_transient = error.is_transient();
    let (exit_code, code) = if is_transient { (7, "FV-2209") } else { (3, "FV-3105") };
    let failed = CliError::new(exit_code, code, error.to_string());
    let failed = match is_transient {
        true => failed,
        false => failed.hint(OTHER_SECRET),
    };
    match error {
        KeyError::Store { source: Some(source), .. } => failed.because(source),
        _ => failed,
    }
}
