//! The binary log, version 4: bytes in, events out. Pure: no I/O, no clock.
//!
//! ```text
//!   bytes of one event ──> Decoder::event ──> Event
//!                             │  checksum first, then the header's type      ├─ TableMapEvent::parse ──> TableMap
//!                             └─ remembers the last format description       ├─ Rows::of(&TableMap) ──> RowReader::next ──> Cells
//!                                                                            ├─ Payload::events ──> append_next ─┐
//!                        Decoder::inner <────────────────────────────────────┴─ Compressed::append_expanded ─────┘
//! ```
//!
//! - Values are not copied: a row becomes [`figvine_change::Cell`]s whose ranges
//!   point into the buffer that the event stands in, without the length in front
//!   of a value that has one.
//! - What is compressed is appended to a buffer of the caller's, event by event,
//!   and decoded there like any other: no transaction is held.
//! - The form of every event stands in MySQL's `libs/mysql/binlog/event` and
//!   MariaDB's `sql/log_event.h`; what the servers add in newer versions stands
//!   behind what is known and is passed over by the lengths that the format
//!   description tells.
//! - A type that is not known is an [`Event::Unknown`]: it may carry rows, so
//!   that the caller has to stop, unless its writer marked it [`Event::Ignorable`].

#![deny(clippy::indexing_slicing)]

pub mod compressed;
pub mod file;
pub mod format;
pub mod gtid;
pub mod header;
pub mod partial_json;
pub mod payload;
pub mod query;
pub mod reader;
pub mod rows;
pub mod table_map;
mod width;
pub mod xid;

use compressed::Compressed;
use format::{Checksum, Format};
use gtid::{DomainGtid, Gtid, MariadbGtid, PreviousGtids};
use header::{HEADER_BYTES, Header, kind, type_name};
use payload::{LongPayload, Payload};
use query::Query;
use reader::{DecodeError, Reader};
use rows::Rows;
use table_map::TableMapEvent;
use xid::Xid;

/// An event that cannot be read. Where it stands is told, and what is wrong in its source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} event (type {type_code}) {} cannot be read", type_name(*.type_code), place(*.at))]
pub struct EventError {
    /// Its type.
    pub type_code: u8,
    /// Where it begins in its file, modulo 4 GiB, as far as its header tells.
    pub at: Option<u32>,
    /// What is wrong.
    #[source]
    pub reason: DecodeError,
}

fn place(at: Option<u32>) -> String {
    at.map_or_else(|| "at no place of its own".to_owned(), |at| format!("at byte {at} of its file"))
}

