//! Rules for a table in one shape: names resolved to places.

use std::sync::Arc;

use figvine_change::{Column, JsonType, Table};

use super::expression::{Reading, Side};
use super::nearest;
use super::outbox::{Outbox, OutboxPlan};
use super::settings::{Rule, Settings};

/// What rules do about a table.
#[derive(Debug)]
pub(super) struct TablePlan {
    pub(super) table: Arc<Table>,
    /// Of the rules that are about it.
    pub(super) rules: Vec<RulePlan>,
    /// Where it holds parts: the rule, and which of its lists.
    pub(super) parts: Vec<PartPlan>,
    /// All columns that any of the rules reads, each once.
    pub(super) read: Vec<(Side, usize)>,
    pub(super) outbox: Option<OutboxPlan>,
}

#[derive(Debug)]
pub(super) struct RulePlan {
    /// Index into the settings'.
    pub(super) rule: usize,
    /// For each of its slots: the place in [`TablePlan::read`], and how it is read.
    pub(super) slots: Vec<(usize, Reading)>,
    /// Columns of which one must have changed.
    pub(super) changed: Vec<usize>,
    /// Of each side that an expression wants whole: the columns with their slots.
    pub(super) rows: [Vec<(Box<str>, usize)>; 2],
}

#[derive(Debug)]
pub(super) struct PartPlan {
    pub(super) rule: usize,
    pub(super) list: usize,
    /// The column with the root's key.
    pub(super) on: usize,
    /// The columns of each part.
    pub(super) columns: Vec<PartColumn>,
}

#[derive(Debug, Clone)]
pub(super) struct PartColumn {
    pub(super) column: usize,
    pub(super) name: Box<str>,
    pub(super) reading: Reading,
}

/// A rule that does not fit its table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule {rule} does not fit table {table}: {what}")]
pub struct PlanError {
    /// The rule.
    pub rule: Box<str>,
    /// `schema.table`.
    pub table: Box<str>,
    /// What does not fit.
    pub what: String,
}

/// How a column's JSON is to be read.
pub(super) fn reading(column: &Column) -> Reading {
    match column.codec.json_type() {
        JsonType::Decimal { .. } => Reading::Decimal,
        JsonType::Float => Reading::Float,
        JsonType::Any | JsonType::Array(_) | JsonType::List(_) | JsonType::Object(_) | JsonType::Map(_) => {
            Reading::Document
        }
        _ => Reading::Plain,
    }
}

impl TablePlan {
    pub(super) fn new(settings: &Settings, table: &Arc<Table>) -> Result<Self, PlanError> {
        let mut plan = Self {
            table: Arc::clone(table),
            rules: Vec::new(),
            parts: Vec::new(),
            read: Vec::new(),
            outbox: settings.outbox.as_ref().map(|outbox| outbox.plan(table)).transpose()?.flatten(),
        };
        for (index, rule) in settings.rules.iter().enumerate() {
            if *rule.schema == *table.schema && *rule.table == *table.name {
                plan.add_rule(index, rule)?;
            }
            for (list, include) in rule.aggregate.iter().flat_map(|aggregate| aggregate.include.iter().enumerate()) {
                if include.place(&rule.schema) != (&*table.schema, &*table.name) {
                    continue;
                }
                let place = |name: &str| column_of(table, name).map_err(|what| mismatch(rule, table, what));
                if table.key.is_empty() {
                    return Err(mismatch(
                        rule,
                        table,
                        "parts of an aggregate are told apart by their key, and it has none".into(),
                    ));
                }
                let columns = match include.columns.as_slice() {
                    [] => (0..table.columns.len()).collect(),
                    columns => columns.iter().map(|name| place(name)).collect::<Result<Vec<_>, _>>()?,
                };
                let columns = columns.into_iter().filter_map(|column| {
                    let described = table.columns.get(column)?;
                    Some(PartColumn { column, name: described.name.clone(), reading: reading(described) })
                });
                plan.parts.push(PartPlan { rule: index, list, on: place(&include.on)?, columns: columns.collect() });
            }
        }
        Ok(plan)
    }

    fn add_rule(&mut self, index: usize, rule: &Rule) -> Result<(), PlanError> {
        let table = Arc::clone(&self.table);
        let place = |name: &str| column_of(&table, name).map_err(|what| mismatch(rule, &table, what));
        let mut slots = Vec::new();
        for (side, name) in &rule.names.columns {
            let column = place(name)?;
            slots.push((self.read(*side, column), table.columns.get(column).map_or(Reading::Plain, reading)));
        }
        let mut rows = [Vec::new(), Vec::new()];
        for side in [Side::After, Side::Before] {
            if rule.names.rows.get(side as usize) == Some(&true)
                && let Some(row) = rows.get_mut(side as usize)
            {
                for (column, described) in table.columns.iter().enumerate() {
                    slots.push((self.read(side, column), reading(described)));
                    row.push((described.name.clone(), slots.len() - 1));
                }
            }
        }
        if rule.aggregate.is_some() && table.key.len() != 1 {
            return Err(mismatch(rule, &table, "the root of an aggregate needs a key of one column".into()));
        }
        let changed = rule.changed.iter().map(|name| place(name)).collect::<Result<_, _>>()?;
        self.rules.push(RulePlan { rule: index, slots, changed, rows });
        Ok(())
    }

    fn read(&mut self, side: Side, column: usize) -> usize {
        let known = self.read.iter().position(|known| *known == (side, column));
        known.unwrap_or_else(|| {
            self.read.push((side, column));
            self.read.len() - 1
        })
    }

    /// Whether no rule says anything of it.
    pub(super) fn is_idle(&self) -> bool {
        self.rules.is_empty() && self.parts.is_empty() && self.outbox.is_none()
    }
}

fn mismatch(rule: &Rule, table: &Table, what: String) -> PlanError {
    PlanError { rule: (*rule.name).into(), table: table.qualified_name().into(), what }
}

/// The place of a column.
pub(super) fn column_of(table: &Table, name: &str) -> Result<usize, String> {
    table.columns.iter().position(|column| *column.name == *name).ok_or_else(|| {
        let near = nearest(name, table.columns.iter().map(|column| &*column.name));
        format!("there is no column '{name}'{near}")
    })
}

impl Outbox {
    /// What it does about a table; nothing about most.
    ///
    /// # Errors
    /// When the table is the outbox and lacks a column.
    fn plan(&self, table: &Arc<Table>) -> Result<Option<OutboxPlan>, PlanError> {
        if !self.is_table(&table.schema, &table.name) {
            return Ok(None);
        }
        OutboxPlan::new(self, table).map(Some).map_err(|what| PlanError {
            rule: "outbox".into(),
            table: table.qualified_name().into(),
            what,
        })
    }
}
