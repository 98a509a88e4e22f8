//! The 19 bytes before every event.

use super::reader::{DecodeError, Reader};

/// Length of a header in bytes.
pub const HEADER_BYTES: usize = 19;

/// The types of events that are known, by MySQL's `Log_event_type` and MariaDB's.
pub mod kind {
    #![expect(missing_docs, reason = "the servers' own names")]

    pub const START_V3: u8 = 1;
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const LOAD: u8 = 6;
    pub const SLAVE: u8 = 7;
    pub const CREATE_FILE: u8 = 8;
    pub const APPEND_BLOCK: u8 = 9;
    pub const EXEC_LOAD: u8 = 10;
    pub const DELETE_FILE: u8 = 11;
    pub const NEW_LOAD: u8 = 12;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_ROWS_V0: u8 = 20;
    pub const UPDATE_ROWS_V0: u8 = 21;
    pub const DELETE_ROWS_V0: u8 = 22;
    pub const WRITE_ROWS_V1: u8 = 23;
    pub const UPDATE_ROWS_V1: u8 = 24;
    pub const DELETE_ROWS_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const IGNORABLE: u8 = 28;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE_ROWS: u8 = 30;
    pub const UPDATE_ROWS: u8 = 31;
    pub const DELETE_ROWS: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const TRANSACTION_CONTEXT: u8 = 36;
    pub const VIEW_CHANGE: u8 = 37;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
    pub const ANNOTATE_ROWS: u8 = 160;
    pub const BINLOG_CHECKPOINT: u8 = 161;
    pub const MARIADB_GTID: u8 = 162;
    pub const MARIADB_GTID_LIST: u8 = 163;
    pub const START_ENCRYPTION: u8 = 164;
    pub const QUERY_COMPRESSED: u8 = 165;
    pub const WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub const UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub const DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    pub const WRITE_ROWS_COMPRESSED: u8 = 169;
    pub const UPDATE_ROWS_COMPRESSED: u8 = 170;
    pub const DELETE_ROWS_COMPRESSED: u8 = 171;
}

/// Flags of an event, as MySQL's `log_event.h` defines them; MariaDB adds the last.
pub mod flag {
    /// Of a format description: the log is being written, or was not closed in order.
    pub const IN_USE: u16 = 0x1;
    /// Made up for this reader; it stands in no log.
    pub const ARTIFICIAL: u16 = 0x20;
    /// Who does not know the type may pass over it.
    pub const IGNORABLE: u16 = 0x80;
    /// MariaDB: written under `skip_replication`.
    pub const SKIP_REPLICATION: u16 = 0x8000;
}

/// An event's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// When the statement began, in seconds since 1970; 0 in artificial events.
    pub timestamp: u32,
    /// What follows: one of [`kind`].
    pub type_code: u8,
    /// The server that wrote it.
    pub server_id: u32,
    /// Length in bytes, with header and checksum.
    pub size: u32,
    /// Where the event ends in its file, modulo 4 GiB; 0 where that is not told
    /// (inside payloads; rows of MariaDB 11 and later; artificial events).
    pub end: u32,
    /// See [`flag`].
    pub flags: u16,
}

impl Header {
    /// Reads a header that stands at the reader's place.
    ///
    /// # Errors
    /// When fewer bytes are left, or the size it tells is smaller than itself.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let header = Self {
            timestamp: reader.u32("timestamp")?,
            type_code: reader.u8("event type")?,
            server_id: reader.u32("server id")?,
            size: reader.u32("event size")?,
            end: reader.u32("event end")?,
            flags: reader.u16("event flags")?,
        };
        if (header.size as usize) < HEADER_BYTES {
            return Err(DecodeError::Misfit {
                what: "event size",
                found: u64::from(header.size),
                expected: HEADER_BYTES as u64,
            });
        }
        Ok(header)
    }

    /// Made up for this reader; it stands in no log.
    #[must_use]
    pub fn is_artificial(&self) -> bool {
        self.flags & flag::ARTIFICIAL != 0
    }

    /// Who does not know the type may pass over it.
    #[must_use]
    pub fn is_ignorable(&self) -> bool {
        self.flags & flag::IGNORABLE != 0
    }

    /// Where the event begins in its file, as far as the header tells.
    #[must_use]
    pub fn start(&self) -> Option<u32> {
        if self.is_artificial() || self.end == 0 || self.type_code == kind::START_V3 {
            None
        } else {
            Some(self.end.wrapping_sub(self.size))
        }
    }
}

