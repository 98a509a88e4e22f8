//! What holds whatever the bytes are.

use std::time::{Duration, Instant};

use figvine_change::{Cell, Row};
use figvine_mysql::decode::file::FileEvents;
use figvine_mysql::decode::header::{HEADER_BYTES, kind};
use figvine_mysql::decode::partial_json::Diffs;
use figvine_mysql::decode::reader::DecodeError;
use figvine_mysql::decode::table_map::TableMap;
use figvine_mysql::decode::{Decoder, Event};
use proptest::prelude::*;

use crate::snapshots::CAPTURES;
use crate::walk::{Seen, SeenRow, walk};

/// Far more than any of these takes without optimisation.
const LONGEST: Duration = Duration::from_secs(20);

/// All known types of events, and some that are not.
const TYPES: [u8; 38] = [
    2, 3, 4, 5, 13, 14, 15, 16, 18, 19, 20, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41,
    42, 99, 160, 161, 162, 163, 165, 166,
];

fn capture(name: &str) -> &'static [u8] {
    CAPTURES.iter().find(|(known, _)| *known == name).expect("a capture").1
}

/// A decoder that knows the format of a capture.
fn decoder(name: &str) -> Decoder {
    let mut decoder = Decoder::new();
    let (_, format) = FileEvents::new(capture(name)).expect("a log").next().expect("an event").expect("an event");
    decoder.event(format, 0).expect("a format");
    decoder
}

/// The tables of a capture.
fn tables(name: &str) -> Vec<TableMap> {
    let mut tables = Vec::new();
    walk(capture(name), &mut |seen| {
        if let Seen::Table(table) = seen {
            tables.push(table.clone());
        }
    })
    .expect("a readable capture");
    tables
}

/// An event without a checksum.
fn event(type_code: u8, flags: u16, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(HEADER_BYTES + body.len()).expect("short");
    [&[0; 4][..], &[type_code], &[1, 0, 0, 0], &size.to_le_bytes(), &[0; 4], &flags.to_le_bytes(), body].concat()
}

fn assert_in_bounds(cells: &[Cell], buffer: &[u8]) {
    for cell in cells {
        if let Cell::Value(range) = cell {
            assert!(range.start <= range.end && range.end as usize <= buffer.len());
        }
    }
}

fn assert_row_in_bounds(row: &SeenRow<'_>) {
    for image in [row.before, row.after].into_iter().flatten() {
        let cells = row.cells(image);
        assert_eq!(cells.len(), row.table.columns.len());
        assert_in_bounds(cells, row.buffer);
        for column in row.partial {
            if let Cell::Value(range) = &cells[*column] {
                Diffs::new(&row.buffer[range.start as usize..range.end as usize]).for_each(drop);
            }
        }
    }
}

/// Reads one event as far as it goes, its rows as of each table.
fn read_anything(decoder: &Decoder, bytes: &[u8], tables: &[TableMap], depth: usize) {
    let Ok((_, event)) = decoder.inner(bytes, 0) else { return };
    let _ = format!("{event:?}");
    match event {
        Event::TableMap(map) => {
            let columns = map.parse().map_or(0, |table| table.columns.len());
            assert!(columns <= bytes.len());
        }
        Event::Query(query) => {
            let _ = query.kind();
        }
        Event::Gtid(gtid) => {
            let _ = gtid.to_string();
        }
        Event::PreviousGtids(set) => {
            let _ = set.to_string();
        }
        Event::Rows(rows) => {
            for table in tables {
                let Ok(mut reader) = rows.of(table) else { continue };
                let mut cells = Vec::new();
                let mut count = 0;
                while let Some(row) = reader.next(&mut cells) {
                    let is_last = row.is_err();
                    assert_in_bounds(&cells, bytes);
                    cells.clear();
                    count += 1;
                    assert!(count <= bytes.len());
                    assert!(!is_last || reader.next(&mut cells).is_none());
                }
                assert!(cells.is_empty());
            }
        }
        Event::Payload(payload) if depth == 0 => {
            let Ok(mut events) = payload.events() else { return };
            let mut buffer = Vec::new();
            for _ in 0..100 {
                match events.append_next(&mut buffer) {
                    Ok(Some(_)) => read_anything(decoder, &buffer, tables, 1),
                    Ok(None) => break,
                    Err(_) => {
                        assert!(buffer.is_empty());
                        break;
                    }
                }
                buffer.clear();
            }
        }
        Event::Compressed(compressed) if depth == 0 => {
            let mut buffer = Vec::new();
            if compressed.append_expanded(&mut buffer).is_ok() {
                read_anything(decoder, &buffer, tables, 1);
            }
        }
        _ => {}
    }
}

