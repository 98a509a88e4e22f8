//! From the records of a log to batches: what every connector's normaliser does alike.
//!
//! - Which change is the last of its transaction is known only at its end. So the
//!   last change of a batch is held back while its transaction is open; nothing
//!   else is, so memory is bounded by what a batch is made of.
//! - After a restart inside a transaction the log tells it again from its beginning;
//!   what an earlier session already passed on is passed over.
//! - A change of the key is a removal and an insertion that name each other.
//! - What an application says of a transaction inside of it (its trace, a mark) holds for the changes behind. After a restart it
//!   is read again with the rest of the transaction, so these are the same.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Batch, Body, Cell, Change, Op, Position, Row, RowChange, TOMBSTONE, Table, Transaction, Within};

/// Builds batches.
#[derive(Debug, Default)]
pub struct Assembler {
    batch: Batch,
    open: Option<Open>,
    /// The last change read of the open transaction, alone in its batch.
    held: Option<Batch>,
    /// Whether something was appended behind the last place between transactions.
    has_unended: bool,
    /// Whether each removal is followed by a tombstone.
    tombstones: bool,
}

/// The transaction that is being read.
#[derive(Debug)]
struct Open {
    transaction: Transaction,
    next_ordinal: u64,
    /// Its place in the batch that is being built, once it has a change there.
    index: Option<u32>,
    /// More is known of it by now than stands there.
    is_altered: bool,
    /// It has changes, be they such that were already passed on. Shapes are none: which of them are told is the session's.
    has_changes: bool,
    /// What was already passed on of it; `None` once something behind that was read.
    passed: Option<Within>,
    /// The shapes told in what was already passed on, the last of each table.
    passed_shapes: Vec<Arc<Table>>,
}

/// One row of a record, as the log tells it. `cells` is how many cells there were before its own.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// Index into [`Batch::tables`], from [`Assembler::table`].
    pub table: u32,
    /// The row before.
    pub before: Option<Row>,
    /// Whether it holds the key's columns alone.
    pub before_is_key: bool,
    /// The row after.
    pub after: Option<Row>,
    /// Cells there were before those of this record.
    pub cells: usize,
}

impl Assembler {
    /// One that puts, where `tombstones` says so, a tombstone behind each removal.
    #[must_use]
    pub fn new(tombstones: bool) -> Self {
        Self { tombstones, ..Self::default() }
    }

    /// The cells of the batch that is being built; rows are appended here.
    pub fn cells(&mut self) -> &mut Vec<Cell> {
        &mut self.batch.cells
    }

    /// The table's index in the batch that is being built.
    pub fn table(&mut self, table: &Arc<Table>) -> u32 {
        let tables = &mut self.batch.tables;
        // Neighbouring rows are mostly of the same table, and a batch has few.
        match tables.iter().rposition(|known| Arc::ptr_eq(known, table)) {
            Some(at) => index(at),
            None => {
                tables.push(Arc::clone(table));
                index(tables.len() - 1)
            }
        }
    }

    /// Begins a transaction, of which an earlier session passed on what lies up to `passed`.
    pub fn begin(&mut self, transaction: Transaction, passed: Option<Within>) {
        self.open = Some(Open {
            transaction,
            next_ordinal: 0,
            index: None,
            is_altered: false,
            has_changes: false,
            passed,
            passed_shapes: Vec::new(),
        });
    }

    /// The transaction that is being read.
    #[must_use]
    pub fn transaction(&mut self) -> Option<&mut Transaction> {
        self.open.as_mut().map(|open| &mut open.transaction)
    }

    /// The changes of the open transaction that follow came from this trace.
    pub fn trace(&mut self, traceparent: Box<str>) {
        if let Some(open) = &mut self.open
            && open.transaction.traceparent.as_ref() != Some(&traceparent)
        {
            open.transaction.traceparent = Some(traceparent);
            open.is_altered = true;
        }
    }

    /// The open transaction is not to be told, unless it has changes already: it goes as a whole, or not at all.
    pub fn ignore(&mut self) {
        if let Some(open) = self.open.as_mut().filter(|open| !open.has_changes && !open.transaction.is_ignored) {
            open.transaction.is_ignored = true;
            open.is_altered = true;
        }
    }

