//! The tables of a session, by the ids that the log gives them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use figvine_change::{Column, Table};

use crate::catalogue::{ColumnFacts, Key, Server};
use crate::config::{Flavour, Keyless};
use crate::decode::reader::DecodeError;
use crate::decode::table_map::{ColumnMap, TableMap, TableMapEvent, column_type as t};
use crate::globs::Globs;
use crate::statement::TableName;
use crate::value::charset::BINARY;
use crate::value::{Charsets, Declared, ValueOptions, codec};

/// The collation `utf8mb4_general_ci`.
pub(crate) const UTF8MB4: u32 = 45;
/// Ids of tables that are kept in mind.
const MOST_IDS: usize = 4096;

/// A table of the log.
#[derive(Debug)]
pub(crate) struct Known {
    /// What the log said, to see whether it says the same again.
    bytes: Box<[u8]>,
    pub(crate) map: TableMap,
    /// Where its rows are changes.
    pub(crate) captured: Option<Arc<Table>>,
    /// Whether the receiver knows its shape.
    pub(crate) is_told: bool,
}

/// The tables of a session.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) globs: Globs,
    pub(crate) keyless: Keyless,
    pub(crate) flavour: Flavour,
    pub(crate) options: ValueOptions,
    pub(crate) charsets: Charsets,
    by_id: HashMap<u64, Known>,
    /// The last shape of each captured table.
    shapes: HashMap<(Box<str>, Box<str>), Arc<Table>>,
    /// What the catalogue says; of a table that it does not have, nothing.
    facts: HashMap<(Box<str>, Box<str>), Facts>,
    /// Whether the catalogue was asked because of a log without names.
    is_scouted: bool,
    /// Unique keys of tables without a primary one, from the catalogue.
    keys: HashMap<(Box<str>, Box<str>), Vec<String>>,
    /// Whether the server knows tables by names in small letters, however a statement writes them.
    pub(crate) folds_names: bool,
    /// Whether what foreign keys change stands in the log as rows.
    pub(crate) logs_cascades: bool,
    /// Tables of which it was said that a foreign key may have changed them.
    cascaded: HashSet<(Box<str>, Box<str>)>,
    /// Names of tables that are captured, as far as known: for statements.
    names: HashSet<(String, String)>,
}

/// A table of which the catalogue must be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) schema: Box<str>,
    pub(crate) name: Box<str>,
    /// The log does not tell its columns: what the catalogue says must be true of where the log is read.
    pub(crate) is_nameless: bool,
}

/// What the catalogue says of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) columns: Vec<ColumnFacts>,
    pub(crate) key: Option<Key>,
    /// The place of a statement, ahead of where the log is read, that gave it columns or keys: they are not those of the log.
    pub(crate) changed_at: Option<String>,
    /// Whether such a statement was looked for.
    pub(crate) is_scouted: bool,
}

/// A table that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TableError {
    /// The log.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The log has no names, and the catalogue's table is another.
    #[error("the log does not tell the columns of {schema}.{name}, and the table has other columns by now{}", changed(.changed_at.as_deref()))]
    Outdated {
        /// The database.
        schema: Box<str>,
        /// The table.
        name: Box<str>,
        /// The place of the statement that gave it those, where it is known.
        changed_at: Option<String>,
    },
}

fn changed(at: Option<&str>) -> String {
    at.map_or_else(String::new, |at| format!(", by the statement before {at}"))
}

impl Tables {
    pub(crate) fn new(
        globs: Globs,
        keyless: Keyless,
        server: &Server,
        options: ValueOptions,
        charsets: Charsets,
        keys: HashMap<(Box<str>, Box<str>), Vec<String>>,
        names: HashSet<(String, String)>,
    ) -> Self {
        Self {
            globs,
            keyless,
            flavour: server.flavour,
            folds_names: server.setting("lower_case_table_names") == Some("1"),
            logs_cascades: server.logs_cascades(),
            cascaded: HashSet::new(),
            options,
            charsets,
            by_id: HashMap::new(),
            shapes: HashMap::new(),
            facts: HashMap::new(),
            is_scouted: false,
            keys,
            names,
        }
    }