/// Makes every checksum of a file hold that can be found.
fn with_checksums(mut file: Vec<u8>) -> Vec<u8> {
    let places: Vec<(usize, usize)> = FileEvents::new(&file)
        .map(|events| events.flatten().map(|(at, event)| (at, event.len())).collect())
        .unwrap_or_default();
    for (at, length) in places {
        let Some(end) = length.checked_sub(4).filter(|end| *end >= HEADER_BYTES) else { continue };
        let event = &mut file[at..at + length];
        let mut summed = event[..end].to_vec();
        if event[4] == kind::FORMAT_DESCRIPTION {
            summed[17] &= !1;
        }
        event[end..].copy_from_slice(&crc32fast::hash(&summed).to_le_bytes());
    }
    file
}

#[test]
fn a_flipped_bit_in_a_log_with_checksums_is_never_read() {
    for name in ["mysql_crud", "mariadb_crud"] {
        let file = capture(name);
        let places: Vec<(usize, usize)> = FileEvents::new(file)
            .expect("a log")
            .map(|event| event.map(|(at, event)| (at, event.len())).expect("an event"))
            .collect();
        for (at, length) in places {
            // Past the size, without which the event itself cannot be found.
            for place in (at + 13..at + length).step_by(7) {
                let mut damaged = file.to_vec();
                damaged[place] ^= 0x10;
                let read = walk(&damaged, &mut |_| {});
                assert!(read.is_err_and(|error| error.contains("checksum")), "{name} at {place}");
            }
        }
    }
}

#[test]
fn a_log_that_is_cut_off_is_read_up_to_there() {
    for (name, file) in CAPTURES.into_iter().filter(|(_, file)| file.len() < 9000) {
        for length in (4..file.len()).step_by(97) {
            let (mut events, began) = (0, Instant::now());
            let whole = FileEvents::new(&file[..length]).expect("a log").filter(Result::is_ok).count();
            let _ =
                walk(&file[..length], &mut |seen| events += usize::from(matches!(seen, Seen::Event { depth: 0, .. })));
            assert_eq!(events, whole, "{name} cut at {length}");
            assert!(began.elapsed() < LONGEST);
        }
    }
}

#[test]
fn a_rotation_made_up_before_the_format_is_read_with_and_without_a_checksum() {
    const ARTIFICIAL: u16 = 0x20;
    let plain = event(kind::ROTATE, ARTIFICIAL, b"\x04\0\0\0\0\0\0\0binlog.000007");
    let mut checked = event(kind::ROTATE, ARTIFICIAL, b"\x04\0\0\0\0\0\0\0binlog.000007----");
    let end = checked.len() - 4;
    let checksum = crc32fast::hash(&checked[..end]).to_le_bytes();
    checked[end..].copy_from_slice(&checksum);
    for bytes in [plain, checked] {
        for mut decoder in [Decoder::new(), decoder("mysql_crud"), decoder("mysql_unchecked")] {
            let (_, event) = decoder.event(&bytes, 0).expect("readable");
            assert_eq!(event, Event::Rotate { file: "binlog.000007", position: 4 });
        }
    }
}

