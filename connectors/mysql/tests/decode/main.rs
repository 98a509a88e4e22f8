//! Logs that real servers wrote, decoded.
//!
//! `tests/captures/record` records the captures, with the statements that stand beside it.

mod fixtures;
mod properties;
mod show;
mod snapshots;
mod walk;
