//! What can end a session, and what it means.

use figvine_change::{Consequence, SourceError, SourceErrorKind};

use crate::backfill::ShelfError;
use crate::event::{EncodeError, TemplateError};
use crate::map::private::PrivateError;
use crate::map::rules::RuleError;
use crate::nats::NatsError;
use crate::stream::keeper::KeepError;
use crate::stream::{BrokerError, ChainError, LetterError, RegistryError, StreamError};

/// A session's end that nobody asked for.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The database.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The way to NATS.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The stream.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// The stream's tail.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The checkpoint beside the stream.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// What is backfilled.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The schemas of event types.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// What is parked.
    #[error(transparent)]
    Letter(#[from] LetterError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// What is to be hidden and cannot be.
    #[error(transparent)]
    Private(#[from] PrivateError),
    /// A change that rules cannot be applied to.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A rule's events are not what their major version promises.
    #[error("the data of event type {event_type} breaks the schema of its major version: {what}")]
    EventDrift {
        /// The type.
        event_type: String,
        /// What breaks.
        what: String,
    },
    /// A change that has no event.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The stream and its checkpoint are gone together.
    #[error("stream {stream} is empty and has no checkpoint, while its source was read before")]
    Wiped {
        /// The stream's name.
        stream: String,
    },
    /// The template of the subjects.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The server's messages are too small for any event.
    #[error("the nats server takes messages of {max_payload} bytes at most: no event fits")]
    NoRoom {
        /// `max_payload` of the server.
        max_payload: usize,
    },
    /// Showing an event failed.
    #[error("an event cannot be shown")]
    Show(#[source] std::io::Error),
    /// A stage panicked.
    #[error("a stage of the pipeline failed")]
    Stage(#[source] tokio::task::JoinError),
}

impl PipelineError {
    /// What it means. The only place that decides for a pipeline.
    #[must_use]
    pub fn consequence(&self) -> Consequence {
        let transient_if = |transient: bool| if transient { Consequence::Transient } else { Consequence::Fatal };
        match self {
            Self::Source(error) => error.kind.consequence(),
            Self::Nats(error) => transient_if(error.kind.is_transient()),
            Self::Stream(error) => transient_if(error.is_transient()),
            Self::Broker(BrokerError::Away { .. } | BrokerError::NoStream)
            | Self::Keep(_)
            | Self::Shelf(_)
            | Self::Registry(_) => Consequence::Transient,
            Self::Letter(error) => transient_if(error.is_transient()),
            Self::Private(error) => transient_if(error.is_transient()),
            Self::Broker(BrokerError::Refused { .. }) => Consequence::Fatal,
            Self::EventDrift { .. } | Self::Encode(EncodeError::Drift { .. }) => Consequence::Fatal,
            // Room for it may come.
            Self::Rule(RuleError::Spill { .. }) => Consequence::Transient,
            Self::Rule(_) | Self::Encode(_) => Consequence::Poison,
            Self::Chain(_)
            | Self::Wiped { .. }
            | Self::Template(_)
            | Self::NoRoom { .. }
            | Self::Show(_)
            | Self::Stage(_) => Consequence::Fatal,
        }
    }

    /// The exit code, by the contract of the commands.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Source(error) => match error.kind {
                SourceErrorKind::Unreachable | SourceErrorKind::Refused => 6,
                SourceErrorKind::PositionLost => 8,
                SourceErrorKind::Busy => 9,
                SourceErrorKind::Invalid => 3,
                SourceErrorKind::Undecodable => 1,
            },
            Self::Nats(_) | Self::Stream(_) | Self::Broker(_) | Self::Keep(_) | Self::Shelf(_) => 7,
            Self::Registry(_) | Self::Letter(_) => 7,
            Self::Chain(error) => match error {
                ChainError::StreamLost { .. } | ChainError::LostAcknowledged { .. } | ChainError::TailGone { .. } => 8,
                ChainError::Fenced { .. } | ChainError::Late { .. } | ChainError::Displaced { .. } => 9,
                ChainError::Alien { .. } | ChainError::Refused { .. } => 7,
                ChainError::TooLarge { .. } => 1,
            },
            Self::Private(error) if error.is_transient() => 7,
            Self::Private(PrivateError::Malformed(_)) => 1,
            Self::Private(_) => 3,
            Self::EventDrift { .. } | Self::Rule(RuleError::Plan(_)) => 3,
            Self::Wiped { .. } => 8,
            Self::Template(_) => 3,
            Self::NoRoom { .. } => 7,
            Self::Rule(_) | Self::Encode(_) | Self::Show(_) | Self::Stage(_) => 1,
        }
    }

    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Source(error) => error.code,
            Self::Nats(_) => "FV-2101",
            Self::Stream(error) => error.code(),
            Self::Broker(_) => "FV-2202",
            Self::Keep(_) => "FV-2203",
            Self::Shelf(_) => "FV-2208",
            Self::Registry(_) => "FV-2212",
            Self::Letter(error) => error.code(),
            Self::Chain(error) => match error {
                ChainError::StreamLost { .. } => "FV-2301",
                ChainError::LostAcknowledged { .. } => "FV-2302",
                ChainError::TailGone { .. } => "FV-2303",
                ChainError::Alien { .. } => "FV-2304",
                ChainError::Fenced { .. } => "FV-2305",
                ChainError::Refused { .. } => "FV-2306",
                ChainError::TooLarge { .. } => "FV-2307",
                ChainError::Displaced { .. } => "FV-2308",
                ChainError::Late { .. } => "FV-2310",
            },
            Self::Wiped { .. } => "FV-2309",
            Self::Private(error) => error.code(),
            Self::Rule(error) => error.code(),
            Self::EventDrift { .. } => "FV-3302",
            Self::Encode(error) => error.code(),
            Self::Template(_) => "FV-3102",
            Self::NoRoom { .. } => "FV-2102",
            Self::Show(_) => "FV-3103",
            Self::Stage(_) => "FV-3199",
        }
    }

    /// What to do; sentences.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Source(error) => error.hint.clone(),
            Self::Nats(_) => Some("Check `nats.url`, and that the server runs.".into()),
            Self::Stream(error) => Some(error.hint().into()),
            Self::Broker(_) | Self::Keep(_) | Self::Shelf(_) | Self::Registry(_) => Some("Look at the nats server's log.".into()),
            Self::Letter(error) => Some(error.hint().into()),
            Self::Chain(error) => Some(error.hint().into()),
            Self::Private(error) => Some(error.hint().into()),
            Self::Rule(error) => Some(error.hint().into()),
            Self::EventDrift { .. } => {
                Some("Raise `version` of the rule, so that consumers can tell, or set `schemas.on_drift: degrade`.".into())
            }
            Self::Encode(EncodeError::TooLarge { .. }) => Some(
                "Raise `max_payload` of the nats server, or say `on_poison: park`. Nothing was skipped: the source's log is kept from there."
                    .into(),
            ),
            Self::Encode(EncodeError::Drift { .. }) => Some(
                "Nothing was skipped: the source's log is kept from there. Once its consumers are ready for a new major version, \
                 say `schemas.on_drift: degrade` and start again; see docs/schemas.md."
                    .into(),
            ),
            Self::Encode(EncodeError::NoKey { .. }) => {
                Some("Give the table a primary key, or say `keyless: whole_row`.".into())
            }
            Self::Encode(EncodeError::Malformed { .. }) => Some("Nothing was skipped: the source's log is kept from there. It is a fault of ours: please tell us.".into()),
            Self::Encode(_) => Some("Nothing was skipped: the source's log is kept from there. `on_poison: park` keeps such changes as dead letters and goes on.".into()),
            Self::Wiped { .. } => Some(
                "What the database released meanwhile is in no stream. To begin anew, drop the source's slot; to go on with \
                 what the database still holds, set `on_stream_loss: reread`."
                    .into(),
            ),
            Self::NoRoom { .. } => Some("Raise `max_payload` of the nats server.".into()),
            Self::Template(_) | Self::Show(_) | Self::Stage(_) => None,
        }
    }
}
