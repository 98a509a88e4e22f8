//! `figvine dlq`: what could not be told.

use async_nats::jetstream;
use jiff::Timestamp;
use serde_json::json;
use serde_json::value::RawValue;

use super::{CliError, Output};
use crate::config::{Config, Source};
use crate::stream::{DeadLetters, KeptLetter, LetterError};
use crate::wiring;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List dead letters, oldest first.
    List {
        /// Only this source.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
    },
    /// Print dead letters whole: why, and what of the change could be read.
    Show {
        /// Its number as `list` tells it, or the id that the event in its place names.
        letter: String,
        /// The source, where several have a letter of that number.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
    },
    /// Remove dead letters for good; what stands in their place in the stream stays.
    Drop {
        /// Numbers or ids.
        #[arg(required_unless_present = "all")]
        letters: Vec<String>,
        /// The source, where several have a letter of that number.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
        /// Remove all.
        #[arg(long, conflicts_with = "letters")]
        all: bool,
    },
}

/// The letters of one source.
struct Of<'a> {
    source: &'a Source,
    letters: DeadLetters,
    kept: Vec<KeptLetter>,
}

pub(super) async fn dlq(config: &Config, command: &Command, output: Output) -> Result<(), CliError> {
    match command {
        Command::List { source } => list(&of_sources(config, source.as_deref()).await?, output),
        Command::Show { letter, source } => {
            let mut all = of_sources(config, source.as_deref()).await?;
            let (of, at) = found(&all, letter)?;
            let of = &mut all[of];
            let kept = &mut of.kept[at];
            of.letters.read(kept).await.map_err(failed)?;
            super::print(whole(&of.source.name, kept)?)
        }
        Command::Drop { letters, source, all } => {
            let mut of_all = of_sources(config, source.as_deref()).await?;
            let mut meant = Vec::new();
            for letter in letters {
                meant.push(found(&of_all, letter)?);
            }
            let mut dropped = Vec::new();
            for of in of_all.iter().filter(|_| *all) {
                of.letters.drop_all().await.map_err(failed)?;
                dropped.extend(of.kept.iter().map(|kept| told(of.source, kept)));
            }
            for (of, at) in meant {
                let of = &mut of_all[of];
                of.letters.drop(&of.kept[at]).await.map_err(failed)?;
                dropped.push(told(of.source, &of.kept[at]));
            }
            match output {
                Output::Json => super::print(json!({ "schema_version": 1, "dropped": dropped })),
                Output::Text => super::print(format_args!("{} dropped", dropped.len())),
            }
        }
    }
}

async fn of_sources<'a>(config: &'a Config, name: Option<&str>) -> Result<Vec<Of<'a>>, CliError> {
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let context = jetstream::new(config.nats().client("figvine dlq").await?);
    let mut all = Vec::new();
    for source in chosen {
        let letters = DeadLetters::new(context.clone(), source.letters.clone());
        let kept = Box::pin(letters.list()).await.map_err(failed)?;
        all.push(Of { source, letters, kept });
    }
    Ok(all)
}

fn failed(error: LetterError) -> CliError {
    let failed = CliError::new(7, error.code(), error.to_string()).hint(error.hint());
    match std::error::Error::source(&error) {
        Some(source) => failed.because(source.to_string()),
        None => failed,
    }
}

/// Where a letter is that was named by its number or its id.
fn found(all: &[Of<'_>], text: &str) -> Result<(usize, usize), CliError> {
    let number = text.parse::<u64>().ok();
    let is_meant = |kept: &KeptLetter| kept.id == text || Some(kept.sequence) == number;
    let mut places = all.iter().enumerate().flat_map(|(of, one)| {
        one.kept.iter().enumerate().filter(|(_, kept)| is_meant(kept)).map(move |(at, _)| (of, at))
    });
    match (places.next(), places.next()) {
        (Some(place), None) => Ok(place),
        (None, _) => Err(CliError::new(1, "FV-4060", format!("there is no dead letter `{text}`"))
            .hint("`figvine dlq list` names those that are.")),
        (Some(_), Some(_)) => Err(CliError::new(2, "FV-4061", format!("there are several dead letters `{text}`"))
            .hint("Say which by its number, and with --source where that is of several sources.")),
    }
}

fn told(source: &Source, kept: &KeptLetter) -> serde_json::Value {
    json!({ "source": source.name, "letter": kept.sequence, "id": kept.id })
}

fn kept_at(kept: &KeptLetter) -> String {
    Timestamp::from_second(kept.kept_at).map(|at| at.to_string()).unwrap_or_default()
}

fn list(all: &[Of<'_>], output: Output) -> Result<(), CliError> {
    let mut listed = Vec::new();
    for of in all {
        for kept in &of.kept {
            if output == Output::Text {
                super::print(format_args!(
                    "{}  {}  {}  {}  {}  {}  {}",
                    of.source.name,
                    kept.sequence,
                    kept_at(kept),
                    kept.code,
                    kept.reason,
                    kept.event_type,
                    kept.id
                ))?;
            }
            listed.push(json!({
                "source": of.source.name, "letter": kept.sequence, "kept_at": kept_at(kept), "code": kept.code,
                "reason": kept.reason, "type": kept.event_type, "id": kept.id,
            }));
        }
    }
    match output {
        Output::Json => super::print(json!({ "schema_version": 1, "dead_letters": listed })),
        Output::Text if listed.is_empty() => super::print("no dead letters"),
        Output::Text => Ok(()),
    }
}

/// One line, so that no digit of its numbers is lost.
fn whole(source: &str, kept: &KeptLetter) -> Result<String, CliError> {
    let unread = |error: serde_json::Error| {
        CliError::new(1, "FV-4062", format!("dead letter {} cannot be read", kept.sequence)).because(error)
    };
    let body: &RawValue = serde_json::from_slice(&kept.body).map_err(unread)?;
    let head = json!({ "source": source, "letter": kept.sequence, "kept_at": kept_at(kept) }).to_string();
    let members = |object: &str| object.trim_start_matches('{').trim_end_matches('}').to_owned();
    Ok(format!("{{{},{}", members(&head), body.get().trim_start_matches('{')))
}
