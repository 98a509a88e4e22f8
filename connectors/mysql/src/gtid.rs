//! Sets of transactions: what a server has, what was read. Either server's form of them.
//!
//! MySQL names a transaction by the server it first committed on, an optional tag
//! (8.3 and later), and a number; a set has no order. MariaDB names it by domain,
//! server and sequence; in a domain the sequence is the order, so the last one tells all.

mod intervals;
mod mariadb;
mod mysql;

#[cfg(test)]
mod properties;

pub use intervals::Intervals;
pub use mariadb::{MariaDbGtid, MariaDbSet};
pub use mysql::{MySqlSet, Uuid};

/// A text or bytes that are no set of transactions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GtidError {
    /// A server's UUID.
    #[error("`{0}` is no UUID")]
    Uuid(String),
    /// A tag: 1 to 32 letters, digits and `_`, no digit first.
    #[error("`{0}` is no tag of transactions")]
    Tag(String),
    /// A transaction's number or a range of them.
    #[error("`{0}` is no range of transactions")]
    Range(String),
    /// A MariaDB GTID.
    #[error("`{0}` is no `domain-server-sequence`")]
    MariaDb(String),
    /// Two MariaDB GTIDs of one domain.
    #[error("domain {0} stands twice in a position")]
    DomainTwice(u32),
    /// The binary form.
    #[error("the binary form of a GTID set breaks off or is of an unknown format")]
    Binary,
}
