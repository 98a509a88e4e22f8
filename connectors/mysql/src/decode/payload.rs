//! TRANSACTION_PAYLOAD (MySQL 8.0.20 and later): the events of a transaction, compressed together.

use std::fmt;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::ops::Range;

use bytes::Bytes;

use super::header::{HEADER_BYTES, Header, kind};
use super::reader::{DecodeError, Reader};

/// The longest event inside a payload: what the servers let a packet be, with its head.
const EVENT_MOST_BYTES: u32 = (1 << 30) + (1 << 16);

/// zstd's window: what a stream may make its reader keep. MySQL's levels, up to 22, stay within it.
const WINDOW_LOG: u32 = 27;

/// A payload, not decompressed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload<'a> {
    fields: Fields,
    bytes: &'a [u8],
    range: Range<u32>,
}

/// A payload whose event is too long to be held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongPayload {
    fields: Fields,
    /// Where in the event its bytes stand.
    pub range: Range<u64>,
}

/// What stands before the compressed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fields {
    is_compressed: bool,
    /// Length of the events in bytes, where told.
    uncompressed_bytes: Option<u64>,
    size: Option<u64>,
}

impl Fields {
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut fields = Self { is_compressed: true, uncompressed_bytes: None, size: None };
        loop {
            let field = reader.packed("payload field")?;
            if field == 0 {
                return Ok(fields);
            }
            let at = reader.at();
            let mut value = Reader::new(reader.packed_bytes("payload field")?, at);
            match field {
                1 => fields.size = Some(value.packed("payload size")?),
                2 => {
                    fields.is_compressed = match value.packed("compression algorithm")? {
                        0 => true,
                        255 => false,
                        other => {
                            return Err(DecodeError::Unsupported { what: "compression algorithm", value: other });
                        }
                    }
                }
                3 => fields.uncompressed_bytes = Some(value.packed("uncompressed size")?),
                // Fields of newer servers.
                _ => {}
            }
        }
    }

    fn events<R: BufRead>(&self, bytes: R) -> Result<PayloadEvents<R>, DecodeError> {
        let source = if self.is_compressed {
            let damaged = |_| damaged("no decompressor can be made");
            let mut decoder = zstd::Decoder::with_buffer(bytes).map_err(damaged)?;
            decoder.window_log_max(WINDOW_LOG).map_err(damaged)?;
            Source::Zstd(Box::new(BufReader::new(decoder)))
        } else {
            Source::Plain(bytes)
        };
        Ok(PayloadEvents { source, left: self.uncompressed_bytes })
    }
}

impl<'a> Payload<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let fields = Fields::read(reader)?;
        let first = reader.at();
        let bytes = match fields.size {
            Some(size) => reader.take("payload", usize::try_from(size).unwrap_or(usize::MAX))?,
            None => reader.rest(),
        };
        reader.finish("the payload")?;
        Ok(Self { fields, bytes, range: first..reader.at() })
    }

    /// Length of the events in bytes, where told.
    #[must_use]
    pub fn uncompressed_bytes(&self) -> Option<u64> {
        self.fields.uncompressed_bytes
    }

    /// The events, to be read one by one, for as long as it takes: `data` is the buffer that the event stands in.
    ///
    /// # Errors
    /// When there is no memory for a decompressor, or `data` is another buffer.
    pub fn events_in(&self, data: &Bytes) -> Result<PayloadEvents<Box<dyn BufRead + Send>>, DecodeError> {
        let range = self.range.start as usize..self.range.end as usize;
        if data.get(range.clone()).is_none_or(|bytes| bytes.len() != self.bytes.len()) {
            return Err(damaged("it stands elsewhere"));
        }
        self.fields.events(Box::new(Cursor::new(data.slice(range))))
    }

    /// The events, to be read one by one.
    ///
    /// # Errors
    /// When there is no memory for a decompressor.
    pub fn events(&self) -> Result<PayloadEvents<&'a [u8]>, DecodeError> {
        self.fields.events(self.bytes)
    }
}

