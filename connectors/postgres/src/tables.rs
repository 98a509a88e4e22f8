//! The shapes of tables: what RELATION messages tell, and what only the catalogue knows.

use std::collections::HashMap;
use std::sync::Arc;

use figvine_change::{Column, Table};

use crate::config::Keyless;
use crate::decode::Relation;
use crate::globs::Globs;
use crate::value::Types;

/// What the catalogue told, kept for the next RELATION.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Types and their codecs.
    pub(crate) types: Types,
    /// Types with their modifiers as the database writes them: `numeric(12,2)`.
    pub(crate) type_names: HashMap<(u32, i32), Box<str>>,
    /// Primary keys, by table id. Good for one RELATION: the next may tell of another key.
    pub(crate) primary_keys: HashMap<u32, Vec<String>>,
}

/// What the catalogue must be asked before a RELATION can be understood.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Types whose rows of `pg_type` are missing.
    pub(crate) types: Vec<u32>,
    /// Types with modifiers whose text is missing.
    pub(crate) type_names: Vec<(u32, i32)>,
    /// The table whose primary key is missing.
    pub(crate) primary_key: Option<u32>,
}

impl Wanted {
    fn is_nothing(&self) -> bool {
        self.types.is_empty() && self.type_names.is_empty() && self.primary_key.is_none()
    }
}

/// The tables of a session, by the ids that the log uses.
#[derive(Debug)]
pub(crate) struct Tables {
    globs: Globs,
    keyless: Keyless,
    known: HashMap<u32, Known>,
    composed: HashMap<u32, Composed>,
}

/// A table with columns of composite types. A change of such a type's attributes sends no RELATION: the
/// catalogue is asked for them again in each chunk that holds rows of the table.
#[derive(Debug)]
struct Composed {
    /// The composite types.
    types: Vec<u32>,
    /// The types of the columns.
    columns: Vec<u32>,
    /// The chunk in which they were asked for last.
    asked_in: Option<u64>,
    is_refreshed: bool,
}

/// One table of a session.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// Rows of it are not wanted.
    Passed,
    /// Rows of it are changes.
    Captured(Arc<Table>),
}

impl Tables {
    pub(crate) fn new(globs: Globs, keyless: Keyless) -> Self {
        Self { globs, keyless, known: HashMap::new(), composed: HashMap::new() }
    }

    /// A table by its id.
    #[inline]
    pub(crate) fn get(&self, oid: u32) -> Option<&Known> {
        self.known.get(&oid)
    }

    /// What must be known before [`Tables::learn`]; `None` for nothing.
    pub(crate) fn wants(&self, relation: &Relation<'_>, facts: &Facts) -> Option<Wanted> {
        if !self.globs.matches_table(schema_of(relation), relation.name) {
            return None;
        }
        let mut wanted = Wanted::default();
        for column in &relation.columns {
            for oid in facts.types.missing(column.type_oid) {
                if !wanted.types.contains(&oid) {
                    wanted.types.push(oid);
                }
            }
            let named = (column.type_oid, column.modifier);
            if !facts.type_names.contains_key(&named) && !wanted.type_names.contains(&named) {
                wanted.type_names.push(named);
            }
        }
        if needs_primary_key(relation) && !facts.primary_keys.contains_key(&relation.oid) {
            wanted.primary_key = Some(relation.oid);
        }
        (!wanted.is_nothing()).then_some(wanted)
    }

    /// What must be asked before a row of the table can be understood, in the chunk of this number; `None` for nothing.
    #[inline]
    pub(crate) fn doubts(&mut self, oid: u32, chunk: u64, facts: &Facts) -> Option<Wanted> {
        if self.composed.is_empty() {
            return None;
        }
        let composed = self.composed.get_mut(&oid)?;
        if composed.asked_in != Some(chunk) {
            composed.asked_in = Some(chunk);
            composed.is_refreshed = false;
            return Some(Wanted { types: composed.types.clone(), ..Wanted::default() });
        }
        if !composed.is_refreshed {
            composed.is_refreshed = true;
            self.refresh(oid, facts);
        }
        None
    }

