//! Transactions as people write them: for `figvine rules test`.

use std::collections::BTreeMap;
use std::sync::Arc;

use figvine_change::{
    Batch, Body, Cell, Change, Column, JsonType, Op, Row, RowChange, Table, Transaction, ValueCodec, ValueError,
};
use serde::Deserialize;
use serde_json::Value;

/// A file of tests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixtures {
    /// The tests.
    pub tests: Vec<Fixture>,
}

/// A transaction, and the events that it is to give.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fixture {
    /// What it shows.
    pub name: String,
    /// What is to be known of tables, by `schema.table`.
    #[serde(default)]
    pub tables: BTreeMap<String, TableFixture>,
    /// The changes.
    pub transaction: Vec<ChangeFixture>,
    /// The events.
    #[serde(default)]
    pub events: Vec<EventFixture>,
}

/// A table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFixture {
    /// The columns of its key; by default `id`.
    #[serde(default)]
    pub key: Vec<String>,
    /// Types of columns that their values do not show: `numeric`.
    #[serde(default)]
    pub types: BTreeMap<String, String>,
}

/// A change: one of the operations with its table, and rows. A column that a row leaves out was not carried by the log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeFixture {
    /// The table that a row was inserted into.
    pub insert: Option<String>,
    /// The table of which a row was changed.
    pub update: Option<String>,
    /// The table that a row was removed from.
    pub delete: Option<String>,
    /// The row before.
    pub before: Option<serde_json::Map<String, Value>>,
    /// The row after.
    pub after: Option<serde_json::Map<String, Value>>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Deserialize, serde::Serialize)]
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

impl Fixture {
    /// The transaction as one batch.
    ///
    /// # Errors
    /// What of it is no change.
    pub fn batch(&self) -> Result<Batch, String> {
        let mut tables: Vec<(String, Table)> = Vec::new();
        let mut changes = Vec::new();
        for (place, change) in self.transaction.iter().enumerate() {
            let (op, name) = match (&change.insert, &change.update, &change.delete) {
                (Some(name), None, None) => (Op::Insert, name),
                (None, Some(name), None) => (Op::Update, name),
                (None, None, Some(name)) => (Op::Delete, name),
                _ => return Err(format!("change {place} is not one of insert, update, delete")),
            };
            let table = match tables.iter().position(|(known, _)| known == name) {
                Some(table) => table,
                None => {
                    let (schema, own) = name.split_once('.').ok_or(format!("'{name}' is no schema.table"))?;
                    tables.push((
                        name.clone(),
                        Table { schema: schema.into(), name: own.into(), columns: Vec::new(), key: Vec::new() },
                    ));
                    tables.len() - 1
                }
            };
            let given = self.tables.get(name);
            if let Some((_, table)) = tables.get_mut(table) {
                for column in change.before.iter().chain(&change.after).flat_map(|row| row.keys()) {
                    if !table.columns.iter().any(|known| *known.name == **column) {
                        let type_name = given.and_then(|given| given.types.get(column)).map_or("any", String::as_str);
                        table.columns.push(Column {
                            name: column.as_str().into(),
                            type_name: type_name.into(),
                            codec: Arc::new(Json { is_decimal: matches!(type_name, "numeric" | "decimal") }),
                        });
                    }
                }
            }
            changes.push((op, table, change));
        }
        for (name, table) in &mut tables {
            let id = ["id".to_owned()];
            let key =
                self.tables.get(name).map(|given| given.key.as_slice()).filter(|key| !key.is_empty()).unwrap_or(&id);
            for column in key {
                let place = table.columns.iter().position(|known| *known.name == **column);
                table.key.push(place.ok_or(format!("no row of {name} has the column '{column}' of its key"))?);
            }
        }
        let mut made = Batch { transactions: vec![transaction()], ..Batch::default() };
        made.tables = tables.into_iter().map(|(_, table)| Arc::new(table)).collect();
        let mut data = Vec::new();
        let count = changes.len();
        for (place, (op, table, change)) in changes.into_iter().enumerate() {
            let mut row = |values: &Option<serde_json::Map<String, Value>>| -> Option<Row> {
                let values = values.as_ref()?;
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
            };
            let (before, after) = (row(&change.before), row(&change.after));
            let is_whole = match op {
                Op::Delete => before.is_some(),
                _ => after.is_some(),
            };
            if !is_whole {
                let wanted = if op == Op::Delete { "before" } else { "after" };
                return Err(format!("change {place} has no row '{wanted}'"));
            }
            let body = RowChange { table: index(table), op, before, before_is_key: false, after, rekeyed: None };
            made.changes.push(Change {
                transaction: 0,
                ordinal: place as u64,
                part: 1,
                last: place + 1 == count,
                body: Body::Row(body),
            });
        }
        made.data = data.into();
        Ok(made)
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
