//! The names of transactions: MySQL's events 33, 34, 35 and 42, MariaDB's 162 and 163.

use std::fmt;

use super::reader::{DecodeError, Reader};
use super::xid::Xid;

/// A transaction's beginning in a MySQL log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gtid<'a> {
    /// `gtid_mode` is off: the transaction has no name; `uuid` and `number` are 0.
    pub is_anonymous: bool,
    /// The UUID of the server that committed it first.
    pub uuid: [u8; 16],
    /// Its tag (MySQL 8.3 and later), empty where it has none.
    pub tag: &'a str,
    /// Its number among those of this UUID and tag, from 1.
    pub number: i64,
    /// Statements may stand in it that are logged as such.
    pub may_have_statements: bool,
    /// The transaction before which this one must not begin, counted in the file.
    pub last_committed: i64,
    /// Its own number in the file.
    pub sequence_number: i64,
    /// When it was committed on this server, in microseconds since 1970 (MySQL 8.0.1 and later).
    pub committed_at: Option<u64>,
    /// When it was committed on the server where it came from, in microseconds since 1970.
    pub original_committed_at: Option<u64>,
    /// Length in bytes of all its events, with this one (MySQL 8.0.2 and later).
    pub transaction_length: Option<u64>,
    /// The version of the server that wrote this log, 80036.
    pub server_version: Option<u32>,
    /// The version of the server where it came from.
    pub original_server_version: Option<u32>,
    /// Its group of the commit order manager (MySQL 9.x).
    pub commit_group_ticket: Option<u64>,
}

/// Bit 0 of the flags: not all of it is rows.
const MAY_HAVE_STATEMENTS: u8 = 1;

impl<'a> Gtid<'a> {
    /// Events 33 and 34: fixed fields that grew over the versions.
    pub(super) fn read(reader: &mut Reader<'a>, is_anonymous: bool) -> Result<Self, DecodeError> {
        /// What follows the number: two logical clocks.
        const LOGICAL_CLOCKS: u8 = 2;
        const OTHER_TIME: u64 = 1 << 55;
        const OTHER_VERSION: u32 = 1 << 31;

        let flags = reader.u8("gtid flags")?;
        let mut gtid = Self {
            is_anonymous,
            uuid: reader.array("source uuid")?,
            tag: "",
            number: reader.u64("transaction number")?.cast_signed(),
            may_have_statements: flags & MAY_HAVE_STATEMENTS != 0,
            last_committed: 0,
            sequence_number: 0,
            committed_at: None,
            original_committed_at: None,
            transaction_length: None,
            server_version: None,
            original_server_version: None,
            commit_group_ticket: None,
        };
        if reader.remaining() == 0 || reader.u8("logical clock kind")? != LOGICAL_CLOCKS {
            return Ok(gtid);
        }
        gtid.last_committed = reader.u64("last committed")?.cast_signed();
        gtid.sequence_number = reader.u64("sequence number")?.cast_signed();
        if reader.remaining() < 7 {
            return Ok(gtid);
        }
        let committed_at = reader.u56("commit time")?;
        gtid.committed_at = Some(committed_at & !OTHER_TIME);
        gtid.original_committed_at = gtid.committed_at;
        if committed_at & OTHER_TIME != 0 {
            gtid.original_committed_at = Some(reader.u56("original commit time")?);
        }
        if reader.remaining() == 0 {
            return Ok(gtid);
        }
        gtid.transaction_length = Some(reader.packed("transaction length")?);
        if reader.remaining() < 4 {
            return Ok(gtid);
        }
        let version = reader.u32("server version")?;
        gtid.server_version = Some(version & !OTHER_VERSION);
        gtid.original_server_version = gtid.server_version;
        if version & OTHER_VERSION != 0 {
            gtid.original_server_version = Some(reader.u32("original server version")?);
        }
        if reader.remaining() >= 8 {
            gtid.commit_group_ticket = Some(reader.u64("commit group ticket")?);
        }
        Ok(gtid)
    }