    /// Whether the open transaction has changes already, be they such that an earlier session passed on.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.has_changes)
    }

    /// Whether a transaction is being read.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The ordinal of the record that comes next; `None` outside transactions.
    #[must_use]
    pub fn next_ordinal(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.next_ordinal)
    }

    /// Counts a record of the open transaction; `None` outside transactions.
    pub fn count(&mut self) -> Option<u64> {
        let open = self.open.as_mut()?;
        let ordinal = open.next_ordinal;
        open.next_ordinal += 1;
        Some(ordinal)
    }

    /// Appends a row's change: an insert, a delete, an update, or both halves of
    /// a change of the key. `data` is what the cells' ranges point into.
    pub fn row(&mut self, ordinal: u64, record: Record, data: &[u8], out: &mut impl Extend<Batch>) {
        let Record { table, before, before_is_key, after, cells } = record;
        let change = |op| RowChange { table, op, before: None, before_is_key: false, after: None, rekeyed: None };
        match (before, after) {
            (Some(old), Some(new)) => {
                if !before_is_key {
                    self.fill_unchanged(old, new);
                }
                if self.keys_differ(table, old, new, data) {
                    let gone = RowChange { before, before_is_key, rekeyed: after, ..change(Op::Delete) };
                    let come = RowChange { after, rekeyed: before, ..change(Op::Insert) };
                    // Both halves share their cells: none is taken back with the first alone.
                    let all = self.batch.cells.len();
                    self.push(ordinal, 1, Body::Row(gone), all, out);
                    self.tombstone(ordinal, gone, all, out);
                    self.push(ordinal, 2, Body::Row(come), cells, out);
                } else {
                    let update = RowChange { before, before_is_key, after, ..change(Op::Update) };
                    self.push(ordinal, 1, Body::Row(update), cells, out);
                }
            }
            (None, Some(_)) => {
                // An update of which the log has no row before is told apart by the caller: see [`Assembler::update`].
                self.push(ordinal, 1, Body::Row(RowChange { after, ..change(Op::Insert) }), cells, out);
            }
            (Some(_), None) => {
                let delete = RowChange { before, before_is_key, ..change(Op::Delete) };
                if self.tombstones {
                    // They share their cells, too.
                    let all = self.batch.cells.len();
                    self.push(ordinal, 1, Body::Row(delete), all, out);
                    self.tombstone(ordinal, delete, cells, out);
                } else {
                    self.push(ordinal, 1, Body::Row(delete), cells, out);
                }
            }
            (None, None) => {}
        }
    }

    /// Appends what follows a removal, where it is asked for.
    fn tombstone(&mut self, ordinal: u64, removal: RowChange, cells: usize, out: &mut impl Extend<Batch>) {
        if self.tombstones {
            let tombstone = RowChange { op: Op::Tombstone, ..removal };
            self.push(ordinal, 1 | TOMBSTONE, Body::Row(tombstone), cells, out);
        }
    }

    /// Appends an update of which the log has no row before: its key is as it was.
    pub fn update(&mut self, ordinal: u64, table: u32, after: Row, cells: usize, out: &mut impl Extend<Batch>) {
        let change =
            RowChange { table, op: Op::Update, before: None, before_is_key: false, after: Some(after), rekeyed: None };
        self.push(ordinal, 1, Body::Row(change), cells, out);
    }

    /// Appends a change of the open transaction; or, when an earlier session
    /// already passed it on, forgets it and the cells from `cells` on.
    pub fn push(&mut self, ordinal: u64, part: u32, body: Body, cells: usize, out: &mut impl Extend<Batch>) {
        let Some(open) = &mut self.open else { return };
        open.has_changes |= !matches!(body, Body::Shape { .. });
        if let Some(passed) = open.passed {
            if (Within { ordinal, part }) <= passed {
                if let Body::Shape { table } = body
                    && let Some(table) = self.batch.table(table)
                {
                    open.passed_shapes.retain(|t| t.schema != table.schema || t.name != table.name);
                    open.passed_shapes.push(Arc::clone(table));
                }
                self.batch.cells.truncate(cells);
                return;
            }
            open.passed = None;
            // The earlier session was told of these, this one was not. They stand where this one started, so that
            // no place behind them lies before that.
            for table in std::mem::take(&mut open.passed_shapes) {
                let table = self.table(&table);
                self.append(passed.ordinal, passed.part, Body::Shape { table }, out);
            }
        }
        self.append(ordinal, part, body, out);
    }

    fn append(&mut self, ordinal: u64, part: u32, body: Body, out: &mut impl Extend<Batch>) {
        let Some(open) = &mut self.open else { return };
        out.extend(self.held.take());
        if std::mem::take(&mut open.is_altered) {
            open.index = None;
        }
        let batch = &mut self.batch;
        let transaction = *open.index.get_or_insert_with(|| {
            batch.transactions.push(open.transaction.clone());
            index(batch.transactions.len() - 1)
        });
        batch.changes.push(Change { transaction, ordinal, part, last: false, body });
        self.has_unended = true;
    }

    /// Ends the open transaction: the log from `end` on holds all that follows it.
    pub fn commit(&mut self, end: Box<str>, out: &mut impl Extend<Batch>) {
        let Some(open) = self.open.take() else { return };
        if let Some(index) = open.index {
            if let Some(transaction) = self.batch.transactions.get_mut(index as usize) {
                transaction.end = Some(end);
            }
            if let Some(change) = self.batch.changes.last_mut() {
                change.last = true;
            }
        } else if let Some(mut held) = self.held.take() {
            held.end = Some(Position::between(end.clone()));
            if let Some(transaction) = held.transactions.first_mut() {
                transaction.end = Some(end);
            }
            if let Some(change) = held.changes.first_mut() {
                change.last = true;
            }
            out.extend([held]);
        }
        self.has_unended = false;
    }

    /// Ends the batch that is being built: its ranges point into `data`. `end` is the last place
    /// between transactions that was read, with what [`Batch::reached`] says of it, `written_at` its time
    /// (microseconds since 1970).
    pub fn finish(
        &mut self,
        data: Bytes,
        end: Option<(Position, Box<str>)>,
        written_at: Option<i64>,
        out: &mut impl Extend<Batch>,
    ) {
        let mut batch = std::mem::take(&mut self.batch);
        // What the next batch will probably need.
        self.batch.cells.reserve(batch.cells.len());
        self.batch.changes.reserve(batch.changes.len());
        batch.data = data;
        batch.written_at = written_at;
        if let Some(open) = &mut self.open
            && open.index.take().is_some()
        {
            self.held = hold_back(&mut batch);
        }
        // Behind changes of a transaction that is still open it would be too early: the last of them tells.
        (batch.end, batch.reached) = end.filter(|_| !self.has_unended).unzip();
        self.has_unended = false;
        if batch.end.is_some() || !batch.changes.is_empty() {
            out.extend([batch]);
        }
    }

    /// What the new row leaves out, the whole old row holds.
    fn fill_unchanged(&mut self, old: Row, new: Row) {
        for offset in 0..new.len.min(old.len) {
            let (from, to) = ((old.first + offset) as usize, (new.first + offset) as usize);
            if self.batch.cells.get(to) == Some(&Cell::Unchanged)
                && let Some(cell) = self.batch.cells.get(from).cloned()
                && let Some(target) = self.batch.cells.get_mut(to)
            {
                *target = cell;
            }
        }
    }

    fn keys_differ(&self, table: u32, old: Row, new: Row, data: &[u8]) -> bool {
        let Some(table) = self.batch.table(table) else { return false };
        let (old, new) = (self.batch.row(old), self.batch.row(new));
        let value = |row: &[Cell], column: usize| match row.get(column) {
            Some(Cell::Value(range)) => Some(data.get(range.start as usize..range.end as usize)),
            _ => None,
        };
        table.key.iter().any(|&column| match (value(old, column), value(new, column)) {
            (Some(old), Some(new)) => old != new,
            // A key's column that the log left out is as it was.
            (_, None) if new.get(column) == Some(&Cell::Unchanged) => false,
            (None, None) => false,
            _ => true,
        })
    }
}

