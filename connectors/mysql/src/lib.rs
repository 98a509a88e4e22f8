//! MySQL and MariaDB as a source: the binary log, row format.

pub mod decode;
pub mod value;
