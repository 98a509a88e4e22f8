//! A compressed transaction that is too long for memory: in a file that has no name, as it came.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::sync::Arc;

/// So much of it is kept in memory, for its header and what the payload tells of itself.
const HEAD_BYTES: usize = 256;
/// What may be a checksum at its end.
const TAIL_BYTES: usize = 4;

/// One that comes in.
#[derive(Debug)]
pub(super) struct Spill {
    file: File,
    head: Vec<u8>,
    size: u64,
    /// Of all but `tail`.
    crc32: crc32fast::Hasher,
    tail: Vec<u8>,
}

/// One that has come: its header first.
#[derive(Debug, Clone)]
pub(crate) struct Spilled {
    pub(crate) file: Arc<File>,
    /// Its beginning.
    pub(crate) head: Vec<u8>,
    /// Bytes in all.
    pub(crate) size: u64,
    /// CRC-32 of all but the last four bytes.
    pub(crate) crc32: u32,
    /// Those.
    pub(crate) tail: [u8; TAIL_BYTES],
}

impl Spill {
    pub(super) fn begin() -> io::Result<Self> {
        let file = tempfile::tempfile()?;
        Ok(Self { file, head: Vec::new(), size: 0, crc32: crc32fast::Hasher::new(), tail: Vec::new() })
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        let missing = HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(bytes.get(..missing).unwrap_or_default());
        // Of the bytes before and these, the last four wait.
        let whole = (self.tail.len() + bytes.len()).saturating_sub(TAIL_BYTES);
        let old = whole.min(self.tail.len());
        self.crc32.update(self.tail.get(..old).unwrap_or_default());
        self.tail.drain(..old);
        let (new, rest) = bytes.split_at_checked(whole - old).unwrap_or((bytes, &[]));
        self.crc32.update(new);
        self.tail.extend_from_slice(rest);
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<Spilled> {
        self.file.seek(SeekFrom::Start(0))?;
        let tail = self.tail.first_chunk().copied().ok_or(io::ErrorKind::UnexpectedEof)?;
        let Self { file, head, size, crc32, .. } = self;
        Ok(Spilled { file: Arc::new(file), head, size, crc32: crc32.finalize(), tail })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_comes_in_parts_is_the_same_as_in_one() {
        let bytes: Vec<u8> = (0..3000_u32).flat_map(u32::to_le_bytes).collect();
        for part in [1, 3, 4, 5, 1000, bytes.len()] {
            let mut spill = Spill::begin().expect("a file");
            for part in bytes.chunks(part) {
                spill.append(part).expect("kept");
            }
            let spilled = spill.finish().expect("kept");
            let mut read = Vec::new();
            (&*spilled.file).read_to_end(&mut read).expect("reads");
            assert_eq!(read, bytes);
            assert_eq!((spilled.size, spilled.head.len()), (12_000, HEAD_BYTES));
            assert_eq!(spilled.head, bytes[..HEAD_BYTES]);
            assert_eq!(spilled.tail, bytes[bytes.len() - 4..]);
            assert_eq!(spilled.crc32, crc32fast::hash(&bytes[..bytes.len() - 4]));
        }
    }
}
