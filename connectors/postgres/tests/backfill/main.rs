//! Existing rows, read from a real PostgreSQL.

mod keys;
mod listing;
mod places;
mod sight;
mod values;
mod world;