#[test]
fn what_must_stop_the_reader_is_told_from_what_may_be_passed_over() {
    const IGNORABLE: u16 = 0x80;
    let decoder = decoder("mysql_crud");
    let unknown = event(99, 0, b"rows?");
    assert_eq!(decoder.inner(&unknown, 0).expect("readable").1, Event::Unknown { type_code: 99 });
    let ignorable = event(99, IGNORABLE, b"padding");
    assert_eq!(decoder.inner(&ignorable, 0).expect("readable").1, Event::Ignorable { type_code: 99 });
    for (type_code, body, error) in [
        (kind::INCIDENT, &b"\x01\0\x04lost"[..], "incident 1 in the log: the server lost changes"),
        (kind::START_ENCRYPTION, b"\x01\0\0\0\0", "the log is encrypted"),
        (kind::WRITE_ROWS_V0, b"", "rows event of type 20 is not supported"),
        (kind::TRANSACTION_PAYLOAD, b"\x02\x01\x07\0", "compression algorithm 7 is not supported"),
    ] {
        let bytes = event(type_code, 0, body);
        assert_eq!(decoder.inner(&bytes, 0).expect_err("refused").reason.to_string(), error);
    }
}

#[test]
fn a_heartbeat_tells_its_place_beyond_four_gigabytes() {
    let body = [&b"\x01\x04b.01\x02\x09\xfe"[..], &(5_u64 << 32).to_le_bytes(), b"\0"].concat();
    let bytes = event(kind::HEARTBEAT_V2, 0, &body);
    let read = decoder("mysql_crud").inner(&bytes, 0).expect("readable").1;
    assert_eq!(read, Event::Heartbeat { file: "b.01", position: 5 << 32 });
}

#[test]
fn ranges_count_from_where_the_event_stands() {
    let file = capture("mysql_unchecked");
    let decoder = decoder("mysql_unchecked");
    let mut table = TableMap::default();
    for found in FileEvents::new(file).expect("a log") {
        let (at, bytes) = found.expect("an event");
        match decoder.inner(bytes, 1000 + u32::try_from(at).expect("short")) {
            Ok((_, Event::TableMap(map))) => table = map.parse().expect("a table"),
            Ok((_, Event::Rows(rows))) => {
                let mut cells = vec![Cell::Null];
                let images = rows.of(&table).expect("its table").next(&mut cells).expect("a row").expect("a row");
                assert_eq!(images.after, Some(Row { first: 1, len: 2 }));
                let Cell::Value(range) = &cells[2] else { panic!("a value") };
                assert_eq!(&file[range.start as usize - 1000..range.end as usize - 1000], b"unchecked");
                return;
            }
            _ => {}
        }
    }
    panic!("no rows");
}

/// The events of a capture, with where they stand.
fn events(name: &str) -> Vec<&'static [u8]> {
    FileEvents::new(capture(name)).expect("a log").map(|event| event.expect("an event").1).collect()
}

#[test]
fn a_log_that_goes_on_with_or_without_checksums_is_read() {
    let mut decoder = Decoder::new();
    for name in ["mysql_crud", "mysql_unchecked", "mysql_payload", "mariadb_unchecked", "mariadb_crud"] {
        for event in events(name) {
            decoder.event(event, 0).expect(name);
        }
        assert_eq!(decoder.checksum_bytes(), if name.ends_with("unchecked") { 0 } else { 4 });
    }
}

#[test]
fn a_format_whose_checksums_the_server_took_off_needs_none_of_its_own() {
    let mut format = events("mysql_crud")[0].to_vec();
    let end = format.len() - 5;
    format[end] = 0;
    let mut decoder = Decoder::new();
    decoder.event(&format, 0).expect("a format");
    assert_eq!(decoder.checksum_bytes(), 0);
    format[end] = 1;
    format[30] ^= 1;
    assert!(matches!(Decoder::new().event(&format, 0).expect_err("damaged").reason, DecodeError::Checksum { .. }));
}

