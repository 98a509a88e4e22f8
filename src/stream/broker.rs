//! What the chain needs of a broker: the tail as the leader has it, and sessions.
//!
//! [`super::JetStream`] is the real one; the model tests have one that fails on purpose.

use std::error::Error;

use bytes::BytesMut;

use super::wire::Refusal;
use crate::checkpoint::{Checkpoint, Writer};

/// How a stream ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The mark that the stream got when it was made: another one is another stream.
    pub stream_id: Option<Box<str>>,
    /// Sequence of the last message, 0 for none ever; stays when that message is removed.
    pub last_seq: u64,
    /// What the message at `last_seq` is.
    pub last: Mark,
}

/// What a message of the stream tells of its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// There is no such message: none was ever written, or it was removed by age or by hand.
    Missing,
    /// It carries no checkpoint: not ours.
    Foreign,
    /// It carries a checkpoint.
    Checkpoint(Checkpoint),
}

impl Mark {
    /// Whether somebody else than `writer` wrote the message.
    #[must_use]
    pub fn is_strange_to(&self, writer: &Writer) -> bool {
        match self {
            Self::Missing => false,
            Self::Foreign => true,
            Self::Checkpoint(checkpoint) => checkpoint.writer != *writer,
        }
    }
}

/// Why the broker does not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It cannot be reached, or is not able to just now.
    #[error("{what}")]
    Away {
        /// What happened.
        what: String,
        /// What we were told.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// It answers that the stream does not exist.
    #[error("the stream does not exist")]
    NoStream,
    /// It refuses us, and will again.
    #[error("{what}")]
    Refused {
        /// What happened.
        what: String,
        /// What we were told.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

/// A session has come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// The connection dropped, or the server is about to drop it; in these words.
    Disconnected(String),
    /// The server refuses us, in these words, and will again.
    Refused(String),
}

/// The answer to a message that asked for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The sequence that the message was to have.
    pub asked: u64,
    /// The sequence that it has, or why it was not stored.
    pub outcome: Result<u64, Refusal>,
}

/// One stream at one broker.
pub trait Broker: Send {
    /// A connection to publish over.
    type Session: Session;

    /// Reads the stream's tail from its leader; a replica may answer with an older one.
    ///
    /// Ends in bounded time.
    fn tail(&mut self) -> impl Future<Output = Result<Tail, BrokerError>> + Send;

    /// Reads the mark of one message from the leader. Ends in bounded time.
    fn mark(&mut self, sequence: u64) -> impl Future<Output = Result<Mark, BrokerError>> + Send;

    /// The first message from `first` up to `last` that is there and that `writer` did not write. Each of
    /// them is read from the leader in bounded time.
    fn stranger(
        &mut self,
        first: u64,
        last: u64,
        writer: &Writer,
    ) -> impl Future<Output = Result<Option<(u64, Mark)>, BrokerError>> + Send
    where
        Self: Sized,
    {
        async move {
            for sequence in first..=last {
                let mark = self.mark(sequence).await?;
                if mark.is_strange_to(writer) {
                    return Ok(Some((sequence, mark)));
                }
            }
            Ok(None)
        }
    }

    /// Opens a session. What earlier sessions have sent may still arrive behind this call.
    ///
    /// Ends in bounded time.
    fn open(&mut self) -> impl Future<Output = Result<Self::Session, BrokerError>> + Send;
}

/// A connection to publish over. Dropping it ends it.
///
/// The broker stores frames in the order written, or not at all; it answers in that order.
pub trait Session: Send {
    /// Answers come to `<inbox>.<sequence>`.
    fn inbox(&self) -> &str;

    /// The largest payload (headers and body) of a message, in bytes.
    fn max_payload(&self) -> usize;

    /// Writes `out` and hears answers, whichever comes first: an answer, or `None` once a non-empty
    /// `out` is written and emptied. With an empty `out` it waits for an answer.
    ///
    /// Cancel-safe: what was written is gone from `out`, and no answer is lost.
    ///
    /// # Errors
    /// The session is of no use any more.
    fn exchange(&mut self, out: &mut BytesMut) -> impl Future<Output = Result<Option<Answer>, Gone>> + Send;
}
