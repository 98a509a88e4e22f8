//! A transaction as the stream tells it, turned back into what rules read.
//!
//! Events do not tell the types of columns: strings that look like decimals are taken for such. They tell no change that
//! a rule told by its own event alone.

use std::collections::{BTreeMap, BTreeSet};

use figvine_change::Op;
use serde_json::{Map, Value};

use crate::cli::render::{Change, Domain, Member};
use crate::map::rules::{ChangeFixture, Fixture, Settings, TableFixture};

/// What the stream holds of a transaction.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) id: String,
    pub(super) committed_at: String,
    /// Its row changes, in order.
    pub(super) rows: Vec<Row>,
    /// Events of it that rules do not look at: `truncate public.orders`.
    pub(super) others: Vec<String>,
    /// Places of changes, `ordinal.part`, that events stand for.
    told: BTreeSet<String>,
    /// Those that domain events are about.
    meant: BTreeSet<String>,
    /// The first half of a change of a key, until the second comes.
    rekeyed: Option<Map<String, Value>>,
    tables: BTreeMap<String, Columns>,
}

/// A row change as people read it.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) change: ChangeFixture,
}

/// What events tell of a table's columns.
#[derive(Debug, Default)]
struct Columns {
    key: Vec<String>,
    unchanged: BTreeSet<String>,
    /// Whether all texts of a column look like numbers, and one of them like a decimal.
    texts: BTreeMap<String, (bool, bool)>,
}

/// The transaction of a `ce-id`, or of a position itself: what stands before the ordinal.
pub(super) fn position_of(text: &str) -> &str {
    let is_ordinal = |text: &str| {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.split_once('.').is_some_and(|(ordinal, part)| digits(ordinal) && digits(part))
    };
    match text.rsplit_once('/') {
        Some((position, ordinal)) if is_ordinal(ordinal) => position,
        // A rule's name stands behind the ordinal.
        Some((id, _)) => match id.rsplit_once('/') {
            Some((position, ordinal)) if is_ordinal(ordinal) => position,
            _ => text,
        },
        None => text,
    }
}

impl Recorded {
    /// Whether nothing of the transaction was met yet.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.others.is_empty() && self.meant.is_empty() && self.rekeyed.is_none()
    }

    /// Adds an event of a change.
    pub(super) fn add(&mut self, change: &Change<'_>) {
        self.id.clone_from(&change.transaction);
        self.committed_at.clone_from(&change.committed_at);
        self.told.extend(change.id.rsplit_once('/').map(|(_, place)| place.to_owned()));
        let mut made = ChangeFixture::default();
        let table = Some(change.table.clone());
        match &*change.op {
            "insert" if change.rekeyed.is_some() => {
                made.update = table;
                made.before = self.rekeyed.take();
            }
            "delete" if change.rekeyed.is_some() => {
                self.look(change);
                self.rekeyed = Some(values(&change.before));
                return;
            }
            "insert" => made.insert = table,
            "update" => made.update = table,
            "delete" => made.delete = table,
            op => return self.others.push(format!("{op} {}", change.table).trim_end().to_owned()),
        }
        self.look(change);
        if !change.before.is_empty() {
            made.before = Some(values(&change.before));
        }
        if made.delete.is_none() {
            made.after = Some(values(&change.after));
        }
        self.rows.push(Row { key: change.key.clone(), change: made });
    }

    /// Notes a domain event: it tells at least of which change it is.
    pub(super) fn add_domain(&mut self, domain: &Domain<'_>) {
        if self.id.is_empty() {
            self.id.clone_from(&domain.transaction);
            self.committed_at.clone_from(&domain.committed_at);
        }
        let place = domain.id.rsplit_once('/').and_then(|(id, _)| id.rsplit_once('/'));
        self.meant.extend(place.map(|(_, place)| place.to_owned()));
    }

    /// How many changes are told by domain events alone, at least.
    pub(super) fn untold(&self) -> usize {
        self.meant.difference(&self.told).count()
    }

    fn look(&mut self, change: &Change<'_>) {
        let columns = self.tables.entry(change.table.clone()).or_default();
        columns.key = change.key_columns.iter().map(ToString::to_string).collect();
        columns.unchanged.extend(change.unchanged.iter().map(ToString::to_string));
        for (name, value) in change.before.iter().chain(&change.after) {
            let Some(text) = crate::cli::render::string(value) else { continue };
            let (is_number, is_decimal) = number(&text);
            let (all, any) = columns.texts.entry(name.to_string()).or_insert((true, false));
            *all &= is_number;
            *any |= is_decimal;
        }
    }

    /// The transaction for the rules: tables have the columns that rules speak of, whether an event tells them or not.
    pub(super) fn fixture(self, name: String, settings: &Settings) -> Fixture {
        let tables = self.tables.into_iter().map(|(table, told)| {
            let types = told.texts.into_iter().filter(|(_, (all, any))| *all && *any);
            let mut columns = told.unchanged;
            columns.extend(settings.columns_of(&table).into_iter().map(str::to_owned));
            let in_a_row = |column: &String| {
                self.rows.iter().any(|row| {
                    let rows = row.change.before.iter().chain(&row.change.after);
                    row.change.op().is_some_and(|(_, name)| name == table)
                        && rows.into_iter().any(|row| row.contains_key(column))
                })
            };
            columns.retain(|column| !in_a_row(column));
            let fixture = TableFixture {
                key: Some(told.key),
                columns: columns.into_iter().collect(),
                types: types.map(|(column, _)| (column, "numeric".to_owned())).collect(),
            };
            (table, fixture)
        });
        let tables = tables.collect();
        Fixture {
            name,
            tables,
            transaction: self.rows.into_iter().map(|row| row.change).collect(),
            ..Fixture::default()
        }
    }
}

