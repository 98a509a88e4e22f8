//! How fast a session's bytes become batches: decoder and normaliser alone, on one core.
//!
//! `cargo bench -p figvine-postgres --bench decode`. Without `--bench` (as `cargo test` runs it) it is over at once.

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use figvine_change::{Batch, Position};
use figvine_postgres::replay::Replay;

/// What the stream hands on while nobody waits for it.
const CHUNK_BYTES: usize = 128 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let least = if is_bench { Duration::from_secs(2) } else { Duration::ZERO };
    for (name, capture) in [
        ("narrow rows", include_bytes!("../tests/captures/long_transaction.bin").as_slice()),
        ("short transactions", include_bytes!("../tests/captures/crud.bin")),
        ("key changes", include_bytes!("../tests/captures/key_change.bin")),
        ("long values", include_bytes!("../tests/captures/toast.bin")),
    ] {
        // One session that is told the same transactions again and again.
        let chunk: Bytes = capture.repeat(CHUNK_BYTES.div_ceil(capture.len())).into();
        let mut replay = Replay::new(&["*.*".to_owned()], &[], &Position::between("1/1/0/0"))?;
        let mut batches: Vec<Batch> = Vec::new();
        // The first pass meets the tables.
        replay.read(&chunk, &mut batches)?;
        batches.clear();

        let (mut rows, mut bytes) = (0, 0);
        let began = Instant::now();
        loop {
            replay.read(black_box(&chunk), &mut batches)?;
            rows += batches.iter().map(|batch| batch.changes.len()).sum::<usize>();
            bytes += chunk.len();
            black_box(&batches);
            batches.clear();
            if began.elapsed() >= least {
                break;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (rows, bytes, took) = (rows as f64, bytes as f64, began.elapsed().as_secs_f64());
        writeln!(
            std::io::stdout(),
            "{name:<20} {:>12.0} changes/s {:>8.1} ns/change {:>8.0} MB/s",
            rows / took,
            took * 1e9 / rows,
            bytes / took / 1e6
        )?;
    }
    Ok(())
}
