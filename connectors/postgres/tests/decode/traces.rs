//! What a message before the first captured change says of its transaction, however that is read.

use bytes::Bytes;
use figvine_change::{Body, Position};
use figvine_postgres::decode::{Frame, Message};
use figvine_postgres::lsn::LogId;
use figvine_postgres::replay::Replay;

use crate::captured::{beginning, capture, frame, frames, message, read, sent_from, session};
use crate::show::position;

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";

/// A transactional message as the server sends it.
fn said(prefix: &str, content: &str) -> Bytes {
    let mut message = b"M\x01\0\0\0\0\0\0\0\x01".to_vec();
    message.extend_from_slice(prefix.as_bytes());
    message.push(0);
    message.extend_from_slice(&u32::try_from(content.len()).expect("short").to_be_bytes());
    message.extend_from_slice(content.as_bytes());
    // XLogData: start, end, time.
    let payload = [&b"w"[..], &[0; 24], &message].concat();
    let length = u32::try_from(payload.len() + 4).expect("short").to_be_bytes();
    [&b"d"[..], &length, &payload].concat().into()
}

/// The capture with these messages behind the beginning of each transaction, and those behind each row.
fn annotated(name: &str, before: &[Bytes], behind: &[Bytes]) -> Vec<Bytes> {
    let mut all = Vec::new();
    for bytes in frames(&capture(name)) {
        let kind = match frame(&bytes) {
            Frame::XLogData { message: reader, .. } => Some(message(reader)),
            Frame::Keepalive { .. } => None,
        };
        let more = match kind {
            Some(Message::Begin { .. }) => before,
            Some(Message::Insert { .. } | Message::Update { .. } | Message::Delete { .. }) => behind,
            _ => &[],
        };
        all.push(bytes.clone());
        all.extend_from_slice(more);
    }
    all
}

/// Of each change but shapes: its ordinal, the place behind it, its trace, and whether its transaction is marked.
type Said = (u64, Position, Option<Box<str>>, bool);

fn read_said(session: &mut Replay, frames: &[Bytes], chunks: impl IntoIterator<Item = usize>) -> Vec<Said> {
    let batches = read(session, frames, chunks);
    let changes = batches.iter().flat_map(|batch| batch.changes.iter().map(move |change| (batch, change)));
    let told = changes.filter(|(_, change)| !matches!(change.body, Body::Shape { .. }));
    told.map(|(batch, change)| {
        let of = batch.transaction(change).expect("a transaction");
        (change.ordinal, position(batch, change), of.traceparent.clone(), of.is_ignored)
    })
    .collect()
}

/// Reads the frames as a whole, then from behind some forty of the changes, in chunks of several sizes.
fn however_it_is_read(frames: &[Bytes]) -> Vec<Said> {
    let all = read_said(&mut session(&beginning()), frames, []);
    for (at, (_, from, ..)) in all.iter().enumerate().step_by(1 + all.len() / 40) {
        let sent = sent_from(frames, LogId::parse(from).expect("a position").1);
        for chunk in [1, 3, usize::MAX] {
            let rest = read_said(&mut session(from), &sent, std::iter::repeat_n(chunk, sent.len()));
            assert_eq!(rest, all[at + 1..], "from {from} by {chunk}");
        }
    }
    all
}

#[test]
fn the_last_trace_before_the_first_change_is_that_of_all_changes() {
    let before =
        [said("traceparent", OTHER), said("traceparent", TRACE), said("traceparent", "nothing"), said("other", OTHER)];
    let behind = [said("traceparent", OTHER), said("ignored", "")];
    for name in ["crud", "long_transaction", "interleaved"] {
        let all = however_it_is_read(&annotated(name, &before, &behind));
        assert!(all.len() > 5 && all.iter().all(|(_, _, trace, _)| trace.as_deref() == Some(TRACE)), "{name}: {all:?}");
        assert!(all.iter().all(|(.., is_ignored)| !is_ignored), "{name}");
        assert!(all.iter().any(|(ordinal, ..)| *ordinal == 4), "{name}: messages are counted");
    }
}

#[test]
fn a_mark_before_the_first_change_is_that_of_all_changes() {
    for name in ["crud", "long_transaction"] {
        let all = however_it_is_read(&annotated(name, &[said("ignored", "why")], &[]));
        assert!(!all.is_empty() && all.iter().all(|(.., is_ignored)| *is_ignored), "{name}: {all:?}");
    }
}

#[test]
fn a_message_that_is_an_event_is_a_change() {
    let before = [said("wanted", "first"), said("traceparent", TRACE), said("ignored", "")];
    for name in ["crud", "interleaved"] {
        let all = however_it_is_read(&annotated(name, &before, &[]));
        assert!(all.iter().all(|(_, _, trace, is_ignored)| trace.is_none() && !is_ignored), "{name}: {all:?}");
    }
}
