//! Where the versions of event types are kept: a KV bucket beside the stream.
//!
//! ```text
//!   shop.public.orders/1.0   the document of one version; it is created once and never changed
//!   FIGVINE_SHOP             the stream's: which version of each type is in force, and those documents
//! ```

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::kv::{self, CreateErrorKind};
use figvine_change::Table;
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::Settings;
use crate::schema::{Book, Break, Draft, OnDrift, Refusal, Schemas, Verdict, Version, fixed, parse_key, uri};

/// The bucket.
const BUCKET: &str = "FIGVINE_SCHEMAS";
/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Documents that are asked for at the same time.
const AT_ONCE: usize = 16;
/// Tries to give a type its next version while somebody else gives it one.
const TRIES: u32 = 5;
/// Tables that are known by their address; all are forgotten beyond.
const SEEN: usize = 4096;
/// What the server and the client add to a bundle, at most.
const FRAME: usize = 1024;

/// Versions cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the schemas of stream {stream} cannot be {what}")]
pub struct RegistryError {
    /// The stream's name.
    pub stream: String,
    /// `read`, `written`, or more exactly why.
    pub what: &'static str,
    /// What we were told.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

/// What a table's shape was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// That of an event that comes next.
    InLog,
    /// That of an existing row, or what the catalogue says: the log may be behind it.
    Elsewhere,
}

/// A type that got another version, or would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// `schema.table`.
    pub table: String,
    /// Why not a minor one.
    pub breaks: Vec<Break>,
    /// What is done about it.
    pub outcome: OnDrift,
}

/// The versions of one source's event types.
#[derive(Debug, Clone)]
pub struct SchemaRegistry(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    schemas: Arc<Schemas>,
    store: kv::Store,
    stream: String,
    max_payload: usize,
    /// One version is given at a time.
    giving: tokio::sync::Mutex<()>,
    /// Tables by address, and whether they were seen in the log; held, so that none comes to stand where another was.
    seen: Mutex<HashMap<usize, (Arc<Table>, bool)>>,
}

/// Opens the bucket to read it; `None` where there is none.
///
/// # Errors
/// The server does not answer.
pub async fn read_schemas(context: &Context, stream: &str, source: &str) -> Result<Option<Book>, RegistryError> {
    let told = |what, source: Box<dyn Error + Send + Sync>| RegistryError {
        stream: stream.to_owned(),
        what,
        source: Some(source),
    };
    let there = timeout(TIMEOUT, Box::pin(context.get_stream(format!("KV_{BUCKET}")))).await;
    match there.map_err(|late| told("read", Box::new(late)))? {
        Ok(_) => {}
        Err(error) => {
            return match error.kind() {
                GetStreamErrorKind::JetStream(answer) if answer.code() == 404 => Ok(None),
                _ => Err(told("read", Box::new(error))),
            };
        }
    }
    let store = Box::pin(context.get_key_value(BUCKET)).await.map_err(|e| told("read", Box::new(e)))?;
    read(&store, stream, source).await.map(Some)
}

async fn read(store: &kv::Store, stream: &str, source: &str) -> Result<Book, RegistryError> {
    let told = |what, source: Box<dyn Error + Send + Sync>| RegistryError {
        stream: stream.to_owned(),
        what,
        source: Some(source),
    };
    let prefix = format!("{source}.");
    let mut keys = Vec::new();
    let mut listed = Box::pin(store.keys()).await.map_err(|e| told("read", Box::new(e)))?;
    while let Some(key) = timeout(TIMEOUT, listed.next()).await.map_err(|late| told("read", Box::new(late)))? {
        let key = key.map_err(|e| told("read", Box::new(e)))?;
        if key.starts_with(&prefix) && parse_key(&key).is_some() {
            keys.push(key);
        }
    }
    let documents = keys.into_iter().map(async |key| {
        let value = Box::pin(store.get(&key)).await;
        (key, value)
    });
    let mut documents = futures_util::stream::iter(documents).buffer_unordered(AT_ONCE);
    let mut book = Book::default();
    while let Some((key, value)) =
        timeout(TIMEOUT, documents.next()).await.map_err(|late| told("read", Box::new(late)))?
    {
        let Some(value) = value.map_err(|e| told("read", Box::new(e)))? else { continue };
        let document = serde_json::from_slice(&value);
        let document = document.map_err(|e| told("read: one of them is no JSON", Box::new(e)))?;
        if let Some((event_type, version)) = parse_key(&key) {
            book.insert(event_type, version, document);
        }
    }
    let bundle = Box::pin(store.get(stream)).await.map_err(|e| told("read", Box::new(e)))?;
    let bundle: Option<Value> = bundle.and_then(|bundle| serde_json::from_slice(&bundle).ok());
    let current = bundle.as_ref().and_then(|bundle| bundle.get("current")).and_then(Value::as_object);
    for uri in current.into_iter().flat_map(Map::values).filter_map(Value::as_str) {
        book.pass(uri);
    }
    Ok(book)
}

