//! The book in a running bridge: what commands change and the runner works by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use figvine_change::{Cursor, TableSize};
use globset::GlobBuilder;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Settings;
use super::book::{Book, Cause, Job, JobSettings, JobState, Task, TaskState};
use crate::checkpoint::ReadMark;
use crate::map::private;

/// What `figvine backfill start` asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRequest {
    /// Globs over `schema.table`.
    pub tables: Vec<String>,
    /// Only rows for which this SQL expression holds.
    #[serde(default)]
    pub condition: Option<String>,
    /// Only rows behind this key.
    #[serde(default)]
    pub from: Option<String>,
    /// Only rows up to this key.
    #[serde(default)]
    pub to: Option<String>,
    /// Settings that differ from the configured ones.
    #[serde(default)]
    pub wish: Wish,
    /// To one consumer alone.
    #[serde(default)]
    pub to_subject: Option<String>,
}

/// Settings that are to be changed; what is `None` stays. 0 takes a limit away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Rows a second.
    #[serde(default)]
    pub rows_per_s: Option<u32>,
    /// Bytes of events a second.
    #[serde(default)]
    pub bytes_per_s: Option<u32>,
    /// Tables that are read at the same time.
    #[serde(default)]
    pub parallel: Option<u32>,
}

impl Wish {
    fn applied_to(self, settings: JobSettings) -> JobSettings {
        let limit = |wished: Option<u32>, now| wished.map_or(now, |limit| (limit > 0).then_some(limit));
        JobSettings {
            rows_per_s: limit(self.rows_per_s, settings.rows_per_s),
            bytes_per_s: limit(self.bytes_per_s, settings.bytes_per_s),
            parallel: self.parallel.unwrap_or(settings.parallel).max(1),
        }
    }
}

/// Why a command is refused; words for whoever gave it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The source was not reached yet.
    #[error("the source was not reached yet, so its tables are not known")]
    NotReached,
    /// A glob is none.
    #[error("`{0}` is no glob over schema.table")]
    NoGlob(String),
    /// A glob means no captured table.
    #[error("`{0}` means no captured table")]
    NoTable(String),
    /// A key cannot be read.
    #[error("`{0}` is no key: values with commas between, percent-encoded")]
    NoKey(String),
    /// Keys of several tables.
    #[error("`--from` and `--to` go with one table")]
    KeysOfMany,
    /// A subject cannot be published to.
    #[error("`{0}` is no subject to publish to: one without wildcards, that begins neither with `$` nor with `cdc.`")]
    NoSubject(String),
    /// There is no such backfill.
    #[error("there is no backfill {0}")]
    NoJob(String),
    /// It ended.
    #[error("backfill {id} is {state} already")]
    Ended {
        /// Which.
        id: String,
        /// How it is.
        state: &'static str,
    },
}

/// The book of one source's backfills, and what is known of them while they run.
#[derive(Debug)]
pub struct Desk {
    settings: Settings,
    private: Arc<private::Settings>,
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
    written: watch::Sender<u64>,
    /// The book was read, and is ours to write.
    active: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Inner {
    book: Book,
    /// The captured tables, once the source was asked.
    tables: Option<Vec<TableSize>>,
    live: HashMap<String, Live>,
}

/// What is known of a task while it runs.
#[derive(Debug, Clone, Default)]
struct Live {
    waits: Option<String>,
    rate: Rate,
}

/// Rows a second over the last seconds.
#[derive(Debug, Clone, Default)]
struct Rate {
    since: Option<(Instant, u64)>,
    rows_per_s: f64,
}

impl Rate {
    fn note(&mut self, now: Instant, rows: u64) {
        let Some((since, before)) = self.since else {
            self.since = Some((now, rows));
            return;
        };
        let seconds = now.duration_since(since).as_secs_f64();
        if seconds >= 1.0 {
            #[expect(clippy::cast_precision_loss, reason = "a rate needs no more")]
            let rate = rows.saturating_sub(before) as f64 / seconds;
            self.rows_per_s = if self.rows_per_s == 0.0 { rate } else { self.rows_per_s * 0.6 + rate * 0.4 };
            self.since = Some((now, rows));
        }
    }
}

/// A backfill as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// What is kept of it.
    #[serde(flatten)]
    pub job: Job,
    /// Rows gone past and stored.
    pub rows: u64,
    /// Rows expected.
    pub rows_expected: u64,
    /// Share done, 0 to 1, by the expected rows.
    pub share: f64,
    /// Rows a second over the last seconds.
    pub rows_per_s: f64,
    /// Seconds left at that rate; `None` where it cannot be said.
    pub eta_s: Option<u64>,
    /// Why it waits; `None` where it does not.
    pub waits: Option<String>,
}

