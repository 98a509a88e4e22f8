//! What a snapshot of the database showed, against the transactions of the log.

use std::str::FromStr;

use figvine_change::{Sight, Transaction};

/// A value of `pg_snapshot`: `xmin:xmax:xip,...`, in 64-bit transaction ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// All before it had ended.
    xmin: u64,
    /// None from it on had.
    pub(super) xmax: u64,
    /// What was running between the two, in order; transactions within transactions are not among them.
    running: Vec<u64>,
    /// Whether [`Snapshot::running`] is complete: what a standby's snapshot counts as running is not told
    /// (`GetSnapshotData` keeps it among the subtransactions, `pg_current_snapshot` leaves those out).
    pub(super) is_whole: bool,
}

/// A text that is no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotASnapshot;

impl FromStr for Snapshot {
    type Err = NotASnapshot;

    fn from_str(text: &str) -> Result<Self, NotASnapshot> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| NotASnapshot);
        let mut fields = text.splitn(3, ':');
        let mut field = || fields.next().ok_or(NotASnapshot);
        let (xmin, xmax, list) = (number(field()?)?, number(field()?)?, field()?);
        let mut running =
            list.split(',').filter(|id| !id.is_empty()).map(number).collect::<Result<Vec<_>, NotASnapshot>>()?;
        running.sort_unstable();
        Ok(Self { xmin, xmax, running, is_whole: true })
    }
}

impl Snapshot {
    /// As text, in PostgreSQL's form.
    pub(super) fn text(&self) -> String {
        let running: Vec<String> = self.running.iter().map(u64::to_string).collect();
        format!("{}:{}:{}", self.xmin, self.xmax, running.join(","))
    }

    /// Whether a transaction had ended.
    pub(super) fn has_ended(&self, id: u64) -> bool {
        id < self.xmin || self.is_whole && id < self.xmax && self.running.binary_search(&id).is_err()
    }

    /// Whether a transaction that the log told of is not shown yet, and will be.
    pub(super) fn awaits(&self, transaction: &Transaction) -> bool {
        // A reader of a standby's log gets a transaction when it is visible there.
        self.is_whole && transaction.id.parse::<u32>().is_ok_and(|id| !self.has_ended(self.widen(id)))
    }

    /// The transaction ids of the log have 32 bits: it means the one of this number that is nearest.
    fn widen(&self, id: u32) -> u64 {
        const EPOCH: u64 = 1 << 32;
        let id = self.xmax & !(EPOCH - 1) | u64::from(id);
        if id > self.xmax + EPOCH / 2 {
            id.saturating_sub(EPOCH)
        } else if id + EPOCH / 2 < self.xmax {
            id + EPOCH
        } else {
            id
        }
    }
}

impl Sight for Snapshot {
    fn shows(&self, transaction: &Transaction) -> bool {
        // What is no number is no transaction of ours; a message outside transactions has 0 and touches no rows.
        let Ok(id) = transaction.id.parse::<u32>() else { return false };
        self.has_ended(self.widen(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().expect("a snapshot")
    }

    fn shows(snapshot: &Snapshot, id: &str) -> bool {
        let empty = || Box::<str>::from("");
        snapshot.shows(&Transaction {
            id: id.into(),
            position: empty(),
            sequence: empty(),
            committed_at: 0,
            start: empty(),
            end: None,
            origin: None,
            traceparent: None,
            is_ignored: false,
            file: None,
        })
    }

    #[test]
    fn a_snapshot_shows_what_had_ended_and_not_what_ran_or_came_later() {
        let sight = snapshot("100:105:100,103");
        let shown = |ids: &[&str]| ids.iter().map(|id| shows(&sight, id)).collect::<Vec<_>>();
        assert_eq!(shown(&["3", "99", "101", "102", "104"]), [true; 5]);
        assert_eq!(shown(&["100", "103", "105", "106", "2000000000"]), [false; 5]);
        assert!(shows(&sight, "0"));
        assert!(!shows(&sight, "a gtid"));
        // Half the numbers back: before the snapshot's epoch began.
        assert!(shows(&snapshot("4294967296:4294967296:"), "4294967295"));
    }

    #[test]
    fn the_numbers_of_the_log_are_taken_near_the_snapshot_across_the_turn_of_their_32_bits() {
        let before = snapshot("4294967290:4294967294:4294967290");
        assert!(shows(&before, "4294967293"));
        assert!(!shows(&before, "4294967290"));
        assert!(!shows(&before, "5"), "it is of the next epoch");
        let behind = snapshot("4294967290:4294967306:4294967290,4294967300");
        assert!(shows(&behind, "4294967291"));
        assert!(!shows(&behind, "4294967290"));
        assert!(shows(&behind, "3"));
        assert!(!shows(&behind, "4"), "4294967300 was running");
        assert!(!shows(&behind, "10"));
    }

    #[test]
    fn a_standby_shows_surely_only_what_is_older_than_all_that_runs() {
        let sight = Snapshot { is_whole: false, ..snapshot("100:105:") };
        assert!(shows(&sight, "99"));
        assert!(!shows(&sight, "101"));
    }

    #[test]
    fn the_text_of_a_snapshot_reads_back() {
        for text in ["3:3:", "100:105:100,103", "4294967290:4294967306:4294967290"] {
            assert_eq!(snapshot(text).text(), text);
        }
        for text in ["", "1", "1:2", "a:2:", "1:b:", "1:2:x", "-1:2:"] {
            assert_eq!(text.parse::<Snapshot>(), Err(NotASnapshot), "{text:?}");
        }
    }
}