    /// A table by its id.
    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Known> {
        self.by_id.get_mut(&id)
    }

    /// Whether a name is that of a captured table.
    pub(crate) fn is_captured(&self, schema: &str, name: &str) -> bool {
        self.globs.matches_table(schema, name)
    }

    /// Whether a name is that of a captured table that exists, or has been seen.
    pub(crate) fn is_known(&self, schema: &str, name: &str) -> bool {
        self.names.contains(&(schema.to_owned(), name.to_owned()))
    }

    /// Whether it is the first time that a foreign key may have changed the table.
    pub(crate) fn is_first_cascade(&mut self, table: &Table) -> bool {
        self.cascaded.insert((table.schema.clone(), table.name.clone()))
    }

    /// A captured table is there, or may be.
    pub(crate) fn created(&mut self, schema: &str, name: &str) {
        if self.is_captured(schema, name) {
            self.names.insert((schema.to_owned(), name.to_owned()));
        }
    }

    /// Between transactions, of which each tells its tables anew: forgets the ids where they are many. A server that
    /// closes and opens tables gives them new ones.
    pub(crate) fn tidy(&mut self) {
        if self.by_id.len() > MOST_IDS {
            self.by_id.clear();
        }
    }

    /// The shape that a table had last; without columns when its rows were never seen.
    pub(crate) fn shape(&self, schema: &str, name: &str) -> Arc<Table> {
        let found = self.shapes.get(&(schema.into(), name.into()));
        found.cloned().unwrap_or_else(|| {
            Arc::new(Table { schema: schema.into(), name: name.into(), columns: Vec::new(), key: Vec::new() })
        })
    }

    /// What the catalogue must be asked before [`Tables::learn`].
    pub(crate) fn wants(&self, event: &TableMapEvent<'_>) -> Option<Wanted> {
        if self.is_same(event) || !self.globs.matches_table(event.schema, event.name) {
            return None;
        }
        let key = (event.schema.into(), event.name.into());
        let is_nameless = event.parse().is_ok_and(|map| !map.has_names);
        // MariaDB's log does not tell JSON, UUID and the like; no log tells display widths.
        let is_needed = is_nameless || self.flavour == Flavour::MariaDb || self.options.tinyint1_as_boolean;
        let is_known = self.facts.get(&key).is_some_and(|facts| facts.is_scouted || !is_nameless);
        (is_needed && !is_known).then_some(Wanted { schema: key.0, name: key.1, is_nameless })
    }

    /// Takes in what the catalogue answered.
    pub(crate) fn answer(&mut self, wanted: &Wanted, facts: Facts) {
        self.is_scouted |= facts.is_scouted;
        self.facts.insert((wanted.schema.clone(), wanted.name.clone()), facts);
    }

    /// Whether the catalogue was asked because of a log without names.
    pub(crate) fn is_scouted(&self) -> bool {
        self.is_scouted
    }

    /// What was known of a table does not hold behind a statement that changes it. Names are compared as loosely as a
    /// scout does it.
    pub(crate) fn forget(&mut self, table: &TableName) {
        let is_same = |name: &str, of: &str| {
            of.is_empty() || name.eq_ignore_ascii_case(of) || !(name.is_ascii() || of.is_ascii())
        };
        let is_meant = |schema: &str, name: &str| is_same(schema, &table.schema) && is_same(name, &table.name);
        self.facts.retain(|(schema, name), _| !is_meant(schema, name));
        // A server that was restarted counts its ids anew: the same id with the same types is not the same table.
        let is_meant = |known: &Known| known.captured.as_ref().is_some_and(|of| is_meant(&of.schema, &of.name));
        self.by_id.retain(|_, known| !is_meant(known));
    }

