//! A connector over a log in memory, right and wrong in one way after the other.

use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::*;
use crate::{Column, Engine, Finding, Load, NoRows, Op, Retention, TableSize, Transaction, ValueCodec, ValueError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Passes over one change too few when it starts inside a transaction.
    GivesOneTwice,
    /// Passes over one change too many.
    SkipsOne,
    /// Knows a transaction only as a whole.
    StartsTransactionsAnew,
    NeverSaysLast,
    LosesDroppedCalls,
    WritesNull,
    StaysWhereItWas,
    DiscardsWhatWasRead,
    CountsFromItsBeginning,
    SwapsChanges,
}

#[derive(Debug)]
struct Verbatim;

impl ValueCodec for Verbatim {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        out.extend_from_slice(raw);
        Ok(())
    }
}

/// Transactions by the number of their changes; 0 is one elsewhere.
#[derive(Debug, Default)]
struct Log {
    transactions: Vec<usize>,
    /// Before this transaction nothing is left.
    discarded: usize,
}

struct Memory {
    log: Arc<Mutex<Log>>,
    written: Arc<Notify>,
    fault: Fault,
}

struct Reading {
    log: Arc<Mutex<Log>>,
    written: Arc<Notify>,
    fault: Fault,
    started_at: Position,
    durable: Durable,
    engine: Engine,
    transaction: usize,
    /// Changes of it already passed on.
    passed: usize,
    given: usize,
}

fn at(transaction: usize) -> Position {
    Position::between(format!("memory/{transaction:08}"))
}

fn transaction_of(position: &Position) -> usize {
    position.log.strip_prefix("memory/").and_then(|number| number.parse().ok()).expect("a position of ours")
}

impl Memory {
    fn write(&self, transactions: &[usize]) {
        self.log.lock().expect("a log").transactions.extend(transactions);
        self.written.notify_waiters();
    }

    fn length(&self) -> usize {
        self.log.lock().expect("a log").transactions.len()
    }
}

impl Connector for Memory {
    type Source = Reading;
    type Reader = NoRows;

    async fn check(&self) -> Result<Vec<Finding>, SourceError> {
        Ok(Vec::new())
    }

    async fn newest(&self) -> Result<Position, SourceError> {
        Ok(at(self.length()))
    }

    async fn was_read(&self) -> Result<bool, SourceError> {
        Ok(false)
    }

    async fn retention(&self) -> Result<Option<Retention>, SourceError> {
        Ok(None)
    }

    async fn tables(&self) -> Result<Vec<TableSize>, SourceError> {
        Ok(Vec::new())
    }

    async fn reader(&self) -> Result<NoRows, SourceError> {
        Ok(NoRows)
    }

    async fn load(&self) -> Result<Load, SourceError> {
        Ok(Load::default())
    }

    fn is_reached(&self, target: &Position, reached: &Position) -> bool {
        reached.log >= target.log
    }

    async fn open(&self, from: Option<Position>, durable: Durable) -> Result<Reading, SourceError> {
        let started_at = from.unwrap_or_else(|| at(self.length()));
        let transaction = transaction_of(&started_at);
        if transaction < self.log.lock().expect("a log").discarded {
            let what = "the log was discarded".to_owned();
            let kind = crate::SourceErrorKind::PositionLost;
            return Err(SourceError { kind, code: "FV-0000", what, hint: None, source: None });
        }
        let passed = started_at.within.map_or(0, |within| usize::try_from(within.ordinal).expect("small") + 1);
        Ok(Reading {
            log: Arc::clone(&self.log),
            written: Arc::clone(&self.written),
            fault: self.fault,
            durable,
            engine: Engine { name: "memory", version: "1".into(), database: "".into() },
            transaction,
            passed: match self.fault {
                Fault::GivesOneTwice => passed.saturating_sub(1),
                Fault::SkipsOne if passed > 0 => passed + 1,
                Fault::StartsTransactionsAnew => 0,
                _ => passed,
            },
            given: 0,
            started_at,
        })
    }
}

