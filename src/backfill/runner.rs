//! Reads chunks ahead, and hands their rows on in slices between the log's transactions.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use figvine_change::{Chunk, ChunkReader, Connector, Consequence, Cursor, Position, SourceError, SourceErrorKind};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::book::{JobState, TaskState};
use super::busy::Busy;
use super::lane::{Lane, Ready};
use super::pace::Pace;
use super::seed::{Seed, Sown, sow};
use super::window::{ReadId, Window};
use super::{Desk, shelf};
use crate::checkpoint::ReadMark;
use crate::event::{Derived, Encoded, Encoder, Events, ReadOutcome, ReadPlace, Rows, Touched};
use crate::map::private::{Private, PrivateError};
use crate::map::rules::Rules;
use crate::stream::{RegistryError, SchemaRegistry, Seen, SubjectKeys};

/// Chunks of a table that are there or being read.
const AHEAD: usize = 2;
/// Bytes of a slice.
const SLICE_BYTES: usize = 256 << 10;
/// Slices for single consumers that wait for those before them.
const SEEDS_AHEAD: usize = 2;

/// Rows to be passed on.
#[derive(Debug)]
pub struct Slice {
    /// Their events.
    pub events: Events,
    /// Figures.
    pub encoded: Encoded,
}

/// Works through the tasks of a desk, for one session of one source.
pub struct Runner<C: Connector> {
    connector: Arc<C>,
    desk: Arc<Desk>,
    private: Private<SubjectKeys>,
    rules: Rules,
    registry: SchemaRegistry,
    changes: watch::Receiver<u64>,
    /// Why the source is to be spared just now.
    care: watch::Receiver<Option<String>>,
    window: Window,
    lanes: Vec<Lane<C::Reader>>,
    reads: JoinSet<Finished<C::Reader>>,
    paces: HashMap<Box<str>, Pace>,
    /// How far each task is that rows of this session belong to.
    marks: Vec<ReadMark>,
    /// Tasks of which nothing is left, each with the message behind which all of it is stored.
    finishing: Vec<(String, u64)>,
    /// To one consumer alone.
    seeds: mpsc::Sender<Seed>,
    sown: mpsc::UnboundedReceiver<Sown>,
    _sowing: JoinSet<()>,
    last_sequence: Option<Box<str>>,
    busy: Busy,
    next_lane: usize,
    watched: HashSet<Arc<str>>,
    /// The lanes may not be in step with the book.
    is_unarranged: bool,
    /// A slice may be there: something happened since the last was looked for.
    again: bool,
    /// When a chunk may be tried again, and when rows may go again.
    read_at: Option<Instant>,
    rows_at: Option<Instant>,
}

/// A chunk that was read, or could not be.
struct Finished<R> {
    task: String,
    id: ReadId,
    outcome: Result<(R, Chunk), SourceError>,
    took: Duration,
}

/// What may be done with a lane's first chunk.
enum Turn {
    /// Rows may go.
    Go,
    /// It is over: nothing is left of it.
    Over,
    /// It is to be read again.
    Void,
    /// Not now, for this reason.
    Wait(Option<Cow<'static, str>>),
}

impl<C: Connector + 'static> Runner<C> {
    /// Goes on where the desk's book says.
    #[must_use]
    pub fn new(
        connector: Arc<C>,
        desk: Arc<Desk>,
        (private, registry, rules): (Private<SubjectKeys>, SchemaRegistry, Rules),
        care: watch::Receiver<Option<String>>,
        context: async_nats::jetstream::Context,
    ) -> Self {
        let (seeds, to_sow) = mpsc::channel(SEEDS_AHEAD);
        let (told, sown) = mpsc::unbounded_channel();
        let mut sowing = JoinSet::new();
        sowing.spawn(sow(context, to_sow, told));
        Self {
            seeds,
            sown,
            _sowing: sowing,
            connector,
            changes: desk.changes(),
            desk,
            private,
            rules,
            registry,
            care,
            window: Window::default(),
            lanes: Vec::new(),
            reads: JoinSet::new(),
            paces: HashMap::new(),
            marks: Vec::new(),
            finishing: Vec::new(),
            last_sequence: None,
            busy: Busy::default(),
            next_lane: 0,
            watched: HashSet::new(),
            is_unarranged: true,
            again: true,
            read_at: None,
            rows_at: None,
        }
    }

