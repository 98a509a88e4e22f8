//! What servers answer, as failures with something to do about them.
//!
//! Codes: FV-11xx reaching the server, FV-12xx its settings and grants, FV-13xx
//! the log and its place, FV-14xx what stands in the log, FV-16xx existing rows. A code that another connector
//! has too means the same there.

use std::error::Error;

use figvine_change::{SourceError, SourceErrorKind};

/// Makes a failure.
pub(crate) fn failure(kind: SourceErrorKind, code: &'static str, what: impl Into<String>) -> SourceError {
    SourceError { kind, code, what: what.into(), hint: None, source: None }
}

/// Adds to a failure.
pub(crate) trait Told {
    /// What to do.
    fn hint(self, hint: impl Into<String>) -> SourceError;
    /// What we were told.
    fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> SourceError;
}

impl Told for SourceError {
    fn hint(self, hint: impl Into<String>) -> SourceError {
        SourceError { hint: Some(hint.into()), ..self }
    }

    fn because(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> SourceError {
        SourceError { source: Some(source.into()), ..self }
    }
}

/// An error that a server sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("error {code}{}: {message}", if state.is_empty() { String::new() } else { format!(" ({state})") })]
pub(crate) struct ServerError {
    /// The server's number; see `errmsg` in either server's source.
    pub(crate) code: u16,
    /// SQLSTATE; empty before authentication.
    pub(crate) state: String,
    pub(crate) message: String,
}

impl ServerError {
    /// Reads an ERR packet, its leading 0xFF included.
    pub(crate) fn read(packet: &[u8]) -> Self {
        let (code, rest) = match packet.get(1..).and_then(|rest| rest.split_first_chunk::<2>()) {
            Some((code, rest)) => (u16::from_le_bytes(*code), rest),
            None => (0, &[][..]),
        };
        let (state, message) = match rest {
            [b'#', rest @ ..] if rest.len() >= 5 => rest.split_at(5),
            _ => (&[][..], rest),
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code, state: text(state), message: text(message) }
    }
}

/// What a server's error means for the bridge. `what` says what we were about.
pub(crate) fn of_server(told: ServerError, what: &str) -> SourceError {
    use SourceErrorKind::{Invalid, PositionLost, Refused, Unreachable};
    let meant = match told.code {
        // Access denied (1698: by a plugin); 1130 host not allowed; 1820 1862 password expired; 3118 3955 locked.
        1045 | 1698 | 1130 | 1820 | 1862 | 3118 | 3955 | 4151 => {
            failure(Refused, "FV-1110", format!("{what}: the server does not let us in"))
                .hint("Check user and password, from which hosts the user may connect, and whether it must use TLS.")
        }
        // Too many failed connections.
        1129 => failure(Refused, "FV-1110", format!("{what}: the server blocks our host"))
            .hint("An administrator lets it in again by FLUSH HOSTS, or TRUNCATE performance_schema.host_cache."),
        1227 | 1142 | 1143 | 1044 | 1370 | 3530 => {
            let named = privilege(&told.message).map_or_else(String::new, |grant| format!(" {grant}"));
            failure(Refused, "FV-1201", format!("{what}: the user lacks the privilege{named}"))
                .hint("Run `figvine check`: it prints the grants that are missing.")
        }
        1049 => failure(Refused, "FV-1111", format!("{what}: the database does not exist")).hint("Check the url."),
        1146 | 1051 | 1305 => failure(Invalid, "FV-1203", format!("{what}: an object does not exist")),
        // No binary log; unknown system variable.
        1381 | 1193 => failure(Refused, "FV-1202", format!("{what}: the server is not set up for it"))
            .hint("Run `figvine check`: it names the setting and the SQL that mends it."),
        1373 => failure(PositionLost, "FV-1301", format!("{what}: the server no longer has that file of its log")),
        1236 => return of_1236(told, what),
        // MariaDB: another dump came under our server id.
        4052 => return same_server_id(what).because(told),
        // Too many connections, of all or of ours; out of memory or threads; shutting down, offline, killed; networks; locks.
        1040
        | 1203
        | 1226
        | 1037
        | 1038
        | 1041
        | 1135
        | 1053
        | 3032
        | 1927
        | 3169
        | 1317
        | 1158..=1161
        | 1205
        | 1213 => failure(Unreachable, "FV-1120", format!("{what}: the server cannot serve us now")),
        1153 => failure(Refused, "FV-1206", format!("{what}: a packet is larger than the server allows"))
            .hint("Raise `max_allowed_packet` on the server."),
        3159 => failure(Refused, "FV-1113", format!("{what}: the server lets in TLS only"))
            .hint("Say `ssl-mode=REQUIRED` in the url, or one that verifies."),
        _ => return failure(Refused, "FV-1209", format!("{what}: the server refuses")).because(told),
    };
    meant.because(told)
}

/// Everything that a dump cannot do comes as 1236 (ER_MASTER_FATAL_ERROR_READING_BINLOG); its text alone tells what.
/// The texts stand in `rpl_binlog_sender.cc` of MySQL and `sql_repl.cc` of MariaDB; MySQL 8 changed master and slave
/// to source and replica in them.
fn of_1236(told: ServerError, what: &str) -> SourceError {
    use SourceErrorKind::{PositionLost, Refused, Unreachable};
    let text = told.message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let meant = if says(&["same server_uuid", "same server_id", "same server id"]) {
        same_server_id(what)
    } else if says(&["max_allowed_packet"]) {
        failure(Refused, "FV-1206", format!("{what}: an event is larger than the server sends"))
            .hint("Raise `max_allowed_packet` on the server: it bounds what its dump thread reads. A position inside an event \
                 looks like this too.",
            )
    } else if says(&["checksum"]) && !says(&["crc", "failed"]) {
        failure(Refused, "FV-1207", format!("{what}: the server's checksums do not fit"))
    } else if says(&["binary log is not open", "not configured as", "misconfigured", "gtid_mode", "gtid mode"]) {
        failure(Refused, "FV-1202", format!("{what}: the server is not set up for it"))
            .hint("Run `figvine check`: it names the setting and the SQL that mends it.")
    } else if says(&["has more gtids than", "not in the master's binlog", "not in the source's binlog", "diverged"]) {
        ahead(format!("{what}: the server lacks transactions that were read before"))
    } else if says(&["purged", "could not find first log file", "no longer available", "first log file name"]) {
        lost(format!("{what}: the server no longer has the log behind the last stored change"))
    } else if says(&["impossible position", "to start replication from position"]) {
        failure(PositionLost, "FV-1304", format!("{what}: the server's log does not reach that far"))
            .hint("The log was cut short or replaced. Read the tables again, or begin anew with another stream.")
    } else if says(&["bogus data", "corrupt", "truncated", "crc", "checksum", "read error", "i/o error"]) {
        failure(PositionLost, "FV-1305", format!("{what}: the server cannot read its log there"))
            .hint("The log is damaged, or the position is inside an event. Look at the server's error log.")
    } else if says(&["memory", "shutdown", "shutting down", "killed", "net error", "failed on my_net_write"]) {
        failure(Unreachable, "FV-1120", format!("{what}: the server cannot serve us now"))
    } else {
        failure(Refused, "FV-1209", format!("{what}: the server refuses"))
    };
    meant.because(told)
}

/// The log behind a position is gone.
pub(crate) fn lost(what: impl Into<String>) -> SourceError {
    failure(SourceErrorKind::PositionLost, "FV-1301", what).hint(
        "Figvine does not go on behind a gap by itself. Keep the log longer (`binlog_expire_logs_seconds`), and read \
         the tables again, or begin anew with another stream.",
    )
}

/// The server lacks what was read before.
pub(crate) fn ahead(what: impl Into<String>) -> SourceError {
    failure(SourceErrorKind::PositionLost, "FV-1303", what).hint(
        "It was restored, or promoted without all transactions, or is another server: what was stored may not be in \
         this history. Check the url. Read the tables again, or begin anew with another stream.",
    )
}

/// Another dump runs under our id.
pub(crate) fn same_server_id(what: &str) -> SourceError {
    failure(SourceErrorKind::Busy, "FV-1313", format!("{what}: somebody else reads the log under our server id")).hint(
        "Two readers under one id end each other for ever. Another Figvine reads it, or configure another `server_id`.",
    )
}

/// The privilege that messages 1227, 1142 and 1143 name: `(at least one of) the SUPER privilege(s)`, `SELECT command denied`.
fn privilege(message: &str) -> Option<&str> {
    let named = match message.split_once(" the ") {
        Some((_, rest)) => rest.split_once(" privilege")?.0,
        None => message.split_once(" command denied")?.0,
    };
    (named.len() < 80 && named.bytes().all(|b| b.is_ascii_uppercase() || b" ,_".contains(&b))).then_some(named)
}

/// A query's failure.
pub(crate) fn of_query(error: mysql_async::Error, what: &str) -> SourceError {
    match error {
        mysql_async::Error::Server(told) => {
            of_server(ServerError { code: told.code, state: told.state, message: told.message }, what)
        }
        mysql_async::Error::Io(error) => {
            failure(SourceErrorKind::Unreachable, "FV-1100", format!("{what}: the connection broke")).because(error)
        }
        error if error.is_fatal() => {
            failure(SourceErrorKind::Unreachable, "FV-1100", format!("{what}: the connection failed")).because(error)
        }
        error => {
            failure(SourceErrorKind::Refused, "FV-1209", format!("{what}: the answer cannot be read")).because(error)
        }
    }
}

/// A connection's failure.
pub(crate) fn of_io(error: std::io::Error, what: &str) -> SourceError {
    failure(SourceErrorKind::Unreachable, "FV-1100", format!("{what}: the connection broke")).because(error)
}

/// An answer that is not of the protocol.
pub(crate) fn garbled(what: &str) -> SourceError {
    failure(SourceErrorKind::Unreachable, "FV-1122", format!("{what} is not as the protocol says"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: u16, message: &str) -> SourceError {
        of_server(ServerError { code, state: "HY000".into(), message: message.into() }, "reading the log")
    }

    #[test]
    fn an_error_packet_is_read_with_and_without_a_state() {
        let error = ServerError::read(b"\xff\x15\x04#28000Access denied");
        assert_eq!(error.to_string(), "error 1045 (28000): Access denied");
        assert_eq!(
            ServerError::read(b"\xff\x10\x04Too many connections").to_string(),
            "error 1040: Too many connections"
        );
        for broken in [&b""[..], b"\xff", b"\xff\x01", b"\xff\x01\x00#28"] {
            let _ = ServerError::read(broken);
        }
    }

    #[test]
    fn the_one_error_of_dumps_is_told_apart_by_its_text() {
        use SourceErrorKind::{Busy, PositionLost, Refused};
        for (message, code, kind) in [
            ("Could not find first log file name in binary log index file", "FV-1301", PositionLost),
            ("Cannot replicate because the source purged required binary logs.", "FV-1301", PositionLost),
            (
                "The slave is connecting using CHANGE MASTER TO MASTER_AUTO_POSITION = 1, but the master has purged binary logs containing GTIDs that the slave requires.",
                "FV-1301",
                PositionLost,
            ),
            (
                "Could not find GTID state requested by slave in any binlog files. Probably the slave state is too old and required binlog files have been purged.",
                "FV-1301",
                PositionLost,
            ),
            ("Slave has more GTIDs than the master has, using the master's SERVER_UUID.", "FV-1303", PositionLost),
            (
                "Error: connecting slave requested to start from GTID 0-1-9, which is not in the master's binlog",
                "FV-1303",
                PositionLost,
            ),
            (
                "Client requested master to start replication from impossible position; the first event 'b.1' at 9",
                "FV-1304",
                PositionLost,
            ),
            ("Client requested source to start replication from position > file size", "FV-1304", PositionLost),
            ("bogus data in log event; the first event 'b.1' at 9", "FV-1305", PositionLost),
            ("log event entry exceeded max_allowed_packet; Increase max_allowed_packet on master", "FV-1206", Refused),
            (
                "A replica with the same server_uuid/server_id as this replica has connected to the source",
                "FV-1313",
                Busy,
            ),
            ("Binary log is not open", "FV-1202", Refused),
            ("something new", "FV-1209", Refused),
        ] {
            let error = told(1236, message);
            assert_eq!((error.code, error.kind), (code, kind), "{message}");
            assert!(error.source.is_some());
        }
    }

    #[test]
    fn a_missing_privilege_is_named() {
        let error = told(
            1227,
            "Access denied; you need (at least one of) the REPLICATION SLAVE privilege(s) for this operation",
        );
        assert_eq!(error.what, "reading the log: the user lacks the privilege REPLICATION SLAVE");
        let error = told(1142, "SELECT command denied to user 'fig'@'localhost' for table `shop`.`orders`");
        assert_eq!(error.what, "reading the log: the user lacks the privilege SELECT");
        assert_eq!(told(1227, "Zugriff verweigert").code, "FV-1201");
    }
}
