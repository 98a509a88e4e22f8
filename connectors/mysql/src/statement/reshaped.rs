//! Which tables a statement changes the shape of: needed where the log itself does not tell columns, and the catalogue,
//! which may be ahead of it, does.

use super::TableName;
use super::tokens::{Cursor, Token, tokens};

/// Tables whose columns or keys a statement changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reshaped {
    /// None.
    Nothing,
    /// These.
    Tables {
        /// Which; all of their databases where `name` is empty, and every table where both are.
        tables: Vec<TableName>,
        /// Unique indexes alone are changed: the primary key and the columns are not.
        is_unique_only: bool,
    },
}

/// Which tables have other columns or keys behind a statement than before it. What is not understood counts as a change.
///
/// A plain CREATE TABLE does not: a table of that name was not there, or it is one still.
#[must_use]
pub fn reshaped(statement: &[u8], schema: &str) -> Reshaped {
    let text = String::from_utf8_lossy(statement);
    let tokens = tokens(&text);
    let mut at = Cursor { tokens: &tokens, schema };
    // Strings may end elsewhere by the session's `sql_mode` or character set: what stands behind one is not seen then.
    let is_plain = !text.contains(['\\', char::REPLACEMENT_CHARACTER]);
    let unknown = || vec![TableName { schema: String::new(), name: String::new() }];
    let of = |tables: Vec<TableName>| {
        let tables = if tables.is_empty() { unknown() } else { tables };
        Reshaped::Tables { tables, is_unique_only: false }
    };
    let first = match at.word() {
        Some(first) => first,
        None if tokens.is_empty() => return Reshaped::Nothing,
        None => return of(unknown()),
    };
    match first.as_str() {
        "ALTER" => {
            while at.skip(&["ONLINE", "OFFLINE", "IGNORE"]) {}
            if !at.skip(&["TABLE"]) {
                return Reshaped::Nothing;
            }
            at.skip(&["IF"]);
            at.skip(&["EXISTS"]);
            let Some(table) = at.table() else { return of(unknown()) };
            let clauses = at.clauses();
            let worst = clauses.iter().map(|clause| clause_of(clause)).max().unwrap_or(Clause::Harmless);
            match worst {
                _ if !is_plain => of(vec![table]),
                Clause::Harmless => Reshaped::Nothing,
                Clause::Unique => Reshaped::Tables { tables: vec![table], is_unique_only: true },
                Clause::Shape => {
                    let mut tables = vec![table];
                    // The other table of a RENAME or a CONVERT.
                    tables.extend(clauses.iter().filter_map(|clause| other_table(clause, schema)));
                    of(tables)
                }
            }
        }
        "CREATE" => {
            let replaces = at.skip(&["OR"]) && at.skip(&["REPLACE"]);
            if at.skip(&["UNIQUE"]) {
                return Reshaped::Tables {
                    tables: at.indexed().map_or_else(unknown, |t| vec![t]),
                    is_unique_only: true,
                };
            }
            if !replaces || !at.skip(&["TABLE"]) {
                return Reshaped::Nothing;
            }
            while at.skip(&["IF", "NOT", "EXISTS"]) {}
            of(at.table().into_iter().collect())
        }
        "DROP" if at.skip(&["TABLE", "TABLES"]) => {
            while at.skip(&["IF", "EXISTS"]) {}
            of(at.list())
        }
        "DROP" if at.skip(&["DATABASE", "SCHEMA"]) => {
            while at.skip(&["IF", "EXISTS"]) {}
            of(at.identifier().map(|schema| TableName { schema, name: String::new() }).into_iter().collect())
        }
        "DROP" if at.skip(&["INDEX"]) => {
            let is_primary = at.tokens.iter().take(3).any(is_primary);
            let tables = at.indexed().map_or_else(unknown, |table| vec![table]);
            Reshaped::Tables { tables, is_unique_only: !is_primary }
        }
        "RENAME" if at.skip(&["TABLE", "TABLES"]) => {
            // Every name in it, and a few words.
            of(at.all())
        }
        _ => Reshaped::Nothing,
    }
}

/// What a clause of ALTER TABLE does, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Clause {
    Harmless,
    Unique,
    Shape,
}

