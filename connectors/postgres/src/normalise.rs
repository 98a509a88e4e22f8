//! From pgoutput messages to batches of changes.
//!
//! - The order of changes is (commit LSN, ordinal): protocol 1 sends whole
//!   transactions in the order of their commits, while the LSNs of single rows
//!   interleave.
//! - An ordinal counts every row, truncate and message of a transaction that
//!   the server sends, captured or not.
//! - Which change is the last of its transaction is known only at COMMIT.
//!   Therefore the last change of a chunk is held back while its transaction is
//!   open; nothing else is, so memory is bounded by the chunk.
//! - After a restart in the middle of a transaction the server sends it again
//!   from its beginning; what lies before the place is passed over.

use std::sync::Arc;

use bytes::Bytes;
use figvine_change::{Batch, Body, Cell, Change, Op, Position, Row, RowChange, Table, Transaction, Within};

use crate::decode::reader::{DecodeError, Reader};
use crate::decode::{self, Frame, Message, Old};
use crate::globs::Globs;
use crate::lsn::{LogId, Lsn};
use crate::tables::{Facts, Known, Tables, Wanted};

/// The prefix of the messages that we write ourselves.
pub(crate) const HEARTBEAT_PREFIX: &str = "figvine.heartbeat";

/// Turns chunks of a session into batches.
#[derive(Debug)]
pub(crate) struct Normaliser {
    log: LogId,
    tables: Tables,
    messages: Globs,
    /// What an earlier session already passed on of the first transaction.
    passed: Option<(Lsn, Within)>,
    /// The furthest place between transactions that this session knows to be passed.
    reached: Lsn,
    open: Option<Open>,
    /// The last change read of the open transaction, alone in its batch.
    held: Option<Batch>,
    building: Building,
    /// The number of the chunk that is being read.
    chunk: u64,
}

/// The transaction that is being read.
#[derive(Debug)]
struct Open {
    transaction: Transaction,
    commit_lsn: Lsn,
    next_ordinal: u64,
    /// Its place in the batch that is being built, once it has a change there.
    index: Option<u32>,
    /// What was already passed on of it; `None` once something behind that was read.
    passed: Option<Within>,
    /// The shapes told in what was already passed on, the last of each table.
    passed_shapes: Vec<Arc<Table>>,
}

/// The batch that is being built.
#[derive(Debug, Default)]
struct Building {
    batch: Batch,
    /// Where reading goes on behind all of the batch, as far as that is between transactions.
    end: Option<Lsn>,
}

/// How far a chunk was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// To its end.
    Done,
    /// Up to a RELATION or a row that cannot be understood without the catalogue.
    Wants(Wanted),
}

impl Normaliser {
    /// For a session that starts at `from`.
    pub(crate) fn new(log: LogId, tables: Tables, messages: Globs, from: Lsn, within: Option<Within>) -> Self {
        Self {
            log,
            tables,
            messages,
            passed: within.map(|within| (from, within)),
            reached: from,
            open: None,
            held: None,
            building: Building::default(),
            chunk: 0,
        }
    }

    /// Reads a chunk (whole CopyData frames, with tag and length) from `at` on and
    /// pushes what it gives to `out`. On [`Progress::Wants`] `at` stands before
    /// the message that could not be understood; call again with the same chunk.
    pub(crate) fn read(
        &mut self,
        chunk: &Bytes,
        at: &mut usize,
        facts: &mut Facts,
        out: &mut impl Extend<Batch>,
    ) -> Result<Progress, DecodeError> {
        if *at == 0 {
            self.begin_chunk(chunk);
        }
        while let Some((payload, next)) = next_frame(chunk, *at)? {
            let base = next - payload.len();
            #[expect(clippy::cast_possible_truncation, reason = "a chunk is shorter than 4 GiB")]
            let frame = decode::frame(payload, base as u32)?;
            match frame {
                Frame::Keepalive { wal_end, sent_at, .. } => {
                    // In a transaction it may point behind rows that are still to come. And a server that has
                    // to read old log again first, for what was running then, tells of places before our beginning.
                    let wal_end = Lsn(wal_end);
                    let is_news = match self.passed {
                        Some((from, _)) => wal_end > from,
                        None => wal_end >= self.reached,
                    };
                    if self.open.is_none() && is_news {
                        self.ended(wal_end, sent_at);
                    }
                }
                Frame::XLogData { sent_at, message, .. } => {
                    if let Some(wanted) = self.message(message, sent_at, facts, out)? {
                        return Ok(Progress::Wants(wanted));
                    }
                }
            }
            *at = next;
        }
        self.end_chunk(out);
        Ok(Progress::Done)
    }

