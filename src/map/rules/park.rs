//! Events that cannot be made: another stands in the place of each, and a letter tells what it was to be made of.

use std::sync::Arc;

use figvine_change::{Batch, Change, Transaction, Within};

use super::aggregate::Root;
use super::derive::{Rules, name_of};
use super::error::Fault;
use super::plan::TablePlan;
use super::rows::{RowRef, Sides};
use super::settings::Rule;
use super::tell::{PartTexts, write_row_key};
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
        std::mem::take(&mut self.letters)
    }

    /// Whether such an event is parked rather than ends the source.
    pub(super) fn is_parked(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Eval { .. } | Fault::Changed { .. } | Fault::Value { .. } | Fault::Outbox(_) => self.is_parking,
            // Every event of the rule would be one; what an aggregate does has a setting of its own; a full disk is no change's fault.
            Fault::Plan(_) | Fault::TooLarge { .. } | Fault::Spill { .. } => false,
        }
    }

    /// Puts another event in the place of one that cannot be made.
    pub(super) fn park(&mut self, lost: &Lost<'_>, fault: Fault, out: &mut Derived) {
        let error = self.error(lost.at.batch, lost.at.change, fault);
        let transaction = lost.transaction();
        let position = transaction.map_or("?", |transaction| &transaction.position);
        let Within { ordinal, part } = lost.about;
        let identity = Identity { position: position.into(), ordinal, part };
        let id = format!("{identity}/{}", lost.name);
        let mut key = Vec::new();
        let is_keyed = lost.row.is_some_and(|(plan, sides)| write_row_key(&plan.table, sides, &mut key).is_ok());
        if !is_keyed {
            key = position.as_bytes().to_vec();
        }
        let mut parts = b"{".to_vec();
        let texts = lost.root.and_then(|(rule, root)| PartTexts::of(root, &self.settings, rule, &self.plans).ok());
        let parts = texts.map(|texts| {
            parts.push(b'}');
            texts.append_to(&mut parts);
            parts
        });
        let content = match lost.row {
            Some((plan, sides)) => Content::Rows {
                op: name_of(sides.on),
                before: sides.before.map(|row| letter_row(plan, row)),
                after: sides.after.map(|row| letter_row(plan, row)),
                parts: parts.as_deref(),
            },
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
        });
        self.letters.push(letter);
    }
}

fn letter_row<'a>(plan: &'a TablePlan, row: RowRef<'a>) -> LetterRow<'a> {
    LetterRow { table: &plan.table, data: row.data, cells: row.cells }
}
