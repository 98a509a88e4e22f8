//! A cursor over one event; every read names its field in its error.

use std::ops::Range;

/// The bytes are not what the protocol says, or something that is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The event ends inside a field.
    #[error("the event ends inside {field}, at byte {at}")]
    Short {
        /// The field.
        field: &'static str,
        /// Offset in the buffer.
        at: usize,
    },
    /// A number is none of those that may stand there.
    #[error("unknown {field} {value:#x} at byte {at}")]
    Unknown {
        /// The field.
        field: &'static str,
        /// What stands there.
        value: u64,
        /// Offset in the buffer.
        at: usize,
    },
    /// A name is not UTF-8.
    #[error("{field} at byte {at} is not UTF-8")]
    NotText {
        /// The field.
        field: &'static str,
        /// Offset in the buffer.
        at: usize,
    },
    /// Bytes are left over.
    #[error("{count} bytes are left behind {field}, at byte {at}")]
    Left {
        /// What was read.
        field: &'static str,
        /// How many.
        count: usize,
        /// Offset in the buffer.
        at: usize,
    },
    /// The event was damaged.
    #[error("the checksum does not hold: the event tells {told:#010x}, its bytes give {found:#010x}")]
    Checksum {
        /// What stands behind the event.
        told: u32,
        /// What its bytes give.
        found: u32,
    },
    /// An event before the log told its format.
    #[error("no format description precedes the event")]
    Unformatted,
    /// A log of MySQL 4.1 or older.
    #[error("binary log version {version} is not supported, only 4 is")]
    Version {
        /// The log's version.
        version: u16,
    },
    /// Something that no supported server writes.
    #[error("{what} {value} is not supported")]
    Unsupported {
        /// What it is.
        what: &'static str,
        /// Its number.
        value: u64,
    },
    /// Two parts of the log contradict each other.
    #[error("{what}: {found} where {expected} is expected")]
    Misfit {
        /// What.
        what: &'static str,
        /// What stands there.
        found: u64,
        /// What should.
        expected: u64,
    },
    /// The log is encrypted (`encrypt_binlog`) and was read past the server.
    #[error("the log is encrypted")]
    Encrypted,
    /// The server tells that its log misses changes.
    #[error("incident {number} in the log: the server lost changes")]
    Incident {
        /// 1: lost events.
        number: u16,
    },
    /// Compressed bytes that do not decompress to what the event tells.
    #[error("{what} does not decompress: {reason}")]
    Compression {
        /// What was compressed.
        what: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A cursor; numbers are little-endian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Offset of `rest` in the buffer.
    at: u32,
}

impl<'a> Reader<'a> {
    /// Over bytes that stand at `at` of their buffer.
    #[must_use]
    pub fn new(bytes: &'a [u8], at: u32) -> Self {
        Self { rest: bytes, at }
    }

    /// Bytes left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Offset of the next byte in the buffer.
    #[must_use]
    pub fn at(&self) -> u32 {
        self.at
    }

    #[inline]
    pub(super) fn take(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else { return Err(self.short(field)) };
        self.rest = rest;
        self.advance(length);
        Ok(taken)
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        let rest = std::mem::take(&mut self.rest);
        self.advance(rest.len());
        rest
    }

