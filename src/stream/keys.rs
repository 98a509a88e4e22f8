//! The keys of subjects in KV, and how they are destroyed.
//!
//! A shredded subject keeps an entry that says so. The bucket has a history of two: the entry that holds the key is still
//! there when the tombstone is written, so that it can be erased, also by who finds a shredding half done. A marker beside
//! the entries tells running bridges that something was shredded.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{self, CreateErrorKind};
use async_nats::jetstream::stream::{self, LastRawMessageErrorKind, Stream};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::Settings;
use crate::map::private::{Entry, KeyError, KeyStore, Master, SubjectId};

/// The bucket; its keys are `<source>.<subject>`.
pub const BUCKET: &str = "FIGVINE_KEYS";
/// The part of a key that no subject has: the marker.
const MARKER: &str = "shredded";
/// Another: what tells the secret.
const SECRET: &str = "secret";
/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Tries to replace an entry that changes meanwhile.
const TRIES: u32 = 5;
/// Pause before the bucket is watched anew.
const AGAIN: Duration = Duration::from_secs(1);

/// The keys of one source's subjects.
#[derive(Clone)]
pub struct SubjectKeys {
    kept: Option<Kept>,
    source: String,
    is_stale: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Kept {
    store: kv::Store,
    /// The bucket's stream: its leader is asked for entries, since a replica may not have the newest yet, and the key that
    /// it does not have would be made twice.
    stream: Stream,
}

/// What became of a subject that was to be shredded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shredding {
    /// Its key is destroyed.
    Done,
    /// There was no key; there will be none.
    NoKey,
    /// It was shredded before; what may have been left of the key is erased.
    Before,
}

impl std::fmt::Debug for SubjectKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubjectKeys").field("source", &self.source).finish_non_exhaustive()
    }
}

fn told(what: &'static str, source: impl Error + Send + Sync + 'static) -> KeyError {
    KeyError::Store { what, source: Some(Box::new(source)) }
}

/// An answer within [`TIMEOUT`].
async fn soon<T>(what: &'static str, asked: impl Future<Output = T>) -> Result<T, KeyError> {
    timeout(TIMEOUT, asked).await.map_err(|late| told(what, late))
}

impl SubjectKeys {
    /// Of a source without a secret: never asked.
    #[must_use]
    pub fn none(source: &str) -> Self {
        Self { kept: None, source: source.to_owned(), is_stale: Arc::default() }
    }

    /// Opens the bucket, which is made where it does not exist, with as many copies as the stream has.
    ///
    /// # Errors
    /// It can neither be opened nor made; or the source's values were hidden with another secret so far. Under another
    /// one a subject has another name, and one that was shredded would get a new key.
    pub async fn open(context: &Context, settings: &Settings, master: &Master) -> Result<Self, KeyError> {
        // As KV makes its streams, but for `deny_delete`: what is deleted by its sequence is overwritten on disk.
        let config = stream::Config {
            name: format!("KV_{BUCKET}"),
            description: Some("keys of the subjects whose data figvine encrypts, each wrapped".into()),
            subjects: vec![format!("$KV.{BUCKET}.>")],
            max_messages_per_subject: 2,
            discard: stream::DiscardPolicy::New,
            allow_rollup: true,
            allow_direct: true,
            num_replicas: settings.replicas,
            ..stream::Config::default()
        };
        let stream = soon("kept", Box::pin(context.get_or_create_stream(config))).await?;
        let stream = stream.map_err(|e| told("kept: the bucket cannot be made", e))?;
        let store = soon("read", Box::pin(context.get_key_value(BUCKET))).await?;
        let store = store.map_err(|e| told("read", e))?;
        let kept = Some(Kept { store, stream });
        let keys = Self { kept, source: settings.source.clone(), is_stale: Arc::default() };
        keys.verify(master).await?;
        Ok(keys)
    }

    /// Whether the secret is the one of the first time.
    async fn verify(&self, master: &Master) -> Result<(), KeyError> {
        let Kept { store, stream } = self.kept()?;
        let name = self.name(SECRET);
        let mark = master.mark();
        match soon("written", Box::pin(store.create(&name, mark.as_str().to_owned().into()))).await? {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {}
            Err(error) => return Err(told("written", error)),
        }
        let subject = format!("{}{name}", store.prefix);
        let there = soon("read", Box::pin(stream.get_last_raw_message_by_subject(&subject)))
            .await?
            .map_err(|e| told("read", e))?;
        let is_it = *there.payload == *mark.as_str().as_bytes();
        is_it.then_some(()).ok_or_else(|| KeyError::OtherSecret { source_name: self.source.clone() })
    }