impl Reading {
    /// The next change alone, or the end of a transaction elsewhere.
    fn batch(&mut self) -> Option<Batch> {
        let count = *self.log.lock().expect("a log").transactions.get(self.transaction)?;
        let number = self.transaction;
        if self.passed >= count {
            self.transaction += 1;
            self.passed = 0;
            let end = if self.fault == Fault::StaysWhereItWas { self.started_at.clone() } else { at(number + 1) };
            return Some(Batch { end: Some(end), ..Batch::default() });
        }
        let ordinal = match self.fault {
            Fault::CountsFromItsBeginning => self.given,
            Fault::SwapsChanges if count > 1 && self.passed < 2 => 1 - self.passed,
            _ => self.passed,
        };
        self.passed += 1;
        self.given += 1;
        let last = self.passed == count;
        let column = Column { name: "n".into(), type_name: "int".into(), codec: Arc::new(Verbatim) };
        let table = Table { schema: "s".into(), name: "t".into(), columns: vec![column], key: vec![0] };
        let row = RowChange {
            table: 0,
            op: Op::Insert,
            before: None,
            before_is_key: false,
            after: Some(Row { first: 0, len: 1 }),
            rekeyed: None,
        };
        Some(Batch {
            reached: None,
            data: bytes::Bytes::from_static(b"7"),
            transactions: vec![Transaction {
                id: number.to_string().into(),
                position: number.to_string().into(),
                sequence: format!("{number:08}").into(),
                committed_at: 0,
                start: at(number).log,
                end: last.then(|| at(number + 1).log),
                origin: None,
                traceparent: None,
                is_ignored: false,
                file: None,
            }],
            tables: vec![Arc::new(table)],
            cells: vec![if self.fault == Fault::WritesNull { Cell::Null } else { Cell::Value(0..1) }],
            changes: vec![Change {
                transaction: 0,
                ordinal: ordinal as u64,
                part: 1,
                last: last && self.fault != Fault::NeverSaysLast,
                body: Body::Row(row),
            }],
            end: None,
            written_at: None,
        })
    }
}

impl Source for Reading {
    async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        loop {
            let written = Arc::clone(&self.written);
            let more = written.notified();
            if self.fault == Fault::LosesDroppedCalls
                && let Some(batch) = self.batch()
            {
                tokio::time::sleep(Duration::from_millis(3)).await;
                return Ok(Some(batch));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            if let Some(batch) = self.batch() {
                return Ok(Some(batch));
            }
            more.await;
        }
    }

    fn started_at(&self) -> &Position {
        &self.started_at
    }

    fn engine(&self) -> &Engine {
        &self.engine
    }

    async fn close(self) {
        let durable = self.durable.latest().map_or(0, |position| transaction_of(&position));
        let discarded = if self.fault == Fault::DiscardsWhatWasRead { self.transaction + 1 } else { durable };
        let is_told = self.durable.latest().is_some();
        let mut log = self.log.lock().expect("a log");
        if is_told {
            log.discarded = log.discarded.max(discarded);
        }
    }
}

async fn checked(fault: Fault) -> Result<(), Broken> {
    let log = Log { transactions: vec![1, 2], discarded: 0 };
    let memory = Memory { log: Arc::new(Mutex::new(log)), written: Arc::default(), fault };
    let commit = async || {
        memory.write(&[1, 4, 0, 2]);
        vec![1, 4, 2]
    };
    holds(&memory, Places::Fixed, commit, async || memory.write(&[0, 0])).await
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_keeps_the_contract_passes() {
    checked(Fault::None).await.expect("the contract");
}

#[tokio::test(start_paused = true)]
async fn each_broken_promise_is_found() {
    for (fault, told) in [
        (Fault::GivesOneTwice, "in place of"),
        (Fault::SkipsOne, "took too long: 4 of 5"),
        (Fault::StartsTransactionsAnew, "in place of"),
        (Fault::NeverSaysLast, "is not the last"),
        (Fault::LosesDroppedCalls, "took too long"),
        (Fault::WritesNull, "is null"),
        (Fault::StaysWhereItWas, "moving on"),
        (Fault::DiscardsWhatWasRead, "at what is durable failed"),
        (Fault::CountsFromItsBeginning, "in place of"),
        (Fault::SwapsChanges, "comes behind"),
    ] {
        let broken = checked(fault).await.expect_err(&format!("{fault:?} is broken"));
        assert!(broken.what.contains(told), "{fault:?}: {broken}");
    }
}