    /// Gives the columns of a table the codecs that their types have by now.
    fn refresh(&mut self, oid: u32, facts: &Facts) {
        let Some(composed) = self.composed.get_mut(&oid) else { return };
        let types = composites(&composed.columns, facts);
        let Some(Known::Captured(table)) = self.known.get_mut(&oid) else { return };
        let mut renewed = Table::clone(table);
        for (column, oid) in renewed.columns.iter_mut().zip(&composed.columns) {
            column.codec = facts.types.column_codec(*oid, -1);
        }
        composed.types = types;
        *table = Arc::new(renewed);
    }

    /// Takes in a RELATION. Returns the table when its rows are captured and its
    /// shape is news to this session.
    pub(crate) fn learn(&mut self, relation: &Relation<'_>, facts: &mut Facts) -> Option<Arc<Table>> {
        let schema = schema_of(relation);
        if !self.globs.matches_table(schema, relation.name) {
            self.known.insert(relation.oid, Known::Passed);
            self.composed.remove(&relation.oid);
            return None;
        }
        let columns = relation.columns.iter().map(|column| Column {
            name: column.name.into(),
            type_name: facts
                .type_names
                .get(&(column.type_oid, column.modifier))
                .cloned()
                .unwrap_or_else(|| "text".into()),
            codec: facts.types.column_codec(column.type_oid, column.modifier),
        });
        let mut table =
            Table { schema: schema.into(), name: relation.name.into(), columns: columns.collect(), key: Vec::new() };
        table.key = self.key(relation, facts);
        let columns: Vec<u32> = relation.columns.iter().map(|column| column.type_oid).collect();
        let types = composites(&columns, facts);
        if types.is_empty() {
            self.composed.remove(&relation.oid);
        } else {
            self.composed.insert(relation.oid, Composed { types, columns, asked_in: None, is_refreshed: false });
        }
        let table = Arc::new(table);
        let known = self.known.insert(relation.oid, Known::Captured(Arc::clone(&table)));
        let is_news = match known {
            Some(Known::Captured(before)) => {
                before.schema != table.schema || before.name != table.name || !before.has_shape_of(&table)
            }
            Some(Known::Passed) | None => true,
        };
        is_news.then_some(table)
    }

    /// Indices of the key's columns: the replica identity's, or, where that is
    /// the whole row or nothing, the primary key's.
    fn key(&self, relation: &Relation<'_>, facts: &mut Facts) -> Vec<usize> {
        let indices = |wanted: &dyn Fn(&str, bool) -> bool| -> Vec<usize> {
            let columns = relation.columns.iter().enumerate();
            columns.filter(|(_, column)| wanted(column.name, column.identity)).map(|(index, _)| index).collect()
        };
        let key = if needs_primary_key(relation) {
            let names = facts.primary_keys.remove(&relation.oid).unwrap_or_default();
            let key = indices(&|name, _| names.iter().any(|n| n == name));
            // A key of which the publication's column list hides a part is none.
            if key.len() == names.len() { key } else { Vec::new() }
        } else {
            indices(&|_, identity| identity)
        };
        if key.is_empty() && self.keyless == Keyless::WholeRow { indices(&|_, _| true) } else { key }
    }
}

/// The composite types that columns of these types are made of.
fn composites(columns: &[u32], facts: &Facts) -> Vec<u32> {
    let mut types: Vec<u32> = columns.iter().flat_map(|oid| facts.types.composites(*oid)).collect();
    types.sort_unstable();
    types.dedup();
    types
}

/// An empty schema is `pg_catalog`'s.
fn schema_of<'a>(relation: &Relation<'a>) -> &'a str {
    if relation.schema.is_empty() { "pg_catalog" } else { relation.schema }
}

fn needs_primary_key(relation: &Relation<'_>) -> bool {
    matches!(relation.identity, b'f' | b'n')
}
