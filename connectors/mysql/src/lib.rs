//! MySQL and MariaDB as a source: the binary log in row format.
//!
//! [`decode`] reads the log's bytes: events, the shapes of tables, rows. It is
//! pure and knows both servers; what they do differently stands where it is read.

pub mod decode;
