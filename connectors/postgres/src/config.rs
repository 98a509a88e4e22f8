//! What the connector is told. The file of the user is not known here.

use std::sync::Arc;
use std::time::Duration;

use figvine_change::debezium::Encoding;
use secrecy::SecretString;

/// One PostgreSQL source.
#[derive(Debug, Clone)]
pub struct Config {
    /// The source's name: part of `application_name`.
    pub source: String,
    /// `postgres://user:password@host:port/database?sslmode=...`, libpq's words.
    pub url: SecretString,
    /// Globs over `schema.table`; `!` takes away; later ones win.
    pub tables: Vec<String>,
    /// The replication slot.
    pub slot: String,
    /// Whether a slot that does not exist is made for the session only, and goes with it.
    pub slot_is_passing: bool,
    /// The publication.
    pub publication: String,
    /// Whether we create the publication and keep it to the configured tables.
    pub publication_managed: bool,
    /// Whether rows of partitions come as rows of the partitioned table.
    pub via_partition_root: bool,
    /// Tables without a key.
    pub keyless: Keyless,
    /// Globs over the prefixes of logical messages that become events.
    pub messages: Vec<String>,
    /// The prefix of the logical message whose content, before the first captured change of a transaction, is the
    /// `traceparent` that its changes came from; `None` to look for none.
    pub trace_message: Option<String>,
    /// Globs over the prefixes of logical messages that mark, before the first captured change of a transaction, one that is
    /// not to be told.
    pub ignore_messages: Vec<String>,
    /// How often a heartbeat is written into the log (`pg_logical_emit_message`); `None` for never.
    pub heartbeat: Option<Duration>,
    /// How long slot creation may wait for running transactions.
    pub lock_timeout: Duration,
    /// How values are written where consumers may choose.
    pub values: ValueOptions,
}

impl Config {
    /// For a look that leaves nothing behind.
    #[must_use]
    pub fn passing(self) -> Self {
        Self { slot_is_passing: true, heartbeat: None, ..self }
    }
}

/// What to do with a table that has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyless {
    /// Refuse it at the start.
    Refuse,
    /// Take the whole row as its key; REPLICA IDENTITY FULL is needed.
    WholeRow,
}

/// How values are written where consumers may choose.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ValueOptions {
    /// int8 as a string, for consumers whose numbers are doubles.
    pub bigint_as_string: bool,
    /// numeric as a JSON number, all digits, for consumers who read such.
    pub decimal_as_number: bool,
    /// Debezium's encodings instead of ours; the others do not hold then.
    pub debezium: Option<Arc<Encoding>>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration as the defaults would make it.
    pub(crate) fn example() -> Config {
        Config {
            source: "shop".into(),
            url: "postgres://figvine@localhost/shop".to_owned().into(),
            tables: vec!["public.*".into()],
            slot: "figvine_shop".into(),
            slot_is_passing: false,
            publication: "figvine_shop".into(),
            publication_managed: true,
            via_partition_root: false,
            keyless: Keyless::Refuse,
            messages: Vec::new(),
            trace_message: Some("traceparent".into()),
            ignore_messages: Vec::new(),
            heartbeat: None,
            lock_timeout: Duration::from_secs(10),
            values: ValueOptions::default(),
        }
    }
}
