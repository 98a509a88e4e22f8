//! What a migration would do to event types, told before it is run.
//!
//! Its statements are read one by one, and what they do to tables whose types are kept is done to the columns in the
//! newest documents; then the outcome is held against what is kept, as at a change in the log. Where a statement cannot
//! be read, or a type's JSON is not known from its name, that is said: nothing is guessed.

use std::collections::BTreeMap;

use figvine_change::JsonType;
use serde_json::{Map, Value, json};
use sqlparser::ast::{
    AlterColumnOperation, AlterTable, AlterTableOperation, ColumnDef, ColumnOption, Ident, ObjectName, ObjectType,
    RenameTableNameKind, Statement, TableConstraint,
};
use sqlparser::dialect::{Dialect, MySqlDialect, PostgreSqlDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::Compatibility;
use super::book::{Book, Draft, Verdict};
use super::compatibility::{Break, Reader};
use super::name::{Version, table_type};

/// The database whose SQL it is, and how its values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flavour {
    /// MySQL's or MariaDB's; else PostgreSQL's.
    pub is_mysql: bool,
    /// Whether 64-bit integers are strings.
    pub bigint_as_string: bool,
    /// Whether decimals are numbers.
    pub decimal_as_number: bool,
    /// Whether `tinyint(1)` is a boolean.
    pub tinyint1_as_boolean: bool,
}

/// What would become of one event type.
#[derive(Debug, Clone, PartialEq)]
pub struct TypeForecast {
    /// The type.
    pub event_type: String,
    /// The version in force.
    pub now: Version,
    /// The version behind the migration, where it can be told; `None` where the type would end.
    pub then: Option<Version>,
    /// What would break; nothing where all is compatible.
    pub breaks: Vec<Break>,
    /// What cannot be told.
    pub unsure: Vec<String>,
}

/// What would become of all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forecast {
    /// The types that the migration touches.
    pub types: Vec<TypeForecast>,
    /// The beginnings of statements that cannot be read, with their lines.
    pub unread: Vec<(u64, String)>,
}

impl Forecast {
    /// Whether nothing breaks, as far as it can be told, and all can be told.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.unread.is_empty() && self.types.iter().all(|one| one.breaks.is_empty() && one.unsure.is_empty())
    }
}

/// A table's columns while statements pass.
struct Touched {
    members: Map<String, Value>,
    has_ended: Option<String>,
    unsure: Vec<String>,
    is_changed: bool,
}

/// Tells what a migration would do to the types of a source.
#[must_use]
pub fn forecast(sql: &str, source: &str, book: &Book, compatibility: Compatibility, flavour: Flavour) -> Forecast {
    let dialect: &dyn Dialect = if flavour.is_mysql { &MySqlDialect {} } else { &PostgreSqlDialect {} };
    let mut outcome = Forecast::default();
    let tokens = match Tokenizer::new(dialect, sql).tokenize_with_location() {
        Ok(tokens) => tokens,
        Err(error) => {
            outcome.unread.push((error.location.line, "the file cannot be cut into statements".into()));
            return outcome;
        }
    };
    let mut reading = Reading { source, book, flavour, touched: BTreeMap::new() };
    for statement in tokens.split(|token| token.token == Token::SemiColon) {
        let Some(first) = statement.iter().find(|token| !matches!(token.token, Token::Whitespace(_))) else { continue };
        let line = first.span.start.line;
        match Parser::new(dialect).with_tokens_with_locations(statement.to_vec()).parse_statement() {
            Ok(statement) => {
                if let Err(what) = reading.statement(&statement) {
                    outcome.unread.push((line, what));
                }
            }
            Err(_) if concerns_no_table(statement) => {}
            Err(_) => outcome.unread.push((line, beginning(statement))),
        }
    }
    let Reading { touched, .. } = reading;
    for (event_type, touched) in touched {
        if let Some(forecast) = held(book, compatibility, event_type, touched) {
            outcome.types.push(forecast);
        }
    }
    outcome
}

