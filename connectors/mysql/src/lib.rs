//! MySQL and MariaDB as a source: the binary log, row format.
//!
//! ```text
//!   dump thread ══ events ══> session      a task of its own: cuts chunks, watches heartbeats
//!                                │ chunks of whole events
//!                                v
//!                             decode       bytes to events and row images; pure
//!                                │
//!                                v
//!                             normalise    events to batches: identity, order, key changes
//!                                │
//!                                v
//!                             source       Batch by Batch
//! ```
//!
//! - A dump is a replica's: COM_REGISTER_SLAVE, then COM_BINLOG_DUMP from a file and place or, on MariaDB, from
//!   session variables that hold GTIDs, or COM_BINLOG_DUMP_GTID with a GTID set.
//! - The server answers every bad start with error 1236 and a text, so `start` compares
//!   what is stored with what the server has before it asks.
//! - Two dumps under one server id end each other for ever: the older one is told, and stops.

pub mod config;
pub mod connector;
pub mod decode;
pub mod globs;
pub mod gtid;
pub mod position;
pub mod source;
pub mod statement;
pub mod url;
pub mod value;

mod annotation;
mod backfill;
mod catalogue;
mod check;
mod dial;
mod error;
mod normalise;
mod prepared;
mod scout;
mod session;
mod start;
mod tables;
mod xa;

pub use backfill::MysqlRows;
pub use connector::{ConfigError, Mysql};
pub use source::MysqlSource;
