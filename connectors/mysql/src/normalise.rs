//! From events of the log to batches of changes.
//!
//! - A transaction is the events between its GTID (or BEGIN) and its XID, COMMIT, or the one statement
//!   that it is. The place to go on from is between two of them; inside one it is the place before it, with
//!   the ordinal and part that were passed.
//! - An ordinal counts every row of a transaction, of captured tables or not, and every statement that
//!   empties a table.
//! - Rows of an XA transaction come at its PREPARE, and are kept until its COMMIT, whose changes they are.
//!   Meanwhile the place to go on from stays before them: see [`Reading`].
//! - What is compressed is expanded event by event into buffers of a bounded size, which batches own.

use std::collections::VecDeque;
use std::io::{self, Cursor};
use std::ops::Range;
use std::time::Instant;

use bytes::Bytes;
use figvine_change::assemble::{Assembler, Record};
use figvine_change::{Batch, Body, Cell, Position, Row, Transaction};

use crate::config::OnStatement;
use crate::decode::gtid::AlterPhase;
use crate::decode::header::{Header, kind};
use crate::decode::payload::PayloadEvents;
use crate::decode::query::{Query, Statement};
use crate::decode::reader::DecodeError;
use crate::decode::rows::Rows;
use crate::decode::{Decoder, Event, EventError};
use crate::gtid::{MariaDbGtid, Uuid};
use crate::position::{Passed, Place, Reading};
use crate::prepared::{Spool, Spooled};
use crate::session::Chunk;
use crate::statement::{Effect, effect};
use crate::tables::{TableError, Tables, Wanted};
use crate::value::json_diff;
use crate::xa::{CommitUndone, Prepared, Recovered, XaTransactions};

/// What is expanded is handed on in buffers of about this size.
const EXPANDED_BYTES: usize = 32 * 1024;
/// Ranges from here on stand for bytes that are appended to a batch's data at its end.
const REBUILT: u32 = 1 << 31;

/// The log cannot be understood, or tells what must not be passed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NormaliseError {
    /// An event.
    #[error(transparent)]
    Event(#[from] EventError),
    /// A part of an event.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A table map.
    #[error(transparent)]
    Table(#[from] TableError),
    /// An event of an unknown type.
    #[error("an event of the unknown type {type_code}, which may carry rows")]
    Unknown {
        /// The type.
        type_code: u8,
    },
    /// An event at a place where it cannot stand.
    #[error("{event} {place}")]
    Misplaced {
        /// The event.
        event: &'static str,
        /// Where.
        place: &'static str,
    },
    /// Rows of a table that was not told.
    #[error("rows of table id {id}, which was not told")]
    UnknownTable {
        /// The id.
        id: u64,
    },
    /// A statement that changed rows without telling them.
    #[error("a statement changed rows of {table} and the log does not tell which")]
    Statement {
        /// `schema.table`.
        table: String,
    },
    /// The same where not even the tables are told.
    #[error("a stored program changed rows and the log does not tell which")]
    Runs,
    /// Rows that were rolled back.
    #[error("a transaction with rows of captured tables was rolled back in the log")]
    RolledBack,
    /// The log took a commit back.
    #[error(transparent)]
    CommitUndone(#[from] CommitUndone),
    /// A partial update of JSON.
    #[error("a partial update of column {column} of {table} does not fit the value before")]
    PartialJson {
        /// The column.
        column: Box<str>,
        /// `schema.table`.
        table: String,
    },
    /// Rows of an XA transaction cannot be kept.
    #[error("the rows of a prepared XA transaction cannot be kept")]
    Spool(#[from] io::Error),
}

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
    /// The file that is read.
    file: String,
    reading: Reading,
    /// What an earlier session already passed on of the transaction that it was in.
    passed: Option<Passed>,
    assembler: Assembler,
    open: Option<Open>,
    /// What is being expanded, one inside the other: all of it comes before the chunk goes on.
    expanding: Vec<Expanding>,
    /// XA transactions from PREPARE on.
    prepared: XaTransactions,
    /// The last place between transactions of the batch that is being built.
    end: Option<Position>,
    written_at: Option<i64>,
    /// Values of the batch that is being built which stand nowhere in the log.
    rebuilt: Vec<u8>,
}

/// The transaction that is being read.
#[derive(Debug)]
struct Open {
    name: Name,
    /// A BEGIN was read: a statement does not end it.
    is_block: bool,
    /// An earlier session passed it on as a whole.
    is_passed: bool,
    /// Rows go to a spool: it is an XA transaction before its PREPARE.
    xa: Option<(String, Spool)>,
    has_captured: bool,
    /// MariaDB: a statement that only begins, or undoes, an ALTER.
    is_half_alter: bool,
}

/// What the log calls a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    MySql {
        server: Uuid,
        tag: String,
        number: u64,
    },
    MariaDb(MariaDbGtid),
    /// By its place in the file alone.
    Place,
}

