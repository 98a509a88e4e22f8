//! Keys and bodies of domain events.

use std::collections::HashMap;
use std::sync::Arc;

use figvine_change::{Cell, Change, Table, Within};

use super::aggregate::Root;
use super::derive::Applied;
use super::error::Fault;
use super::expression::{EvalError, Scope, Side, Value};
use super::outbox;
use super::plan::TablePlan;
use super::read::write_cell;
use super::rows::Sides;
use super::settings::{CompiledKey, Rule, Settings};
use crate::event::{Derived, DomainEvent, write_key_text};

/// Notes an event of the outbox.
pub(super) fn send(sent: outbox::Sent, change: &Change, place: usize, out: &mut Derived) {
    let name: Arc<str> = sent.event_type.into();
    out.events.push(DomainEvent {
        behind: place,
        rule: Arc::from("outbox"),
        number: 0,
        event_type: Arc::clone(&name),
        name,
        about: Within { ordinal: change.ordinal, part: change.part },
        key: sent.key,
        body: sent.body,
    });
}

/// Appends an event's key as one string.
pub(super) fn write_key(rule: &Rule, scope: &Scope<'_>, applied: &Applied<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut json = Vec::new();
    let mut ends = vec![0];
    let fault = |source| Fault::Eval { rule: applied.rule, key: "key".into(), source };
    match &rule.key {
        CompiledKey::OfTable => {
            let table = &applied.table.table;
            if let Err(column) = write_table_key(table, applied.sides, &mut json, &mut ends)? {
                return Err(fault(EvalError::NotCarried(
                    table.columns.get(column).map_or("?".into(), |column| column.name.clone()),
                )));
            }
        }
        CompiledKey::Expressions(expressions) => {
            for expression in expressions {
                let values = match expression.run(scope).and_then(Value::opened).map_err(fault)? {
                    Value::List(items) => items.as_ref().clone(),
                    value => vec![value],
                };
                for value in values {
                    match value {
                        Value::Null | Value::Map(_) => return Err(fault(EvalError::Unreadable("a key"))),
                        value => value.write(&mut json),
                    }
                    ends.push(json.len());
                }
            }
        }
    }
    write_key_values(&json, &ends, out);
    Ok(())
}

fn write_key_values(json: &[u8], ends: &[usize], out: &mut Vec<u8>) {
    let values: Vec<&[u8]> = ends.windows(2).filter_map(|ends| json.get(*ends.first()?..*ends.last()?)).collect();
    write_key_text(&values, out);
}

/// Appends a row's own key as one string; `Err` where it is not known.
pub(super) fn write_row_key(table: &Table, sides: &Sides<'_>, out: &mut Vec<u8>) -> Result<(), ()> {
    let (mut json, mut ends) = (Vec::new(), vec![0]);
    match write_table_key(table, sides, &mut json, &mut ends) {
        Ok(Ok(())) => {
            write_key_values(&json, &ends, out);
            Ok(())
        }
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

/// Appends the values of a row's own key, and where each ends; `Err` names a column that the log did not carry.
fn write_table_key(
    table: &Table,
    sides: &Sides<'_>,
    json: &mut Vec<u8>,
    ends: &mut Vec<usize>,
) -> Result<Result<(), usize>, Fault> {
    let side = if sides.after.is_some() { Side::After } else { Side::Before };
    for &column in &table.key {
        let Ok(Some((row, cell))) = sides.cell(table, side, column) else { return Ok(Err(column)) };
        write_cell(table, row, cell, column, json)?;
        ends.push(json.len());
    }
    Ok(Ok(()))
}

/// Appends a row as an object, of a removal the row before; columns that the log did not carry are absent.
pub(super) fn write_row(table: &Table, sides: &Sides<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let side = if sides.after.is_some() { Side::After } else { Side::Before };
    let mut separator = b'{';
    for (column, described) in table.columns.iter().enumerate() {
        let Ok(Some((row, cell))) = sides.cell(table, side, column) else { continue };
        out.push(separator);
        separator = b',';
        figvine_change::json::write_str(&described.name, out);
        out.push(b':');
        write_cell(table, row, cell, column, out)?;
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
    Ok(())
}

/// The parts of a root as JSON, list by list.
pub(super) struct PartTexts {
    json: String,
    lists: Vec<(Box<str>, Vec<Vec<PartText>>)>,
}

struct PartText {
    name: Box<str>,
    reading: super::expression::Reading,
    at: std::ops::Range<usize>,
}

impl PartTexts {
    pub(super) fn of(
        root: &Root,
        settings: &Settings,
        rule: usize,
        plans: &HashMap<usize, Arc<TablePlan>>,
    ) -> Result<Self, Fault> {
        let mut json = Vec::new();
        let mut lists = Vec::new();
        let includes =
            settings.rules.get(rule).and_then(|rule| rule.aggregate.as_ref()).into_iter().flat_map(|a| &a.include);
        for (list, (include, parts)) in includes.zip(&root.lists).enumerate() {
            let mut items = Vec::new();
            for row in parts.rows() {
                let plan = plans.get(&Arc::as_ptr(&row.table).addr());
                let part = plan.and_then(|plan| plan.parts.iter().find(|part| part.rule == rule && part.list == list));
                let mut item = Vec::new();
                for column in part.iter().flat_map(|part| &part.columns) {
                    let view = row.view();
                    let Some(cell) = view.cells.get(column.column).filter(|cell| **cell != Cell::Unchanged) else {
                        continue;
                    };
                    let start = json.len();
                    write_cell(&row.table, view, cell, column.column, &mut json)?;
                    item.push(PartText { name: column.name.clone(), reading: column.reading, at: start..json.len() });
                }
                items.push(item);
            }
            lists.push((include.name.as_str().into(), items));
        }
        Ok(Self { json: String::from_utf8(json).unwrap_or_default(), lists })
    }

    pub(super) fn values(&self) -> impl Iterator<Item = Result<Value<'_>, EvalError>> {
        self.lists.iter().map(|(_, items)| {
            let items = items.iter().map(|item| {
                let members = item.iter().map(|part| {
                    let text = self.json.get(part.at.clone()).unwrap_or_default();
                    Ok((std::borrow::Cow::Borrowed(&*part.name), Value::of_column(text, part.reading)?))
                });
                Ok(Value::Map(std::rc::Rc::new(members.collect::<Result<_, EvalError>>()?)))
            });
            Ok(Value::List(std::rc::Rc::new(items.collect::<Result<_, EvalError>>()?)))
        })
    }

    /// Adds the lists to an object that was just closed.
    pub(super) fn append_to(&self, out: &mut Vec<u8>) {
        out.pop();
        for (name, items) in &self.lists {
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            figvine_change::json::write_str(name, out);
            out.extend_from_slice(b":[");
            for (place, item) in items.iter().enumerate() {
                out.extend_from_slice(if place > 0 { b",{" } else { b"{" });
                for (place, part) in item.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    figvine_change::json::write_str(&part.name, out);
                    out.push(b':');
                    out.extend_from_slice(self.json.get(part.at.clone()).unwrap_or_default().as_bytes());
                }
                out.push(b'}');
            }
            out.push(b']');
        }
        out.push(b'}');
    }
}
