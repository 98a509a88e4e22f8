//! XA transactions between PREPARE and COMMIT: their rows stand in the log before it
//! is known whether they are committed.
//!
//! They are kept as events, in memory as long as they are few, then in a file
//! that has no name. The place to go on from stays before them, so that a
//! restart reads them again.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

/// Kept in memory up to here.
const MEMORY_BYTES: usize = 4 * 1024 * 1024;
/// An event's header, whose length stands at its ninth byte.
const HEADER_BYTES: usize = 19;

/// Events, one behind the other, without checksums.
#[derive(Debug, Default)]
pub(crate) struct Spool {
    memory: Vec<u8>,
    file: Option<File>,
}

impl Spool {
    /// Appends an event: header and body. `bytes` may have a checksum behind its body, which `size` leaves out.
    pub(crate) fn append(&mut self, bytes: &[u8], size: usize) -> io::Result<()> {
        let Some((head, body)) = bytes.get(..size).and_then(|event| event.split_at_checked(HEADER_BYTES)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut head = head.to_vec();
        // Its length is told without the checksum.
        let length = u32::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        if let Some(field) = head.get_mut(9..13) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        self.memory.extend_from_slice(&head);
        self.memory.extend_from_slice(body);
        if self.memory.len() >= MEMORY_BYTES {
            let file = match &mut self.file {
                Some(file) => file,
                None => self.file.insert(tempfile::tempfile()?),
            };
            file.write_all(&self.memory)?;
            self.memory.clear();
        }
        Ok(())
    }

    /// Reads it from its beginning.
    pub(crate) fn read(mut self) -> io::Result<Spooled> {
        if let Some(file) = &mut self.file {
            file.write_all(&self.memory)?;
            self.memory.clear();
            file.seek(SeekFrom::Start(0))?;
        }
        Ok(match self.file {
            Some(file) => Spooled { source: Box::new(io::BufReader::with_capacity(64 * 1024, file)) },
            None => Spooled { source: Box::new(io::Cursor::new(self.memory)) },
        })
    }
}

/// The events of a [`Spool`], in order.
pub(crate) struct Spooled {
    source: Box<dyn Read + Send>,
}

impl fmt::Debug for Spooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spooled")
    }
}

impl Spooled {
    /// Appends the next event to `out`; `false` behind the last.
    pub(crate) fn append_next(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let mut head = [0; HEADER_BYTES];
        let mut filled = 0;
        while filled < HEADER_BYTES {
            match self.source.read(head.get_mut(filled..).unwrap_or_default())? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        let length = head.get(9..13).and_then(|field| field.first_chunk::<4>()).map_or(0, |f| u32::from_le_bytes(*f));
        let body = (length as usize).saturating_sub(HEADER_BYTES);
        out.extend_from_slice(&head);
        let start = out.len();
        out.resize(start + body, 0);
        self.source.read_exact(out.get_mut(start..).unwrap_or_default())?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(body: &[u8]) -> Vec<u8> {
        let mut event = vec![7; HEADER_BYTES];
        event.extend_from_slice(body);
        event
    }

    fn read_back(spool: Spool) -> Vec<Vec<u8>> {
        let mut events = Vec::new();
        let mut spooled = spool.read().expect("reads");
        loop {
            let mut event = Vec::new();
            if !spooled.append_next(&mut event).expect("an event") {
                return events;
            }
            events.push(event.split_off(HEADER_BYTES));
        }
    }

    #[test]
    fn events_come_back_in_order_out_of_memory_and_out_of_a_file() {
        for count in [0_usize, 3, 300] {
            let mut spool = Spool::default();
            let body = |n: usize| vec![u8::try_from(n % 251).expect("small"); 40_000];
            for n in 0..count {
                let mut bytes = event(&body(n));
                bytes.extend_from_slice(b"crc!");
                spool.append(&bytes, bytes.len() - 4).expect("kept");
            }
            assert_eq!(spool.file.is_some(), count == 300);
            let bodies: Vec<_> = (0..count).map(body).collect();
            assert_eq!(read_back(spool), bodies);
        }
    }
}
