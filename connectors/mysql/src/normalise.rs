//! From events of the log to batches of changes.
//!
//! - A transaction is the events between its GTID (or BEGIN) and its XID, COMMIT, or the one statement
//!   that it is. The place to go on from is between two of them; inside one it is the place before it, with
//!   the ordinal and part that were passed.
//! - An ordinal counts every row of a transaction, of captured tables or not, and every statement that
//!   empties a table.
//! - Rows of an XA transaction come at its PREPARE, and are kept until its COMMIT, whose changes they are.
//!   Meanwhile the place to go on from stays before them: see [`Reading`].
//! - What a statement's comments say of its trace holds for its changes, and for those behind that have none of their own.
//! - What is compressed is expanded event by event into buffers of a bounded size, which batches own.

mod error;
mod expand;
mod rows;
mod statement;
mod transaction;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use figvine_change::assemble::Assembler;
use figvine_change::{Batch, Cell, Position, Untold};

use crate::annotation::Annotations;
use crate::config::OnStatement;
use crate::decode::gtid::AlterPhase;
use crate::decode::header::Header;
use crate::decode::{Decoder, Event};
use crate::gtid::{MariaDbGtid, Uuid};
use crate::position::{Passed, Place, Reading};
use crate::prepared::Spool;
use crate::session::Chunk;
use crate::tables::{Tables, Wanted};
use crate::xa::{Recovered, XaTransactions};

pub(crate) use error::NormaliseError;

use error::misplaced;
use expand::Expanding;
use transaction::Open;

pub(crate) use transaction::Name;

/// Ranges from here on stand for bytes that are appended to a batch's data at its end.
const REBUILT: u32 = 1 << 31;

/// How far a chunk was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// To its end.
    Done,
    /// As far as one buffer of what is expanded goes.
    More,
    /// Up to a table map that cannot be understood without the catalogue.
    Wants(Wanted),
}

/// Turns chunks of a session into batches.
#[derive(Debug)]
pub(crate) struct Normaliser {
    pub(crate) tables: Tables,
    decoder: Decoder,
    on_statement: OnStatement,
    annotations: Annotations,
    /// The file that is read.
    file: Arc<str>,
    reading: Reading,
    /// What an earlier session already passed on of the transaction that it was in.
    passed: Option<Passed>,
    assembler: Assembler,
    open: Option<Open>,
    /// What is being expanded, one inside the other: all of it comes before the chunk goes on.
    expanding: Vec<Expanding>,
    /// The event of those that waits for the catalogue.
    waiting: Vec<u8>,
    /// XA transactions from PREPARE on.
    prepared: XaTransactions,
    /// The last place between transactions of the batch that is being built, and where that is in the file.
    end: Option<(Position, Box<str>)>,
    /// The offset behind the last event of the file itself that told it, and the one that was told last.
    offset: u64,
    told_offset: u64,
    written_at: Option<i64>,
    /// What happened and was not told, since it was asked for last.
    untold: Untold,
    /// Values of the batch that is being built which stand nowhere in the log.
    rebuilt: Vec<u8>,
}

impl Normaliser {
    /// For a session that starts as `reading` says, inside a transaction of which `passed` was passed on, while the
    /// server's engine has what `recovered` says.
    pub(crate) fn new(
        tables: Tables,
        on_statement: OnStatement,
        annotations: Annotations,
        reading: Reading,
        passed: Option<Passed>,
        recovered: Option<Recovered>,
    ) -> Self {
        let file = match reading.place() {
            Place::File { file, .. } => file.as_str().into(),
            Place::MySql(_) | Place::MariaDb(_) => Arc::from(""),
        };
        let tombstones = tables.options.debezium.as_ref().is_some_and(|encoding| encoding.tombstones);
        Self {
            tables,
            decoder: Decoder::new(),
            on_statement,
            annotations,
            file,
            reading,
            passed,
            assembler: Assembler::new(tombstones),
            open: None,
            expanding: Vec::new(),
            waiting: Vec::new(),
            prepared: XaTransactions::new(recovered),
            end: None,
            offset: 0,
            told_offset: 0,
            written_at: None,
            untold: Untold::default(),
            rebuilt: Vec::new(),
        }
    }

    /// What happened and was not told, since the last call.
    pub(crate) fn untold(&mut self) -> Untold {
        std::mem::take(&mut self.untold)
    }

    /// A place from which the server tells again what is being read, and at best nothing before.
    pub(crate) fn place(&self) -> Place {
        // What an earlier session passed on is not all behind us yet.
        if self.reading.is_passing() { self.reading.place().clone() } else { self.reading.done().clone() }
    }

    /// Reads a chunk from its event `at` on and pushes what it gives to `out`. On
    /// [`Progress::Wants`] `at` stands before the event that could not be understood, or behind the compressed one that it
    /// is in, and is kept.
    pub(crate) fn read(
        &mut self,
        chunk: &Chunk,
        at: &mut usize,
        out: &mut VecDeque<Batch>,
    ) -> Result<Progress, NormaliseError> {
        loop {
            if !self.expanding.is_empty() {
                if let Some(wanted) = self.expand(out)? {
                    return Ok(Progress::Wants(wanted));
                }
                if !out.is_empty() {
                    return Ok(Progress::More);
                }
                continue;
            }
            if *at == 0
                && let Some(spilled) = &chunk.spilled
            {
                self.expand_spilled(spilled)?;
                *at += 1;
                continue;
            }
            let Some(range) = chunk.events.get(*at) else {
                self.finish(chunk.data.clone(), out);
                return Ok(Progress::Done);
            };
            let bytes = bytes_of(&chunk.data, range);
            let (header, event) = self.decoder.event(bytes, range.start)?;
            self.stands(&header);
            match event {
                Event::Payload(payload) => {
                    self.finish(chunk.data.clone(), out);
                    self.expanding.push(Expanding::Payload(payload.events_in(&chunk.data)?));
                }
                Event::Compressed(compressed) => {
                    self.finish(chunk.data.clone(), out);
                    let mut buffer = Vec::new();
                    compressed.append_expanded(&mut buffer)?;
                    self.inner(&buffer, 0, out)?;
                    self.finish(Bytes::from(buffer), out);
                }
                event => {
                    if let Event::TableMap(event) = &event
                        && let Some(wanted) = self.tables.wants(event)
                    {
                        return Ok(Progress::Wants(wanted));
                    }
                    self.event(&header, event, bytes, chunk.data.as_ref(), out)?;
                    self.moved();
                    if !self.expanding.is_empty() {
                        self.finish(chunk.data.clone(), out);
                    }
                }
            }
            *at += 1;
        }
    }

