//! What is to be backfilled and how far that is: the document that is kept beside the stream.
//!
//! Pure: no I/O, no clock but what callers hand in.

use std::collections::BTreeSet;

use figvine_change::{Cursor, ReadOrder, TableSize};
use serde::{Deserialize, Serialize};

use crate::checkpoint::ReadMark;

/// The version of the form.
pub const FORM: u32 = 1;
/// Backfills that ended and are still shown.
const ENDED_SHOWN: usize = 20;

/// All backfills of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// The version of the form.
    pub version: u32,
    /// The mark of the stream that the cursors speak of.
    #[serde(default)]
    pub stream_id: Option<Box<str>>,
    /// The cursors hold for the stream up to this message; what stands behind it may be further.
    #[serde(default)]
    pub sequence: u64,
    /// Captured tables that were seen, `schema.table`: others are new. `None` before the first start.
    #[serde(default)]
    pub known_tables: Option<BTreeSet<String>>,
    /// In the order in which they were begun.
    #[serde(default)]
    pub jobs: Vec<Job>,
}

impl Default for Book {
    fn default() -> Self {
        Self { version: FORM, stream_id: None, sequence: 0, known_tables: None, jobs: Vec::new() }
    }
}

/// One backfill: tables that are read with the same settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its name, `k3v9qa`.
    pub id: Box<str>,
    /// Who asked for it.
    pub cause: Cause,
    /// How it is.
    pub state: JobState,
    /// Its settings.
    pub settings: JobSettings,
    /// Only rows for which this SQL expression holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Box<str>>,
    /// Where its events go instead of the source's own subjects: to one consumer alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_subject: Option<Box<str>>,
    /// When it was asked for, RFC 3339.
    pub created_at: String,
    /// When it ended, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Its tables, in the order in which they are read.
    pub tables: Vec<Task>,
}

/// Who asked for a backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// `figvine backfill start`.
    Command,
    /// The source's first start.
    Initial,
    /// A table that began to be captured.
    NewTable,
}

/// How a backfill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It goes on.
    Running,
    /// It waits for `resume`.
    Paused,
    /// All its tables are read.
    Done,
    /// It was given up by hand.
    Cancelled,
    /// It ended, and tables of it failed.
    Failed,
}

impl JobState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Running, Self::Paused, Self::Done, Self::Cancelled, Self::Failed];

    /// Whether it will not go on by itself or by `resume`.
    #[must_use]
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// What can be changed while a backfill runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSettings {
    /// Rows a second; `None` is as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_per_s: Option<u32>,
    /// Bytes of events a second; `None` is as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_s: Option<u32>,
    /// Tables that are read at the same time.
    pub parallel: u32,
}

/// One table of a backfill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// The schema; for MySQL the database.
    pub schema: Box<str>,
    /// The table's own name.
    pub table: Box<str>,
    /// How it is.
    pub state: TaskState,
    /// Why it is so, where that is worth words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Only rows behind this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Box<str>>,
    /// Only rows up to this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Box<str>>,
    /// The last row that is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Box<str>>,
    /// Rows gone past and stored: events, or left out because the log had told newer.
    #[serde(default)]
    pub rows: u64,
    /// Rows expected.
    pub rows_expected: u64,
    /// Bytes expected.
    pub bytes_expected: u64,
    /// It is read in one pass, in one snapshot: where that is interrupted, it begins anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_one_pass: bool,
}

/// How a table of a backfill is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Its turn has not come.
    Waiting,
    /// It is being read.
    Running,
    /// It is read.
    Done,
    /// It cannot be read; `resume` tries again.
    Failed,
    /// Its one pass was interrupted: it stands further down once more, from its beginning.
    Interrupted,
}

impl TaskState {
    /// Whether nothing of it will be read any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Interrupted)
    }
}

impl Task {
    /// `schema.table`.
    #[must_use]
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema, self.table)
    }

    /// For a table as it is planned.
    #[must_use]
    pub fn of(size: &TableSize, from: Option<&Cursor>, to: Option<&Cursor>) -> Self {
        Self {
            schema: size.schema.clone(),
            table: size.name.clone(),
            state: TaskState::Waiting,
            reason: None,
            from: from.map(|cursor| cursor.as_str().into()),
            to: to.map(|cursor| cursor.as_str().into()),
            cursor: None,
            rows: 0,
            rows_expected: size.rows,
            bytes_expected: size.bytes,
            is_one_pass: size.order == ReadOrder::OnePass,
        }
    }

    /// The row behind which reading goes on.
    #[must_use]
    pub fn after(&self) -> Option<Cursor> {
        self.cursor.as_deref().or(self.from.as_deref()).and_then(Cursor::parse)
    }
}

