//! What does not stand in the log as it is: compressed transactions, and XA transactions that are committed.

use std::collections::VecDeque;
use std::io::Cursor;

use bytes::Bytes;
use figvine_change::Batch;

use super::transaction::{Name, Open};
use super::{NormaliseError, Normaliser};
use crate::decode::Event;
use crate::decode::header::{Header, kind};
use crate::decode::payload::PayloadEvents;
use crate::decode::reader::DecodeError;
use crate::prepared::Spooled;
use crate::tables::Wanted;

/// What is expanded is handed on in buffers of about this size.
const EXPANDED_BYTES: usize = 32 * 1024;

/// Events that do not stand in the chunk as they are.
#[derive(Debug)]
pub(super) enum Expanding {
    /// A compressed transaction.
    Payload(PayloadEvents<Cursor<Bytes>>),
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
    /// What the catalogue must be asked for a payload: looked for before anything of it is passed on.
    pub(super) fn wanted_of(&self, events: &mut PayloadEvents<&[u8]>) -> Result<Option<Wanted>, NormaliseError> {
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let Some(header) = events.append_next(&mut buffer)? else { return Ok(None) };
            if header.type_code == kind::TABLE_MAP
                && let (_, Event::TableMap(event)) = self.decoder.inner(&buffer, 0)?
                && let Some(wanted) = self.tables.wants(&event)
            {
                return Ok(Some(wanted));
            }
        }
    }

    /// Reads events of what is being expanded, as many as fit into a buffer, in batches of their own.
    pub(super) fn expand(&mut self, out: &mut VecDeque<Batch>) -> Result<(), NormaliseError> {
        let Some(mut events) = self.expanding.pop() else { return Ok(()) };
        let depth = self.expanding.len();
        let mut buffer = Vec::with_capacity(EXPANDED_BYTES);
        loop {
            let start = buffer.len();
            if !events.append_next(&mut buffer)? {
                self.finish(Bytes::from(buffer), out);
                if let Expanding::Xa { header, name, .. } = events {
                    if let Some(name) = name {
                        self.reading.completed(&self.place_of(&name, &header));
                    }
                    self.commit(&header, out)?;
                }
                return Ok(());
            }
            self.inner(&buffer, start, out)?;
            if buffer.len() >= EXPANDED_BYTES || self.expanding.len() > depth {
                // What an event inside made be expanded comes first.
                self.expanding.insert(depth, events);
                self.finish(Bytes::from(buffer), out);
                return Ok(());
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
