//! From changes to events.

use std::collections::HashMap;
use std::sync::Arc;

use figvine_change::{Batch, Body, Change, RowChange, Table, Transaction, Within};

use super::aggregate::{Held, Root};
use super::error::{Fault, RuleError};
use super::expression::{Scope, Side, Slot, Value};
use super::look::{Ahead, Wanted};
use super::outbox;
use super::park::{At, Lost};
use super::plan::{RulePlan, TablePlan};
use super::read::{Read, TxText};
use super::rows::{Seen, Sides};
use super::settings::{CompiledData, On, Rule, Settings};
use super::tell::{PartTexts, send, write_key, write_row};
use super::whole::{Portion, Telling};
use crate::event::{Derived, DomainEvent, Identity, Letter};

/// Tables whose plans are kept. A connector makes a table anew when its shape may have changed.
const PLANS_MAX: usize = 4096;

/// What became of one rule at one change; for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The change's place in the batch.
    pub change: usize,
    /// The rule.
    pub rule: Arc<str>,
    /// Whether it made an event.
    pub matched: bool,
    /// Why, or why not.
    pub why: String,
}

/// One source's rules at work. What it holds of an open transaction is kept from batch to batch.
pub struct Rules {
    pub(super) settings: Arc<Settings>,
    /// By the tables' addresses; each plan holds its table, so that no other comes to stand there.
    pub(super) plans: HashMap<usize, Arc<TablePlan>>,
    /// Of each rule.
    pub(super) held: Vec<Held>,
    /// The position of the transaction that this is of.
    pub(super) transaction: String,
    /// Whether the row before of a removal that is half of a key change holds the key alone, and the removal's ordinal.
    old_is_key: Option<(u64, bool)>,
    pub(super) read: Read,
    tx: TxText,
    explained: Option<Vec<Explained>>,
    pub(super) is_parking: bool,
    pub(super) letters: Vec<Letter>,
    /// Of their bodies.
    pub(super) letter_bytes: usize,
    /// The rules' names in the order in which their events stand behind one change.
    order: Arc<[Arc<str>]>,
    pub(super) portion: Portion,
    /// How far the wholes of a transaction are told that has more of them.
    pub(super) telling: Option<Telling>,
    /// Whether parts are looked up where a rule says so.
    pub(super) looks_up: bool,
    /// Roots that are told next, with what was looked up for them.
    pub(super) ahead: Ahead,
    /// The same of other rules, as long as the batch is the same.
    pub(super) aside: HashMap<usize, Ahead>,
    pub(super) wanted: Option<Wanted>,
}

/// What one rule is applied to.
pub(super) struct Applied<'a> {
    pub(super) rule: usize,
    pub(super) table: &'a TablePlan,
    pub(super) plan: &'a RulePlan,
    pub(super) sides: &'a Sides<'a>,
    pub(super) about: Within,
    pub(super) behind: usize,
    pub(super) number: u32,
    /// Of an aggregate: the root with its parts.
    pub(super) root: Option<&'a Root>,
}

