//! An arbitrary event of a log without checksums, by a format of either server: no panic, and no more out than in.
//!
//! The first byte tells the server, the second the type; the rest is the body.

#![no_main]

use std::sync::LazyLock;

use figvine_mysql::decode::file::FileEvents;
use figvine_mysql::decode::partial_json::Diffs;
use figvine_mysql::decode::{Decoder, Event};
use libfuzzer_sys::fuzz_target;

static DECODERS: LazyLock<[Decoder; 2]> = LazyLock::new(|| {
    [
        include_bytes!("../../tests/captures/mysql_unchecked.binlog").as_slice(),
        include_bytes!("../../tests/captures/mariadb_unchecked.binlog"),
    ]
    .map(|log| {
        let mut decoder = Decoder::new();
        let (_, format) = FileEvents::new(log).expect("a log").next().expect("an event").expect("an event");
        decoder.event(format, 0).expect("a format");
        decoder
    })
});

fuzz_target!(|bytes: &[u8]| {
    let _ = Decoder::new().event(bytes, 0);
    Diffs::new(bytes).for_each(drop);
    let [server, type_code, body @ ..] = bytes else { return };
    let size = u32::try_from(19 + body.len()).expect("short");
    let event = [&[0; 4][..], &[*type_code], &[1, 0, 0, 0], &size.to_le_bytes(), &[0; 6], body].concat();
    read(&DECODERS[usize::from(server % 2)], &event, 0);
});

fn read(decoder: &Decoder, event: &[u8], depth: usize) {
    let Ok((_, read_event)) = decoder.inner(event, 0) else { return };
    match read_event {
        Event::TableMap(map) => {
            if let Ok(table) = map.parse() {
                assert!(table.columns.len() <= event.len() && table.primary_key.len() <= event.len());
            }
        }
        Event::Query(query) => drop(format!("{:?}", query.kind())),
        Event::PreviousGtids(set) => drop(set.to_string()),
        Event::Payload(payload) if depth == 0 => {
            let Ok(mut events) = payload.events() else { return };
            let mut buffer = Vec::new();
            for _ in 0..1000 {
                match events.append_next(&mut buffer) {
                    Ok(Some(_)) => read(decoder, &buffer, 1),
                    Ok(None) | Err(_) => break,
                }
                buffer.clear();
            }
        }
        Event::Compressed(compressed) if depth == 0 => {
            let mut buffer = Vec::new();
            if compressed.append_expanded(&mut buffer).is_ok() {
                read(decoder, &buffer, 1);
            }
        }
        _ => {}
    }
}
