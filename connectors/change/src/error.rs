//! What can go wrong between a database and the bridge.

use std::error::Error;

/// A source's failure, with what to do about it.
///
/// `Display` tells what we know; what we were told by others is in `source()`.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SourceError {
    /// What it means for the bridge.
    pub kind: SourceErrorKind,
    /// A stable code, `FV-1203`.
    pub code: &'static str,
    /// What happened, naming the object; lowercase, without a full stop, without values of rows.
    pub what: String,
    /// What to do; sentences.
    pub hint: Option<String>,
    /// What we were told.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// The server cannot be reached, went away, or is starting up or shutting down.
    Unreachable,
    /// The server refuses us: authentication, permission, a setting.
    Refused,
    /// The log no longer holds the position, or is another log.
    PositionLost,
    /// Somebody else reads through our slot (or as our server id).
    Busy,
    /// One change cannot be decoded.
    Undecodable,
    /// The configuration asks for what cannot be.
    Invalid,
}

/// What a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// Try again, with a growing pause.
    Transient,
    /// One change is bad: the configured policy decides.
    Poison,
    /// Stop; the hint says what to do.
    Fatal,
}

impl SourceErrorKind {
    /// What it means. The only place that decides.
    #[must_use]
    pub fn consequence(self) -> Consequence {
        match self {
            Self::Unreachable | Self::Busy => Consequence::Transient,
            Self::Undecodable => Consequence::Poison,
            Self::Refused | Self::PositionLost | Self::Invalid => Consequence::Fatal,
        }
    }
}
