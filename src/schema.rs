//! Schemas of event types: what a type's events look like, in which version, and what a change of it breaks.
//!
//! ```text
//!   Table, EventShape ──> document (JSON Schema 2020-12) ──> Book: known? then it has its version
//!                                                             │ new: compatibility with what is kept
//!                                                             v
//!                                     a minor version, a major version, or a refusal (by `Policy`)
//! ```
//!
//! Nothing here does I/O: versions are kept by `stream::SchemaRegistry`. A version follows from the shape of the rows
//! alone, through what is kept: a replay names the same versions, and a shape that comes back has the version it had.

pub mod asyncapi;
mod book;
mod compatibility;
mod document;
mod fit;
mod name;
pub mod sql;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use figvine_change::Table;
use serde_json::Value;

pub use book::{Book, Draft, Kept, Verdict};
pub use compatibility::{Break, Reader, between};
pub use document::{EventShape, Field, fixed, of_event, of_table};
pub use name::{Version, event_type, parse_key, table_type, uri};

/// What a change of an event type may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compatibility {
    /// Consumers of the new version can read events of the old one.
    pub backward: bool,
    /// Consumers of the old version can read events of the new one.
    pub forward: bool,
    /// Held against all versions of the major, not only the newest.
    pub is_transitive: bool,
}

impl Default for Compatibility {
    fn default() -> Self {
        Self { backward: true, forward: true, is_transitive: true }
    }
}

/// What to do about a change that is not compatible.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDrift {
    /// The source stops at the change.
    Stop,
    /// Rows in the new shape are parked.
    Park,
    /// The type gets a new major version.
    #[default]
    Degrade,
}

/// A source's rules for its event types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// What a change within a major version must keep.
    pub compatibility: Compatibility,
    /// What is done about one that does not.
    pub on_drift: OnDrift,
}

/// A change of a table's shape that the policy does not let pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it has another shape, which breaks version {version} of event type {event_type}: {what}")]
pub struct Refusal {
    /// The event type.
    pub event_type: Box<str>,
    /// The version that is in force.
    pub version: Version,
    /// What breaks; names of columns and types, never values.
    pub what: Box<str>,
}

/// The event types of one source, with their versions, as the encoder and the registry share them.
#[derive(Debug)]
pub struct Schemas {
    source: Box<str>,
    policy: Policy,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    book: Book,
    /// URIs by what tells a shape apart: a look is cheap, however many versions there are.
    shapes: HashMap<Vec<u8>, Result<Arc<str>, Arc<Refusal>>>,
    fixed: BTreeMap<String, Arc<str>>,
}

impl OnDrift {
    /// Whether a shape that is not compatible gets no version.
    #[must_use]
    pub fn refuses(self) -> bool {
        self != Self::Degrade
    }

    /// In one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Park => "park",
            Self::Degrade => "degrade",
        }
    }
}

impl Schemas {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(source: &str, policy: Policy) -> Self {
        Self { source: source.into(), policy, known: RwLock::default() }
    }

    /// The source's name.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its rules.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Begins anew with what is kept.
    pub fn load(&self, book: Book) {
        *self.write() = Known { book, ..Known::default() };
    }

    /// The URI of the version that a table's events are of; `None` while it is not known.
    ///
    /// # Errors
    /// When the policy refuses the shape.
    pub fn uri(&self, table: &Table) -> Result<Option<Arc<str>>, Arc<Refusal>> {
        self.read().shapes.get(&document::fingerprint(&self.source, table)).cloned().transpose()
    }

    /// The URI of an event type that does not depend on a table.
    #[must_use]
    pub fn fixed_uri(&self, suffix: &str) -> Option<Arc<str>> {
        self.read().fixed.get(suffix).cloned()
    }

    /// The URI of a type of domain events, by its name with the major version.
    #[must_use]
    pub fn domain_uri(&self, versioned: &str) -> Option<Arc<str>> {
        let own = self.fixed_uri(versioned);
        own.or_else(|| versioned.ends_with("_missing.v1").then(|| self.fixed_uri("missing_event")).flatten())
    }

    /// What becomes of a table in this shape. Says `None` where its URI is known by now.
    #[must_use]
    pub fn judge(&self, table: &Table) -> Option<(Draft, Verdict)> {
        let key = document::fingerprint(&self.source, table);
        if self.read().shapes.contains_key(&key) {
            return None;
        }
        let draft = of_table(&self.source, table);
        let mut known = self.write();
        match known.book.judge(&draft, self.policy.compatibility) {
            Verdict::Known(version) => {
                known.shapes.insert(key, Ok(uri(&draft.event_type, version).into()));
                None
            }
            verdict => Some((draft, verdict)),
        }
    }

    /// Takes in a version that is kept from now on.
    pub fn keep(&self, event_type: &str, version: Version, document: Value) {
        self.write().book.insert(event_type, version, document);
    }

    /// Takes in the version of an event type that does not depend on a table.
    pub fn keep_fixed(&self, suffix: &str, event_type: &str, version: Version) {
        self.write().fixed.insert(suffix.to_owned(), uri(event_type, version).into());
    }

    /// From now on a table in this shape is refused.
    pub fn refuse(&self, table: &Table, refusal: Refusal) {
        let key = document::fingerprint(&self.source, table);
        self.write().shapes.insert(key, Err(Arc::new(refusal)));
    }

    /// Whether the table's type has another version than this shape's in force; then this one is from now on.
    pub fn pass(&self, table: &Table) -> bool {
        let Ok(Some(uri)) = self.uri(table) else { return false };
        self.write().book.pass(&uri)
    }

    /// What is known.
    pub fn with_book<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.read().book)
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
