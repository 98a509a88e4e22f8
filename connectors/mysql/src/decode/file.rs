//! A log file as it lies on the server's disk: a magic number, then events.

use super::header::Header;
use super::reader::{DecodeError, Reader};

/// What a binary log begins with.
pub const MAGIC: [u8; 4] = *b"\xfebin";

/// The events of a file.
#[derive(Debug, Clone)]
pub struct FileEvents<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> FileEvents<'a> {
    /// Of a whole file.
    ///
    /// # Errors
    /// When it is no binary log.
    pub fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        match bytes.split_first_chunk::<4>() {
            Some((&MAGIC, _)) => Ok(Self { bytes, at: MAGIC.len() }),
            Some((other, _)) => {
                Err(DecodeError::Unknown { field: "file type", value: u64::from(u32::from_be_bytes(*other)), at: 0 })
            }
            None => Err(DecodeError::Short { field: "file type", at: bytes.len() }),
        }
    }
}

impl<'a> Iterator for FileEvents<'a> {
    /// An event's place in the file and its bytes.
    type Item = Result<(usize, &'a [u8]), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        let rest = self.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let event = Header::read(&mut Reader::new(rest, u32::try_from(at).unwrap_or(u32::MAX))).and_then(|header| {
            rest.get(..header.size as usize).ok_or(DecodeError::Short { field: "its body", at: self.bytes.len() })
        });
        // Where an event ends is told by none but itself.
        self.at = event.as_ref().map_or(self.bytes.len(), |event| at + event.len());
        Some(event.map(|event| (at, event)))
    }
}
