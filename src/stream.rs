//! The JetStream chain: one stream, one writer, every message stored once and in order.

mod broker;
mod chain;
mod check;
pub mod keeper;
mod keys;
mod letters;
mod resume;
mod schemas;
mod session;
mod setup;
mod window;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use figvine_change::Position;

use crate::checkpoint::ReadMark;

pub use broker::{Answer, Broker, BrokerError, Gone, Mark, Session, Tail};
pub use chain::{ChainError, Publisher};
pub use check::check;
pub use keeper::{Keeper, Kept};
pub use keys::{BUCKET as KEYS_BUCKET, Shredding, SubjectKeys};
pub use letters::{DeadLetters, KeptLetter, LetterError, LetterSettings};
pub use resume::{Resume, resume};
pub use schemas::{Drift, RegistryError, SchemaRegistry, Seen, read_schemas};
pub use session::{JetStream, Wire};
pub use setup::{Setup, StreamError, change_subjects, domain_subjects, ensure};

/// How one source's stream is made and fed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The stream's name.
    pub name: String,
    /// The source's name: stands in the stream's metadata.
    pub source: String,
    /// The subjects it takes: `cdc.<source>.>`.
    pub subjects: Vec<String>,
    /// Copies, 1 to 5.
    pub replicas: usize,
    /// Messages older than this are removed; `None` keeps them.
    pub max_age: Option<Duration>,
    /// Bytes the stream may hold; `None` is no limit.
    pub max_bytes: Option<u64>,
    /// Whether to compress on disk (S2).
    pub compression: bool,
    /// Take over a stream that does not carry our mark.
    pub adopt: bool,
    /// What to do when the stream lost what it had acknowledged.
    pub on_loss: OnLoss,
    /// How long a message may stay unacknowledged before the session is given up.
    pub ack_timeout: Duration,
    /// Messages in flight.
    pub window_messages: usize,
    /// Bytes in flight.
    pub window_bytes: usize,
    /// Holds the source's log back for this long behind the acks, so that what
    /// the broker loses can be read again.
    pub release_delay: Duration,
}

impl Settings {
    /// The same, for these subjects too.
    #[must_use]
    pub fn with_subjects(mut self, subjects: String) -> Self {
        self.subjects.push(subjects);
        self
    }
}

/// What to do when the stream lost what it had acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// Stop, exit code 8.
    Stop,
    /// Go on behind the stream's tail, where the source still holds its log.
    Reread,
}

/// How far the stream is: a pair, the position is the one right behind the message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Sequence of the last event of the last batch that is stored as a whole.
    pub sequence: u64,
    /// Where the source goes on behind it; may be further than that message's own checkpoint says.
    pub position: Option<Position>,
    /// How far the tasks of the backfills are behind it; `None` where this session read nothing for one yet.
    pub reads: Option<Arc<[ReadMark]>>,
}
