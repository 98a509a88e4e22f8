//! The configuration: the user's file, checked as a whole, into what each part is told.
//!
//! ```text
//! text ── yaml ──> tree with positions ── overrides ── interpolate ──> resolve ──> Config
//!                                                        keys ───────────┘
//!                                                         └────> the JSON Schema for editors
//! ```
//!
//! Nothing stops at the first mistake: each stage adds to the same list of complaints,
//! so that one run tells all of them. No complaint repeats an address, a password, or
//! anything that came out of a variable or a file.

mod context;
mod debezium;
mod interpolate;
mod keys;
mod letters;
mod overrides;
mod private;
mod raw;
mod resolve;
mod rules;
mod schema;
mod schemas;
mod size;
mod template;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use schema::{json_schema, known_keys};
pub(crate) use size::bytes;

use crate::{backfill, event, map, nats, schema as event_schema, stream};

/// What holds: a configuration without mistakes.
#[derive(Debug, Clone)]
pub struct Config {
    nats: nats::Settings,
    sources: Vec<Source>,
    http: Http,
    shutdown_timeout: Duration,
}

impl Config {
    /// How to reach NATS.
    #[must_use]
    pub fn nats(&self) -> &nats::Settings {
        &self.nats
    }

    /// The sources, at least one, in the order of the file. Names, streams, and slots of one server are distinct.
    #[must_use]
    pub fn sources(&self) -> &[Source] {
        &self.sources
    }

    /// Health, metrics and status.
    #[must_use]
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// How long a shutdown may take to flush and to store a checkpoint.
    #[must_use]
    pub fn shutdown_timeout(&self) -> Duration {
        self.shutdown_timeout
    }
}

/// One database and the stream it goes to.
#[derive(Debug, Clone)]
pub struct Source {
    /// The source's name, `[A-Za-z0-9_-]+`.
    pub name: String,
    /// The database.
    pub engine: EngineConfig,
    /// How its events look.
    pub events: event::Settings,
    /// What of its rows is hidden.
    pub private: Arc<map::private::Settings>,
    /// How its event types may change; `None` where events name no schemas.
    pub schemas: Option<event_schema::Policy>,
    /// What is parked rather than ends the source.
    pub parks: event::Parks,
    /// Where that is kept.
    pub letters: stream::LetterSettings,
    /// Whose transactions are left out.
    pub echoes: map::echo::Echoes,
    /// What is made of its changes.
    pub rules: Arc<map::rules::Settings>,
    /// The stream they go to.
    pub stream: stream::Settings,
    /// How rows that are there already are read.
    pub backfill: backfill::Settings,
}

/// What the connector of one source is told.
#[derive(Debug, Clone)]
pub enum EngineConfig {
    /// PostgreSQL.
    Postgres(figvine_postgres::config::Config),
    /// MySQL or MariaDB.
    Mysql(figvine_mysql::config::Config),
}

/// Health, metrics and status.
#[derive(Debug, Clone)]
pub struct Http {
    /// The address to listen on; `None` for no listener.
    pub listen: Option<SocketAddr>,
}

/// Loads a file. `vars` are the process's variables: they feed `${NAME}`, the
/// overrides `FIGVINE__SECTION__KEY`, and the place of the nats CLI's contexts.
///
/// Relative paths in the file are relative to the working directory.
///
/// # Errors
/// All mistakes at once; or that the file cannot be read.
pub fn load(path: &Path, vars: &BTreeMap<String, String>) -> Result<Config, ConfigErrors> {
    let name = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => parse(&name, &text, vars),
        Err(error) => {
            let what = format!("the file cannot be read: {}", error.kind());
            Err(ConfigErrors {
                file: name,
                errors: vec![ConfigError { at: At::Everywhere, path: String::new(), what }],
            })
        }
    }
}

/// Reads the text of a file called `name`; see [`load`].
///
/// # Errors
/// All mistakes at once.
pub fn parse(name: &str, text: &str, vars: &BTreeMap<String, String>) -> Result<Config, ConfigErrors> {
    let mut complaints = Complaints::default();
    let mut root = yaml::read(text, &mut complaints);
    if matches!(root.value, yaml::Value::Null) {
        root.value = yaml::Value::Map(Vec::new());
    }
    overrides::apply(&mut root, vars, &mut complaints);
    interpolate::insert(&mut root, "", vars, &mut complaints);
    let config = resolve::resolve(&root, vars, &mut complaints);
    let mut errors = complaints.0;
    match config {
        Some(config) if errors.is_empty() => Ok(config),
        _ => {
            errors.sort_by(|a, b| a.at.cmp(&b.at));
            Err(ConfigErrors { file: name.to_owned(), errors })
        }
    }
}

/// Where a mistake stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// In the file as a whole.
    Everywhere,
    /// At a place of the file.
    File {
        /// Line, from 1.
        line: u64,
        /// Column in characters, from 1.
        column: u64,
    },
    /// In a variable that overrides a key.
    Variable(String),
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it stands.
    pub at: At,
    /// The path of its key, `sources.shop.tables`; empty where it is about none.
    pub path: String,
    /// What is wrong, naming the key; lowercase, without a full stop.
    pub what: String,
}

/// All mistakes of a configuration, in the order of the file, those of variables last.
///
/// `Display` writes one line each: `figvine.yaml:12:5: unknown key 'tabels' in sources.shop; did you mean 'tables'?`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file's name.
    pub file: String,
    /// The mistakes, at least one.
    pub errors: Vec<ConfigError>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match &error.at {
                At::Everywhere => write!(f, "{}: {}", self.file, error.what)?,
                At::File { line, column } => write!(f, "{}:{line}:{column}: {}", self.file, error.what)?,
                At::Variable(name) => write!(f, "{name}: {}", error.what)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// What was found wrong so far.
#[derive(Default)]
struct Complaints(Vec<ConfigError>);

impl Complaints {
    fn push(&mut self, at: &At, path: &str, what: String) {
        self.0.push(ConfigError { at: at.clone(), path: path.to_owned(), what });
    }
}

/// The path of `key` in the section at `path`.
fn join(path: &str, key: &str) -> String {
    let key = if is_showable(key) || debezium::KEYS.iter().any(|k| k.name == key) { key } else { "?" };
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Whether a word of the user's may stand in a message: a secret at a wrong place
/// (`url: {postgres://user:password@host}`) must not.
fn is_showable(word: &str) -> bool {
    !word.is_empty()
        && word.len() <= 64
        && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '<'))
}

/// The word that was probably meant.
fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&word.to_ascii_lowercase(), k), k))
        .filter(|(distance, k)| *distance <= (k.chars().count().max(word.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// `; did you mean 'x'?`, or nothing.
fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|k| format!("; did you mean '{k}'?")).unwrap_or_default()
}
