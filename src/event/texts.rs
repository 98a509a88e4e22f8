//! Text made once and used for many events: per source, per table, per transaction.

use std::num::NonZeroU16;
use std::ops::Range;
use std::sync::Arc;

use figvine_change::{Engine, Op, Table, Transaction, json};

use super::debezium;
use super::envelope::{Dress, Envelope, Shape};
use super::number::write_timestamp;
use super::read::ReadPlace;
use super::subject::{Subject, Template};
use super::{Settings, TemplateError};
use crate::checkpoint::Writer;
use crate::schema::{Refusal, Schemas};

/// What is the same for all events of a source.
pub(super) struct SourceText {
    pub(super) name: Box<str>,
    pub(super) envelope: &'static Envelope,
    pub(super) partitions: NonZeroU16,
    /// What the server takes, in bytes of headers (with their frame) and body, less what the publisher adds.
    pub(super) max_payload: usize,
    pub(super) writer: Writer,
    template: Template,
    ce_source: Box<str>,
    /// `"source":{"name":..` up to the database.
    origin: Vec<u8>,
    /// The same in Debezium's envelope.
    pub(super) debezium: debezium::Origin,
    /// Of messages: `"source":{` up to the position's opening quote.
    pub(super) message_origin: Vec<u8>,
    /// `source` and `type` of messages.
    pub(super) message_type: EventType,
    /// `source` and `type` of changes of a table's shape.
    schema_changed: EventType,
    /// Of what stands in the place of a message: `source` and `type`.
    pub(super) missing: EventType,
    /// The versions of the event types, where events name them.
    schemas: Option<Arc<Schemas>>,
}

/// A type of events: its name, and the attributes `source`, `type` and `dataschema` as they are written.
#[derive(Debug, Clone)]
pub(super) struct EventType {
    pub(super) name: Arc<str>,
    pub(super) attributes: Vec<u8>,
}

impl EventType {
    fn new(name: String, ce_source: &str, dataschema: Option<&str>, dress: Option<&Dress>) -> Self {
        let mut attributes = Vec::new();
        if let Some(dress) = dress {
            attributes.extend_from_slice(dress.source);
            (dress.escape)(ce_source.as_bytes(), &mut attributes);
            attributes.extend_from_slice(dress.event_type);
            (dress.escape)(name.as_bytes(), &mut attributes);
            if let Some(uri) = dataschema {
                attributes.extend_from_slice(dress.dataschema);
                (dress.escape)(uri.as_bytes(), &mut attributes);
            }
        }
        Self { name: name.into(), attributes }
    }
}

impl SourceText {
    pub(super) fn new(
        settings: &Settings,
        engine: &Engine,
        writer: &Writer,
        max_payload: usize,
    ) -> Result<Self, TemplateError> {
        let envelope = Envelope::of(settings.format);
        let mut origin = Vec::new();
        for (name, value) in [
            (&b"\"source\":{\"name\":"[..], &*settings.source),
            (b",\"engine\":", engine.name),
            (b",\"version\":", &engine.version),
            (b",\"database\":", &engine.database),
        ] {
            origin.extend_from_slice(name);
            json::write_str(value, &mut origin);
        }
        let mut message_origin = origin.clone();
        message_origin.extend_from_slice(b",\"position\":\"");
        let debezium = debezium::Origin::new(engine, &settings.topic_prefix, settings.binary);
        if envelope.shape == Shape::Debezium {
            message_origin = debezium.of_table(None);
        }
        let event_type = |suffix| {
            EventType::new(format!("{}.{suffix}", settings.source), &settings.ce_source, None, envelope.dress())
        };
        Ok(Self {
            name: settings.source.clone(),
            envelope,
            partitions: settings.partitions,
            max_payload,
            writer: writer.clone(),
            template: Template::parse(&settings.subject)?,
            ce_source: settings.ce_source.as_str().into(),
            origin,
            debezium,
            message_origin,
            message_type: event_type("message"),
            schema_changed: event_type("schema_changed"),
            missing: event_type("missing"),
            schemas: None,
        })
    }

    /// From now on events name the versions of their types.
    pub(super) fn name_schemas(&mut self, schemas: Arc<Schemas>) {
        let event_type = |suffix: &str| {
            let uri = schemas.fixed_uri(suffix);
            EventType::new(format!("{}.{suffix}", self.name), &self.ce_source, uri.as_deref(), self.envelope.dress())
        };
        self.message_type = event_type("message");
        self.schema_changed = event_type("schema_changed");
        self.missing = event_type("missing");
        self.schemas = Some(schemas);
    }
}

impl SourceText {
    /// A type of domain events.
    pub(super) fn event_type(&self, name: &str) -> EventType {
        EventType::new(
            name.to_owned(),
            &self.ce_source,
            self.schemas.as_ref().and_then(|schemas| schemas.domain_uri(name)).as_deref(),
            self.envelope.dress(),
        )
    }
}

