//! What PostgreSQL sent, replayed through decoder and normaliser.
//!
//! The captures are recorded by `examples/capture`, which also tells what was done to the database.

mod captured;
mod properties;
mod resume;
mod show;
mod snapshots;
mod traces;
