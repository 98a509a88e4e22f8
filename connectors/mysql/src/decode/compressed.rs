//! MariaDB's compressed events (`log_bin_compress`): statements and rows, each event by itself.
//!
//! Only the end of the event is compressed: the statement's text, or the rows
//! behind the bitmap of columns. It begins with a byte 0x80, whose bits 4 to 6
//! tell the algorithm (0: zlib) and bits 0 to 2 of how many bytes, high ones
//! first, the length is that follows.

use std::io::Read;

use super::format::Format;
use super::header::{HEADER_BYTES, Header, kind};
use super::reader::{DecodeError, Reader};
use super::rows;

/// The longest event that is made: what the servers let a packet be.
const MOST_BYTES: u64 = 1 << 30;

/// A compressed event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compressed<'a> {
    header: Header,
    /// The type of the event that it stands for.
    pub type_code: u8,
    /// What stands before the compressed end.
    plain: &'a [u8],
    compressed: &'a [u8],
    /// Length of the end.
    length: u64,
}

impl<'a> Compressed<'a> {
    /// Reads `body`, an event behind its header.
    pub(super) fn read(header: Header, body: &'a [u8], base: u32, format: &Format) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, base);
        let type_code = match header.type_code {
            kind::QUERY_COMPRESSED => {
                let mut fixed = format.fixed(&mut reader, kind::QUERY_COMPRESSED, 13)?;
                fixed.u64("thread id and execution time")?;
                let schema = fixed.u8("schema length")?;
                fixed.u16("error code")?;
                let variables = fixed.u16("length of the status variables")?;
                reader.take("status variables", usize::from(variables))?;
                reader.take("schema", usize::from(schema) + 1)?;
                kind::QUERY
            }
            kind::WRITE_ROWS_COMPRESSED_V1 => kind::WRITE_ROWS_V1,
            kind::UPDATE_ROWS_COMPRESSED_V1 => kind::UPDATE_ROWS_V1,
            kind::DELETE_ROWS_COMPRESSED_V1 => kind::DELETE_ROWS_V1,
            kind::WRITE_ROWS_COMPRESSED => kind::WRITE_ROWS,
            kind::UPDATE_ROWS_COMPRESSED => kind::UPDATE_ROWS,
            _ => kind::DELETE_ROWS,
        };
        if type_code != kind::QUERY {
            rows::Rows::read(&mut reader, type_code, header.type_code, format)?;
        }
        let plain = body.get(..body.len() - reader.remaining()).unwrap_or_default();
        let head = reader.u8("compression head")?;
        if head & 0x80 == 0 || head & 0x70 != 0 {
            return Err(reader.unknown("compression head", u64::from(head)));
        }
        let length_bytes = match head & 0x07 {
            count @ 1..=4 => usize::from(count),
            _ => return Err(reader.unknown("compression head", u64::from(head))),
        };
        let length = reader.take("uncompressed length", length_bytes)?;
        let length = length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        if length > MOST_BYTES {
            return Err(DecodeError::Unsupported { what: "uncompressed length", value: length });
        }
        Ok(Self { header, type_code, plain, compressed: reader.rest(), length })
    }

    /// Appends the event that it stands for, header and body, without a
    /// checksum, to `out`: see [`super::Decoder::inner`].
    ///
    /// # Errors
    /// When it does not decompress to the length told; `out` is then as it was.
    pub fn append_expanded(&self, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let damaged = |reason| DecodeError::Compression { what: "the event", reason };
        let size = (HEADER_BYTES + self.plain.len()) as u64 + self.length;
        let size = u32::try_from(size).map_err(|_| damaged("it is too long"))?;
        let start = out.len();
        out.extend_from_slice(&self.header.timestamp.to_le_bytes());
        out.push(self.type_code);
        out.extend_from_slice(&self.header.server_id.to_le_bytes());
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&self.header.end.to_le_bytes());
        out.extend_from_slice(&self.header.flags.to_le_bytes());
        out.extend_from_slice(self.plain);
        // One byte more than there should be, so that too many are seen.
        let read = flate2::read::ZlibDecoder::new(self.compressed).take(self.length + 1).read_to_end(out);
        let result = match read {
            Ok(read) if read as u64 == self.length => return Ok(()),
            Ok(read) if (read as u64) < self.length => Err(damaged("it is shorter than told")),
            Ok(_) => Err(damaged("it is longer than told")),
            Err(_) => Err(damaged("its zlib stream is damaged")),
        };
        out.truncate(start);
        result
    }
}