    /// Event 42: a message of MySQL's serialization library, version 1: its
    /// version, its size, the last field that must be understood, then fields by number.
    pub(super) fn read_tagged(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let version = reader.variable("serialization version")?;
        if version != 1 {
            return Err(DecodeError::Unsupported { what: "serialization version", value: version });
        }
        reader.variable("message size")?;
        let must_know = reader.variable("last field that is not ignorable")?;
        let mut gtid = Self {
            is_anonymous: false,
            uuid: [0; 16],
            tag: "",
            number: 0,
            may_have_statements: false,
            last_committed: 0,
            sequence_number: 0,
            committed_at: None,
            original_committed_at: None,
            transaction_length: None,
            server_version: None,
            original_server_version: None,
            commit_group_ticket: None,
        };
        let mut has_uuid = false;
        while reader.remaining() > 0 {
            match reader.variable("field number")? {
                0 => gtid.may_have_statements = byte(reader, "gtid flags")? & MAY_HAVE_STATEMENTS != 0,
                1 => {
                    for to in &mut gtid.uuid {
                        *to = byte(reader, "source uuid")?;
                    }
                    has_uuid = true;
                }
                2 => gtid.number = reader.variable_signed("transaction number")?,
                3 => {
                    let length = reader.variable("tag length")?;
                    gtid.tag = reader.text("tag", usize::try_from(length).unwrap_or(usize::MAX))?;
                }
                4 => gtid.last_committed = reader.variable_signed("last committed")?,
                5 => gtid.sequence_number = reader.variable_signed("sequence number")?,
                6 => gtid.committed_at = Some(reader.variable("commit time")?),
                7 => gtid.original_committed_at = Some(reader.variable("original commit time")?),
                8 => gtid.transaction_length = Some(reader.variable("transaction length")?),
                9 => gtid.server_version = Some(version_number(reader, "server version")?),
                10 => gtid.original_server_version = Some(version_number(reader, "original server version")?),
                11 => gtid.commit_group_ticket = Some(reader.variable("commit group ticket")?),
                // The length of a field is not told: what follows it cannot be read either.
                other if other > must_know => break,
                other => return Err(reader.unknown("gtid field", other)),
            }
        }
        if !has_uuid || gtid.number < 1 {
            return Err(DecodeError::Short { field: "source uuid and transaction number", at: reader.at() as usize });
        }
        gtid.original_committed_at = gtid.original_committed_at.or(gtid.committed_at);
        gtid.original_server_version = gtid.original_server_version.or(gtid.server_version);
        Ok(gtid)
    }
}

fn byte(reader: &mut Reader<'_>, field: &'static str) -> Result<u8, DecodeError> {
    let number = reader.variable(field)?;
    u8::try_from(number).map_err(|_| reader.unknown(field, number))
}

fn version_number(reader: &mut Reader<'_>, field: &'static str) -> Result<u32, DecodeError> {
    let number = reader.variable(field)?;
    u32::try_from(number).map_err(|_| reader.unknown(field, number))
}

impl fmt::Display for Gtid<'_> {
    /// `uuid:number` or `uuid:tag:number`; `ANONYMOUS`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_anonymous {
            return f.write_str("ANONYMOUS");
        }
        write_uuid(&self.uuid, f)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag)?;
        }
        write!(f, ":{}", self.number)
    }
}

fn write_uuid(uuid: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

/// PREVIOUS_GTIDS: what the files before this one hold. `Display` is MySQL's text form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousGtids<'a> {
    /// One entry for each UUID and tag.
    pub entries: Vec<GtidIntervals<'a>>,
}

/// The transactions of one UUID and tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GtidIntervals<'a> {
    /// The UUID.
    pub uuid: [u8; 16],
    /// The tag, empty where there is none.
    pub tag: &'a str,
    /// Numbers, the last one included.
    pub intervals: Vec<(u64, u64)>,
}

impl<'a> PreviousGtids<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        const INTERVAL_BYTES: usize = 16;
        let head = reader.u64("number of sources")?;
        // Since tags exist, the highest byte tells the form; the count then
        // stands between it and the lowest, which repeats it.
        let (count, is_tagged) = match head >> 56 {
            0 => (head, false),
            1 => ((head & 0x00ff_ffff_ffff_ffff) >> 8, true),
            other => return Err(reader.unknown("form of the gtid set", other)),
        };
        let mut entries = Vec::new();
        for _ in 0..count {
            let uuid = reader.array("source uuid")?;
            let tag = if is_tagged {
                let length = reader.variable("tag length")?;
                reader.text("tag", usize::try_from(length).unwrap_or(usize::MAX))?
            } else {
                ""
            };
            let count = reader.u64("number of intervals")?;
            if count > (reader.remaining() / INTERVAL_BYTES) as u64 {
                return Err(DecodeError::Short { field: "intervals", at: reader.at() as usize });
            }
            let mut intervals = Vec::new();
            for _ in 0..count {
                let (first, behind) = (reader.u64("interval's first")?, reader.u64("interval's end")?);
                if first == 0 || behind <= first {
                    return Err(DecodeError::Misfit { what: "interval's end", found: behind, expected: first });
                }
                intervals.push((first, behind - 1));
            }
            entries.push(GtidIntervals { uuid, tag, intervals });
        }
        reader.finish("the gtid set")?;
        Ok(Self { entries })
    }
}

