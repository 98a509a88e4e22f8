//! The window of a backfill against a database in which transactions become visible in another order than they stand in
//! the log, read by chunks at any moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use figvine::backfill::window::{ReadId, Window};
use figvine::event::{RowId, Touch, Touched};
use figvine_change::{Batch, Chunk, Sight, Table, Transaction};

use super::broker::Random;
use super::run::seeds;

const KEYS: u64 = 12;
const CHUNK_KEYS: u64 = 4;
const TABLE: &str = "s.t";

type Versions = BTreeMap<u64, u64>;

/// A transaction: each key gets its next version, or goes.
#[derive(Debug, Clone)]
struct Work {
    changes: Vec<(u64, Option<u64>)>,
}

/// The database.
#[derive(Debug, Default)]
struct Database {
    /// Committed transactions in the order of the log.
    log: Vec<Work>,
    visible: BTreeSet<usize>,
    /// The last version that each key ever had.
    last: Versions,
    /// Keys of transactions that are committed and not visible yet: their locks are still held.
    locked: BTreeSet<u64>,
}

impl Database {
    /// Commits a transaction: it stands in the log, and is visible at some later time.
    fn commit(&mut self, random: &mut Random) {
        let mut changes = Vec::new();
        for _ in 0..random.below(3) + 1 {
            let key = random.below(KEYS);
            if self.locked.insert(key) {
                let version = self.last.entry(key).or_default();
                *version += 1;
                changes.push((key, (random.below(4) > 0).then_some(*version)));
            }
        }
        if !changes.is_empty() {
            self.log.push(Work { changes });
        }
    }

    /// Makes one of the committed transactions visible.
    fn show(&mut self, random: &mut Random) {
        let hidden: Vec<_> = (0..self.log.len()).filter(|at| !self.visible.contains(at)).collect();
        if hidden.is_empty() {
            return;
        }
        let at = hidden[usize::try_from(random.below(hidden.len() as u64)).expect("small")];
        self.visible.insert(at);
        for (key, _) in &self.log[at].changes {
            self.locked.remove(key);
        }
    }

    /// The rows that are visible. A key's changes become visible in the order of the log, by its lock.
    fn rows(&self) -> Versions {
        let mut rows = Versions::new();
        for at in &self.visible {
            for (key, version) in &self.log[*at].changes {
                match version {
                    Some(version) => rows.insert(*key, *version),
                    None => rows.remove(key),
                };
            }
        }
        rows
    }
}

#[derive(Debug)]
struct Shown(BTreeSet<usize>);

impl Sight for Shown {
    fn shows(&self, transaction: &Transaction) -> bool {
        self.0.contains(&transaction.id.parse().expect("a number"))
    }
}

fn sequence(at: usize) -> Box<str> {
    format!("{at:08}").into()
}

/// What a subscriber makes of the stream.
#[derive(Debug, Default)]
struct Subscriber {
    rows: Versions,
    told: BTreeSet<u64>,
}

impl Subscriber {
    fn change(&mut self, key: u64, version: Option<u64>) {
        self.told.insert(key);
        match version {
            Some(version) => self.rows.insert(key, version),
            None => self.rows.remove(&key),
        };
    }

    /// A row of a backfill says what the log said before, or what nobody said.
    fn read(&mut self, key: u64, version: u64) -> Result<(), String> {
        if self.told.contains(&key) && self.rows.get(&key) != Some(&version) {
            return Err(format!("key {key} was read as {version}, and stood at {:?}", self.rows.get(&key)));
        }
        self.change(key, Some(version));
        Ok(())
    }
}

/// How a bridge is at fault, to see that the model finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The transaction before a chunk's arrival is not noted.
    NotNoted,
    /// Rows go one transaction too early.
    TooEarly,
    /// What a chunk does not show goes for shown.
    Blind,
}

/// A chunk on its way.
enum Reading {
    /// Noted from here on; its snapshot is not taken yet.
    Begun(ReadId, u64),
    /// Read, and not arrived.
    Read(ReadId, u64, Versions, Box<Chunk>),
    /// In the window: the rows that are left.
    Waits(ReadId, u64, Vec<(u64, u64)>),
}

impl Reading {
    /// The first key of the chunk.
    fn first(&self) -> u64 {
        match self {
            Self::Begun(_, first) | Self::Read(_, first, _, _) | Self::Waits(_, first, _) => *first,
        }
    }
}

fn chunk(database: &Database, random: &mut Random, fault: Fault) -> Chunk {
    // What surely is shown may be less than what is: MySQL's set of GTIDs is asked for before the snapshot.
    let forgotten = random.below(3);
    let mut shown = database.visible.clone();
    for _ in 0..forgotten {
        let last = shown.iter().next_back().copied();
        last.map(|last| shown.remove(&last));
    }
    if fault == Fault::Blind {
        shown = (0..database.log.len()).collect();
    }
    let table = Table { schema: "s".into(), name: "t".into(), columns: Vec::new(), key: Vec::new() };
    // All that is visible stands in the log by now.
    let high = database.log.len() - usize::from(fault == Fault::TooEarly).min(database.log.len());
    Chunk {
        batch: Batch { tables: vec![Arc::new(table)], ..Batch::default() },
        cursors: Vec::new(),
        sight: Box::new(Shown(shown)),
        high: sequence(high),
        is_last: false,
        read_at: 0,
    }
}

