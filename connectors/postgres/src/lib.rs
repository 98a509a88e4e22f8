//! PostgreSQL as a source: logical replication, pgoutput, protocol version 1.
//!
//! ```text
//!   walsender ══ CopyBoth ══> session      a task of its own: cuts chunks, answers keepalives, reports Durable
//!                                │ chunks of whole frames
//!                                v
//!                             decode       bytes to messages; pure
//!                                │
//!                                v
//!                             normalise    messages to batches: identity, order, key changes
//!                                │  ^
//!                                │  └──── tables, value   shapes and types; asks the catalogue at RELATION
//!                                v
//!                             source       Batch by Batch
//! ```
//!
//! - The server spills a transaction until its commit and then sends it whole
//!   (protocol 1), so all that arrives is committed, and nothing is buffered here.
//! - Order is (commit LSN, ordinal in the transaction). The LSNs of single rows
//!   are no order: transactions interleave in the log.
//! - BEGIN carries the place of the commit record. A session started there
//!   receives that transaction again, one started at COMMIT's end does not: the two
//!   places that a position can name.
//! - The slot is confirmed up to what is stored and never further. PostgreSQL
//!   starts at the confirmed place without a word when it is asked for an older one,
//!   so `slot` compares before it asks.
//! - A keepalive's log end is a position too: all that was committed before it was
//!   sent. So an idle source releases its log.

pub mod catalogue;
pub mod config;
pub mod connector;
pub mod decode;
pub mod globs;
pub mod lsn;
#[doc(hidden)]
pub mod replay;
pub mod source;
pub mod url;
pub mod value;

mod backfill;
mod check;
mod dial;
mod error;
mod messages;
mod normalise;
mod publication;
mod session;
mod slot;
mod tables;
mod timeline;

pub use backfill::PostgresReader;
pub use connector::{ConfigError, Postgres};
pub use source::PostgresSource;
