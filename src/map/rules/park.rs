//! Events that cannot be made: another stands in the place of each, and a letter tells what it was to be made of.

use std::sync::Arc;

use figvine_change::{Batch, Change, Table, Transaction, Within, json};

use super::aggregate::{OnLarge, Root};
use super::derive::{Rules, name_of};
use super::error::Fault;
use super::plan::TablePlan;
use super::rows::{RowRef, Sides};
use super::settings::Rule;
use super::tell::write_row_key;
use crate::event::{About, Content, Derived, Identity, Letter, LetterRow, MissingEvent};

/// A change that events are told behind.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) batch: &'a Batch,
    pub(super) change: &'a Change,
    /// Its place in the batch.
    pub(super) place: usize,
}

impl At<'_> {
    pub(super) fn within(&self) -> Within {
        Within { ordinal: self.change.ordinal, part: self.change.part }
    }
}

/// Where an event would have stood.
pub(super) struct Lost<'a> {
    pub(super) at: At<'a>,
    pub(super) name: Arc<str>,
    /// Its type without and with the major version.
    pub(super) event_type: &'a str,
    pub(super) versioned: &'a str,
    pub(super) about: Within,
    pub(super) number: u32,
    /// The row that it would have been about.
    pub(super) row: Option<(&'a TablePlan, &'a Sides<'a>)>,
    /// Of an aggregate: the rule's place, and the root with its parts.
    pub(super) root: Option<(usize, &'a Root)>,
    /// Whether it is of the outbox.
    pub(super) is_outbox: bool,
}

impl<'a> Lost<'a> {
    pub(super) fn of(rule: &'a Rule, at: At<'a>, about: Within) -> Self {
        Self {
            at,
            name: Arc::clone(&rule.name),
            event_type: &rule.event_type,
            versioned: &rule.versioned,
            about,
            number: 0,
            row: None,
            root: None,
            is_outbox: false,
        }
    }

    pub(super) fn of_outbox(at: At<'a>) -> Self {
        Self {
            at,
            name: Arc::from("outbox"),
            event_type: "outbox",
            versioned: "outbox",
            about: at.within(),
            number: 0,
            row: None,
            root: None,
            is_outbox: true,
        }
    }

    fn transaction(&self) -> Option<&'a Transaction> {
        self.at.batch.transaction(self.at.change)
    }
}

impl Rules {
    /// From now on parks what no event can be made of.
    #[must_use]
    pub fn parking(mut self, is_parking: bool) -> Self {
        self.is_parking = is_parking;
        self
    }

    /// What was parked since the last call: to be kept before the events that stand in its place are.
    pub fn take_letters(&mut self) -> Vec<Letter> {
        self.letter_bytes = 0;
        std::mem::take(&mut self.letters)
    }

    /// Whether such an event is parked rather than ends the source.
    pub(super) fn is_parked(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Eval { .. } | Fault::Changed { .. } | Fault::Value { .. } | Fault::Outbox(_) => self.is_parking,
            // Every event of the rule would be one; what an aggregate does has a setting of its own; a full disk is no change's fault.
            Fault::Beyond { rule } => {
                let aggregate = self.settings.rules.get(*rule).and_then(|rule| rule.aggregate.as_ref());
                aggregate.is_some_and(|aggregate| aggregate.on_large != OnLarge::Stop)
            }
            Fault::Plan(_) | Fault::TooLarge { .. } | Fault::Spill { .. } => false,
        }
    }

    /// Puts another event in the place of one that cannot be made.
    pub(super) fn park(&mut self, lost: &Lost<'_>, fault: Fault, out: &mut Derived) {
        let transaction = lost.transaction();
        let table = lost.row.map(|(plan, _)| &*plan.table);
        let error = self.error_about(transaction, lost.about, table, fault);
        let position = transaction.map_or("?", |transaction| &transaction.position);
        let Within { ordinal, part } = lost.about;
        let id = format!("{}/{}", Identity { position: position.into(), ordinal, part }, lost.name);
        let mut key = Vec::new();
        let is_keyed = lost.row.is_some_and(|(plan, sides)| write_row_key(&plan.table, sides, &mut key).is_ok());
        if !is_keyed {
            key = position.as_bytes().to_vec();
        }
        let parts = lost.root.map(|(rule, root)| self.parts(rule, root));
        let content = match lost.row {
            Some((plan, sides)) => Content::Rows {
                op: name_of(sides.on),
                before: sides.before.map(|row| letter_row(&plan.table, row, sides.before_is_key)),
                after: sides.after.map(|row| letter_row(&plan.table, row, false)),
                parts: parts.as_deref(),
            },
            // A message is nowhere else.
            None if lost.is_outbox => Content::Change(lost.at.batch, lost.at.change),
            None => Content::Nothing,
        };
        let about = About { id, event_type: lost.versioned.to_owned(), rule: Some(&lost.name), transaction };
        let letter = Letter::new(about, (error.reason(), error.code()), &error, &content);
        out.push_missing(&MissingEvent {
            behind: lost.at.place,
            rule: &lost.name,
            number: lost.number,
            event_type: lost.event_type,
            about: lost.about,
            key: &key,
            letter: &letter,
            is_kept: self.is_parking,
        });
        if self.is_parking {
            self.letter_bytes += letter.body.len();
            self.letters.push(letter);
        } else {
            // An aggregate that says so itself: all rows of it are told as changes.
            tracing::warn!(rule = &*lost.name, code = letter.code, "one event says that others are missing: {error}");
        }
    }

    /// The parts of a whole, list by list; each as far as it can be read.
    fn parts(&self, rule: usize, root: &Root) -> Vec<u8> {
        let rule = self.settings.rules.get(rule);
        let includes = rule.and_then(|rule| rule.aggregate.as_ref()).into_iter().flat_map(|whole| &whole.include);
        let mut out = Vec::new();
        for (include, parts) in includes.zip(&root.lists) {
            out.push(if out.is_empty() { b'{' } else { b',' });
            json::write_str(&include.name, &mut out);
            out.extend_from_slice(b":[");
            for (place, row) in parts.rows().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                letter_row(&row.table, row.view(), false).write(&mut out);
            }
            out.push(b']');
        }
        out.extend_from_slice(if out.is_empty() { b"{}" } else { b"}" });
        out
    }
}

fn letter_row<'a>(table: &'a Table, row: RowRef<'a>, is_key: bool) -> LetterRow<'a> {
    LetterRow { table, data: row.data, cells: row.cells, is_key }
}