impl SchemaRegistry {
    /// Of a source whose events name no schemas.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// Opens the bucket, which is made where it does not exist, with as many copies as the stream has, and reads it.
    ///
    /// # Errors
    /// It can neither be opened nor made, or not be read.
    pub async fn open(context: &Context, settings: &Settings, schemas: Arc<Schemas>) -> Result<Self, RegistryError> {
        let stream = settings.name.clone();
        let told = |what, source| RegistryError { stream: stream.clone(), what, source: Some(source) };
        let store = match Box::pin(context.get_key_value(BUCKET)).await {
            Ok(store) => store,
            Err(_) => {
                let config = kv::Config {
                    bucket: BUCKET.into(),
                    description: "the versions of the event types of figvine".into(),
                    history: 1,
                    num_replicas: settings.replicas,
                    ..kv::Config::default()
                };
                let made = Box::pin(context.create_key_value(config)).await;
                made.map_err(|e| told("kept: the bucket cannot be made", Box::new(e)))?
            }
        };
        schemas.load(Box::pin(read(&store, &stream, schemas.source())).await?);
        let max_payload = context.client().server_info().max_payload;
        let inner = Inner {
            schemas,
            store,
            stream,
            max_payload,
            giving: tokio::sync::Mutex::default(),
            seen: Mutex::default(),
        };
        for (suffix, draft) in fixed(inner.schemas.source()) {
            let version = match inner.schemas.with_book(|book| book.judge(&draft, inner.schemas.policy().compatibility))
            {
                Verdict::Known(version) => version,
                Verdict::New { version, document } | Verdict::Breaking { instead: (version, document), .. } => {
                    inner.create(&draft, version, &document).await?;
                    version
                }
            };
            inner.schemas.keep_fixed(suffix, &draft.event_type, version);
        }
        Ok(Self(Some(Arc::new(inner))))
    }

    /// What is known; `None` where nothing is kept.
    #[must_use]
    pub fn schemas(&self) -> Option<&Arc<Schemas>> {
        self.0.as_ref().map(|inner| &inner.schemas)
    }

    /// Whether the type of a table has a version.
    #[must_use]
    pub fn has(&self, event_type: &str) -> bool {
        let Some(inner) = &self.0 else { return true };
        inner.schemas.with_book(|book| !book.versions(event_type).is_empty())
    }

    /// Gives each table's shape its version, before anything of it is encoded; a shape that is not let pass is noted
    /// for the encoder to stop at. Says what is not compatible.
    ///
    /// # Errors
    /// A version that is new cannot be kept.
    pub async fn admit(&self, tables: &[Arc<Table>], seen: Seen) -> Result<Vec<Drift>, RegistryError> {
        let Some(inner) = &self.0 else { return Ok(Vec::new()) };
        let fresh = inner.fresh(tables, seen);
        if fresh.is_empty() {
            return Ok(Vec::new());
        }
        Box::pin(inner.admit(&fresh, seen)).await
    }

    /// Gives types of domain events their versions, each by its name with the major version. Says what is not compatible
    /// with the major version that its rule names: such a type has none.
    ///
    /// # Errors
    /// A version that is new cannot be kept.
    pub async fn admit_events(&self, drafts: &[(Arc<str>, Draft)]) -> Result<Vec<Drift>, RegistryError> {
        let Some(inner) = &self.0 else { return Ok(Vec::new()) };
        let outcome = inner.schemas.policy().on_drift;
        let mut drifts = Vec::new();
        for (versioned, draft) in drafts {
            let verdict = inner.schemas.with_book(|book| book.judge(draft, inner.schemas.policy().compatibility));
            let version = match verdict {
                Verdict::Known(version) => version,
                Verdict::New { version, document } => {
                    Box::pin(inner.create(draft, version, &document)).await?;
                    version
                }
                Verdict::Breaking { breaks, .. } => {
                    drifts.push(Drift { table: draft.name.clone(), breaks, outcome });
                    continue;
                }
            };
            inner.schemas.keep_fixed(versioned, &draft.event_type, version);
        }
        Ok(drifts)
    }

    /// Writes down which versions are in force.
    ///
    /// # Errors
    /// They cannot be written.
    pub async fn write_bundle(&self) -> Result<(), RegistryError> {
        match &self.0 {
            Some(inner) => Box::pin(inner.write_bundle()).await,
            None => Ok(()),
        }
    }
}

impl Inner {
    fn told(&self, what: &'static str, source: impl Error + Send + Sync + 'static) -> RegistryError {
        RegistryError { stream: self.stream.clone(), what, source: Some(Box::new(source)) }
    }

