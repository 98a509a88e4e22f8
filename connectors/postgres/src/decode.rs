//! pgoutput, protocol version 1: bytes in, messages out. Pure: no I/O, no clock.
//!
//! The form of every message stands in PostgreSQL's documentation, "Logical
//! Replication Message Formats" and "Streaming Replication Protocol".
//!
//! Values are not copied: a tuple becomes [`Cell`]s whose ranges point into the
//! chunk that the message came in.

#![deny(clippy::indexing_slicing)]

pub mod reader;

use figvine_change::{Cell, Row};

use reader::{DecodeError, Reader};

/// Microseconds from 1970 to 2000, where PostgreSQL's clock begins.
const EPOCH_2000_US: i64 = 946_684_800_000_000;

/// What a CopyData frame of a walsender holds.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `w`: a part of the log, for pgoutput one message.
    XLogData {
        /// Where the record stands; 0 for messages that stand for none (RELATION, BEGIN's are its transaction's).
        start: u64,
        /// When the server sent it, microseconds since 1970.
        sent_at: i64,
        /// The output plugin's message, with its offset in the frame.
        message: Reader<'a>,
    },
    /// `k`: how far the server has read its log.
    Keepalive {
        /// All that was committed before this place was sent.
        wal_end: u64,
        /// When the server sent it, microseconds since 1970.
        sent_at: i64,
        /// Whether the server wants an answer at once.
        reply: bool,
    },
}

/// Reads the payload of a CopyData frame that stands at `base` of its chunk.
///
/// # Errors
/// When it is none of the two forms.
pub fn frame(payload: &[u8], base: u32) -> Result<Frame<'_>, DecodeError> {
    let mut reader = Reader::new(payload, base);
    match reader.u8("frame type")? {
        b'w' => {
            let start = reader.u64("log start")?;
            let _wal_end = reader.u64("log end")?;
            let sent_at = reader.timestamp("send time")?;
            Ok(Frame::XLogData { start, sent_at, message: reader })
        }
        b'k' => {
            let wal_end = reader.u64("log end")?;
            let sent_at = reader.timestamp("send time")?;
            let reply = reader.u8("reply requested")? != 0;
            Ok(Frame::Keepalive { wal_end, sent_at, reply })
        }
        other => Err(reader.unknown("frame type", other)),
    }
}

/// A pgoutput message.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// `B`: a transaction begins.
    Begin {
        /// Where its commit record stands.
        commit_lsn: u64,
        /// Commit time, microseconds since 1970.
        committed_at: i64,
        /// Its transaction id.
        xid: u32,
    },
    /// `C`: the transaction ends.
    Commit {
        /// Where its commit record stands.
        commit_lsn: u64,
        /// Behind its commit record.
        end_lsn: u64,
        /// Commit time, microseconds since 1970.
        committed_at: i64,
    },
    /// `O`: the transaction came from another node.
    Origin {
        /// The origin's name.
        name: &'a str,
    },
    /// `R`: the shape of a table whose rows follow.
    Relation(Relation<'a>),
    /// `Y`: the name of a type; the catalogue tells more.
    Type {
        /// The type's id.
        oid: u32,
    },
    /// `I`: a row was inserted.
    Insert {
        /// The table's id.
        relation: u32,
        /// The row.
        new: Row,
    },
    /// `U`: a row was changed.
    Update {
        /// The table's id.
        relation: u32,
        /// The row before, where the log has it.
        old: Option<Old>,
        /// The row after.
        new: Row,
    },
    /// `D`: a row was removed.
    Delete {
        /// The table's id.
        relation: u32,
        /// The row before.
        old: Old,
    },
    /// `T`: tables were emptied.
    Truncate {
        /// The tables' ids, big-endian, four bytes each.
        relations: Relations<'a>,
    },
    /// `M`: a message that an application wrote into the log.
    Logical {
        /// Whether it belongs to the transaction around it.
        transactional: bool,
        /// Where its record ends.
        lsn: u64,
        /// Its prefix, a range of the chunk.
        prefix: std::ops::Range<u32>,
        /// Its content, a range of the chunk.
        content: std::ops::Range<u32>,
    },
}

/// The row before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Old {
    /// The row.
    pub row: Row,
    /// `K`: only the replica identity's columns are told; the others read as null and are not.
    pub is_key: bool,
}

/// A RELATION message.
#[derive(Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    /// The table's id.
    pub oid: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// `pg_class.relreplident`: d default, n nothing, f full, i index.
    pub identity: u8,
    /// Its columns, in the order of the tuples.
    pub columns: Vec<RelationColumn<'a>>,
}

/// A column of a RELATION message.
#[derive(Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Whether it belongs to the replica identity (all do under FULL).
    pub identity: bool,
    /// Its name.
    pub name: &'a str,
    /// Its type's id.
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub modifier: i32,
}

