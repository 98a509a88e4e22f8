//! Where the book is kept: a KV bucket beside the stream; and what the stream itself says of how far backfills are.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::{Context, kv};
use figvine_change::Position;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::Desk;
use super::book::{Book, FORM};
use crate::checkpoint::{Checkpoint, HEADER, ReadMark};
use crate::nats;
use crate::stream;

/// The bucket; one key for each stream, its name.
const BUCKET: &str = "FIGVINE_BACKFILLS";
/// How often it is written while rows are read.
const EVERY: Duration = Duration::from_secs(1);
/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the stream may be silent while it is looked through.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// The book cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the backfills of stream {stream} cannot be {what}")]
pub struct ShelfError {
    /// The stream's name.
    pub stream: String,
    /// `read`, `written`, or more exactly why.
    pub what: &'static str,
    /// What we were told.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// The key of one stream in the bucket.
#[derive(Debug, Clone)]
pub struct Shelf {
    store: kv::Store,
    stream: String,
}

impl Shelf {
    /// Opens the bucket, which is made where it does not exist, with as many copies as the stream has.
    ///
    /// # Errors
    /// It can neither be opened nor made.
    pub async fn open(context: &Context, settings: &stream::Settings) -> Result<Self, ShelfError> {
        let stream = settings.name.clone();
        if let Ok(store) = Box::pin(context.get_key_value(BUCKET)).await {
            return Ok(Self { store, stream });
        }
        let config = kv::Config {
            bucket: BUCKET.into(),
            description: "what figvine backfills and how far that is".into(),
            history: 1,
            num_replicas: settings.replicas,
            ..kv::Config::default()
        };
        match Box::pin(context.create_key_value(config)).await {
            Ok(store) => Ok(Self { store, stream }),
            Err(e) => Err(ShelfError { stream, what: "kept: the bucket cannot be made", source: Some(Box::new(e)) }),
        }
    }

    /// Reads the book; an empty one where none was written.
    ///
    /// # Errors
    /// It cannot be read, or is of a later version's form.
    pub async fn read(&self) -> Result<Book, ShelfError> {
        let read = Box::pin(self.store.get(&self.stream)).await;
        let Some(value) = read.map_err(|e| self.error("read", e))? else { return Ok(Book::default()) };
        let book: Book = serde_json::from_slice(&value).map_err(|e| self.error("read: their form is unknown", e))?;
        if book.version == FORM {
            return Ok(book);
        }
        Err(ShelfError { stream: self.stream.clone(), what: "read: their form is a later version's", source: None })
    }

    /// Writes the book.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn write(&self, book: &Book) -> Result<(), ShelfError> {
        let value = serde_json::to_vec(book).map_err(|e| self.error("written", e))?;
        let write = Box::pin(self.store.put(&self.stream, value.into()));
        match timeout(WRITE_TIMEOUT, write).await {
            Ok(written) => written.map(drop).map_err(|e| self.error("written", e)),
            Err(late) => Err(self.error("written in time", late)),
        }
    }

    fn error(&self, what: &'static str, source: impl Error + Send + Sync + 'static) -> ShelfError {
        ShelfError { stream: self.stream.clone(), what, source: Some(Box::new(source)) }
    }
}

/// Messages that a start may have to look through because of a backfill that is held up.
const LOOKED_THROUGH: u64 = 20_000;

/// Writes a desk's book whenever it changes, and about once a second while rows are stored. For ever: whoever
/// calls drops it. What cannot be written is tried again, with what is newer.
pub(crate) async fn keep(desk: Arc<Desk>, nats: nats::Settings, settings: stream::Settings) {
    // What an earlier run wrote, or another bridge writes, must not be written over.
    desk.activated().await;
    let mut changes = desk.changes();
    let mut shelf = None;
    let mut written: Option<Book> = None;
    loop {
        let version = *changes.borrow_and_update();
        let book = desk.book();
        // Progress alone is not worth a message while no row is read; now and then it is, since a start looks through
        // what lies behind it.
        let is_news = written.as_ref().is_none_or(|written| {
            let is_worth_it = match book.is_running() {
                true => *written != book,
                false => book.is_busy() && book.sequence.saturating_sub(written.sequence) > LOOKED_THROUGH,
            };
            is_worth_it || Book { sequence: written.sequence, ..book.clone() } != *written
        });
        if !is_news {
            desk.wrote(version);
        } else {
            match write(&mut shelf, &nats, &settings, &book).await {
                Ok(()) => {
                    written = Some(book);
                    desk.wrote(version);
                }
                Err(error) => {
                    shelf = None;
                    tracing::warn!(stream = %settings.name, source = ?error.source, "{error}");
                }
            }
        }
        let _ = timeout(EVERY, changes.changed()).await;
    }
}

async fn write(
    shelf: &mut Option<Shelf>,
    nats: &nats::Settings,
    settings: &stream::Settings,
    book: &Book,
) -> Result<(), ShelfError> {
    if shelf.is_none() {
        let away = |e| ShelfError { stream: settings.name.clone(), what: "written", source: Some(Box::new(e)) };
        let client = nats.client(&format!("figvine {} backfills", settings.source)).await.map_err(away)?;
        *shelf = Some(Box::pin(Shelf::open(&async_nats::jetstream::new(client), settings)).await?);
    }
    match shelf {
        Some(shelf) => shelf.write(book).await,
        None => Ok(()),
    }
}

/// How far the messages behind `after`, up to `last_seq`, say that backfills are, in their order. What was
/// removed from the stream meanwhile tells nothing.
///
/// # Errors
/// The stream cannot be read.
pub async fn marks_behind(
    context: &Context,
    stream: &str,
    after: u64,
    last_seq: u64,
) -> Result<Vec<ReadMark>, ShelfError> {
    let failed = |source: Box<dyn Error + Send + Sync>| ShelfError {
        stream: stream.to_owned(),
        what: "looked for in the stream",
        source: Some(source),
    };
    let mut marks = Vec::new();
    if after >= last_seq {
        return Ok(marks);
    }
    let found = Box::pin(context.get_stream(stream)).await.map_err(|e| failed(Box::new(e)))?;
    let config = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
        headers_only: true,
        ..pull::OrderedConfig::default()
    };
    let consumer = Box::pin(found.create_consumer(config)).await.map_err(|e| failed(Box::new(e)))?;
    let mut messages = Box::pin(consumer.messages()).await.map_err(|e| failed(Box::new(e)))?;
    loop {
        let next = timeout(LOOK_TIMEOUT, messages.next()).await;
        let message = match next {
            Ok(Some(message)) => message.map_err(|e| failed(Box::new(e)))?,
            Ok(None) => return Err(failed("the server ended it".into())),
            // Nothing is left there: the last of them were removed.
            Err(_) => return Ok(marks),
        };
        let info = message.info().map_err(failed)?;
        if info.stream_sequence > last_seq {
            return Ok(marks);
        }
        let header = message.headers.as_ref().and_then(|headers| headers.get(HEADER));
        let checkpoint = header.and_then(|header| Checkpoint::parse(header.as_str()));
        if let Some(Checkpoint { read: Some(read), .. }) = checkpoint {
            marks.push(read);
        }
        if info.stream_sequence == last_seq || info.pending == 0 {
            return Ok(marks);
        }
    }
}

/// Whether a position lies between transactions, where rows of a backfill may stand.
#[must_use]
pub(super) fn is_between(position: &Position) -> bool {
    position.within.is_none()
}
