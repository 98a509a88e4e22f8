//! From changes to events.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use figvine_change::{Batch, Body, Cell, Change, RowChange, Table, Transaction, ValueError, Within};

use super::aggregate::{Held, OnLarge, Root};
use super::expression::{EvalError, Scope, Side, Slot, Tx, Value};
use super::outbox;
use super::plan::{PartPlan, PlanError, RulePlan, TablePlan};
use super::rows::{RowRef, Seen, Sides};
use super::settings::{CompiledData, CompiledKey, On, Rule, Settings};
use crate::event::{Derived, DomainEvent, Identity, write_key_text, write_timestamp};

/// Tables whose plans are kept. A connector makes a table anew when its shape may have changed.
const PLANS_MAX: usize = 4096;

/// A change that rules cannot be applied to; no error tells values of rows.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// A rule does not fit its table.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An expression has no value.
    #[error("change {identity} of {table}: rule {rule}: `{key}` cannot be evaluated")]
    Eval {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// The rule.
        rule: Box<str>,
        /// What of the rule.
        key: Box<str>,
        /// Why.
        source: EvalError,
    },
    /// The log does not tell whether a column changed.
    #[error("change {identity} of {table}: rule {rule}: the log does not tell whether column {column} changed")]
    Changed {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// The rule.
        rule: Box<str>,
        /// The column.
        column: Box<str>,
    },
    /// A value is none of its column's type.
    #[error("change {identity}: column {column} of {table} holds a value that cannot be read")]
    Value {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// The column.
        column: Box<str>,
        /// What is wrong with it.
        source: ValueError,
    },
    /// A row or message of the outbox is none.
    #[error("change {identity} of {table}: no event of an outbox: {what}")]
    Outbox {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// Why.
        what: &'static str,
    },
    /// An aggregate is larger than may be held.
    #[error(
        "transaction {transaction} changes {rows} rows that rule {rule} has to hold, more than aggregate.max_bytes allows"
    )]
    TooLarge {
        /// The transaction's position.
        transaction: Box<str>,
        /// The rule.
        rule: Box<str>,
        /// Rows.
        rows: u64,
    },
}

impl RuleError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Plan(_) => "FV-3111",
            Self::Eval { .. } | Self::Changed { .. } => "FV-3112",
            Self::Value { .. } | Self::Outbox { .. } => "FV-3113",
            Self::TooLarge { .. } => "FV-3114",
        }
    }

    /// What to do; a sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Plan(_) => "Mend the rule, or the table; `figvine check` looks at both.",
            Self::Changed { .. } | Self::Eval { source: EvalError::NoRow(_) | EvalError::NotCarried(_), .. } => {
                "The log has old rows only where it is told to: on PostgreSQL `ALTER TABLE .. REPLICA IDENTITY FULL`, on MySQL and MariaDB `binlog_row_image=FULL`. Or ask for them with `before != null` and `has(before.column)`. Nothing was skipped."
            }
            Self::Eval { .. } => {
                "Mend the rule; `figvine rules explain` shows what it does with this transaction. Nothing was skipped."
            }
            Self::Value { .. } | Self::Outbox { .. } => "Nothing was skipped: the source's log is kept from there.",
            Self::TooLarge { .. } => "Raise aggregate.max_bytes, or say `on_large: park`. Nothing was skipped.",
        }
    }
}

/// Why a change makes no event, without its place.
#[derive(Debug)]
pub(super) enum Fault {
    Plan(PlanError),
    Eval { rule: usize, key: Box<str>, source: EvalError },
    Changed { rule: usize, column: Box<str> },
    Value { column: usize, source: ValueError },
    Outbox(&'static str),
    TooLarge { rule: usize, rows: u64 },
}

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
    settings: Arc<Settings>,
    /// By the tables' addresses; each plan holds its table, so that no other comes to stand there.
    plans: HashMap<usize, Arc<TablePlan>>,
    /// Of each rule.
    held: Vec<Held>,
    /// The position of the transaction that this is of.
    transaction: String,
    /// Whether the row before of a removal that is half of a key change holds the key alone, and the removal's ordinal.
    old_is_key: Option<(u64, bool)>,
    read: Read,
    tx: TxText,
    explained: Option<Vec<Explained>>,
}

