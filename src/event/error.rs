//! Why a change has no event.

use std::sync::Arc;

use figvine_change::ValueError;

use super::identity::Identity;
use crate::schema::Refusal;

/// A change that has no event.
///
/// The identity is the event's `ce-id`; no error tells values of rows.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A value is none of its column's type.
    #[error("change {identity}: column {column} of table {table} holds a value that cannot be encoded")]
    Value {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// The column's name.
        column: Box<str>,
        /// What is wrong with it.
        source: ValueError,
    },
    /// The table has no key, and no setting names one.
    #[error("change {identity}: table {table} has no key")]
    NoKey {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
    },
    /// The log carried the value of a key's column neither in the row after nor in the row before.
    #[error("change {identity}: the log does not carry column {column} of the key of table {table}")]
    KeyNotCarried {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// The column's name.
        column: Box<str>,
    },
    /// The event is larger than the server takes.
    #[error("change {identity} of {table}: the event has {size} bytes, the limit is {limit}")]
    TooLarge {
        /// The change.
        identity: Identity,
        /// `schema.table`, or `a message`.
        table: Box<str>,
        /// Headers and body, in bytes.
        size: usize,
        /// The most that may be sent, in bytes.
        limit: usize,
    },
    /// The table has another shape, which its event type's schema may not follow.
    #[error("change {identity} of table {table}: {refusal}")]
    Drift {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// What breaks.
        refusal: Arc<Refusal>,
    },
    /// The batch contradicts itself: a connector's fault.
    #[error("change {identity}: malformed batch: {what}")]
    Malformed {
        /// The change.
        identity: Identity,
        /// What does not hold.
        what: &'static str,
    },
}

impl EncodeError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Drift { .. } => "FV-3301",
            _ => "FV-3101",
        }
    }

    /// What is wrong, in one word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Value { .. } => "value",
            Self::NoKey { .. } | Self::KeyNotCarried { .. } => "key",
            Self::TooLarge { .. } => "too_large",
            Self::Drift { .. } => "schema_drift",
            Self::Malformed { .. } => "malformed",
        }
    }

    /// The change that has no event.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        match self {
            Self::Value { identity, .. }
            | Self::NoKey { identity, .. }
            | Self::KeyNotCarried { identity, .. }
            | Self::TooLarge { identity, .. }
            | Self::Drift { identity, .. }
            | Self::Malformed { identity, .. } => identity,
        }
    }
}