impl LongPayload {
    /// Reads the beginning of an event of `size` bytes, its checksum left out, that stands in `reader` behind the header.
    pub(super) fn read(reader: &mut Reader<'_>, size: u64) -> Result<Self, DecodeError> {
        let fields = Fields::read(reader)?;
        let first = u64::from(reader.at());
        let end = fields.size.map_or(Some(size), |length| first.checked_add(length));
        match end {
            Some(end) if end == size && first <= end => Ok(Self { fields, range: first..end }),
            _ => {
                Err(DecodeError::Misfit { what: "end of the payload", found: end.unwrap_or(u64::MAX), expected: size })
            }
        }
    }

    /// The events, to be read one by one out of the bytes of [`LongPayload::range`].
    ///
    /// # Errors
    /// When there is no memory for a decompressor.
    pub fn events(
        &self,
        bytes: Box<dyn BufRead + Send>,
    ) -> Result<PayloadEvents<Box<dyn BufRead + Send>>, DecodeError> {
        self.fields.events(bytes)
    }
}

/// The events of a payload. Of what is decompressed, a window is kept and the event that is asked for.
pub struct PayloadEvents<R> {
    source: Source<R>,
    /// What should follow, where that was told.
    left: Option<u64>,
}

impl<R> fmt::Debug for PayloadEvents<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayloadEvents").field("left", &self.left).finish_non_exhaustive()
    }
}

enum Source<R> {
    Plain(R),
    Zstd(Box<BufReader<zstd::Decoder<'static, R>>>),
}

impl<R: BufRead> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(bytes) => bytes.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

impl<R: BufRead> PayloadEvents<R> {
    /// Appends the next event, header and body, to `out`; `None` at the end.
    ///
    /// It carries no checksum: see [`super::Decoder::inner`]. Its position is 0:
    /// it stands where the payload stands.
    ///
    /// # Errors
    /// When the payload is damaged; `out` is then as it was.
    pub fn append_next(&mut self, out: &mut Vec<u8>) -> Result<Option<Header>, DecodeError> {
        let start = out.len();
        let read = self.read_next(out);
        if read.is_err() {
            out.truncate(start);
        }
        read
    }

    fn read_next(&mut self, out: &mut Vec<u8>) -> Result<Option<Header>, DecodeError> {
        let mut head = [0; HEADER_BYTES];
        let mut filled = 0;
        while filled < HEADER_BYTES {
            match self.source.read(head.get_mut(filled..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(_) => return Err(damaged("its stream is damaged")),
            }
        }
        if filled == 0 {
            return match self.left {
                None | Some(0) => Ok(None),
                Some(_) => Err(damaged("it is shorter than told")),
            };
        }
        if filled < HEADER_BYTES {
            return Err(damaged("it ends inside an event"));
        }
        let header = Header::read(&mut Reader::new(&head, 0))?;
        if header.type_code == kind::TRANSACTION_PAYLOAD {
            return Err(DecodeError::Unsupported {
                what: "event in a payload, of type",
                value: u64::from(header.type_code),
            });
        }
        if header.size > EVENT_MOST_BYTES {
            return Err(DecodeError::Unsupported {
                what: "event in a payload, of size",
                value: u64::from(header.size),
            });
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(u64::from(header.size)).ok_or(damaged("it is longer than told"))?;
        }
        out.extend_from_slice(&head);
        let body = u64::from(header.size) - HEADER_BYTES as u64;
        match self.source.by_ref().take(body).read_to_end(out) {
            Ok(read) if read as u64 == body => Ok(Some(header)),
            Ok(_) => Err(damaged("it ends inside an event")),
            Err(_) => Err(damaged("its stream is damaged")),
        }
    }
}

fn damaged(reason: &'static str) -> DecodeError {
    DecodeError::Compression { what: "the transaction's payload", reason }
}
