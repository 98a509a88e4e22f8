//! Captures, the frames they are made of, and what a server would send of them to a later session.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use figvine_change::{Batch, Position};
use figvine_postgres::decode::reader::Reader;
use figvine_postgres::decode::{self, Frame, Message};
use figvine_postgres::lsn::{LogId, Lsn};
use figvine_postgres::replay::Replay;

use crate::show::{Seen, seen};

/// All captures.
pub(crate) const CAPTURES: [&str; 17] = [
    "crud",
    "ddl",
    "idle",
    "interleaved",
    "key_change",
    "keyless",
    "leaves",
    "long_transaction",
    "messages",
    "names",
    "origin",
    "partitions",
    "subtransactions",
    "toast",
    "truncate",
    "truncate_first",
    "types",
];

/// The log that the captures are said to be of.
pub(crate) const LOG: LogId = LogId { system: 7, timeline: 1 };

/// A capture's bytes.
pub(crate) fn capture(name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/captures/{name}.bin"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into()
}

/// Its CopyData frames, with tag and length.
pub(crate) fn frames(capture: &Bytes) -> Vec<Bytes> {
    let mut rest = capture.clone();
    let mut frames = Vec::new();
    while let Some(&[_, a, b, c, d]) = rest.first_chunk::<5>() {
        frames.push(rest.split_to(1 + u32::from_be_bytes([a, b, c, d]) as usize));
    }
    frames
}

/// One frame's content.
pub(crate) fn frame(frame: &Bytes) -> Frame<'_> {
    decode::frame(&frame[5..], 5).expect("a frame of a capture")
}

/// The message in a frame.
pub(crate) fn message<'a>(reader: Reader<'a>) -> Message<'a> {
    decode::message(reader, &mut Vec::new()).expect("a message of a capture")
}

/// The place before everything.
pub(crate) fn beginning() -> Position {
    Position::between(LOG.at(Lsn(0)))
}

/// A session over all tables but `unwanted`, and messages `wanted`.
pub(crate) fn session(from: &Position) -> Replay {
    session_of(&["*.*", "!*.unwanted"], from)
}

/// A session over some tables.
pub(crate) fn session_of(tables: &[&str], from: &Position) -> Replay {
    let tables: Vec<String> = tables.iter().map(|&glob| glob.to_owned()).collect();
    Replay::new(&tables, &["wanted".to_owned()], from).expect("globs")
}

/// Reads frames that come in chunks of as many frames as told; the last one holds the rest.
pub(crate) fn read(session: &mut Replay, frames: &[Bytes], chunks: impl IntoIterator<Item = usize>) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut rest = frames;
    for count in chunks.into_iter().chain([usize::MAX]) {
        let (chunk, behind) = rest.split_at(count.min(rest.len()));
        rest = behind;
        if !chunk.is_empty() {
            session.read(&chunk.concat().into(), &mut batches).expect("a readable capture");
        }
    }
    batches
}

/// All changes of a capture, read in one chunk.
pub(crate) fn whole(capture: &Bytes) -> Vec<Seen> {
    seen(&read(&mut session(&beginning()), &frames(capture), []))
}

/// What a walsender sends to a session that starts at `from`: the transactions and messages whose record does not
/// lie before it, and before the first use of a table its shape, since a new session knows none. Keepalives come
/// as they came: those from before `from` too, as of a server that has to read old log again.
pub(crate) fn sent_from(frames: &[Bytes], from: Lsn) -> Vec<Bytes> {
    let mut shapes: BTreeMap<u32, Bytes> = BTreeMap::new();
    let mut told = BTreeSet::new();
    let mut is_sent = true;
    let mut sent = Vec::new();
    for bytes in frames {
        let Frame::XLogData { message: reader, .. } = frame(bytes) else {
            sent.push(bytes.clone());
            continue;
        };
        let message = message(reader);
        let used = match &message {
            Message::Begin { commit_lsn, .. } => {
                is_sent = *commit_lsn >= from.0;
                Vec::new()
            }
            Message::Logical { transactional: false, lsn, .. } => {
                // Its record ends there.
                is_sent = *lsn > from.0;
                Vec::new()
            }
            Message::Relation(relation) => {
                shapes.insert(relation.oid, bytes.clone());
                if is_sent {
                    told.insert(relation.oid);
                }
                Vec::new()
            }
            Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } => {
                vec![*relation]
            }
            Message::Truncate { relations } => relations.iter().collect(),
            _ => Vec::new(),
        };
        if is_sent {
            let untold = used.into_iter().filter(|oid| told.insert(*oid));
            sent.extend(untold.filter_map(|oid| shapes.get(&oid).cloned()));
            sent.push(bytes.clone());
        }
    }
    sent
}
