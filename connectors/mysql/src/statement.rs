//! What a statement in the log does to tables, as far as that must be known: those
//! that empty or replace a table without giving rows, and those that change rows
//! without giving them (`binlog_format` STATEMENT or MIXED).
//!
//! This is no parser of SQL. Nothing of what is not understood here stops the log:
//! a change of a table's shape is told by the next table map.

mod comments;
mod reshaped;
mod tokens;

use tokens::{Cursor, tokens};

pub use comments::{Escapes, comments};
pub use reshaped::{Reshaped, reshaped};

/// A table in a statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableName {
    /// The database: named, or the session's.
    pub schema: String,
    /// The table.
    pub name: String,
}

/// What a statement does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tables are empty now: TRUNCATE.
    Empties(Vec<TableName>),
    /// Tables are gone: DROP TABLE.
    Drops(Vec<TableName>),
    /// Tables have other names now, in pairs, in order: RENAME TABLE, ALTER TABLE ... RENAME.
    Renames(Vec<(TableName, TableName)>),
    /// Rows of a table's partition are gone, and others may have come: ALTER TABLE ... TRUNCATE, DROP, EXCHANGE PARTITION.
    Partitions(TableName),
    /// There may be a new table.
    Creates(TableName),
    /// There is a new table, in place of an old one whose rows are gone: CREATE OR REPLACE TABLE.
    Replaces(TableName),
    /// Something stored was run that changed rows which are not told, nor in which tables.
    Runs,
    /// Rows were changed that are not told. The tables are among those whose names stand in the statement.
    Changes(Vec<TableName>),
    /// Nothing that matters here.
    Nothing,
}

impl Effect {
    /// With names as a server has them that folds those of tables (`lower_case_table_names = 1`).
    #[must_use]
    pub fn folded(mut self) -> Self {
        let fold = |table: &mut TableName| {
            table.schema = table.schema.to_lowercase();
            table.name = table.name.to_lowercase();
        };
        match &mut self {
            Self::Empties(tables) | Self::Drops(tables) | Self::Changes(tables) => tables.iter_mut().for_each(fold),
            Self::Renames(pairs) => {
                for (from, to) in pairs {
                    fold(from);
                    fold(to);
                }
            }
            Self::Partitions(table) | Self::Creates(table) | Self::Replaces(table) => fold(table),
            Self::Runs | Self::Nothing => {}
        }
        self
    }
}

/// What a statement does, run with `schema` as the session's database.
#[must_use]
pub fn effect(statement: &[u8], schema: &str) -> Effect {
    let text = String::from_utf8_lossy(statement);
    let tokens = tokens(&text);
    let mut at = Cursor { tokens: &tokens, schema };
    match at.word().as_deref() {
        Some("TRUNCATE") => {
            at.skip(&["TABLE"]);
            Effect::Empties(at.table().into_iter().collect())
        }
        Some("DROP") => {
            // A temporary table's rows were never in the log.
            if at.skip(&["TEMPORARY"]) || !at.skip(&["TABLE", "TABLES"]) {
                return Effect::Nothing;
            }
            at.skip(&["IF"]);
            at.skip(&["EXISTS"]);
            Effect::Drops(at.list())
        }
        Some("RENAME") if at.skip(&["TABLE", "TABLES"]) => {
            let mut pairs = Vec::new();
            loop {
                at.skip(&["IF"]);
                at.skip(&["EXISTS"]);
                let Some(from) = at.table() else { break };
                // MariaDB: WAIT n, NOWAIT.
                while !at.is_at_end() && !at.skip(&["TO"]) {
                    at.next();
                }
                let Some(to) = at.table() else { break };
                pairs.push((from, to));
                if !at.skip(&[","]) {
                    break;
                }
            }
            Effect::Renames(pairs)
        }
        Some("ALTER") => {
            while at.skip(&["ONLINE", "OFFLINE", "IGNORE"]) {}
            if !at.skip(&["TABLE"]) {
                return Effect::Nothing;
            }
            at.skip(&["IF"]);
            at.skip(&["EXISTS"]);
            let Some(table) = at.table() else { return Effect::Nothing };
            alteration(&mut at, table)
        }
        Some("CREATE") => {
            let replaces = at.skip(&["OR"]) && at.skip(&["REPLACE"]);
            if !at.skip(&["TABLE"]) {
                return Effect::Nothing;
            }
            while at.skip(&["IF", "NOT", "EXISTS"]) {}
            match at.table() {
                Some(table) if replaces => Effect::Replaces(table),
                Some(table) => Effect::Creates(table),
                None => Effect::Nothing,
            }
        }
        // A function that changes rows is logged by the statement that called it, where statements are logged.
        Some("SELECT" | "DO" | "CALL") => Effect::Runs,
        Some("INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" | "WITH") => Effect::Changes(at.all()),
        _ => Effect::Nothing,
    }
}

