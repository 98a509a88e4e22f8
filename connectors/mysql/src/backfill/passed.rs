//! What was passed on of the log: a reader that is opened later shows all of it.
//!
//! A log is sent before its transactions are visible: while a replica's acknowledgement is waited for (semi-synchronous
//! replication), for seconds.

use std::sync::{Arc, Mutex, PoisonError};

use figvine_change::{Batch, Position};

use super::sight::Shown;
use crate::gtid::MySqlSet;
use crate::position::{Place, Reading};

/// Told by the sources of a connector, asked by its readers.
#[derive(Debug, Clone, Default)]
pub(crate) struct PassedOn(Arc<Mutex<Newest>>);

/// The newest of what was passed on.
#[derive(Debug, Clone, Default)]
pub(super) struct Newest {
    /// The place behind the last whole transaction.
    end: Option<Box<str>>,
    /// The name and sequence of the last transaction, whole or not.
    last: Option<(Box<str>, Box<str>)>,
}

impl PassedOn {
    /// A batch is passed on.
    pub(crate) fn add(&self, batch: &Batch) {
        let end = match &batch.end {
            Some(end) => Some(&end.log),
            None => batch.transactions.iter().rev().find_map(|transaction| transaction.end.as_ref()),
        };
        let last = batch.transactions.last();
        if end.is_none() && last.is_none() {
            return;
        }
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = end {
            newest.end = Some(end.clone());
        }
        if let Some(last) = last {
            newest.last = Some((last.id.clone(), last.sequence.clone()));
        }
    }

    pub(super) fn now(&self) -> Newest {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Newest {
    /// Whether all of it is shown.
    pub(super) fn is_shown(&self, shown: &Shown) -> bool {
        self.last.as_ref().is_none_or(|(id, sequence)| shown.has(id, sequence))
            && match shown {
                Shown::Gtids(set) => self.set().is_none_or(|passed| passed.is_subset(set)),
                // The log is one line: what stands before the last transaction is shown with it.
                Shown::Before(_) => true,
            }
    }

    fn set(&self) -> Option<MySqlSet> {
        let (reading, _) = Reading::parse(&Position::between(self.end.clone()?))?;
        match reading.done() {
            Place::MySql(set) => Some(set.clone()),
            Place::MariaDb(_) | Place::File { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use figvine_change::Transaction;

    use super::*;

    const UUID: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";

    fn batch(end: Option<&str>, last: Option<(&str, &str)>) -> Batch {
        let transaction = |(id, sequence): (&str, &str)| Transaction {
            id: id.into(),
            position: id.into(),
            sequence: sequence.into(),
            committed_at: 0,
            start: Box::default(),
            end: None,
            origin: None,
            traceparent: None,
            is_ignored: false,
            file: None,
        };
        Batch {
            end: end.map(Position::between),
            transactions: last.map(transaction).into_iter().collect(),
            ..Batch::default()
        }
    }

    #[test]
    fn a_reader_waits_for_all_that_was_passed_on_and_for_the_transaction_in_hand() {
        let shown = |set: &str| Shown::Gtids(format!("{UUID}:{set}").parse().expect("a set"));
        let passed = PassedOn::default();
        assert!(passed.now().is_shown(&shown("1")), "nothing was passed on");
        passed.add(&batch(Some(&format!("gtid/{UUID}:1-5")), None));
        assert!(!passed.now().is_shown(&shown("1-4")));
        assert!(passed.now().is_shown(&shown("1-5")));
        passed.add(&batch(None, Some((&format!("{UUID}:7"), ""))));
        assert!(!passed.now().is_shown(&shown("1-6")));
        assert!(passed.now().is_shown(&shown("1-5:7")));

        let passed = PassedOn::default();
        passed.add(&batch(Some("mariadb/0-1-5"), Some(("0-1-5", "0000000002-000000000400"))));
        let shown = |place: &str| Shown::Before(place.into());
        assert!(!passed.now().is_shown(&shown("0000000001-000000009000")));
        assert!(passed.now().is_shown(&shown("0000000002-000000000431")));
    }
}
