//! The heart of exactly-once: a session that starts at any place gives exactly what lies behind it.

use std::collections::BTreeSet;

use figvine_change::{Batch, Position};
use figvine_postgres::lsn::{LogId, Lsn};
use proptest::prelude::*;

use crate::captured::{CAPTURES, beginning, capture, frames, read, sent_from, session, session_of, whole};
use crate::show::{Seen, seen};

fn lsn(position: &Position) -> Lsn {
    LogId::parse(position).expect("a position of this connector").1
}

/// Fails when a session that started at `from` and gave `batches` is not the rest of the log: `behind`.
fn assert_is_the_rest(context: &str, from: &Position, batches: &[Batch], behind: &[Seen]) {
    let resumed = seen(batches);
    let changes = |all: &[Seen]| all.iter().filter(|seen| !seen.is_shape).cloned().collect::<Vec<_>>();
    assert_eq!(changes(&resumed), changes(behind), "{context}");

    // A new session may be told of more shapes than the old one, and is told of each before the first row.
    for shape in behind.iter().filter(|seen| seen.is_shape) {
        assert!(resumed.contains(shape), "{context}: no {shape:?}");
    }
    let mut told = BTreeSet::new();
    for change in &resumed {
        if change.is_shape {
            told.insert(change.table.clone());
        } else if change.table.is_some() {
            assert!(told.contains(&change.table), "{context}: the shape was not told before {change:?}");
        }
    }

    // Nothing makes a third session start before this one.
    let mut reached = lsn(from);
    for batch in batches {
        let places = seen(std::slice::from_ref(batch)).into_iter().map(|seen| seen.position);
        for place in places.chain(batch.end.clone()) {
            assert!(lsn(&place) >= reached, "{context}: {place} after {reached}");
            assert!(
                lsn(&place) > lsn(from) || place.within >= from.within,
                "{context}: {place} lies before {from}, where the session started"
            );
            reached = lsn(&place);
        }
    }
}

#[test]
fn a_session_that_starts_behind_any_change_gives_exactly_the_rest() {
    for name in CAPTURES {
        let capture = capture(name);
        let (frames, all) = (frames(&capture), whole(&capture));
        assert!(!all.is_empty(), "{name} has changes");
        for (at, change) in all.iter().enumerate() {
            let from = &change.position;
            let sent = sent_from(&frames, lsn(from));
            for chunk in [1, 3, usize::MAX] {
                let batches = read(&mut session(from), &sent, std::iter::repeat_n(chunk, sent.len()));
                assert_is_the_rest(&format!("{name} from {from} by {chunk}"), from, &batches, &all[at + 1..]);
            }
        }
    }
}

#[test]
fn a_session_that_starts_at_the_end_of_any_batch_gives_exactly_the_rest() {
    for name in CAPTURES {
        let frames = frames(&capture(name));
        for chunk in [1, 2, 7] {
            let batches = read(&mut session(&beginning()), &frames, std::iter::repeat_n(chunk, frames.len()));
            let all = seen(&batches);
            let mut count = 0;
            for batch in &batches {
                count += batch.changes.len();
                let Some(end) = &batch.end else { continue };
                let sent = sent_from(&frames, lsn(end));
                let rest = read(&mut session(end), &sent, []);
                assert_is_the_rest(&format!("{name} from {end} by {chunk}"), end, &rest, &all[count..]);
            }
        }
    }
}

#[test]
fn a_change_is_the_same_whatever_else_is_captured() {
    for (name, some) in [
        ("crud", &["*.*", "!*.by_index", "!*.by_default"][..]),
        ("truncate", &["*.child", "*.other"]),
        ("idle", &["*.*"]),
        ("idle", &["*.unwanted"]),
        ("key_change", &["*.by_full"]),
        ("long_transaction", &["*.unwanted"]),
    ] {
        let frames = frames(&capture(name));
        let all = seen(&read(&mut session_of(&["*.*"], &beginning()), &frames, []));
        let few = seen(&read(&mut session_of(some, &beginning()), &frames, []));
        // Which one is the last depends on what is captured, and with it the place behind it.
        let identity = |seen: &Seen| (seen.transaction.clone(), seen.ordinal, seen.part, seen.text.clone());
        let known: BTreeSet<_> = all.iter().map(identity).collect();
        assert!(!few.is_empty(), "{name} has changes of {some:?}");
        for change in &few {
            assert!(known.contains(&identity(change)), "{name} of {some:?}: {change:?}");
        }
    }
}

#[test]
fn a_keepalive_from_before_the_beginning_moves_nothing() {
    let all = frames(&capture("long_transaction"));
    let keepalive = all.iter().find(|frame| frame[5] == b'k').expect("a keepalive").clone();
    let middle = whole(&capture("long_transaction")).into_iter().find(|seen| seen.ordinal == 100).expect("a middle");
    let mut old = keepalive.to_vec();
    for place in [Lsn(0), Lsn(lsn(&middle.position).0 - 1), lsn(&middle.position)] {
        old[6..14].copy_from_slice(&place.0.to_be_bytes());
        let batches = read(&mut session(&middle.position), &[old.clone().into()], []);
        assert!(batches.is_empty(), "{place}: {batches:?}");
    }
}

#[test]
fn a_keepalive_inside_a_transaction_does_not_end_it() {
    let all = frames(&capture("long_transaction"));
    let mut keepalive = all.iter().find(|frame| frame[5] == b'k').expect("a keepalive").to_vec();
    keepalive[6..14].copy_from_slice(&u64::MAX.to_be_bytes());
    let chunk = [&all[..100], &[keepalive.into()]].concat();
    let batches = read(&mut session(&beginning()), &chunk, [50, 50]);
    let behind_begin = batches.iter().skip_while(|batch| batch.changes.is_empty());
    let ends: Vec<_> = behind_begin.filter_map(|batch| batch.end.as_ref()).collect();
    assert!(ends.is_empty(), "{ends:?}");
}

#[test]
fn the_log_holds_a_transaction_whole_from_its_start() {
    for name in CAPTURES {
        let frames = frames(&capture(name));
        let batches = read(&mut session(&beginning()), &frames, []);
        let all = seen(&batches);
        for transaction in batches.iter().flat_map(|batch| &batch.transactions) {
            let of = |all: &[Seen]| -> Vec<Seen> {
                let of = |seen: &&Seen| *seen.transaction == *transaction.position && !seen.is_shape;
                all.iter().filter(of).cloned().collect()
            };
            let start = Position::between(transaction.start.clone());
            let again = seen(&read(&mut session(&start), &sent_from(&frames, lsn(&start)), []));
            assert_eq!(of(&again), of(&all), "{name} from {start}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_place_and_any_chunks_give_exactly_the_rest(
        name in prop::sample::select(&CAPTURES[..]),
        at in any::<prop::sample::Index>(),
        chunks in prop::collection::vec(1_usize..20, 0..60),
    ) {
        let capture = capture(name);
        let all = whole(&capture);
        let at = at.index(all.len());
        let from = &all[at].position;
        let sent = sent_from(&frames(&capture), lsn(from));
        let batches = read(&mut session(from), &sent, chunks);
        assert_is_the_rest(name, from, &batches, &all[at + 1..]);
    }
}
