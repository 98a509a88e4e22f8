//! Tables, columns, keys, collations. The server shows those alone that the user has some privilege on.

use std::collections::{BTreeMap, HashMap};

use figvine_change::{NamedColumn, SourceError};

use super::{Catalogue, field, literal};
use crate::config::Flavour;
use crate::session::quoted;

/// Databases of the server's own.
const SYSTEM: &str = "('mysql', 'sys', 'information_schema', 'performance_schema')";
/// Unknown column: an older MariaDB.
const NO_SUCH_COLUMN: u16 = 1054;

/// Unique indexes by name: their columns, or `None` for one that is no key.
type Indexes = BTreeMap<String, Option<Vec<String>>>;

/// A table.
#[derive(Debug, Clone)]
pub(crate) struct TableFacts {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `BASE TABLE`, `VIEW`, `SYSTEM VERSIONED`, `SEQUENCE`.
    pub(crate) kind: String,
    /// `InnoDB`; empty for views.
    pub(crate) engine: String,
    pub(crate) is_partitioned: bool,
    pub(crate) key: Option<Key>,
}

/// What tells rows of a table apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// In the order of the key.
    pub(crate) columns: Vec<String>,
    /// Else it is a unique index over columns that are never null.
    pub(crate) is_primary: bool,
}

/// A column, as far as the log does not tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnFacts {
    pub(crate) name: String,
    /// As the server writes it, `enum('a','b')`, `uuid`.
    pub(crate) column_type: String,
    pub(crate) collation: Option<String>,
    pub(crate) is_nullable: bool,
    pub(crate) is_generated: bool,
    pub(crate) is_invisible: bool,
    /// MySQL's type; on MariaDB a text that is checked to be JSON.
    pub(crate) is_json: bool,
}

/// How large a table is, about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) schema: String,
    pub(crate) name: String,
    pub(crate) rows: u64,
    /// Bytes of the rows.
    pub(crate) bytes: u64,
}

/// How a table's rows are told apart, and gone through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The columns of the primary key, or of the unique index that is taken in its place.
    pub(crate) columns: Vec<String>,
    /// An index that orders all rows: none where the key is one over the beginnings of values.
    pub(crate) index: Option<Index>,
}

/// An index over whole columns that are never null.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) name: String,
    /// In its order, and whether each is in descending order.
    pub(crate) columns: Vec<(String, bool)>,
}

/// A foreign key whose table the server changes by itself.
#[derive(Debug, Clone)]
pub(crate) struct ForeignKey {
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) parent_schema: String,
    pub(crate) parent: String,
    pub(crate) on_delete: String,
    pub(crate) on_update: String,
}

impl TableFacts {
    pub(crate) fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// As SQL wants it.
    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }

    /// Whether it has rows in the log.
    pub(crate) fn is_base(&self) -> bool {
        matches!(self.kind.as_str(), "BASE TABLE" | "SYSTEM VERSIONED")
    }
}

impl Catalogue {
    /// All tables and views but the server's own.
    pub(crate) async fn tables(&mut self) -> Result<Vec<TableFacts>, SourceError> {
        let what = "reading the tables";
        let sql = format!(
            "SELECT table_schema, table_name, table_type, engine, create_options FROM information_schema.tables
             WHERE table_schema NOT IN {SYSTEM} ORDER BY table_schema, table_name"
        );
        let tables = self.ask(&sql, what).await?;
        let sql = format!(
            "SELECT table_schema, table_name, index_name, column_name, nullable, sub_part
             FROM information_schema.statistics WHERE non_unique = 0 AND table_schema NOT IN {SYSTEM}
             ORDER BY table_schema, table_name, index_name, seq_in_index"
        );
        let mut indexes: BTreeMap<(String, String), Indexes> = BTreeMap::new();
        for row in self.ask(&sql, what).await? {
            let table = indexes.entry((field(&row, 0).to_owned(), field(&row, 1).to_owned())).or_default();
            let columns = table.entry(field(&row, 2).to_owned()).or_insert_with(|| Some(Vec::new()));
            // Expressions, prefixes and columns that may be null are no key.
            let is_plain = !field(&row, 3).is_empty() && field(&row, 4) != "YES" && field(&row, 5).is_empty();
            match columns {
                Some(names) if is_plain => names.push(field(&row, 3).to_owned()),
                columns => *columns = None,
            }
        }
        let key = |schema: &str, table: &str| {
            let all = indexes.get(&(schema.to_owned(), table.to_owned()))?;
            let of = |name: &str| all.get(name).cloned().flatten();
            let primary = of("PRIMARY").map(|columns| Key { columns, is_primary: true });
            let unique =
                || all.values().flatten().next().map(|columns| Key { columns: columns.clone(), is_primary: false });
            primary.or_else(unique)
        };
        let facts = tables.iter().map(|row| TableFacts {
            schema: field(row, 0).to_owned(),
            name: field(row, 1).to_owned(),
            kind: field(row, 2).to_owned(),
            engine: field(row, 3).to_owned(),
            is_partitioned: field(row, 4).contains("partitioned"),
            key: key(field(row, 0), field(row, 1)),
        });
        Ok(facts.collect())
    }

