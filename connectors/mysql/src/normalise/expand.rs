//! What does not stand in the log as it is: compressed transactions, and XA transactions that are committed.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use bytes::Bytes;
use figvine_change::Batch;

use super::transaction::{Name, Open};
use super::{NormaliseError, Normaliser};
use crate::decode::Event;
use crate::decode::header::{Header, kind};
use crate::decode::payload::PayloadEvents;
use crate::decode::reader::{DecodeError, Reader};
use crate::prepared::Spooled;
use crate::session::Spilled;
use crate::tables::Wanted;

/// What is expanded is handed on in buffers of about this size.
const EXPANDED_BYTES: usize = 32 * 1024;
/// What is read at once of a transaction in a file.
const FILE_BYTES: usize = 64 * 1024;

/// Events that do not stand in the chunk as they are.
#[derive(Debug)]
pub(super) enum Expanding {
    /// A compressed transaction.
    Payload(PayloadEvents<Box<dyn BufRead + Send>>),
    /// An XA transaction, which ends with the event of `header`. `name` is that of its PREPARE.
    Xa { events: Spooled, header: Header, name: Option<Name> },
}

impl Expanding {
    /// Appends the next event; `false` behind the last.
    fn append_next(&mut self, out: &mut Vec<u8>) -> Result<bool, NormaliseError> {
        match self {
            Self::Payload(events) => Ok(events.append_next(out)?.is_some()),
            Self::Xa { events, .. } => Ok(events.append_next(out)?),
        }
    }
}

impl Normaliser {
    /// Begins with a transaction that is too long for memory.
    pub(super) fn expand_spilled(&mut self, spilled: &Spilled) -> Result<(), NormaliseError> {
        let Spilled { file, head, size, crc32, tail } = spilled;
        self.stands(&Header::read(&mut Reader::new(head, 0))?);
        let payload = self.decoder.long_payload(head, *size, *crc32, *tail)?;
        let mut file = Arc::clone(file);
        file.seek(SeekFrom::Start(payload.range.start))?;
        let bytes = file.take(payload.range.end - payload.range.start);
        let events = payload.events(Box::new(BufReader::with_capacity(FILE_BYTES, bytes)))?;
        self.expanding.push(Expanding::Payload(events));
        Ok(())
    }

    /// What the catalogue must be asked before an event.
    fn wanted_by(&self, event: &[u8]) -> Result<Option<Wanted>, NormaliseError> {
        if event.get(4) != Some(&kind::TABLE_MAP) {
            return Ok(None);
        }
        match self.decoder.inner(event, 0)? {
            (_, Event::TableMap(event)) => Ok(self.tables.wants(&event)),
            _ => Ok(None),
        }
    }

    /// Reads events of what is being expanded, as many as fit into a buffer, in batches of their own; up to one for which
    /// the catalogue must be asked.
    pub(super) fn expand(&mut self, out: &mut VecDeque<Batch>) -> Result<Option<Wanted>, NormaliseError> {
        let Some(mut events) = self.expanding.pop() else { return Ok(None) };
        let depth = self.expanding.len();
        let mut buffer = Vec::with_capacity(EXPANDED_BYTES);
        loop {
            let start = buffer.len();
            let is_there = if self.waiting.is_empty() {
                events.append_next(&mut buffer)?
            } else {
                buffer.append(&mut self.waiting);
                true
            };
            if !is_there {
                self.finish(Bytes::from(buffer), out);
                if let Expanding::Xa { header, name, .. } = events {
                    if let Some(name) = name {
                        self.reading.completed(&self.place_of(&name, &header));
                    }
                    self.commit(&header, out)?;
                }
                return Ok(None);
            }
            if let Some(wanted) = self.wanted_by(buffer.get(start..).unwrap_or_default())? {
                self.waiting = buffer.split_off(start);
                self.expanding.push(events);
                self.finish(Bytes::from(buffer), out);
                return Ok(Some(wanted));
            }
            self.inner(&buffer, start, out)?;
            if buffer.len() >= EXPANDED_BYTES || self.expanding.len() > depth {
                // What an event inside made be expanded comes first.
                self.expanding.insert(depth, events);
                self.finish(Bytes::from(buffer), out);
                return Ok(None);
            }
        }
    }

    /// One event that stands at `start` of a buffer of its own, to the buffer's end.
    pub(super) fn inner(
        &mut self,
        buffer: &[u8],
        start: usize,
        out: &mut VecDeque<Batch>,
    ) -> Result<(), NormaliseError> {
        let bytes = buffer.get(start..).unwrap_or_default();
        let base = u32::try_from(start)
            .map_err(|_| DecodeError::Unsupported { what: "expanded bytes", value: start as u64 })?;
        let decoder = std::mem::take(&mut self.decoder);
        let read = decoder
            .inner(bytes, base)
            .map_err(NormaliseError::from)
            .and_then(|(header, event)| self.event(&header, event, bytes, buffer, out));
        self.decoder = decoder;
        read
    }

    /// In an XA transaction before its PREPARE: keeps the event.
    pub(super) fn spools(&mut self, bytes: &[u8], header: &Header) -> Result<bool, NormaliseError> {
        let Some(Open { xa: Some((_, spool)), .. }) = &mut self.open else { return Ok(false) };
        let size = (header.size as usize).saturating_sub(self.decoder.checksum_bytes());
        // Out of a payload there is no checksum: the bytes are as long as their header says, and all of them count.
        let size = if bytes.len() < header.size as usize { bytes.len() } else { size };
        spool.append(bytes, size)?;
        Ok(true)
    }
}