/// As people name an operation, with its table.
pub(super) fn op_of(change: &ChangeFixture) -> (&'static str, &str) {
    match change.op() {
        Some((Op::Insert, table)) => ("insert", table),
        Some((Op::Update, table)) => ("update", table),
        Some((Op::Delete, table)) => ("delete", table),
        _ => ("?", ""),
    }
}

fn values(row: &[Member<'_>]) -> Map<String, Value> {
    row.iter().filter_map(|(name, value)| Some((name.to_string(), serde_json::from_str(value).ok()?))).collect()
}

/// Whether a text is digits with a sign, and whether it is such with a fraction.
fn number(text: &str) -> (bool, bool) {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    match unsigned.split_once('.') {
        Some((whole, fraction)) => {
            let is_decimal = digits(whole) && digits(fraction);
            (is_decimal, is_decimal)
        }
        None => (digits(unsigned), false),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(body: &Value) -> Change<'static> {
        // A test's bodies may stay.
        Change::of(None, body.to_string().leak().as_bytes()).expect("a change")
    }

    fn change(op: &str, key: Value, before: Value, after: Value, rekeyed: Option<i32>) -> Change<'static> {
        let source = json!({ "name": "shop", "schema": "public", "table": "orders", "position": "0/9" });
        let mut body = json!({ "op": op, "key": key, "before": before, "after": after, "unchanged": ["note"] });
        body["source"] = source;
        if let Some(id) = rekeyed {
            body["rekeyed"] = json!({ "id": id });
        }
        told(&body)
    }

    #[test]
    fn a_position_is_what_stands_before_the_ordinal() {
        for (text, position) in [
            ("0/16B3748", "0/16B3748"),
            ("0/16B3748/3.1", "0/16B3748"),
            ("0/16B3748/3.1/order_placed", "0/16B3748"),
            ("3E11FA47-71CA-11E1-9E33-C80AA9429562:23/0.1", "3E11FA47-71CA-11E1-9E33-C80AA9429562:23"),
            ("0-1-23/4.1/x", "0-1-23"),
            ("binlog.000003:1234", "binlog.000003:1234"),
        ] {
            assert_eq!(position_of(text), position);
        }
    }

    #[test]
    fn a_transaction_is_what_its_events_tell() {
        let mut recorded = Recorded::default();
        let row = |id: i32, total: &str| json!({ "id": id, "total": total, "zip": "0123", "n": "1.5x" });
        recorded.add(&change("insert", json!({ "id": 1 }), Value::Null, row(1, "7"), None));
        recorded.add(&change("delete", json!({ "id": 1 }), row(1, "7"), Value::Null, Some(2)));
        recorded.add(&change("insert", json!({ "id": 2 }), Value::Null, row(2, "-7.50"), Some(1)));
        recorded.add(&change("truncate", Value::Null, Value::Null, Value::Null, None));
        assert_eq!(recorded.others, ["truncate public.orders"]);
        let fixture = recorded.fixture("t".into(), &Settings::default());
        let table = &fixture.tables["public.orders"];
        assert_eq!(table.key.as_deref(), Some(&["id".to_owned()][..]));
        assert_eq!(table.columns, ["note"], "it is a column, if one without values");
        assert_eq!(table.types, [("total".to_owned(), "numeric".to_owned())].into());
        let ops: Vec<_> = fixture.transaction.iter().map(op_of).collect();
        assert_eq!(ops, [("insert", "public.orders"), ("update", "public.orders")]);
        let batch = fixture.batch().expect("changes");
        let places: Vec<_> = batch.changes.iter().map(|change| (change.ordinal, change.part, change.last)).collect();
        assert_eq!(places, [(0, 1, false), (1, 1, false), (1, 2, true)], "a key change has two halves");
    }
}
