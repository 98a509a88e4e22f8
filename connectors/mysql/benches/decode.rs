//! How fast a log's bytes become cells: the decoder alone, on one core.
//!
//! `cargo bench -p figvine-mysql --bench decode`. Without `--bench` (as `cargo test` runs it) it is over at once.

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use figvine_change::Cell;
use figvine_mysql::decode::file::{FileEvents, MAGIC};
use figvine_mysql::decode::header::kind;
use figvine_mysql::decode::table_map::TableMap;
use figvine_mysql::decode::{Decoder, Event};

/// Rows of a bulk insert when it is measured; without that, a few are enough.
const ROWS: u32 = 1_000_000;
const FEW_ROWS: u32 = 1000;

/// What the servers fill an event up to (`binlog_row_event_max_size`).
const EVENT_BYTES: usize = 8192;

/// A log file, with what ends each event.
struct Log {
    bytes: Vec<u8>,
    has_checksums: bool,
}

impl Log {
    fn new(has_checksums: bool) -> Self {
        let mut log = Self { bytes: MAGIC.to_vec(), has_checksums };
        let mut version = [0; 50];
        version.iter_mut().zip(b"8.4.0").for_each(|(to, from)| *to = *from);
        let mut lengths = [0; 42];
        for (type_code, length) in
            [(kind::QUERY, 13), (kind::TABLE_MAP, 8), (kind::WRITE_ROWS, 10), (kind::UPDATE_ROWS, 10)]
        {
            if let Some(slot) = lengths.get_mut(usize::from(type_code) - 1) {
                *slot = length;
            }
        }
        let body = [&[4, 0], &version[..], &[0; 4], &[19], &lengths, &[u8::from(has_checksums)]].concat();
        // The format's own event has a checksum always.
        log.has_checksums = true;
        log.push(kind::FORMAT_DESCRIPTION, &body);
        log.has_checksums = has_checksums;
        log
    }

    #[expect(clippy::cast_possible_truncation, reason = "events of a few kilobytes")]
    fn push(&mut self, type_code: u8, body: &[u8]) {
        let start = self.bytes.len();
        let size = 19 + body.len() + if self.has_checksums { 4 } else { 0 };
        self.bytes.extend_from_slice(&[0, 0, 0, 0, type_code, 1, 0, 0, 0]);
        self.bytes.extend_from_slice(&(size as u32).to_le_bytes());
        self.bytes.extend_from_slice(&[0; 6]);
        self.bytes.extend_from_slice(body);
        if self.has_checksums {
            let checksum = crc32fast::hash(self.bytes.get(start..).unwrap_or_default());
            self.bytes.extend_from_slice(&checksum.to_le_bytes());
        }
    }

    /// `id INT, account BIGINT, name VARCHAR(40), total DECIMAL(12,2), at DATETIME(6)`.
    fn table_map(&mut self) {
        self.push(
            kind::TABLE_MAP,
            b"\x07\0\0\0\0\0\x01\0\x04shop\0\x06orders\0\x05\x03\x08\x0f\xf6\x12\x05\xa0\0\x0c\x02\x06\x1e",
        );
    }

    fn row(out: &mut Vec<u8>, id: u32) {
        out.push(if id.is_multiple_of(10) { 0b1_0000 } else { 0 });
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(&u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        out.extend_from_slice(b"\x0bcustomer 42");
        out.extend_from_slice(b"\x80\0\0\x01\x02\x03");
        if !id.is_multiple_of(10) {
            out.extend_from_slice(b"\x99\xb2\xbb\x7e\xfb\0\x01\x02");
        }
    }
}

/// One bulk insert.
fn bulk(rows: u32, has_checksums: bool) -> Log {
    let mut log = Log::new(has_checksums);
    log.table_map();
    let head = b"\x07\0\0\0\0\0\x01\0\x02\0\x05\xff";
    let mut body = head.to_vec();
    for id in 0..rows {
        Log::row(&mut body, id);
        if body.len() > EVENT_BYTES || id + 1 == rows {
            log.push(kind::WRITE_ROWS, &body);
            body.truncate(head.len());
        }
    }
    log
}

/// Updates, each of one row with its statement and table map.
fn single(rows: u32, has_checksums: bool) -> Log {
    let mut log = Log::new(has_checksums);
    for id in 0..rows / 4 {
        log.push(kind::QUERY, b"\x01\0\0\0\0\0\0\0\x04\0\0\x09\0\x01\0\0\0\0\0\0\0\0shop\0BEGIN");
        log.table_map();
        let mut body = b"\x07\0\0\0\0\0\x01\0\x02\0\x05\xff\xff".to_vec();
        Log::row(&mut body, id);
        Log::row(&mut body, id);
        log.push(kind::UPDATE_ROWS, &body);
        log.push(kind::XID, &u64::from(id).to_le_bytes());
    }
    log
}

/// Rows of a log.
fn read(log: &[u8], cells: &mut Vec<Cell>) -> Result<usize, Box<dyn std::error::Error>> {
    let mut decoder = Decoder::new();
    let mut known: (&[u8], TableMap) = (&[], TableMap::default());
    let mut count = 0;
    for event in FileEvents::new(log)? {
        let (at, bytes) = event?;
        match decoder.event(bytes, u32::try_from(at)?)?.1 {
            Event::TableMap(map) if map.bytes() != known.0 => known = (map.bytes(), map.parse()?),
            Event::Rows(rows) => {
                let mut rows = rows.of(&known.1)?;
                while let Some(row) = rows.next(cells) {
                    row?;
                    count += 1;
                }
                black_box(&cells);
                cells.clear();
            }
            _ => {}
        }
    }
    Ok(count)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let least = if is_bench { Duration::from_secs(2) } else { Duration::ZERO };
    let rows = if is_bench { ROWS } else { FEW_ROWS };
    for (name, log) in [
        ("bulk insert", bulk(rows, false)),
        ("bulk insert, CRC-32", bulk(rows, true)),
        ("single updates", single(rows, false)),
        ("single updates, CRC-32", single(rows, true)),
    ] {
        let mut cells = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        let began = Instant::now();
        loop {
            rows += read(black_box(&log.bytes), &mut cells)?;
            bytes += log.bytes.len();
            if began.elapsed() >= least {
                break;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (rows, bytes, took) = (rows as f64, bytes as f64, began.elapsed().as_secs_f64());
        writeln!(
            std::io::stdout(),
            "{name:<24} {:>12.0} rows/s {:>8.1} ns/row {:>8.0} MB/s",
            rows / took,
            took * 1e9 / rows,
            bytes / took / 1e6
        )?;
    }
    Ok(())
}
