//! Parts that a transaction did not touch: whose are wanted, and what was found of them.
//!
//! ```text
//!   derive ──> roots that come next: those of which an event is told ──> Wanted ──> whoever reads
//!      '<───── parts, as the database has them by then ──────────────────── found <──┘
//! ```
//! Rules do not read: they pause, and go on with what they are told. What the transaction itself did to a part holds, whatever
//! was found. Of a root that came or went there is nothing to look up: its parts came or went with it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use figvine_change::{Body, Cell, Found, Sought, Table, Transaction, Within};

use super::aggregate::{Held, Root};
use super::derive::{Applied, Rules};
use super::error::{Fault, RuleError};
use super::park::At;
use super::read::write_cell;
use super::rows::{OwnedRow, RowRef, Seen, Sides};
use super::settings::{Aggregate, On, Rule, looked_up_at};
use super::whole::{Telling, key_text};
use crate::event::write_timestamp;

/// Roots whose parts are looked up at once.
const AHEAD: usize = 100;

/// Parts that are to be looked up.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The rule.
    pub rule: Arc<str>,
    /// The table of the roots.
    pub root: Arc<Table>,
    /// The keys of the roots, each once: first of those that are told next, then of those that come later in the batch.
    pub keys: Vec<Sought>,
    /// How many are told next.
    next: usize,
    /// The tables of the parts.
    pub parts: Vec<WantedParts>,
    /// What must be shown.
    pub behind: Vec<Transaction>,
    /// Bytes of parts that may be held, of all tables together.
    pub max_bytes: usize,
}

/// A table of parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedParts {
    /// Which of the rule's lists they are.
    pub list: usize,
    /// The schema; for MySQL the database.
    pub schema: Box<str>,
    /// The table's own name.
    pub table: Box<str>,
    /// The column that holds the root's key.
    pub on: Box<str>,
}

/// Roots that were taken out, and are told next.
#[derive(Debug)]
pub(super) struct Ahead {
    /// How many are taken out at once.
    most: usize,
    roots: VecDeque<Next>,
    /// What was looked up last, by the keys of roots of this rule; of use as long as the batch is the same.
    known: HashMap<Box<[u8]>, Vec<Known>>,
    rule: usize,
    /// The last transaction that it shows, by its place in the batch.
    shown: u32,
    /// Where the rules paused.
    at: Option<(Transaction, Within)>,
}

#[derive(Debug)]
struct Next {
    root: Option<Root>,
    /// Where its parts are looked up.
    key: Option<Sought>,
    /// Whether they are more than may be held.
    is_beyond: bool,
}

/// Parts of one list.
#[derive(Debug)]
struct Known {
    list: usize,
    read_at: i64,
    /// With their keys.
    rows: Vec<(Vec<u8>, OwnedRow)>,
}

impl Default for Ahead {
    fn default() -> Self {
        Self { most: AHEAD, roots: VecDeque::new(), known: HashMap::new(), rule: 0, shown: 0, at: None }
    }
}

impl Ahead {
    /// Forgets the roots, at the end of a transaction.
    pub(super) fn clear(&mut self) {
        self.roots.clear();
    }

    /// Forgets what was looked up, at the end of a batch.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.at = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// The root that comes next, with its parts.
    pub(super) fn next(&mut self) -> Option<Root> {
        let Next { root, key, is_beyond } = self.roots.pop_front()?;
        let mut root = root?;
        root.is_beyond = is_beyond;
        for Known { list, read_at, rows } in key.iter().filter_map(|key| self.known.get(key.json.as_bytes())).flatten()
        {
            root.looked_up.push((*list, *read_at));
            let Some(parts) = root.lists.get_mut(*list) else { continue };
            rows.iter().for_each(|(key, row)| parts.add(key, row));
        }
        Some(root)
    }

    fn knows(&self, key: &Sought) -> bool {
        self.known.contains_key(key.json.as_bytes())
    }
}

impl Aggregate {
    /// Says in an object that was just closed when lists were looked up.
    pub(super) fn append_marks(&self, root: &Root, out: &mut Vec<u8>) {
        for (list, read_at) in &root.looked_up {
            let Some(include) = self.include.get(*list) else { continue };
            out.pop();
            if out.last() != Some(&b'{') {
                out.push(b',');
            }
            figvine_change::json::write_str(&looked_up_at(&include.name), out);
            out.extend_from_slice(b":\"");
            write_timestamp(*read_at, out);
            out.extend_from_slice(b"\"}");
        }
    }
}

impl Rules {
    /// What is to be looked up before the rules can go on; [`Rules::found`] tells what there is.
    pub fn take_wanted(&mut self) -> Option<Wanted> {
        self.wanted.take()
    }