/// Events that do not stand in the chunk as they are.
#[derive(Debug)]
enum Expanding {
    /// A compressed transaction.
    Payload(PayloadEvents<Cursor<Bytes>>),
    /// An XA transaction, which ends with the event of `header`. `name` is that of its PREPARE.
    Xa { events: Spooled, header: Header, name: Option<Name> },
}

impl Expanding {
    /// Appends the next event; `false` behind the last.
    fn append_next(&mut self, out: &mut Vec<u8>) -> Result<bool, NormaliseError> {
        match self {
            Self::Payload(events) => Ok(events.append_next(out)?.is_some()),
            Self::Xa { events, .. } => Ok(events.append_next(out)?),
        }
    }
}

impl Normaliser {
    /// For a session that starts as `reading` says, inside a transaction of which `passed` was passed on, while the
    /// server's engine has what `recovered` says.
    pub(crate) fn new(
        tables: Tables,
        on_statement: OnStatement,
        reading: Reading,
        passed: Option<Passed>,
        recovered: Option<Recovered>,
    ) -> Self {
        let file = match reading.place() {
            Place::File { file, .. } => file.clone(),
            Place::MySql(_) | Place::MariaDb(_) => String::new(),
        };
        Self {
            tables,
            decoder: Decoder::new(),
            on_statement,
            file,
            reading,
            passed,
            assembler: Assembler::default(),
            open: None,
            expanding: Vec::new(),
            prepared: XaTransactions::new(recovered),
            end: None,
            written_at: None,
            rebuilt: Vec::new(),
        }
    }

    /// Reads a chunk from its event `at` on and pushes what it gives to `out`. On
    /// [`Progress::Wants`] `at` stands before the event that could not be understood.
    pub(crate) fn read(
        &mut self,
        chunk: &Chunk,
        at: &mut usize,
        out: &mut VecDeque<Batch>,
    ) -> Result<Progress, NormaliseError> {
        loop {
            if !self.expanding.is_empty() {
                self.expand(out)?;
                if !out.is_empty() {
                    return Ok(Progress::More);
                }
                continue;
            }
            let Some(range) = chunk.events.get(*at) else {
                self.finish(chunk.data.clone(), out);
                return Ok(Progress::Done);
            };
            let bytes = bytes_of(&chunk.data, range);
            let (header, event) = self.decoder.event(bytes, range.start)?;
            match event {
                Event::Payload(payload) => {
                    if self.tables.may_want()
                        && let Some(wanted) = self.wanted_of(&mut payload.events()?)?
                    {
                        return Ok(Progress::Wants(wanted));
                    }
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
                    if !self.expanding.is_empty() {
                        self.finish(chunk.data.clone(), out);
                    }
                }
            }
            *at += 1;
        }
    }