impl Desk {
    /// With an empty book.
    #[must_use]
    pub fn new(settings: Settings, private: Arc<private::Settings>) -> Self {
        Self {
            settings,
            private,
            inner: Mutex::default(),
            changed: watch::Sender::new(0),
            written: watch::Sender::new(0),
            active: watch::Sender::new(false),
        }
    }

    /// Whether the book was read and is ours to write.
    #[must_use]
    pub fn is_active(&self) -> bool {
        *self.active.borrow()
    }

    /// The source is being read by us: from now on the book is written.
    pub(crate) fn activate(&self) {
        self.active.send_replace(true);
    }

    /// Waits until the book is ours to write.
    pub(crate) async fn activated(&self) {
        // The sender is ours: it does not go away.
        let _ = self.active.subscribe().wait_for(|active| *active).await;
    }

    /// How backfills behave.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the book.
    #[must_use]
    pub fn book(&self) -> Book {
        self.inner().book.clone()
    }

    /// Changes the book; whoever listens is told, and it is written. Returns the version to wait for.
    pub fn change<T>(&self, change: impl FnOnce(&mut Book) -> T) -> (T, u64) {
        let outcome = {
            let mut inner = self.inner();
            let outcome = change(&mut inner.book);
            let now = now();
            inner.book.settle(&now);
            outcome
        };
        let mut version = 0;
        self.changed.send_modify(|changed| {
            *changed += 1;
            version = *changed;
        });
        (outcome, version)
    }

    /// The version of the book as it is now.
    #[must_use]
    pub fn version(&self) -> u64 {
        *self.changed.borrow()
    }

    /// Moves whenever the book changes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Tells that a version is written.
    pub(crate) fn wrote(&self, version: u64) {
        self.written.send_replace(version);
    }

    /// Waits until a version is written; whether it was in time.
    pub async fn is_written(&self, version: u64, within: Duration) -> bool {
        let mut written = self.written.subscribe();
        let waited = tokio::time::timeout(within, written.wait_for(|written| *written >= version)).await;
        matches!(waited, Ok(Ok(_)))
    }

    /// Takes in the captured tables: those that are new are backfilled, where that is configured.
    pub fn learn(&self, tables: Vec<TableSize>) {
        let (added, is_news) = {
            let mut inner = self.inner();
            let before = inner.book.known_tables.clone();
            let added = inner.book.learn(&tables);
            inner.tables = Some(tables);
            (added, before != inner.book.known_tables)
        };
        if self.settings.initial == super::Initial::Backfill && !added.is_empty() {
            self.begin(Cause::NewTable, &added);
        } else if is_news {
            self.change(|_| ());
        }
    }

    /// Begins the backfill of a first start.
    pub fn begin_initial(&self) -> u64 {
        let tables = self.inner().tables.clone().unwrap_or_default();
        let is_begun = self.inner().book.jobs.iter().any(|job| job.cause == Cause::Initial);
        if is_begun || tables.is_empty() { self.change(|_| ()).1 } else { self.begin(Cause::Initial, &tables) }
    }

    fn begin(&self, cause: Cause, tables: &[TableSize]) -> u64 {
        let tasks = tables.iter().map(|table| Task::of(table, None, None)).collect();
        let job = self.job(cause, tasks);
        tracing::info!(backfill = %job.id, tables = tables.len(), "existing rows are to be read");
        self.change(|book| book.jobs.push(job)).1
    }

    fn job(&self, cause: Cause, tables: Vec<Task>) -> Job {
        let id: String = nuid::next().chars().rev().take(6).collect();
        let Settings { rows_per_s, bytes_per_s, parallel, .. } = self.settings;
        Job {
            id: id.to_ascii_lowercase().into(),
            cause,
            state: JobState::Running,
            settings: JobSettings { rows_per_s, bytes_per_s, parallel },
            condition: None,
            to_subject: None,
            created_at: now(),
            ended_at: None,
            tables,
        }
    }