    /// Listens for subjects that are shredded. For ever: whoever calls drops it.
    pub async fn watch(self) {
        let Some(kept) = &self.kept else { return std::future::pending().await };
        loop {
            if let Ok(mut watch) = Box::pin(kept.store.watch(self.name(MARKER))).await {
                // What happened before it was watched was not heard.
                self.is_stale.store(true, Ordering::Release);
                while let Some(heard) = watch.next().await {
                    self.is_stale.store(true, Ordering::Release);
                    if let Err(error) = heard {
                        tracing::debug!(source = %self.source, %error, "the keys of subjects are watched anew");
                        break;
                    }
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Destroys a subject's key for good. It can be said again after a failure.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn shred(&self, subject: &SubjectId, at: &str) -> Result<Shredding, KeyError> {
        let Kept { store, stream } = self.kept()?;
        let name = self.name(subject.as_str());
        let tombstone = serde_json::to_vec(&Entry::tombstone(at.to_owned())).map_err(|e| told("written", e))?;
        let mut tries = 0;
        let shredding = loop {
            let there = self.last(subject).await?;
            let outcome = match &there {
                Some((entry, _)) if entry.is_tombstone() => break Shredding::Before,
                Some((_, revision)) => {
                    let update = Box::pin(store.update(&name, tombstone.clone().into(), *revision));
                    soon("written", update).await?.map(|_| Shredding::Done).map_err(|e| told("written", e))
                }
                None => {
                    let create = Box::pin(store.create(&name, tombstone.clone().into()));
                    soon("written", create).await?.map(|_| Shredding::NoKey).map_err(|e| told("written", e))
                }
            };
            tries += 1;
            match outcome {
                Ok(shredding) => break shredding,
                Err(error) if tries >= TRIES => return Err(error),
                // A bridge may just have made the key.
                Err(_) => {}
            }
        };
        // The key still stands before the tombstone. The server overwrites what it is told to delete.
        let mut history = soon("read", Box::pin(store.history(&name))).await?.map_err(|e| told("read", e))?;
        while let Some(entry) = soon("read", history.next()).await? {
            let entry = entry.map_err(|e| told("read", e))?;
            if serde_json::from_slice::<Entry>(&entry.value).is_ok_and(|entry| !entry.is_tombstone()) {
                let delete = Box::pin(stream.delete_message(entry.revision));
                soon("erased", delete).await?.map_err(|e| told("erased", e))?;
            }
        }
        let mark = Box::pin(store.put(self.name(MARKER), at.to_owned().into()));
        soon("written", mark).await?.map_err(|e| told("written", e))?;
        Ok(shredding)
    }

    /// A subject's newest entry and its revision.
    async fn last(&self, subject: &SubjectId) -> Result<Option<(Entry, u64)>, KeyError> {
        let Kept { store, stream } = self.kept()?;
        let name = format!("{}{}", store.prefix, self.name(subject.as_str()));
        let message = match soon("read", Box::pin(stream.get_last_raw_message_by_subject(&name))).await? {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(error) => return Err(told("read", error)),
        };
        // Somebody removed it with other tools: it is gone all the same.
        if message.payload.is_empty() {
            return Ok(Some((Entry::tombstone(String::new()), message.sequence)));
        }
        let entry = serde_json::from_slice(&message.payload);
        let entry = entry.map_err(|_| KeyError::Form { subject: subject.clone() })?;
        Ok(Some((entry, message.sequence)))
    }

    fn kept(&self) -> Result<&Kept, KeyError> {
        self.kept.as_ref().ok_or(KeyError::Store { what: "read: none are kept", source: None })
    }

    fn name(&self, of: &str) -> String {
        format!("{}.{of}", self.source)
    }
}

impl KeyStore for SubjectKeys {
    async fn read(&self, subject: &SubjectId) -> Result<Option<Entry>, KeyError> {
        Ok(self.last(subject).await?.map(|(entry, _)| entry))
    }

    async fn create(&self, subject: &SubjectId, entry: &Entry) -> Result<bool, KeyError> {
        let value = serde_json::to_vec(entry).map_err(|e| told("written", e))?;
        let create = Box::pin(self.kept()?.store.create(self.name(subject.as_str()), value.into()));
        match soon("written", create).await? {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(told("written", error)),
        }
    }

    fn is_stale(&self) -> bool {
        self.is_stale.swap(false, Ordering::AcqRel)
    }
}