/// An event of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// How the events from here on are written. [`Decoder::format`] is this now.
    FormatDescription,
    /// The log goes on in another file.
    Rotate {
        /// The file's name, without a directory.
        file: &'a str,
        /// Where in it.
        position: u64,
    },
    /// The server was shut down in order.
    Stop,
    /// A statement.
    Query(Query<'a>),
    /// A transaction of engines that can commit it is committed.
    Xid(u64),
    /// The first phase of an XA transaction: what it did is not committed yet.
    XaPrepare {
        /// It is committed in one phase, here.
        one_phase: bool,
        /// Its name.
        xid: Xid<'a>,
    },
    /// MySQL: a transaction begins.
    Gtid(Gtid<'a>),
    /// MySQL: what the files before hold.
    PreviousGtids(PreviousGtids<'a>),
    /// MariaDB: a transaction begins.
    MariadbGtid(MariadbGtid<'a>),
    /// MariaDB: the last transactions before this file.
    MariadbGtidList(Vec<DomainGtid>),
    /// MariaDB: the oldest file that crash recovery needs.
    BinlogCheckpoint {
        /// Its name.
        file: &'a str,
    },
    /// The shape of a table whose rows follow.
    TableMap(TableMapEvent<'a>),
    /// Rows.
    Rows(Rows<'a>),
    /// A compressed transaction.
    Payload(Payload<'a>),
    /// A compressed event.
    Compressed(Compressed<'a>),
    /// The statement whose rows follow (`binlog_rows_query_log_events`, `binlog_annotate_row_events`).
    RowsQuery {
        /// Its text, in the client's charset.
        statement: &'a [u8],
    },
    /// The log is idle.
    Heartbeat {
        /// The file that is being written.
        file: &'a str,
        /// How far it was read.
        position: u64,
    },
    /// Group replication: who certified what; carries no changes.
    GroupReplication,
    /// What the next statement needs: INTVAR, RAND, USER_VAR; a part of a file that it loads.
    StatementContext,
    /// A type that is not known and that its writer lets readers pass over.
    Ignorable {
        /// The type.
        type_code: u8,
    },
    /// A type that is not known. It may carry rows.
    Unknown {
        /// The type.
        type_code: u8,
    },
}

/// Reads events, with what it must remember of those before: the format.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    format: Option<Format>,
}

impl Decoder {
    /// For a log from its beginning, or a connection from its first event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How events are written now; `None` before the first format description.
    #[must_use]
    pub fn format(&self) -> Option<&Format> {
        self.format.as_ref()
    }

    /// Reads one event as it stands in the log: header, body and, as the format
    /// says, checksum, which is verified before anything is parsed. `bytes`
    /// stand at `base` of the buffer into which all ranges point.
    ///
    /// # Errors
    /// When it is damaged, not understood, or tells that the log is no use
    /// ([`DecodeError::Incident`], [`DecodeError::Encrypted`]).
    pub fn event<'a>(&mut self, bytes: &'a [u8], base: u32) -> Result<(Header, Event<'a>), EventError> {
        let header = header(bytes, base)?;
        self.checked(&header, bytes, base).map(|event| (header, event)).map_err(|reason| EventError {
            type_code: header.type_code,
            at: header.start(),
            reason,
        })
    }

    /// Reads an event out of a payload or a compressed event: it has no checksum.
    ///
    /// # Errors
    /// As [`Decoder::event`].
    pub fn inner<'a>(&self, bytes: &'a [u8], base: u32) -> Result<(Header, Event<'a>), EventError> {
        let header = header(bytes, base)?;
        self.format
            .as_ref()
            .ok_or(DecodeError::Unformatted)
            .and_then(|format| event(&header, bytes, base, format))
            .map(|event| (header, event))
            .map_err(|reason| EventError { type_code: header.type_code, at: header.start(), reason })
    }

    /// Reads the beginning of a TRANSACTION_PAYLOAD that is too long to be held: `head`, of `size` bytes. `crc32` is that
    /// of all but the last four bytes, which are `tail`.
    ///
    /// # Errors
    /// As [`Decoder::event`].
    pub fn long_payload(&self, head: &[u8], size: u64, crc32: u32, tail: [u8; 4]) -> Result<LongPayload, EventError> {
        let header = Header::read(&mut Reader::new(head, 0));
        let at = header.as_ref().ok().and_then(Header::start);
        let read = header.and_then(|header| {
            if u64::from(header.size) != size {
                return Err(DecodeError::Misfit {
                    what: "length of the event",
                    found: size,
                    expected: header.size.into(),
                });
            }
            let format = self.format.as_ref().ok_or(DecodeError::Unformatted)?;
            let size = match format.checksum {
                Checksum::None => size,
                Checksum::Crc32 if crc32 == u32::from_le_bytes(tail) => size - format::CHECKSUM_BYTES as u64,
                Checksum::Crc32 => {
                    return Err(DecodeError::Checksum { told: u32::from_le_bytes(tail), found: crc32 });
                }
            };
            LongPayload::read(&mut split(head, 0)?.1, size)
        });
        read.map_err(|reason| EventError { type_code: kind::TRANSACTION_PAYLOAD, at, reason })
    }

    /// Length of what stands behind each event now, in bytes.
    #[must_use]
    pub fn checksum_bytes(&self) -> usize {
        match self.format.as_ref().map(|format| format.checksum) {
            Some(Checksum::Crc32) => format::CHECKSUM_BYTES,
            _ => 0,
        }
    }

    fn checked<'a>(&mut self, header: &Header, bytes: &'a [u8], base: u32) -> Result<Event<'a>, DecodeError> {
        let checksum = self.format.as_ref().map(|format| format.checksum);
        let bytes = format::verified(header, bytes, checksum)?;
        match (header.type_code, &self.format) {
            (kind::FORMAT_DESCRIPTION, _) => {
                let (_, mut reader) = split(bytes, base)?;
                self.format = Some(Format::read(&mut reader)?);
                Ok(Event::FormatDescription)
            }
            (kind::START_V3, _) => {
                let (_, mut reader) = split(bytes, base)?;
                Err(DecodeError::Version { version: reader.u16("log version")? })
            }
            (_, Some(format)) => event(header, bytes, base, format),
            // The only event that may come before.
            (kind::ROTATE, None) => rotate(&mut split(bytes, base)?.1),
            (_, None) => Err(DecodeError::Unformatted),
        }
    }
}

/// The header of `bytes`, which must be one whole event.
fn header(bytes: &[u8], base: u32) -> Result<Header, EventError> {
    let failed = |reason| EventError { type_code: bytes.get(4).copied().unwrap_or(0), at: None, reason };
    let length = bytes.len() as u64;
    if length + u64::from(base) > u64::from(u32::MAX) {
        return Err(failed(DecodeError::Unsupported { what: "buffer of bytes", value: length + u64::from(base) }));
    }
    let header = Header::read(&mut Reader::new(bytes, base)).map_err(failed)?;
    if u64::from(header.size) != length {
        let reason = DecodeError::Misfit { what: "length of the event", found: length, expected: header.size.into() };
        return Err(EventError { type_code: header.type_code, at: header.start(), reason });
    }
    Ok(header)
}

/// What follows the header, as bytes and as a reader.
fn split(bytes: &[u8], base: u32) -> Result<(&[u8], Reader<'_>), DecodeError> {
    let mut reader = Reader::new(bytes, base);
    reader.take("event header", HEADER_BYTES)?;
    let at = reader.at();
    let body = reader.rest();
    Ok((body, Reader::new(body, at)))
}

/// Reads an event whose `bytes` end before the checksum.
fn event<'a>(header: &Header, bytes: &'a [u8], base: u32, format: &Format) -> Result<Event<'a>, DecodeError> {
    let (body, mut reader) = split(bytes, base)?;
    let (at, reader) = (reader.at(), &mut reader);
    Ok(match header.type_code {
        code @ (kind::WRITE_ROWS_V0..=kind::DELETE_ROWS_V1
        | kind::WRITE_ROWS..=kind::DELETE_ROWS
        | kind::PARTIAL_UPDATE_ROWS) => Event::Rows(Rows::read(reader, code, code, format)?),
        kind::TABLE_MAP => Event::TableMap(TableMapEvent::read(body, at, format)?),
        code @ (kind::QUERY | kind::EXECUTE_LOAD_QUERY) => Event::Query(Query::read(reader, format, code)?),
        kind::XID => Event::Xid(reader.u64("xid")?),
        kind::GTID => Event::Gtid(Gtid::read(reader, false)?),
        kind::ANONYMOUS_GTID => Event::Gtid(Gtid::read(reader, true)?),
        kind::GTID_TAGGED => Event::Gtid(Gtid::read_tagged(reader)?),
        kind::MARIADB_GTID => Event::MariadbGtid(MariadbGtid::read(reader, header.server_id)?),
        kind::TRANSACTION_PAYLOAD => Event::Payload(Payload::read(reader)?),
        kind::QUERY_COMPRESSED..=kind::DELETE_ROWS_COMPRESSED => {
            Event::Compressed(Compressed::read(*header, body, at, format)?)
        }
        kind::ROWS_QUERY => {
            // Its length in one byte, whatever it is.
            reader.u8("statement length")?;
            Event::RowsQuery { statement: reader.rest() }
        }
        kind::ANNOTATE_ROWS => Event::RowsQuery { statement: reader.rest() },
        kind::ROTATE => rotate(reader)?,
        kind::STOP => Event::Stop,
        kind::XA_PREPARE => {
            let one_phase = reader.u8("one phase")? != 0;
            let format_id = reader.u32("xid format")?.cast_signed();
            let (gtrid, bqual) = (reader.u32("xid length")?, reader.u32("xid length")?);
            Event::XaPrepare { one_phase, xid: Xid::read(reader, format_id, gtrid as usize, bqual as usize)? }
        }
        kind::PREVIOUS_GTIDS => Event::PreviousGtids(PreviousGtids::read(reader)?),
        kind::MARIADB_GTID_LIST => Event::MariadbGtidList(gtid::gtid_list(reader)?),
        kind::BINLOG_CHECKPOINT => {
            let length = reader.u32("length of the file's name")?;
            Event::BinlogCheckpoint { file: reader.text("file", length as usize)? }
        }
        kind::HEARTBEAT => {
            let length = reader.remaining();
            Event::Heartbeat { file: reader.text("file", length)?, position: u64::from(header.end) }
        }
        kind::HEARTBEAT_V2 => heartbeat(reader)?,
        kind::INCIDENT => return Err(DecodeError::Incident { number: reader.u16("incident")? }),
        kind::START_ENCRYPTION => return Err(DecodeError::Encrypted),
        kind::TRANSACTION_CONTEXT | kind::VIEW_CHANGE => Event::GroupReplication,
        kind::INTVAR
        | kind::RAND
        | kind::USER_VAR
        | kind::APPEND_BLOCK
        | kind::DELETE_FILE
        | kind::BEGIN_LOAD_QUERY => Event::StatementContext,
        // The format of what follows inside a compressed transaction is that of the log.
        kind::FORMAT_DESCRIPTION => {
            return Err(DecodeError::Unsupported { what: "event in a payload, of type", value: 15 });
        }
        type_code @ kind::IGNORABLE => Event::Ignorable { type_code },
        type_code if header.is_ignorable() => Event::Ignorable { type_code },
        type_code => Event::Unknown { type_code },
    })
}