/// What an event of a table tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Insert,
    Update,
    Delete,
    Read,
    Truncate,
    SchemaChange,
    Tombstone,
    /// In the place of one that could not be told.
    Missing,
}

impl Kind {
    pub(super) const ALL: [Self; 8] = [
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Read,
        Self::Truncate,
        Self::SchemaChange,
        Self::Tombstone,
        Self::Missing,
    ];

    pub(super) fn of(op: Op) -> Self {
        match op {
            Op::Insert => Self::Insert,
            Op::Update => Self::Update,
            Op::Delete => Self::Delete,
            Op::Read => Self::Read,
            Op::Tombstone => Self::Tombstone,
        }
    }

    /// As bodies, subjects and metrics name it.
    pub(super) fn op(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Read => "read",
            Self::Truncate => "truncate",
            Self::SchemaChange => "schema_change",
            Self::Tombstone => "tombstone",
            Self::Missing => "missing",
        }
    }

    /// As subjects name it: a tombstone goes where its removal went.
    pub(super) fn subject_op(self) -> &'static str {
        if self == Self::Tombstone { Self::Delete.op() } else { self.op() }
    }

    /// As Debezium's envelope names it.
    pub(super) fn letter(self) -> u8 {
        match self {
            Self::Insert => b'c',
            Self::Update => b'u',
            Self::Delete | Self::Tombstone => b'd',
            Self::Read => b'r',
            Self::Truncate => b't',
            Self::SchemaChange => b's',
            // A message is what its consumers pass over.
            Self::Missing => b'm',
        }
    }

    /// As types of events name it.
    fn participle(self) -> &'static str {
        match self {
            Self::Insert => "inserted",
            Self::Update => "updated",
            Self::Delete => "deleted",
            Self::Read => "read",
            Self::Truncate => "truncated",
            Self::SchemaChange => "schema_changed",
            Self::Tombstone => "tombstone",
            Self::Missing => "missing",
        }
    }
}

/// What is the same for all events of a table in one shape.
pub(super) struct TableText {
    pub(super) table: Arc<Table>,
    /// `schema.name`.
    pub(super) name: Arc<str>,
    pub(super) columns: Vec<ColumnText>,
    pub(super) subject: Subject,
    /// `"source":{` up to the position's opening quote.
    pub(super) origin: Vec<u8>,
    /// In the order of [`Kind::ALL`].
    types: [EventType; 8],
}

/// What is the same for all values of a column.
pub(super) struct ColumnText {
    /// `,"name":`
    pub(super) name: Vec<u8>,
    /// Whether it belongs to the key.
    pub(super) is_key: bool,
}

impl ColumnText {
    /// `"name"`
    pub(super) fn quoted_name(&self) -> &[u8] {
        // It stands between a comma and a colon.
        self.name.get(1..self.name.len() - 1).unwrap_or_default()
    }
}

impl TableText {
    /// With why its rows may not be told, where the shape is refused; they are of no version then.
    pub(super) fn new(source: &SourceText, table: &Arc<Table>) -> (Self, Option<Arc<Refusal>>) {
        let (dataschema, refusal) = match source.schemas.as_ref().map(|schemas| schemas.uri(table)) {
            Some(Ok(uri)) => (uri, None),
            Some(Err(refusal)) => (None, Some(refusal)),
            None => (None, None),
        };
        let missing = source.schemas.as_ref().and_then(|schemas| schemas.fixed_uri("missing"));
        let columns = table.columns.iter().enumerate().map(|(at, column)| {
            let mut name = vec![b','];
            json::write_str(&column.name, &mut name);
            name.push(b':');
            ColumnText { name, is_key: table.key.contains(&at) }
        });
        let mut origin = source.origin.clone();
        origin.extend_from_slice(b",\"schema\":");
        json::write_str(&table.schema, &mut origin);
        origin.extend_from_slice(b",\"table\":");
        json::write_str(&table.name, &mut origin);
        origin.extend_from_slice(b",\"position\":\"");
        if source.envelope.shape == Shape::Debezium {
            origin = source.debezium.of_table(Some(table));
        }
        let types = Kind::ALL.map(|kind| {
            if kind == Kind::SchemaChange {
                return source.schema_changed.clone();
            }
            let name = format!("{}.{}.{}.{}", source.name, table.schema, table.name, kind.participle());
            let dataschema = if kind == Kind::Missing { &missing } else { &dataschema };
            EventType::new(name, &source.ce_source, dataschema.as_deref(), source.envelope.dress())
        });
        let text = Self {
            table: Arc::clone(table),
            name: table.qualified_name().into(),
            columns: columns.collect(),
            subject: source.template.of_table(&source.name, &table.schema, &table.name),
            origin,
            types,
        };
        (text, refusal)
    }

