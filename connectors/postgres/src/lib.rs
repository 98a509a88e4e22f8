//! PostgreSQL as a source: logical replication (pgoutput, protocol 1).

pub mod config;
pub mod value;