/// The ids of a TRUNCATE message.
#[derive(Debug, PartialEq, Eq)]
pub struct Relations<'a>(&'a [u8]);

impl Relations<'_> {
    /// The ids, in the order of the statement.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.as_chunks::<4>().0.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}

/// Reads one message; the cells of its tuples are appended to `cells`.
///
/// # Errors
/// When the bytes are no message of protocol version 1.
pub fn message<'a>(mut reader: Reader<'a>, cells: &mut Vec<Cell>) -> Result<Message<'a>, DecodeError> {
    let message = match reader.u8("message type")? {
        b'I' => {
            let relation = reader.u32("relation id")?;
            reader.expect("new tuple", b'N')?;
            Message::Insert { relation, new: tuple(&mut reader, cells)? }
        }
        b'U' => {
            let relation = reader.u32("relation id")?;
            let (old, marker) = match reader.u8("tuple marker")? {
                marker @ (b'K' | b'O') => {
                    let old = Old { row: tuple(&mut reader, cells)?, is_key: marker == b'K' };
                    (Some(old), reader.u8("tuple marker")?)
                }
                marker => (None, marker),
            };
            if marker != b'N' {
                return Err(reader.unknown("tuple marker", marker));
            }
            Message::Update { relation, old, new: tuple(&mut reader, cells)? }
        }
        b'D' => {
            let relation = reader.u32("relation id")?;
            let is_key = match reader.u8("tuple marker")? {
                b'K' => true,
                b'O' => false,
                other => return Err(reader.unknown("tuple marker", other)),
            };
            Message::Delete { relation, old: Old { row: tuple(&mut reader, cells)?, is_key } }
        }
        b'B' => Message::Begin {
            commit_lsn: reader.u64("final lsn")?,
            committed_at: reader.timestamp("commit time")?,
            xid: reader.u32("xid")?,
        },
        b'C' => {
            reader.u8("flags")?;
            Message::Commit {
                commit_lsn: reader.u64("commit lsn")?,
                end_lsn: reader.u64("end lsn")?,
                committed_at: reader.timestamp("commit time")?,
            }
        }
        b'R' => Message::Relation(relation(&mut reader)?),
        b'Y' => {
            let oid = reader.u32("type id")?;
            reader.text("type schema")?;
            reader.text("type name")?;
            Message::Type { oid }
        }
        b'O' => {
            reader.u64("origin lsn")?;
            Message::Origin { name: reader.text("origin name")? }
        }
        b'T' => {
            let count = reader.u32("number of relations")? as usize;
            reader.u8("truncate options")?;
            let length = count.checked_mul(4).ok_or_else(|| reader.unknown("number of relations", 0xff))?;
            Message::Truncate { relations: Relations(reader.take("relation ids", length)?) }
        }
        b'M' => {
            let transactional = reader.u8("flags")? & 1 != 0;
            let lsn = reader.u64("message lsn")?;
            let prefix = reader.text_range("message prefix")?;
            let length = reader.u32("content length")? as usize;
            Message::Logical { transactional, lsn, prefix, content: reader.range("content", length)? }
        }
        other => return Err(reader.unknown("message type", other)),
    };
    reader.finish("message")?;
    Ok(message)
}

fn relation<'a>(reader: &mut Reader<'a>) -> Result<Relation<'a>, DecodeError> {
    let oid = reader.u32("relation id")?;
    let schema = reader.text("schema")?;
    let name = reader.text("table")?;
    let identity = reader.u8("replica identity")?;
    let count = reader.u16("number of columns")?;
    // A column takes ten bytes at least: the server's number is not trusted further than its bytes go.
    let mut columns = Vec::with_capacity(usize::from(count).min(reader.remaining() / 10 + 1));
    for _ in 0..count {
        columns.push(RelationColumn {
            identity: reader.u8("column flags")? & 1 != 0,
            name: reader.text("column name")?,
            type_oid: reader.u32("column type")?,
            modifier: reader.i32("column type modifier")?,
        });
    }
    Ok(Relation { oid, schema, name, identity, columns })
}

/// Reads TupleData.
#[expect(clippy::cast_possible_truncation, reason = "a chunk is shorter than 4 GiB, a cell takes a byte at least")]
fn tuple(reader: &mut Reader<'_>, cells: &mut Vec<Cell>) -> Result<Row, DecodeError> {
    let len = u32::from(reader.u16("number of columns")?);
    let first = cells.len() as u32;
    for _ in 0..len {
        cells.push(match reader.u8("column kind")? {
            b't' => {
                let length = reader.u32("value length")? as usize;
                Cell::Value(reader.range("value", length)?)
            }
            b'n' => Cell::Null,
            b'u' => Cell::Unchanged,
            // `b`, binary, comes only where it was asked for.
            other => return Err(reader.unknown("column kind", other)),
        });
    }
    Ok(Row { first, len })
}
