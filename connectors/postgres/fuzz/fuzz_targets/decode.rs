//! A chunk of arbitrary bytes through decoder and normaliser: no panic, and no more cells than bytes.
//!
//! `cargo +nightly fuzz run decode fuzz/corpus/decode tests/captures` from `connectors/postgres`
//! begins with what a server really sent.

#![no_main]

use bytes::Bytes;
use figvine_change::{Batch, Cell, Position};
use figvine_postgres::decode::reader::Reader;
use figvine_postgres::decode::{self, Frame};
use figvine_postgres::replay::Replay;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    frames(bytes);

    let from = Position::between("1/1/0/0");
    let Ok(mut replay) = Replay::new(&["*.*".to_owned()], &["*".to_owned()], &from) else { return };
    let mut batches: Vec<Batch> = Vec::new();
    // Cut at its middle, so that a transaction may be spread over chunks.
    let chunk = Bytes::copy_from_slice(bytes);
    for chunk in [chunk.slice(..chunk.len() / 2), chunk.slice(chunk.len() / 2..), chunk] {
        if replay.read(&chunk, &mut batches).is_err() {
            break;
        }
    }
    for batch in &batches {
        assert!(batch.cells.len() <= batch.data.len());
        assert_in_bounds(&batch.cells, batch.data.len());
    }
});

/// Each frame alone, past those that are none.
fn frames(mut rest: &[u8]) {
    while let Some((&[length, ..], body)) = rest.split_first_chunk::<1>() {
        let (payload, behind) = body.split_at(usize::from(length).min(body.len()));
        rest = behind;
        let mut cells = Vec::new();
        if let Ok(Frame::XLogData { message, .. }) = decode::frame(payload, 0) {
            let _ = decode::message(message, &mut cells);
        }
        let _ = decode::message(Reader::new(payload, 0), &mut cells);
        assert!(cells.len() <= 2 * payload.len());
        assert_in_bounds(&cells, payload.len());
    }
}

fn assert_in_bounds(cells: &[Cell], length: usize) {
    for cell in cells {
        if let Cell::Value(range) = cell {
            assert!(range.start <= range.end && range.end as usize <= length);
        }
    }
}
