//! Events: what subscribers receive. Changes in, subject, headers and body out.

mod body;
mod cloudevents;
mod debezium;
mod domain;
mod encode;
mod envelope;
mod error;
mod frame;
mod identity;
mod letter;
mod number;
mod own;
mod plain;
mod read;
mod structured;
mod subject;
mod tables;
mod texts;
mod touch;

use std::num::NonZeroU16;
use std::sync::Arc;

use figvine_change::Position;
use figvine_change::debezium::Binary;

use crate::checkpoint::ReadMark;

pub(crate) use domain::MissingEvent;
pub use domain::{Derived, DomainEvent};
pub use encode::{Count, Encoded, Encoder};
pub use error::EncodeError;
pub(crate) use identity::write_key_text;
pub use identity::{Identity, partition};
pub(crate) use letter::{About, Content, Row as LetterRow};
pub use letter::{Letter, Parks};
pub(crate) use number::write_timestamp;
pub use read::{ReadOutcome, ReadPlace, Rows};
pub(crate) use subject::write_token;
pub use subject::{TemplateError, check_domain_template, check_template};
pub use touch::{RowId, Touch, Touched};

/// How one source's events look.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The source's name, `[A-Za-z0-9_-]+`.
    pub source: Box<str>,
    /// The envelope.
    pub format: Format,
    /// The subject of change events, a template: `cdc.{source}.{schema}.{table}.{partition}`.
    pub subject: String,
    /// The subject of domain events, a template: `events.{source}.{type}.{partition}`.
    pub domain_subject: String,
    /// Number of partitions that keys are spread over.
    pub partitions: NonZeroU16,
    /// The attribute `ce-source`, by default `/figvine/<source>`.
    pub ce_source: String,
    /// `source.name` in Debezium's envelope (its `topic.prefix`), by default the source's name.
    pub topic_prefix: Box<str>,
    /// How the content of messages is written in it.
    pub binary: Binary,
}

/// Envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// CloudEvents 1.0, binary mode: attributes are headers, the body is the change.
    CloudEvents,
    /// CloudEvents 1.0, structured mode: one JSON object.
    CloudEventsStructured,
    /// The change alone.
    Plain,
    /// Debezium's envelope.
    Debezium,
}

/// Encoded events, in order, in one buffer: what goes to the publisher.
///
/// An event stands as subject, headers (`Name: value\r\n` each, without the
/// leading `NATS/1.0\r\n` and the closing blank line) and body, one behind the other.
#[derive(Debug, Clone, Default)]
pub struct Events {
    /// The bytes of all events.
    pub bytes: Vec<u8>,
    /// Where each event stands.
    pub list: Vec<EventAt>,
    /// Where the source goes on once all of these, and all sent before, are
    /// stored. May stand alone, without events: progress of an idle source.
    pub end: Option<Position>,
    /// How far the tasks of the backfills are once all of these are stored; set with `end`, where that is news.
    pub reads: Option<Arc<[ReadMark]>>,
}

/// Where one event stands in [`Events::bytes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventAt {
    /// First byte of the subject.
    pub subject: u32,
    /// First byte of the headers.
    pub headers: u32,
    /// First byte of the body.
    pub body: u32,
    /// Behind the body.
    pub end: u32,
}
