//! What Figvine's connectors speak: committed row changes, where they stand in
//! a database's log, and the contract between a connector and the bridge.
//!
//! Types and traits only; nothing here does I/O.
//!
//! ```text
//!   server's log ──> Connector::open ──> Source::next ──> Batch of Change ──> the bridge
//!                          ^                                                    │
//!                          └───────────── Durable (a Position) <────────────────┘
//! ```
//!
//! Data flows down in [`Batch`]es; durability flows up through one [`Durable`].

pub mod assemble;
pub mod backfill;
pub mod change;
pub mod conformance;
pub mod debezium;
pub mod error;
pub mod finding;
pub mod json;
pub mod json_type;
pub mod position;
pub mod source;
pub mod table;
pub mod trace;
pub mod value;

pub use backfill::{
    Chunk, ChunkReader, ChunkRequest, Cursor, Found, Load, LookUp, NoRows, ReadOrder, Sight, Sought, TableSize,
};
pub use change::{Batch, Body, Change, FilePlace, Op, Row, RowChange, TOMBSTONE, Transaction};
pub use error::{Consequence, SourceError, SourceErrorKind};
pub use finding::{Finding, Severity};
pub use json_type::JsonType;
pub use position::{Position, Within};
pub use source::{Connector, Durable, Engine, Retention, Source, Untold};
pub use table::{Column, NamedColumn, Table};
pub use value::{Cell, ValueCodec, ValueError};
