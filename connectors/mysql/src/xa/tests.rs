use super::*;

fn place(sequence: u64) -> Place {
    Place::MariaDb(format!("0-1-{sequence}").parse().expect("a position"))
}

/// `names` are prepared by 0-1-1, 0-1-2 and so on; of them a server that was asked when its log ended at 0-1-9 had `there`.
fn known(names: &[&str], there: &[&str]) -> XaTransactions {
    let prepared = there.iter().map(|name| (*name).to_owned()).collect();
    let mut all = XaTransactions::new(Some(Recovered { prepared, until: "0-1-9".parse().expect("a position") }));
    for (name, sequence) in names.iter().zip(1..) {
        let gtid = format!("0-1-{sequence}").parse().expect("a gtid");
        let prepared = Prepared { spool: Spool::default(), name: Name::MariaDb(gtid) };
        all.prepare((*name).to_owned(), prepared, place(sequence - 1));
    }
    all
}

#[test]
fn a_place_is_held_by_the_first_that_is_prepared() {
    let now = Instant::now();
    let mut all = known(&["a", "b"], &[]);
    assert_eq!(all.first(), Some(&place(0)));
    assert!(all.commit("a", now).is_some());
    all.settle(&place(12), now + UNSURE);
    assert_eq!(all.first(), Some(&place(1)));
    assert!(all.commit("unknown", now).is_none());
}

#[test]
fn what_ended_stays_known_while_a_crash_may_undo_it() {
    let now = Instant::now();
    let mut all = known(&["a", "b"], &[]);
    all.settle(&place(9), now);
    all.commit("a", now);
    all.roll_back("b", now).expect("rolls back");
    all.settle(&place(11), now + UNSURE / 2);
    assert_eq!(all.first(), Some(&place(0)));
    all.settle(&place(11), now + UNSURE);
    assert_eq!(all.first(), None);
}

#[test]
fn what_the_engine_ended_before_it_was_asked_is_forgotten_there() {
    let now = Instant::now();
    let mut all = known(&["a", "b"], &["b"]);
    all.roll_back("a", now).expect("rolls back");
    all.roll_back("b", now).expect("rolls back");
    all.settle(&place(8), now);
    assert_eq!(all.first(), Some(&place(0)));
    all.settle(&place(9), now);
    assert_eq!(all.first(), Some(&place(1)), "the engine was at it");
}

#[test]
fn a_rollback_that_a_crash_undid_can_be_committed() {
    let now = Instant::now();
    for is_past in [false, true] {
        let mut all = known(&["a"], &["a"]);
        all.roll_back("a", now).expect("rolls back");
        all.started();
        all.settle(&place(if is_past { 9 } else { 5 }), now + UNSURE);
        assert!(all.commit("a", now).is_some());
        assert!(all.commit("a", now).is_none(), "once");
    }
}

#[test]
fn a_rollback_that_outlived_the_crash_holds_nothing() {
    let now = Instant::now();
    let mut all = known(&["a"], &[]);
    all.roll_back("a", now).expect("rolls back");
    all.started();
    all.settle(&place(5), now + UNSURE);
    assert_eq!(all.first(), Some(&place(0)));
    all.settle(&place(9), now);
    assert_eq!(all.first(), None);
}

#[test]
fn what_a_crash_kept_from_being_prepared_holds_nothing() {
    let now = Instant::now();
    let mut all = known(&["a", "b"], &["b"]);
    all.settle(&place(9), now + UNSURE);
    assert_eq!(all.first(), Some(&place(0)), "no start of the server lies behind it");
    all.started();
    all.settle(&place(9), now);
    assert_eq!(all.first(), Some(&place(1)));
}

#[test]
fn a_commit_that_a_crash_undid_can_be_repeated_and_not_be_rolled_back() {
    let now = Instant::now();
    let mut all = known(&["a", "b", "c"], &["a", "b"]);
    for name in ["a", "b", "c"] {
        assert!(all.commit(name, now).is_some());
    }
    all.started();
    all.settle(&place(9), now + UNSURE);
    assert!(all.commit("a", now).is_none());
    assert_eq!(all.roll_back("b", now).err(), Some(CommitUndone("b".into())));
    assert!(all.roll_back("c", now).is_ok(), "another transaction has the name");
}

#[test]
fn a_server_that_does_what_its_log_says_needs_no_doubt() {
    let now = Instant::now();
    let mut all = XaTransactions::new(None);
    for name in ["a", "b"] {
        let prepared = Prepared { spool: Spool::default(), name: Name::Place };
        all.prepare(name.into(), prepared, place(0));
    }
    assert!(all.commit("a", now).is_some());
    assert!(all.roll_back("b", now).expect("rolls back").is_some());
    assert_eq!(all.first(), None);
}
