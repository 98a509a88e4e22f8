//! Transactions as people write them: for `figvine rules test`.

use std::collections::BTreeMap;
use std::sync::Arc;

use figvine_change::{
    Batch, Body, Cell, Change, Column, Found, JsonType, Op, Row, RowChange, Table, Transaction, ValueCodec, ValueError,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::derive::Rules;
use super::error::RuleError;
use super::settings::Settings;
use super::whole::Portion;
use crate::event::Derived;

/// A file of tests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixtures {
    /// The tests.
    pub tests: Vec<Fixture>,
}

/// A transaction, and the events that it is to give.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    /// What it shows.
    pub name: String,
    /// What is to be known of tables, by `schema.table`.
    #[serde(default)]
    pub tables: BTreeMap<String, TableFixture>,
    /// The changes.
    pub transaction: Vec<ChangeFixture>,
    /// Rows by their tables that are there beside what the transaction touched: what look-ups find. Without it none are made.
    #[serde(default)]
    pub there: Option<BTreeMap<String, Vec<Values>>>,
    /// The events.
    #[serde(default)]
    pub events: Vec<EventFixture>,
}

/// A table.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TableFixture {
    /// The columns of its key, in the order of the table; by default `id`, where it is empty none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
    /// Columns that no row of the transaction holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
    /// Types of columns that their values do not show: `numeric`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, String>,
}

/// A change: one of the operations with its table, and rows. A column that a row leaves out was not carried by the log.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeFixture {
    /// The table that a row was inserted into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insert: Option<String>,
    /// The table of which a row was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<String>,
    /// The table that a row was removed from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete: Option<String>,
    /// The row before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Map<String, Value>>,
    /// The row after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Map<String, Value>>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EventFixture {
    /// Its type with the version.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its key; not compared where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Value>,
    /// Its body; not compared where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// Values that are JSON already, of a type that may be given.
#[derive(Debug)]
struct Json {
    is_decimal: bool,
}

impl ValueCodec for Json {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        out.extend_from_slice(raw);
        Ok(())
    }

    fn json_type(&self) -> JsonType {
        // A text is no document: it is what it is.
        if self.is_decimal { JsonType::Decimal { as_string: true } } else { JsonType::Text }
    }
}

/// Why a fixture gives no events.
#[derive(Debug, thiserror::Error)]
pub enum FixtureError {
    /// Its transaction is none.
    #[error("{0}")]
    Transaction(String),
    /// The rules stop at it.
    #[error(transparent)]
    Rule(#[from] RuleError),
}

/// The columns of a row by their names.
type Values = serde_json::Map<String, Value>;

impl Fixture {
    /// What rules make of the transaction.
    ///
    /// # Errors
    /// What of it is no change, or where the rules stop.
    pub fn events(&self, settings: &Arc<Settings>) -> Result<Vec<EventFixture>, FixtureError> {
        let mut batch = self.batch().map_err(FixtureError::Transaction)?;
        let mut derived = Derived::default();
        let mut rules = Rules::new(Arc::clone(settings)).in_portions(Portion::ALL);
        let Some(there) = &self.there else {
            rules.without_lookups().derive(&mut batch, &mut derived)?;
            return Ok(EventFixture::of(&derived));
        };
        loop {
            rules.derive(&mut batch, &mut derived)?;
            let (Some(place), Some(wanted)) = (derived.goes_on.take(), rules.take_wanted()) else {
                return Ok(EventFixture::of(&derived));
            };
            derived.from = place;
            for parts in &wanted.parts {
                let name = format!("{}.{}", parts.schema, parts.table);
                let is_sought = |row: &&Values| {
                    let key = row.get(&*parts.on).map(Value::to_string);
                    wanted.keys.iter().any(|sought| Some(&*sought.json) == key.as_deref())
                };
                let rows = there.get(&name).into_iter().flatten().filter(is_sought);
                rules.found(parts.list, &wanted, &found(&batch, &name, rows))?;
            }
        }
    }