    /// Tables that were not seen yet at their address.
    fn fresh<'a>(&self, tables: &'a [Arc<Table>], seen: Seen) -> Vec<&'a Arc<Table>> {
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |table: &&Arc<Table>| match known.get(&Arc::as_ptr(table).addr()) {
            Some((_, was_in_log)) => seen == Seen::InLog && !was_in_log,
            None => true,
        };
        tables.iter().filter(is_fresh).collect()
    }

    async fn admit(&self, tables: &[&Arc<Table>], seen: Seen) -> Result<Vec<Drift>, RegistryError> {
        let _giving = self.giving.lock().await;
        let mut drifts = Vec::new();
        let mut is_news = false;
        for table in tables {
            let mut tries = 0;
            while let Some((draft, verdict)) = self.schemas.judge(table) {
                let (version, document) = match verdict {
                    Verdict::Known(_) => continue,
                    Verdict::New { version, document } => (version, document),
                    Verdict::Breaking { with, breaks, instead } => {
                        // Given a version before the log says so, a catalogue that is ahead would break what comes first.
                        let outcome = self.schemas.policy().on_drift;
                        if tries == 0 {
                            drifts.push(Drift { table: table.qualified_name(), breaks: breaks.clone(), outcome });
                        }
                        if outcome.refuses() {
                            let what: Vec<_> = breaks.iter().map(|broken| broken.what.as_str()).collect();
                            let what = what.join("; ").into();
                            let event_type = draft.event_type.as_str().into();
                            self.schemas.refuse(table, Refusal { event_type, version: with, what });
                            break;
                        }
                        instead
                    }
                };
                if !self.create(&draft, version, &document).await? {
                    tries += 1;
                    if tries >= TRIES {
                        let what = "written: somebody else gives versions";
                        return Err(RegistryError { stream: self.stream.clone(), what, source: None });
                    }
                    continue;
                }
                is_news = true;
                tracing::info!(source = %self.schemas.source(), schema = %uri(&draft.event_type, version), "a new schema");
            }
            if seen == Seen::InLog {
                is_news |= self.schemas.pass(table);
            }
            let mut known = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= SEEN {
                known.clear();
            }
            known.insert(Arc::as_ptr(table).addr(), (Arc::clone(table), seen == Seen::InLog));
        }
        if is_news {
            self.write_bundle().await?;
        }
        Ok(drifts)
    }

    /// Keeps a version; false where another one has its number, which is known then.
    async fn create(&self, draft: &Draft, version: Version, document: &Value) -> Result<bool, RegistryError> {
        let value = serde_json::to_vec(document).map_err(|e| self.told("written", e))?;
        let uri = uri(&draft.event_type, version);
        let key = uri.split_once(':').map_or(uri.as_str(), |(_, key)| key);
        let create = Box::pin(self.store.create(key, value.into()));
        match timeout(TIMEOUT, create).await.map_err(|late| self.told("written in time", late))? {
            Ok(_) => {
                self.schemas.keep(&draft.event_type, version, document.clone());
                Ok(true)
            }
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
                let there = Box::pin(self.store.get(key)).await.map_err(|e| self.told("read", e))?;
                let there = there.ok_or_else(|| self.told("written", error))?;
                let there: Value = serde_json::from_slice(&there).map_err(|e| self.told("read", e))?;
                let is_ours = there == *document;
                self.schemas.keep(&draft.event_type, version, there);
                Ok(is_ours)
            }
            Err(error) => Err(self.told("written", error)),
        }
    }

    async fn write_bundle(&self) -> Result<(), RegistryError> {
        let bundle = self.schemas.with_book(|book| bundle(book, &self.stream, self.schemas.source(), self.max_payload));
        let value = serde_json::to_vec(&bundle).map_err(|e| self.told("written", e))?;
        let put = Box::pin(self.store.put(&self.stream, value.into()));
        match timeout(TIMEOUT, put).await {
            Ok(put) => put.map(drop).map_err(|e| self.told("written", e)),
            Err(late) => Err(self.told("written in time", late)),
        }
    }
}

/// The versions in force; with their documents where these fit into one message.
fn bundle(book: &Book, stream: &str, source: &str, max_payload: usize) -> Value {
    let mut current = Map::new();
    let mut documents = Map::new();
    let mut size = FRAME;
    for (event_type, _) in book.types() {
        let Some(kept) = book.current(event_type) else { continue };
        let uri = uri(event_type, kept.version);
        size += kept.document.to_string().len() + 3 * uri.len() + 16;
        documents.insert(uri.clone(), kept.document.clone());
        current.insert(event_type.to_owned(), uri.into());
    }
    let mut bundle = json!({ "schema_version": 1, "stream": stream, "source": source, "current": current });
    if size <= max_payload
        && let Value::Object(members) = &mut bundle
    {
        members.insert("schemas".into(), documents.into());
    }
    bundle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_that_would_not_fit_has_names_and_no_documents() {
        let mut book = Book::default();
        for number in 0..10 {
            book.insert(&format!("shop.public.t{number}"), Version::FIRST, json!({ "title": "x".repeat(200) }));
        }
        let whole = bundle(&book, "FIGVINE_SHOP", "shop", 1 << 20);
        assert_eq!(whole["current"]["shop.public.t3"], "figvine:shop.public.t3/1.0");
        assert_eq!(whole["schemas"]["figvine:shop.public.t3/1.0"]["title"], "x".repeat(200));
        let names = bundle(&book, "FIGVINE_SHOP", "shop", 2048);
        assert_eq!((names["current"].as_object().map(Map::len), names.get("schemas")), (Some(10), None));
        assert!(names.to_string().len() < 2048);
    }
}
