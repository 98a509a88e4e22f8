//! Whether the table as it is now is the one of the log, where the log does not tell columns.
//!
//! ```text
//!   log:   ── P ───── statements? ───── E
//!              │                         └ where the log ends once the catalogue has answered
//!              └ the table map that is to be read
//! ```
//!
//! The catalogue knows the tables as they are now, behind `E`; the log may be read far before that. So what it says of a
//! table holds at `P` only if no statement between `P` and `E` gives the table other columns or keys, and from there on
//! up to the next such statement that is read. The scout asks the catalogue, then looks through the log from `P` to its
//! end, over a connection that the server takes for `mysqlbinlog`: with server id 0, which disturbs no other and
//! ends where the log does.

use std::collections::HashMap;

use figvine_change::SourceError;
use tokio::task::JoinSet;

use crate::catalogue::{Catalogue, ColumnFacts, Server};
use crate::decode::gtid::AlterPhase;
use crate::decode::header::kind;
use crate::decode::reader::DecodeError;
use crate::decode::{Decoder, Event, EventError};
use crate::error::{Told, failure};
use crate::globs::Globs;
use crate::position::Place;
use crate::session::{Chunk, Dump, Request, Session};
use crate::statement::{Reshaped, reshaped};
use crate::tables::{Facts, Wanted};
use crate::url::ConnectUrl;

/// Tables of which is remembered that a statement changes them; with more, every table counts as changed.
const MOST_TABLES: usize = 10_000;

/// What a scout needs.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    pub(crate) url: ConnectUrl,
    pub(crate) program: String,
    pub(crate) server: Server,
    pub(crate) globs: Globs,
    /// Where the log is read: all that is read next stands behind it.
    pub(crate) place: Place,
    pub(crate) heartbeat: std::time::Duration,
    /// The table that made us ask.
    pub(crate) wanted: Wanted,
    /// Whether to ask for all captured tables, so that not each of them needs its own look at the log.
    pub(crate) is_first: bool,
}

/// A scout on its way.
#[derive(Debug)]
pub(crate) struct Scout {
    task: JoinSet<Result<Vec<(Wanted, Facts)>, SourceError>>,
}

impl Scout {
    pub(crate) fn send(errand: Errand) -> Self {
        let mut task = JoinSet::new();
        task.spawn(Box::pin(errand.run()));
        Self { task }
    }

    /// What it found. Cancel-safe.
    pub(crate) async fn report(&mut self) -> Result<Vec<(Wanted, Facts)>, SourceError> {
        match self.task.join_next().await {
            Some(Ok(found)) => found,
            Some(Err(panicked)) => {
                Err(failure(figvine_change::SourceErrorKind::Unreachable, "FV-1199", "a connection's task failed")
                    .because(panicked))
            }
            None => Ok(Vec::new()),
        }
    }
}

impl Errand {
    async fn run(self) -> Result<Vec<(Wanted, Facts)>, SourceError> {
        let flavour = self.server.flavour;
        let mut catalogue = Catalogue::connect(&self.url, &self.program).await?;
        let mut found = Vec::new();
        for table in catalogue.tables().await? {
            let is_wanted = *table.schema == *self.wanted.schema && *table.name == *self.wanted.name;
            let is_meant = || table.is_base() && self.globs.matches_table(&table.schema, &table.name);
            if !(is_wanted || self.is_first && is_meant()) {
                continue;
            }
            let columns: Vec<ColumnFacts> = catalogue.columns(flavour, &table.schema, &table.name).await?;
            let wanted = Wanted { schema: table.schema.into(), name: table.name.into(), ..self.wanted.clone() };
            found.push((wanted, Facts { columns, key: table.key, changed_at: None, is_scouted: true }));
        }
        if !found.iter().any(|(table, _)| *table == self.wanted) {
            // Gone by now: no columns, which fit no table map.
            found.push((self.wanted.clone(), Facts { is_scouted: true, ..Facts::default() }));
        }
        let changes = self.look().await?;
        for (table, facts) in &mut found {
            let has_primary = facts.key.as_ref().is_some_and(|key| key.is_primary);
            facts.changed_at = changes.of(&table.schema, &table.name, has_primary);
        }
        Ok(found)
    }

    /// Looks through the log up to its end.
    async fn look(&self) -> Result<Changes, SourceError> {
        let session = Box::pin(Session::open(&self.url, &self.program)).await?;
        let request = Request {
            from: self.place.clone(),
            server_id: Request::TO_THE_END,
            name: String::new(),
            heartbeat: self.heartbeat,
            wants_statements: false,
        };
        let mut dump = Box::pin(Dump::begin(session, &self.server, &request)).await?;
        let mut changes = Changes::default();
        while let Some(chunk) = dump.next().await? {
            changes.read(&chunk).map_err(|error| {
                failure(figvine_change::SourceErrorKind::Undecodable, "FV-1401", "the log cannot be decoded")
                    .because(error)
            })?;
        }
        Ok(changes)
    }
}

