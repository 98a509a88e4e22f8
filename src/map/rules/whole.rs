//! Wholes of a transaction: rows are collected while it passes, and told at its end.

use std::sync::Arc;

use figvine_change::{Cell, Change, Within};

use super::aggregate::{Held, OnLarge};
use super::derive::{Applied, Rules};
use super::error::Fault;
use super::plan::{PartPlan, TablePlan};
use super::read::write_cell;
use super::rows::{OwnedRow, RowRef, Seen, Sides};
use super::settings::Rule;
use crate::event::{Derived, DomainEvent};

impl Rules {
    /// Notes what aggregates need of a change.
    pub(super) fn collect(
        &mut self,
        plan: &Arc<TablePlan>,
        seen: &Seen<'_>,
        at: Within,
        place: usize,
        out: &mut Derived,
    ) -> Result<(), Fault> {
        let settings = Arc::clone(&self.settings);
        let was_idle = self.held.iter().all(Held::is_empty);
        let key_of = |row: RowRef<'_>| -> Result<Vec<u8>, Fault> {
            let mut key = Vec::new();
            for &column in &plan.table.key {
                let cell = row.cells.get(column).unwrap_or(&Cell::Null);
                write_cell(&plan.table, row, cell, column, &mut key)?;
                key.push(b',');
            }
            key.pop();
            Ok(key)
        };
        for rule_plan in &plan.rules {
            let Some(rule) = settings.rules.get(rule_plan.rule) else { continue };
            let Some(aggregate) = &rule.aggregate else { continue };
            self.say(rule, place, false, || "held until the transaction ends".into());
            let Some(held) = self.held.get_mut(rule_plan.rule) else { continue };
            let limits = (aggregate.include.len(), aggregate.max_bytes);
            match seen {
                Seen::Row(sides) => {
                    let Some(row) = sides.after.or(sides.before) else { continue };
                    held.touch((&plan.table, sides), &key_of(row)?, at, limits);
                }
                Seen::Rekeyed(old) => held.rekey(&key_of(*old)?, at, limits),
                Seen::Nothing => {}
            }
        }
        for part in &plan.parts {
            let PartPlan { rule, list, on, .. } = part;
            let Some(named) = settings.rules.get(*rule) else { continue };
            let Some(aggregate) = &named.aggregate else { continue };
            self.say(named, place, false, || "held as a part until the transaction ends".into());
            let Some(held) = self.held.get_mut(*rule) else { continue };
            let lists = (*list, aggregate.include.len());
            let root_of = |row: RowRef<'_>, is_key: bool| -> Result<Option<Vec<u8>>, Fault> {
                let is_there = !is_key || plan.table.key.contains(on);
                let Some(cell @ Cell::Value(_)) = row.cells.get(*on).filter(|_| is_there) else { return Ok(None) };
                let mut root = Vec::new();
                write_cell(&plan.table, row, cell, *on, &mut root)?;
                Ok(Some(root))
            };
            let (gone, come, is_key) = match seen {
                Seen::Row(sides) => (sides.before, sides.after, sides.before_is_key),
                Seen::Rekeyed(old) => (Some(*old), None, true),
                Seen::Nothing => continue,
            };
            let now = come.map(|row| Ok::<_, Fault>((row, root_of(row, false)?, key_of(row)?))).transpose()?;
            if let Some(gone) = gone {
                let key = key_of(gone)?;
                let stays = now.as_ref().is_some_and(|(_, root, new)| {
                    *new == key && root_of(gone, is_key).is_ok_and(|old| old.is_none() || old == *root)
                });
                match root_of(gone, is_key)? {
                    _ if stays => {}
                    Some(root) => held.part((&root, &key), None, lists, aggregate.max_bytes),
                    None => held.part_gone(&key, *list, aggregate.max_bytes),
                }
            }
            if let Some((row, Some(root), key)) = now {
                held.part((&root, &key), Some((&plan.table, row)), lists, aggregate.max_bytes);
            }
        }
        if was_idle && self.held.iter().any(|held| !held.is_empty()) {
            out.holds.push(place);
        }
        Ok(())
    }

    /// Tells the aggregates of a transaction that ends.
    pub(super) fn complete(&mut self, change: &Change, place: usize, out: &mut Derived) -> Result<(), Fault> {
        let settings = Arc::clone(&self.settings);
        for (index, rule) in settings.rules.iter().enumerate() {
            let Some(held) = self.held.get_mut(index).filter(|held| !held.is_empty()).map(std::mem::take) else {
                continue;
            };
            let on_large = rule.aggregate.as_ref().map(|aggregate| aggregate.on_large).unwrap_or_default();
            if let Some(rows) = held.overflow() {
                match on_large {
                    OnLarge::Stop => return Err(Fault::TooLarge { rule: index, rows }),
                    OnLarge::Park => self.park(rule, rows, change, place, out),
                }
                continue;
            }
            let mut number = 0;
            for root in held.roots() {
                let (Some(on), Some(about)) = (root.on(), root.about) else { continue };
                let Some(row) = root.after.as_ref().or(root.before.as_ref()) else { continue };
                let plan = self.plan(&row.table)?;
                let Some(rule_plan) = plan.rules.iter().find(|plan| plan.rule == index) else { continue };
                let sides = Sides {
                    on,
                    after: root.after.as_ref().map(OwnedRow::view),
                    before: root.before.as_ref().map(OwnedRow::view),
                    before_is_key: root.before_is_key,
                };
                if !self.matches(rule, (&plan, rule_plan), &sides, place)? {
                    continue;
                }
                self.read.load(&plan, &sides)?;
                let applied = Applied {
                    rule: index,
                    table: &plan,
                    plan: rule_plan,
                    sides: &sides,
                    about,
                    behind: place,
                    number,
                    root: Some(root),
                };
                number += u32::from(self.apply(rule, &applied, out)?);
            }
        }
        Ok(())
    }

    /// Says that a rule's events of this transaction are missing.
    fn park(&mut self, rule: &Rule, rows: u64, change: &Change, place: usize, out: &mut Derived) {
        tracing::warn!(
            rule = &*rule.name, transaction = %self.transaction, rows,
            "a transaction is larger than aggregate.max_bytes: one event says that those of the rule are missing"
        );
        let key_at = out.bytes.len();
        out.bytes.extend_from_slice(self.transaction.as_bytes());
        let body_at = out.bytes.len();
        out.bytes.extend_from_slice(b"{\"rule\":");
        figvine_change::json::write_str(&rule.name, &mut out.bytes);
        out.bytes.extend_from_slice(b",\"reason\":\"too_large\",\"rows\":");
        figvine_change::json::write_uint(rows, &mut out.bytes);
        out.bytes.push(b'}');
        let name: Arc<str> = format!("{}_missing", rule.event_type).into();
        out.events.push(DomainEvent {
            behind: place,
            rule: Arc::clone(&rule.name),
            number: 0,
            event_type: format!("{name}.v1").into(),
            name,
            about: Within { ordinal: change.ordinal, part: change.part },
            key: key_at..body_at,
            body: body_at..out.bytes.len(),
        });
    }
}
