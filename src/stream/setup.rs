//! Makes the stream, or takes over the one that is there.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Compression, Config, DiscardPolicy, RetentionPolicy, StorageType};

use super::Settings;

/// Metadata: the source that the stream belongs to.
pub(super) const SOURCE: &str = "figvine.source";
/// Metadata: the version that made the stream or changed it last.
const VERSION: &str = "figvine.version";
/// Metadata: the stream's own mark, given once. One made anew under the same name has another.
pub(super) const STREAM_ID: &str = "figvine.stream-id";

/// The shortest window that a server takes. Nothing is sent with an id, so there is nothing to remember.
pub(super) const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);

/// What stands ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// The stream's own mark.
    pub stream_id: Box<str>,
    /// Whether it was made just now.
    pub created: bool,
    /// The largest message that the server takes, headers included, in bytes.
    pub max_payload: usize,
}

/// The stream cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The server does not answer, or has no JetStream now. Try again.
    #[error("stream {stream}: jetstream does not answer")]
    Unreachable {
        /// Its name.
        stream: String,
        /// What we were told.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server refuses what we ask for.
    #[error("stream {stream}: the server refuses to {what} it")]
    Refused {
        /// Its name.
        stream: String,
        /// `create` or `change`.
        what: &'static str,
        /// What we were told.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It does not carry our mark.
    #[error("stream {stream} was not made by figvine")]
    Alien {
        /// Its name.
        stream: String,
    },
    /// It belongs to another source.
    #[error("stream {stream} belongs to source {owner}")]
    Taken {
        /// Its name.
        stream: String,
        /// That source.
        owner: String,
    },
    /// It is made in a way that cannot be used and cannot be changed.
    #[error("stream {stream} {what}")]
    Unfit {
        /// Its name.
        stream: String,
        /// What is wrong.
        what: String,
    },
}

impl StreamError {
    /// Whether trying again can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { .. } | Self::Alien { .. } | Self::Taken { .. } | Self::Unfit { .. } => false,
        }
    }

    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "FV-2201",
            Self::Refused { .. } => "FV-2204",
            Self::Alien { .. } => "FV-2205",
            Self::Taken { .. } => "FV-2206",
            Self::Unfit { .. } => "FV-2207",
        }
    }

    /// What to do; sentences.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "Start the nats server with JetStream, or look at its log.",
            Self::Refused { .. } => "Compare the settings of the stream with the limits of the nats account.",
            Self::Alien { .. } => "Give the source a stream of its own, or set `adopt: true` to take this one over.",
            Self::Taken { .. } => "Give each source a stream of its own.",
            Self::Unfit { .. } => {
                "Give the source a stream of its own, and derive others from it with mirrors and sources."
            }
        }
    }
}

/// Makes the stream, or brings the limits of the one that is there to what is configured.
///
/// # Errors
/// See [`StreamError`].
pub async fn ensure(context: &Context, settings: &Settings) -> Result<Setup, StreamError> {
    let name = &settings.name;
    let max_payload = context.client().server_info().max_payload;
    let ready = |config: &Config, created| {
        let stream_id = config.metadata.get(STREAM_ID).map(String::as_str).unwrap_or_default().into();
        Setup { stream_id, created, max_payload }
    };
    let found = Box::pin(context.get_stream(name)).await;
    let found = match found {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(e) => {
            return match e.kind() {
                GetStreamErrorKind::JetStream(told) if told.code() == 404 => {
                    let made = Box::pin(context.create_stream(made(settings))).await;
                    let made = made.map_err(|e| failed(name, "create", e))?;
                    Ok(ready(&made.cached_info().config, true))
                }
                GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
                    Err(StreamError::Unfit { stream: name.clone(), what: "is no name of a stream".into() })
                }
                GetStreamErrorKind::JetStream(_) | GetStreamErrorKind::Request => {
                    Err(StreamError::Unreachable { stream: name.clone(), source: Box::new(e) })
                }
            };
        }
    };
    let wanted = taken_over(&found, settings)?;
    if wanted == found {
        return Ok(ready(&found, false));
    }
    let info = Box::pin(context.update_stream(wanted)).await.map_err(|e| failed(name, "change", e))?;
    Ok(ready(&info.config, false))
}