    fn is_same(&self, event: &TableMapEvent<'_>) -> bool {
        self.by_id.get(&event.table_id).is_some_and(|known| *known.bytes == *event.bytes())
    }

    /// Takes in a table map.
    pub(crate) fn learn(&mut self, event: &TableMapEvent<'_>) -> Result<(), TableError> {
        if self.is_same(event) {
            return Ok(());
        }
        let mut map = event.parse()?;
        let key: (Box<str>, Box<str>) = (event.schema.into(), event.name.into());
        let mut captured = None;
        let mut is_told = false;
        if self.globs.matches_table(event.schema, event.name) {
            let table = self.table(&key, &mut map)?;
            // The same again under another id, or with another detail of no consequence.
            captured = Some(match self.shapes.get(&key) {
                Some(shape) if shape.has_shape_of(&table) => {
                    is_told = true;
                    // Codecs may differ where shapes do not: a label was added.
                    // Debezium's depend on whether a column may be null.
                    if map_is_plain(&map) && self.options.debezium.is_none() {
                        Arc::clone(shape)
                    } else {
                        Arc::new(table)
                    }
                }
                _ => Arc::new(table),
            });
            self.names.insert((event.schema.to_owned(), event.name.to_owned()));
            if let Some(table) = &captured {
                self.shapes.insert(key, Arc::clone(table));
            }
        }
        self.by_id.insert(event.table_id, Known { bytes: event.bytes().into(), map, captured, is_told });
        Ok(())
    }

    fn table(&self, key: &(Box<str>, Box<str>), map: &mut TableMap) -> Result<Table, TableError> {
        let known = self.facts.get(key);
        let facts = known.map(|facts| facts.columns.as_slice()).unwrap_or_default();
        if !map.has_names {
            let changed_at = known.and_then(|facts| facts.changed_at.clone());
            let fits = |(column, fact): (&ColumnMap, &ColumnFacts)| may_be(column, &fact.column_type);
            if changed_at.is_some() || facts.len() != map.columns.len() || !map.columns.iter().zip(facts).all(fits) {
                return Err(TableError::Outdated { schema: key.0.clone(), name: key.1.clone(), changed_at });
            }
            for (column, fact) in map.columns.iter_mut().zip(facts) {
                column.name = Some(fact.name.as_str().into());
                if !map.has_signs {
                    column.unsigned = fact.column_type.contains("unsigned");
                }
                if matches!(column.type_code, t::ENUM | t::SET) {
                    // The catalogue speaks UTF-8.
                    column.labels = labels(&fact.column_type);
                    column.collation = Some(UTF8MB4);
                } else if column.collation.is_none() && column.is_text() {
                    column.collation = match &fact.collation {
                        // A collation's name begins with that of its character set.
                        Some(collation) => self.charsets.collation_of(collation.split('_').next().unwrap_or_default()),
                        None => Some(BINARY),
                    };
                }
            }
        }
        let fact_of = |name: &str| facts.iter().find(|fact| fact.name == name);
        let columns = map.columns.iter().map(|column| {
            let name: Box<str> = column.name.clone().unwrap_or_default();
            let declared =
                fact_of(&name).map(|fact| Declared { column_type: fact.column_type.clone(), is_json: fact.is_json });
            let codec = codec(column, declared.as_ref(), &self.charsets, &self.options);
            let type_name = crate::value::type_name(column, declared.as_ref(), &self.charsets).into_boxed_str();
            Column { name, type_name, codec }
        });
        let columns: Vec<Column> = columns.collect();
        let mut key_columns = map.primary_key.clone();
        if key_columns.is_empty()
            && let Some(names) =
                known.and_then(|facts| Some(&facts.key.as_ref()?.columns)).or_else(|| self.keys.get(key))
        {
            let found: Vec<_> =
                names.iter().filter_map(|name| columns.iter().position(|column| *column.name == **name)).collect();
            if found.len() == names.len() {
                key_columns = found;
            }
        }
        key_columns.sort_unstable();
        if key_columns.is_empty() && self.keyless == Keyless::WholeRow {
            key_columns = (0..columns.len()).collect();
        }
        Ok(Table { schema: key.0.clone(), name: key.1.clone(), columns, key: key_columns })
    }
}

