//! What the envelopes have in common: CloudEvents attributes are the same list
//! in both content modes, only dressed differently.

use super::Format;
use super::{cloudevents, debezium, plain, structured};

/// A format: which headers an event has and what stands around its body.
pub(super) struct Envelope {
    /// Header lines that every event has.
    pub(super) headers: &'static [u8],
    /// Where the attributes of CloudEvents stand.
    pub(super) attributes: Attributes,
    /// What the body is.
    pub(super) shape: Shape,
    /// What closes the body, behind the change.
    pub(super) close: &'static [u8],
}

/// What the body of an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Our own.
    Change,
    /// Debezium's.
    Debezium,
}

/// Where the attributes of CloudEvents stand.
pub(super) enum Attributes {
    /// Nowhere.
    None,
    /// In headers.
    Headers(Dress),
    /// In the body, in front of the change.
    Body(Dress),
}

/// The text in front of each attribute, in their order. Each also closes the attribute before it.
pub(super) struct Dress {
    pub(super) id: &'static [u8],
    pub(super) source: &'static [u8],
    pub(super) event_type: &'static [u8],
    pub(super) dataschema: &'static [u8],
    pub(super) subject: &'static [u8],
    pub(super) time: &'static [u8],
    pub(super) partitionkey: &'static [u8],
    pub(super) sequence: &'static [u8],
    /// CloudEvents' extension for distributed tracing.
    pub(super) traceparent: &'static [u8],
    /// Closes the last of those and holds those that never differ.
    pub(super) end: &'static [u8],
    /// Makes any text a value.
    pub(super) escape: fn(&[u8], &mut Vec<u8>),
}

impl Envelope {
    pub(super) fn of(format: Format) -> &'static Self {
        match format {
            Format::CloudEvents => &cloudevents::ENVELOPE,
            Format::CloudEventsStructured => &structured::ENVELOPE,
            Format::Plain => &plain::ENVELOPE,
            Format::Debezium => &debezium::ENVELOPE,
        }
    }

    pub(super) fn dress(&self) -> Option<&Dress> {
        match &self.attributes {
            Attributes::None => None,
            Attributes::Headers(dress) | Attributes::Body(dress) => Some(dress),
        }
    }
}