    /// The columns of a table, in its order; none where there is no such table.
    pub(crate) async fn columns(
        &mut self,
        flavour: Flavour,
        schema: &str,
        table: &str,
    ) -> Result<Vec<ColumnFacts>, SourceError> {
        let what = format!("reading the columns of {schema}.{table}");
        let mut json = Vec::new();
        if flavour == Flavour::MariaDb {
            let sql = format!(
                "SELECT check_clause FROM information_schema.check_constraints
                 WHERE constraint_schema = {} AND table_name = {}",
                literal(schema),
                literal(table)
            );
            let rows = self.ask(&sql, &what).await?;
            json.extend(rows.iter().filter_map(|row| json_checked(field(row, 0))));
        }
        let sql = format!(
            "SELECT column_name, column_type, collation_name, is_nullable, extra FROM information_schema.columns
             WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
            literal(schema),
            literal(table)
        );
        let rows = self.ask(&sql, &what).await?;
        let facts = rows.iter().map(|row| {
            let name = field(row, 0).to_owned();
            let column_type = field(row, 1).to_owned();
            let extra = field(row, 4).to_ascii_uppercase();
            ColumnFacts {
                is_json: column_type == "json" || json.contains(&name),
                name,
                column_type,
                collation: row.get(2).cloned().flatten(),
                is_nullable: field(row, 3) == "YES",
                // DEFAULT_GENERATED is a default that is an expression.
                is_generated: ["VIRTUAL GENERATED", "STORED GENERATED", "PERSISTENT"].iter().any(|g| extra.contains(g)),
                is_invisible: extra.contains("INVISIBLE"),
            }
        });
        Ok(facts.collect())
    }

    /// The columns of all tables outside the system's databases, keys not marked.
    pub(crate) async fn column_names(&mut self) -> Result<Vec<NamedColumn>, SourceError> {
        let sql = format!(
            "SELECT table_schema, table_name, column_name FROM information_schema.columns
             WHERE table_schema NOT IN {SYSTEM} ORDER BY table_schema, table_name, ordinal_position"
        );
        let rows = self.ask(&sql, "reading the columns").await?;
        let text = |row, at| field(row, at).into();
        let column = |row| NamedColumn { schema: text(row, 0), table: text(row, 1), name: text(row, 2), is_key: false };
        Ok(rows.iter().map(column).collect())
    }

    /// The keys of one table. Of several unique indexes that one counts which stands first in `definition`, and of those that
    /// do not stand there the first by name.
    pub(crate) async fn keys(&mut self, schema: &str, table: &str, definition: &str) -> Result<Keys, SourceError> {
        let what = format!("reading the keys of {schema}.{table}");
        let sql = format!(
            "SELECT index_name, column_name, nullable, sub_part, collation FROM information_schema.statistics
             WHERE non_unique = 0 AND table_schema = {} AND table_name = {} ORDER BY index_name, seq_in_index",
            literal(schema),
            literal(table)
        );
        let mut primary = Vec::new();
        let mut indexes: BTreeMap<String, Option<Vec<(String, bool)>>> = BTreeMap::new();
        for row in self.ask(&sql, &what).await? {
            let column = field(&row, 1).to_owned();
            let columns = indexes.entry(field(&row, 0).to_owned()).or_insert_with(|| Some(Vec::new()));
            let is_plain = !column.is_empty() && field(&row, 2) != "YES" && field(&row, 3).is_empty();
            if field(&row, 0) == "PRIMARY" {
                primary.push(column.clone());
            }
            match columns {
                Some(columns) if is_plain => columns.push((column, field(&row, 4) == "D")),
                columns => *columns = None,
            }
        }
        let index = |name: &String| Some(Index { name: name.clone(), columns: indexes.get(name)?.clone()? });
        let mut names: Vec<_> = indexes.keys().collect();
        let place = |name: &str| definition.find(&format!("\n  UNIQUE KEY {} (", quoted(name))).unwrap_or(usize::MAX);
        names.sort_by_key(|name| place(name));
        let index = index(&"PRIMARY".to_owned()).or_else(|| names.into_iter().find_map(index));
        let columns = match &index {
            Some(index) if primary.is_empty() => index.columns.iter().map(|(name, _)| name.clone()).collect(),
            _ => primary,
        };
        Ok(Keys { columns, index })
    }