/// A payload of these bytes.
fn payload(is_compressed: bool, bytes: &[u8], told: usize) -> Vec<u8> {
    let (algorithm, bytes) = if is_compressed {
        (&[2, 1, 0][..], zstd::encode_all(bytes, 3).expect("compressed"))
    } else {
        (&[2, 3, 252, 255, 0][..], bytes.to_vec())
    };
    let told = u16::try_from(told).expect("short").to_le_bytes();
    let size = u16::try_from(bytes.len()).expect("short").to_le_bytes();
    // A field of a newer server stands among the known.
    event(
        kind::TRANSACTION_PAYLOAD,
        0,
        &[algorithm, &[3, 3, 252], &told, &[9, 1, 7, 1, 3, 252], &size, &[0], &bytes].concat(),
    )
}

/// The types of its events, and why it ends.
fn inside(payload: &[u8]) -> (Vec<u8>, Option<String>) {
    let decoder = decoder("mysql_crud");
    let Event::Payload(payload) = decoder.inner(payload, 0).expect("readable").1 else { panic!("a payload") };
    let (mut events, mut types, mut buffer) = (payload.events().expect("memory"), Vec::new(), Vec::new());
    loop {
        match events.append_next(&mut buffer) {
            Ok(Some(header)) => types.push(header.type_code),
            Ok(None) => return (types, None),
            Err(error) => return (types, Some(error.to_string())),
        }
    }
}

#[test]
fn payloads_are_read_event_by_event_and_refused_where_they_are_damaged() {
    let two = [event(kind::XID, 0, &[1; 8]), event(kind::QUERY, 0, &[0; 700])].concat();
    for is_compressed in [true, false] {
        assert_eq!(inside(&payload(is_compressed, &two, two.len())), (vec![16, 2], None));
        let (types, error) = inside(&payload(is_compressed, &two, two.len() + 1));
        assert_eq!(types, [16, 2]);
        assert!(error.expect("an error").ends_with("it is shorter than told"));
        let (types, error) = inside(&payload(is_compressed, &two, two.len() - 1));
        assert_eq!(types, [16]);
        assert!(error.expect("an error").ends_with("it is longer than told"));
        let (types, error) = inside(&payload(is_compressed, &two[..two.len() - 1], two.len()));
        assert_eq!(types, [16]);
        assert!(error.expect("an error").ends_with("it ends inside an event"));
        let nested = payload(is_compressed, &two, two.len());
        let (types, error) = inside(&payload(is_compressed, &nested, nested.len()));
        assert_eq!(
            (types, error.expect("an error").as_str()),
            (vec![], "event in a payload, of type 40 is not supported")
        );
    }
}

#[test]
fn compressed_events_of_all_types_become_plain_ones() {
    use std::io::Write as _;

    let decoder = decoder("mariadb_compressed");
    for (type_code, plain_code, fixed) in [
        (166_u8, 23_u8, &b"\x07\0\0\0\0\0\x01\0\x01\xff"[..]),
        (167, 24, b"\x07\0\0\0\0\0\x01\0\x01\xff\xff"),
        (168, 25, b"\x07\0\0\0\0\0\x01\0\x01\xff"),
        (169, 30, b"\x07\0\0\0\0\0\x01\0\x03\0x\x01\xff"),
        (170, 31, b"\x07\0\0\0\0\0\x01\0\x02\0\x01\xff\xff"),
        (171, 32, b"\x07\0\0\0\0\0\x01\0\x02\0\x01\xff"),
        (165, 2, b"\x01\0\0\0\0\0\0\0\x01\0\0\0\0s\0"),
    ] {
        let rows = [7; 300];
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&rows).expect("memory");
        let compressed = encoder.finish().expect("memory");
        let expand = |length: [u8; 2]| {
            let bytes = event(type_code, 0, &[fixed, &[0x82], &length, &compressed].concat());
            let Ok((_, Event::Compressed(compressed))) = decoder.inner(&bytes, 0) else { panic!("{type_code}") };
            let mut out = b"before".to_vec();
            let result = compressed.append_expanded(&mut out);
            (out, result)
        };
        let (out, result) = expand(300_u16.to_be_bytes());
        assert_eq!(result, Ok(()));
        assert_eq!(out, [&b"before"[..], &event(plain_code, 0, &[fixed, &rows].concat())].concat());
        for wrong in [299_u16, 301] {
            let (out, result) = expand(wrong.to_be_bytes());
            assert!(result.is_err() && out == b"before");
        }
    }
}