fn id_of(key: u64) -> RowId {
    RowId::of(TABLE, key.to_string().as_bytes())
}

/// One run. The database starts with rows that no log tells of.
fn run(seed: u64, fault: Fault) -> Result<(), String> {
    let mut random = Random::new(seed);
    let mut database = Database::default();
    for _ in 0..6 {
        database.commit(&mut random);
        while database.visible.len() < database.log.len() {
            database.show(&mut random);
        }
    }
    // From here on the log is read.
    let mut passed = database.log.len();
    let mut subscriber = Subscriber::default();
    let mut window = Window::default();
    let mut lanes: [Option<Reading>; 2] = [None, None];
    let mut next_key = 0;
    let mut again: Vec<u64> = Vec::new();
    let mut steps = 0;
    loop {
        steps += 1;
        let is_winding_up = steps > 400;
        if is_winding_up
            && next_key >= KEYS
            && again.is_empty()
            && lanes.iter().all(Option::is_none)
            && passed == database.log.len()
        {
            break;
        }
        if !is_winding_up && random.once_in(60) {
            // Too much was noted: all is read again by other connections, which see what was passed on by then.
            window.clear();
            again.extend(lanes.iter_mut().filter_map(Option::take).map(|reading| reading.first()));
            while !(0..passed).all(|at| database.visible.contains(&at)) {
                database.show(&mut random);
            }
        }
        match random.below(8) {
            0 | 1 if !is_winding_up => database.commit(&mut random),
            2 | 3 => database.show(&mut random),
            4 if passed < database.log.len() => {
                let work = &database.log[passed];
                let transaction = Transaction {
                    id: passed.to_string().into(),
                    position: passed.to_string().into(),
                    sequence: sequence(passed),
                    committed_at: 0,
                    start: "x".into(),
                    end: None,
                    origin: None,
                    traceparent: None,
                    is_ignored: false,
                    file: None,
                };
                let touched = work.changes.iter().map(|(key, _)| Touched {
                    transaction: 0,
                    table: TABLE.into(),
                    touch: Touch::Row(id_of(*key)),
                });
                let is_noted = fault != Fault::NotNoted || random.below(4) > 0;
                let touched = if is_noted { touched.collect() } else { Vec::new() };
                for (key, version) in &work.changes {
                    subscriber.change(*key, *version);
                }
                passed += 1;
                let reached = Some(sequence(passed));
                window.pass(&Batch { transactions: vec![transaction], reached, ..Batch::default() }, touched);
            }
            _ => {
                let lane = usize::try_from(random.below(2)).expect("small");
                lanes[lane] = match lanes[lane].take() {
                    None if next_key < KEYS => {
                        let first = next_key;
                        next_key += CHUNK_KEYS;
                        Some(Reading::Begun(window.begin(), first))
                    }
                    None => again.pop().map(|first| Reading::Begun(window.begin(), first)),
                    Some(Reading::Begun(id, first)) => {
                        let rows = database.rows();
                        let rows = rows.range(first..first + CHUNK_KEYS).map(|(key, version)| (*key, *version));
                        let rows = rows.collect();
                        Some(Reading::Read(id, first, rows, Box::new(chunk(&database, &mut random, fault))))
                    }
                    Some(Reading::Read(id, first, rows, chunk)) => {
                        window.arrive(id, TABLE.into(), *chunk);
                        Some(Reading::Waits(id, first, rows.into_iter().collect()))
                    }
                    Some(Reading::Waits(id, first, mut rows)) => {
                        let waiting = window.get(id).ok_or("a chunk is gone")?;
                        if window.is_due(&waiting.chunk) {
                            // A slice of one row: the log may go on in the middle of a chunk.
                            if let Some((key, version)) = rows.pop() {
                                if !waiting.is_stale(&id_of(key)) {
                                    subscriber.read(key, version)?;
                                }
                                Some(Reading::Waits(id, first, rows))
                            } else {
                                window.done(id);
                                None
                            }
                        } else {
                            Some(Reading::Waits(id, first, rows))
                        }
                    }
                };
            }
        }
        if steps > 100_000 {
            return Err("it does not come to an end".into());
        }
    }
    while database.visible.len() < database.log.len() {
        database.show(&mut random);
    }
    let rows = database.rows();
    if subscriber.rows == rows {
        Ok(())
    } else {
        Err(format!("the stream tells {:?}, the database holds {rows:?}", subscriber.rows))
    }
}

#[test]
fn whatever_chunks_and_commits_do_the_stream_tells_what_the_database_holds() {
    for seed in seeds(1500) {
        run(seed, Fault::None).unwrap_or_else(|error| panic!("FIGVINE_MODEL_SEED={seed}: {error}"));
    }
}

#[test]
fn a_window_that_is_one_transaction_too_small_is_found() {
    for fault in [Fault::NotNoted, Fault::TooEarly, Fault::Blind] {
        let found = (0..500).find(|seed| run(*seed, fault).is_err());
        assert!(found.is_some(), "{fault:?} was not found");
    }
}
