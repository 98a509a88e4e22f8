//! The checkpoint beside the stream, in KV: a lower bound of what is stored, written behind the acks.
//!
//! It finds a stream that lost what it had acknowledged, stands in for a tail that
//! was removed by age, and remembers the progress of an idle source. Only what
//! stands there is reported as durable: what the source may forget.

use std::collections::VecDeque;
use std::error::Error;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::kv;
use bytes::Bytes;
use figvine_change::Position;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Settings, Stored};

/// The bucket; one key for each stream, its name.
pub const BUCKET: &str = "FIGVINE_CHECKPOINTS";

/// How often it is written while the stream moves.
const EVERY: Duration = Duration::from_secs(1);
/// How long one write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Tries at the end, when nobody waits for the next second.
const LAST_TRIES: u32 = 3;
/// Positions held back by a release delay; they are thinned out to this many.
const HELD: u32 = 256;
/// The version of the form.
const FORM: u32 = 1;

/// What was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The mark of the stream that it speaks of.
    pub stream_id: Box<str>,
    /// The message that was stored for sure.
    pub sequence: u64,
    /// Where the source goes on behind it.
    pub position: Position,
    /// The message of an alien who wrote between ours: what we stored behind it has a gap before it.
    pub displaced: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Form {
    version: u32,
    stream_id: Box<str>,
    sequence: u64,
    position: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    displaced: Option<u64>,
    /// When it was written, RFC 3339; for people.
    #[serde(default)]
    at: String,
}

/// The checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the checkpoint of stream {stream} cannot be {what}")]
pub struct KeepError {
    /// The stream's name.
    pub stream: String,
    /// `read`, `written`, or more exactly why.
    pub what: &'static str,
    /// What we were told.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// Where checkpoints are kept.
pub trait Vault: Send {
    /// Writes the newest.
    fn put(&mut self, value: Bytes) -> impl Future<Output = Result<(), KeepError>> + Send;

    /// Reads it.
    fn get(&mut self) -> impl Future<Output = Result<Option<Bytes>, KeepError>> + Send;

    /// Removes it.
    fn delete(&mut self) -> impl Future<Output = Result<(), KeepError>> + Send;
}

/// The key of one stream in the bucket.
#[derive(Debug, Clone)]
pub struct Key {
    store: kv::Store,
    stream: String,
}

impl Key {
    /// Opens the bucket, which is made where it does not exist, with as many copies as the stream has.
    ///
    /// # Errors
    /// It can neither be opened nor made.
    pub async fn open(context: &Context, settings: &Settings) -> Result<Self, KeepError> {
        let stream = settings.name.clone();
        if let Ok(store) = Box::pin(context.get_key_value(BUCKET)).await {
            return Ok(Self { store, stream });
        }
        let config = kv::Config {
            bucket: BUCKET.into(),
            description: "how far each stream of figvine is".into(),
            history: 1,
            num_replicas: settings.replicas,
            ..kv::Config::default()
        };
        match Box::pin(context.create_key_value(config)).await {
            Ok(store) => Ok(Self { store, stream }),
            Err(e) => Err(KeepError { stream, what: "kept: the bucket cannot be made", source: Some(Box::new(e)) }),
        }
    }

    fn error(&self, what: &'static str, source: impl Error + Send + Sync + 'static) -> KeepError {
        KeepError { stream: self.stream.clone(), what, source: Some(Box::new(source)) }
    }
}

impl Vault for Key {
    async fn put(&mut self, value: Bytes) -> Result<(), KeepError> {
        Box::pin(self.store.put(&self.stream, value)).await.map(drop).map_err(|e| self.error("written", e))
    }

    async fn get(&mut self) -> Result<Option<Bytes>, KeepError> {
        Box::pin(self.store.get(&self.stream)).await.map_err(|e| self.error("read", e))
    }

    async fn delete(&mut self) -> Result<(), KeepError> {
        Box::pin(self.store.purge(&self.stream)).await.map_err(|e| self.error("removed", e))
    }
}

/// Keeps one stream's checkpoint.
#[derive(Debug)]
pub struct Keeper<V> {
    vault: V,
    stream: String,
    stream_id: Box<str>,
    release_delay: Duration,
}

impl<V: Vault> Keeper<V> {
    /// For the stream with the mark `stream_id`.
    pub fn new(vault: V, settings: &Settings, stream_id: impl Into<Box<str>>) -> Self {
        let release_delay = settings.release_delay;
        Self { vault, stream: settings.name.clone(), stream_id: stream_id.into(), release_delay }
    }

