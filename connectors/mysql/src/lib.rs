//! MySQL and MariaDB as a source: the binary log, row format.

pub mod config;
pub mod decode;
pub mod globs;
pub mod gtid;
pub mod url;
pub mod value;

#[expect(dead_code, reason = "x")]
mod catalogue;
#[expect(dead_code, reason = "x")]
mod check;
mod dial;
mod error;
#[expect(dead_code, reason = "x")]
mod session;
#[expect(dead_code, reason = "x")]
mod start;