/// Statements that are not read, and change no table's columns whatever they say.
fn concerns_no_table(statement: &[TokenWithSpan]) -> bool {
    let words: Vec<String> = statement
        .iter()
        .filter_map(|token| match &token.token {
            Token::Word(word) => Some(word.value.to_ascii_lowercase()),
            _ => None,
        })
        .take(2)
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(
        words.as_slice(),
        ["set" | "select" | "insert" | "update" | "delete" | "grant" | "revoke" | "comment" | "analyze" | "vacuum", ..]
            | ["create" | "drop" | "alter", "index" | "view" | "sequence" | "function" | "trigger" | "user" | "role"]
    )
}

fn beginning(statement: &[TokenWithSpan]) -> String {
    let text: String = statement.iter().map(|token| token.token.to_string()).collect();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

fn held(book: &Book, compatibility: Compatibility, event_type: String, touched: Touched) -> Option<TypeForecast> {
    let current = book.current(&event_type)?;
    let now = current.version;
    let mut forecast = TypeForecast { event_type, now, then: None, breaks: Vec::new(), unsure: touched.unsure };
    if let Some(what) = touched.has_ended {
        forecast.breaks.push(Break { what, reader: Reader::Old });
        return Some(forecast);
    }
    if !touched.is_changed && forecast.unsure.is_empty() {
        return None;
    }
    let mut document = current.document.clone();
    let names: Vec<_> = touched.members.keys().cloned().collect();
    // The key's columns have new types with the others; one that is gone is gone from it too.
    let key = document.pointer("/$defs/key/properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let key: Map<String, Value> =
        key.keys().filter_map(|name| Some((name.clone(), touched.members.get(name)?.clone()))).collect();
    for (at, value) in [
        ("/$defs/row/properties", Value::Object(touched.members)),
        ("/$defs/whole/required", names.into()),
        ("/$defs/key/required", key.keys().cloned().collect::<Vec<_>>().into()),
        ("/$defs/key/properties", Value::Object(key)),
    ] {
        if let Some(place) = document.pointer_mut(at) {
            *place = value;
        }
    }
    let draft = Draft { event_type: forecast.event_type.clone(), name: String::new(), major: None, document };
    match book.judge(&draft, compatibility) {
        Verdict::Known(version) | Verdict::New { version, .. } => forecast.then = Some(version),
        Verdict::Breaking { breaks, instead, .. } => {
            forecast.then = Some(instead.0);
            forecast.breaks = breaks;
        }
    }
    // A version that hangs on what is not known is none.
    if !forecast.unsure.is_empty() {
        forecast.then = None;
    }
    Some(forecast)
}

struct Reading<'a> {
    source: &'a str,
    book: &'a Book,
    flavour: Flavour,
    touched: BTreeMap<String, Touched>,
}

impl Reading<'_> {
    fn statement(&mut self, statement: &Statement) -> Result<(), String> {
        match statement {
            Statement::AlterTable(AlterTable { name, operations, .. }) => {
                for event_type in self.types(name) {
                    for operation in operations {
                        self.operation(&event_type, operation);
                    }
                }
            }
            Statement::Drop { object_type: ObjectType::Table, names, .. } => {
                for name in names {
                    self.end(name, "the table is dropped");
                }
            }
            Statement::Drop { object_type: ObjectType::Schema | ObjectType::Database, names, .. } => {
                let gone: Vec<_> = names.iter().filter_map(|name| self.parts(name).pop()).collect();
                let is_gone = |name: &str| gone.iter().any(|schema| name.split('.').nth(1) == Some(schema));
                let types: Vec<_> =
                    self.book.types().map(|(name, _)| name.to_owned()).filter(|name| is_gone(name)).collect();
                for event_type in types {
                    self.with(&event_type, |touched, _| touched.has_ended = Some("the table is dropped".into()));
                }
            }
            Statement::RenameTable(renames) => {
                for rename in renames {
                    self.end(&rename.old_name, &format!("the table is renamed to {}", rename.new_name));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, name: &ObjectName, what: &str) {
        for event_type in self.types(name) {
            self.with(&event_type, |touched, _| touched.has_ended = Some(what.to_owned()));
        }
    }

    fn name(&self, ident: &Ident) -> String {
        match ident.quote_style {
            None if !self.flavour.is_mysql => ident.value.to_lowercase(),
            _ => ident.value.clone(),
        }
    }

    fn parts(&self, name: &ObjectName) -> Vec<String> {
        name.0.iter().filter_map(|part| part.as_ident().map(|ident| self.name(ident))).collect()
    }

    /// The types of a table; without a schema all of that name: which is meant hangs on the session.
    fn types(&self, name: &ObjectName) -> Vec<String> {
        let parts = self.parts(name);
        let is_it = |event_type: &str| match parts.as_slice() {
            [.., schema, table] => table_type(self.source, schema, table) == event_type,
            [table] => {
                let any = table_type("", "", table);
                let token = any.rsplit('.').next().unwrap_or_default();
                event_type.split('.').count() == 3 && event_type.rsplit('.').next() == Some(token)
            }
            [] => false,
        };
        self.book.types().map(|(name, _)| name).filter(|name| is_it(name)).map(str::to_owned).collect()
    }

    fn with(&mut self, event_type: &str, change: impl FnOnce(&mut Touched, Flavour)) {
        let Some(current) = self.book.current(event_type) else { return };
        let flavour = self.flavour;
        let touched = self.touched.entry(event_type.to_owned()).or_insert_with(|| Touched {
            members: current
                .document
                .pointer("/$defs/row/properties")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
            has_ended: None,
            unsure: Vec::new(),
            is_changed: false,
        });
        change(touched, flavour);
    }

    fn operation(&mut self, event_type: &str, operation: &AlterTableOperation) {
        match operation {
            AlterTableOperation::AddColumn { column_def, .. } => {
                let ColumnDef { name, data_type, options } = column_def;
                let name = self.name(name);
                let is_key = options.iter().any(|def| matches!(def.option, ColumnOption::PrimaryKey(_)));
                let text = data_type.to_string();
                self.with(event_type, |touched, flavour| {
                    touched.set(&name, &text, flavour);
                    if is_key {
                        touched.unsure.push("which key the table has behind it".into());
                    }
                });
            }
            AlterTableOperation::DropColumn { column_names, .. } => {
                let names: Vec<_> = column_names.iter().map(|name| self.name(name)).collect();
                self.with(event_type, |touched, flavour| {
                    for name in names {
                        touched.remove(&name, flavour);
                    }
                });
            }
            AlterTableOperation::RenameColumn { old_column_name, new_column_name } => {
                let (old, new) = (self.name(old_column_name), self.name(new_column_name));
                self.with(event_type, |touched, flavour| {
                    if let Some(member) = touched.remove(&old, flavour) {
                        touched.members.insert(new, member);
                    }
                });
            }
            AlterTableOperation::ChangeColumn { old_name, new_name, data_type, .. } => {
                let (old, new, text) = (self.name(old_name), self.name(new_name), data_type.to_string());
                self.with(event_type, |touched, flavour| {
                    if old != new {
                        touched.remove(&old, flavour);
                    }
                    touched.set(&new, &text, flavour);
                });
            }
            AlterTableOperation::ModifyColumn { col_name, data_type, .. } => {
                let (name, text) = (self.name(col_name), data_type.to_string());
                self.with(event_type, |touched, flavour| touched.set(&name, &text, flavour));
            }
            AlterTableOperation::AlterColumn {
                column_name,
                op: AlterColumnOperation::SetDataType { data_type, .. },
            } => {
                let (name, text) = (self.name(column_name), data_type.to_string());
                self.with(event_type, |touched, flavour| touched.set(&name, &text, flavour));
            }
            AlterTableOperation::RenameTable {
                table_name: RenameTableNameKind::As(name) | RenameTableNameKind::To(name),
            } => {
                let what = format!("the table is renamed to {name}");
                self.with(event_type, |touched, _| touched.has_ended = Some(what));
            }
            AlterTableOperation::DropPrimaryKey { .. }
            | AlterTableOperation::AddConstraint { constraint: TableConstraint::PrimaryKey(_), .. }
            | AlterTableOperation::DropConstraint { .. } => {
                self.with(event_type, |touched, _| touched.unsure.push("which key the table has behind it".into()));
            }
            _ => {}
        }
    }
}

impl Touched {
    /// The name as the table has it: MySQL's know no case.
    fn known(&self, name: &str, flavour: Flavour) -> String {
        let is_it = |known: &&String| **known == *name || flavour.is_mysql && known.eq_ignore_ascii_case(name);
        self.members.keys().find(is_it).cloned().unwrap_or_else(|| name.to_owned())
    }

    fn remove(&mut self, name: &str, flavour: Flavour) -> Option<Value> {
        let name = self.known(name, flavour);
        let removed = self.members.shift_remove(&name);
        self.is_changed |= removed.is_some();
        removed
    }

    fn set(&mut self, name: &str, type_name: &str, flavour: Flavour) {
        let name = self.known(name, flavour);
        self.is_changed = true;
        let schema = match json_of(type_name, flavour) {
            Some(json) => {
                let mut text = Vec::new();
                json.write_schema(true, &mut text);
                serde_json::from_slice(&text).unwrap_or_else(|_| json!({}))
            }
            None => {
                self.unsure.push(format!("what values of type {type_name} look like, in column {name}"));
                json!({})
            }
        };
        self.members.insert(name, schema);
    }
}

/// What values of a type become, by its name; `None` for what is not built in.
fn json_of(type_name: &str, flavour: Flavour) -> Option<JsonType> {
    let text = type_name.to_ascii_lowercase();
    if let Some(element) = text.strip_suffix("[]").filter(|_| !flavour.is_mysql) {
        return Some(JsonType::Array(Box::new(json_of(element.trim_end_matches("[]"), flavour)?)));
    }
    let is_signed = !text.contains("unsigned") && !text.contains("zerofill");
    let base = text.split('(').next().unwrap_or_default().trim().trim_end_matches(" unsigned");
    let with_zone = text.contains("with time zone");
    let decimal = JsonType::Decimal { as_string: !flavour.decimal_as_number };
    let bigint = |is_signed| match flavour.bigint_as_string {
        true => JsonType::integer(64, is_signed).into_string(),
        false => JsonType::integer(64, is_signed),
    };
    let common = match base {
        "smallint" | "int2" => JsonType::integer(16, is_signed),
        "int" | "integer" | "int4" => JsonType::integer(32, is_signed),
        "bigint" | "int8" => bigint(is_signed),
        "decimal" | "numeric" | "dec" => decimal,
        "real" | "float" | "double" | "double precision" | "float4" | "float8" => JsonType::Float,
        "text" | "varchar" | "character varying" | "char" | "character" | "char varying" => JsonType::Text,
        "date" => JsonType::Date,
        "json" => JsonType::Any,
        "uuid" => JsonType::Uuid,
        _ if flavour.is_mysql => match base {
            "tinyint" if flavour.tinyint1_as_boolean && text.starts_with("tinyint(1)") => JsonType::Boolean,
            "bool" | "boolean" if flavour.tinyint1_as_boolean => JsonType::Boolean,
            "tinyint" => JsonType::integer(8, is_signed),
            "bool" | "boolean" => JsonType::integer(8, true),
            "mediumint" => JsonType::integer(24, is_signed),
            "tinytext" | "mediumtext" | "longtext" => JsonType::Text,
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => JsonType::Bytes,
            "datetime" => JsonType::Timestamp,
            "timestamp" => JsonType::TimestampWithZone,
            "time" => JsonType::ClockDuration,
            _ => return None,
        },
        "bool" | "boolean" => JsonType::Boolean,
        "bytea" => JsonType::Bytes,
        "jsonb" => JsonType::Any,
        "timestamptz" => JsonType::TimestampWithZone,
        _ if base.starts_with("timestamp") && with_zone => JsonType::TimestampWithZone,
        _ if base.starts_with("timestamp") => JsonType::Timestamp,
        "timetz" => JsonType::TimeWithZone,
        "time with time zone" => JsonType::TimeWithZone,
        "time" | "time without time zone" if with_zone => JsonType::TimeWithZone,
        "time" | "time without time zone" => JsonType::Time,
        "interval" => JsonType::Duration,
        _ => return None,
    };
    Some(common)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::document::Form;

    const PLAIN: Flavour =
        Flavour { is_mysql: false, bigint_as_string: false, decimal_as_number: false, tinyint1_as_boolean: false };

    /// `public.orders (id int, note text, amount smallint)`, key `id`, in version 1.0.
    fn book() -> Book {
        let of = |type_name: &str| {
            let mut text = Vec::new();
            json_of(type_name, PLAIN).expect("built in").write_schema(true, &mut text);
            serde_json::from_slice::<Value>(&text).expect("JSON")
        };
        let document = json!({
            "$defs": {
                "key": { "properties": { "id": of("int") }, "required": ["id"] },
                "row": { "properties": { "id": of("int"), "note": of("text"), "amount": of("smallint") } },
                "whole": { "required": ["id", "note", "amount"] },
            },
        });
        assert_eq!(Form::of(&document).promised.len(), 3);
        let mut book = Book::default();
        book.insert("shop.public.orders", Version::FIRST, document);
        book
    }

    /// What is told of a migration, in short.
    fn told(sql: &str, flavour: Flavour) -> Vec<String> {
        let Forecast { types, unread } = forecast(sql, "shop", &book(), Compatibility::default(), flavour);
        let mut told = Vec::new();
        for one in types {
            let then = one.then.map_or("?".to_owned(), |version| version.to_string());
            told.push(format!("{} {then}", one.event_type));
            told.extend(one.breaks.into_iter().map(|found| found.what));
            told.extend(one.unsure.into_iter().map(|what| format!("unsure: {what}")));
        }
        told.extend(unread.into_iter().map(|(line, text)| format!("{line}: {text}")));
        told
    }

    #[test]
    fn what_a_migration_breaks_is_told_before_it_is_run() {
        for (sql, expected) in [
            ("alter table orders add column more text", &["shop.public.orders 1.1"][..]),
            ("alter table public.orders add more varchar(10) not null default 'x'", &["shop.public.orders 1.1"]),
            ("ALTER TABLE Orders DROP COLUMN Note", &["shop.public.orders 2.0", "column note is gone"]),
            ("alter table orders rename column note to remark", &["shop.public.orders 2.0", "column note is gone"]),
            (
                "alter table orders alter column amount type int",
                &[
                    "shop.public.orders 2.0",
                    "column amount was integer from -32768 to 32767 and is integer from -2147483648 to 2147483647",
                ],
            ),
            ("alter table orders alter column note type varchar(20)", &["shop.public.orders 1.0"]),
            ("alter table orders add column a int; alter table orders drop column a", &["shop.public.orders 1.0"]),
            ("drop table if exists orders", &["shop.public.orders ?", "the table is dropped"]),
            (
                "alter table orders rename to bestellungen",
                &["shop.public.orders ?", "the table is renamed to bestellungen"],
            ),
            ("alter table other.orders drop column note; alter table customers drop column note", &[]),
            ("create index on orders(note); insert into orders values (1); create table more(id int)", &[]),
        ] {
            assert_eq!(told(sql, PLAIN), expected, "{sql}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_said() {
        assert_eq!(
            told("alter table orders add column at geography(point)", PLAIN),
            ["shop.public.orders ?", "unsure: what values of type geography(point) look like, in column at"]
        );
        assert_eq!(
            told("select 1;\nalter tabel orders drop note;\nalter table orders add a int", PLAIN),
            ["shop.public.orders 1.1", "2: alter tabel orders drop note"]
        );
        assert_eq!(
            told("alter table orders drop constraint orders_pkey", PLAIN),
            ["shop.public.orders ?", "unsure: which key the table has behind it"]
        );
    }

    #[test]
    fn mysqls_words_are_read_too() {
        let mysql = Flavour { is_mysql: true, ..PLAIN };
        assert_eq!(
            told("ALTER TABLE `orders` MODIFY `NOTE` longtext, ADD COLUMN n tinyint unsigned AFTER id", mysql),
            ["shop.public.orders 1.1"]
        );
        assert_eq!(
            told("alter table orders change note remark text", mysql),
            ["shop.public.orders 2.0", "column note is gone"]
        );
        assert_eq!(told("rename table orders to o2", mysql), ["shop.public.orders ?", "the table is renamed to o2"]);
    }
}
