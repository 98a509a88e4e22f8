//! Recorded chunks through decoder and normaliser, without a server: the way in
//! for tests, benches and fuzzing. No part of the connector's interface.

use bytes::Bytes;
use figvine_change::{Batch, Position};

use crate::config::{Keyless, ValueOptions};
use crate::decode::reader::DecodeError;
use crate::globs::{GlobError, Globs};
use crate::lsn::LogId;
use crate::messages::Prefixes;
use crate::normalise::{Normaliser, Progress};
use crate::tables::{Facts, Tables, Wanted};
use crate::value::{TypeRow, Types};

/// A session over recorded chunks. In place of the catalogue it answers by rule:
/// a type that is not built in is text, a table's primary key is its column `id`.
#[derive(Debug)]
pub struct Replay {
    normaliser: Normaliser,
    facts: Facts,
}

impl Replay {
    /// A session that starts at `from`, over the tables and messages that the globs name. A table without a key
    /// has its whole row for one. Messages of the prefix `traceparent` name traces, those of `ignored` mark transactions. A `from` that is no position of this connector means the log's beginning.
    ///
    /// # Errors
    /// When one is no glob.
    pub fn new(tables: &[String], messages: &[String], from: &Position) -> Result<Self, GlobError> {
        let (log, lsn) = LogId::parse(from).unwrap_or((LogId { system: 0, timeline: 0 }, crate::lsn::Lsn(0)));
        let tables = Tables::new(Globs::of_tables(tables)?, Keyless::WholeRow);
        let prefixes = Prefixes::new(messages, Some("traceparent"), &["ignored".to_owned()])?;
        Ok(Self {
            normaliser: Normaliser::new(log, tables, prefixes, lsn, from.within, false),
            facts: Facts {
                types: Types::new(&ValueOptions::default()),
                type_names: Default::default(),
                primary_keys: Default::default(),
            },
        })
    }

    /// Reads a chunk of whole CopyData frames, with tag and length, and pushes what it gives to `out`.
    ///
    /// # Errors
    /// When the bytes are not what a walsender sends. The session is of no use then.
    pub fn read(&mut self, chunk: &Bytes, out: &mut impl Extend<Batch>) -> Result<(), DecodeError> {
        let mut at = 0;
        while let Progress::Wants(wanted) = self.normaliser.read(chunk, &mut at, &mut self.facts, out)? {
            self.answer(&wanted);
        }
        Ok(())
    }

    fn answer(&mut self, wanted: &Wanted) {
        let text = |oid: &u32| TypeRow {
            oid: *oid,
            schema: String::new(),
            name: format!("type {oid}"),
            kind: 'b',
            category: 'U',
            element: 0,
            delimiter: b',',
            base: 0,
            base_modifier: -1,
            attributes: Vec::new(),
        };
        self.facts.types.add(wanted.types.iter().map(text).collect());
        for &(oid, modifier) in &wanted.type_names {
            self.facts.type_names.insert((oid, modifier), format!("type {oid} ({modifier})").into());
        }
        if let Some(table) = wanted.primary_key {
            self.facts.primary_keys.insert(table, vec!["id".to_owned()]);
        }
    }
}