    /// The backfill that a request means, not yet begun.
    ///
    /// # Errors
    /// What cannot be meant.
    pub fn plan(&self, request: &StartRequest) -> Result<Job, Refused> {
        let known = self.inner().tables.clone().ok_or(Refused::NotReached)?;
        let cursor = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => Cursor::parse(text)
                .filter(|cursor| cursor.key().is_some())
                .map(Some)
                .ok_or_else(|| Refused::NoKey(text.clone())),
        };
        // What is kept of them tells no keys, where keys may be hidden.
        let sealed = |cursor: Option<Cursor>| cursor.map(|cursor| self.private.seal_cursor(cursor));
        let (from, to) = (sealed(cursor(&request.from)?), sealed(cursor(&request.to)?));
        let meant = meant(&request.tables, &known)?;
        if (from.is_some() || to.is_some()) && meant.len() != 1 {
            return Err(Refused::KeysOfMany);
        }
        if let Some(subject) = &request.to_subject
            && !is_subject(subject)
        {
            return Err(Refused::NoSubject(subject.clone()));
        }
        let tasks = meant.into_iter().map(|table| Task::of(table, from.as_ref(), to.as_ref())).collect();
        let job = self.job(Cause::Command, tasks);
        Ok(Job {
            settings: request.wish.applied_to(job.settings),
            condition: request.condition.as_deref().map(Into::into),
            to_subject: request.to_subject.as_deref().map(Into::into),
            ..job
        })
    }

    /// Begins a backfill. Returns its name, and the version to wait for.
    ///
    /// # Errors
    /// What cannot be meant.
    pub fn start(&self, request: &StartRequest) -> Result<(Box<str>, u64), Refused> {
        let job = self.plan(request)?;
        let id = job.id.clone();
        let ((), version) = self.change(|book| book.jobs.push(job));
        Ok((id, version))
    }

    /// Changes one backfill that has not ended.
    fn on_job(&self, id: &str, change: impl FnOnce(&mut Job)) -> Result<u64, Refused> {
        let (outcome, version) = self.change(|book| {
            let job = book.jobs.iter_mut().find(|job| *job.id == *id);
            let job = job.ok_or_else(|| Refused::NoJob(id.to_owned()))?;
            if job.state.is_ended() {
                return Err(Refused::Ended { id: id.to_owned(), state: job.state.as_str() });
            }
            change(job);
            Ok(())
        });
        outcome.map(|()| version)
    }

    /// Holds a backfill up.
    ///
    /// # Errors
    /// There is none of that name that goes on.
    pub fn pause(&self, id: &str) -> Result<u64, Refused> {
        self.on_job(id, |job| job.state = JobState::Paused)
    }

    /// Goes on with one that was held up, or whose tables failed.
    ///
    /// # Errors
    /// There is none of that name that could.
    pub fn resume(&self, id: &str) -> Result<u64, Refused> {
        self.on_job(id, |job| {
            job.state = JobState::Running;
            job.ended_at = None;
            for task in job.tables.iter_mut().filter(|task| task.state == TaskState::Failed) {
                (task.state, task.reason) = (TaskState::Waiting, None);
            }
        })
    }

    /// Gives a backfill up. What was published stays.
    ///
    /// # Errors
    /// There is none of that name that could be.
    pub fn cancel(&self, id: &str) -> Result<u64, Refused> {
        self.on_job(id, |job| {
            job.state = JobState::Cancelled;
            job.ended_at = Some(now());
        })
    }

    /// Changes the settings of one while it runs.
    ///
    /// # Errors
    /// There is none of that name that goes on.
    pub fn set(&self, id: &str, wish: Wish) -> Result<u64, Refused> {
        self.on_job(id, |job| job.settings = wish.applied_to(job.settings))
    }

    /// Takes in how far the stream is. Tells nobody: the next write takes it along.
    pub(crate) fn stored(&self, sequence: u64, reads: Option<&[ReadMark]>) {
        let mut inner = self.inner();
        let Inner { book, live, .. } = &mut *inner;
        book.sequence = book.sequence.max(sequence);
        let now = Instant::now();
        for mark in reads.unwrap_or_default() {
            book.advance(mark);
            live.entry(mark.task.to_string()).or_default().rate.note(now, mark.rows);
        }
    }

    /// Notes why a task waits; `None` where it does not.
    pub(crate) fn waits(&self, task: &str, reason: Option<&str>) {
        let mut inner = self.inner();
        let live = inner.live.entry(task.to_owned()).or_default();
        if live.waits.as_deref() != reason {
            live.waits = reason.map(str::to_owned);
        }
    }

    /// All backfills as they are now, or the one of a name.
    #[must_use]
    pub fn shown(&self, id: Option<&str>) -> Vec<Shown> {
        let inner = self.inner();
        let jobs = inner.book.jobs.iter().filter(|job| id.is_none_or(|id| *job.id == *id));
        jobs.map(|job| shown(job, |task| inner.live.get(task).map(|live| (live.waits.clone(), live.rate.rows_per_s))))
            .collect()
    }
}

