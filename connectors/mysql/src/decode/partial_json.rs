//! What PARTIAL_UPDATE_ROWS holds in place of a JSON value: differences to the value before.

use super::reader::{DecodeError, Reader};

/// What a difference does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffKind {
    /// Sets what stands at the path.
    Replace,
    /// Inserts before the path's element, or as its member.
    Insert,
    /// Removes what stands at the path.
    Remove,
}

/// One difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diff<'a> {
    /// What it does.
    pub kind: DiffKind,
    /// The path, as MySQL writes it: `$.list[1]`.
    pub path: &'a [u8],
    /// The value in MySQL's binary form; empty for [`DiffKind::Remove`].
    pub value: &'a [u8],
}

/// The differences of one cell, in the order in which they apply. None of them: the value is as before.
#[derive(Debug, Clone)]
pub struct Diffs<'a>(Reader<'a>);

impl<'a> Diffs<'a> {
    /// Of a cell's bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes, 0))
    }

    fn read(&mut self) -> Result<Diff<'a>, DecodeError> {
        let kind = match self.0.u8("difference")? {
            0 => DiffKind::Replace,
            1 => DiffKind::Insert,
            2 => DiffKind::Remove,
            other => return Err(self.0.unknown("difference", u64::from(other))),
        };
        let path = self.0.packed_bytes("path")?;
        let value = if kind == DiffKind::Remove { &[] } else { self.0.packed_bytes("value")? };
        Ok(Diff { kind, path, value })
    }
}

impl<'a> Iterator for Diffs<'a> {
    type Item = Result<Diff<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.remaining() == 0 {
            return None;
        }
        let diff = self.read();
        if diff.is_err() {
            self.0.rest();
        }
        Some(diff)
    }
}