/// Columns of the current change as JSON.
#[derive(Default)]
struct Read {
    json: Vec<u8>,
    texts: Vec<Text>,
}

#[derive(Clone)]
enum Text {
    NoRow,
    NotCarried,
    Json(std::ops::Range<usize>),
}

/// What expressions see of the transaction.
#[derive(Default)]
struct TxText {
    id: String,
    position: String,
    committed_at: String,
    origin: Option<String>,
    traceparent: Option<String>,
}

impl TxText {
    fn load(&mut self, transaction: &Transaction) {
        let Self { id, position, committed_at, origin, traceparent } = self;
        id.clear();
        id.push_str(&transaction.id);
        position.clear();
        position.push_str(&transaction.position);
        let mut time = Vec::new();
        write_timestamp(transaction.committed_at, &mut time);
        committed_at.clear();
        committed_at.push_str(&String::from_utf8_lossy(&time));
        *origin = transaction.origin.as_deref().map(Into::into);
        *traceparent = transaction.traceparent.as_deref().map(Into::into);
    }

    fn tx(&self) -> Tx<'_> {
        Tx {
            id: &self.id,
            position: &self.position,
            committed_at: &self.committed_at,
            origin: self.origin.as_deref(),
            traceparent: self.traceparent.as_deref(),
        }
    }
}

impl Read {
    /// Writes what rules read of a row.
    fn load(&mut self, plan: &TablePlan, sides: &Sides<'_>) -> Result<(), Fault> {
        self.json.clear();
        self.texts.clear();
        for &(side, column) in &plan.read {
            let text = match sides.cell(&plan.table, side, column) {
                Err(()) => Text::NoRow,
                Ok(None) => Text::NotCarried,
                Ok(Some((row, cell))) => {
                    let start = self.json.len();
                    write_cell(&plan.table, row, cell, column, &mut self.json)?;
                    Text::Json(start..self.json.len())
                }
            };
            self.texts.push(text);
        }
        Ok(())
    }

    /// The slots of one rule.
    fn slots<'a>(&'a self, table: &'a TablePlan, plan: &RulePlan, json: &'a str, slots: &mut Vec<Slot<'a>>) {
        slots.extend(plan.slots.iter().map(|&(place, reading)| match self.texts.get(place) {
            Some(Text::Json(range)) => Slot::Json(json.get(range.clone()).unwrap_or_default(), reading),
            Some(Text::NotCarried) => Slot::NotCarried(table.column_name(place)),
            Some(Text::NoRow) => Slot::NoRow(table.side_name(place)),
            None => Slot::NoRow("before"),
        }));
    }
}

impl TablePlan {
    fn column_name(&self, place: usize) -> &str {
        let column = self.read.get(place).and_then(|(_, column)| self.table.columns.get(*column));
        column.map_or("?", |column| &column.name)
    }

    fn side_name(&self, place: usize) -> &'static str {
        self.read.get(place).map_or("before", |(side, _)| side.name())
    }
}

pub(super) fn write_cell(
    table: &Table,
    row: RowRef<'_>,
    cell: &Cell,
    column: usize,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    match (row.bytes(cell), table.columns.get(column)) {
        (Some(raw), Some(described)) => {
            described.codec.write_json(raw, out).map_err(|source| Fault::Value { column, source })
        }
        _ => {
            out.extend_from_slice(b"null");
            Ok(())
        }
    }
}

/// What one rule is applied to.
struct Applied<'a> {
    rule: usize,
    table: &'a TablePlan,
    plan: &'a RulePlan,
    sides: &'a Sides<'a>,
    about: Within,
    behind: usize,
    number: u32,
    /// Of an aggregate: the root with its parts.
    root: Option<&'a Root>,
}