/// Behind ALTER TABLE and its table.
fn alteration(at: &mut Cursor<'_>, table: TableName) -> Effect {
    let mut is_new_clause = true;
    while !at.is_at_end() {
        if is_new_clause && at.skip(&["RENAME"]) {
            // RENAME COLUMN, INDEX, KEY are of the shape.
            if !at.skip(&["COLUMN", "INDEX", "KEY"]) {
                at.skip(&["TO", "AS", "="]);
                if let Some(to) = at.table() {
                    return Effect::Renames(vec![(table, to)]);
                }
            }
        } else if is_new_clause && at.skip(&["TRUNCATE", "DROP", "EXCHANGE", "CONVERT"]) && at.skip(&["PARTITION"]) {
            return Effect::Partitions(table);
        }
        is_new_clause = at.skip(&[","]);
        if !is_new_clause {
            at.next();
        }
    }
    Effect::Nothing
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(text: &str) -> TableName {
        let (schema, name) = text.split_once('.').expect("a qualified name");
        TableName { schema: schema.into(), name: name.into() }
    }

    fn tables(names: &[&str]) -> Vec<TableName> {
        names.iter().map(|name| table(name)).collect()
    }

    #[test]
    fn what_empties_drops_and_renames_tables_is_recognised() {
        for (statement, expected) in [
            ("TRUNCATE orders", Effect::Empties(tables(&["shop.orders"]))),
            ("truncate table `crm`.`a``b` /* x */", Effect::Empties(tables(&["crm.a`b"]))),
            ("DROP TABLE IF EXISTS `a`,crm.b /* generated by server */", Effect::Drops(tables(&["shop.a", "crm.b"]))),
            ("DROP TEMPORARY TABLE a", Effect::Nothing),
            ("DROP INDEX i ON t", Effect::Nothing),
            (
                "RENAME TABLE orders TO _orders_del, _orders_gho TO orders",
                Effect::Renames(vec![
                    (table("shop.orders"), table("shop._orders_del")),
                    (table("shop._orders_gho"), table("shop.orders")),
                ]),
            ),
            ("ALTER TABLE a RENAME TO crm.b", Effect::Renames(vec![(table("shop.a"), table("crm.b"))])),
            ("ALTER TABLE a ADD COLUMN x INT, RENAME b", Effect::Renames(vec![(table("shop.a"), table("shop.b"))])),
            ("ALTER TABLE a RENAME COLUMN x TO y", Effect::Nothing),
            ("ALTER TABLE a DROP COLUMN x", Effect::Nothing),
            ("ALTER TABLE a DROP PARTITION p0", Effect::Partitions(table("shop.a"))),
            ("alter table a truncate partition p0, p1", Effect::Partitions(table("shop.a"))),
            ("/*!50700 TRUNCATE TABLE */ t", Effect::Empties(tables(&["shop.t"]))),
            ("ALTER USER x IDENTIFIED BY 'TRUNCATE t'", Effect::Nothing),
            ("CREATE TABLE t (a INT)", Effect::Creates(table("shop.t"))),
            ("CREATE TABLE IF NOT EXISTS crm.`t` LIKE u", Effect::Creates(table("crm.t"))),
            ("CREATE OR REPLACE TABLE t (a INT)", Effect::Replaces(table("shop.t"))),
            ("CREATE OR REPLACE TEMPORARY TABLE t (a INT)", Effect::Nothing),
            ("CREATE TEMPORARY TABLE t (a INT)", Effect::Nothing),
            ("CREATE DEFINER=`a`@`b` PROCEDURE p() TRUNCATE t", Effect::Nothing),
            ("SELECT `shop`.`f`(1)", Effect::Runs),
            ("-- TRUNCATE a\nTRUNCATE b", Effect::Empties(tables(&["shop.b"]))),
            ("", Effect::Nothing),
        ] {
            assert_eq!(effect(statement.as_bytes(), "shop"), expected, "{statement}");
        }
    }

    #[test]
    fn of_statements_that_change_rows_every_name_is_told() {
        let changed = |statement: &str| match effect(statement.as_bytes(), "shop") {
            Effect::Changes(names) => names,
            other => panic!("{other:?}"),
        };
        assert!(changed("insert into mi values (400, 'orders')").contains(&table("shop.mi")));
        assert!(!changed("insert into mi values (400, 'orders')").contains(&table("shop.orders")));
        assert!(changed("UPDATE a JOIN crm.b USING (id) SET a.x = 1").contains(&table("crm.b")));
        assert!(changed("WITH c AS (SELECT 1) DELETE FROM `t 1`").contains(&table("shop.t 1")));
    }

    proptest! {
        #[test]
        fn no_statement_panics(statement in any::<Vec<u8>>(), text in "[A-Za-z`'\"/*!, .#;()\\-\n]{0,80}") {
            let _ = effect(&statement, "shop");
            let _ = effect(text.as_bytes(), "shop");
            let _ = reshaped(&statement, "shop");
            let _ = reshaped(format!("ALTER TABLE {text}").as_bytes(), "shop");
            let _ = effect(format!("ALTER TABLE {text}").as_bytes(), "shop");
            let _ = effect(format!("RENAME TABLE {text}").as_bytes(), "shop");
        }
    }
}
