//! A cursor over one message; every read names its field in its error.

use std::ops::Range;

use super::EPOCH_2000_US;

/// The bytes are not what the protocol says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends inside a field.
    #[error("the message ends inside {field}, at byte {at}")]
    Short {
        /// The field.
        field: &'static str,
        /// Offset in the chunk.
        at: usize,
    },
    /// A byte is none of those that may stand there.
    #[error("unknown {field} {value:#04x} at byte {at}")]
    Unknown {
        /// The field.
        field: &'static str,
        /// What stands there.
        value: u8,
        /// Offset in the chunk.
        at: usize,
    },
    /// A name is not UTF-8.
    #[error("{field} at byte {at} is not UTF-8")]
    NotText {
        /// The field.
        field: &'static str,
        /// Offset in the chunk.
        at: usize,
    },
    /// Bytes are left over.
    #[error("{count} bytes are left behind a {field}, at byte {at}")]
    Left {
        /// What was read.
        field: &'static str,
        /// How many.
        count: usize,
        /// Offset in the chunk.
        at: usize,
    },
    /// A row does not fit the table it is of.
    #[error("a row of {cells} columns for a table of {columns}")]
    Misfit {
        /// The row's.
        cells: u32,
        /// The table's.
        columns: usize,
    },
    /// A message at a place where it cannot stand.
    #[error("{message} {place}")]
    Misplaced {
        /// The message.
        message: &'static str,
        /// Where.
        place: &'static str,
    },
    /// A row of a table whose shape was never told.
    #[error("a change of relation {oid}, whose shape was not told")]
    UnknownRelation {
        /// The table's id.
        oid: u32,
    },
}

/// A cursor.
#[derive(Debug, PartialEq, Eq)]
pub struct Reader<'a> {
    rest: &'a [u8],
    /// Offset of `rest` in the chunk.
    at: u32,
}

impl<'a> Reader<'a> {
    /// Over bytes that stand at `at` of their chunk.
    #[must_use]
    pub fn new(bytes: &'a [u8], at: u32) -> Self {
        Self { rest: bytes, at }
    }

    /// Bytes left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next byte, without taking it.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    #[inline]
    pub(super) fn take(&mut self, field: &'static str, length: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(DecodeError::Short { field, at: self.at as usize });
        };
        self.rest = rest;
        self.advance(length);
        Ok(taken)
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the bytes taken lie in a chunk shorter than 4 GiB")]
    fn advance(&mut self, length: usize) {
        self.at = self.at.wrapping_add(length as u32);
    }

    #[inline]
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Short { field, at: self.at as usize });
        };
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
        self.array(field).map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// Microseconds since 1970.
    pub(super) fn timestamp(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(|bytes| i64::from_be_bytes(bytes).saturating_add(EPOCH_2000_US))
    }

    /// The next `length` bytes as a range of the chunk.
    #[inline]
    pub(super) fn range(&mut self, field: &'static str, length: usize) -> Result<Range<u32>, DecodeError> {
        let start = self.at;
        self.take(field, length)?;
        Ok(start..self.at)
    }

    /// A text that ends with NUL, as a range of the chunk without it.
    pub(super) fn text_range(&mut self, field: &'static str) -> Result<Range<u32>, DecodeError> {
        let start = self.at;
        self.text(field)?;
        Ok(start..self.at.wrapping_sub(1))
    }

    /// A text that ends with NUL.
    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let at = self.at as usize;
        let length = memchr::memchr(0, self.rest).ok_or(DecodeError::Short { field, at })?;
        let text = self.take(field, length)?;
        self.u8(field)?;
        std::str::from_utf8(text).map_err(|_| DecodeError::NotText { field, at })
    }

    pub(super) fn expect(&mut self, field: &'static str, value: u8) -> Result<(), DecodeError> {
        match self.u8(field)? {
            byte if byte == value => Ok(()),
            other => Err(self.unknown(field, other)),
        }
    }

    pub(super) fn unknown(&self, field: &'static str, value: u8) -> DecodeError {
        DecodeError::Unknown { field, value, at: (self.at as usize).saturating_sub(1) }
    }

    pub(super) fn finish(&self, field: &'static str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::Left { field, count, at: self.at as usize }),
        }
    }
}