/// The server's name for a type of event, for people.
#[must_use]
pub fn type_name(type_code: u8) -> &'static str {
    match type_code {
        kind::START_V3 => "START_V3",
        kind::QUERY => "QUERY",
        kind::STOP => "STOP",
        kind::ROTATE => "ROTATE",
        kind::INTVAR => "INTVAR",
        kind::LOAD => "LOAD",
        kind::SLAVE => "SLAVE",
        kind::CREATE_FILE => "CREATE_FILE",
        kind::APPEND_BLOCK => "APPEND_BLOCK",
        kind::EXEC_LOAD => "EXEC_LOAD",
        kind::DELETE_FILE => "DELETE_FILE",
        kind::NEW_LOAD => "NEW_LOAD",
        kind::RAND => "RAND",
        kind::USER_VAR => "USER_VAR",
        kind::FORMAT_DESCRIPTION => "FORMAT_DESCRIPTION",
        kind::XID => "XID",
        kind::BEGIN_LOAD_QUERY => "BEGIN_LOAD_QUERY",
        kind::EXECUTE_LOAD_QUERY => "EXECUTE_LOAD_QUERY",
        kind::TABLE_MAP => "TABLE_MAP",
        kind::WRITE_ROWS_V0 => "WRITE_ROWS_V0",
        kind::UPDATE_ROWS_V0 => "UPDATE_ROWS_V0",
        kind::DELETE_ROWS_V0 => "DELETE_ROWS_V0",
        kind::WRITE_ROWS_V1 => "WRITE_ROWS_V1",
        kind::UPDATE_ROWS_V1 => "UPDATE_ROWS_V1",
        kind::DELETE_ROWS_V1 => "DELETE_ROWS_V1",
        kind::INCIDENT => "INCIDENT",
        kind::HEARTBEAT => "HEARTBEAT",
        kind::IGNORABLE => "IGNORABLE",
        kind::ROWS_QUERY => "ROWS_QUERY",
        kind::WRITE_ROWS => "WRITE_ROWS",
        kind::UPDATE_ROWS => "UPDATE_ROWS",
        kind::DELETE_ROWS => "DELETE_ROWS",
        kind::GTID => "GTID",
        kind::ANONYMOUS_GTID => "ANONYMOUS_GTID",
        kind::PREVIOUS_GTIDS => "PREVIOUS_GTIDS",
        kind::TRANSACTION_CONTEXT => "TRANSACTION_CONTEXT",
        kind::VIEW_CHANGE => "VIEW_CHANGE",
        kind::XA_PREPARE => "XA_PREPARE",
        kind::PARTIAL_UPDATE_ROWS => "PARTIAL_UPDATE_ROWS",
        kind::TRANSACTION_PAYLOAD => "TRANSACTION_PAYLOAD",
        kind::HEARTBEAT_V2 => "HEARTBEAT_V2",
        kind::GTID_TAGGED => "GTID_TAGGED",
        kind::ANNOTATE_ROWS => "ANNOTATE_ROWS",
        kind::BINLOG_CHECKPOINT => "BINLOG_CHECKPOINT",
        kind::MARIADB_GTID => "MARIADB_GTID",
        kind::MARIADB_GTID_LIST => "MARIADB_GTID_LIST",
        kind::START_ENCRYPTION => "START_ENCRYPTION",
        kind::QUERY_COMPRESSED => "QUERY_COMPRESSED",
        kind::WRITE_ROWS_COMPRESSED_V1 => "WRITE_ROWS_COMPRESSED_V1",
        kind::UPDATE_ROWS_COMPRESSED_V1 => "UPDATE_ROWS_COMPRESSED_V1",
        kind::DELETE_ROWS_COMPRESSED_V1 => "DELETE_ROWS_COMPRESSED_V1",
        kind::WRITE_ROWS_COMPRESSED => "WRITE_ROWS_COMPRESSED",
        kind::UPDATE_ROWS_COMPRESSED => "UPDATE_ROWS_COMPRESSED",
        kind::DELETE_ROWS_COMPRESSED => "DELETE_ROWS_COMPRESSED",
        _ => "unknown",
    }
}
