//! `figvine position`

use async_nats::jetstream;
use figvine_change::Position;

use super::{CliError, Output};
use crate::config::{Config, Source};
use crate::stream::keeper::{KeepError, Keeper, Key};
use crate::stream::{Broker, BrokerError, JetStream, Mark};
use crate::wiring;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Show how far each stream is, and where its source goes on.
    Show {
        /// Only this source.
        #[arg(long, value_name = "NAME")]
        source: Option<String>,
    },
    /// Say where a source goes on at its next start. What lies between is skipped, or comes again.
    Set {
        /// The source.
        #[arg(long, value_name = "NAME")]
        source: String,
        /// The position, as `show` prints it; `none` forgets everything, for a stream that is begun anew.
        position: String,
        /// Do it: the promise that each change stands in the stream once ends here.
        #[arg(long)]
        force: bool,
    },
}

pub(super) async fn position(config: &Config, command: &Command, output: Output) -> Result<(), CliError> {
    match command {
        Command::Show { source } => show(config, source.as_deref(), output).await,
        Command::Set { source, position, force } => {
            let chosen = wiring::chosen(config, Some(source)).ok_or_else(|| CliError::no_such_source(source))?;
            for chosen in chosen {
                Box::pin(set(config, chosen, position, *force)).await?;
            }
            Ok(())
        }
    }
}

async fn show(config: &Config, name: Option<&str>, output: Output) -> Result<(), CliError> {
    let chosen = wiring::chosen(config, name).ok_or_else(|| CliError::no_such_source(name.unwrap_or_default()))?;
    let mut shown = Vec::new();
    for source in chosen {
        let seen = Box::pin(look(config, source)).await?;
        let told = match &seen.tail {
            Some(tail) => match &tail.last {
                Mark::Checkpoint(checkpoint) => Some(checkpoint.position.to_string()),
                Mark::Missing | Mark::Foreign => None,
            },
            None => None,
        };
        shown.push(serde_json::json!({
            "source": source.name,
            "stream": source.stream.name,
            "exists": seen.tail.is_some(),
            "sequence": seen.tail.as_ref().map(|tail| tail.last_seq),
            "position": told,
            "kept_sequence": seen.kept.as_ref().map(|kept| kept.sequence),
            "kept_position": seen.kept.as_ref().map(|kept| kept.position.to_string()),
        }));
    }
    if output == Output::Json {
        return super::print(serde_json::json!({ "schema_version": 1, "positions": shown }));
    }
    let word = |value: &serde_json::Value| match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    for one in shown {
        super::print(format_args!("{}  stream {}", word(&one["source"]), word(&one["stream"])))?;
        super::print(format_args!("  tail        message {}  {}", word(&one["sequence"]), word(&one["position"])))?;
        super::print(format_args!(
            "  checkpoint  message {}  {}",
            word(&one["kept_sequence"]),
            word(&one["kept_position"])
        ))?;
    }
    Ok(())
}

struct Seen {
    tail: Option<crate::stream::Tail>,
    kept: Option<crate::stream::Kept>,
    keeper: Keeper<Key>,
}

async fn look(config: &Config, source: &Source) -> Result<Seen, CliError> {
    let client = config.nats().client("figvine position").await?;
    let context = jetstream::new(client);
    let key = Key::open(&context, &source.stream).await.map_err(kept)?;
    let mut broker = JetStream::new(config.nats().clone(), context, source.stream.name.as_str());
    let tail = match broker.tail().await {
        Ok(tail) => Some(tail),
        Err(BrokerError::NoStream) => None,
        Err(error) => return Err(CliError::new(7, "FV-2202", error.to_string())),
    };
    let stream_id = tail.as_ref().and_then(|tail| tail.stream_id.clone()).unwrap_or_default();
    let mut keeper = Keeper::new(key, &source.stream, stream_id);
    let kept = keeper.read().await.map_err(kept)?;
    Ok(Seen { tail, kept, keeper })
}

async fn set(config: &Config, source: &Source, text: &str, force: bool) -> Result<(), CliError> {
    let position = match text {
        "none" => None,
        _ => Some(Position::parse(text).ok_or_else(|| {
            CliError::new(2, "FV-4007", format!("`{text}` is no position"))
                .hint("A position is what `figvine position show` prints.")
        })?),
    };
    let Seen { tail, mut keeper, .. } = look(config, source).await?;
    let name = &source.stream.name;
    if tail.is_none() && position.is_some() {
        return Err(CliError::new(1, "FV-4009", format!("stream {name} does not exist: nothing can go on behind it"))
            .hint("Start the bridge once, or say `none` to forget what was kept of it."));
    }
    let last_seq = tail.map_or(0, |tail| tail.last_seq);
    if !force {
        let consequence = match position {
            None => "everything known of it would be forgotten",
            Some(_) => "what lies between would be skipped, or stored again",
        };
        return Err(CliError::new(1, "FV-4008", format!("stream {name} ends at message {last_seq}: {consequence}"))
            .hint("Stop the bridge, then say `--force`."));
    }
    match position {
        None => keeper.forget().await.map_err(kept)?,
        Some(position) => keeper.set(last_seq, &position).await.map_err(kept)?,
    }
    super::print(format_args!("{}: goes on from {text} at its next start", source.name))
}

fn kept(error: KeepError) -> CliError {
    let failed = CliError::new(7, "FV-2203", error.to_string());
    match error.source {
        Some(source) => failed.because(source),
        None => failed,
    }
}