    /// What the catalogue must be asked for a payload: looked for before anything of it is passed on.
    fn wanted_of(&self, events: &mut PayloadEvents<&[u8]>) -> Result<Option<Wanted>, NormaliseError> {
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let Some(header) = events.append_next(&mut buffer)? else { return Ok(None) };
            if header.type_code == kind::TABLE_MAP
                && let (_, Event::TableMap(event)) = self.decoder.inner(&buffer, 0)?
                && let Some(wanted) = self.tables.wants(&event)
            {
                return Ok(Some(wanted));
            }
        }
    }

    /// Reads events of what is being expanded, as many as fit into a buffer, in batches of their own.
    fn expand(&mut self, out: &mut VecDeque<Batch>) -> Result<(), NormaliseError> {
        let Some(mut events) = self.expanding.pop() else { return Ok(()) };
        let depth = self.expanding.len();
        let mut buffer = Vec::with_capacity(EXPANDED_BYTES);
        loop {
            let start = buffer.len();
            if !events.append_next(&mut buffer)? {
                self.finish(Bytes::from(buffer), out);
                if let Expanding::Xa { header, name, .. } = events {
                    if let Some(name) = name {
                        self.reading.completed(&self.place_of(&name, &header));
                    }
                    self.commit(&header, out)?;
                }
                return Ok(());
            }
            self.inner(&buffer, start, out)?;
            if buffer.len() >= EXPANDED_BYTES || self.expanding.len() > depth {
                // What an event inside made be expanded comes first.
                self.expanding.insert(depth, events);
                self.finish(Bytes::from(buffer), out);
                return Ok(());
            }
        }
    }

    /// One event that stands at `start` of a buffer of its own, to the buffer's end.
    fn inner(&mut self, buffer: &[u8], start: usize, out: &mut VecDeque<Batch>) -> Result<(), NormaliseError> {
        let bytes = buffer.get(start..).unwrap_or_default();
        let base = u32::try_from(start)
            .map_err(|_| DecodeError::Unsupported { what: "expanded bytes", value: start as u64 })?;
        let decoder = std::mem::take(&mut self.decoder);
        let read = decoder
            .inner(bytes, base)
            .map_err(NormaliseError::from)
            .and_then(|(header, event)| self.event(&header, event, bytes, buffer, out));
        self.decoder = decoder;
        read
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
                self.spools(bytes, header)?;
                self.tables.learn(&event)?;
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
                file.clone_into(&mut self.file);
                if self.open.is_none() {
                    self.moved_to(position);
                }
            }
            Event::Heartbeat { file, position } => {
                if self.open.is_none() && !file.is_empty() {
                    file.clone_into(&mut self.file);
                    self.moved_to(position);
                    self.settle_between();
                }
            }
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
            | Event::RowsQuery { .. }
            | Event::GroupReplication
            | Event::StatementContext
            | Event::Ignorable { .. } => {}
        }
        Ok(())
    }

    /// In an XA transaction before its PREPARE: keeps the event.
    fn spools(&mut self, bytes: &[u8], header: &Header) -> Result<bool, NormaliseError> {
        let Some(Open { xa: Some((_, spool)), .. }) = &mut self.open else { return Ok(false) };
        let size = (header.size as usize).saturating_sub(self.decoder.checksum_bytes());
        // Out of a payload there is no checksum: the bytes are as long as their header says, and all of them count.
        let size = if bytes.len() < header.size as usize { bytes.len() } else { size };
        spool.append(bytes, size)?;
        Ok(true)
    }

    fn begin(&mut self, name: Name, committed_at: Option<u64>, header: &Header) -> Result<(), NormaliseError> {
        if self.open.is_some() {
            return Err(misplaced("a transaction begins", "inside another"));
        }
        self.tables.tidy();
        let place = self.place_text(header);
        let id = match &name {
            Name::MySql { server, tag, number } if tag.is_empty() => format!("{server}:{number}"),
            Name::MySql { server, tag, number } => format!("{server}:{tag}:{number}"),
            Name::MariaDb(gtid) => gtid.to_string(),
            Name::Place => place.clone(),
        };
        let is_passed = match &name {
            Name::MySql { .. } => false,
            Name::MariaDb(gtid) => self.reading.has_passed_gtid(*gtid),
            Name::Place => self.reading.has_passed_file(&self.file, self.offset(header)),
        };
        let passed = match &self.passed {
            Some(passed) if !is_passed && passed.transaction.as_deref().is_none_or(|inside| *inside == *id) => {
                self.passed.take().map(|passed| passed.within)
            }
            _ => None,
        };
        let committed_at = committed_at.and_then(|at| i64::try_from(at).ok());
        let committed_at = committed_at.unwrap_or_else(|| i64::from(header.timestamp) * 1_000_000);
        // MySQL's set has no order: which transaction a place is inside of is told by its name.
        let start = match &name {
            Name::MySql { .. } => format!("{}@{id}", self.reading),
            Name::MariaDb(_) | Name::Place => self.reading.to_string(),
        };
        self.assembler.begin(
            Transaction {
                id: id.as_str().into(),
                position: id.into(),
                sequence: self.sequence(header),
                committed_at,
                start: start.into(),
                end: None,
                origin: None,
            },
            passed,
        );
        self.open =
            Some(Open { name, is_block: false, is_passed, xa: None, has_captured: false, is_half_alter: false });
        Ok(())
    }

    fn query(&mut self, query: &Query<'_>, header: &Header, out: &mut VecDeque<Batch>) -> Result<(), NormaliseError> {
        let statement = query.kind();
        if self.open.is_none() {
            match statement {
                // Left over by a transaction that had nothing else.
                Statement::Commit | Statement::Rollback => return Ok(()),
                // Old servers name no transactions.
                _ => self.begin(Name::Place, None, header)?,
            }
        }
        match statement {
            Statement::Begin => self.in_block(),
            Statement::Commit => self.commit(header, out)?,
            Statement::Rollback => {
                if self.open.as_ref().is_some_and(|open| open.has_captured && !open.is_passed) {
                    return Err(NormaliseError::RolledBack);
                }
                self.commit(header, out)?;
            }
            Statement::Savepoint | Statement::RollbackToSavepoint | Statement::XaEnd(_) => {}
            Statement::XaStart(xid) => {
                self.in_block();
                if let Some(open) = &mut self.open {
                    open.xa = Some((text(xid), Spool::default()));
                }
            }
            Statement::XaPrepare(xid) => {
                let spool = self.open.as_mut().and_then(|open| open.xa.take()).map(|(_, spool)| spool);
                self.prepare(text(xid), spool.unwrap_or_default(), header, out)?;
            }
            Statement::XaCommit(xid) => match self.prepared.commit(&text(xid), Instant::now()) {
                Some(prepared) => {
                    let events = prepared.spool.read()?;
                    self.expanding.push(Expanding::Xa { events, header: *header, name: Some(prepared.name) });
                }
                None => self.commit(header, out)?,
            },
            Statement::XaRollback(xid) => {
                if let Some(prepared) = self.prepared.roll_back(&text(xid), Instant::now())? {
                    self.reading.completed(&self.place_of(&prepared.name, header));
                }
                self.commit(header, out)?;
            }
            Statement::Other => {
                self.statement(query, out)?;
                if self.open.as_ref().is_some_and(|open| !open.is_block) {
                    self.commit(header, out)?;
                }
            }
        }
        Ok(())
    }

    fn in_block(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_block = true;
        }
    }

    /// A statement that is none of those that bound transactions.
    fn statement(&mut self, query: &Query<'_>, out: &mut VecDeque<Batch>) -> Result<(), NormaliseError> {
        let schema = String::from_utf8_lossy(query.schema);
        if self.open.as_ref().is_none_or(|open| open.is_half_alter) {
            return Ok(());
        }
        match effect(query.statement, &schema) {
            Effect::Empties(tables) => self.emptied(&tables, out),
            Effect::Drops(tables) => {
                self.emptied(&tables, out);
                for table in tables {
                    self.tables.forget(&table.schema, &table.name);
                }
            }
            Effect::Renames(pairs) => {
                for (from, to) in pairs {
                    self.tables.created(&to.schema, &to.name);
                    for table in [&from, &to] {
                        self.tables.forget(&table.schema, &table.name);
                    }
                    let is_captured = |t: &crate::statement::TableName| self.tables.is_captured(&t.schema, &t.name);
                    if is_captured(&from) || is_captured(&to) {
                        let (from, to) = (qualified(&from), qualified(&to));
                        tracing::info!(%from, %to, "a captured table has another name: rows go on under the new one");
                    }
                }
            }
            Effect::Partitions(table) => {
                if self.tables.is_captured(&table.schema, &table.name) {
                    let table = qualified(&table);
                    tracing::warn!(%table, "rows of a partition went or came without being told: the stream lacks them");
                }
            }
            Effect::Changes(names) => {
                let known = names.iter().find(|name| self.tables.is_known(&name.schema, &name.name));
                if let Some(table) = known.filter(|name| self.tables.is_captured(&name.schema, &name.name)) {
                    let table = qualified(table);
                    let is_passed = self.open.as_ref().is_some_and(|open| open.is_passed);
                    match self.on_statement {
                        OnStatement::Error if !is_passed => return Err(NormaliseError::Statement { table }),
                        _ => tracing::warn!(%table, "a statement changed rows that the log does not tell"),
                    }
                }
            }
            Effect::Runs => {
                let is_passed = self.open.as_ref().is_some_and(|open| open.is_passed);
                match self.on_statement {
                    OnStatement::Error if !is_passed => return Err(NormaliseError::Runs),
                    _ => tracing::warn!("a stored program changed rows that the log does not tell"),
                }
            }
            Effect::Creates(table) => {
                self.tables.created(&table.schema, &table.name);
                self.tables.forget(&table.schema, &table.name);
            }
            // The shape of a table may change: what the catalogue said does not hold any longer.
            Effect::Nothing => self.tables.forget_all(),
        }
        Ok(())
    }

    fn emptied(&mut self, tables: &[crate::statement::TableName], out: &mut VecDeque<Batch>) {
        let Some(ordinal) = self.assembler.count() else { return };
        let is_passed = self.open.as_ref().is_some_and(|open| open.is_passed);
        for (table, part) in tables.iter().zip(1..) {
            if self.tables.is_captured(&table.schema, &table.name) && !is_passed {
                let shape = self.tables.shape(&table.schema, &table.name);
                let index = self.assembler.table(&shape);
                let cells = self.assembler.cells().len();
                self.assembler.push(ordinal, part, Body::Truncate { table: index }, cells, out);
            }
        }
    }

    fn rows(&mut self, rows: &Rows<'_>, data: &[u8], out: &mut VecDeque<Batch>) -> Result<(), NormaliseError> {
        // A statement that ends without rows of its own names a table id that belongs to none.
        if rows.is_empty() {
            return Ok(());
        }
        let Some(open) = &mut self.open else { return Err(misplaced("rows", "outside a transaction")) };
        let (tables, assembler) = (&mut self.tables, &mut self.assembler);
        let known = tables.get_mut(rows.table_id).ok_or(NormaliseError::UnknownTable { id: rows.table_id })?;
        let captured = known.captured.as_ref().filter(|_| !open.is_passed);
        open.has_captured |= captured.is_some();
        let mut reader = rows.of(&known.map)?;
        loop {
            let cells = assembler.cells().len();
            let Some(images) = reader.next(assembler.cells()) else { return Ok(()) };
            let images = images?;
            let Some(ordinal) = assembler.count() else { return Ok(()) };
            let Some(table) = captured else {
                assembler.cells().truncate(cells);
                continue;
            };
            for &column in reader.partial() {
                rebuild(column, images.before, images.after, data, assembler.cells(), &mut self.rebuilt).map_err(
                    |()| NormaliseError::PartialJson {
                        column: table.columns.get(column).map(|c| c.name.clone()).unwrap_or_default(),
                        table: table.qualified_name(),
                    },
                )?;
            }
            let index = assembler.table(table);
            if !std::mem::replace(&mut known.is_told, true) {
                let all = assembler.cells().len();
                assembler.push(ordinal, 0, Body::Shape { table: index }, all, out);
            }
            let record =
                Record { table: index, before: images.before, before_is_key: false, after: images.after, cells };
            assembler.row(ordinal, record, data, out);
        }
    }

    fn prepare(
        &mut self,
        xid: String,
        spool: Spool,
        header: &Header,
        out: &mut VecDeque<Batch>,
    ) -> Result<(), NormaliseError> {
        let Some(open) = self.open.take() else { return Err(misplaced("XA PREPARE", "outside a transaction")) };
        let place = self.place_of(&open.name, header);
        let before = self.reading.at().clone();
        if open.is_passed {
            self.reading.pass(&place);
        } else {
            self.reading.hold(&place);
        }
        self.prepared.prepare(xid, Prepared { spool, name: open.name }, before);
        self.settle();
        self.assembler.commit(self.reading.to_string().into(), out);
        self.ended();
        Ok(())
    }

    fn commit(&mut self, header: &Header, out: &mut VecDeque<Batch>) -> Result<(), NormaliseError> {
        let Some(open) = self.open.take() else { return Err(misplaced("a commit", "outside a transaction")) };
        let place = self.place_of(&open.name, header);
        if open.is_passed {
            self.reading.pass(&place);
        } else {
            self.reading.add(&place);
        }
        self.settle();
        self.assembler.commit(self.reading.to_string().into(), out);
        self.ended();
        Ok(())
    }

    /// Forgets XA transactions that have ended, and goes on to the first that has not.
    fn settle(&mut self) {
        self.prepared.settle(self.reading.at(), Instant::now());
        self.reading.release(self.prepared.first());
    }

    /// The same where no transaction ends: an idle log holds nothing back either.
    fn settle_between(&mut self) {
        if self.open.is_some() || self.prepared.first().is_none() {
            return;
        }
        let before = self.reading.place().clone();
        self.settle();
        if *self.reading.place() != before {
            self.ended();
        }
    }

    fn ended(&mut self) {
        self.end = Some(Position::between(self.reading.to_string()));
    }

    /// The place behind an event, by the name of its transaction.
    fn place_of(&self, name: &Name, header: &Header) -> Place {
        match name {
            Name::MySql { server, tag, number } => {
                let mut set = crate::gtid::MySqlSet::default();
                set.add(*server, tag, *number);
                Place::MySql(set)
            }
            Name::MariaDb(gtid) => {
                let mut set = crate::gtid::MariaDbSet::default();
                set.add(*gtid);
                Place::MariaDb(set)
            }
            Name::Place => self.reading.file_place(&self.file, self.offset(header)),
        }
    }

    /// Between transactions: the file goes on at `position`.
    fn moved_to(&mut self, position: u64) {
        if let Place::File { .. } = self.reading.place() {
            let place = self.reading.file_place(&self.file, position);
            if self.reading.is_passing() {
                self.reading.pass(&place);
            } else if self.reading.add(&place) {
                self.ended();
            }
        }
    }

    /// The offset behind an event in its file; its header has the lower half alone.
    fn offset(&self, header: &Header) -> u64 {
        self.reading.offset_near(&self.file, header.end)
    }

    /// For people: the file, and the offset behind the event.
    fn place_text(&self, header: &Header) -> String {
        format!("{}:{}", self.file, self.offset(header))
    }

    /// Sorts as the log of one server does: the file's number and the offset in it.
    fn sequence(&self, header: &Header) -> Box<str> {
        let digits = self.file.rsplit('.').next().unwrap_or_default();
        let number: u64 = digits.parse().unwrap_or_default();
        format!("{number:010}-{:012}", self.offset(header)).into()
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

fn misplaced(event: &'static str, place: &'static str) -> NormaliseError {
    NormaliseError::Misplaced { event, place }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn qualified(table: &crate::statement::TableName) -> String {
    format!("{}.{}", table.schema, table.name)
}

/// Puts the whole value in place of the differences to the one before.
fn rebuild(
    column: usize,
    before: Option<Row>,
    after: Option<Row>,
    data: &[u8],
    cells: &mut [Cell],
    rebuilt: &mut Vec<u8>,
) -> Result<(), ()> {
    let at = |row: Option<Row>| row.map(|row| row.first as usize + column);
    let (Some(old), Some(new)) = (at(before), at(after)) else { return Err(()) };
    let old = cells.get(old).cloned();
    let Some(target) = cells.get_mut(new) else { return Err(()) };
    let Cell::Value(differences) = target.clone() else { return Ok(()) };
    let value = match old {
        // The row before does not have it either: all that is known is that it is not told.
        None | Some(Cell::Unchanged) => Cell::Unchanged,
        Some(Cell::Value(old)) if differences.is_empty() => Cell::Value(old),
        Some(Cell::Value(old)) => {
            let start = rebuilt.len();
            json_diff::apply(bytes_of(data, &old), bytes_of(data, &differences), rebuilt).map_err(|_| ())?;
            let place =
                |length: usize| u32::try_from(length).ok().and_then(|length| REBUILT.checked_add(length)).ok_or(());
            Cell::Value(place(start)?..place(rebuilt.len())?)
        }
        Some(Cell::Null) => return Err(()),
    };
    *target = value;
    Ok(())
}
