//! Figvine: from a database's log into a JetStream stream.
//!
//! The modules stand in the order of the data; each imports only from those
//! before it (`tests/tidy.rs` checks that).

pub mod checkpoint;
pub mod event;
pub mod map;
pub mod nats;
pub mod schema;
pub mod stream;
pub mod telemetry;

pub mod backfill;
pub mod pipeline;

pub mod config;
pub mod control;
pub mod http;
pub mod wiring;

pub mod cli;
