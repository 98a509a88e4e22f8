//! An arbitrary table map and arbitrary rows of that table: no panic, and every value within the event.
//!
//! The first byte is the rows' type, the second the table map's length.

#![no_main]

use std::sync::LazyLock;

use figvine_change::Cell;
use figvine_mysql::decode::file::FileEvents;
use figvine_mysql::decode::{Decoder, Event};
use libfuzzer_sys::fuzz_target;

static DECODER: LazyLock<Decoder> = LazyLock::new(|| {
    let log = include_bytes!("../../tests/captures/mysql_unchecked.binlog");
    let mut decoder = Decoder::new();
    let (_, format) = FileEvents::new(log).expect("a log").next().expect("an event").expect("an event");
    decoder.event(format, 0).expect("a format");
    decoder
});

fn event(type_code: u8, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(19 + body.len()).expect("short");
    [&[0; 4][..], &[type_code], &[1, 0, 0, 0], &size.to_le_bytes(), &[0; 6], body].concat()
}

fuzz_target!(|bytes: &[u8]| {
    const TABLE_MAP: u8 = 19;
    const ROWS: [u8; 7] = [23, 24, 25, 30, 31, 32, 39];
    let [type_code, length, rest @ ..] = bytes else { return };
    let (map, rows) = rest.split_at(usize::from(*length).min(rest.len()));
    let (map, rows) = (event(TABLE_MAP, map), event(ROWS[usize::from(*type_code) % ROWS.len()], rows));
    let Ok((_, Event::TableMap(map))) = DECODER.inner(&map, 0) else { return };
    let Ok(table) = map.parse() else { return };
    let Ok((_, Event::Rows(read))) = DECODER.inner(&rows, 0) else { return };
    let Ok(mut reader) = read.of(&table) else { return };
    let (mut cells, mut count) = (Vec::new(), 0);
    while let Some(row) = reader.next(&mut cells) {
        assert!(row.is_err() || cells.len() >= table.columns.len());
        for cell in cells.drain(..) {
            if let Cell::Value(range) = cell {
                assert!(range.start <= range.end && range.end as usize <= rows.len());
            }
        }
        count += 1;
        assert!(count <= rows.len());
    }
});