/// The name of a task in checkpoints and identities.
#[must_use]
pub fn task_name(job: &str, index: usize) -> String {
    format!("{job}.{index}")
}

impl Book {
    /// The task of a name.
    #[must_use]
    pub fn task_mut(&mut self, name: &str) -> Option<&mut Task> {
        let (job, index) = name.rsplit_once('.')?;
        let job = self.jobs.iter_mut().find(|other| *other.id == *job)?;
        job.tables.get_mut(index.parse::<usize>().ok()?)
    }

    /// The task of a name.
    #[must_use]
    pub fn task(&self, name: &str) -> Option<(&Job, &Task)> {
        let (job, index) = name.rsplit_once('.')?;
        let job = self.jobs.iter().find(|other| *other.id == *job)?;
        Some((job, job.tables.get(index.parse::<usize>().ok()?)?))
    }

    /// Takes in how far a task is stored. What is less far than what is known is passed over.
    pub fn advance(&mut self, mark: &ReadMark) {
        if let Some(task) = self.task_mut(&mark.task)
            && mark.rows > task.rows
        {
            task.rows = mark.rows;
            task.cursor = Some(mark.cursor.as_str().into());
        }
    }

    /// A pass that cannot be gone on with begins anew: under another name, since rows are told apart by it.
    pub fn begin_anew(&mut self, name: &str) {
        let Some(task) = self.task_mut(name) else { return };
        let again = Task { state: TaskState::Waiting, reason: None, cursor: None, rows: 0, ..task.clone() };
        task.state = TaskState::Interrupted;
        let job = name.rsplit_once('.').map_or(name, |(job, _)| job);
        if let Some(job) = self.jobs.iter_mut().find(|other| *other.id == *job) {
            job.tables.push(again);
        }
    }

    /// Tasks that are to be read, now or later.
    pub fn open_tasks(&self) -> impl Iterator<Item = (&Job, String, &Task)> {
        self.jobs.iter().filter(|job| !job.state.is_ended()).flat_map(|job| {
            let tasks = job.tables.iter().enumerate();
            let open = tasks.filter(|(_, task)| !task.state.is_over());
            open.map(move |(index, task)| (job, task_name(&job.id, index), task))
        })
    }