impl fmt::Display for PreviousGtids<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before: Option<&GtidIntervals<'_>> = None;
        for entry in &self.entries {
            match before {
                Some(before) if before.uuid == entry.uuid => {}
                before => {
                    f.write_str(if before.is_some() { "," } else { "" })?;
                    write_uuid(&entry.uuid, f)?;
                }
            }
            if !entry.tag.is_empty() {
                write!(f, ":{}", entry.tag)?;
            }
            for (first, last) in &entry.intervals {
                if first == last { write!(f, ":{first}")? } else { write!(f, ":{first}-{last}")? }
            }
            before = Some(entry);
        }
        Ok(())
    }
}

/// MariaDB's name of a transaction. `Display` is MariaDB's text form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DomainGtid {
    /// The replication domain; numbers count in one domain only.
    pub domain: u32,
    /// The server that committed it first.
    pub server_id: u32,
    /// Its number.
    pub sequence: u64,
}

impl fmt::Display for DomainGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server_id, self.sequence)
    }
}

/// A transaction's beginning in a MariaDB log; it stands for `BEGIN` too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MariadbGtid<'a> {
    /// Its name.
    pub gtid: DomainGtid,
    /// One event without an end (DDL, XA COMMIT) follows, not a transaction.
    pub is_standalone: bool,
    /// It can be rolled back: all of its tables are transactional.
    pub is_transactional: bool,
    /// It is DDL.
    pub is_ddl: bool,
    /// Its group of the group commit.
    pub commit_id: Option<u64>,
    /// It is the first phase of this XA transaction: its rows are not committed yet.
    pub prepared: Option<Xid<'a>>,
    /// It is the second phase of this XA transaction.
    pub completed: Option<Xid<'a>>,
    /// It is one half of an ALTER under `binlog_alter_two_phase`.
    pub alter: Option<AlterPhase>,
    /// Number of engines in it besides the first, where told; 255 where it was not known yet.
    pub extra_engines: Option<u8>,
    /// The connection that wrote it (MariaDB 11.8 and later).
    pub thread_id: Option<u32>,
}

/// A phase of an ALTER under `binlog_alter_two_phase` (MariaDB 10.8 and later).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterPhase {
    /// It has begun: the table is not changed yet.
    Start,
    /// It is done.
    Commit {
        /// Number of the START's GTID.
        start: u64,
    },
    /// It has failed: the table is not changed.
    Rollback {
        /// Number of the START's GTID.
        start: u64,
    },
}

impl<'a> MariadbGtid<'a> {
    /// Event 162. `server_id` stands in the header.
    pub(super) fn read(reader: &mut Reader<'a>, server_id: u32) -> Result<Self, DecodeError> {
        const STANDALONE: u8 = 0x1;
        const GROUP_COMMIT: u8 = 0x2;
        const TRANSACTIONAL: u8 = 0x4;
        const DDL: u8 = 0x20;
        const PREPARED_XA: u8 = 0x40;
        const COMPLETED_XA: u8 = 0x80;
        const MULTI_ENGINE: u8 = 0x1;
        const START_ALTER: u8 = 0x2;
        const COMMIT_ALTER: u8 = 0x4;
        const ROLLBACK_ALTER: u8 = 0x8;
        const THREAD_ID: u8 = 0x10;

        let sequence = reader.u64("sequence number")?;
        let domain = reader.u32("domain")?;
        let flags = reader.u8("gtid flags")?;
        let commit_id = if flags & GROUP_COMMIT != 0 { Some(reader.u64("commit id")?) } else { None };
        let xid = if flags & (PREPARED_XA | COMPLETED_XA) != 0 {
            let format_id = reader.u32("xid format")?.cast_signed();
            let (gtrid, bqual) = (reader.u8("xid length")?, reader.u8("xid length")?);
            Some(Xid::read(reader, format_id, usize::from(gtrid), usize::from(bqual))?)
        } else {
            None
        };
        // Short events are padded with zeros to 19 bytes.
        let extra = if reader.remaining() > 0 { reader.u8("extra flags")? } else { 0 };
        let extra_engines = if extra & MULTI_ENGINE != 0 { Some(reader.u8("extra engines")?) } else { None };
        let alter = match extra & (START_ALTER | COMMIT_ALTER | ROLLBACK_ALTER) {
            0 => None,
            START_ALTER => Some(AlterPhase::Start),
            COMMIT_ALTER => Some(AlterPhase::Commit { start: reader.u64("number of the alter's start")? }),
            ROLLBACK_ALTER => Some(AlterPhase::Rollback { start: reader.u64("number of the alter's start")? }),
            other => return Err(reader.unknown("extra flags", u64::from(other))),
        };
        let thread_id = if extra & THREAD_ID != 0 { Some(reader.u32("thread id")?) } else { None };
        Ok(Self {
            gtid: DomainGtid { domain, server_id, sequence },
            is_standalone: flags & STANDALONE != 0,
            is_transactional: flags & TRANSACTIONAL != 0,
            is_ddl: flags & DDL != 0,
            commit_id,
            prepared: xid.filter(|_| flags & PREPARED_XA != 0),
            completed: xid.filter(|_| flags & COMPLETED_XA != 0),
            alter,
            extra_engines,
            thread_id,
        })
    }
}