    /// Takes in the parts of one list; whether it is known of each whose it is. The database may take for one key what is written
    /// otherwise, `1` and `"1"`, `a` and `A`: then all have to be looked up again, for fewer keys, at last for one.
    ///
    /// # Errors
    /// When they are not as the rule says, or a value cannot be read.
    pub fn found(&mut self, list: usize, wanted: &Wanted, found: &Found) -> Result<bool, RuleError> {
        for key in &wanted.keys {
            let known = self.ahead.known.entry(key.json.as_bytes().into()).or_default();
            known.push(Known { list, read_at: found.read_at, rows: Vec::new() });
        }
        let only = wanted.keys.first().filter(|_| wanted.keys.len() == 1);
        for change in &found.batch.changes {
            let Body::Row(read) = &change.body else { continue };
            let (Some(table), Some(row)) = (found.batch.table(read.table), read.after) else { continue };
            let row = RowRef { data: &found.batch.data, cells: found.batch.row(row) };
            let is_known = self.add_row((list, only), table, row).map_err(|fault| {
                let (transaction, within) = self.ahead.at.clone().unzip();
                let within = within.unwrap_or(Within { ordinal: 0, part: 0 });
                self.error_about(transaction.as_ref(), within, Some(table), fault)
            })?;
            if !is_known {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes in that there are more parts than may be held: what is to be looked up then is less. Of one root alone there is
    /// nothing more to look up; it is told that it has too many.
    pub fn found_too_many(&mut self, wanted: Wanted) -> Option<Wanted> {
        if let [key] = wanted.keys.as_slice() {
            let next = self.ahead.roots.iter_mut().find(|next| next.key.as_ref() == Some(key));
            next.into_iter().for_each(|next| next.is_beyond = true);
            return None;
        }
        self.look_up_fewer(wanted)
    }

    /// What is to be looked up in the place of that, for fewer roots; nothing in the place of one. What was found is forgotten.
    pub fn look_up_fewer(&mut self, mut wanted: Wanted) -> Option<Wanted> {
        self.ahead.known.clear();
        if wanted.keys.len() > wanted.next {
            wanted.keys.truncate(wanted.next);
            self.ahead.most = self.ahead.most.min(wanted.next);
            return Some(wanted);
        }
        let half = wanted.keys.len() / 2;
        let ahead = &mut self.ahead;
        let place_of = |key: &Sought| ahead.roots.iter().position(|next| next.key.as_ref() == Some(key));
        if half == 0 {
            return None;
        }
        let most = wanted.keys.get(half).and_then(place_of).unwrap_or(1);
        wanted.keys.truncate(half);
        wanted.next = half;
        ahead.most = most;
        let back = ahead.roots.split_off(most.min(ahead.roots.len()));
        let first = self.telling.map_or(0, |telling| telling.root) + most;
        if let Some(held) = self.held.get_mut(ahead.rule) {
            back.into_iter().enumerate().for_each(|(place, next)| held.put_back(first + place, next.root));
        }
        Some(wanted)
    }

    /// Whether it is known whose it is.
    fn add_row(
        &mut self,
        (list, only): (usize, Option<&Sought>),
        table: &Arc<Table>,
        row: RowRef<'_>,
    ) -> Result<bool, Fault> {
        let plan = self.plan(table)?;
        let Some(part) = plan.parts.iter().find(|part| part.rule == self.ahead.rule && part.list == list) else {
            return Ok(true);
        };
        let mut root = Vec::new();
        match only {
            Some(only) => root.extend_from_slice(only.json.as_bytes()),
            None => write_cell(table, row, row.cells.get(part.on).unwrap_or(&Cell::Null), part.on, &mut root)?,
        }
        let known = self.ahead.known.get_mut(root.as_slice()).and_then(|known| known.last_mut());
        let Some(known) = known else { return Ok(false) };
        known.rows.push((key_text(table, row)?, OwnedRow::new(table, row)));
        Ok(true)
    }

    /// Forgets what was looked up, where the batch is through.
    pub(super) fn forget_known(&mut self) {
        self.ahead.forget();
        self.aside.clear();
    }

    /// Lays aside what is known for another rule.
    fn turn_to(&mut self, rule: usize) {
        if self.ahead.rule != rule {
            let next = self.aside.remove(&rule).unwrap_or(Ahead { rule, ..Ahead::default() });
            let last = std::mem::replace(&mut self.ahead, next);
            self.aside.insert(last.rule, last);
        }
    }

    /// Takes out the roots that come next; whether parts of any are to be looked up first.
    pub(super) fn look_ahead(&mut self, telling: Telling, held: &mut Held, at: At<'_>) -> Result<bool, Fault> {
        let settings = Arc::clone(&self.settings);
        let index = telling.rule;
        let Some((rule, aggregate)) = settings.rules.get(index).and_then(|rule| Some((rule, rule.aggregate.as_ref()?)))
        else {
            return Ok(false);
        };
        self.turn_to(index);
        let (mut keys, mut table, mut bytes) = (Vec::new(), None, 0);
        for place in telling.root..held.roots().min(telling.root.saturating_add(self.ahead.most)) {
            // Out of a file they may be large, each by itself.
            if bytes > aggregate.max_bytes {
                break;
            }
            let root = self.take_root(index, held, place)?;
            bytes += root.as_ref().map_or(0, Root::size);
            let told = root.as_ref().and_then(|root| Some((root.sides()?, root)));
            let told = told.and_then(|((about, row, sides), root)| {
                let key = self.wants(rule, (&row.table, &sides, Some(root)), (index, about, at.place))?;
                Some((Arc::clone(&row.table), key))
            });
            let (root_table, key) = told.unzip();
            keys.extend(key.clone());
            table = root_table.or(table);
            self.ahead.roots.push_back(Next { root, key, is_beyond: false });
        }
        let (Some(root), Some(transaction)) = (table, at.batch.transaction(at.change)) else { return Ok(false) };
        if at.change.transaction <= self.ahead.shown && keys.iter().all(|key| self.ahead.knows(key)) {
            return Ok(false);
        }
        self.ahead.forget();
        self.ahead.at = Some((transaction.clone(), at.within()));
        let next = keys.len();
        let last = self.add_later(rule, index, at, &mut keys);
        self.ahead.shown = last;
        // Those before it may have changed parts, and may be visible later than what comes behind them.
        let behind = at.batch.transactions.iter().take(last as usize + 1).cloned().collect();
        let lists = aggregate.include.iter().enumerate().filter(|(_, include)| include.lookup);
        let parts = lists.map(|(list, include)| {
            let (schema, table) = include.place(&rule.schema);
            WantedParts { list, schema: schema.into(), table: table.into(), on: include.on.as_str().into() }
        });
        let parts = parts.collect();
        let max_bytes = usize::try_from(aggregate.max_bytes).unwrap_or(usize::MAX);
        self.wanted = Some(Wanted { rule: Arc::clone(&rule.name), root, keys, next, parts, behind, max_bytes });
        // Where they were too many once they may be fewer by now.
        self.ahead.most = (self.ahead.most + 1 + self.ahead.most / 4).min(AHEAD);
        Ok(true)
    }

    /// Adds the keys of roots that later transactions of the batch change: one look-up does for many. Which of them was the last,
    /// by its place. What is missed here, since a condition reads `tx` or lists, is looked up when it is told.
    fn add_later(&mut self, rule: &Rule, index: usize, at: At<'_>, keys: &mut Vec<Sought>) -> u32 {
        let mut seen: HashSet<Box<str>> = keys.iter().map(|key| key.json.clone()).collect();
        let mut last = at.change.transaction;
        for change in at.batch.changes.iter().skip(at.place + 1) {
            if keys.len() >= self.ahead.most {
                break;
            }
            last = change.transaction;
            let Body::Row(row) = &change.body else { continue };
            let (Some(table), Seen::Row(sides)) = (at.batch.table(row.table), Sides::of(at.batch, row, false)) else {
                continue;
            };
            let about = Within { ordinal: change.ordinal, part: change.part };
            let key = self.wants(rule, (table, &sides, None), (index, about, at.place));
            keys.extend(key.filter(|key| seen.insert(key.json.clone())));
        }
        last
    }

    /// The key of a root, where an event of it is told whose parts may be more than the transaction touched. What cannot be
    /// said of it now is said when it is told.
    fn wants(
        &mut self,
        rule: &Rule,
        (table, sides, root): (&Arc<Table>, &Sides<'_>, Option<&Root>),
        (index, about, place): (usize, Within, usize),
    ) -> Option<Sought> {
        if sides.on != On::Update {
            return None;
        }
        let plan = self.plan(table).ok()?;
        let rule_plan = plan.rules.iter().find(|plan| plan.rule == index)?;
        if !self.matches(rule, (&plan, rule_plan), sides, place).ok()? {
            return None;
        }
        self.read.load(&plan, sides).ok()?;
        let applied =
            Applied { rule: index, table: &plan, plan: rule_plan, sides, about, behind: place, number: 0, root };
        if !self.holds(rule, &applied).ok()? {
            return None;
        }
        let &column = table.key.first()?;
        let view = sides.after?;
        let cell = view.cells.get(column)?;
        let mut json = Vec::new();
        write_cell(table, view, cell, column, &mut json).ok()?;
        Some(Sought { raw: view.bytes(cell)?.into(), json: String::from_utf8(json).ok()?.into() })
    }
}
