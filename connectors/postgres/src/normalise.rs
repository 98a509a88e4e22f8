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
//! - A message before the first captured change may say which trace a transaction
//!   came from, or that it is not to be told.

use std::ops::Range;

use bytes::Bytes;
use figvine_change::assemble::{Assembler, Record};
use figvine_change::trace::traceparent;
use figvine_change::{Batch, Body, Position, Row, Transaction, Within};

use crate::decode::reader::{DecodeError, Reader};
use crate::decode::{self, Frame, Message, Old};
use crate::lsn::{LogId, Lsn};
use crate::messages::Prefixes;
use crate::tables::{Facts, Known, Tables, Wanted};

/// Turns chunks of a session into batches.
#[derive(Debug)]
pub(crate) struct Normaliser {
    log: LogId,
    tables: Tables,
    prefixes: Prefixes,
    /// What an earlier session already passed on of the first transaction.
    passed: Option<(Lsn, Within)>,
    /// The furthest place between transactions that this session knows to be passed.
    reached: Lsn,
    assembler: Assembler,
    /// The commit record of the transaction that is being read.
    commit_lsn: Lsn,
    /// The last place between transactions of the batch that is being built.
    end: Option<Lsn>,
    written_at: Option<i64>,
    /// The number of the chunk that is being read.
    chunk: u64,
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
    pub(crate) fn new(
        log: LogId,
        tables: Tables,
        prefixes: Prefixes,
        from: Lsn,
        within: Option<Within>,
        tombstones: bool,
    ) -> Self {
        Self {
            log,
            tables,
            prefixes,
            passed: within.map(|within| (from, within)),
            reached: from,
            assembler: Assembler::new(tombstones),
            commit_lsn: Lsn(0),
            end: None,
            written_at: None,
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
                    if !self.assembler.is_open() && is_news {
                        self.ended(wal_end, sent_at);
                    }
                }
                Frame::XLogData { sent_at, message, .. } => {
                    if let Some(wanted) = self.message(chunk, message, sent_at, facts, out)? {
                        return Ok(Progress::Wants(wanted));
                    }
                }
            }
            *at = next;
        }
        self.chunk += 1;
        let end = self.end.take().map(|lsn| (Position::between(self.log.at(lsn)), lsn.sequence()));
        self.assembler.finish(chunk.clone(), end, self.written_at.take(), out);
        Ok(Progress::Done)
    }

    /// The transaction that is being read, for errors.
    pub(crate) fn near(&self) -> Option<Lsn> {
        self.assembler.is_open().then_some(self.commit_lsn)
    }

    fn message(
        &mut self,
        chunk: &Bytes,
        reader: Reader<'_>,
        sent_at: i64,
        facts: &mut Facts,
        out: &mut impl Extend<Batch>,
    ) -> Result<Option<Wanted>, DecodeError> {
        let cells = self.assembler.cells().len();
        let message = decode::message(reader, self.assembler.cells())?;
        if let Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } =
            message
            && let Some(wanted) = self.tables.doubts(relation, self.chunk, facts)
        {
            self.assembler.cells().truncate(cells);
            return Ok(Some(wanted));
        }
        match message {
            Message::Insert { relation, new } => {
                let ordinal = self.ordinal("insert")?;
                match self.captured(relation, new, None)? {
                    Some(table) => {
                        let record = Record { table, before: None, before_is_key: false, after: Some(new), cells };
                        self.assembler.row(ordinal, record, chunk, out);
                    }
                    None => self.assembler.cells().truncate(cells),
                }
            }
            Message::Update { relation, old, new } => {
                let ordinal = self.ordinal("update")?;
                match (self.captured(relation, new, old)?, old) {
                    // The server sends a key (K) only when it changed or stands out of line; a whole row (O) always.
                    (Some(table), Some(Old { row, is_key })) => {
                        let (before, after) = (Some(row), Some(new));
                        let record = Record { table, before, before_is_key: is_key, after, cells };
                        self.assembler.row(ordinal, record, chunk, out);
                    }
                    (Some(table), None) => self.assembler.update(ordinal, table, new, cells, out),
                    (None, _) => self.assembler.cells().truncate(cells),
                }
            }
            Message::Delete { relation, old } => {
                let ordinal = self.ordinal("delete")?;
                match self.captured(relation, old.row, None)? {
                    Some(table) => {
                        let before = Some(old.row);
                        let record = Record { table, before, before_is_key: old.is_key, after: None, cells };
                        self.assembler.row(ordinal, record, chunk, out);
                    }
                    None => self.assembler.cells().truncate(cells),
                }
            }
            Message::Begin { commit_lsn, committed_at, xid } => self.begin(Lsn(commit_lsn), committed_at, xid)?,
            Message::Commit { end_lsn, committed_at, .. } => self.commit(Lsn(end_lsn), committed_at, out)?,
            Message::Relation(relation) => {
                if let Some(wanted) = self.tables.wants(&relation, facts) {
                    return Ok(Some(wanted));
                }
                if let Some(table) = self.tables.learn(&relation, facts)
                    && let Some(ordinal) = self.assembler.next_ordinal()
                {
                    let table = self.assembler.table(&table);
                    self.assembler.push(ordinal, 0, Body::Shape { table }, cells, out);
                }
            }
            Message::Type { oid } => facts.types.forget(oid),
            Message::Origin { name } => {
                let transaction = self.assembler.transaction();
                let transaction = transaction
                    .ok_or(DecodeError::Misplaced { message: "an origin", place: "outside a transaction" })?;
                transaction.origin = Some(name.into());
            }
            Message::Truncate { relations } => {
                let ordinal = self.ordinal("truncate")?;
                for (oid, part) in relations.iter().zip(1..) {
                    match self.tables.get(oid) {
                        Some(Known::Captured(table)) => {
                            let table = self.assembler.table(table);
                            self.assembler.push(ordinal, part, Body::Truncate { table }, cells, out);
                        }
                        Some(Known::Passed) => {}
                        None => return Err(DecodeError::UnknownRelation { oid }),
                    }
                }
            }
            Message::Logical { transactional: true, prefix, content, .. } => {
                let ordinal = self.ordinal("a transactional message")?;
                self.annotated(bytes_of(chunk, &prefix), bytes_of(chunk, &content));
                if self.prefixes.is_event(bytes_of(chunk, &prefix)) {
                    self.assembler.push(ordinal, 1, Body::Message { prefix, content }, cells, out);
                }
            }
            Message::Logical { transactional: false, lsn, prefix, content } => {
                if self.assembler.is_open() {
                    return Err(DecodeError::Misplaced {
                        message: "a message of its own",
                        place: "inside a transaction",
                    });
                }
                // `lsn` is the end of its record, where the next one may begin, a commit for instance: a session
                // that started behind `lsn` would not be sent that transaction. It stands for itself, as a
                // transaction of one change; its own place is the last byte of its record, where no other begins.
                let end = Lsn(lsn);
                if self.prefixes.is_event(bytes_of(chunk, &prefix)) {
                    let whole_from = self.reached;
                    self.begin(Lsn(lsn.saturating_sub(1)), sent_at, 0)?;
                    if let Some(transaction) = self.assembler.transaction() {
                        transaction.start = self.log.at(whole_from);
                    }
                    self.assembler.push(0, 1, Body::Message { prefix, content }, cells, out);
                    self.commit(end, sent_at, out)?;
                } else {
                    self.ended(end, sent_at);
                }
            }
        }
        Ok(None)
    }

    /// A message may say something of its transaction, as long as that has no captured change. What is told stays as it
    /// was told: a restart behind it must find the same.
    fn annotated(&mut self, prefix: &[u8], content: &[u8]) {
        if self.assembler.has_changes() {
            return;
        }
        if self.prefixes.is_trace(prefix)
            && let Some(traceparent) = traceparent(content)
        {
            self.assembler.trace(traceparent);
        }
        if self.prefixes.is_mark(prefix) {
            self.assembler.ignore();
        }
    }

    fn begin(&mut self, commit_lsn: Lsn, committed_at: i64, xid: u32) -> Result<(), DecodeError> {
        if self.assembler.is_open() {
            return Err(DecodeError::Misplaced { message: "a transaction begins", place: "inside another" });
        }
        // Only the first transaction of a session was passed in part.
        let passed = self.passed.take().filter(|(at, _)| *at == commit_lsn).map(|(_, within)| within);
        let transaction = Transaction {
            id: xid.to_string().into(),
            position: commit_lsn.to_string().into(),
            sequence: commit_lsn.sequence(),
            committed_at,
            start: self.log.at(commit_lsn),
            end: None,
            origin: None,
            traceparent: None,
            is_ignored: false,
            file: None,
        };
        self.commit_lsn = commit_lsn;
        self.assembler.begin(transaction, passed);
        Ok(())
    }

    fn commit(&mut self, end_lsn: Lsn, committed_at: i64, out: &mut impl Extend<Batch>) -> Result<(), DecodeError> {
        if !self.assembler.is_open() {
            return Err(DecodeError::Misplaced { message: "a commit", place: "outside a transaction" });
        }
        self.assembler.commit(self.log.at(end_lsn), out);
        self.ended(end_lsn, committed_at);
        Ok(())
    }

    /// All up to here was read, and no transaction is open.
    fn ended(&mut self, end: Lsn, written_at: i64) {
        self.reached = end;
        self.end = Some(end);
        self.written_at = Some(written_at);
    }

    /// Counts a record of the open transaction.
    fn ordinal(&mut self, message: &'static str) -> Result<u64, DecodeError> {
        self.assembler.count().ok_or(DecodeError::Misplaced { message, place: "outside a transaction" })
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
                Ok(Some(self.assembler.table(table)))
            }
            Some(Known::Passed) => Ok(None),
            None => Err(DecodeError::UnknownRelation { oid }),
        }
    }
}

fn bytes_of<'c>(chunk: &'c [u8], range: &Range<u32>) -> &'c [u8] {
    chunk.get(range.start as usize..range.end as usize).unwrap_or_default()
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