    /// The transaction as one batch; a change's ordinal is its place in the fixture.
    ///
    /// # Errors
    /// What of it is no change.
    pub fn batch(&self) -> Result<Batch, String> {
        let mut tables: Vec<(&str, Table)> = Vec::new();
        let mut changes = Vec::new();
        for (place, change) in self.transaction.iter().enumerate() {
            let (op, name) =
                change.op().ok_or_else(|| format!("change {place} is not one of insert, update, delete"))?;
            let table = self.add_rows(name, change.before.iter().chain(&change.after), &mut tables)?;
            changes.push((op, table, change));
        }
        for (name, rows) in self.there.iter().flatten().filter(|(_, rows)| !rows.is_empty()) {
            self.add_rows(name, rows, &mut tables)?;
        }
        for (name, table) in &mut tables {
            self.complete(name, table)?;
        }
        let mut made = Batch { transactions: vec![transaction()], ..Batch::default() };
        made.tables = tables.into_iter().map(|(_, table)| Arc::new(table)).collect();
        let mut data = Vec::new();
        for (place, (op, table, change)) in changes.into_iter().enumerate() {
            let mut row = |values: &Option<Values>| add_row(values.as_ref()?, table, &mut made, &mut data);
            let (before, after) = (row(&change.before), row(&change.after));
            let is_whole = match op {
                Op::Delete => before.is_some(),
                _ => after.is_some(),
            };
            if !is_whole {
                let wanted = if op == Op::Delete { "before" } else { "after" };
                return Err(format!("change {place} has no row '{wanted}'"));
            }
            let is_rekeyed = op == Op::Update
                && made.tables.get(table).is_some_and(|described| {
                    let columns = described.key.iter().filter_map(|column| described.columns.get(*column));
                    columns.into_iter().any(|column| {
                        let value = |row: &Option<Values>| row.as_ref().and_then(|row| row.get(&*column.name).cloned());
                        value(&change.before).is_some_and(|old| value(&change.after).is_some_and(|new| old != new))
                    })
                });
            let table = index(table);
            let body = RowChange { table, op, before, before_is_key: false, after, rekeyed: None };
            let halves = match is_rekeyed {
                // As connectors tell it.
                true => vec![
                    RowChange { op: Op::Delete, after: None, rekeyed: after, ..body },
                    RowChange { op: Op::Insert, before: None, rekeyed: before, ..body },
                ],
                false => vec![body],
            };
            made.changes.extend((1..).zip(halves).map(|(part, half)| Change {
                transaction: 0,
                ordinal: place as u64,
                part,
                last: false,
                body: Body::Row(half),
            }));
        }
        if let Some(change) = made.changes.last_mut() {
            change.last = true;
        }
        made.data = data.into();
        Ok(made)
    }

    /// The table's place, with the columns that rows of it show.
    fn add_rows<'a>(
        &self,
        name: &'a str,
        rows: impl IntoIterator<Item = &'a Values>,
        tables: &mut Vec<(&'a str, Table)>,
    ) -> Result<usize, String> {
        let place = match tables.iter().position(|(known, _)| *known == name) {
            Some(place) => place,
            None => {
                let (schema, own) = name.split_once('.').ok_or(format!("'{name}' is no schema.table"))?;
                let table = Table { schema: schema.into(), name: own.into(), columns: Vec::new(), key: Vec::new() };
                tables.push((name, table));
                tables.len() - 1
            }
        };
        if let Some((_, table)) = tables.get_mut(place) {
            rows.into_iter().flat_map(|row| row.keys()).for_each(|column| self.add_column(name, column, table));
        }
        Ok(place)
    }

    fn add_column(&self, name: &str, column: &str, table: &mut Table) {
        if table.columns.iter().any(|known| *known.name == *column) {
            return;
        }
        let type_name = self.tables.get(name).and_then(|given| given.types.get(column)).map_or("any", String::as_str);
        table.columns.push(Column {
            name: column.into(),
            type_name: type_name.into(),
            codec: Arc::new(Json { is_decimal: matches!(type_name, "numeric" | "decimal") }),
        });
    }

