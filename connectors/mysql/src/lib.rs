//! MySQL and MariaDB as a source: the binary log.

pub mod decode;