    /// What was kept by an earlier run; `None` when nothing was.
    ///
    /// # Errors
    /// It cannot be read, or is of a later version's form.
    pub async fn read(&mut self) -> Result<Option<Kept>, KeepError> {
        let Some(value) = self.vault.get().await? else { return Ok(None) };
        let unknown = |source: Option<Box<dyn Error + Send + Sync>>| KeepError {
            stream: self.stream.clone(),
            what: "read: its form is unknown",
            source,
        };
        let form: Form = serde_json::from_slice(&value).map_err(|e| unknown(Some(Box::new(e))))?;
        let position = Position::parse(&form.position).filter(|_| form.version == FORM).ok_or_else(|| unknown(None))?;
        let Form { stream_id, sequence, displaced, .. } = form;
        Ok(Some(Kept { stream_id, sequence, position, displaced }))
    }

    /// Says by hand where the source goes on behind the stream's last message.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn set(&mut self, last_seq: u64, position: &Position) -> Result<(), KeepError> {
        let form = self.form(last_seq, position, None);
        self.vault.put(form).await
    }

    /// Notes that an alien's message stands among ours, so that no later run goes on behind it.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub async fn mark_displaced(&mut self, sequence: u64) -> Result<(), KeepError> {
        let Some(kept) = self.read().await? else { return Ok(()) };
        let form = self.form(kept.sequence, &kept.position, Some(sequence));
        self.vault.put(form).await
    }

    /// Forgets everything, for a stream that is begun anew.
    ///
    /// # Errors
    /// It cannot be removed.
    pub async fn forget(&mut self) -> Result<(), KeepError> {
        self.vault.delete().await
    }

    /// Writes what is stored, about once a second, until `stored` is closed, and then once more. What is
    /// written moves `durable`, after the release delay. What cannot be written is tried again, with what is newer.
    pub async fn run(mut self, mut stored: watch::Receiver<Stored>, durable: watch::Sender<Option<Position>>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written: Option<Stored> = None;
        let mut held = Held::new(self.release_delay);
        let mut open = true;
        while open {
            // A second at least between two writes; closing does not wait for it.
            tokio::select! {
                biased;
                () = closed(&mut stored) => open = false,
                _ = ticks.tick() => {}
            }
            let newest = stored.borrow_and_update().clone();
            let tries = if open { 1 } else { LAST_TRIES };
            for _ in 0..tries {
                if written.as_ref() == Some(&newest) || self.write(&newest).await {
                    written = Some(newest);
                    break;
                }
            }
            let kept = written.as_ref().and_then(|w| w.position.as_ref());
            if let Some(position) = held.pass(kept) {
                durable.send_if_modified(|at| {
                    let moved = at.as_ref() != Some(&position);
                    *at = Some(position);
                    moved
                });
            }
        }
    }

    fn form(&self, sequence: u64, position: &Position, displaced: Option<u64>) -> Bytes {
        let form = Form {
            version: FORM,
            stream_id: self.stream_id.clone(),
            sequence,
            position: position.to_string(),
            displaced,
            at: jiff::Timestamp::now().to_string(),
        };
        serde_json::to_vec(&form).unwrap_or_default().into()
    }

    async fn write(&mut self, stored: &Stored) -> bool {
        // Nothing is known yet that a restart could use.
        let Some(position) = &stored.position else { return true };
        let value = self.form(stored.sequence, position, None);
        match timeout(WRITE_TIMEOUT, self.vault.put(value)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(stream = %self.stream, source = ?error.source, "{error}");
                false
            }
            Err(_) => {
                tracing::warn!(stream = %self.stream, "the checkpoint cannot be written in time");
                false
            }
        }
    }
}

async fn closed(stored: &mut watch::Receiver<Stored>) {
    while stored.changed().await.is_ok() {}
}

/// Positions that are written and not yet released.
struct Held {
    delay: Duration,
    queue: VecDeque<(Instant, Position)>,
}

impl Held {
    fn new(delay: Duration) -> Self {
        Self { delay, queue: VecDeque::new() }
    }