    /// Whether anything is to be read once it may.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.open_tasks().next().is_some()
    }

    /// Whether anything is being read.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let is_open = |state| matches!(state, TaskState::Waiting | TaskState::Running);
        self.open_tasks().any(|(job, _, task)| job.state == JobState::Running && is_open(task.state))
    }

    /// The stream was begun anew: what was stored there is to be read again.
    pub fn restart(&mut self) {
        self.sequence = 0;
        for job in self.jobs.iter_mut().filter(|job| !job.state.is_ended()) {
            job.tables.retain(|task| task.state != TaskState::Interrupted);
            for task in &mut job.tables {
                (task.cursor, task.rows, task.reason) = (None, 0, None);
                task.state = TaskState::Waiting;
            }
        }
    }

    /// Ends jobs of which nothing is left to be read.
    pub fn settle(&mut self, now: &str) {
        for job in self.jobs.iter_mut().filter(|job| matches!(job.state, JobState::Running | JobState::Failed)) {
            let failed = job.tables.iter().filter(|task| task.state == TaskState::Failed).count();
            let over = job.tables.iter().filter(|task| task.state.is_over()).count();
            job.state = if over + failed < job.tables.len() {
                JobState::Running
            } else if failed > 0 {
                JobState::Failed
            } else {
                JobState::Done
            };
            if job.state != JobState::Running && job.ended_at.is_none() {
                job.ended_at = Some(now.to_owned());
            }
        }
        let ended = self.jobs.iter().filter(|job| job.state.is_ended()).count();
        let mut surplus = ended.saturating_sub(ENDED_SHOWN);
        self.jobs.retain(|job| {
            let goes = surplus > 0 && job.state.is_ended();
            surplus -= usize::from(goes);
            !goes
        });
    }

    /// Takes in the captured tables; gives those that were not known. None is new before the first start.
    pub fn learn(&mut self, tables: &[TableSize]) -> Vec<TableSize> {
        let name = |table: &TableSize| format!("{}.{}", table.schema, table.name);
        let names: BTreeSet<String> = tables.iter().map(name).collect();
        let Some(known) = self.known_tables.replace(names) else { return Vec::new() };
        tables.iter().filter(|table| !known.contains(&name(table))).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(name: &str) -> TableSize {
        TableSize { schema: "public".into(), name: name.into(), rows: 10, bytes: 100, order: ReadOrder::Key }
    }

    fn job(id: &str, state: JobState, tables: &[&str]) -> Job {
        Job {
            id: id.into(),
            cause: Cause::Command,
            state,
            settings: JobSettings { rows_per_s: None, bytes_per_s: None, parallel: 1 },
            condition: None,
            to_subject: None,
            created_at: "2026-01-01T00:00:00Z".into(),
            ended_at: None,
            tables: tables.iter().map(|name| Task::of(&size(name), None, None)).collect(),
        }
    }

    fn mark(task: &str, rows: u64, cursor: &str) -> ReadMark {
        ReadMark { task: task.into(), rows, cursor: Cursor::parse(cursor).expect("a cursor") }
    }

    #[test]
    fn marks_move_a_task_on_and_never_back() {
        let mut book = Book { jobs: vec![job("a.b", JobState::Running, &["orders", "lines"])], ..Book::default() };
        for (rows, cursor) in [(5, "50"), (3, "30"), (5, "51")] {
            book.advance(&mark("a.b.1", rows, cursor));
        }
        let (_, task) = book.task("a.b.1").expect("a task");
        assert_eq!((task.rows, task.cursor.as_deref()), (5, Some("50")));
        assert_eq!(book.task("a.b.0").expect("a task").1.rows, 0);
        book.advance(&mark("none.0", 1, "1"));
    }

    #[test]
    fn a_job_ends_with_its_last_table() {
        let mut book = Book { jobs: vec![job("a", JobState::Running, &["x", "y"])], ..Book::default() };
        book.task_mut("a.0").expect("a task").state = TaskState::Done;
        book.settle("now");
        assert_eq!(book.jobs[0].state, JobState::Running);
        book.task_mut("a.1").expect("a task").state = TaskState::Failed;
        book.settle("now");
        assert_eq!((book.jobs[0].state, book.jobs[0].ended_at.as_deref()), (JobState::Failed, Some("now")));
        book.task_mut("a.1").expect("a task").state = TaskState::Done;
        book.settle("later");
        assert_eq!(book.jobs[0].state, JobState::Done);
    }

    #[test]
    fn old_ended_jobs_go_and_open_ones_stay() {
        let mut book = Book::default();
        book.jobs.push(job("open", JobState::Paused, &["x"]));
        book.jobs.extend((0..30).map(|n| job(&n.to_string(), JobState::Done, &["x"])));
        book.settle("now");
        assert_eq!(book.jobs.len(), 1 + ENDED_SHOWN);
        assert_eq!(&*book.jobs[0].id, "open");
        assert_eq!(&*book.jobs[1].id, "10");
    }

    #[test]
    fn tables_are_new_only_beside_known_ones() {
        let mut book = Book::default();
        assert!(book.learn(&[size("x")]).is_empty());
        assert_eq!(book.learn(&[size("x"), size("y")]), [size("y")]);
        assert!(book.learn(&[size("x"), size("y")]).is_empty());
    }

    #[test]
    fn the_form_reads_back() {
        let book = Book { jobs: vec![job("a", JobState::Running, &["x"])], sequence: 7, ..Book::default() };
        let text = serde_json::to_string(&book).expect("serializes");
        assert_eq!(serde_json::from_str::<Book>(&text).expect("reads back"), book);
        assert_eq!(serde_json::from_str::<Book>(r#"{"version":1}"#).expect("reads"), Book::default());
    }

    #[test]
    fn a_pass_that_was_interrupted_stands_there_once_more_under_another_name() {
        let mut book = Book { jobs: vec![job("k", JobState::Running, &["a", "b"])], ..Book::default() };
        book.advance(&ReadMark { task: "k.0".into(), rows: 7, cursor: Cursor::parse("7").expect("a cursor") });
        book.begin_anew("k.0");
        let open: Vec<_> = book.open_tasks().map(|(_, name, task)| (name, task.rows)).collect();
        assert_eq!(open, [("k.1".to_owned(), 0), ("k.2".to_owned(), 0)]);
        for name in ["k.1", "k.2"] {
            book.task_mut(name).expect("a task").state = TaskState::Done;
        }
        book.settle("now");
        assert_eq!((book.jobs[0].state, book.jobs[0].tables[0].state), (JobState::Done, TaskState::Interrupted));
    }
}