    /// Adds what no row tells.
    fn complete(&self, name: &str, table: &mut Table) -> Result<(), String> {
        let given = self.tables.get(name);
        for column in given.into_iter().flat_map(|given| &given.columns) {
            self.add_column(name, column, table);
        }
        let id = ["id".to_owned()];
        for column in given.and_then(|given| given.key.as_deref()).unwrap_or(&id) {
            let place = table.columns.iter().position(|known| *known.name == **column);
            table.key.push(place.ok_or(format!("no row of {name} has the column '{column}' of its key"))?);
        }
        Ok(())
    }
}

/// What a look-up finds where these rows are.
fn found<'a>(batch: &Batch, name: &str, rows: impl Iterator<Item = &'a Values>) -> Found {
    let table = batch.tables.iter().find(|table| table.qualified_name() == name);
    let mut made = Batch { tables: table.cloned().into_iter().collect(), ..Batch::default() };
    let mut data = Vec::new();
    for (ordinal, values) in (0..).zip(rows) {
        let Some(after) = add_row(values, 0, &mut made, &mut data) else { continue };
        let op = Op::Read;
        let read = RowChange { table: 0, op, before: None, before_is_key: false, after: Some(after), rekeyed: None };
        made.changes.push(Change { transaction: 0, ordinal, part: 1, last: false, body: Body::Row(read) });
    }
    made.data = data.into();
    Found { batch: made, is_whole: true, read_at: 0 }
}

/// Appends a row's cells and bytes.
fn add_row(values: &Values, table: usize, made: &mut Batch, data: &mut Vec<u8>) -> Option<Row> {
    let first = index(made.cells.len());
    for column in &made.tables.get(table)?.columns {
        made.cells.push(match values.get(&*column.name) {
            None => Cell::Unchanged,
            Some(Value::Null) => Cell::Null,
            Some(value) => {
                let start = index(data.len());
                data.extend_from_slice(value.to_string().as_bytes());
                Cell::Value(start..index(data.len()))
            }
        });
    }
    Some(Row { first, len: index(made.cells.len()) - first })
}

impl ChangeFixture {
    /// The operation with its table; `None` where it is none or several.
    #[must_use]
    pub fn op(&self) -> Option<(Op, &str)> {
        match (&self.insert, &self.update, &self.delete) {
            (Some(name), None, None) => Some((Op::Insert, name)),
            (None, Some(name), None) => Some((Op::Update, name)),
            (None, None, Some(name)) => Some((Op::Delete, name)),
            _ => None,
        }
    }
}

impl EventFixture {
    /// What rules made of a batch.
    #[must_use]
    pub fn of(derived: &Derived) -> Vec<Self> {
        let text = |range: &std::ops::Range<usize>| derived.bytes.get(range.clone()).unwrap_or_default();
        let told = derived.events.iter().map(|event| Self {
            event_type: event.event_type.to_string(),
            key: Some(String::from_utf8_lossy(text(&event.key)).into()),
            data: serde_json::from_slice(text(&event.body)).ok(),
        });
        told.collect()
    }

    /// Whether an event that was told is what is meant: what is left out here may be anything.
    #[must_use]
    pub fn is_met_by(&self, told: &Self) -> bool {
        let is_key = |key: &Value| match (key, &told.key) {
            (Value::String(text), Some(Value::String(told))) => text == told,
            // Several columns are told as the text of a list, one as its own text.
            (key, Some(Value::String(told))) => serde_json::from_str(told).is_ok_and(|told: Value| told == *key),
            (key, told) => Some(key) == told.as_ref(),
        };
        self.event_type == told.event_type
            && self.key.as_ref().is_none_or(is_key)
            && self.data.as_ref().is_none_or(|data| Some(data) == told.data.as_ref())
    }
}

/// What a fixture's transaction is called.
fn transaction() -> Transaction {
    Transaction {
        id: "1".into(),
        position: "0/1".into(),
        sequence: "0000000000000001".into(),
        committed_at: 0,
        start: "fixture/0".into(),
        end: Some("fixture/1".into()),
        origin: None,
        traceparent: None,
        is_ignored: false,
        file: None,
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a file that a person wrote")]
fn index(at: usize) -> u32 {
    at as u32
}
