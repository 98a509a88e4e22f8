//! Statements: those that bound transactions, and those that do something to tables.

use std::collections::VecDeque;
use std::time::Instant;

use figvine_change::{Batch, Body};

use super::expand::Expanding;
use super::transaction::{Name, Open};
use super::{NormaliseError, Normaliser};
use crate::config::OnStatement;
use crate::decode::header::{HEADER_BYTES, Header, kind};
use crate::decode::query::{Query, Statement};
use crate::prepared::Spool;
use crate::statement::{Effect, Reshaped, TableName, effect, reshaped};

impl Normaliser {
    pub(super) fn query(
        &mut self,
        query: &Query<'_>,
        header: &Header,
        out: &mut VecDeque<Batch>,
    ) -> Result<(), NormaliseError> {
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
        self.annotated(query.statement);
        if let Reshaped::Tables { tables, .. } = reshaped(query.statement, &schema) {
            tables.iter().for_each(|table| self.tables.forget(table));
        }
        let effect = effect(query.statement, &schema);
        match if self.tables.folds_names { effect.folded() } else { effect } {
            Effect::Empties(tables) | Effect::Drops(tables) => self.emptied(&tables, out),
            Effect::Renames(pairs) => {
                for (from, to) in pairs {
                    self.tables.created(&to.schema, &to.name);
                    let is_captured = |t: &TableName| self.tables.is_captured(&t.schema, &t.name);
                    if is_captured(&from) || is_captured(&to) {
                        let (from, to) = (qualified(&from), qualified(&to));
                        tracing::info!(%from, %to, "a captured table has another name: rows go on under the new one");
                    }
                }
            }
            Effect::Partitions(table) => {
                if self.tables.is_captured(&table.schema, &table.name) {
                    self.untold.partitions += 1;
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
                        _ => {
                            self.untold.statements += 1;
                            tracing::warn!(%table, "a statement changed rows that the log does not tell");
                        }
                    }
                }
            }
            Effect::Runs => {
                let is_passed = self.open.as_ref().is_some_and(|open| open.is_passed);
                match self.on_statement {
                    OnStatement::Error if !is_passed => return Err(NormaliseError::Runs),
                    _ => {
                        self.untold.statements += 1;
                        tracing::warn!("a stored program changed rows that the log does not tell");
                    }
                }
            }
            Effect::Replaces(table) => {
                self.tables.created(&table.schema, &table.name);
                self.emptied(&[table], out);
            }
            Effect::Creates(table) => {
                self.tables.created(&table.schema, &table.name);
                self.tables.forget(&table);
            }
            Effect::Nothing => {}
        }
        Ok(())
    }

    /// A statement whose rows follow; `bytes` are its event. Of one in an XA transaction that is not committed yet, what its
    /// comments say is kept beside the rows, and nothing else.
    pub(super) fn rows_query(&mut self, statement: &[u8], bytes: &[u8]) -> Result<(), NormaliseError> {
        if !self.annotations.are_wanted() {
            return Ok(());
        }
        let Some(Open { xa: Some((_, spool)), .. }) = &mut self.open else {
            self.annotated(statement);
            return Ok(());
        };
        let said = self.annotations.said(statement);
        // What stands before the statement: the header, and MySQL's byte of its length, which tells nothing.
        let is_annotation = bytes.get(4) == Some(&kind::ANNOTATE_ROWS);
        let head = bytes.get(..HEADER_BYTES + usize::from(!is_annotation)).unwrap_or_default();
        if !said.is_empty() {
            let event = [head, &said].concat();
            spool.append(&event, event.len())?;
        }
        Ok(())
    }

    /// What a statement's comments say of it, and of its transaction. What was told of that stays as it was told: a restart
    /// behind it must find the same.
    pub(super) fn annotated(&mut self, statement: &[u8]) {
        if let Some(traceparent) = self.annotations.traceparent(statement) {
            self.assembler.trace(traceparent);
        }
        if !self.assembler.has_changes() && self.annotations.is_marked(statement) {
            self.assembler.ignore();
        }
    }

    fn emptied(&mut self, tables: &[TableName], out: &mut VecDeque<Batch>) {
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
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn qualified(table: &TableName) -> String {
    format!("{}.{}", table.schema, table.name)
}