    /// Rows and bytes of tables, as the server estimates them.
    pub(crate) async fn sizes(&mut self, flavour: Flavour) -> Result<Vec<Size>, SourceError> {
        let what = "reading the sizes of the tables";
        if flavour == Flavour::MySql {
            // Else what was kept a day ago.
            self.ask("SET SESSION information_schema_stats_expiry = 0", what).await?;
        }
        let sql = format!(
            "SELECT table_schema, table_name, table_rows, data_length FROM information_schema.tables
             WHERE table_schema NOT IN {SYSTEM}"
        );
        let rows = self.ask(&sql, what).await?;
        let text = |row, at| field(row, at).to_owned();
        let number = |row, at| field(row, at).parse().unwrap_or(0);
        let size = |row| Size { schema: text(row, 0), name: text(row, 1), rows: number(row, 2), bytes: number(row, 3) };
        Ok(rows.iter().map(size).collect())
    }

    /// Names of character sets by the numbers of their collations.
    pub(crate) async fn collations(&mut self, flavour: Flavour) -> Result<HashMap<u32, String>, SourceError> {
        let what = "reading the collations";
        let plain = "SELECT id, character_set_name FROM information_schema.collations WHERE id IS NOT NULL";
        // MariaDB from 10.10 on has collations for several character sets: each pair has its number, here alone.
        let pairs = "SELECT id, character_set_name FROM information_schema.collation_character_set_applicability
                     WHERE id IS NOT NULL";
        let rows = match flavour {
            Flavour::MySql => self.ask(plain, what).await?,
            Flavour::MariaDb => match self.ask(pairs, what).await {
                Err(error) if server_code(&error) == Some(NO_SUCH_COLUMN) => self.ask(plain, what).await?,
                answer => answer?,
            },
        };
        Ok(rows.iter().filter_map(|row| Some((field(row, 0).parse().ok()?, field(row, 1).to_owned()))).collect())
    }