    /// Takes the newest in; gives the newest that has been held long enough.
    fn pass(&mut self, newest: Option<&Position>) -> Option<Position> {
        let now = Instant::now();
        if let Some(newest) = newest {
            let room = self
                .queue
                .back()
                .is_none_or(|(at, position)| position != newest && now.duration_since(*at) >= self.delay / HELD);
            if room {
                self.queue.push_back((now, newest.clone()));
            }
        }
        let mut due = None;
        while let Some((at, _)) = self.queue.front()
            && now.duration_since(*at) >= self.delay
        {
            due = self.queue.pop_front().map(|(_, position)| position);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::super::OnLoss;
    use super::*;

    #[derive(Debug, Default, Clone)]
    struct Shelf(Arc<Mutex<(Option<Bytes>, u32)>>);

    impl Shelf {
        fn fail(&self, times: u32) {
            self.0.lock().unwrap().1 = times;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone().unwrap_or_default().to_vec()).unwrap()
        }
    }

    impl Vault for Shelf {
        async fn put(&mut self, value: Bytes) -> Result<(), KeepError> {
            let mut shelf = self.0.lock().unwrap();
            if shelf.1 > 0 {
                shelf.1 -= 1;
                return Err(KeepError { stream: "S".into(), what: "written", source: None });
            }
            shelf.0 = Some(value);
            Ok(())
        }

        async fn get(&mut self) -> Result<Option<Bytes>, KeepError> {
            Ok(self.0.lock().unwrap().0.clone())
        }

        async fn delete(&mut self) -> Result<(), KeepError> {
            self.0.lock().unwrap().0 = None;
            Ok(())
        }
    }

    fn keeper(shelf: &Shelf, release_delay: Duration) -> Keeper<Shelf> {
        let settings = Settings {
            name: "S".into(),
            source: "s".into(),
            subjects: vec![],
            replicas: 1,
            max_age: None,
            max_bytes: None,
            compression: false,
            adopt: false,
            on_loss: OnLoss::Stop,
            ack_timeout: Duration::from_secs(2),
            window_messages: 1,
            window_bytes: 1,
            release_delay,
        };
        Keeper::new(shelf.clone(), &settings, "id")
    }

    fn at(sequence: u64) -> Stored {
        Stored { sequence, position: Some(Position::between(format!("p{sequence}"))), reads: None }
    }

    struct Running {
        shelf: Shelf,
        stored: watch::Sender<Stored>,
        durable: watch::Receiver<Option<Position>>,
        task: tokio::task::JoinHandle<()>,
    }

    fn running(release_delay: Duration) -> Running {
        let shelf = Shelf::default();
        let (stored, watching) = watch::channel(Stored::default());
        let (moves, durable) = watch::channel(None);
        let task = tokio::spawn(keeper(&shelf, release_delay).run(watching, moves));
        Running { shelf, stored, durable, task }
    }

    async fn seconds(count: u64) {
        tokio::time::sleep(Duration::from_millis(count * 1000 + 1)).await;
    }

    fn durable(running: &Running) -> Option<String> {
        running.durable.borrow().as_ref().map(ToString::to_string)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_kept_reads_back() {
        let running = running(Duration::ZERO);
        running.stored.send_replace(at(7));
        seconds(1).await;
        let kept = keeper(&running.shelf, Duration::ZERO).read().await.expect("readable");
        assert_eq!(
            kept,
            Some(Kept { stream_id: "id".into(), sequence: 7, position: Position::between("p7"), displaced: None })
        );
        assert!(
            running.shelf.text().starts_with(r#"{"version":1,"stream_id":"id","sequence":7,"position":"p7","at":"#)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_form_is_an_error_and_not_nothing() {
        for text in [r#"{"version":2,"stream_id":"id","sequence":7,"position":"p"}"#, "nonsense", "{}"] {
            let shelf = Shelf::default();
            shelf.0.lock().unwrap().0 = Some(Bytes::from(text));
            keeper(&shelf, Duration::ZERO).read().await.expect_err("unknown");
        }
        assert_eq!(keeper(&Shelf::default(), Duration::ZERO).read().await.expect("readable"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_durable_before_it_is_written() {
        let running = running(Duration::ZERO);
        running.shelf.fail(2);
        running.stored.send_replace(at(7));
        seconds(1).await;
        assert_eq!((durable(&running), running.shelf.text()), (None, String::new()));
        seconds(2).await;
        assert_eq!(durable(&running).as_deref(), Some("p7"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_written_at_once_and_in_spite_of_a_failure() {
        let running = running(Duration::ZERO);
        running.stored.send_replace(at(7));
        seconds(1).await;
        running.stored.send_replace(at(8));
        running.shelf.fail(1);
        drop(running.stored);
        running.task.await.expect("it ends");
        assert!(running.shelf.text().contains(r#""sequence":8"#));
        assert_eq!(running.durable.borrow().as_ref().map(ToString::to_string).as_deref(), Some("p8"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_release_delay_holds_the_source_back_and_no_longer() {
        let running = running(Duration::from_secs(10));
        for sequence in 1..=5 {
            running.stored.send_replace(at(sequence));
            seconds(1).await;
        }
        assert_eq!(durable(&running), None);
        assert!(running.shelf.text().contains(r#""sequence":5"#));
        seconds(7).await;
        assert!(durable(&running).is_some_and(|p| p != "p5"));
        seconds(10).await;
        assert_eq!(durable(&running).as_deref(), Some("p5"));
    }

    #[tokio::test]
    async fn a_position_set_by_hand_is_read_and_can_be_forgotten() {
        let shelf = Shelf::default();
        let mut keeper = keeper(&shelf, Duration::ZERO);
        keeper.set(7, &Position::between("a")).await.unwrap();
        let kept = keeper.read().await.unwrap().unwrap();
        assert_eq!((kept.sequence, kept.position, kept.displaced), (7, Position::between("a"), None));
        keeper.mark_displaced(9).await.unwrap();
        let kept = keeper.read().await.unwrap().unwrap();
        assert_eq!((kept.sequence, kept.position, kept.displaced), (7, Position::between("a"), Some(9)));
        keeper.forget().await.unwrap();
        assert_eq!(keeper.read().await.unwrap(), None);
    }
}