    /// The transaction that is being read, for errors.
    pub(crate) fn near(&self) -> Option<Lsn> {
        self.open.as_ref().map(|open| open.commit_lsn)
    }

    fn begin_chunk(&mut self, chunk: &Bytes) {
        let batch = &mut self.building.batch;
        batch.data = chunk.clone();
        if let Some(open) = &mut self.open {
            open.index = None;
        }
    }

    fn message(
        &mut self,
        reader: Reader<'_>,
        sent_at: i64,
        facts: &mut Facts,
        out: &mut impl Extend<Batch>,
    ) -> Result<Option<Wanted>, DecodeError> {
        let cells_before = self.building.batch.cells.len();
        let message = decode::message(reader, &mut self.building.batch.cells)?;
        if let Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } =
            message
            && let Some(wanted) = self.tables.doubts(relation, self.chunk, facts)
        {
            self.building.batch.cells.truncate(cells_before);
            return Ok(Some(wanted));
        }
        match message {
            Message::Insert { relation, new } => {
                let ordinal = self.ordinal("insert")?;
                if let Some(table) = self.captured(relation, new, None)? {
                    let row = RowChange { after: Some(new), ..row_change(table, Op::Insert) };
                    self.push(ordinal, 1, Body::Row(row), cells_before, out);
                } else {
                    self.building.batch.cells.truncate(cells_before);
                }
            }
            Message::Update { relation, old, new } => {
                let ordinal = self.ordinal("update")?;
                match self.captured(relation, new, old)? {
                    Some(table) => self.update(ordinal, table, old, new, cells_before, out),
                    None => self.building.batch.cells.truncate(cells_before),
                }
            }
            Message::Delete { relation, old } => {
                let ordinal = self.ordinal("delete")?;
                if let Some(table) = self.captured(relation, old.row, None)? {
                    let before =
                        RowChange { before: Some(old.row), before_is_key: old.is_key, ..row_change(table, Op::Delete) };
                    self.push(ordinal, 1, Body::Row(before), cells_before, out);
                } else {
                    self.building.batch.cells.truncate(cells_before);
                }
            }
            Message::Begin { commit_lsn, committed_at, xid } => self.begin(Lsn(commit_lsn), committed_at, xid)?,
            Message::Commit { end_lsn, committed_at, .. } => self.commit(Lsn(end_lsn), committed_at, out)?,
            Message::Relation(relation) => {
                if let Some(wanted) = self.tables.wants(&relation, facts) {
                    return Ok(Some(wanted));
                }
                if let Some(table) = self.tables.learn(&relation, facts)
                    && let Some(open) = &self.open
                {
                    let ordinal = open.next_ordinal;
                    let table = self.building.table(&table);
                    self.push(ordinal, 0, Body::Shape { table }, cells_before, out);
                }
            }
            Message::Type { oid } => facts.types.forget(oid),
            Message::Origin { name } => {
                let open = self.open.as_mut();
                let open =
                    open.ok_or(DecodeError::Misplaced { message: "an origin", place: "outside a transaction" })?;
                open.transaction.origin = Some(name.into());
            }
            Message::Truncate { relations } => {
                let ordinal = self.ordinal("truncate")?;
                for (oid, part) in relations.iter().zip(1..) {
                    match self.tables.get(oid) {
                        Some(Known::Captured(table)) => {
                            let table = self.building.table(table);
                            self.push(ordinal, part, Body::Truncate { table }, cells_before, out);
                        }
                        Some(Known::Passed) => {}
                        None => return Err(DecodeError::UnknownRelation { oid }),
                    }
                }
            }
            Message::Logical { transactional: true, prefix, content, .. } => {
                let ordinal = self.ordinal("a transactional message")?;
                if self.is_wanted_message(&prefix) {
                    self.push(ordinal, 1, Body::Message { prefix, content }, cells_before, out);
                }
            }
            Message::Logical { transactional: false, lsn, prefix, content } => {
                if self.open.is_some() {
                    return Err(DecodeError::Misplaced {
                        message: "a message of its own",
                        place: "inside a transaction",
                    });
                }
                // `lsn` is the end of its record, where the next one may begin, a commit for instance: a session
                // that started behind `lsn` would not be sent that transaction. It stands for itself, as a
                // transaction of one change; its own place is the last byte of its record, where no other begins.
                let end = Lsn(lsn);
                if self.is_wanted_message(&prefix) {
                    let whole_from = self.reached;
                    self.begin(Lsn(lsn.saturating_sub(1)), sent_at, 0)?;
                    if let Some(open) = &mut self.open {
                        open.transaction.start = self.log.at(whole_from);
                    }
                    self.push(0, 1, Body::Message { prefix, content }, cells_before, out);
                    self.commit(end, sent_at, out)?;
                } else {
                    self.ended(end, sent_at);
                }
            }
        }
        Ok(None)
    }

    fn is_wanted_message(&self, prefix: &std::ops::Range<u32>) -> bool {
        std::str::from_utf8(self.building.batch.bytes(prefix))
            .is_ok_and(|prefix| prefix != HEARTBEAT_PREFIX && self.messages.matches(prefix))
    }

    fn begin(&mut self, commit_lsn: Lsn, committed_at: i64, xid: u32) -> Result<(), DecodeError> {
        if self.open.is_some() {
            return Err(DecodeError::Misplaced { message: "a transaction begins", place: "inside another" });
        }
        // Only the first transaction of a session was passed in part.
        let passed = self.passed.take().filter(|(at, _)| *at == commit_lsn).map(|(_, within)| within);
        let transaction = Transaction {
            id: xid.to_string().into(),
            position: commit_lsn.to_string().into(),
            sequence: format!("{:016x}", commit_lsn.0).into(),
            committed_at,
            start: self.log.at(commit_lsn),
            end: None,
            origin: None,
        };
        self.open =
            Some(Open { transaction, commit_lsn, next_ordinal: 0, index: None, passed, passed_shapes: Vec::new() });
        Ok(())
    }

    fn commit(&mut self, end_lsn: Lsn, committed_at: i64, out: &mut impl Extend<Batch>) -> Result<(), DecodeError> {
        let open = self.open.take();
        let open = open.ok_or(DecodeError::Misplaced { message: "a commit", place: "outside a transaction" })?;
        let end = self.log.at(end_lsn);
        if let Some(index) = open.index {
            let batch = &mut self.building.batch;
            if let Some(transaction) = batch.transactions.get_mut(index as usize) {
                transaction.end = Some(end);
            }
            if let Some(change) = batch.changes.last_mut() {
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
        self.ended(end_lsn, committed_at);
        Ok(())
    }

    /// All up to here was read, and no transaction is open.
    fn ended(&mut self, end: Lsn, written_at: i64) {
        self.reached = end;
        self.building.end = Some(end);
        self.building.batch.written_at = Some(written_at);
    }

    /// Counts a record of the open transaction.
    fn ordinal(&mut self, message: &'static str) -> Result<u64, DecodeError> {
        let open = self.open.as_mut().ok_or(DecodeError::Misplaced { message, place: "outside a transaction" })?;
        let ordinal = open.next_ordinal;
        open.next_ordinal += 1;
        Ok(ordinal)
    }

    /// The table of a row, as an index into the batch; `None` when it is not captured.
    fn captured(&mut self, oid: u32, row: Row, old: Option<Old>) -> Result<Option<u32>, DecodeError> {
        match self.tables.get(oid) {
            Some(Known::Captured(table)) => {
                for row in [Some(row), old.map(|old| old.row)].into_iter().flatten() {
                    if row.len as usize != table.columns.len() {
                        return Err(DecodeError::Misfit { cells: row.len, columns: table.columns.len() });
                    }
                }
                Ok(Some(self.building.table(table)))
            }
            Some(Known::Passed) => Ok(None),
            None => Err(DecodeError::UnknownRelation { oid }),
        }
    }

    fn update(
        &mut self,
        ordinal: u64,
        table: u32,
        old: Option<Old>,
        new: Row,
        cells_before: usize,
        out: &mut impl Extend<Batch>,
    ) {
        if let Some(Old { row, is_key: false }) = old {
            self.building.fill_unchanged(row, new);
        }
        // The server sends a key (K) only when it changed; a whole row (O) always.
        let rekeyed = old.is_some_and(|old| self.building.keys_differ(table, old.row, new));
        let before = old.map(|old| old.row);
        let before_is_key = old.is_some_and(|old| old.is_key);
        if rekeyed {
            let gone = RowChange { before, before_is_key, rekeyed: Some(new), ..row_change(table, Op::Delete) };
            let come = RowChange { after: Some(new), rekeyed: before, ..row_change(table, Op::Insert) };
            self.push_pair(ordinal, gone, come, cells_before, out);
        } else {
            let change = RowChange { before, before_is_key, after: Some(new), ..row_change(table, Op::Update) };
            self.push(ordinal, 1, Body::Row(change), cells_before, out);
        }
    }

    /// Both halves of a key change share their cells.
    fn push_pair(
        &mut self,
        ordinal: u64,
        gone: RowChange,
        come: RowChange,
        cells_before: usize,
        out: &mut impl Extend<Batch>,
    ) {
        let cells = self.building.batch.cells.len();
        self.push(ordinal, 1, Body::Row(gone), cells, out);
        self.push(ordinal, 2, Body::Row(come), cells_before, out);
    }

    /// Appends a change; or, when an earlier session already passed it on, forgets it and the cells from `cells_before` on.
    fn push(&mut self, ordinal: u64, part: u32, body: Body, cells_before: usize, out: &mut impl Extend<Batch>) {
        let Some(open) = &mut self.open else { return };
        if let Some(passed) = open.passed {
            let batch = &mut self.building.batch;
            if (Within { ordinal, part }) <= passed {
                if let Body::Shape { table } = body
                    && let Some(table) = batch.table(table)
                {
                    open.passed_shapes.retain(|t| t.schema != table.schema || t.name != table.name);
                    open.passed_shapes.push(Arc::clone(table));
                }
                batch.cells.truncate(cells_before);
                return;
            }
            open.passed = None;
            // The earlier session was told of these, this one was not. They stand where this one started, so that
            // no place behind them lies before that.
            for table in std::mem::take(&mut open.passed_shapes) {
                let table = self.building.table(&table);
                self.append(passed.ordinal, passed.part, Body::Shape { table }, out);
            }
        }
        self.append(ordinal, part, body, out);
    }

    fn append(&mut self, ordinal: u64, part: u32, body: Body, out: &mut impl Extend<Batch>) {
        let Some(open) = &mut self.open else { return };
        out.extend(self.held.take());
        let batch = &mut self.building.batch;
        let transaction = *open.index.get_or_insert_with(|| {
            batch.transactions.push(open.transaction.clone());
            index(batch.transactions.len() - 1)
        });
        batch.changes.push(Change { transaction, ordinal, part, last: false, body });
        self.building.end = None;
    }

    fn end_chunk(&mut self, out: &mut impl Extend<Batch>) {
        self.chunk += 1;
        let Building { mut batch, end } = std::mem::take(&mut self.building);
        // What the next chunk will probably need.
        let (cells, changes) = (batch.cells.len(), batch.changes.len());
        self.building.batch.cells.reserve(cells);
        self.building.batch.changes.reserve(changes);

        if self.open.as_ref().is_some_and(|open| open.index.is_some()) {
            self.held = hold_back(&mut batch);
        }
        batch.end = end.map(|lsn| Position::between(self.log.at(lsn)));
        if batch.end.is_some() || !batch.changes.is_empty() {
            out.extend([batch]);
        }
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

impl Building {
    /// The table's index in the batch.
    fn table(&mut self, table: &Arc<Table>) -> u32 {
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

    fn keys_differ(&self, table: u32, old: Row, new: Row) -> bool {
        let Some(table) = self.batch.table(table) else { return false };
        let (old, new) = (self.batch.row(old), self.batch.row(new));
        let value = |row: &[Cell], column: usize| match row.get(column) {
            Some(Cell::Value(range)) => Some(range.clone()),
            _ => None,
        };
        table.key.iter().any(|&column| match (value(old, column), value(new, column)) {
            (Some(old), Some(new)) => self.batch.bytes(&old) != self.batch.bytes(&new),
            // A key's column that the log left out is as it was.
            (_, None) if new.get(column) == Some(&Cell::Unchanged) => false,
            (None, None) => false,
            _ => true,
        })
    }
}

fn row_change(table: u32, op: Op) -> RowChange {
    RowChange { table, op, before: None, before_is_key: false, after: None, rekeyed: None }
}

#[expect(clippy::cast_possible_truncation, reason = "each takes a byte of a chunk shorter than 4 GiB at least")]
fn index(at: usize) -> u32 {
    at as u32
}

/// The payload of the CopyData frame at `at`, and where the next one stands.
fn next_frame(chunk: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, DecodeError> {
    let Some(frame) = chunk.get(at..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
    let short = DecodeError::Short { field: "frame", at };
    let Some((&[b'd', length @ ..], _)) = frame.split_first_chunk::<5>() else { return Err(short) };
    let length = u32::from_be_bytes(length) as usize;
    let payload = frame.get(5..length.saturating_add(1)).ok_or(short)?;
    Ok(Some((payload, at + 5 + payload.len())))
}
