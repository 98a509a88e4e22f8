//! What logical messages (`pg_logical_emit_message`) mean, by their prefixes.

use crate::config::Config;
use crate::globs::{GlobError, Globs};

/// The prefix of the messages that we write ourselves.
pub(crate) const HEARTBEAT_PREFIX: &str = "figvine.heartbeat";

/// Prefixes that mean something.
#[derive(Debug, Clone)]
pub(crate) struct Prefixes {
    /// Of messages that are events.
    events: Globs,
    /// Of the message that says which trace a transaction came from.
    trace: Option<Box<str>>,
    /// Of messages that mark a transaction which is not to be told.
    ignored: Globs,
}

impl Prefixes {
    pub(crate) fn of(config: &Config) -> Result<Self, GlobError> {
        Self::new(&config.messages, config.trace_message.as_deref(), &config.ignore_messages)
    }

    pub(crate) fn new(events: &[String], trace: Option<&str>, ignored: &[String]) -> Result<Self, GlobError> {
        let (events, ignored) = (Globs::of_names(events)?, Globs::of_names(ignored)?);
        Ok(Self { events, trace: trace.map(Into::into), ignored })
    }

    pub(crate) fn is_event(&self, prefix: &[u8]) -> bool {
        is_one_of(&self.events, prefix)
    }

    pub(crate) fn is_trace(&self, prefix: &[u8]) -> bool {
        self.trace.as_ref().is_some_and(|trace| trace.as_bytes() == prefix)
    }

    pub(crate) fn is_mark(&self, prefix: &[u8]) -> bool {
        is_one_of(&self.ignored, prefix)
    }
}

fn is_one_of(globs: &Globs, prefix: &[u8]) -> bool {
    std::str::from_utf8(prefix).is_ok_and(|prefix| prefix != HEARTBEAT_PREFIX && globs.matches(prefix))
}
