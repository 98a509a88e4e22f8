//! Wholes of a transaction: rows are collected while it passes, and told at its end.

use std::sync::Arc;

use figvine_change::{Cell, Table, Within};

use super::aggregate::{Held, Limits, OnLarge, Root};
use super::derive::{Applied, Rules};
use super::error::Fault;
use super::park::{At, Lost};
use super::plan::{PartPlan, TablePlan};
use super::read::write_cell;
use super::rows::{RowRef, Seen};
use super::settings::{Aggregate, Rule};
use crate::event::Derived;

/// How much is told of the wholes of a transaction at once.
#[derive(Debug, Clone, Copy)]
pub struct Portion {
    events: usize,
    bytes: usize,
    roots: usize,
    /// Events and bytes that were there before.
    begun: (usize, usize),
}

/// How far the wholes of a transaction are told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Telling {
    pub(super) rule: usize,
    /// The next of its roots.
    pub(super) root: usize,
    /// Events of the rule so far.
    number: u32,
}

impl Default for Portion {
    fn default() -> Self {
        Self { events: 1000, bytes: 1 << 20, roots: 10_000, begun: (0, 0) }
    }
}

impl Portion {
    /// All at once.
    pub const ALL: Self = Self { events: usize::MAX, bytes: usize::MAX, roots: usize::MAX, begun: (0, 0) };

    /// So many events, or of so many roots what they are: most may be told by none. One of each at least.
    #[must_use]
    pub fn of(events: usize, roots: usize) -> Self {
        Self { events: events.max(1), roots: roots.max(1), ..Self::ALL }
    }

    pub(super) fn begin(&mut self, out: &Derived) {
        self.begun = (out.events.len(), out.bytes.len());
    }

    fn is_full(&self, roots: usize, out: &Derived, letter_bytes: usize) -> bool {
        let (events, bytes) = self.begun;
        roots >= self.roots
            || out.events.len() >= events.saturating_add(self.events)
            || out.bytes.len() + letter_bytes >= bytes.saturating_add(self.bytes)
    }
}

/// A row's key as text.
pub(super) fn key_text(table: &Table, row: RowRef<'_>) -> Result<Vec<u8>, Fault> {
    let mut key = Vec::new();
    for &column in &table.key {
        let cell = row.cells.get(column).unwrap_or(&Cell::Null);
        write_cell(table, row, cell, column, &mut key)?;
        key.push(b',');
    }
    key.pop();
    Ok(key)
}

