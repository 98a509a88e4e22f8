//! FORMAT_DESCRIPTION: how the events behind it are written.

use super::header::{HEADER_BYTES, Header, flag, kind};
use super::reader::{DecodeError, Reader};

/// Length of the checksum behind an event.
pub(super) const CHECKSUM_BYTES: usize = 4;

/// The algorithm that is none.
const ALGORITHM_NONE: u8 = 0;

/// What stands behind every event of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// Nothing.
    None,
    /// A CRC-32 (IEEE) of the event's bytes before it.
    Crc32,
}

/// How the events of one log file are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// The version of the server that wrote the log, `11.8.6-MariaDB-log`.
    pub server_version: Box<str>,
    /// When the server started, in seconds since 1970; 0 in a log that it went on with.
    pub created: u32,
    /// What stands behind every event.
    pub checksum: Checksum,
    /// Whether MariaDB wrote the log.
    pub is_mariadb: bool,
    /// Lengths of the fixed part of each type of event, from type 1.
    lengths: Box<[u8]>,
}

impl Format {
    /// Reads the event behind its header; `body` is without the checksum, if
    /// the server writes one.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = reader.u16("log version")?;
        if version != 4 {
            return Err(DecodeError::Version { version });
        }
        let at = reader.at() as usize;
        let name: [u8; 50] = reader.array("server version")?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = std::str::from_utf8(name).map_err(|_| DecodeError::NotText { field: "server version", at })?;
        let created = reader.u32("creation time")?;
        let header = reader.u8("header length")?;
        if usize::from(header) != HEADER_BYTES {
            return Err(DecodeError::Unsupported { what: "header length", value: u64::from(header) });
        }
        let rest = reader.rest();
        // The event of a server that knows checksums ends with the algorithm
        // and, whatever that is, with a checksum of its own.
        let (lengths, checksum) = if knows_checksums(name) {
            let Some((lengths, [algorithm, _, _, _, _])) = rest.split_last_chunk::<{ 1 + CHECKSUM_BYTES }>() else {
                return Err(DecodeError::Short { field: "checksum algorithm", at: reader.at() as usize });
            };
            let checksum = match algorithm {
                &ALGORITHM_NONE => Checksum::None,
                1 => Checksum::Crc32,
                other => {
                    return Err(DecodeError::Unsupported { what: "checksum algorithm", value: u64::from(*other) });
                }
            };
            (lengths, checksum)
        } else {
            (rest, Checksum::None)
        };
        Ok(Self {
            server_version: name.into(),
            created,
            checksum,
            is_mariadb: is_mariadb(name),
            lengths: lengths.into(),
        })
    }

    /// Length of the fixed part of an event of this type; `None` where the server does not know the type.
    #[must_use]
    pub fn fixed_length(&self, type_code: u8) -> Option<u8> {
        self.lengths.get(usize::from(type_code).checked_sub(1)?).copied()
    }

    /// The fixed part of an event, as far as this server writes it: newer servers may write more.
    pub(super) fn fixed<'a>(
        &self,
        reader: &mut Reader<'a>,
        type_code: u8,
        least: usize,
    ) -> Result<Reader<'a>, DecodeError> {
        let at = reader.at();
        let length = self.fixed_length(type_code).map_or(least, usize::from);
        if length < least {
            return Err(DecodeError::Misfit {
                what: "length of the fixed part",
                found: length as u64,
                expected: least as u64,
            });
        }
        Ok(Reader::new(reader.take("fixed part", length)?, at))
    }

    /// A table's id: of 4 bytes before MySQL 5.1.4, since then of 6.
    pub(super) fn table_id(&self, reader: &mut Reader<'_>, type_code: u8) -> Result<u64, DecodeError> {
        match self.fixed_length(type_code) {
            Some(6) => reader.u32("table id").map(u64::from),
            _ => reader.u48("table id"),
        }
    }
}

/// The bytes of an event without its checksum, which is verified before anything is parsed.
///
/// `checksum` is what the last format description told, if there was one.
pub(super) fn verified<'a>(
    header: &Header,
    bytes: &'a [u8],
    checksum: Option<Checksum>,
) -> Result<&'a [u8], DecodeError> {
    match header.type_code {
        kind::FORMAT_DESCRIPTION => verified_format(header, bytes),
        // Of logs too old for a format description.
        kind::START_V3 => Ok(bytes),
        // A server makes one up before it has told a format, with a checksum or
        // without: MySQL and MariaDB differ, and it may belong to the log before.
        kind::ROTATE if header.is_artificial() || checksum.is_none() => Ok(match split(bytes) {
            Some((body, told)) if crc32fast::hash(body) == told => body,
            _ => bytes,
        }),
        _ => match checksum {
            Some(Checksum::None) => Ok(bytes),
            Some(Checksum::Crc32) => {
                let (body, told) = split(bytes).ok_or(DecodeError::Short { field: "checksum", at: bytes.len() })?;
                match crc32fast::hash(body) {
                    found if found == told => Ok(body),
                    found => Err(DecodeError::Checksum { told, found }),
                }
            }
            None => Err(DecodeError::Unformatted),
        },
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], u32)> {
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    (body.len() >= HEADER_BYTES).then_some((body, u32::from_le_bytes(*checksum)))
}

/// The checksum of a format description is computed as if the log were closed.
/// Where events have none, neither may this one's hold: a server that takes the
/// checksums off, or that begins in the middle of a file, changes the event and
/// not the checksum. The bytes are returned whole: that it has one is told inside.
fn verified_format<'a>(header: &Header, bytes: &'a [u8]) -> Result<&'a [u8], DecodeError> {
    const FLAGS_AT: usize = HEADER_BYTES - 2;
    let version = bytes.get(HEADER_BYTES + 2..HEADER_BYTES + 52).unwrap_or_default();
    let version = version.split(|byte| *byte == 0).next().unwrap_or_default();
    if !std::str::from_utf8(version).is_ok_and(knows_checksums) {
        return Ok(bytes);
    }
    let Some((body, told)) = split(bytes) else {
        return Err(DecodeError::Short { field: "checksum", at: bytes.len() });
    };
    let (before, behind) = body.split_at_checked(FLAGS_AT).unwrap_or_default();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(before);
    hasher.update(&(header.flags & !flag::IN_USE).to_le_bytes());
    hasher.update(behind.get(2..).unwrap_or_default());
    match hasher.finalize() {
        found if found == told => Ok(bytes),
        _ if body.last() == Some(&ALGORITHM_NONE) => Ok(bytes),
        found => Err(DecodeError::Checksum { told, found }),
    }
}

fn is_mariadb(version: &str) -> bool {
    version.contains("MariaDB") || version.contains("-maria-")
}

/// Checksums came with MySQL 5.6.1 and MariaDB 5.3.0 (`checksum_version_split` of both).
fn knows_checksums(version: &str) -> bool {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let parts = (next(), next(), next());
    parts >= if is_mariadb(version) { (5, 3, 0) } else { (5, 6, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_know_checksums_are_told_by_their_version() {
        for version in
            ["5.6.1", "5.7.44-log", "8.0.36", "10.11.19-MariaDB-0+deb12u1-log", "5.5.29-MariaDB", "5.3.0-MariaDB"]
        {
            assert!(knows_checksums(version), "{version}");
        }
        for version in ["5.6.0", "5.5.62-log", "5.1.73", "5.0.96", "", "x"] {
            assert!(!knows_checksums(version), "{version}");
        }
    }
}
