//! What is on its way: events with the sequences that they will have, kept until they are stored.
//!
//! ```text
//!      stored           in flight            to be sent        (sequences)
//! ------------------|------------------|------------------|
//!                acked               next              assigned
//! ```
//! An event keeps its sequence whatever happens to sessions: that is why a late
//! frame of an old session cannot do harm.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use figvine_change::Position;
use tokio::time::Instant;

use super::Stored;
use super::wire::{self, Chained, Event};
use crate::checkpoint::ReadMark;
use crate::event::Events;

/// How much may be in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Messages in flight.
    pub(super) messages: usize,
    /// Bytes of events in flight; one event may exceed it alone.
    pub(super) bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    limits: Limits,
    retained: VecDeque<Retained>,
    /// The next event to be sent: which of `retained`, which in it.
    cursor: (usize, usize),
    /// All up to this sequence is stored.
    acked: u64,
    /// The sequence of the next event to be sent.
    next: u64,
    /// The highest sequence given to an event.
    assigned: u64,
    /// The highest sequence ever sent.
    highest: u64,
    /// What answers are awaited for, in order.
    asked: VecDeque<Asked>,
    /// Bytes of events sent, and known to be stored, in this session.
    bytes_sent: u64,
    bytes_acked: u64,
    /// How far backfills are in what is stored.
    reads: Option<Arc<[ReadMark]>>,
}

#[derive(Debug)]
struct Retained {
    events: Events,
    /// The sequence of the first event; what it would be, where there is none.
    first: u64,
}

impl Retained {
    fn count(&self) -> usize {
        self.events.list.len()
    }

    /// The sequence of its last event.
    fn last(&self) -> u64 {
        (self.first + self.count() as u64) - 1
    }
}

#[derive(Debug)]
struct Asked {
    sequence: u64,
    at: Instant,
    bytes_sent: u64,
}

/// An event that the stream can never take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge {
    pub(super) size: usize,
}

impl Window {
    /// Behind a stream that ends at `base`.
    pub(super) fn new(base: u64, limits: Limits) -> Self {
        Self {
            limits,
            retained: VecDeque::new(),
            cursor: (0, 0),
            acked: base,
            next: base + 1,
            assigned: base,
            highest: base,
            asked: VecDeque::new(),
            bytes_sent: 0,
            bytes_acked: 0,
            reads: None,
        }
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// The highest sequence ever sent, or where we began.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Events in flight.
    pub(super) fn in_flight(&self) -> u64 {
        self.next - 1 - self.acked
    }

    /// Events that wait to be sent.
    pub(super) fn pending(&self) -> u64 {
        self.assigned + 1 - self.next
    }

    /// Whether all that was taken is stored.
    pub(super) fn is_settled(&self) -> bool {
        self.acked == self.assigned && self.retained.is_empty()
    }

    /// Whether one more may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.room_beside(0, 0)
    }

    fn room_beside(&self, messages: u64, bytes: u64) -> bool {
        let in_flight = self.in_flight() + messages;
        let bytes = (self.bytes_sent - self.bytes_acked) + bytes;
        in_flight == 0 || (in_flight < self.limits.messages as u64 && bytes < self.limits.bytes as u64)
    }

    /// Since when the oldest awaited answer is awaited.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.asked.front().map(|asked| asked.at)
    }

    /// Takes events in; tells how far the stream is, where that is news already.
    pub(super) fn push(&mut self, events: Events) -> Option<Stored> {
        if events.list.is_empty()
            && let Some(back) = self.retained.back_mut()
        {
            // Nothing but progress: it joins the batch before, so that an idle source takes no memory.
            if events.end.is_some() {
                back.events.end = events.end;
                back.events.reads = events.reads.or(back.events.reads.take());
            }
            return None;
        }
        let first = self.assigned + 1;
        self.assigned += events.list.len() as u64;
        self.retained.push_back(Retained { events, first });
        self.settle()
    }

    /// Writes the next pending event.
    pub(super) fn send(
        &mut self,
        inbox: &str,
        stream: Option<&str>,
        max_payload: usize,
        out: &mut BytesMut,
    ) -> Result<(), TooLarge> {
        while self.retained.get(self.cursor.0).is_some_and(|batch| self.cursor.1 >= batch.count()) {
            self.cursor = (self.cursor.0 + 1, 0);
        }
        let Some(event) = self.retained.get(self.cursor.0).and_then(|batch| Event::of(&batch.events, self.cursor.1))
        else {
            // The places do not fit the buffer: an encoder's fault, and nothing that could be sent.
            return Err(TooLarge { size: usize::MAX });
        };
        let size = event.len() as u64;
        let chained = Chained { expected: self.next - 1, stream, inbox: Some(inbox) };
        let payload = wire::publish(&event, chained, out);
        if payload > max_payload {
            return Err(TooLarge { size: payload });
        }
        self.bytes_sent += size;
        self.asked.push_back(Asked { sequence: self.next, at: Instant::now(), bytes_sent: self.bytes_sent });
        self.highest = self.highest.max(self.next);
        self.next += 1;
        self.cursor.1 += 1;
        Ok(())
    }

    /// Notes that `sequence`, the oldest that was asked for, is stored, and with it all before.
    /// `None` when it is not the one that is awaited.
    pub(super) fn answered(&mut self, sequence: u64) -> Option<(Duration, Option<Stored>)> {
        let asked = self.asked.pop_front().filter(|asked| asked.sequence == sequence)?;
        self.bytes_acked = asked.bytes_sent;
        self.acked = sequence;
        Some((asked.at.elapsed(), self.settle()))
    }

    /// Begins anew behind `last_seq`, which is neither below what is acknowledged nor above what was sent.
    pub(super) fn rewind(&mut self, last_seq: u64) -> Option<Stored> {
        self.asked.clear();
        self.bytes_sent = 0;
        self.bytes_acked = 0;
        self.acked = last_seq;
        self.next = last_seq + 1;
        let stored = self.settle();
        let into = self.retained.front().map_or(0, |front| self.next.saturating_sub(front.first));
        self.cursor = (0, usize::try_from(into).unwrap_or(usize::MAX));
        stored
    }

    /// Lets go of batches that are stored as a whole.
    fn settle(&mut self) -> Option<Stored> {
        let mut position: Option<Position> = None;
        let mut sequence = 0;
        while self.retained.front().is_some_and(|front| front.last() <= self.acked) {
            let Some(front) = self.retained.pop_front() else { break };
            self.cursor = match self.cursor {
                (0, _) => (0, 0),
                (batch, event) => (batch - 1, event),
            };
            let last = front.last();
            if let Some(end) = front.events.end {
                sequence = last;
                position = Some(end);
                self.reads = front.events.reads.or(self.reads.take());
            }
        }
        position.map(|position| Stored { sequence, position: Some(position), reads: self.reads.clone() })
    }
}