impl Rules {
    /// By a source's settings.
    #[must_use]
    pub fn new(settings: Arc<Settings>) -> Self {
        let held = settings.rules.iter().map(|_| Held::default()).collect();
        Self {
            settings,
            plans: HashMap::new(),
            held,
            transaction: String::new(),
            old_is_key: None,
            read: Read::default(),
            tx: TxText::default(),
            explained: None,
        }
    }

    /// From now on says of each rule what became of it.
    pub fn explain(&mut self) {
        self.explained = Some(Vec::new());
    }

    /// What was said since the last call.
    pub fn take_explained(&mut self) -> Vec<Explained> {
        self.explained.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Applies the rules to the changes of a batch.
    ///
    /// # Errors
    /// At the first change that they cannot be applied to. The batch then ends before it: what came before can be told.
    pub fn derive(&mut self, batch: &mut Batch, out: &mut Derived) -> Result<(), RuleError> {
        if self.settings.is_empty() {
            return Ok(());
        }
        let mut loaded = None;
        let mut failed = None;
        for (place, change) in batch.changes.iter().enumerate() {
            let events = out.events.len();
            if let Err(fault) = self.change(batch, change, place, &mut loaded, out) {
                out.events.truncate(events);
                failed = Some((place, self.error(batch, change, fault)));
                break;
            }
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
                    let sent = outbox::message(batch.bytes(content), &mut out.bytes)?;
                    send(sent, change, place, out);
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
            self.complete(change, place, out)?;
            self.forget();
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.held.iter_mut().filter(|held| !held.is_empty()).for_each(|held| *held = Held::default());
    }

    fn plan(&mut self, table: &Arc<Table>) -> Result<Arc<TablePlan>, Fault> {
        let address = Arc::as_ptr(table).addr();
        if let Some(plan) = self.plans.get(&address) {
            return Ok(Arc::clone(plan));
        }
        if self.plans.len() > PLANS_MAX {
            self.plans.clear();
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
                let sent = outbox.sent(&plan.table, after, &mut out.bytes)?;
                send(sent, change, place, out);
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
            if !self.matches(rule, (plan, rule_plan), &sides, place)? {
                continue;
            }
            if !is_loaded {
                self.read.load(plan, &sides)?;
                is_loaded = true;
            }
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
            if self.apply(rule, &applied, out)? {
                is_told &= rule.also_change_event;
            }
        }
        if !is_told {
            out.untold.push(place);
        }
        Ok(())
    }

    fn is_aggregate(&self, rule: usize) -> bool {
        self.settings.rules.get(rule).is_some_and(|rule| rule.aggregate.is_some())
    }

    /// What needs no expression: operation and changed columns.
    fn matches(
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

    fn say(&mut self, rule: &Rule, change: usize, matched: bool, why: impl FnOnce() -> String) {
        if let Some(explained) = &mut self.explained {
            explained.push(Explained { change, rule: Arc::clone(&rule.name), matched, why: why() });
        }
    }

    /// Runs the expressions of a rule over what was read; whether it made an event.
    fn apply(&mut self, rule: &Rule, applied: &Applied<'_>, out: &mut Derived) -> Result<bool, Fault> {
        let Applied { rule: index, table, plan, sides, about, behind, number, root } = *applied;
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
        let scope = Scope { slots: &slots, rows, parts: &parts, tx: self.tx.tx() };
        let fault = |key: &str, source| Fault::Eval { rule: index, key: key.into(), source };
        let holds = match &rule.when {
            Some(when) => when.holds(&scope).map_err(|source| fault("when", source))?,
            None => true,
        };
        if holds {
            let key_at = out.bytes.len();
            write_key(rule, &scope, applied, &mut out.bytes)?;
            let body_at = out.bytes.len();
            match &rule.data {
                CompiledData::Members(members) => {
                    out.bytes.push(b'{');
                    for (place, member) in members.iter().enumerate() {
                        if place > 0 {
                            out.bytes.push(b',');
                        }
                        out.bytes.extend_from_slice(&member.quoted);
                        match member.expression.as_slot().and_then(|slot| slots.get(slot)) {
                            // A column as it stands: its own bytes.
                            Some(Slot::Json(text, _)) => out.bytes.extend_from_slice(text.as_bytes()),
                            _ => {
                                let value = member.expression.run(&scope);
                                let key = || format!("data.{}", member.name);
                                value.map_err(|source| fault(&key(), source))?.write(&mut out.bytes);
                            }
                        }
                    }
                    out.bytes.push(b'}');
                }
                CompiledData::Row => {
                    write_row(&table.table, sides, &mut out.bytes)?;
                    if let Some(lists) = &lists {
                        lists.append_to(&mut out.bytes);
                    }
                }
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
        }
        self.say(rule, behind, holds, || if holds { "matched".into() } else { "`when` is false".into() });
        Ok(holds)
    }

    /// Notes what aggregates need of a change.
    fn collect(
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
    fn complete(&mut self, change: &Change, place: usize, out: &mut Derived) -> Result<(), Fault> {
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
                    after: root.after.as_ref().map(super::rows::OwnedRow::view),
                    before: root.before.as_ref().map(super::rows::OwnedRow::view),
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
        let mut name = String::new();
        let _ = write!(name, "{}_missing", rule.event_type);
        let name: Arc<str> = name.into();
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

    fn error(&self, batch: &Batch, change: &Change, fault: Fault) -> RuleError {
        let identity = Identity {
            position: batch.transaction(change).map_or("?".into(), |transaction| transaction.position.clone()),
            ordinal: change.ordinal,
            part: change.part,
        };
        let table = match &change.body {
            Body::Row(row) => batch.table(row.table),
            _ => None,
        };
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
        }
    }
}

fn name_of(on: On) -> &'static str {
    match on {
        On::Insert => "insert",
        On::Update => "update",
        On::Delete => "delete",
        On::Read => "existing row",
    }
}

/// Notes an event of the outbox.
fn send(sent: outbox::Sent, change: &Change, place: usize, out: &mut Derived) {
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
fn write_key(rule: &Rule, scope: &Scope<'_>, applied: &Applied<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut json = Vec::new();
    let mut ends = vec![0];
    let fault = |source| Fault::Eval { rule: applied.rule, key: "key".into(), source };
    match &rule.key {
        CompiledKey::OfTable => {
            let table = &applied.table.table;
            let side = if applied.sides.after.is_some() { Side::After } else { Side::Before };
            for &column in &table.key {
                match applied.sides.cell(table, side, column) {
                    Ok(Some((row, cell))) => write_cell(table, row, cell, column, &mut json)?,
                    _ => {
                        return Err(fault(EvalError::NotCarried(
                            table.columns.get(column).map_or("?".into(), |column| column.name.clone()),
                        )));
                    }
                }
                ends.push(json.len());
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
    let values: Vec<&[u8]> = ends.windows(2).filter_map(|ends| json.get(*ends.first()?..*ends.last()?)).collect();
    write_key_text(&values, out);
    Ok(())
}

/// Appends a row as an object, of a removal the row before; columns that the log did not carry are absent.
fn write_row(table: &Table, sides: &Sides<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
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
struct PartTexts {
    json: String,
    lists: Vec<(Box<str>, Vec<Vec<PartText>>)>,
}

struct PartText {
    name: Box<str>,
    reading: super::expression::Reading,
    at: std::ops::Range<usize>,
}

impl PartTexts {
    fn of(
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

    fn values(&self) -> impl Iterator<Item = Result<Value<'_>, EvalError>> {
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
    fn append_to(&self, out: &mut Vec<u8>) {
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