/// Whether a column of the log can be one that the catalogue says to be of this type.
fn may_be(column: &ColumnMap, declared: &str) -> bool {
    let word = declared.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    match word {
        "tinyint" => column.type_code == t::TINY,
        "smallint" => column.type_code == t::SHORT,
        "mediumint" => column.type_code == t::INT24,
        "int" => column.type_code == t::LONG,
        "bigint" => column.type_code == t::LONGLONG,
        "float" => column.type_code == t::FLOAT,
        "double" => column.type_code == t::DOUBLE,
        "decimal" => column.type_code == t::NEWDECIMAL || column.type_code == t::DECIMAL,
        "date" => matches!(column.type_code, t::DATE | t::NEWDATE),
        "time" => matches!(column.type_code, t::TIME | t::TIME2),
        "datetime" => matches!(column.type_code, t::DATETIME | t::DATETIME2),
        "timestamp" => matches!(column.type_code, t::TIMESTAMP | t::TIMESTAMP2),
        "year" => column.type_code == t::YEAR,
        "bit" => column.type_code == t::BIT,
        "enum" => column.type_code == t::ENUM,
        "set" => column.type_code == t::SET,
        "varchar" | "varbinary" => matches!(column.type_code, t::VARCHAR | t::VAR_STRING | t::VARCHAR_COMPRESSED),
        "char" | "binary" => column.type_code == t::STRING,
        // Texts, blobs, and what either server makes of them.
        _ => matches!(
            column.type_code,
            t::TINY_BLOB
                ..=t::BLOB | t::BLOB_COMPRESSED | t::JSON | t::GEOMETRY | t::VECTOR | t::STRING | t::TYPED_ARRAY
        ),
    }
}

/// The labels in `enum('a','b')`: in each, quotes stand doubled and control characters behind backslashes.
pub(crate) fn labels(column_type: &str) -> Vec<Box<[u8]>> {
    let mut labels = Vec::new();
    let mut characters = column_type.chars().peekable();
    while let Some(character) = characters.next() {
        if character != '\'' {
            continue;
        }
        let mut label = String::new();
        while let Some(character) = characters.next() {
            match character {
                '\'' if characters.next_if_eq(&'\'').is_some() => label.push('\''),
                '\'' => break,
                '\\' => label.push(match characters.next() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('0') => '\0',
                    Some(other) => other,
                    None => break,
                }),
                other => label.push(other),
            }
        }
        labels.push(label.into_bytes().into_boxed_slice());
    }
    labels
}

/// Whether values need nothing of the table map beyond the types' names.
fn map_is_plain(map: &TableMap) -> bool {
    map.columns.iter().all(|column| column.labels.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_as_the_catalogue_writes_them() {
        let read = |text: &str| -> Vec<String> {
            labels(text).iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect()
        };
        assert_eq!(read(r"enum('a','b,''c','','ä\\n')"), ["a", "b,'c", "", r"ä\n"]);
        assert_eq!(read(r"set('x\ny')"), ["x\ny"]);
        assert!(read("enum(").is_empty());
    }

    #[test]
    fn columns_of_other_types_are_seen() {
        let column = |type_code| ColumnMap { type_code, ..ColumnMap::default() };
        assert!(may_be(&column(t::TINY), "tinyint(3) unsigned"));
        assert!(may_be(&column(t::STRING), "uuid"));
        assert!(may_be(&column(t::BLOB), "longtext"));
        assert!(!may_be(&column(t::TINY), "int"));
        assert!(!may_be(&column(t::LONG), "varchar(10)"));
    }
}