/// Statements that change tables.
#[derive(Debug, Default)]
struct Changes {
    decoder: Decoder,
    file: String,
    /// Begun so far. The first is the one that is being read: what changed a table in it did so before its rows.
    transactions: u64,
    /// MariaDB: the next statement only begins, or undoes, an ALTER.
    is_half_alter: bool,
    /// Lower-case names, and the place of a statement; a name is empty where it stands for all.
    tables: HashMap<(String, String), Change>,
}

#[derive(Debug)]
struct Change {
    place: String,
    /// Nothing but unique indexes was changed.
    is_unique_only: bool,
}

/// Names as they are compared: one in capitals may be the same, and those beyond ASCII may be in another character set.
fn folded(name: &str) -> String {
    if name.is_ascii() { name.to_ascii_lowercase() } else { "\u{fffd}".to_owned() }
}

impl Changes {
    /// Takes note of the statements in a chunk. DDL stands in no compressed transaction.
    fn read(&mut self, chunk: &Chunk) -> Result<(), EventError> {
        for range in &chunk.events {
            let bytes = chunk.data.get(range.start as usize..range.end as usize).unwrap_or_default();
            let is_of_use = matches!(
                bytes.get(4),
                Some(
                    &(kind::QUERY
                        | kind::QUERY_COMPRESSED
                        | kind::ROTATE
                        | kind::FORMAT_DESCRIPTION
                        | kind::GTID
                        | kind::GTID_TAGGED
                        | kind::ANONYMOUS_GTID
                        | kind::MARIADB_GTID)
                )
            );
            if !is_of_use {
                continue;
            }
            let (header, event) = self.decoder.event(bytes, range.start)?;
            match event {
                Event::Rotate { file, .. } => file.clone_into(&mut self.file),
                Event::Gtid(_) => self.transactions += 1,
                Event::MariadbGtid(gtid) => {
                    self.transactions += 1;
                    self.is_half_alter = matches!(gtid.alter, Some(AlterPhase::Start | AlterPhase::Rollback { .. }));
                }
                Event::Query(query) => self.statement(query.statement, query.schema, header.end),
                Event::Compressed(compressed) => {
                    let wrong =
                        |reason: DecodeError| EventError { type_code: header.type_code, at: header.start(), reason };
                    let mut buffer = Vec::new();
                    compressed.append_expanded(&mut buffer).map_err(wrong)?;
                    if let (_, Event::Query(query)) = self.decoder.inner(&buffer, 0)? {
                        let (statement, schema) = (query.statement.to_vec(), query.schema.to_vec());
                        self.statement(&statement, &schema, header.end);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn statement(&mut self, statement: &[u8], schema: &[u8], end: u32) {
        if self.transactions <= 1 || self.is_half_alter {
            return;
        }
        let Reshaped::Tables { tables, is_unique_only } = reshaped(statement, &String::from_utf8_lossy(schema)) else {
            return;
        };
        for table in tables {
            let everything = self.tables.len() >= MOST_TABLES;
            let name = if everything { Default::default() } else { (folded(&table.schema), folded(&table.name)) };
            let change = self
                .tables
                .entry(name)
                .or_insert_with(|| Change { place: format!("{}:{end}", self.file), is_unique_only });
            change.is_unique_only &= is_unique_only;
        }
    }

    /// Where a statement gives a table other columns, or another key where its key is no primary one.
    fn of(&self, schema: &str, name: &str, has_primary: bool) -> Option<String> {
        let (schema, name) = (folded(schema), folded(name));
        let names = [(schema.clone(), name), (schema, String::new()), Default::default()];
        let matters = |change: &&Change| !change.is_unique_only || !has_primary;
        let found = names.iter().filter_map(|name| self.tables.get(name)).find(matters);
        found.map(|change| change.place.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_found_by_every_name_that_may_be_meant() {
        let mut changes = Changes { transactions: 1, file: "b.1".into(), ..Changes::default() };
        changes.statement(b"ALTER TABLE before ADD x INT", b"shop", 4);
        changes.transactions = 2;
        for statement in [
            "ALTER TABLE Orders ADD x INT",
            "CREATE UNIQUE INDEX i ON keyed (x)",
            "DROP DATABASE crm",
            "ALTER TABLE \u{e4} DROP x",
            "ALTER TABLE commented COMMENT 'x'",
        ] {
            changes.statement(statement.as_bytes(), b"shop", 9);
        }
        for (schema, name, has_primary, is_changed) in [
            ("shop", "before", true, false),
            ("shop", "orders", true, true),
            ("crm", "orders", true, true),
            ("hr", "orders", true, false),
            ("shop", "keyed", true, false),
            ("shop", "keyed", false, true),
            // Which bytes a name beyond ASCII has is the client's choice.
            ("shop", "\u{f6}", true, true),
            ("shop", "commented", true, false),
        ] {
            let found = changes.of(schema, name, has_primary);
            assert_eq!(found.as_deref(), is_changed.then_some("b.1:9"), "{schema}.{name}");
        }
        changes.statement(b"ALTER TABLE /* whose? */", b"shop", 11);
        assert_eq!(changes.of("hr", "orders", true).as_deref(), Some("b.1:11"), "it may be every table's");
    }
}