/// Event 163: the last transactions before this file, those of one domain in their order.
pub(super) fn gtid_list(reader: &mut Reader<'_>) -> Result<Vec<DomainGtid>, DecodeError> {
    const GTID_BYTES: usize = 16;
    // The highest four bits are flags.
    let count = reader.u32("number of gtids")? & 0x0fff_ffff;
    if count as usize > reader.remaining() / GTID_BYTES {
        return Err(DecodeError::Short { field: "gtid list", at: reader.at() as usize });
    }
    (0..count)
        .map(|_| {
            let (domain, server_id) = (reader.u32("domain")?, reader.u32("server id")?);
            Ok(DomainGtid { domain, server_id, sequence: reader.u64("sequence number")? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event as MariaDB writes it, with zeros up to 19 bytes.
    fn mariadb(flags: u8, tail: &[u8]) -> Vec<u8> {
        let mut bytes = [&7_u64.to_le_bytes()[..], &3_u32.to_le_bytes(), &[flags], tail].concat();
        bytes.resize(bytes.len().max(19), 0);
        bytes
    }

    #[test]
    fn what_mariadb_adds_to_a_gtid_is_read() {
        let plain = mariadb(0x4, &[]);
        let plain = MariadbGtid::read(&mut Reader::new(&plain, 0), 9).expect("valid");
        assert_eq!(plain.gtid.to_string(), "3-9-7");
        assert!(plain.is_transactional && !plain.is_standalone && plain.commit_id.is_none() && plain.alter.is_none());

        let group_and_thread = mariadb(0x2, &[5, 0, 0, 0, 0, 0, 0, 0, 0x10, 1, 2, 0, 0]);
        let read = MariadbGtid::read(&mut Reader::new(&group_and_thread, 0), 9).expect("valid");
        assert_eq!((read.commit_id, read.thread_id), (Some(5), Some(0x201)));

        let commit_alter = mariadb(0x1, &[0x5, 2, 4, 0, 0, 0, 0, 0, 0, 0]);
        let read = MariadbGtid::read(&mut Reader::new(&commit_alter, 0), 9).expect("valid");
        assert_eq!((read.extra_engines, read.alter), (Some(2), Some(AlterPhase::Commit { start: 4 })));

        let prepared = mariadb(0x40, &[1, 0, 0, 0, 2, 1, b'a', b'b', b'c']);
        let read = MariadbGtid::read(&mut Reader::new(&prepared, 0), 9).expect("valid");
        assert_eq!(read.prepared.expect("an xid").to_string(), "X'6162',X'63',1");
        assert_eq!(read.completed, None);
    }

    #[test]
    fn gtids_of_old_servers_end_early() {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&[0xab; 16]);
        bytes.extend_from_slice(&5_u64.to_le_bytes());
        let gtid = Gtid::read(&mut Reader::new(&bytes, 0), false).expect("valid");
        assert_eq!(gtid.to_string(), "abababab-abab-abab-abab-abababababab:5");
        assert!(gtid.may_have_statements && gtid.committed_at.is_none());
    }

    #[test]
    fn counts_that_the_bytes_cannot_hold_are_refused() {
        assert!(gtid_list(&mut Reader::new(&[0xff; 4], 0)).is_err());
        assert!(PreviousGtids::read(&mut Reader::new(&[&[0xff; 6][..], &[0, 0], &[1; 40]].concat(), 0)).is_err());
    }
}
