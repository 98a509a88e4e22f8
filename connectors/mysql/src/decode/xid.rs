//! The name of an XA transaction.

use std::fmt;

use super::reader::{DecodeError, Reader};

/// The name of an XA transaction. `Display` is the form in which the servers
/// write it into XA statements of the log: `X'6162',X'',1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xid<'a> {
    /// Its format; 1 where the client told none.
    pub format_id: i32,
    /// The global part.
    pub gtrid: &'a [u8],
    /// The branch.
    pub bqual: &'a [u8],
}

impl<'a> Xid<'a> {
    /// Both parts, one behind the other, at the reader's place.
    pub(super) fn read(
        reader: &mut Reader<'a>,
        format_id: i32,
        gtrid: usize,
        bqual: usize,
    ) -> Result<Self, DecodeError> {
        /// Each part of an xid, `MAXGTRIDSIZE` and `MAXBQUALSIZE`.
        const MOST_BYTES: usize = 64;
        for length in [gtrid, bqual] {
            if length > MOST_BYTES {
                return Err(reader.unknown("xid length", length as u64));
            }
        }
        Ok(Self { format_id, gtrid: reader.take("xid", gtrid)?, bqual: reader.take("xid", bqual)? })
    }
}

impl fmt::Display for Xid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [self.gtrid, self.bqual] {
            f.write_str("X'")?;
            for byte in part {
                write!(f, "{byte:02x}")?;
            }
            f.write_str("',")?;
        }
        write!(f, "{}", self.format_id)
    }
}