/// Takes the last change out into a batch of its own.
fn hold_back(batch: &mut Batch) -> Option<Batch> {
    let change = batch.changes.pop()?;
    let transaction = batch.transactions.get(change.transaction as usize)?.clone();
    let mut held = Batch { data: batch.data.clone(), transactions: vec![transaction], ..Batch::default() };
    let mut move_row = |row: Row| {
        let first = index(held.cells.len());
        held.cells.extend_from_slice(batch.row(row));
        Row { first, len: row.len }
    };
    let table = match &change.body {
        Body::Row(RowChange { table, .. }) | Body::Truncate { table } | Body::Shape { table } => Some(*table),
        Body::Message { .. } => None,
    };
    let body = match change.body {
        Body::Row(row) => Body::Row(RowChange {
            before: row.before.map(&mut move_row),
            after: row.after.map(&mut move_row),
            rekeyed: row.rekeyed.map(&mut move_row),
            table: 0,
            ..row
        }),
        Body::Truncate { .. } => Body::Truncate { table: 0 },
        Body::Shape { .. } => Body::Shape { table: 0 },
        message @ Body::Message { .. } => message,
    };
    held.tables.extend(table.and_then(|table| batch.table(table)).cloned());
    held.changes.push(Change { transaction: 0, body, ordinal: change.ordinal, part: change.part, last: false });
    // A transaction of which the batch holds nothing any more is none of its own.
    if batch.changes.last().is_none_or(|last| last.transaction != change.transaction) {
        batch.transactions.pop();
    }
    Some(held)
}