    /// Whether a backfill goes on.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.finishing.is_empty() || self.desk.book().is_running()
    }

    /// Takes in what of the log was passed on.
    pub fn pass(&mut self, batch: &figvine_change::Batch, touched: Vec<Touched>) {
        if let Some(last) = batch.transactions.last() {
            self.last_sequence = Some(last.sequence.clone());
        }
        self.busy.passed(batch.changes.len());
        self.window.pass(batch, touched);
        if self.window.is_full() {
            tracing::debug!("the log moves too fast for the chunks that were read: they are read again");
            self.window.clear();
            for at in 0..self.lanes.len() {
                self.reset(at);
            }
        }
        self.again = true;
    }

    /// Takes in how far the stream is.
    pub fn stored(&mut self, sequence: u64, reads: Option<&[ReadMark]>) {
        self.desk.stored(sequence, reads);
        self.busy.stored(sequence);
        let marks = &mut self.marks;
        let desk = &self.desk;
        self.finishing.retain(|(task, behind)| {
            if *behind > sequence {
                return true;
            }
            desk.change(|book| {
                if let Some(mark) = marks.iter().find(|mark| *mark.task == **task) {
                    book.advance(mark);
                }
                if let Some(task) = book.task_mut(task) {
                    task.state = TaskState::Done;
                }
            });
            marks.retain(|mark| *mark.task != **task);
            false
        });
        self.again = true;
    }

    /// Begins what is to be read, and waits until a slice may be there. Cancel-safe.
    pub async fn step(&mut self, encoder: &mut Encoder) {
        if self.is_unarranged || self.changes.has_changed().unwrap_or(false) {
            self.is_unarranged = false;
            self.changes.mark_unchanged();
            self.arrange(encoder);
        }
        self.begin_reads();
        if std::mem::take(&mut self.again) {
            return;
        }
        let wake_at = self.read_at.into_iter().chain(self.rows_at).min();
        let wake_at = wake_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
        tokio::select! {
            biased;
            Some(sown) = self.sown.recv() => self.sown(sown),
            Some(finished) = self.reads.join_next() => if let Ok(finished) = finished { self.finished(finished) },
            _ = self.changes.changed() => self.is_unarranged = true,
            Ok(()) = self.care.changed() => {}
            () = sleep_until(wake_at) => {}
        }
        self.again = true;
    }

    /// Brings the lanes in step with the book.
    fn arrange(&mut self, encoder: &mut Encoder) {
        let book = self.desk.book();
        let goes_on = |name: &str| {
            book.task(name)
                .is_some_and(|(job, task)| job.state == JobState::Running && task.state == TaskState::Running)
        };
        for lane in std::mem::take(&mut self.lanes) {
            if goes_on(&lane.task) {
                self.lanes.push(lane);
            } else {
                lane.ready.iter().map(|ready| ready.id).chain(lane.reading).for_each(|id| self.window.forget(id));
                self.desk.waits(&lane.task, None);
            }
        }
        for job in book.jobs.iter().filter(|job| job.state == JobState::Running) {
            self.paces.entry(job.id.clone()).or_insert_with(|| Pace::new(job.settings)).set(job.settings);
            let is_ours = |lane: &&Lane<_>| lane.job == job.id;
            let mut free = (job.settings.parallel as usize).saturating_sub(self.lanes.iter().filter(is_ours).count());
            for (index, task) in job.tables.iter().enumerate() {
                let name = super::book::task_name(&job.id, index);
                let is_open = matches!(task.state, TaskState::Waiting | TaskState::Running);
                let is_here = self.lanes.iter().any(|lane| lane.task == name)
                    || self.finishing.iter().any(|(finishing, _)| *finishing == name);
                if free == 0 || !is_open || is_here {
                    continue;
                }
                free -= 1;
                if task.state == TaskState::Waiting {
                    self.desk.change(|book| {
                        if let Some(task) = book.task_mut(&name) {
                            task.state = TaskState::Running;
                        }
                    });
                }
                let mark = self.marks.iter().find(|mark| *mark.task == *name);
                self.lanes.push(Lane::new(name, job, task, mark));
            }
        }
        let tables: HashSet<_> = self.lanes.iter().map(|lane| Arc::clone(&lane.table)).collect();
        if tables != self.watched {
            encoder.watch(tables.clone());
            self.watched = tables;
        }
    }

    /// Begins to read whatever may be read now.
    fn begin_reads(&mut self) {
        let care = self.care.borrow().clone();
        let is_busy = self.busy.is_now();
        let now = Instant::now();
        let mut read_at: Option<Instant> = None;
        for lane in &mut self.lanes {
            if lane.reading.is_some() || lane.is_read || lane.ready.len() >= AHEAD {
                continue;
            }
            if lane.is_one_pass && lane.reader.is_none() && lane.request.after.is_some() {
                tracing::warn!(task = %lane.task, table = %lane.table, "the one pass over a table was interrupted: it begins anew");
                self.desk.change(|book| book.begin_anew(&lane.task));
                continue;
            }
            if let Some(reason) = &care {
                self.desk.waits(&lane.task, Some(reason));
                continue;
            }
            if let Some(at) = lane.retry_at.filter(|at| *at > now) {
                read_at = Some(read_at.map_or(at, |earlier| earlier.min(at)));
                continue;
            }
            // Noted from here on; the snapshot is later, and so is a connection that is not there yet.
            let id = self.window.begin();
            lane.reading = Some(id);
            let mut request = lane.request.clone();
            request.rows = Busy::chunk_rows(is_busy, lane.chunk_rows);
            let mut private = self.private.clone();
            let registry = self.registry.clone();
            let (task, reader, connector) = (lane.task.clone(), lane.reader.take(), Arc::clone(&self.connector));
            self.reads.spawn(async move {
                let began = Instant::now();
                let outcome = Box::pin(async {
                    let mut reader = match reader {
                        Some(reader) => reader,
                        None => connector.reader().await?,
                    };
                    request.after = opened(&private, request.after)?;
                    request.upto = opened(&private, request.upto)?;
                    let mut chunk = reader.read(&request).await?;
                    private.map_chunk(&mut chunk).await.map_err(hidden)?;
                    // What breaks a schema is told when the log comes to it.
                    registry.admit(&chunk.batch.tables, Seen::Elsewhere).await.map_err(unkept)?;
                    Ok((reader, chunk))
                });
                Finished { task, id, outcome: outcome.await, took: began.elapsed() }
            });
        }
        self.read_at = read_at;
    }

    fn finished(&mut self, finished: Finished<C::Reader>) {
        let Finished { task, id, outcome, took } = finished;
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.task == task && lane.reading == Some(id)) else {
            self.window.forget(id);
            return;
        };
        lane.reading = None;
        let (reader, chunk) = match outcome {
            Ok(read) => read,
            Err(error) => {
                self.window.forget(id);
                self.failed(&task, &error);
                return;
            }
        };
        let mut derived = Derived::default();
        if let Err(error) = self.rules.derive_rows(&chunk.batch, &mut derived) {
            let why = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            self.window.forget(id);
            return self.give_up(&task, &format!("{error}{why}"));
        }
        lane.reader = Some(reader);
        lane.answered();
        let rows = chunk.batch.changes.len();
        lane.adapt(rows, took, self.desk.settings().chunk_time);
        if let Some(last) = chunk.cursors.last()
            && let Ok(text) = std::str::from_utf8(chunk.batch.bytes(last))
        {
            lane.request.after = Cursor::parse(text).or(lane.request.after.take());
        }
        lane.ready.push_back(Ready { id, next: 0, before: lane.rows_read, derived });
        lane.rows_read += rows as u64;
        lane.is_read = chunk.is_last;
        let table = Arc::clone(&lane.table);
        self.window.arrive(id, table, chunk);
    }

    /// What became of rows that went to one consumer alone.
    fn sown(&mut self, sown: Sown) {
        let Sown { task, outcome } = sown;
        if let Some(lane) = self.lanes.iter_mut().find(|lane| *lane.task == *task) {
            lane.on_their_way = lane.on_their_way.saturating_sub(1);
        }
        match outcome {
            Ok(mark) => self.desk.stored(0, Some(mark.as_slice())),
            Err(what) => self.give_up(&task, &what),
        }
    }

    /// A chunk could not be read: it is tried again, or the task is given up until somebody says `resume`.
    fn failed(&mut self, task: &str, error: &SourceError) {
        // Of what others told the last says most: libraries wrap it in words like `db error`.
        let mut source = std::error::Error::source(error);
        while let Some(deeper) = source.and_then(std::error::Error::source) {
            source = Some(deeper);
        }
        let told = match source {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        if error.kind.consequence() == Consequence::Transient {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.task == task) {
                lane.refused();
            }
            tracing::warn!(task, code = error.code, "a chunk cannot be read just now: {told}");
            self.desk.waits(task, Some(&told));
        } else {
            let hint = error.hint.as_deref().map(|hint| format!(". {hint}")).unwrap_or_default();
            self.give_up(task, &format!("{told}{hint}"));
        }
    }

    fn give_up(&mut self, task: &str, reason: &str) {
        tracing::error!(task, "a table cannot be backfilled: {reason}");
        self.desk.change(|book| {
            if let Some(task) = book.task_mut(task) {
                task.state = TaskState::Failed;
                task.reason = Some(reason.to_owned());
            }
        });
    }

    /// Forgets what was read of a lane and not passed on, and its connection: it is read again.
    fn reset(&mut self, at: usize) {
        let Some(lane) = self.lanes.get_mut(at) else { return };
        lane.ready.iter().map(|ready| ready.id).chain(lane.reading.take()).for_each(|id| self.window.forget(id));
        lane.ready.clear();
        lane.reader = None;
        lane.is_read = false;
        let mark = self.marks.iter().find(|mark| *mark.task == *lane.task);
        let book = self.desk.book();
        let stored = book.task(&lane.task).map(|(_, task)| (task.after(), task.rows));
        let (after, rows) = match (mark, stored) {
            (Some(mark), _) => (Some(mark.cursor.clone()), mark.rows),
            (None, Some(stored)) => stored,
            (None, None) => return,
        };
        lane.request.after = after;
        lane.rows_read = rows;
    }

    /// The next rows that may go on behind `position`, between two transactions; `in_flight` events are on their way, the last
    /// of them will be message `assigned`.
    pub fn slice(
        &mut self,
        encoder: &mut Encoder,
        position: &Position,
        (in_flight, assigned): (u64, u64),
    ) -> Option<Slice> {
        self.rows_at = None;
        if self.lanes.is_empty() || !shelf::is_between(position) {
            return None;
        }
        let (has_room, rests_until) = self.busy.room(in_flight);
        self.rows_at = rests_until;
        for _ in 0..self.lanes.len() {
            self.next_lane = (self.next_lane + 1) % self.lanes.len().max(1);
            let at = self.next_lane;
            match self.turn(at, has_room) {
                Turn::Go => {
                    if let Some(slice) = self.rows_of(at, encoder, position, assigned) {
                        self.again = true;
                        return Some(slice);
                    }
                }
                Turn::Over => {
                    let lane = self.lanes.remove(at);
                    self.desk.waits(&lane.task, None);
                    self.finishing.push((lane.task, assigned));
                    (self.again, self.is_unarranged) = (true, true);
                    if self.lanes.is_empty() {
                        break;
                    }
                }
                Turn::Void => {
                    self.reset(at);
                    self.again = true;
                }
                Turn::Wait(reason) => {
                    if let Some((reason, lane)) = reason.zip(self.lanes.get(at)) {
                        self.desk.waits(&lane.task, Some(&reason));
                    }
                }
            }
        }
        None
    }

    fn turn(&mut self, at: usize, has_room: bool) -> Turn {
        let Some(lane) = self.lanes.get(at) else { return Turn::Wait(None) };
        let Some(ready) = lane.ready.front() else {
            return if lane.is_read && lane.on_their_way == 0 { Turn::Over } else { Turn::Wait(None) };
        };
        let Some(waiting) = self.window.get(ready.id) else { return Turn::Void };
        if waiting.is_void() {
            return Turn::Void;
        }
        if !self.window.is_due(&waiting.chunk) {
            return Turn::Wait(Some("the log has not come to the chunk's place yet".into()));
        }
        if let Some(reason) = &*self.care.borrow() {
            return Turn::Wait(Some(reason.clone().into()));
        }
        let has_room = if lane.to_subject.is_some() { self.seeds.capacity() > 0 } else { has_room };
        if has_room { Turn::Go } else { Turn::Wait(Some("the stream takes no more just now".into())) }
    }

    /// Rows of a lane's first chunk; `None` where it held none that go, or the pace lets none go.
    fn rows_of(&mut self, at: usize, encoder: &mut Encoder, position: &Position, assigned: u64) -> Option<Slice> {
        let is_busy = self.busy.is_now();
        let slice_rows = self.busy.slice_rows(is_busy);
        let lane = self.lanes.get_mut(at)?;
        let ready = lane.ready.front_mut()?;
        let waiting = self.window.get(ready.id)?;
        let left = waiting.chunk.batch.changes.len() - ready.next;
        let mut most = usize::try_from(slice_rows).unwrap_or(usize::MAX).min(left);
        if left > 0
            && let Some(pace) = self.paces.get_mut(&lane.job)
        {
            match pace.take(u32::try_from(most).unwrap_or(u32::MAX)) {
                Ok(allowed) => most = most.min(allowed as usize),
                Err(not_before) => {
                    self.rows_at = Some(self.rows_at.map_or(not_before, |at| at.min(not_before)));
                    self.desk.waits(&lane.task, Some("the rate that is set"));
                    return None;
                }
            }
        }
        self.desk.waits(&lane.task, None);
        let chunk = &waiting.chunk;
        let place = ReadPlace {
            task: &lane.task,
            before: ready.before,
            position,
            sequence: self.last_sequence.as_deref().unwrap_or(&chunk.high),
            // What goes to one consumer alone goes by itself, and letters go first.
            may_park: lane.to_subject.is_none(),
            read_at: chunk.read_at,
        };
        let rows = Rows { batch: &chunk.batch, cursors: &chunk.cursors, derived: &ready.derived };
        let mut events = Events::default();
        let is_stale = |row: &_| waiting.is_stale(row);
        let limits = (most, SLICE_BYTES);
        let ReadOutcome { next, encoded, fault } =
            encoder.encode_rows(&rows, &place, ready.next, limits, is_stale, &mut events);
        ready.next = next;
        let passed = next.checked_sub(1).and_then(|last| chunk.cursors.get(last));
        let cursor =
            passed.and_then(|range| std::str::from_utf8(chunk.batch.bytes(range)).ok()).and_then(Cursor::parse);
        let rows = ready.before + next as u64;
        let mark = cursor.map(|cursor| ReadMark { task: lane.task.as_str().into(), rows, cursor });
        if let Some(mark) = &mark {
            self.marks.retain(|other| other.task != mark.task);
            self.marks.push(mark.clone());
        }
        if let Some(pace) = self.paces.get_mut(&lane.job) {
            pace.sent(events.bytes.len());
        }
        let is_through = next >= chunk.batch.changes.len();
        let (id, task) = (ready.id, lane.task.clone());
        if is_through {
            lane.ready.pop_front();
            self.window.done(id);
        }
        let seed = lane.to_subject.clone().map(|subject| {
            lane.on_their_way += 1;
            let task = Arc::from(lane.task.as_str());
            let given_up = lane.given_up.token().clone();
            Seed { subject, events: std::mem::take(&mut events), mark, task, behind: assigned, given_up }
        });
        if let Some(error) = fault {
            let why = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            self.give_up(&task, &format!("{error}{why}"));
            let lane = self.lanes.remove(at);
            lane.ready.iter().map(|ready| ready.id).chain(lane.reading).for_each(|id| self.window.forget(id));
        }
        self.again = true;
        match seed {
            Some(seed) => {
                // There is room: that was looked at before.
                let _ = self.seeds.try_send(seed);
                None
            }
            None => {
                events.reads = Some(self.marks_in_stream());
                if is_busy && !events.list.is_empty() {
                    self.busy.sent(assigned + events.list.len() as u64);
                }
                Some(Slice { events, encoded })
            }
        }
    }

    /// How far the tasks are whose rows go into the stream. The others' marks are told by whoever stores them.
    fn marks_in_stream(&self) -> Arc<[ReadMark]> {
        let goes_elsewhere =
            |mark: &&ReadMark| self.lanes.iter().any(|lane| *lane.task == *mark.task && lane.to_subject.is_some());
        self.marks.iter().filter(|mark| !goes_elsewhere(mark)).cloned().collect()
    }
}

/// A cursor as the database may be asked with it.
fn opened(private: &Private<SubjectKeys>, cursor: Option<Cursor>) -> Result<Option<Cursor>, SourceError> {
    let Some(cursor) = cursor else { return Ok(None) };
    let opened = private.settings().open_cursor(cursor);
    opened.map(Some).ok_or_else(|| SourceError {
        kind: SourceErrorKind::Invalid,
        code: "FV-3105",
        what: "how far the table was read does not open with the configured key".into(),
        hint: Some("Set `private.key` to what it was, or begin another backfill.".into()),
        source: None,
    })
}

/// A chunk that cannot be rewritten, as one that cannot be read.
fn hidden(error: PrivateError) -> SourceError {
    let is_transient = error.is_transient();
    SourceError {
        kind: if is_transient { SourceErrorKind::Unreachable } else { SourceErrorKind::Invalid },
        code: error.code(),
        what: error.to_string(),
        hint: Some(error.hint().into()),
        source: None,
    }
}

fn unkept(error: RegistryError) -> SourceError {
    SourceError {
        kind: SourceErrorKind::Unreachable,
        code: "FV-2212",
        what: error.to_string(),
        hint: Some("Look at the nats server's log.".into()),
        source: error.source,
    }
}