    /// One event, its bytes in `data`.
    fn event(
        &mut self,
        header: &Header,
        event: Event<'_>,
        bytes: &[u8],
        data: &[u8],
        out: &mut VecDeque<Batch>,
    ) -> Result<(), NormaliseError> {
        if header.timestamp > 0 {
            self.written_at = Some(i64::from(header.timestamp) * 1_000_000);
        }
        match event {
            Event::Rows(rows) => {
                if self.spools(bytes, header)? {
                    return Ok(());
                }
                self.rows(&rows, data, out)?;
            }
            Event::TableMap(event) => {
                let is_spooled = self.spools(bytes, header)?;
                self.tables.learn(&event).map_err(|error| NormaliseError::Table {
                    transaction: self.assembler.transaction().map_or_else(String::new, |tx| tx.id.to_string()),
                    ordinal: self.assembler.next_ordinal().unwrap_or_default(),
                    error,
                })?;
                if !is_spooled
                    && let Some(open) = &mut self.open
                    && self.tables.get_mut(event.table_id).is_some_and(|known| known.captured.is_some())
                {
                    open.named.push((event.table_id, false));
                }
            }
            Event::Gtid(gtid) => {
                let committed_at = gtid.original_committed_at.or(gtid.committed_at);
                let name = if gtid.is_anonymous {
                    Name::Place
                } else {
                    let number = u64::try_from(gtid.number).unwrap_or_default();
                    Name::MySql { server: Uuid(gtid.uuid), tag: gtid.tag.to_owned(), number }
                };
                self.begin(name, committed_at, header)?;
            }
            Event::MariadbGtid(gtid) => {
                let name =
                    MariaDbGtid { domain: gtid.gtid.domain, server: gtid.gtid.server_id, sequence: gtid.gtid.sequence };
                self.begin(Name::MariaDb(name), None, header)?;
                if let Some(open) = &mut self.open {
                    open.is_block = !gtid.is_standalone;
                    open.is_half_alter = matches!(gtid.alter, Some(AlterPhase::Start | AlterPhase::Rollback { .. }));
                    if let Some(xid) = gtid.prepared {
                        open.xa = Some((xid.to_string(), Spool::default()));
                    }
                }
            }
            Event::Query(query) => self.query(&query, header, out)?,
            Event::Xid(_) => self.commit(header, out)?,
            Event::XaPrepare { one_phase, xid } => {
                let Some(open) = &mut self.open else {
                    return Err(misplaced("XA PREPARE", "outside a transaction"));
                };
                let spool = open.xa.take().map(|(_, spool)| spool).unwrap_or_default();
                if one_phase {
                    self.expanding.push(Expanding::Xa { events: spool.read()?, header: *header, name: None });
                } else {
                    self.prepare(xid.to_string(), spool, header, out)?;
                }
            }
            Event::Rotate { file, position } => {
                self.file = file.into();
                if self.open.is_none() {
                    self.moved_to(position);
                }
            }
            Event::Heartbeat { file, position } => {
                if self.open.is_none() && !file.is_empty() {
                    self.file = file.into();
                    self.moved_to(position);
                    self.settle_between();
                }
            }
            Event::RowsQuery { statement } => self.rows_query(statement, bytes)?,
            Event::Unknown { type_code } => return Err(NormaliseError::Unknown { type_code }),
            Event::Payload(_) | Event::Compressed(_) => return Err(misplaced("a compressed event", "inside another")),
            Event::FormatDescription => {
                if self.decoder.format().is_some_and(|format| format.created > 0) {
                    self.prepared.started();
                }
                self.settle_between();
            }
            Event::Stop
            | Event::PreviousGtids(_)
            | Event::MariadbGtidList(_)
            | Event::BinlogCheckpoint { .. }
            | Event::GroupReplication
            | Event::StatementContext
            | Event::Ignorable { .. } => {}
        }
        Ok(())
    }

    /// Ends the batch whose ranges point into `data`.
    fn finish(&mut self, data: Bytes, out: &mut VecDeque<Batch>) {
        let data = if self.rebuilt.is_empty() {
            data
        } else {
            let base = u32::try_from(data.len()).unwrap_or(REBUILT);
            for cell in self.assembler.cells() {
                if let Cell::Value(range) = cell
                    && range.start >= REBUILT
                {
                    *range = range.start - REBUILT + base..range.end - REBUILT + base;
                }
            }
            let mut all = Vec::with_capacity(data.len() + self.rebuilt.len());
            all.extend_from_slice(&data);
            all.append(&mut self.rebuilt);
            Bytes::from(all)
        };
        self.assembler.finish(data, self.end.take(), self.written_at, out);
    }
}

fn bytes_of<'d>(data: &'d [u8], range: &Range<u32>) -> &'d [u8] {
    data.get(range.start as usize..range.end as usize).unwrap_or_default()
}