/// How a clause of ALTER TABLE may begin that changes neither columns nor keys: options of tables and partitions.
const HARMLESS: [&str; 55] = [
    "ALGORITHM",
    "ANALYZE",
    "AUTOEXTEND_SIZE",
    "AUTO_INCREMENT",
    "AVG_ROW_LENGTH",
    "CHARACTER",
    "CHARSET",
    "CHECK",
    "CHECKSUM",
    "COALESCE",
    "COLLATE",
    "COMMENT",
    "COMPRESSION",
    "DATA",
    "DEFAULT",
    "DELAY_KEY_WRITE",
    "DISABLE",
    "DISCARD",
    "ENABLE",
    "ENCRYPTED",
    "ENCRYPTION",
    "ENCRYPTION_KEY_ID",
    "ENGINE",
    "ENGINE_ATTRIBUTE",
    "EXCHANGE",
    "FORCE",
    "IMPORT",
    "INDEX",
    "KEY_BLOCK_SIZE",
    "LOCK",
    "MAX_ROWS",
    "MIN_ROWS",
    "NOWAIT",
    "OPTIMIZE",
    "ORDER",
    "PACK_KEYS",
    "PAGE_COMPRESSED",
    "PAGE_COMPRESSION_LEVEL",
    "PARTITION",
    "REBUILD",
    "REMOVE",
    "REORGANIZE",
    "REPAIR",
    "ROW_FORMAT",
    "SECONDARY_ENGINE",
    "SECONDARY_LOAD",
    "SECONDARY_UNLOAD",
    "STATS_AUTO_RECALC",
    "STATS_PERSISTENT",
    "STATS_SAMPLE_PAGES",
    "TABLESPACE",
    "TRANSACTIONAL",
    "TRUNCATE",
    "UPGRADE",
    "WAIT",
];

fn is_primary(token: &Token) -> bool {
    matches!(token, Token::Word(text) | Token::Name(text) if text.eq_ignore_ascii_case("PRIMARY"))
}

fn clause_of(clause: &[Token]) -> Clause {
    let word = |at: usize| match clause.get(at) {
        Some(Token::Word(word)) => word.to_ascii_uppercase(),
        _ => String::new(),
    };
    let has = |wanted: &[&str]| {
        clause
            .iter()
            .any(|token| matches!(token, Token::Word(word) if wanted.iter().any(|w| word.eq_ignore_ascii_case(w))))
    };
    // MariaDB's JSON is a text with this check.
    if has(&["JSON_VALID"]) {
        return Clause::Shape;
    }
    match (word(0).as_str(), word(1).as_str()) {
        ("ADD", "INDEX" | "KEY" | "FULLTEXT" | "SPATIAL" | "CHECK" | "FOREIGN" | "PARTITION") => Clause::Harmless,
        ("ADD", "UNIQUE") => Clause::Unique,
        ("ADD", "CONSTRAINT") if clause.iter().take(5).any(is_primary) => Clause::Shape,
        ("ADD", "CONSTRAINT") if has(&["UNIQUE"]) => Clause::Unique,
        ("ADD", "CONSTRAINT") if has(&["CHECK", "FOREIGN"]) => Clause::Harmless,
        ("DROP", "INDEX" | "KEY" | "CONSTRAINT") if clause.iter().any(is_primary) => Clause::Shape,
        ("DROP", "INDEX" | "KEY" | "CONSTRAINT") => Clause::Unique,
        ("DROP", "CHECK" | "FOREIGN" | "PARTITION") | ("RENAME", "INDEX" | "KEY") => Clause::Harmless,
        ("ALTER", "INDEX" | "KEY" | "CHECK" | "CONSTRAINT") => Clause::Harmless,
        ("ALTER", _) if has(&["DEFAULT", "VISIBLE", "INVISIBLE"]) => Clause::Harmless,
        (first, _) if HARMLESS.contains(&first) => Clause::Harmless,
        _ => Clause::Shape,
    }
}

