//! Where dead letters are kept: a stream beside the source's own, made when there is a first one.
//!
//! ```text
//!   dead.<source>.<id>.<digest>       a letter; its first piece, where it is larger than a message may be
//!   dead.<source>.<id>.<digest>.<n>   the other pieces, which are there before the first is
//! ```
//! A letter is stored before the event that stands in its place, and once, however often it is read again: each of its
//! subjects takes one message. The digest is of what it says, so that no other letter is taken for it: the number of an existing row in
//! its backfill may be another row's when the chunk is read again. A full stream takes no more, and the source stops: what is parked is
//! bounded.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType, Stream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::setup::{DUPLICATE_WINDOW, SOURCE, is_away};
use crate::event::{Letter, write_token};

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What a message has beside the body, at most.
const HEADERS: usize = 8 * 1024;
/// The server's code for a stream that takes no more messages (`JSStreamStoreFailedF` tells why in words alone).
const STORE_FAILED: &str = "10077";
const ID: &str = "Figvine-Id";
const REASON: &str = "Figvine-Reason";
const CODE: &str = "Figvine-Code";
const TYPE: &str = "Figvine-Type";
const PIECES: &str = "Figvine-Pieces";

/// The stream of one source's dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterSettings {
    /// Its name.
    pub stream: String,
    /// The source.
    pub source: String,
    /// Copies, 1 to 5.
    pub replicas: usize,
    /// Letters older than this are removed; `None` keeps them.
    pub max_age: Option<Duration>,
    /// Messages that it holds at most.
    pub max_messages: u64,
}

/// Letters cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// The server does not answer. Try again.
    #[error("stream {stream} of dead letters cannot be {what}")]
    Away {
        /// Its name.
        stream: String,
        /// `read`, `written`, or made.
        what: &'static str,
        /// What we were told.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server refuses.
    #[error("stream {stream} of dead letters cannot be made or changed")]
    Refused {
        /// Its name.
        stream: String,
        /// What we were told.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It belongs to somebody else.
    #[error("stream {stream} is not that of the dead letters of source {owner}")]
    Taken {
        /// Its name.
        stream: String,
        /// The source that wants it.
        owner: String,
    },
    /// It takes no more.
    #[error("stream {stream} of dead letters is full")]
    Full {
        /// Its name.
        stream: String,
        /// What we were told.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl LetterError {
    /// Whether trying again can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Away { .. })
    }

    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Away { .. } => "FV-2213",
            Self::Refused { .. } => "FV-2214",
            Self::Taken { .. } => "FV-2215",
            Self::Full { .. } => "FV-2216",
        }
    }

    /// What to do; sentences.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Away { .. } => "Look at the nats server's log.",
            Self::Refused { .. } => {
                "Allow the bridge to create the stream, or make it by hand with the subjects `dead.<source>.>`."
            }
            Self::Taken { .. } => "Name another with `dead_letters.stream`.",
            Self::Full { .. } => {
                "Look at what `figvine dlq list` shows, mend it, and drop the letters, or raise `dead_letters.max_messages`. Nothing was skipped: the source's log is kept from there."
            }
        }
    }
}

/// A letter as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLetter {
    /// Its place in the stream.
    pub sequence: u64,
    /// When it was kept, in seconds since 1970, UTC.
    pub kept_at: i64,
    /// The identity of the event in whose place another stands.
    pub id: String,
    /// Why, in one word.
    pub reason: String,
    /// The code of the error that it would have been.
    pub code: String,
    /// The type of the event that is missing.
    pub event_type: String,
    /// The JSON object; empty where only heads were asked for.
    pub body: Vec<u8>,
    subject: String,
    pieces: usize,
}

/// One source's dead letters.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    context: Context,
    settings: LetterSettings,
    is_ready: bool,
}

impl DeadLetters {
    /// Nothing is asked before there is a letter.
    #[must_use]
    pub fn new(context: Context, settings: LetterSettings) -> Self {
        Self { context, settings, is_ready: false }
    }