fn rotate<'a>(reader: &mut Reader<'a>) -> Result<Event<'a>, DecodeError> {
    let position = reader.u64("position")?;
    Ok(Event::Rotate { file: file_name(reader)?, position })
}

/// All that is left, as the name of a file. A checksum that was not taken off shows here.
fn file_name<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let at = reader.at() as usize;
    let name = reader.text("file", reader.remaining())?;
    if name.is_empty() || name.chars().any(char::is_control) {
        return Err(DecodeError::NotText { field: "file", at });
    }
    Ok(name)
}

/// HEARTBEAT_LOG_EVENT_V2: fields by number. Its position may lie beyond 4 GiB.
fn heartbeat<'a>(reader: &mut Reader<'a>) -> Result<Event<'a>, DecodeError> {
    let (mut file, mut position) = ("", 0);
    while reader.remaining() > 0 {
        let field = reader.packed("heartbeat field")?;
        if field == 0 {
            break;
        }
        let length = reader.packed_length("heartbeat field")?;
        let at = reader.at();
        let mut value = Reader::new(reader.take("heartbeat field", length)?, at);
        match field {
            1 => file = file_name(&mut value)?,
            2 => position = value.packed("position")?,
            _ => {}
        }
    }
    Ok(Event::Heartbeat { file, position })
}