    /// Foreign keys by which the server deletes or changes rows of these tables.
    pub(crate) async fn cascades(
        &mut self,
        flavour: Flavour,
        tables: &[&TableFacts],
    ) -> Result<Vec<ForeignKey>, SourceError> {
        let what = "reading the foreign keys";
        let mut keys = Vec::new();
        if flavour == Flavour::MariaDb {
            // It shows information_schema.referential_constraints to those alone who may write to the table; the
            // table's definition to whoever may read it. What may not be read either is told as a privilege.
            for table in tables {
                let rows = self.ask(&format!("SHOW CREATE TABLE {}", table.quoted()), what).await;
                match rows {
                    Ok(rows) => keys.extend(rows.iter().flat_map(|row| cascading(table, field(row, 1)))),
                    Err(error) if error.code == "FV-1201" => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(keys);
        }
        let sql = format!(
            "SELECT constraint_schema, table_name, constraint_name, unique_constraint_schema, referenced_table_name,
                    delete_rule, update_rule
             FROM information_schema.referential_constraints
             WHERE constraint_schema NOT IN {SYSTEM}
               AND (delete_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT')
                    OR update_rule IN ('CASCADE', 'SET NULL', 'SET DEFAULT'))
             ORDER BY 1, 2, 3"
        );
        let rows = self.ask(&sql, what).await?;
        let text = |row, at| field(row, at).to_owned();
        keys.extend(rows.iter().map(|row| ForeignKey {
            schema: text(row, 0),
            table: text(row, 1),
            name: text(row, 2),
            parent_schema: text(row, 3),
            parent: text(row, 4),
            on_delete: text(row, 5),
            on_update: text(row, 6),
        }));
        keys.retain(|key| tables.iter().any(|table| table.schema == key.schema && table.name == key.table));
        Ok(keys)
    }
}

/// The foreign keys of a CREATE TABLE, one a line, by which the server deletes or changes rows of the table:
/// ``CONSTRAINT `name` FOREIGN KEY (`a`) REFERENCES `other`.`parent` (`b`) ON DELETE CASCADE ON UPDATE SET NULL``.
fn cascading(table: &TableFacts, definition: &str) -> Vec<ForeignKey> {
    let key = |line: &str| {
        let mut rest = line.trim().trim_end_matches(',').strip_prefix("CONSTRAINT ")?;
        let name = name(&mut rest)?;
        let (_, mut rest) = rest.strip_prefix(" FOREIGN KEY ")?.split_once(" REFERENCES ")?;
        let first = self::name(&mut rest)?;
        let (parent_schema, parent) = match rest.strip_prefix('.') {
            Some(behind) => {
                rest = behind;
                (first, self::name(&mut rest)?)
            }
            None => (table.schema.clone(), first),
        };
        // Names of columns could hold anything; the rules stand behind them.
        let rules = rest.rsplit_once(')').map_or("", |(_, rules)| rules);
        let rule = |on: &str| {
            let (_, rule) = rules.split_once(on)?;
            ["CASCADE", "SET NULL", "SET DEFAULT"].into_iter().find(|known| rule.starts_with(known))
        };
        let (on_delete, on_update) = (rule("ON DELETE "), rule("ON UPDATE "));
        let does = on_delete.is_some() || on_update.is_some();
        does.then(|| ForeignKey {
            schema: table.schema.clone(),
            table: table.name.clone(),
            name,
            parent_schema,
            parent,
            on_delete: on_delete.unwrap_or("RESTRICT").into(),
            on_update: on_update.unwrap_or("RESTRICT").into(),
        })
    };
    definition.lines().filter_map(key).collect()
}

/// A name in backticks at the front.
fn name(rest: &mut &str) -> Option<String> {
    let inner = rest.strip_prefix('`')?;
    let mut name = String::new();
    let mut chars = inner.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '`' {
            name.push(c);
        } else if chars.next_if(|&(_, next)| next == '`').is_some() {
            name.push('`');
        } else {
            *rest = inner.get(at + 1..)?;
            return Some(name);
        }
    }
    None
}

/// The server's number of an error.
pub(crate) fn server_code(error: &SourceError) -> Option<u16> {
    let told = error.source.as_ref()?.downcast_ref::<crate::error::ServerError>()?;
    Some(told.code)
}

/// The column that a check wants to be JSON: what MariaDB's type JSON is made of.
fn json_checked(clause: &str) -> Option<String> {
    let inner = clause.trim().strip_prefix("json_valid(`")?.strip_suffix("`)")?;
    Some(inner.replace("``", "`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_keys_of_a_definition_are_read() {
        let table = TableFacts {
            schema: "shop".into(),
            name: "lines".into(),
            kind: "BASE TABLE".into(),
            engine: "InnoDB".into(),
            is_partitioned: false,
            key: None,
        };
        let definition = "CREATE TABLE `lines` (
  `id` int(11) NOT NULL COMMENT 'CONSTRAINT `x` FOREIGN KEY',
  PRIMARY KEY (`id`),
  CONSTRAINT `a``b` FOREIGN KEY (`p`) REFERENCES `orders` (`id`) ON DELETE CASCADE ON UPDATE SET NULL,
  CONSTRAINT `c` FOREIGN KEY (`q`) REFERENCES `crm`.`people` (`ON DELETE CASCADE`),
  CONSTRAINT `d` FOREIGN KEY (`q`) REFERENCES `crm`.`people` (`id`) ON UPDATE CASCADE
) ENGINE=InnoDB";
        let keys = cascading(&table, definition);
        let shown: Vec<_> = keys
            .iter()
            .map(|key| [&*key.name, &*key.parent_schema, &*key.parent, &*key.on_delete, &*key.on_update])
            .collect();
        assert_eq!(
            shown,
            [["a`b", "shop", "orders", "CASCADE", "SET NULL"], ["d", "crm", "people", "RESTRICT", "CASCADE"]]
        );
        assert!(cascading(&table, "CONSTRAINT `a FOREIGN KEY\nCONSTRAINT").is_empty());
    }

    #[test]
    fn a_check_of_json_names_its_column() {
        assert_eq!(json_checked("json_valid(`a``b`)").as_deref(), Some("a`b"));
        assert_eq!(json_checked("`a` > 1"), None);
        assert_eq!(json_checked("json_valid(`a`) or `b` is null"), None);
    }
}
