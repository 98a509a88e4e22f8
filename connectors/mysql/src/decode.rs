//! The binary log's bytes as typed events.

pub mod table_map;