/// `RENAME TO other`, `CONVERT TABLE other TO PARTITION p`, `CONVERT PARTITION p TO TABLE other`.
fn other_table(clause: &[Token], schema: &str) -> Option<TableName> {
    let mut at = Cursor { tokens: clause, schema };
    if at.skip(&["RENAME"]) {
        if at.skip(&["COLUMN"]) {
            return None;
        }
        at.skip(&["TO", "AS", "="]);
        return at.table();
    }
    if !at.skip(&["CONVERT"]) {
        return None;
    }
    while !at.is_at_end() {
        if at.skip(&["TABLE"]) {
            return at.table();
        }
        at.next();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_columns_or_keys_is_recognised_and_nothing_else() {
        for (statement, expected) in [
            ("ALTER TABLE a ADD COLUMN x INT", "a"),
            ("alter table `a` add x enum('p', 'q'), comment 'y'", "a"),
            ("ALTER TABLE a COMMENT = 'x', MODIFY b INT", "a"),
            ("ALTER TABLE a RENAME COLUMN x TO y", "a"),
            ("ALTER TABLE a CHANGE x y INT, CHANGE y x INT", "a"),
            ("ALTER TABLE a DROP PRIMARY KEY, ADD PRIMARY KEY (x)", "a"),
            ("ALTER TABLE a DROP INDEX `PRIMARY`", "a"),
            ("ALTER TABLE a CONVERT TO CHARACTER SET latin1", "a"),
            ("ALTER TABLE a RENAME TO crm.b", "a crm.b"),
            ("ALTER TABLE a ADD CHECK (json_valid(x))", "a"),
            ("ALTER TABLE a COMMENT \"x\\\"\", ADD COLUMN y INT", "a"),
            ("ALTER TABLE a SOMETHING NEW", "a"),
            ("--\nALTER TABLE a DROP x", "a"),
            ("CREATE OR REPLACE TABLE a (x INT)", "a"),
            ("RENAME TABLE a TO b", "a TO b"),
            ("DROP TABLE IF EXISTS a, b", "a b"),
            ("DROP SCHEMA IF EXISTS crm", "crm.*"),
            ("DROP INDEX `PRIMARY` ON a", "a"),
            ("* TABLE", "*"),
            ("CREATE UNIQUE INDEX i USING BTREE ON a (x)", "unique a"),
            ("DROP INDEX i ON crm.a", "unique crm.a"),
            ("ALTER TABLE a ADD UNIQUE KEY i (x, y), ADD INDEX (z)", "unique a"),
            ("ALTER TABLE a ADD CONSTRAINT c CHECK (x > 0), DROP CHECK d, ADD INDEX i (x, y)", ""),
            ("ALTER TABLE a COMMENT 'ADD COLUMN x, DROP COLUMN y'", ""),
            ("ALTER TABLE a ENGINE = InnoDB ROW_FORMAT = DYNAMIC, ALGORITHM = COPY", ""),
            ("ALTER TABLE a ALTER COLUMN x SET DEFAULT 7, AUTO_INCREMENT = 9", ""),
            ("ALTER TABLE a DROP PARTITION p", ""),
            ("ALTER TABLE a PARTITION BY HASH (x) PARTITIONS 4", ""),
            ("ALTER USER fred IDENTIFIED BY 'ALTER TABLE a DROP x'", ""),
            ("ALTER DATABASE shop CHARACTER SET latin1", ""),
            ("CREATE TABLE IF NOT EXISTS a (x INT)", ""),
            ("CREATE OR REPLACE VIEW a AS SELECT 1", ""),
            ("CREATE PROCEDURE p() ALTER TABLE a DROP x", ""),
            ("CREATE INDEX i ON a (x)", ""),
            ("DROP PROCEDURE a", ""),
            ("TRUNCATE TABLE a", ""),
            ("GRANT ALL ON a TO fred", ""),
            ("", ""),
        ] {
            let shown = match reshaped(statement.as_bytes(), "shop") {
                Reshaped::Nothing => String::new(),
                Reshaped::Tables { tables, is_unique_only } => {
                    let names = tables.iter().map(|table| match (&*table.schema, &*table.name) {
                        ("", "") => "*".to_owned(),
                        (schema, "") => format!("{schema}.*"),
                        ("shop", name) => name.to_owned(),
                        (schema, name) => format!("{schema}.{name}"),
                    });
                    let names = names.collect::<Vec<_>>().join(" ");
                    if is_unique_only { format!("unique {names}") } else { names }
                }
            };
            assert_eq!(shown, expected, "{statement}");
        }
    }
}