    #[cold]
    fn short(&self, field: &'static str) -> DecodeError {
        DecodeError::Short { field, at: self.at as usize }
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the bytes taken lie in a buffer shorter than 4 GiB")]
    fn advance(&mut self, length: usize) {
        self.at = self.at.wrapping_add(length as u32);
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else { return Err(self.short(field)) };
        self.rest = rest;
        self.advance(N);
        Ok(*taken)
    }

    #[inline]
    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_le_bytes)
    }

    #[inline]
    pub(super) fn u24(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    #[inline]
    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u48(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(|[a, b, c, d, e, f]| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]))
    }

    pub(super) fn u56(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(|[a, b, c, d, e, f, g]| u64::from_le_bytes([a, b, c, d, e, f, g, 0]))
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A number of 1 to 9 bytes, as the client protocol packs lengths.
    #[inline]
    pub(super) fn packed(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        match self.u8(field)? {
            byte @ 0..=250 => Ok(u64::from(byte)),
            252 => self.u16(field).map(u64::from),
            253 => self.u24(field).map(u64::from),
            254 => self.u64(field),
            other => Err(self.unknown(field, u64::from(other))),
        }
    }

    /// A packed length, of bytes or of things that take a byte at least each.
    #[inline]
    pub(super) fn packed_length(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let length = self.packed(field)?;
        usize::try_from(length).ok().filter(|length| *length <= self.remaining()).ok_or_else(|| self.short(field))
    }

    /// Bytes behind their packed length.
    pub(super) fn packed_bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.packed_length(field)?;
        self.take(field, length)
    }

    /// A number of 1 to 9 bytes of MySQL's serialization library: as many low
    /// 1 bits as bytes follow the first, then the number.
    pub(super) fn variable(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let first = self.u8(field)?;
        let extra = first.trailing_ones() as usize;
        let mut bytes = [0; 8];
        let tail = self.take(field, extra)?;
        for (to, from) in bytes.iter_mut().zip(tail) {
            *to = *from;
        }
        let high = u64::from_le_bytes(bytes);
        Ok(match extra {
            // The first byte is all marker.
            7 | 8 => high,
            _ => high << (7 - extra) | u64::from(first) >> (extra + 1),
        })
    }

    /// The same for a signed number, whose lowest bit is its sign.
    pub(super) fn variable_signed(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        let number = self.variable(field)?;
        let magnitude = (number >> 1).cast_signed();
        Ok(if number & 1 == 1 { !magnitude } else { magnitude })
    }

    /// The next `length` bytes as a range of the buffer.
    #[inline]
    pub(super) fn range(&mut self, field: &'static str, length: usize) -> Result<Range<u32>, DecodeError> {
        let start = self.at;
        self.take(field, length)?;
        Ok(start..self.at)
    }

    /// Bytes that end with NUL, without it.
    pub(super) fn until_nul(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = memchr::memchr(0, self.rest).ok_or_else(|| self.short(field))?;
        let bytes = self.take(field, length)?;
        self.u8(field)?;
        Ok(bytes)
    }

    /// The next `length` bytes as text.
    pub(super) fn text(&mut self, field: &'static str, length: usize) -> Result<&'a str, DecodeError> {
        let at = self.at as usize;
        std::str::from_utf8(self.take(field, length)?).map_err(|_| DecodeError::NotText { field, at })
    }

    /// The byte just read is none of those that may stand there.
    #[cold]
    pub(super) fn unknown(&self, field: &'static str, value: u64) -> DecodeError {
        DecodeError::Unknown { field, value, at: (self.at as usize).saturating_sub(1) }
    }

    pub(super) fn finish(&self, field: &'static str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::Left { field, count, at: self.at as usize }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_numbers_read_as_the_client_protocol_packs_them() {
        for (bytes, number) in [
            (&[250][..], 250),
            (&[252, 1, 2], 0x201),
            (&[253, 1, 2, 3], 0x30201),
            (&[254, 1, 0, 0, 0, 0, 0, 0, 0x80], 0x8000_0000_0000_0001),
        ] {
            assert_eq!(Reader::new(bytes, 0).packed("number"), Ok(number));
        }
        assert_eq!(Reader::new(&[251], 5).packed("n"), Err(DecodeError::Unknown { field: "n", value: 251, at: 5 }));
    }

    #[test]
    fn variable_numbers_read_as_the_serialization_library_writes_them() {
        for (bytes, number) in [
            (&[0b1111_1110][..], 127),
            (&[0b0000_0001, 0b10], 128),
            (&[0b0000_0011, 0, 0b1], 1 << 13),
            (&[0b0111_1111, 1, 0, 0, 0, 0, 0, 0x80], 1 | 0x80 << 48),
            (&[0xff, 1, 0, 0, 0, 0, 0, 0, 0x80], 1 | 0x80 << 56),
        ] {
            assert_eq!(Reader::new(bytes, 0).variable("number"), Ok(number), "{bytes:?}");
        }
        assert_eq!(Reader::new(&[0b110], 0).variable_signed("number"), Ok(!1));
        assert_eq!(Reader::new(&[0b100], 0).variable_signed("number"), Ok(1));
    }
}
