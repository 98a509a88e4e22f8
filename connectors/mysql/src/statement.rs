//! What a statement in the log does to tables, as far as that must be known: those
//! that empty or replace a table without giving rows, and those that change rows
//! without giving them (`binlog_format` STATEMENT or MIXED).
//!
//! This is no parser of SQL. Nothing of what is not understood here stops the log:
//! a change of a table's shape is told by the next table map.

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
    /// Something stored was run that changed rows which are not told, nor in which tables.
    Runs,
    /// Rows were changed that are not told. The tables are among those whose names stand in the statement.
    Changes(Vec<TableName>),
    /// Nothing that matters here.
    Nothing,
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
            at.alteration(table)
        }
        Some("CREATE") => {
            at.skip(&["OR"]);
            at.skip(&["REPLACE"]);
            if !at.skip(&["TABLE"]) {
                return Effect::Nothing;
            }
            while at.skip(&["IF", "NOT", "EXISTS"]) {}
            at.table().map_or(Effect::Nothing, Effect::Creates)
        }
        // A function that changes rows is logged by the statement that called it, where statements are logged.
        Some("SELECT" | "DO" | "CALL") => Effect::Runs,
        Some("INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" | "WITH") => Effect::Changes(at.all()),
        _ => Effect::Nothing,
    }
}

/// A word in capitals, a name between quotes, or a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Name(String),
    Mark(char),
}

/// Words, names and marks; what stands in comments and strings is left out, but for what the servers run of a
/// comment (`/*!50700 ... */`).
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let tail = rest.get(first.len_utf8()..).unwrap_or_default();
        if first.is_whitespace() {
            rest = tail;
        } else if let Some(comment) = rest.strip_prefix("/*") {
            let run = comment.strip_prefix("M!").or_else(|| comment.strip_prefix('!'));
            rest = match run {
                Some(run) => run.trim_start_matches(|c: char| c.is_ascii_digit()),
                None => comment.split_once("*/").map_or("", |(_, behind)| behind),
            };
        } else if let Some(behind) = rest.strip_prefix("*/") {
            rest = behind;
        } else if first == '#' || rest.starts_with("-- ") {
            rest = rest.split_once('\n').map_or("", |(_, behind)| behind);
        } else if matches!(first, '`' | '"') {
            let (name, behind) = quoted(tail, first);
            tokens.push(Token::Name(name));
            rest = behind;
        } else if first == '\'' {
            rest = string(tail);
        } else if first.is_alphanumeric() || matches!(first, '_' | '$') {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$'))).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            tokens.push(Token::Word(word.to_owned()));
            rest = behind;
        } else {
            tokens.push(Token::Mark(first));
            rest = tail;
        }
    }
    tokens
}

/// A name up to its closing quote, which stands doubled inside of it.
fn quoted(text: &str, quote: char) -> (String, &str) {
    let mut name = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            name.push(character);
        } else if characters.peek().is_some_and(|(_, next)| *next == quote) {
            name.push(quote);
            characters.next();
        } else {
            return (name, text.get(at + quote.len_utf8()..).unwrap_or_default());
        }
    }
    (name, "")
}

/// What follows a string.
fn string(text: &str) -> &str {
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => {
                characters.next();
            }
            '\'' => return text.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}

struct Cursor<'t> {
    tokens: &'t [Token],
    schema: &'t str,
}

impl Cursor<'_> {
    fn is_at_end(&self) -> bool {
        self.tokens.is_empty()
    }

    fn next(&mut self) -> Option<&Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    /// The next word, in capitals.
    fn word(&mut self) -> Option<String> {
        match self.next()? {
            Token::Word(word) => Some(word.to_ascii_uppercase()),
            Token::Name(_) | Token::Mark(_) => None,
        }
    }

    /// Passes over one of the words or marks.
    fn skip(&mut self, any_of: &[&str]) -> bool {
        let is_one = match self.tokens.first() {
            Some(Token::Word(word)) => any_of.iter().any(|one| word.eq_ignore_ascii_case(one)),
            Some(Token::Mark(mark)) => any_of.iter().any(|one| one.chars().eq([*mark])),
            Some(Token::Name(_)) | None => false,
        };
        if is_one {
            self.next();
        }
        is_one
    }

    fn identifier(&mut self) -> Option<String> {
        match self.tokens.first()? {
            Token::Word(text) | Token::Name(text) => {
                let text = text.clone();
                self.next();
                Some(text)
            }
            Token::Mark(_) => None,
        }
    }

    fn table(&mut self) -> Option<TableName> {
        let first = self.identifier()?;
        if self.skip(&["."]) {
            let name = self.identifier()?;
            return Some(TableName { schema: first, name });
        }
        Some(TableName { schema: self.schema.to_owned(), name: first })
    }

    fn list(&mut self) -> Vec<TableName> {
        let mut tables = Vec::new();
        while let Some(table) = self.table() {
            tables.push(table);
            if !self.skip(&[","]) {
                break;
            }
        }
        tables
    }

    /// Every name that could be a table's.
    fn all(&mut self) -> Vec<TableName> {
        let mut tables = Vec::new();
        while !self.is_at_end() {
            match self.table() {
                Some(table) if !tables.contains(&table) => tables.push(table),
                Some(_) => {}
                None => {
                    self.next();
                }
            }
        }
        tables
    }

    /// Behind ALTER TABLE and its table.
    fn alteration(&mut self, table: TableName) -> Effect {
        let mut is_new_clause = true;
        while !self.is_at_end() {
            if is_new_clause && self.skip(&["RENAME"]) {
                // RENAME COLUMN, INDEX, KEY are of the shape.
                if !self.skip(&["COLUMN", "INDEX", "KEY"]) {
                    self.skip(&["TO", "AS", "="]);
                    if let Some(to) = self.table() {
                        return Effect::Renames(vec![(table, to)]);
                    }
                }
            } else if is_new_clause
                && self.skip(&["TRUNCATE", "DROP", "EXCHANGE", "CONVERT"])
                && self.skip(&["PARTITION"])
            {
                return Effect::Partitions(table);
            }
            is_new_clause = self.skip(&[","]);
            if !is_new_clause {
                self.next();
            }
        }
        Effect::Nothing
    }
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
            ("CREATE OR REPLACE TABLE IF NOT EXISTS crm.`t` LIKE u", Effect::Creates(table("crm.t"))),
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
            let _ = effect(format!("ALTER TABLE {text}").as_bytes(), "shop");
            let _ = effect(format!("RENAME TABLE {text}").as_bytes(), "shop");
        }
    }
}
