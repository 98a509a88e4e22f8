//! Echoes: what another writer carried into the database is not told once more.
//!
//! Where two systems write to each other, a change that came from one must not go back to it. Whole transactions are left
//! out, by where they came from ([`figvine_change::Transaction::origin`]), or because whoever wrote them said so in them
//! ([`figvine_change::Transaction::is_ignored`]). The shapes of tables are told all the same: later changes are read by them.

use std::collections::BTreeSet;

use figvine_change::{Batch, Body, Position, Transaction};

/// Origins whose transactions are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Echoes {
    origins: BTreeSet<Box<str>>,
}

impl Echoes {
    /// Of these origins, as the source's connector names them.
    #[must_use]
    pub fn new(origins: impl IntoIterator<Item = Box<str>>) -> Self {
        Self { origins: origins.into_iter().collect() }
    }

    /// Takes the changes of echoes out of a batch; how many there were.
    pub fn take_out(&self, batch: &mut Batch) -> u64 {
        let is_echo = |transaction: &Transaction| {
            transaction.is_ignored || transaction.origin.as_ref().is_some_and(|origin| self.origins.contains(origin))
        };
        if !batch.transactions.iter().any(is_echo) {
            return 0;
        }
        let echoes: Vec<bool> = batch.transactions.iter().map(is_echo).collect();
        let goes = |transaction: u32| echoes.get(transaction as usize).copied().unwrap_or(false);
        // Without its last change a transaction says nothing of its end.
        if let Some(last) = batch.changes.last().filter(|last| last.last && goes(last.transaction))
            && batch.end.is_none()
        {
            let end = batch.transaction(last).and_then(|transaction| transaction.end.clone());
            batch.end = end.map(Position::between);
        }
        let before = batch.changes.len();
        batch.changes.retain(|change| !goes(change.transaction) || matches!(change.body, Body::Shape { .. }));
        (before - batch.changes.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use figvine_change::Change;

    use super::*;

    fn transaction(position: &str, origin: Option<&str>) -> Transaction {
        Transaction {
            id: position.into(),
            position: position.into(),
            sequence: position.into(),
            committed_at: 0,
            start: format!("before {position}").into(),
            end: Some(format!("behind {position}").into()),
            origin: origin.map(Into::into),
            traceparent: None,
            is_ignored: false,
            file: None,
        }
    }

    fn message(transaction: u32, ordinal: u64, last: bool) -> Change {
        Change { transaction, ordinal, part: 1, last, body: Body::Message { prefix: 0..0, content: 0..0 } }
    }

    fn batch() -> Batch {
        Batch {
            transactions: vec![transaction("1", None), transaction("2", Some("crm")), transaction("3", Some("erp"))],
            changes: vec![message(0, 0, true), message(1, 0, false), message(1, 1, true)],
            ..Batch::default()
        }
    }

    #[test]
    fn transactions_of_the_origins_are_left_out_and_their_end_is_kept() {
        let echoes = Echoes::new(["crm".into()]);
        let mut found = batch();
        assert_eq!(echoes.take_out(&mut found), 2);
        assert_eq!(found.changes, [message(0, 0, true)]);
        assert_eq!(found.end, Some(Position::between("behind 2")));

        // What follows says where it ends.
        let mut found = batch();
        found.changes.push(message(2, 0, false));
        assert_eq!(echoes.take_out(&mut found), 2);
        assert_eq!((found.changes.len(), found.end), (2, None));
    }

    #[test]
    fn a_shape_that_came_with_an_echo_is_told() {
        let mut found = batch();
        let shape = Change { body: Body::Shape { table: 0 }, part: 0, ..message(1, 0, false) };
        found.changes.insert(1, shape.clone());
        assert_eq!(Echoes::new(["crm".into()]).take_out(&mut found), 2);
        assert_eq!(found.changes, [message(0, 0, true), shape]);
    }

    #[test]
    fn without_origins_and_marks_all_is_told() {
        let mut found = batch();
        assert_eq!(Echoes::default().take_out(&mut found), 0);
        assert_eq!(found.changes.len(), 3);
    }

    #[test]
    fn a_transaction_that_is_marked_is_left_out_whatever_its_traces() {
        let mut found = batch();
        let marked = Transaction { is_ignored: true, ..transaction("2", None) };
        let other = Transaction { traceparent: Some("00-1".into()), ..marked.clone() };
        found.transactions = vec![transaction("1", None), marked, other];
        found.changes = vec![message(0, 0, true), message(1, 0, false), message(2, 1, true)];
        assert_eq!(Echoes::default().take_out(&mut found), 2);
        assert_eq!(found.changes, [message(0, 0, true)]);
        assert_eq!(found.end, Some(Position::between("behind 2")));
    }
}