#[expect(clippy::cast_possible_truncation, reason = "each takes a byte of a buffer shorter than 4 GiB at least")]
fn index(at: usize) -> u32 {
    at as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::FilePlace;

    fn transaction() -> Transaction {
        let place = Some(FilePlace { name: "f".into(), offset: 1, server_id: 1 });
        let (id, position, sequence, start) = ("1".into(), "1".into(), "1".into(), "0".into());
        Transaction {
            id,
            position,
            sequence,
            committed_at: 0,
            start,
            end: None,
            origin: None,
            traceparent: None,
            is_ignored: false,
            file: place,
        }
    }

    fn table() -> Arc<Table> {
        Arc::new(Table { schema: "s".into(), name: "t".into(), columns: Vec::new(), key: vec![0] })
    }

    /// What a delete and a change of the key give behind a place: operation, part, and the value of each row before.
    fn told(tombstones: bool, passed: Option<Within>) -> Vec<(Op, u32, Option<Cell>)> {
        let mut assembler = Assembler::new(tombstones);
        let mut out = Vec::new();
        assembler.begin(transaction(), passed);
        for (before, after) in [(0..1, None), (1..2, Some(2..3))] {
            let cells = assembler.cells().len();
            let table = assembler.table(&table());
            let mut row = |range| {
                let first = index(assembler.cells().len());
                assembler.cells().push(Cell::Value(range));
                Row { first, len: 1 }
            };
            let (before, after) = (row(before), after.map(row));
            let ordinal = assembler.count().expect("a transaction");
            let record = Record { table, before: Some(before), before_is_key: false, after, cells };
            assembler.row(ordinal, record, b"abc", &mut out);
        }
        assembler.commit("2".into(), &mut out);
        assembler.finish(Bytes::from_static(b"abc"), None, None, &mut out);
        let rows = out.iter().flat_map(|batch| batch.changes.iter().map(move |change| (batch, change)));
        rows.map(|(batch, change)| match &change.body {
            Body::Row(row) => (row.op, change.part, row.before.and_then(|row| batch.row(row).first().cloned())),
            other => panic!("{other:?}"),
        })
        .collect()
    }

    #[test]
    fn a_tombstone_follows_each_removal_and_changes_no_other_number() {
        let value = |at: u32| Some(Cell::Value(at..at + 1));
        let all = [
            (Op::Delete, 1, value(0)),
            (Op::Tombstone, 1 | TOMBSTONE, value(0)),
            (Op::Delete, 1, value(1)),
            (Op::Tombstone, 1 | TOMBSTONE, value(1)),
            (Op::Insert, 2, None),
        ];
        assert_eq!(told(true, None), all);
        let without: Vec<_> = all.iter().filter(|(op, ..)| *op != Op::Tombstone).cloned().collect();
        assert_eq!(told(false, None), without);
        let places = [(0, 1), (0, 1 | TOMBSTONE), (1, 1), (1, 1 | TOMBSTONE)];
        for (told_before, (ordinal, part)) in (1..).zip(places) {
            assert_eq!(told(true, Some(Within { ordinal, part })), all[told_before..], "{ordinal}.{part}");
        }
    }

    /// A transaction of six messages, with a trace told before the third and the fifth and a mark behind each, read in batches
    /// that end behind the ordinals `cuts`, where all up to `passed` was passed on. Of each change what is said of its
    /// transaction.
    fn said(cuts: &[u64], passed: Option<Within>) -> Vec<(u64, bool, Option<Box<str>>, bool)> {
        let mut assembler = Assembler::new(false);
        let mut out = Vec::new();
        assembler.begin(transaction(), passed);
        let shape = assembler.table(&table());
        assembler.push(0, 0, Body::Shape { table: shape }, 0, &mut out);
        for at in 0..6 {
            match at {
                2 => assembler.trace("one".into()),
                4 => assembler.trace("two".into()),
                _ => {}
            }
            let ordinal = assembler.count().expect("a transaction");
            // What is not captured is counted, and is no change.
            if at != 3 {
                assert_eq!(assembler.has_changes(), at > 0);
                assembler.push(ordinal, 1, Body::Message { prefix: 0..0, content: 0..0 }, 0, &mut out);
            }
            assembler.ignore();
            if cuts.contains(&ordinal) {
                assembler.finish(Bytes::new(), None, None, &mut out);
            }
        }
        assembler.commit("2".into(), &mut out);
        assembler.finish(Bytes::new(), None, None, &mut out);
        let changes = out.iter().flat_map(|batch| batch.changes.iter().map(move |change| (batch, change)));
        let messages = changes.filter(|(_, change)| matches!(change.body, Body::Message { .. }));
        messages
            .map(|(batch, change)| {
                let of = batch.transaction(change).expect("a transaction");
                assert_eq!(change.last, change.ordinal == 5);
                assert!(!change.last || of.end.is_some());
                (change.ordinal, change.last, of.traceparent.clone(), of.is_ignored)
            })
            .collect()
    }

    #[test]
    fn a_change_has_the_last_trace_told_before_it_however_it_is_read() {
        let trace = |ordinal: u64| match ordinal {
            0 | 1 => None,
            2 | 3 => Some("one".into()),
            _ => Some("two".into()),
        };
        let all: Vec<_> = [0, 1, 2, 4, 5].map(|ordinal| (ordinal, ordinal == 5, trace(ordinal), false)).into();
        for cuts in 0_u64..64 {
            let cuts: Vec<u64> = (0..6).filter(|at| cuts >> at & 1 == 1).collect();
            assert_eq!(said(&cuts, None), all, "{cuts:?}");
            for (told_before, ordinal) in (1..).zip([0, 1, 2, 4]) {
                let passed = Some(Within { ordinal, part: 1 });
                assert_eq!(said(&cuts, passed), all[told_before..], "{cuts:?} behind {ordinal}");
            }
        }
    }

    #[test]
    fn a_mark_before_the_first_change_holds_for_all_of_the_transaction() {
        for cuts in 0_u64..8 {
            let mut assembler = Assembler::new(false);
            let mut out = Vec::new();
            assembler.begin(transaction(), None);
            let shape = assembler.table(&table());
            assembler.push(0, 0, Body::Shape { table: shape }, 0, &mut out);
            assembler.ignore();
            for at in 0..3 {
                let ordinal = assembler.count().expect("a transaction");
                assembler.push(ordinal, 1, Body::Message { prefix: 0..0, content: 0..0 }, 0, &mut out);
                if cuts >> at & 1 == 1 {
                    assembler.finish(Bytes::new(), None, None, &mut out);
                }
            }
            assembler.commit("2".into(), &mut out);
            assembler.finish(Bytes::new(), None, None, &mut out);
            let changes = out.iter().flat_map(|batch| batch.changes.iter().map(move |change| (batch, change)));
            let ignored = changes
                .filter(|(_, change)| matches!(change.body, Body::Message { .. }))
                .map(|(batch, change)| batch.transaction(change).is_some_and(|transaction| transaction.is_ignored));
            assert_eq!(ignored.collect::<Vec<_>>(), [true; 3], "{cuts:b}");
        }
    }
}
