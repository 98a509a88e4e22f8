//! Existing rows, read from a real PostgreSQL.

mod keys;
mod listing;
mod look_up;
mod places;
mod sight;
mod values;
mod world;