impl Aggregate {
    fn limits(&self) -> Limits {
        Limits { lists: self.include.len(), max_bytes: self.max_bytes, on_large: self.on_large }
    }
}

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
        let key_of = |row: RowRef<'_>| key_text(&plan.table, row);
        for rule_plan in &plan.rules {
            let Some(rule) = settings.rules.get(rule_plan.rule) else { continue };
            let Some(aggregate) = &rule.aggregate else { continue };
            self.say(rule, place, false, || "held until the transaction ends".into());
            let Some(held) = self.held.get_mut(rule_plan.rule) else { continue };
            let limits = aggregate.limits();
            let noted = match seen {
                Seen::Row(sides) => {
                    let Some(row) = sides.after.or(sides.before) else { continue };
                    held.touch((&plan.table, sides), &key_of(row)?, at, limits)
                }
                Seen::Rekeyed(old) => held.rekey(&key_of(*old)?, at, limits),
                Seen::Nothing => Ok(()),
            };
            noted.map_err(|source| Fault::Spill { rule: rule_plan.rule, source })?;
        }
        for part in &plan.parts {
            let PartPlan { rule, list, on, .. } = part;
            let Some(named) = settings.rules.get(*rule) else { continue };
            let Some(aggregate) = &named.aggregate else { continue };
            self.say(named, place, false, || "held as a part until the transaction ends".into());
            let Some(held) = self.held.get_mut(*rule) else { continue };
            let limits = aggregate.limits();
            let fault = |source| Fault::Spill { rule: *rule, source };
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
                    Some(root) => held.part(&root, (*list, key), None, limits).map_err(fault)?,
                    None => held.part_gone(*list, &key),
                }
            }
            if let Some((row, Some(root), key)) = now {
                held.part(&root, (*list, key), Some((&plan.table, row)), limits).map_err(fault)?;
            }
        }
        if was_idle && self.held.iter().any(|held| !held.is_empty()) {
            out.holds.push(place);
        }
        Ok(())
    }

    /// Tells the wholes of a transaction that ends, or a portion of them: then `telling` says how far it came.
    pub(super) fn complete(&mut self, at: At<'_>, out: &mut Derived) -> Result<(), Fault> {
        let settings = Arc::clone(&self.settings);
        let mut telling = self.telling.take().unwrap_or_default();
        let mut seen = 0;
        while let Some(rule) = settings.rules.get(telling.rule) {
            let index = telling.rule;
            let held = self.held.get_mut(index).filter(|held| !held.is_empty()).map(std::mem::take);
            if let (Some(mut held), Some(aggregate)) = (held, &rule.aggregate) {
                if let Some(rows) = held.overflow() {
                    let fault = Fault::TooLarge { rule: index, rows };
                    match aggregate.on_large {
                        OnLarge::Stop => return Err(fault),
                        OnLarge::Park | OnLarge::Spill => self.park(&Lost::of(rule, at, at.within()), fault, out),
                    }
                }
                let looks_up = self.looks_up && rule.looks_up();
                while telling.root < held.roots() {
                    if self.portion.is_full(seen, out, self.letter_bytes)
                        || looks_up && self.ahead.is_empty() && self.look_ahead(telling, &mut held, at)?
                    {
                        if let Some(kept) = self.held.get_mut(index) {
                            *kept = held;
                        }
                        self.telling = Some(telling);
                        return Ok(());
                    }
                    let root = match looks_up {
                        true => self.ahead.next(),
                        false => self.take_root(index, &mut held, telling.root)?,
                    };
                    if let Some(root) = root {
                        telling.number += u32::from(self.tell(rule, (&root, telling), at, out)?);
                    }
                    telling.root += 1;
                    seen += 1;
                }
            }
            telling = Telling { rule: index + 1, ..Telling::default() };
        }
        Ok(())
    }

    /// Takes one of the roots of a rule out; `None` at most where it was not touched itself.
    pub(super) fn take_root(&self, rule: usize, held: &mut Held, place: usize) -> Result<Option<Root>, Fault> {
        let aggregate = self.settings.rules.get(rule).and_then(|rule| rule.aggregate.as_ref());
        let lists = aggregate.map_or(0, |aggregate| aggregate.include.len());
        held.take(place, lists).map_err(|source| Fault::Spill { rule, source })
    }

    /// Tells a whole, where it is to be told; whether it was.
    fn tell(
        &mut self,
        rule: &Rule,
        (root, Telling { rule: index, number, .. }): (&Root, Telling),
        at: At<'_>,
        out: &mut Derived,
    ) -> Result<bool, Fault> {
        let Some((about, row, sides)) = root.sides() else { return Ok(false) };
        let plan = self.plan(&row.table)?;
        let Some(rule_plan) = plan.rules.iter().find(|plan| plan.rule == index) else { return Ok(false) };
        let applied = Applied {
            rule: index,
            table: &plan,
            plan: rule_plan,
            sides: &sides,
            about,
            behind: at.place,
            number,
            root: Some(root),
        };
        let made = match root.is_beyond {
            true => Err(Fault::Beyond { rule: index }),
            false => self.one(rule, &applied, &mut false, out),
        };
        match made {
            Err(fault) if self.is_parked(&fault) => {
                let (row, root) = (Some((&*plan, &sides)), Some((index, root)));
                self.park(&Lost { number, row, root, ..Lost::of(rule, at, about) }, fault, out);
                Ok(true)
            }
            is_made => is_made,
        }
    }
}