impl Rules {
    /// By a source's settings.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        let held = settings.rules.iter().map(|_| Held::default()).collect();
        let order = settings.names_as_told().collect();
        Self {
            settings,
            plans: HashMap::new(),
            held,
            transaction: String::new(),
            old_is_key: None,
            read: Read::default(),
            tx: TxText::default(),
            explained: None,
            is_parking: false,
            letters: Vec::new(),
            letter_bytes: 0,
            order,
            portion: Portion::default(),
            telling: None,
            looks_up: true,
            ahead: Ahead::default(),
            aside: HashMap::new(),
            wanted: None,
        }
    }

    /// Looks nothing up: wholes are told with the parts that their transaction touched.
    #[must_use]
    pub fn without_lookups(self) -> Self {
        Self { looks_up: false, ..self }
    }

    /// With portions of another size.
    #[must_use]
    pub fn in_portions(self, portion: Portion) -> Self {
        Self { portion, ..self }
    }

    /// From now on says of each rule what became of it.
    pub fn explain(&mut self) {
        self.explained = Some(Vec::new());
    }

    /// What was said since the last call.
    pub fn take_explained(&mut self) -> Vec<Explained> {
        self.explained.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Applies the rules to the changes of a batch, as long as what they make is a portion: while [`Derived::go_on`] says so
    /// there is more of it, to be asked for by the next call.
    ///
    /// # Errors
    /// At the first change that they cannot be applied to. The batch then ends before it: what came before can be told.
    pub fn derive(&mut self, batch: &mut Batch, out: &mut Derived) -> Result<(), RuleError> {
        if self.settings.is_empty() {
            return Ok(());
        }
        let mut loaded = None;
        let mut failed = None;
        out.order = Arc::clone(&self.order);
        self.portion.begin(out);
        if out.from == 0 && self.telling.is_none() {
            self.forget_known();
        }
        for (place, change) in batch.changes.iter().enumerate().skip(out.from) {
            let events = if self.telling.is_some() { 0 } else { out.events.len() };
            if let Err(fault) = self.change(batch, change, place, &mut loaded, out) {
                out.events.truncate(events);
                failed = Some((place, self.error(batch, change, fault)));
                break;
            }
            if self.telling.is_some() {
                out.goes_on = Some(place);
                break;
            }
        }
        if self.telling.is_none() {
            self.forget_known();
        }
        let Some((place, error)) = failed else { return Ok(()) };
        batch.changes.truncate(place);
        batch.end = None;
        batch.reached = None;
        Err(error)
    }

    /// Applies the rules for existing rows to those of a chunk: of each row the first that matches tells it.
    ///
    /// # Errors
    /// At the first row that they cannot be applied to.
    pub fn derive_rows(&mut self, batch: &Batch, out: &mut Derived) -> Result<(), RuleError> {
        if !self.settings.rules.iter().any(|rule| rule.is_about(On::Read)) {
            return Ok(());
        }
        self.tx = TxText::default();
        self.bound();
        for (place, change) in batch.changes.iter().enumerate() {
            self.existing_row(batch, change, place, out).map_err(|fault| self.error(batch, change, fault))?;
        }
        Ok(())
    }

    fn existing_row(&mut self, batch: &Batch, change: &Change, place: usize, out: &mut Derived) -> Result<(), Fault> {
        let Body::Row(row) = &change.body else { return Ok(()) };
        let (Some(table), Seen::Row(sides)) = (batch.table(row.table), Sides::of(batch, row, false)) else {
            return Ok(());
        };
        let plan = self.plan(table)?;
        let settings = Arc::clone(&self.settings);
        let mut is_loaded = false;
        for rule_plan in &plan.rules {
            let Some(rule) = settings.rules.get(rule_plan.rule).filter(|rule| rule.is_about(On::Read)) else {
                continue;
            };
            if !is_loaded {
                self.read.load(&plan, &sides)?;
                is_loaded = true;
            }
            let applied = Applied {
                rule: rule_plan.rule,
                table: &plan,
                plan: rule_plan,
                sides: &sides,
                about: Within { ordinal: 0, part: 0 },
                behind: place,
                number: 0,
                root: None,
            };
            if self.apply(rule, &applied, out)? {
                break;
            }
        }
        Ok(())
    }

    fn change(
        &mut self,
        batch: &Batch,
        change: &Change,
        place: usize,
        loaded: &mut Option<u32>,
        out: &mut Derived,
    ) -> Result<(), Fault> {
        let Some(transaction) = batch.transaction(change) else { return Ok(()) };
        if self.transaction != *transaction.position {
            self.transaction.clear();
            self.transaction.push_str(&transaction.position);
            self.forget();
        }
        match &change.body {
            _ if self.telling.is_some() => {}
            Body::Row(row) => {
                let Some(table) = batch.table(row.table) else { return Ok(()) };
                let plan = self.plan(table)?;
                if !plan.is_idle() {
                    if *loaded != Some(change.transaction) {
                        self.tx.load(transaction);
                        *loaded = Some(change.transaction);
                    }
                    self.row(batch, &plan, (change, row), place, out)?;
                }
            }
            Body::Message { prefix, content } => {
                let prefix = String::from_utf8_lossy(batch.bytes(prefix));
                if let Some(outbox) = &self.settings.outbox
                    && outbox.messages.is_match(&*prefix)
                {
                    match outbox::message(batch.bytes(content), &mut out.bytes) {
                        Ok(sent) => send(sent, change, place, out),
                        Err(fault) if self.is_parked(&fault) => {
                            self.park(&Lost::of_outbox(At { batch, change, place }), fault, out);
                        }
                        Err(fault) => return Err(fault),
                    }
                    out.untold.push(place);
                }
            }
            Body::Truncate { .. } | Body::Shape { .. } => {}
        }
        if change.last {
            if self.held.iter().any(|held| !held.is_empty()) && *loaded != Some(change.transaction) {
                self.tx.load(transaction);
                *loaded = Some(change.transaction);
            }
            self.complete(At { batch, change, place }, out)?;
            if self.telling.is_none() {
                self.forget();
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.held.iter_mut().filter(|held| !held.is_empty()).for_each(|held| *held = Held::default());
        self.ahead.clear();
        self.wanted = None;
        self.bound();
    }

    /// Forgets plans, where there are too many. Not as long as rows are held: these speak of theirs.
    fn bound(&mut self) {
        if self.plans.len() > PLANS_MAX {
            self.plans.clear();
            self.forget_known();
        }
    }

    pub(super) fn plan(&mut self, table: &Arc<Table>) -> Result<Arc<TablePlan>, Fault> {
        let address = Arc::as_ptr(table).addr();
        if let Some(plan) = self.plans.get(&address) {
            return Ok(Arc::clone(plan));
        }
        let plan = Arc::new(TablePlan::new(&self.settings, table).map_err(Fault::Plan)?);
        self.plans.insert(address, Arc::clone(&plan));
        Ok(plan)
    }

    fn row(
        &mut self,
        batch: &Batch,
        plan: &Arc<TablePlan>,
        (change, row): (&Change, &RowChange),
        place: usize,
        out: &mut Derived,
    ) -> Result<(), Fault> {
        let at = Within { ordinal: change.ordinal, part: change.part };
        let old_is_key = self.old_is_key.take().is_some_and(|(ordinal, is_key)| ordinal == change.ordinal && is_key);
        let seen = Sides::of(batch, row, old_is_key);
        if !plan.parts.is_empty() || plan.rules.iter().any(|rule| self.is_aggregate(rule.rule)) {
            self.collect(plan, &seen, at, place, out)?;
        }
        let sides = match seen {
            Seen::Row(sides) => sides,
            Seen::Rekeyed(_) => {
                self.old_is_key = Some((change.ordinal, row.before_is_key));
                return Ok(());
            }
            Seen::Nothing => return Ok(()),
        };
        if let Some(outbox) = &plan.outbox {
            // Whatever else happens to the table says nothing: it is a queue, not data.
            out.untold.push(place);
            if let (On::Insert, Some(after)) = (sides.on, sides.after) {
                match outbox.sent(&plan.table, after, &mut out.bytes) {
                    Ok(sent) => send(sent, change, place, out),
                    Err(fault) if self.is_parked(&fault) => {
                        let lost = Lost { row: Some((plan, &sides)), ..Lost::of_outbox(At { batch, change, place }) };
                        self.park(&lost, fault, out);
                    }
                    Err(fault) => return Err(fault),
                }
            }
            return Ok(());
        }
        let settings = Arc::clone(&self.settings);
        let mut is_loaded = false;
        let mut is_told = true;
        for rule_plan in &plan.rules {
            let Some(rule) = settings.rules.get(rule_plan.rule).filter(|rule| rule.aggregate.is_none()) else {
                continue;
            };
            let applied = Applied {
                rule: rule_plan.rule,
                table: plan,
                plan: rule_plan,
                sides: &sides,
                about: at,
                behind: place,
                number: 0,
                root: None,
            };
            let is_made = match self.one(rule, &applied, &mut is_loaded, out) {
                Err(fault) if self.is_parked(&fault) => {
                    let lost = Lost { row: Some((plan, &sides)), ..Lost::of(rule, At { batch, change, place }, at) };
                    self.park(&lost, fault, out);
                    true
                }
                is_made => is_made?,
            };
            is_told &= !is_made || rule.also_change_event;
        }
        if !is_told {
            out.untold.push(place);
        }
        Ok(())
    }

    /// Applies one rule to a change; whether it made an event. What rules read of the row is loaded once.
    pub(super) fn one(
        &mut self,
        rule: &Rule,
        applied: &Applied<'_>,
        is_loaded: &mut bool,
        out: &mut Derived,
    ) -> Result<bool, Fault> {
        let Applied { table, plan, sides, behind, .. } = *applied;
        if !self.matches(rule, (table, plan), sides, behind)? {
            return Ok(false);
        }
        if !*is_loaded {
            self.read.load(table, sides)?;
            *is_loaded = true;
        }
        self.apply(rule, applied, out)
    }

    fn is_aggregate(&self, rule: usize) -> bool {
        self.settings.rules.get(rule).is_some_and(|rule| rule.aggregate.is_some())
    }

    /// What needs no expression: operation and changed columns.
    pub(super) fn matches(
        &mut self,
        rule: &Rule,
        (table, plan): (&TablePlan, &RulePlan),
        sides: &Sides<'_>,
        place: usize,
    ) -> Result<bool, Fault> {
        if !rule.is_about(sides.on) {
            self.say(rule, place, false, || format!("it is not about an {}", name_of(sides.on)));
            return Ok(false);
        }
        if plan.changed.is_empty() || sides.on != On::Update {
            return Ok(true);
        }
        let mut unknown = None;
        for &column in &plan.changed {
            match sides.is_changed(&table.table, column) {
                Some(true) => return Ok(true),
                Some(false) => {}
                None => unknown = Some(column),
            }
        }
        if let Some(column) = unknown.and_then(|column| table.table.columns.get(column)) {
            return Err(Fault::Changed { rule: plan.rule, column: column.name.clone() });
        }
        self.say(rule, place, false, || format!("none of its columns changed: {}", rule.changed.join(", ")));
        Ok(false)
    }

    pub(super) fn say(&mut self, rule: &Rule, change: usize, matched: bool, why: impl FnOnce() -> String) {
        if let Some(explained) = &mut self.explained {
            explained.push(Explained { change, rule: Arc::clone(&rule.name), matched, why: why() });
        }
    }

    /// Lays out what the expressions of a rule see of what was read.
    fn scoped<R>(
        &self,
        applied: &Applied<'_>,
        run: impl FnOnce(&Scope<'_>, Option<&PartTexts>) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let Applied { rule: index, table, plan, sides, root, .. } = *applied;
        let json = std::str::from_utf8(&self.read.json).unwrap_or_default();
        let mut slots = Vec::with_capacity(plan.slots.len());
        self.read.slots(table, plan, json, &mut slots);
        let lists = root.map(|root| PartTexts::of(root, &self.settings, index, &self.plans)).transpose()?;
        let parts: Vec<Value<'_>> = lists
            .iter()
            .flat_map(PartTexts::values)
            .collect::<Result<_, _>>()
            .map_err(|source| Fault::Eval { rule: index, key: "aggregate".into(), source })?;
        let there = |is_there: bool, side: Side| {
            is_there.then(|| plan.rows.get(side as usize).map_or(&[][..], |row| row.as_slice()))
        };
        let rows = [there(sides.after.is_some(), Side::After), there(sides.before.is_some(), Side::Before)];
        run(&Scope { slots: &slots, rows, parts: &parts, tx: self.tx.tx() }, lists.as_ref())
    }

    /// Whether the condition of a rule holds of what was read.
    pub(super) fn holds(&self, rule: &Rule, applied: &Applied<'_>) -> Result<bool, Fault> {
        let fault = |source| Fault::Eval { rule: applied.rule, key: "when".into(), source };
        match &rule.when {
            Some(when) => self.scoped(applied, |scope, _| when.holds(scope).map_err(fault)),
            None => Ok(true),
        }
    }

    /// Runs the expressions of a rule over what was read; whether it made an event.
    pub(super) fn apply(&mut self, rule: &Rule, applied: &Applied<'_>, out: &mut Derived) -> Result<bool, Fault> {
        let Applied { rule: index, table, sides, about, behind, number, root, .. } = *applied;
        let fault = |key: &str, source| Fault::Eval { rule: index, key: key.into(), source };
        let holds = self.scoped(applied, |scope, lists| {
            let holds = match &rule.when {
                Some(when) => when.holds(scope).map_err(|source| fault("when", source))?,
                None => true,
            };
            if !holds {
                return Ok(false);
            }
            let key_at = out.bytes.len();
            write_key(rule, scope, applied, &mut out.bytes)?;
            let body_at = out.bytes.len();
            match &rule.data {
                CompiledData::Members(members) => {
                    out.bytes.push(b'{');
                    for (place, member) in members.iter().enumerate() {
                        if place > 0 {
                            out.bytes.push(b',');
                        }
                        out.bytes.extend_from_slice(&member.quoted);
                        match member.expression.as_slot().and_then(|slot| scope.slots.get(slot)) {
                            // A column as it stands: its own bytes.
                            Some(Slot::Json(text, _)) => out.bytes.extend_from_slice(text.as_bytes()),
                            _ => {
                                let value = member.expression.run(scope);
                                let key = || format!("data.{}", member.name);
                                value.map_err(|source| fault(&key(), source))?.write(&mut out.bytes);
                            }
                        }
                    }
                    out.bytes.push(b'}');
                }
                CompiledData::Row => {
                    write_row(&table.table, sides, &mut out.bytes)?;
                    if let Some(lists) = lists {
                        lists.append_to(&mut out.bytes);
                    }
                }
            }
            if let (Some(root), Some(aggregate)) = (root, &rule.aggregate) {
                aggregate.append_marks(root, &mut out.bytes);
            }
            out.events.push(DomainEvent {
                behind,
                rule: Arc::clone(&rule.name),
                number,
                name: Arc::clone(&rule.event_type),
                event_type: Arc::clone(&rule.versioned),
                about,
                key: key_at..body_at,
                body: body_at..out.bytes.len(),
            });
            Ok(true)
        })?;
        self.say(rule, behind, holds, || if holds { "matched".into() } else { "`when` is false".into() });
        Ok(holds)
    }

    fn error(&self, batch: &Batch, change: &Change, fault: Fault) -> RuleError {
        let table = match &change.body {
            Body::Row(row) => batch.table(row.table),
            _ => None,
        };
        let at = Within { ordinal: change.ordinal, part: change.part };
        self.error_about(batch.transaction(change), at, table.map(|table| &**table), fault)
    }

    /// A fault with its place.
    pub(super) fn error_about(
        &self,
        transaction: Option<&Transaction>,
        Within { ordinal, part }: Within,
        table: Option<&Table>,
        fault: Fault,
    ) -> RuleError {
        let position = transaction.map_or("?".into(), |transaction| transaction.position.clone());
        let identity = Identity { position, ordinal, part };
        let name: Box<str> = table.map_or("a message".into(), |table| table.qualified_name().into());
        let rule_name = |rule: usize| self.settings.rules.get(rule).map_or("?".into(), |rule| (*rule.name).into());
        match fault {
            Fault::Plan(error) => RuleError::Plan(error),
            Fault::Eval { rule, key, source } => {
                RuleError::Eval { identity, table: name, rule: rule_name(rule), key, source }
            }
            Fault::Changed { rule, column } => {
                RuleError::Changed { identity, table: name, rule: rule_name(rule), column }
            }
            Fault::Value { column, source } => {
                let column =
                    table.and_then(|table| table.columns.get(column)).map_or("?".into(), |column| column.name.clone());
                RuleError::Value { identity, table: name, column, source }
            }
            Fault::Outbox(what) => RuleError::Outbox { identity, table: name, what },
            Fault::TooLarge { rule, rows } => {
                RuleError::TooLarge { transaction: identity.position, rule: rule_name(rule), rows }
            }
            Fault::Beyond { rule } => RuleError::Beyond { identity, table: name, rule: rule_name(rule) },
            Fault::Spill { rule, source } => {
                RuleError::Spill { transaction: identity.position, rule: rule_name(rule), source }
            }
        }
    }
}

pub(super) fn name_of(on: On) -> &'static str {
    match on {
        On::Insert => "insert",
        On::Update => "update",
        On::Delete => "delete",
        On::Read => "existing row",
    }
}