/// A backfill as it is shown, with what is known of its tasks while they run.
pub fn shown(job: &Job, live: impl Fn(&str) -> Option<(Option<String>, f64)>) -> Shown {
    let rows = job.tables.iter().map(|task| task.rows).sum();
    // An estimate that reality has passed is no estimate any more.
    let expected = job.tables.iter().map(|task| match task.state {
        TaskState::Done | TaskState::Interrupted => task.rows,
        _ => task.rows_expected.max(task.rows),
    });
    let rows_expected = expected.sum::<u64>();
    let running = job.tables.iter().enumerate().filter(|(_, task)| task.state == TaskState::Running);
    let names = running.map(|(index, _)| super::book::task_name(&job.id, index));
    let lives: Vec<_> = names.filter_map(|name| live(&name)).collect();
    let is_running = job.state == JobState::Running;
    let rows_per_s = if is_running { lives.iter().map(|(_, rate)| rate).sum::<f64>() } else { 0.0 };
    let waits = match job.state {
        JobState::Paused => Some("paused".to_owned()),
        JobState::Running => lives.iter().find_map(|(waits, _)| waits.clone()),
        _ => None,
    };
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
    let share = match job.state {
        JobState::Done => 1.0,
        _ if rows_expected == 0 => 0.0,
        _ => rows as f64 / rows_expected as f64,
    };
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds of an estimate"
    )]
    let eta_s = (rows_per_s >= 1.0).then(|| (rows_expected.saturating_sub(rows) as f64 / rows_per_s).ceil() as u64);
    Shown { job: job.clone(), rows, rows_expected, share, rows_per_s, eta_s, waits }
}

/// The tables that globs mean; `!` takes away, later ones win. Each must mean something.
fn meant<'a>(globs: &[String], known: &'a [TableSize]) -> Result<Vec<&'a TableSize>, Refused> {
    let mut chosen = vec![false; known.len()];
    for text in globs {
        let (glob, is_wanted) = match text.strip_prefix('!') {
            Some(glob) => (glob, false),
            None => (text.as_str(), true),
        };
        let built = GlobBuilder::new(glob).literal_separator(false).backslash_escape(true).build();
        let matcher = built.map_err(|_| Refused::NoGlob(text.clone()))?.compile_matcher();
        let mut means_one = false;
        for (table, chosen) in known.iter().zip(&mut chosen) {
            if matcher.is_match(format!("{}.{}", table.schema, table.name)) {
                means_one = true;
                *chosen = is_wanted;
            }
        }
        if !means_one {
            return Err(Refused::NoTable(text.clone()));
        }
    }
    let tables: Vec<_> = known.iter().zip(chosen).filter(|(_, chosen)| *chosen).map(|(table, _)| table).collect();
    if tables.is_empty() { Err(Refused::NoTable(globs.join(" "))) } else { Ok(tables) }
}

fn is_subject(text: &str) -> bool {
    let is_token =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>');
    // What begins with `cdc.` goes into the streams of sources, whose only writers are their chains.
    text.split('.').all(is_token) && !text.starts_with('$') && !text.starts_with("cdc.")
}

fn now() -> String {
    jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string()
}