    /// Keeps letters; those that are kept already stay as they are. Says which are new.
    ///
    /// # Errors
    /// One cannot be kept.
    pub async fn keep<'l>(&mut self, letters: &'l [Letter]) -> Result<Vec<&'l Letter>, LetterError> {
        if !letters.is_empty() && !self.is_ready {
            Box::pin(self.ensure()).await?;
            self.is_ready = true;
        }
        let mut new = Vec::new();
        for letter in letters {
            if Box::pin(self.keep_one(letter)).await? {
                new.push(letter);
            }
        }
        Ok(new)
    }

    /// How many messages there are; 0 where there was never one.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn count(&self) -> Result<u64, LetterError> {
        Ok(Box::pin(self.open()).await?.map_or(0, |stream| stream.cached_info().state.messages))
    }

    /// What is kept, oldest first, without bodies.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn list(&self) -> Result<Vec<KeptLetter>, LetterError> {
        let Some(stream) = Box::pin(self.open()).await? else { return Ok(Vec::new()) };
        let filter = format!("dead.{}.*.*", self.settings.source);
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::All,
            filter_subject: filter,
            headers_only: true,
            ..OrderedConfig::default()
        };
        let consumer = Box::pin(stream.create_consumer(config)).await.map_err(|e| self.away("read", e))?;
        let mut pending = consumer.cached_info().num_pending;
        let mut messages = Box::pin(consumer.messages()).await.map_err(|e| self.away("read", e))?;
        let mut kept = Vec::new();
        while pending > 0 {
            let message = timeout(TIMEOUT, messages.next()).await.map_err(|late| self.away("read in time", late))?;
            let Some(message) = message else { break };
            let message = message.map_err(|e| self.away("read", e))?;
            let Ok(info) = message.info() else { continue };
            pending = info.pending;
            let header = |name: &str| {
                message.headers.as_ref().and_then(|all| all.get(name)).map(ToString::to_string).unwrap_or_default()
            };
            kept.push(KeptLetter {
                sequence: info.stream_sequence,
                kept_at: info.published.unix_timestamp(),
                id: header(ID),
                reason: header(REASON),
                code: header(CODE),
                event_type: header(TYPE),
                body: Vec::new(),
                subject: message.subject.to_string(),
                pieces: header(PIECES).parse().unwrap_or(1),
            });
        }
        Ok(kept)
    }

    /// Reads the body of one.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn read(&self, letter: &mut KeptLetter) -> Result<(), LetterError> {
        let Some(stream) = Box::pin(self.open()).await? else { return Ok(()) };
        letter.body.clear();
        for piece in 0..letter.pieces {
            let subject = if piece == 0 { letter.subject.clone() } else { format!("{}.{piece}", letter.subject) };
            let read = Box::pin(stream.get_last_raw_message_by_subject(&subject));
            let read = timeout(TIMEOUT, read).await.map_err(|late| self.away("read in time", late))?;
            letter.body.extend_from_slice(&read.map_err(|e| self.away("read", e))?.payload);
        }
        Ok(())
    }

    /// Removes one for good.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn drop(&self, letter: &KeptLetter) -> Result<(), LetterError> {
        let Some(stream) = Box::pin(self.open()).await? else { return Ok(()) };
        // The first piece last: what is left half done is found again.
        for filter in [format!("{}.>", letter.subject), letter.subject.clone()] {
            self.purge(&stream, filter).await?;
        }
        Ok(())
    }

    /// Removes all for good, and pieces of letters that were never finished.
    ///
    /// # Errors
    /// They cannot be removed.
    pub async fn drop_all(&self) -> Result<(), LetterError> {
        match Box::pin(self.open()).await? {
            Some(stream) => self.purge(&stream, format!("dead.{}.>", self.settings.source)).await,
            None => Ok(()),
        }
    }

    async fn purge(&self, stream: &Stream, filter: String) -> Result<(), LetterError> {
        let purged = timeout(TIMEOUT, stream.purge().filter(filter).into_future()).await;
        purged.map_err(|late| self.away("written in time", late))?.map_err(|e| self.away("written", e))?;
        Ok(())
    }

    fn away(&self, what: &'static str, source: impl Error + Send + Sync + 'static) -> LetterError {
        LetterError::Away { stream: self.settings.stream.clone(), what, source: Box::new(source) }
    }

    async fn open(&self) -> Result<Option<Stream>, LetterError> {
        let asked = timeout(TIMEOUT, self.context.get_stream(&self.settings.stream)).await;
        match asked.map_err(|late| self.away("read in time", late))? {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(told) if told.code() == 404 => Ok(None),
                _ => Err(self.away("read", error)),
            },
        }
    }

    /// Makes the stream, or brings the limits of the one that is there to what is configured.
    async fn ensure(&self) -> Result<(), LetterError> {
        let LetterSettings { stream, source, replicas, max_age, max_messages } = &self.settings;
        let limits = |config: Config| Config {
            max_messages: i64::try_from(*max_messages).unwrap_or(i64::MAX),
            max_age: max_age.unwrap_or_default(),
            // It may not be longer than messages live, and nothing is sent with an id.
            duplicate_window: DUPLICATE_WINDOW,
            discard: DiscardPolicy::New,
            num_replicas: *replicas,
            ..config
        };
        let Some(found) = self.open().await? else {
            let config = limits(Config {
                name: stream.clone(),
                description: Some(format!("what of source {source} could not be told, written by figvine")),
                subjects: vec![format!("dead.{source}.>")],
                storage: StorageType::File,
                metadata: HashMap::from([(SOURCE.to_owned(), source.clone())]),
                ..Config::default()
            });
            Box::pin(self.context.create_stream(config)).await.map_err(|e| self.failed(e))?;
            return Ok(());
        };
        let there = &found.cached_info().config;
        let is_others = there.metadata.get(SOURCE).is_some_and(|owner| owner != source);
        if is_others || there.subjects != [format!("dead.{source}.>")] || there.sealed || there.no_ack {
            return Err(LetterError::Taken { stream: stream.clone(), owner: source.clone() });
        }
        let wanted = limits(there.clone());
        if wanted != *there {
            Box::pin(self.context.update_stream(wanted)).await.map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    fn failed(&self, error: impl Error + Send + Sync + 'static) -> LetterError {
        if is_away(&error) {
            return self.away("made or changed", error);
        }
        LetterError::Refused { stream: self.settings.stream.clone(), source: Box::new(error) }
    }

    /// Whether it is new.
    async fn keep_one(&self, letter: &Letter) -> Result<bool, LetterError> {
        let mut subject = format!("dead.{}.", self.settings.source).into_bytes();
        write_token(letter.id.as_bytes(), &mut subject);
        let digest: String = Sha256::digest(&letter.body).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let subject = format!("{}.{digest}", String::from_utf8_lossy(&subject));
        let size = self.context.client().server_info().max_payload.saturating_sub(HEADERS).max(1024);
        let pieces: Vec<&[u8]> = letter.body.chunks(size).collect();
        for (number, piece) in pieces.iter().enumerate().skip(1) {
            let message = PublishMessage::build().payload(Bytes::copy_from_slice(piece));
            self.publish(format!("{subject}.{number}"), message).await?;
        }
        let mut headers = HeaderMap::new();
        for (name, value) in
            [(ID, &*letter.id), (REASON, letter.reason), (CODE, letter.code), (TYPE, &letter.event_type)]
        {
            headers.insert(name, value.replace(['\r', '\n'], " "));
        }
        headers.insert(PIECES, pieces.len().to_string());
        let first = pieces.first().copied().unwrap_or_default();
        let message = PublishMessage::build().headers(headers).payload(Bytes::copy_from_slice(first));
        self.publish(subject, message).await
    }

    /// Stores a message under a subject that has none; one that has stays as it is. Whether it was stored.
    async fn publish(&self, subject: String, message: PublishMessage) -> Result<bool, LetterError> {
        let message = message.expected_last_subject_sequence(0);
        let sent = timeout(TIMEOUT, self.context.send_publish(subject, message)).await;
        let sent = sent.map_err(|late| self.away("written in time", late))?.map_err(|e| self.away("written", e))?;
        let stored = timeout(TIMEOUT, sent.into_future()).await.map_err(|late| self.away("written in time", late))?;
        match stored {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Err(error) => {
                let told = error.to_string();
                if told.contains(STORE_FAILED) || told.contains("maximum messages exceeded") {
                    return Err(LetterError::Full { stream: self.settings.stream.clone(), source: Box::new(error) });
                }
                Err(self.away("written", error))
            }
        }
    }
}
