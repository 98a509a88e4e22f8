//! What holds however the log is cut, and whatever the bytes are.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use figvine_change::{Batch, Cell};
use figvine_postgres::decode;
use proptest::prelude::*;

use crate::captured::{CAPTURES, beginning, capture, frames, read, session, whole};
use crate::show::{Seen, seen};

/// The promises of a batch and of a transaction that need no other reading to compare with.
fn assert_in_order(context: &str, batches: &[Batch]) {
    let all = seen(batches);
    let mut ended: BTreeSet<String> = BTreeSet::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for pair in all.windows(2) {
        let [a, b] = pair else { continue };
        assert_eq!(a.last, a.transaction != b.transaction, "{context}: {a:?} then {b:?}");
        if a.transaction == b.transaction && !a.is_shape && !b.is_shape {
            assert!((a.ordinal, a.part) < (b.ordinal, b.part), "{context}: {a:?} then {b:?}");
        }
    }
    for change in &all {
        assert!(!ended.contains(&change.transaction), "{context}: {change:?} behind its transaction's last");
        *counts.entry(change.transaction.clone()).or_default() += 1;
        if change.last {
            ended.insert(change.transaction.clone());
        }
    }
    assert_eq!(ended.len(), counts.len(), "{context}: every transaction has one last change");

    let identities: Vec<_> = all.iter().filter(|c| !c.is_shape).map(|c| (&c.transaction, c.ordinal, c.part)).collect();
    let distinct: BTreeSet<_> = identities.iter().collect();
    assert_eq!(distinct.len(), identities.len(), "{context}: an identity is given to one change only");

    let sequences: Vec<&str> = batches.iter().flat_map(|b| &b.transactions).map(|t| &*t.sequence).collect();
    assert!(sequences.is_sorted(), "{context}: {sequences:?}");
    for batch in batches {
        assert!(batch.end.is_some() || !batch.changes.is_empty(), "{context}: a batch that says nothing");
        let used: BTreeSet<u32> = batch.changes.iter().map(|change| change.transaction).collect();
        assert_eq!(used.len(), batch.transactions.len(), "{context}: a batch has the transactions of its changes");
    }
}

#[test]
fn the_chunks_in_which_the_log_comes_change_nothing() {
    for name in CAPTURES {
        let capture = capture(name);
        let (frames, all) = (frames(&capture), whole(&capture));
        let cuts = (0..=frames.len().min(120)).map(|cut| vec![cut]);
        let steps = (1..=9).map(|step| vec![step; frames.len() / step]);
        for chunks in cuts.chain(steps) {
            let batches = read(&mut session(&beginning()), &frames, chunks.clone());
            assert_eq!(seen(&batches), all, "{name} in {chunks:?}");
            assert_in_order(name, &batches);
        }
    }
}

#[test]
fn one_change_at_most_waits_for_its_transaction_to_end() {
    let frames = frames(&capture("long_transaction"));
    let mut session = session(&beginning());
    let mut batches = Vec::new();
    let (mut read, mut given) = (0, 0);
    for frame in &frames {
        read += usize::from(frame.get(30) == Some(&b'I'));
        session.read(frame, &mut batches).expect("a readable capture");
        given += std::mem::take(&mut batches).iter().map(|batch| batch.changes.len()).sum::<usize>();
        // 300 rows come before those that are not wanted.
        assert!(read > 300 || read <= given + 1, "{read} rows read, {given} changes given");
    }
}

#[test]
fn what_the_log_leaves_out_is_never_null() {
    let batches = read(&mut session(&beginning()), &frames(&capture("toast")), []);
    let of = |text: &str| -> Vec<Seen> { seen(&batches).into_iter().filter(|seen| seen.text.contains(text)).collect() };
    assert!(!of("\"body\"=unchanged").is_empty());
    // FULL has the old row, and with it what the new one leaves out.
    assert!(of("public.full_docs").iter().all(|seen| !seen.text.contains("unchanged")));
}

#[test]
fn a_message_at_the_end_of_all_places_is_read() {
    let mut payload = BytesMut::new();
    payload.put_u8(b'w');
    payload.put_bytes(0, 24);
    payload.put_slice(b"M\0");
    payload.put_u64(u64::MAX);
    payload.put_slice(b"wanted\0");
    payload.put_u32(0);
    let batches = read(&mut session(&beginning()), &[framed(&payload)], []);
    assert_eq!(seen(&batches).len(), 1);
}

fn framed(payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(b'd');
    frame.put_u32(u32::try_from(payload.len() + 4).expect("short"));
    frame.extend_from_slice(payload);
    frame.freeze()
}

/// Reads whatever it is; fails when more comes out than went in.
fn read_anything(chunks: &[Bytes]) {
    let mut session = session(&beginning());
    let mut batches = Vec::new();
    for chunk in chunks {
        if session.read(chunk, &mut batches).is_err() {
            break;
        }
    }
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    for batch in &batches {
        assert!(batch.cells.len() <= bytes && batch.changes.len() <= bytes);
        for cell in &batch.cells {
            if let Cell::Value(range) = cell {
                assert!(range.start <= range.end && range.end as usize <= batch.data.len());
            }
        }
    }
    // Rendering touches every index in them.
    seen(&batches);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode::frame(&bytes, 0);
        let _ = decode::message(decode::reader::Reader::new(&bytes, 0), &mut Vec::new());
        read_anything(&[framed(&bytes)]);
        read_anything(&[bytes.into()]);
    }

    #[test]
    fn random_messages_are_refused_without_panic(
        messages in prop::collection::vec(
            (prop::sample::select(&b"BCORYIUDTM"[..]), prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..60)),
            1..8,
        ),
    ) {
        let frames: Vec<Bytes> = messages.iter().map(|(kind, body)| {
            framed(&[b"w", &[0; 24][..], &[*kind], body].concat())
        }).collect();
        read_anything(&frames);
        read_anything(&[frames.concat().into()]);
    }

    #[test]
    fn damaged_captures_are_refused_without_panic(
        name in prop::sample::select(&CAPTURES[..]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let mut frames = frames(&capture(name));
        for at in removed {
            frames.remove(at.index(frames.len()));
            if frames.is_empty() { return Ok(()); }
        }
        let mut bytes = frames.concat();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_anything(&[bytes.into()]);
    }

    #[test]
    fn any_chunks_give_the_same_changes(
        name in prop::sample::select(&CAPTURES[..]),
        chunks in prop::collection::vec(0_usize..30, 0..100),
    ) {
        let capture = capture(name);
        let batches = read(&mut session(&beginning()), &frames(&capture), chunks);
        prop_assert_eq!(seen(&batches), whole(&capture));
        assert_in_order(name, &batches);
    }
}
