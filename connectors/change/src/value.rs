//! Values: where they stand in the server's bytes, and how they become JSON.

use std::fmt::Debug;
use std::ops::Range;

use crate::JsonType;

/// One cell of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// SQL's null.
    Null,
    /// The log did not carry the value (unchanged TOAST, a partial row image). Never null.
    Unchanged,
    /// The server's bytes: a range of the batch's data.
    Value(Range<u32>),
}

/// How the values of one column become JSON: the same bytes from the log and
/// from a backfill.
pub trait ValueCodec: Debug + Send + Sync {
    /// Appends the value as JSON (RFC 8259, UTF-8, no blanks).
    ///
    /// On an error what was appended is meaningless and the caller takes it back.
    ///
    /// # Errors
    /// When the bytes are no value of the type. Whatever the bytes are, this
    /// does not panic and allocates no more than a small multiple of their length.
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError>;

    /// Appends, as JSON, what a format that must show all columns has in the place of a value that the log did not carry.
    fn write_unavailable(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"null");
    }

    /// Whether its bytes are of a column that is hidden, and go nowhere as they are.
    fn is_hidden(&self) -> bool {
        false
    }

    /// What the JSON is that [`ValueCodec::write_json`] writes. It may promise less than holds, never more.
    fn json_type(&self) -> JsonType {
        JsonType::Any
    }
}

/// The server's bytes are no value of the column's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a value of type {type_name}: {reason}")]
pub struct ValueError {
    /// The type whose form was expected.
    pub type_name: Box<str>,
    /// What is wrong, without the value itself.
    pub reason: &'static str,
}
