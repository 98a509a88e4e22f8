//! What the connector is told. The file of the user is not known here.

use std::time::Duration;

use secrecy::SecretString;
use sha2::{Digest, Sha256};

pub use crate::value::{ValueOptions, ZeroDate};

/// One MySQL or MariaDB source.
#[derive(Debug, Clone)]
pub struct Config {
    /// The source's name: what `SHOW REPLICAS` calls us.
    pub source: String,
    /// Which of the two the server is.
    pub flavour: Flavour,
    /// `mysql://user:password@host:port/database?ssl-mode=...`.
    pub url: SecretString,
    /// Globs over `database.table`; `!` takes away; later ones win.
    pub tables: Vec<String>,
    /// The id under which we read, unique among all replicas of the server; `None` to derive it.
    pub server_id: Option<u32>,
    /// What it is derived from: a name that no other bridge has, such as the stream's.
    pub server_id_seed: String,
    /// Tables without a key.
    pub keyless: Keyless,
    /// Statements in the log that change captured tables without giving rows.
    pub on_statement: OnStatement,
    /// Whether the `traceparent` in a statement's comment is the trace that its changes came from.
    pub trace_comments: bool,
    /// Texts that mark, in a comment of the first statement of a transaction that changes a captured table, or of one before,
    /// a transaction that is not to be told.
    pub ignore_comments: Vec<String>,
    /// How often the server says that it is there when the log has nothing new.
    pub heartbeat: Duration,
    /// How values are written where consumers may choose.
    pub values: ValueOptions,
}

impl Config {
    /// Whether it is of use to know the statements whose rows follow.
    #[must_use]
    pub fn reads_statements(&self) -> bool {
        self.trace_comments || !self.ignore_comments.is_empty()
    }

    /// The id under which we read. A derived one is at least 2^31: out of the way of ids that people give.
    #[must_use]
    pub fn server_id(&self) -> u32 {
        self.server_id.unwrap_or_else(|| {
            let hash = Sha256::digest(self.server_id_seed.as_bytes());
            hash.first_chunk::<4>().map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes) | 0x8000_0000)
        })
    }
}

/// The two descendants of one server, whose logs differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// MySQL, and what is built from it (Percona Server).
    MySql,
    /// MariaDB.
    MariaDb,
}

impl Flavour {
    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        }
    }
}

/// What to do with a table that has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyless {
    /// Refuse it at the start.
    Refuse,
    /// Take the whole row as its key; a full row image is needed.
    WholeRow,
}

/// What to do with a statement in the log (`binlog_format` STATEMENT or MIXED) that changes a captured table:
/// its rows are not in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStatement {
    /// Stop.
    Error,
    /// Say so and go on.
    Warn,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A configuration as the defaults would make it.
    pub(crate) fn example() -> Config {
        Config {
            source: "shop".into(),
            flavour: Flavour::MySql,
            url: "mysql://figvine@localhost/shop".to_owned().into(),
            tables: vec!["shop.*".into()],
            server_id: None,
            server_id_seed: "FIGVINE_SHOP".into(),
            keyless: Keyless::Refuse,
            on_statement: OnStatement::Error,
            trace_comments: false,
            ignore_comments: Vec::new(),
            heartbeat: Duration::from_secs(5),
            values: ValueOptions::default(),
        }
    }

    #[test]
    fn a_derived_server_id_is_the_same_every_time_and_out_of_the_way() {
        let config = example();
        assert_eq!(config.server_id(), example().server_id());
        assert!(config.server_id() >= 1 << 31);
        assert_ne!(config.server_id(), Config { server_id_seed: "FIGVINE_CRM".into(), ..example() }.server_id());
        assert_eq!(Config { server_id: Some(7), ..example() }.server_id(), 7);
    }
}
