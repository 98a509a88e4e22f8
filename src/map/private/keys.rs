//! The keys of subjects: where they are kept, and which are at hand.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::master::{Master, NONCE, SubjectId};

/// Keys at hand at most, beside those of the batch that is being rewritten.
const HELD_MAX: usize = 65_536;
/// Keys that are asked for at the same time.
const ASKED: usize = 64;
/// The version of an entry's form.
const FORM: u32 = 1;

/// Where the keys of one source's subjects are kept.
pub trait KeyStore: Send + Sync {
    /// Reads a subject's entry, as the leader of the store has it: an entry that was created is never missed.
    fn read(&self, subject: &SubjectId) -> impl Future<Output = Result<Option<Entry>, KeyError>> + Send;

    /// Writes a subject's first entry; whether it was the first.
    fn create(&self, subject: &SubjectId, entry: &Entry) -> impl Future<Output = Result<bool, KeyError>> + Send;

    /// Whether a subject may have been shredded since the last call. Waits for nothing.
    fn is_stale(&self) -> bool;
}

/// A subject's key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The store does not answer.
    #[error("the keys of subjects cannot be {what}")]
    Store {
        /// `read`, `written`.
        what: &'static str,
        /// What we were told.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// What stands there is none of ours.
    #[error("the entry of subject {} is of an unknown form", subject.as_str())]
    Form {
        /// The subject.
        subject: SubjectId,
    },
    /// It was made with another secret.
    #[error("the key of subject {} does not open with the configured key", subject.as_str())]
    OtherMaster {
        /// The subject.
        subject: SubjectId,
    },
    /// The configured secret is another than it was.
    #[error("the values of source {source_name} were hidden with another key so far")]
    OtherSecret {
        /// The source's name.
        source_name: String,
    },
    /// A key cannot be made.
    #[error("no key can be made")]
    Random(#[source] getrandom::Error),
}

impl KeyError {
    /// Whether trying again may mend it.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store { .. })
    }
}

/// What is kept of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    version: u32,
    /// Nonce, ciphertext and tag of the key under the master's, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// When the key was destroyed, RFC 3339. No other key is ever made for the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shredded_at: Option<String>,
}

impl Entry {
    /// What is left of a subject that is shredded.
    #[must_use]
    pub fn tombstone(at: String) -> Self {
        Self { version: FORM, key: None, shredded_at: Some(at) }
    }

    /// Whether the subject was shredded.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.shredded_at.is_some()
    }

    fn fresh(master: &Master, subject: &SubjectId) -> Result<Self, KeyError> {
        let mut key = Zeroizing::new([0; 32]);
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut *key).map_err(KeyError::Random)?;
        getrandom::fill(&mut nonce).map_err(KeyError::Random)?;
        let wrapped = master.wrap(subject, &key, nonce).ok_or_else(|| KeyError::Form { subject: subject.clone() })?;
        Ok(Self { version: FORM, key: Some(STANDARD.encode(wrapped)), shredded_at: None })
    }

    /// The subject's key; `None` once it was shredded.
    ///
    /// # Errors
    /// When it is of another form, or another master's.
    pub fn open(&self, master: &Master, subject: &SubjectId) -> Result<Option<Zeroizing<[u8; 32]>>, KeyError> {
        match (&self.key, self.version) {
            (_, FORM) if self.is_tombstone() => Ok(None),
            (Some(key), FORM) => {
                let wrapped = STANDARD.decode(key).map_err(|_| KeyError::Form { subject: subject.clone() })?;
                let key = master.unwrap(subject, &wrapped);
                key.map(Some).ok_or_else(|| KeyError::OtherMaster { subject: subject.clone() })
            }
            _ => Err(KeyError::Form { subject: subject.clone() }),
        }
    }
}

/// The keys of one batch's subjects; none for a subject that was shredded.
pub(super) type Held = HashMap<SubjectId, Option<Arc<Zeroizing<[u8; 32]>>>>;

/// The keys at hand.
pub struct KeyRing<K> {
    store: K,
    held: Mutex<AtHand>,
}

#[derive(Default)]
struct AtHand {
    keys: Held,
    /// How often all were forgotten: a key that was asked for before is not kept.
    forgotten: u64,
}

impl<K: KeyStore> KeyRing<K> {
    pub(super) fn new(store: K) -> Self {
        Self { store, held: Mutex::default() }
    }

    /// The keys of these subjects: those that are there, and new ones for subjects that never had one. A key is stored before
    /// anything is encrypted with it.
    pub(super) async fn hold(&self, master: &Master, subjects: HashSet<SubjectId>) -> Result<Held, KeyError> {
        if subjects.is_empty() {
            return Ok(Held::new());
        }
        let mut wanted = Held::with_capacity(subjects.len());
        let mut missing = Vec::new();
        let forgotten = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if self.store.is_stale() || held.keys.len() > HELD_MAX {
                held.keys.clear();
                held.forgotten += 1;
            }
            for subject in subjects {
                match held.keys.get(&subject) {
                    Some(key) => drop(wanted.insert(subject, key.clone())),
                    None => missing.push(subject),
                }
            }
            held.forgotten
        };
        let asked = iter(missing).map(|subject| async move {
            let key = self.key(master, &subject).await?;
            Ok::<_, KeyError>((subject, key))
        });
        let found: Vec<_> = asked.buffer_unordered(ASKED).try_collect().await?;
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.forgotten == forgotten {
            held.keys.extend(found.iter().cloned());
        }
        wanted.extend(found);
        Ok(wanted)
    }

    async fn key(&self, master: &Master, subject: &SubjectId) -> Result<Option<Arc<Zeroizing<[u8; 32]>>>, KeyError> {
        let entry = match self.store.read(subject).await? {
            Some(entry) => entry,
            None => {
                let fresh = Entry::fresh(master, subject)?;
                if self.store.create(subject, &fresh).await? {
                    fresh
                } else {
                    // Somebody was faster: another task of ours, or who shreds it.
                    let there = self.store.read(subject).await?;
                    there.ok_or(KeyError::Store { what: "read: an entry went away", source: None })?
                }
            }
        };
        Ok(entry.open(master, subject)?.map(Arc::new))
    }
}

/// Keys that are kept nowhere: for a dry run, which stores nothing.
#[derive(Debug, Default)]
pub struct Passing(Mutex<HashMap<SubjectId, Entry>>);

impl KeyStore for Passing {
    async fn read(&self, subject: &SubjectId) -> Result<Option<Entry>, KeyError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(subject).cloned())
    }

    async fn create(&self, subject: &SubjectId, entry: &Entry) -> Result<bool, KeyError> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !entries.contains_key(subject);
        entries.entry(subject.clone()).or_insert_with(|| entry.clone());
        Ok(is_first)
    }

    fn is_stale(&self) -> bool {
        false
    }
}