/// What [`ensure`] would find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing: it would be made.
    Nothing,
    /// A stream that fits.
    Fit,
    /// A stream whose limits would be changed.
    Changes,
}

/// Looks, and changes nothing.
pub(super) async fn inspect(context: &Context, settings: &Settings) -> Result<Found, StreamError> {
    match Box::pin(context.get_stream(&settings.name)).await {
        Ok(stream) => {
            let found = &stream.cached_info().config;
            let wanted = taken_over(found, settings)?;
            Ok(if wanted == *found { Found::Fit } else { Found::Changes })
        }
        Err(e) => match e.kind() {
            GetStreamErrorKind::JetStream(told) if told.code() == 404 => Ok(Found::Nothing),
            _ => Err(StreamError::Unreachable { stream: settings.name.clone(), source: Box::new(e) }),
        },
    }
}

/// Whether an error says that nobody answered.
pub(super) fn is_away(error: &(dyn Error + 'static)) -> bool {
    // Only an error of JetStream's own is a refusal; the client library does not tell them apart by type alike.
    let told = error.source().map(ToString::to_string).unwrap_or_default() + &error.to_string();
    told.contains("timed out") || told.contains("no responders") || told.contains("request error")
}

fn failed(stream: &str, what: &'static str, error: impl Error + Send + Sync + 'static) -> StreamError {
    let is_away = is_away(&error);
    let source = Box::new(error);
    if is_away {
        StreamError::Unreachable { stream: stream.to_owned(), source }
    } else {
        StreamError::Refused { stream: stream.to_owned(), what, source }
    }
}

/// A stream as we make it.
fn made(settings: &Settings) -> Config {
    let metadata = HashMap::from([(STREAM_ID.to_owned(), nuid::next().to_string())]);
    let config = Config {
        name: settings.name.clone(),
        description: Some(format!("changes of source {}, written by figvine only", settings.source)),
        subjects: settings.subjects.clone(),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        // A full stream holds its writer up; it does not forget what nobody has read.
        discard: DiscardPolicy::New,
        deny_delete: false,
        deny_purge: false,
        allow_direct: true,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        metadata,
        ..Config::default()
    };
    limited(config, settings)
}

/// With the limits that can be changed at any time.
fn limited(mut config: Config, settings: &Settings) -> Config {
    config.num_replicas = settings.replicas;
    config.max_age = settings.max_age.unwrap_or_default();
    config.max_bytes = settings.max_bytes.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    config.compression = Some(if settings.compression { Compression::S2 } else { Compression::None });
    // It may not be longer than messages live.
    config.duplicate_window =
        if config.max_age.is_zero() { DUPLICATE_WINDOW } else { DUPLICATE_WINDOW.min(config.max_age) };
    config.metadata.insert(SOURCE.to_owned(), settings.source.clone());
    config.metadata.insert(VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    config
}

/// The subjects of a source's change events.
#[must_use]
pub fn change_subjects(source: &str) -> String {
    format!("cdc.{source}.>")
}

/// The subjects of its domain events.
#[must_use]
pub fn domain_subjects(source: &str) -> String {
    format!("events.{source}.>")
}

/// What a stream that is there is to become.
fn taken_over(found: &Config, settings: &Settings) -> Result<Config, StreamError> {
    let stream = || settings.name.clone();
    let unfit = |what: String| Err(StreamError::Unfit { stream: stream(), what });
    match found.metadata.get(SOURCE) {
        Some(owner) if *owner == settings.source => {}
        Some(owner) => return Err(StreamError::Taken { stream: stream(), owner: owner.clone() }),
        None if settings.adopt => {}
        None => return Err(StreamError::Alien { stream: stream() }),
    }
    if found.mirror.is_some() || found.sources.as_ref().is_some_and(|sources| !sources.is_empty()) {
        return unfit("is fed by another stream, so that its sequences are not ours alone".into());
    }
    if found.sealed {
        return unfit("is sealed".into());
    }
    if found.no_ack {
        return unfit("does not acknowledge what it stores".into());
    }
    if found.storage != StorageType::File {
        return unfit("keeps its messages in memory; that cannot be changed".into());
    }
    if found.retention != RetentionPolicy::Limits {
        return unfit("removes messages as they are consumed; that cannot be changed".into());
    }
    if found.subject_transform.is_some() {
        return unfit("renames the subjects of what it stores".into());
    }
    // Ours from another time are kept: what was told under them is still there.
    let is_ours =
        |subject: &String| settings.subjects.contains(subject) || *subject == domain_subjects(&settings.source);
    if !found.subjects.iter().all(is_ours) || !found.subjects.iter().any(|found| settings.subjects.contains(found)) {
        return unfit(format!(
            "takes the subjects {}, its source needs {}",
            found.subjects.join(" "),
            settings.subjects.join(" ")
        ));
    }
    let mut wanted = limited(found.clone(), settings);
    let added = settings.subjects.iter().filter(|subject| !found.subjects.contains(subject));
    wanted.subjects.extend(added.cloned());
    wanted.discard = DiscardPolicy::New;
    wanted.metadata.entry(STREAM_ID.to_owned()).or_insert_with(|| nuid::next().to_string());
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::super::OnLoss;
    use super::*;

    fn settings() -> Settings {
        Settings {
            name: "FIGVINE_SHOP".into(),
            source: "shop".into(),
            subjects: vec!["cdc.shop.>".into()],
            replicas: 1,
            max_age: None,
            max_bytes: None,
            compression: true,
            adopt: false,
            on_loss: OnLoss::Stop,
            ack_timeout: Duration::from_secs(2),
            window_messages: 4096,
            window_bytes: 32 << 20,
            release_delay: Duration::ZERO,
        }
    }

    #[test]
    fn a_stream_of_ours_is_taken_over_as_it_is() {
        let ours = made(&settings());
        assert_eq!(taken_over(&ours, &settings()).expect("ours"), ours);
    }

    #[test]
    fn changed_limits_are_applied_and_the_mark_stays() {
        let ours = made(&settings());
        let changed = Settings { max_age: Some(Duration::from_secs(60)), max_bytes: Some(1 << 30), ..settings() };
        let wanted = taken_over(&ours, &changed).expect("ours");
        assert_eq!((wanted.max_age, wanted.max_bytes), (Duration::from_secs(60), 1 << 30));
        assert_eq!(wanted.metadata.get(STREAM_ID), ours.metadata.get(STREAM_ID));
    }

    #[test]
    fn a_stream_without_our_mark_is_refused_unless_adopted() {
        let alien = Config { metadata: HashMap::new(), ..made(&settings()) };
        assert!(matches!(taken_over(&alien, &settings()), Err(StreamError::Alien { .. })));
        let wanted = taken_over(&alien, &Settings { adopt: true, ..settings() }).expect("adopted");
        assert!(wanted.metadata.contains_key(STREAM_ID));
        assert_eq!(wanted.metadata.get(SOURCE).map(String::as_str), Some("shop"));
    }

    #[test]
    fn a_stream_of_another_source_is_refused_even_when_adopting() {
        let theirs = made(&Settings { source: "other".into(), ..settings() });
        let error = taken_over(&theirs, &Settings { adopt: true, ..settings() }).expect_err("taken");
        assert_eq!(error.to_string(), "stream FIGVINE_SHOP belongs to source other");
    }

    #[test]
    fn what_cannot_be_changed_is_refused_in_words() {
        let ours = made(&settings());
        for unfit in [
            Config { storage: StorageType::Memory, ..ours.clone() },
            Config { retention: RetentionPolicy::WorkQueue, ..ours.clone() },
            Config { subjects: vec!["x".into()], ..ours.clone() },
            Config { mirror: Some(async_nats::jetstream::stream::Source::default()), ..ours.clone() },
            Config { sources: Some(vec![async_nats::jetstream::stream::Source::default()]), ..ours.clone() },
            Config { sealed: true, ..ours.clone() },
            Config { no_ack: true, ..ours.clone() },
        ] {
            assert!(matches!(taken_over(&unfit, &settings()), Err(StreamError::Unfit { .. })), "{unfit:?}");
        }
    }
}