#[test]
fn a_load_of_a_file_is_told_from_other_statements() {
    let body = [&b"\x05\0\0\0\0\0\0\0\x01\0\0\0\0"[..], &[0; 13], b"s\0LOAD DATA INFILE 'x' INTO TABLE t"].concat();
    let bytes = event(kind::EXECUTE_LOAD_QUERY, 0, &body);
    let decoder = decoder("mysql_crud");
    let Event::Query(query) = decoder.inner(&bytes, 0).expect("readable").1 else { panic!("a statement") };
    assert!(query.is_load && query.schema == b"s" && query.statement.starts_with(b"LOAD DATA"));
}

#[test]
fn an_event_that_ends_a_statement_without_rows_is_empty() {
    let decoder = decoder("mysql_crud");
    let bytes = event(kind::DELETE_ROWS, 0, b"\xff\xff\xff\xff\xff\xff\x01\0\x02\0\0");
    let Event::Rows(rows) = decoder.inner(&bytes, 0).expect("readable").1 else { panic!("rows") };
    assert!(rows.is_empty() && rows.ends_statement());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn random_events_are_refused_without_panic(
        name in prop::sample::select(&["mysql_crud", "mariadb_crud"][..]),
        type_code in prop::sample::select(&TYPES[..]),
        body in prop::collection::vec(prop_oneof![Just(0_u8), 1..5_u8, any::<u8>()], 0..200),
    ) {
        let began = Instant::now();
        read_anything(&decoder(name), &event(type_code, 0, &body), &tables(name), 0);
        prop_assert!(began.elapsed() < LONGEST);
    }

    #[test]
    fn random_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Decoder::new().event(&bytes, 0);
        let _ = Decoder::new().event(&bytes, u32::MAX - 100);
        let _ = walk(&bytes, &mut |_| {});
        Diffs::new(&bytes).for_each(drop);
    }

    #[test]
    fn rows_of_a_wrong_table_are_refused_without_panic(
        name in prop::sample::select(&["mysql_types", "mysql_images", "mariadb_types"][..]),
        type_code in prop::sample::select(&[23_u8, 24, 25, 30, 31, 32, 39][..]),
        table in any::<prop::sample::Index>(),
        images in prop::collection::vec(prop_oneof![Just(0xff_u8), any::<u8>()], 8),
        rows in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..400),
    ) {
        let tables = tables(name);
        let table = std::slice::from_ref(table.get(&tables));
        let columns = table[0].columns.len();
        let mut body = vec![1, 0, 0, 0, 0, 0, 1, 0];
        if type_code >= 30 {
            body.extend_from_slice(&[2, 0]);
        }
        body.push(u8::try_from(columns).expect("few"));
        let count = if matches!(type_code, 24 | 31 | 39) { 2 } else { 1 } * columns.div_ceil(8);
        body.extend_from_slice(&images[..count]);
        body.extend_from_slice(&rows);
        read_anything(&decoder(name), &event(type_code, 0, &body), table, 0);
    }

    #[test]
    fn damaged_captures_whose_checksums_hold_are_refused_without_panic(
        (name, file) in prop::sample::select(&CAPTURES[..]),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut damaged = file.to_vec();
        for (at, value) in flips {
            let at = 4 + at.index(damaged.len() - 4);
            damaged[at] = value;
        }
        if is_cut {
            damaged.truncate(cut.index(damaged.len()));
        }
        if !name.ends_with("unchecked") {
            damaged = with_checksums(damaged);
        }
        let began = Instant::now();
        let _ = walk(&damaged, &mut |seen| if let Seen::Row(row) = seen { assert_row_in_bounds(&row) });
        prop_assert!(began.elapsed() < LONGEST);
    }
}
