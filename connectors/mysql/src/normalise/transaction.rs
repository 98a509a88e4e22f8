//! Where a transaction begins and ends, and the place to go on from.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use figvine_change::{Batch, FilePlace, Position, Transaction};

use super::error::misplaced;
use super::{NormaliseError, Normaliser};
use crate::decode::header::Header;
use crate::gtid::{MariaDbGtid, Uuid};
use crate::position::{Place, sequence};
use crate::prepared::Spool;
use crate::xa::Prepared;

/// The transaction that is being read.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) name: Name,
    /// A BEGIN was read: a statement does not end it.
    pub(super) is_block: bool,
    /// An earlier session passed it on as a whole.
    pub(super) is_passed: bool,
    /// Rows go to a spool: it is an XA transaction before its PREPARE.
    pub(super) xa: Option<(String, Spool)>,
    pub(super) has_captured: bool,
    /// MariaDB: a statement that only begins, or undoes, an ALTER.
    pub(super) is_half_alter: bool,
    /// Captured tables that the statement being read named, and whether rows of them came.
    pub(super) named: Vec<(u64, bool)>,
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

impl Normaliser {
    pub(super) fn begin(
        &mut self,
        name: Name,
        committed_at: Option<u64>,
        header: &Header,
    ) -> Result<(), NormaliseError> {
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
        let origin = match &name {
            Name::MySql { server, .. } => Some(server.to_string().into()),
            Name::MariaDb(gtid) => Some(gtid.domain.to_string().into()),
            Name::Place => None,
        };
        self.assembler.begin(
            Transaction {
                id: id.as_str().into(),
                position: id.into(),
                sequence: self.sequence(header),
                committed_at,
                start: start.into(),
                end: None,
                origin,
                traceparent: None,
                is_ignored: false,
                file: Some(FilePlace {
                    name: Arc::clone(&self.file),
                    offset: self.offset(header),
                    server_id: header.server_id,
                }),
            },
            passed,
        );
        self.open = Some(Open {
            name,
            is_block: false,
            is_passed,
            xa: None,
            has_captured: false,
            is_half_alter: false,
            named: Vec::new(),
        });
        Ok(())
    }

    pub(super) fn prepare(
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

    pub(super) fn commit(&mut self, header: &Header, out: &mut VecDeque<Batch>) -> Result<(), NormaliseError> {
        self.statement_ended();
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
    pub(super) fn settle_between(&mut self) {
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
        self.end = Some((Position::between(self.reading.to_string()), sequence(&self.file, self.offset)));
        self.told_offset = self.offset;
    }

    /// An event stands in the file itself. What is made up for the session alone has no place there.
    pub(super) fn stands(&mut self, header: &Header) {
        if header.end > 0 {
            self.offset = self.offset(header);
        }
    }

    /// Between transactions the log is further than was told: by events that are none of a transaction.
    pub(super) fn moved(&mut self) {
        let is_between = self.open.is_none() && self.expanding.is_empty() && self.passed.is_none();
        if is_between && self.offset != self.told_offset && !self.file.is_empty() {
            self.ended();
        }
    }

    /// The place behind an event, by the name of its transaction.
    pub(super) fn place_of(&self, name: &Name, header: &Header) -> Place {
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
    pub(super) fn moved_to(&mut self, position: u64) {
        self.offset = position;
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
        sequence(&self.file, self.offset(header))
    }
}