    pub(super) fn event_type(&self, kind: Kind) -> &EventType {
        let [insert, update, delete, read, truncate, schema_change, tombstone, missing] = &self.types;
        match kind {
            Kind::Insert => insert,
            Kind::Update => update,
            Kind::Delete => delete,
            Kind::Read => read,
            Kind::Truncate => truncate,
            Kind::SchemaChange => schema_change,
            Kind::Tombstone => tombstone,
            Kind::Missing => missing,
        }
    }
}

/// What is the same for all events of a transaction. One is kept and written
/// anew for each, so that its buffers are used again.
#[derive(Debug, Default)]
pub(super) struct TransactionText {
    /// Attribute `id` up to the ordinal.
    pub(super) id: Vec<u8>,
    /// Attribute `time`.
    pub(super) time: Vec<u8>,
    /// Attribute `sequence` up to the ordinal.
    pub(super) sequence: Vec<u8>,
    /// Attribute `traceparent`; empty where there is none.
    pub(super) traceparent: Vec<u8>,
    /// Header `Figvine-Tx`, and `Figvine-Tx-Index` up to the ordinal.
    pub(super) headers: Vec<u8>,
    /// The body's block `source` from inside the position's quotes up to the value of `snapshot`.
    pub(super) origin: Vec<u8>,
    /// The time in the units of Debezium's envelope.
    pub(super) times: Vec<u8>,
}

impl TransactionText {
    /// Writes it for another transaction.
    pub(super) fn load(&mut self, source: &SourceText, transaction: &Transaction) -> Result<(), &'static str> {
        for log in std::iter::once(&transaction.start).chain(&transaction.end) {
            // The checkpoint header carries these as they are; see `Position::log`.
            if log.is_empty() || !log.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
                return Err("a transaction begins or ends at what is no position");
            }
        }
        self.origin.clear();
        json::write_escaped(&transaction.position, &mut self.origin);
        self.origin.extend_from_slice(b"\",\"transaction\":");
        json::write_str(&transaction.id, &mut self.origin);
        self.origin.extend_from_slice(b",\"committed_at\":\"");
        let committed_at = self.origin.len();
        write_timestamp(transaction.committed_at, &mut self.origin);
        let committed_to = self.origin.len();
        self.origin.extend_from_slice(b"\",\"snapshot\":");

        self.headers.clear();
        self.headers.extend_from_slice(b"Figvine-Tx: ");
        super::cloudevents::write_header_value(transaction.id.as_bytes(), &mut self.headers);
        self.headers.extend_from_slice(b"\r\nFigvine-Tx-Index: ");

        self.attributes(source.envelope, &transaction.position, &transaction.sequence, committed_at..committed_to);
        self.sequence.push(b'-');
        if let Some((traceparent, dress)) = transaction.traceparent.as_ref().zip(source.envelope.dress()) {
            self.traceparent.extend_from_slice(dress.traceparent);
            (dress.escape)(traceparent.as_bytes(), &mut self.traceparent);
        }
        if source.envelope.shape == Shape::Debezium {
            debezium::write_times(transaction.committed_at, &mut self.times);
            source.debezium.write_transaction(transaction, &self.times, &mut self.origin);
        }
        Ok(())
    }

    /// Writes it for rows of a backfill: no transaction made them. They sort behind the transaction before.
    pub(super) fn load_read(&mut self, source: &SourceText, place: &ReadPlace<'_>) {
        self.origin.clear();
        json::write_escaped(&place.position.log, &mut self.origin);
        self.origin.extend_from_slice(b"\",\"transaction\":null,\"committed_at\":\"");
        let read_at = self.origin.len();
        write_timestamp(place.read_at, &mut self.origin);
        let read_to = self.origin.len();
        self.origin.extend_from_slice(b"\",\"snapshot\":");
        self.attributes(source.envelope, place.task, place.sequence, read_at..read_to);
        self.sequence.extend_from_slice(b"-r");
        if source.envelope.shape == Shape::Debezium {
            debezium::write_times(place.read_at, &mut self.times);
            source.debezium.write_read(place, &self.times, &mut self.origin);
        }
    }

    /// The attributes, where the envelope has them; `time` stands in the block `source`.
    fn attributes(&mut self, envelope: &Envelope, id: &str, sequence: &str, time: Range<usize>) {
        self.traceparent.clear();
        let Some(dress) = envelope.dress() else { return };
        self.id.clear();
        self.id.extend_from_slice(dress.id);
        (dress.escape)(id.as_bytes(), &mut self.id);
        self.id.push(b'/');
        self.time.clear();
        self.time.extend_from_slice(dress.time);
        self.time.extend_from_slice(self.origin.get(time).unwrap_or_default());
        self.sequence.clear();
        self.sequence.extend_from_slice(dress.sequence);
        (dress.escape)(sequence.as_bytes(), &mut self.sequence);
    }
}
