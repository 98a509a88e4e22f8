mod traces;

mod parked;

use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::ops::Range;

use bytes::Bytes;
use figvine_change::debezium::Binary;
use figvine_change::{Cell, Column, Op, Row, RowChange, Table, ValueCodec, ValueError};
use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::checkpoint::{self, Checkpoint};
use crate::event::frame::HEADER_FRAME;
use crate::event::partition;
use crate::event::{EventAt, Format};

/// Digits as they are.
#[derive(Debug)]
struct Digits;

impl ValueCodec for Digits {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        out.extend_from_slice(raw);
        if raw.is_empty() || !raw.iter().all(u8::is_ascii_digit) {
            return Err(ValueError { type_name: "int8".into(), reason: "not all digits" });
        }
        Ok(())
    }
}

/// Any text as a string.
#[derive(Debug)]
struct Text;

impl ValueCodec for Text {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        figvine_change::json::write_string(raw, out);
        Ok(())
    }
}

fn table(schema: &str, name: &str, columns: &[(&str, &str)], key: &[usize]) -> Arc<Table> {
    let codec =
        |type_name| -> Arc<dyn ValueCodec> { if type_name == "int8" { Arc::new(Digits) } else { Arc::new(Text) } };
    let columns = columns.iter().map(|&(name, type_name)| Column {
        name: name.into(),
        type_name: type_name.into(),
        codec: codec(type_name),
    });
    Arc::new(Table { schema: schema.into(), name: name.into(), columns: columns.collect(), key: key.to_vec() })
}

fn orders() -> Arc<Table> {
    table("public", "orders", &[("id", "int8"), ("status", "text"), ("notes", "text")], &[0])
}

/// Puts batches together.
#[derive(Default)]
struct Maker {
    batch: Batch,
    data: Vec<u8>,
}

/// `None`: null; `Some("?")`: unchanged.
type Cells<'a> = &'a [Option<&'a str>];

impl Maker {
    fn transaction(&mut self, number: u32) -> &mut Self {
        self.batch.transactions.push(Transaction {
            id: (757 + number).to_string().into(),
            position: format!("0/16B374{number}").into(),
            sequence: format!("00000000016B374{number}").into(),
            committed_at: 1_795_424_400_123_456 + i64::from(number),
            start: format!("7412/1/0/16B370{number}").into(),
            end: Some(format!("7412/1/0/16B374{number}").into()),
            origin: None,
            traceparent: None,
            is_ignored: false,
            file: None,
        });
        self
    }

    fn range(&mut self, bytes: &[u8]) -> Range<u32> {
        let start = self.data.len() as u32;
        self.data.extend_from_slice(bytes);
        start..self.data.len() as u32
    }

    fn row(&mut self, cells: Cells<'_>) -> Row {
        let first = self.batch.cells.len() as u32;
        for cell in cells {
            let cell = match cell {
                None => Cell::Null,
                Some("?") => Cell::Unchanged,
                Some(text) => Cell::Value(self.range(text.as_bytes())),
            };
            self.batch.cells.push(cell);
        }
        Row { first, len: cells.len() as u32 }
    }

    fn table(&mut self, table: &Arc<Table>) -> u32 {
        let known = self.batch.tables.iter().position(|t| Arc::ptr_eq(t, table));
        known.unwrap_or_else(|| {
            self.batch.tables.push(Arc::clone(table));
            self.batch.tables.len() - 1
        }) as u32
    }

    fn change(&mut self, ordinal: u64, part: u32, body: Body) -> &mut Self {
        let transaction = self.batch.transactions.len() as u32 - 1;
        self.batch.changes.push(Change { transaction, ordinal, part, last: false, body });
        self
    }

    fn row_change(
        &mut self,
        ordinal: u64,
        table: &Arc<Table>,
        op: Op,
        before: Option<Cells<'_>>,
        after: Option<Cells<'_>>,
    ) -> &mut Self {
        let row = RowChange {
            table: self.table(table),
            op,
            before: before.map(|cells| self.row(cells)),
            before_is_key: false,
            after: after.map(|cells| self.row(cells)),
            rekeyed: None,
        };
        self.change(ordinal, 1, Body::Row(row))
    }

    fn with(&mut self, adjust: impl FnOnce(&mut Change, &mut RowChange)) -> &mut Self {
        let change = self.batch.changes.last_mut().expect("a change");
        let Body::Row(mut row) = change.body.clone() else { panic!("not a row") };
        adjust(change, &mut row);
        change.body = Body::Row(row);
        self
    }

    fn last(&mut self) -> &mut Self {
        self.batch.changes.last_mut().expect("a change").last = true;
        self
    }

    fn done(&mut self) -> Batch {
        self.batch.data = Bytes::from(std::mem::take(&mut self.data));
        std::mem::take(&mut self.batch)
    }
}

fn settings(format: Format) -> Settings {
    Settings {
        source: "shop".into(),
        format,
        subject: "cdc.{source}.{schema}.{table}.{partition}".into(),
        domain_subject: "events.{source}.{type}.{partition}".into(),
        partitions: NonZeroU16::new(16).unwrap(),
        topic_prefix: "shop".into(),
        binary: Binary::Bytes,
        ce_source: "/figvine/shop".into(),
    }
}

fn encoder_with(settings: &Settings, max_payload: usize) -> Encoder {
    let engine = Engine { name: "postgres", version: "15.18".into(), database: "shop".into() };
    let writer = Checkpoint::parse("1 w7Tk2pQ9 x").expect("a checkpoint").writer;
    Encoder::new(settings, &engine, &writer, max_payload).expect("a template")
}

fn encoder(format: Format) -> Encoder {
    encoder_with(&settings(format), 1 << 20)
}

fn parts(events: &Events, at: &EventAt) -> (String, String, String) {
    let text = |range: Range<u32>| {
        let bytes = events.bytes[range.start as usize..range.end as usize].to_vec();
        String::from_utf8(bytes).expect("UTF-8")
    };
    (text(at.subject..at.headers), text(at.headers..at.body), text(at.body..at.end))
}

fn show(events: &Events) -> String {
    let mut out = String::new();
    for at in &events.list {
        let (subject, headers, body) = parts(events, at);
        let _: Value = serde_json::from_str(&body).expect("JSON");
        writeln!(out, "{subject}\n{}\n{body}\n", headers.replace("\r\n", "\n")).expect("a string");
    }
    let end = events.end.as_ref().map(ToString::to_string);
    writeln!(out, "end {}", end.as_deref().unwrap_or("unknown")).expect("a string");
    out
}

fn encode(encoder: &mut Encoder, batch: &Batch) -> Events {
    let mut events = Events::default();
    encoder.encode(batch, &Derived::default(), &mut events).expect("encodable");
    events
}

fn header<'a>(headers: &'a str, name: &str) -> Option<&'a str> {
    headers.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn body(events: &Events, index: usize) -> Value {
    serde_json::from_str(&parts(events, &events.list[index]).2).expect("JSON")
}

fn row_kinds() -> Batch {
    let orders = orders();
    let mut maker = Maker::default();
    maker.transaction(8);
    maker.row_change(0, &orders, Op::Insert, None, Some(&[Some("42"), Some("new"), None]));
    maker.row_change(
        3,
        &orders,
        Op::Update,
        Some(&[Some("42"), None, None]),
        Some(&[Some("42"), Some("paid"), Some("?")]),
    );
    maker.with(|_, row| row.before_is_key = true);
    maker.row_change(4, &orders, Op::Delete, Some(&[Some("42"), Some("paid"), Some("a \"note\"")]), None).last();
    maker.transaction(9);
    maker.row_change(0, &orders, Op::Read, None, Some(&[Some("7"), Some("old"), Some("")])).last();
    maker.done()
}

fn other_kinds() -> Batch {
    let old = orders();
    let new = table("public", "orders", &[("id", "int8"), ("status", "text"), ("total", "numeric(12,2)")], &[0]);
    let mut maker = Maker::default();
    maker.transaction(8);
    let (old, new) = (maker.table(&old), maker.table(&new));
    maker.change(0, 0, Body::Shape { table: old });
    maker.change(1, 2, Body::Truncate { table: old });
    maker.change(2, 0, Body::Shape { table: new });
    let (prefix, content) = (maker.range(b"outbox.mail"), maker.range("{\"to\":\"ä\"}".as_bytes()));
    maker.change(3, 1, Body::Message { prefix: prefix.clone(), content });
    let content = maker.range(&[0xff, 0, 1]);
    maker.change(4, 1, Body::Message { prefix, content }).last();
    maker.done()
}

#[test]
fn rows_in_binary_mode() {
    insta::assert_snapshot!(show(&encode(&mut encoder(Format::CloudEvents), &row_kinds())));
}

#[test]
fn rows_in_structured_mode() {
    insta::assert_snapshot!(show(&encode(&mut encoder(Format::CloudEventsStructured), &row_kinds())));
}

#[test]
fn rows_alone() {
    insta::assert_snapshot!(show(&encode(&mut encoder(Format::Plain), &row_kinds())));
}

#[test]
fn truncates_shapes_and_messages_in_binary_mode() {
    insta::assert_snapshot!(show(&encode(&mut encoder(Format::CloudEvents), &other_kinds())));
}

#[test]
fn truncates_shapes_and_messages_in_structured_mode() {
    insta::assert_snapshot!(show(&encode(&mut encoder(Format::CloudEventsStructured), &other_kinds())));
}

#[test]
fn truncates_shapes_and_messages_alone() {
    insta::assert_snapshot!(show(&encode(&mut encoder(Format::Plain), &other_kinds())));
}

#[test]
fn a_key_change_is_two_events_that_name_each_other() {
    let orders = orders();
    let (old, new): (Cells<'_>, Cells<'_>) =
        (&[Some("1"), Some("a"), Some("long")], &[Some("2"), Some("b"), Some("?")]);
    let mut maker = Maker::default();
    maker.transaction(8).row_change(5, &orders, Op::Delete, Some(old), None);
    let row = maker.row(new);
    maker.with(|_, change| change.rekeyed = Some(row));
    maker.row_change(5, &orders, Op::Insert, None, Some(new));
    let row = maker.row(old);
    maker.with(|change, insert| {
        change.part = 2;
        insert.rekeyed = Some(row);
    });
    maker.last();
    insta::assert_snapshot!(show(&encode(&mut encoder(Format::CloudEvents), &maker.done())));
}

#[test]
fn a_key_of_several_columns_is_an_array_in_attributes() {
    let lines = table("public", "lines", &[("note", "text"), ("item", "text"), ("order", "int8")], &[1, 2]);
    let mut maker = Maker::default();
    maker.transaction(8);
    maker.row_change(0, &lines, Op::Insert, None, Some(&[None, Some("a"), Some("1")])).last();
    let events = encode(&mut encoder(Format::CloudEvents), &maker.done());
    let (subject, headers, _) = parts(&events, &events.list[0]);
    assert_eq!(header(&headers, "ce-subject"), Some("[%22a%22,1]"));
    assert_eq!(header(&headers, "ce-partitionkey"), Some("[%22a%22,1]"));
    let expected = partition(br#"["a",1]"#, NonZeroU16::new(16).unwrap());
    assert_eq!(subject, format!("cdc.shop.public.lines.{expected:02}"));
    assert_eq!(body(&events, 0)["key"], json!({"item": "a", "order": 1}));
}

#[test]
fn a_value_that_the_log_did_not_carry_comes_from_the_row_before() {
    let mut maker = Maker::default();
    maker.transaction(8);
    let before: Cells<'_> = &[Some("42"), None, Some("long")];
    maker.row_change(0, &orders(), Op::Update, Some(before), Some(&[Some("?"), Some("?"), Some("?")])).last();
    let events = encode(&mut encoder(Format::CloudEvents), &maker.done());
    let body = body(&events, 0);
    assert_eq!(body["key"], json!({"id": 42}));
    assert_eq!(body["after"], json!({"id": 42, "status": null, "notes": "long"}));
    assert_eq!(body.get("unchanged"), None);
}

#[test]
fn a_value_that_nothing_carries_is_absent_and_named() {
    let mut maker = Maker::default();
    maker.transaction(8);
    let after: Cells<'_> = &[Some("42"), Some("?"), Some("?")];
    maker.row_change(0, &orders(), Op::Update, Some(&[Some("42"), Some("?"), Some("?")]), Some(after)).last();
    let mut encoder = encoder(Format::CloudEvents);
    let mut events = Events::default();
    let figures = encoder.encode(&maker.done(), &Derived::default(), &mut events).expect("encodable");
    let body = body(&events, 0);
    assert_eq!(body["before"], json!({"id": 42}));
    assert_eq!(body["after"], json!({"id": 42}));
    assert_eq!(body["unchanged"], json!(["status", "notes"]));
    assert_eq!(figures.unchanged_values, 2);
}

#[test]
fn a_key_beyond_1_kib_stands_whole_only_in_the_body() {
    let long = "ä".repeat(600);
    let names = table("public", "names", &[("name", "text")], &[0]);
    let mut maker = Maker::default();
    maker.transaction(8).row_change(0, &names, Op::Insert, None, Some(&[Some(&long)])).last();
    let events = encode(&mut encoder(Format::CloudEvents), &maker.done());
    let (subject, headers, _) = parts(&events, &events.list[0]);
    let shown = percent_decode_str(header(&headers, "ce-partitionkey").expect("there")).decode_utf8().expect("UTF-8");
    assert!(shown.starts_with(&format!("{}...sha256:", "ä".repeat(256))), "{shown}");
    assert_eq!(header(&headers, "ce-subject"), header(&headers, "ce-partitionkey"));
    assert_eq!(body(&events, 0)["key"]["name"], json!(long));
    let whole = partition(long.as_bytes(), NonZeroU16::new(16).unwrap());
    assert_eq!(subject, format!("cdc.shop.public.names.{whole:02}"));
}

#[test]
fn an_empty_key_is_no_attribute() {
    let names = table("public", "names", &[("name", "text")], &[0]);
    let mut maker = Maker::default();
    maker.transaction(8).row_change(0, &names, Op::Insert, None, Some(&[Some("")])).last();
    let events = encode(&mut encoder(Format::CloudEvents), &maker.done());
    let (_, headers, _) = parts(&events, &events.list[0]);
    assert_eq!(header(&headers, "ce-subject"), None);
    assert_eq!(header(&headers, "ce-partitionkey"), None);
}

#[test]
fn the_subject_follows_its_template() {
    let mut settings = settings(Format::Plain);
    settings.subject = "x.{op}.{table}.{key}".into();
    let mut maker = Maker::default();
    maker.transaction(8).row_change(0, &orders(), Op::Delete, Some(&[Some("42"), None, None]), None);
    let table = maker.table(&orders());
    maker.change(1, 1, Body::Truncate { table }).last();
    let events = encode(&mut encoder_with(&settings, 1 << 20), &maker.done());
    assert_eq!(parts(&events, &events.list[0]).0, "x.delete.orders.42");
    assert_eq!(parts(&events, &events.list[1]).0, "x.truncate.orders.all");
}

#[test]
fn the_first_sight_of_a_shape_and_the_same_shape_again_are_no_events() {
    let mut encoder = encoder(Format::CloudEvents);
    for _ in 0..2 {
        let mut maker = Maker::default();
        maker.transaction(8);
        // Made anew each time, as after DROP and CREATE.
        let table = maker.table(&orders());
        maker.change(0, 0, Body::Shape { table }).last();
        let events = encode(&mut encoder, &maker.done());
        assert_eq!(events.list, []);
        assert_eq!(events.end.expect("moved").to_string(), "7412/1/0/16B3748");
    }
}

#[test]
fn rows_are_encoded_in_the_shape_that_held_for_them() {
    let old = orders();
    let new = table("public", "orders", &[("id", "int8"), ("state", "text")], &[0]);
    let mut maker = Maker::default();
    maker.transaction(8);
    for (ordinal, table, cells) in [
        (0, &old, &[Some("1"), Some("a"), None][..]),
        (1, &new, &[Some("2"), Some("b")]),
        (2, &old, &[Some("3"), Some("c"), None]),
    ] {
        maker.row_change(ordinal, table, Op::Insert, None, Some(cells));
    }
    maker.last();
    let events = encode(&mut encoder(Format::Plain), &maker.done());
    assert_eq!(body(&events, 0)["after"], json!({"id": 1, "status": "a", "notes": null}));
    assert_eq!(body(&events, 1)["after"], json!({"id": 2, "state": "b"}));
    assert_eq!(body(&events, 2)["after"], json!({"id": 3, "status": "c", "notes": null}));
}

#[test]
fn an_empty_batch_still_moves_the_end() {
    let mut events = Events::default();
    let mut encoder = encoder(Format::CloudEvents);
    let batch = Batch { end: Some(Position::between("7412/1/0/2")), ..Batch::default() };
    assert_eq!(
        encoder.encode(&batch, &Derived::default(), &mut events).expect("nothing to encode"),
        Encoded::default()
    );
    assert_eq!(events.end, Some(Position::between("7412/1/0/2")));
    encoder.encode(&Batch::default(), &Derived::default(), &mut events).expect("nothing to encode");
    assert_eq!(events.end, Some(Position::between("7412/1/0/2")));
}

#[test]
fn every_event_carries_the_position_behind_it() {
    let events = encode(&mut encoder(Format::Plain), &row_kinds());
    let positions: Vec<_> = events
        .list
        .iter()
        .map(|at| {
            let (_, headers, _) = parts(&events, at);
            let checkpoint = Checkpoint::parse(header(&headers, checkpoint::HEADER).expect("there")).expect("valid");
            (checkpoint.position.to_string(), header(&headers, "Figvine-Tx-Last").is_some())
        })
        .collect();
    let expected = [
        ("7412/1/0/16B3708;0.1", false),
        ("7412/1/0/16B3708;3.1", false),
        ("7412/1/0/16B3748", true),
        ("7412/1/0/16B3749", true),
    ];
    assert_eq!(positions, expected.map(|(position, last)| (position.to_owned(), last)));
}

#[test]
fn figures_tell_what_passed() {
    let mut encoder = encoder(Format::CloudEvents);
    let mut events = Events::default();
    let figures = encoder.encode(&row_kinds(), &Derived::default(), &mut events).expect("encodable");
    assert_eq!(figures.events, 4);
    assert_eq!(figures.unchanged_values, 1);
    assert_eq!(figures.completed_rows, [3, 1]);
    assert_eq!(figures.oldest_committed_at, Some(1_795_424_400_123_464));
    assert_eq!(figures.newest_committed_at, Some(1_795_424_400_123_465));
    let counts: Vec<_> = figures.counts.iter().map(|c| (&*c.table, c.op, &*c.event_type, c.events)).collect();
    assert_eq!(
        counts,
        [
            ("public.orders", "insert", "shop.public.orders.inserted", 1),
            ("public.orders", "update", "shop.public.orders.updated", 1),
            ("public.orders", "delete", "shop.public.orders.deleted", 1),
            ("public.orders", "read", "shop.public.orders.read", 1),
        ]
    );
    let figures = encoder.encode(&other_kinds(), &Derived::default(), &mut events).expect("encodable");
    let counts: Vec<_> = figures.counts.iter().map(|c| (c.op, &*c.event_type, c.events)).collect();
    assert_eq!(
        counts,
        [
            ("truncate", "shop.public.orders.truncated", 1),
            ("schema_change", "shop.schema_changed", 1),
            ("message", "shop.message", 2)
        ]
    );
    assert_eq!(events.list.len(), 8);
}

/// A good row, then what is given; returns the error's text and what was encoded.
fn fails(max_payload: usize, bad: impl FnOnce(&mut Maker)) -> (EncodeError, Events) {
    let mut maker = Maker::default();
    maker.transaction(8).row_change(0, &orders(), Op::Insert, None, Some(&[Some("1"), None, None]));
    bad(&mut maker);
    let mut events = Events::default();
    let error = encoder_with(&settings(Format::CloudEvents), max_payload)
        .encode(&maker.done(), &Derived::default(), &mut events)
        .expect_err("a bad change");
    assert_eq!(events.list.len(), 1);
    assert_eq!(events.list[0].end as usize, events.bytes.len(), "nothing of the bad one is left");
    assert_eq!(events.end.as_ref().expect("behind the good one").to_string(), "7412/1/0/16B3708;0.1");
    (error, events)
}

#[test]
fn a_value_that_cannot_be_encoded_is_named_but_not_shown() {
    let (error, _) = fails(1 << 20, |maker| {
        maker.row_change(1, &orders(), Op::Insert, None, Some(&[Some("secret"), None, None])).last();
    });
    assert_eq!(
        error.to_string(),
        "change 0/16B3748/1.1: column id of table public.orders holds a value that cannot be encoded"
    );
    let source = std::error::Error::source(&error).expect("a reason");
    assert_eq!(source.to_string(), "not a value of type int8: not all digits");
    assert_eq!(error.identity().ordinal, 1);
}

#[test]
fn an_event_that_is_too_large_is_refused_by_its_whole_size() {
    let mut maker = Maker::default();
    maker.transaction(8).row_change(0, &orders(), Op::Insert, None, Some(&[Some("1"), None, None])).last();
    let batch = maker.done();
    let mut events = encode(&mut encoder(Format::CloudEvents), &batch);
    let size = events.bytes.len() - events.list[0].headers as usize + HEADER_FRAME;
    encoder_with(&settings(Format::CloudEvents), size)
        .encode(&batch, &Derived::default(), &mut events)
        .expect("just fits");
    let error = encoder_with(&settings(Format::CloudEvents), size - 1)
        .encode(&batch, &Derived::default(), &mut events)
        .expect_err("too large");
    assert_eq!(
        error.to_string(),
        format!("change 0/16B3748/0.1 of public.orders: the event has {size} bytes, the limit is {}", size - 1)
    );
    fails(2000, |maker| {
        maker.row_change(1, &orders(), Op::Insert, None, Some(&[Some("1"), Some(&"x".repeat(2000)), None]));
    });
}

#[test]
fn a_table_without_a_key_is_refused() {
    let (error, _) = fails(1 << 20, |maker| {
        maker.row_change(1, &table("s", "t", &[("a", "text")], &[]), Op::Insert, None, Some(&[Some("x")]));
    });
    assert_eq!(error.to_string(), "change 0/16B3748/1.1: table s.t has no key");
}

#[test]
fn a_key_that_the_log_does_not_carry_is_refused() {
    let (error, _) = fails(1 << 20, |maker| {
        maker.row_change(1, &orders(), Op::Update, None, Some(&[Some("?"), None, None]));
    });
    assert_eq!(
        error.to_string(),
        "change 0/16B3748/1.1: the log does not carry column id of the key of table public.orders"
    );
}

#[test]
fn a_batch_that_contradicts_itself_is_refused() {
    let malformed = |bad: &dyn Fn(&mut Maker)| {
        let (error, _) = fails(1 << 20, bad);
        assert!(matches!(error, EncodeError::Malformed { .. }), "{error}");
    };
    let good: Cells<'_> = &[Some("1"), None, None];
    malformed(&|m| {
        m.row_change(1, &orders(), Op::Delete, None, None);
    });
    malformed(&|m| {
        m.row_change(1, &orders(), Op::Update, None, None);
    });
    malformed(&|m| {
        m.row_change(1, &orders(), Op::Insert, None, Some(&[Some("1")]));
    });
    malformed(&|m| {
        m.row_change(1, &orders(), Op::Insert, None, Some(good)).with(|_, row| row.table = 9);
    });
    malformed(&|m| {
        m.row_change(1, &orders(), Op::Insert, None, Some(good)).with(|c, _| c.transaction = 9);
    });
    malformed(&|m| {
        m.row_change(1, &orders(), Op::Insert, None, Some(good));
        *m.batch.cells.last_mut().expect("a cell") = Cell::Value(5..1_000_000);
    });
    malformed(&|m| {
        m.change(1, 1, Body::Message { prefix: 0..0, content: 3..1_000_000 });
    });
    malformed(&|m| {
        m.transaction(9).row_change(0, &orders(), Op::Insert, None, Some(good)).last();
        m.batch.transactions[1].end = None;
    });
    malformed(&|m| {
        m.transaction(9).row_change(0, &orders(), Op::Insert, None, Some(good));
        m.batch.transactions[1].start = "1\r\nNats-Rollup: all".into();
    });
}

/// The names of a header block, each line of which is `Name: value`.
fn header_names(headers: &str) -> Vec<&str> {
    let lines = headers.strip_suffix("\r\n").expect("a closed line");
    lines.split("\r\n").map(|line| line.split_once(": ").expect("a header").0).collect()
}

const EXPECTED: [&str; 13] = [
    "ce-specversion",
    "ce-id",
    "ce-source",
    "ce-type",
    "ce-subject",
    "ce-time",
    "ce-partitionkey",
    "ce-sequence",
    "ce-datacontenttype",
    "Figvine-Tx",
    "Figvine-Tx-Index",
    "Figvine-Tx-Last",
    "Figvine-Checkpoint",
];

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[a.*> \r\n\t:\"%\\\\{}=~\u{0}ä]{1,20}",
        Just("x\r\nNats-Rollup: all\r\n\r\n".to_owned())
    ]
}

proptest! {
    #[test]
    fn no_name_and_no_value_breaks_out_of_its_place(
        (schema, name, column, other) in (hostile(), hostile(), hostile(), hostile()),
        (key, id, position) in ("[^?]{1,3}", hostile(), hostile()),
        value in hostile(),
    ) {
        let key = format!("{key}{value}");
        prop_assume!(column != other);
        let table = table(&schema, &name, &[(&column, "text"), (&other, "text")], &[0]);
        let mut maker = Maker::default();
        maker.transaction(8);
        maker.row_change(0, &table, Op::Insert, None, Some(&[Some(&key), None])).last();
        maker.batch.transactions[0].id = id.as_str().into();
        maker.batch.transactions[0].position = position.as_str().into();
        maker.batch.transactions[0].sequence = position.as_str().into();
        let batch = maker.done();

        let mut settings = settings(Format::CloudEvents);
        settings.subject = "cdc.{source}.{schema}.{table}.{key}.{partition}".into();
        let events = encode(&mut encoder_with(&settings, 1 << 20), &batch);
        let (subject, headers, text) = parts(&events, &events.list[0]);
        prop_assert_eq!(subject.split('.').count(), 6, "{}", subject);
        prop_assert!(subject.split('.').all(|token| !token.is_empty()));
        prop_assert!(subject.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>'));
        prop_assert_eq!(header_names(&headers), EXPECTED);
        prop_assert!(headers.is_ascii());
        if key.len() <= 1024 {
            let shown = percent_decode_str(header(&headers, "ce-subject").expect("there")).decode_utf8().expect("UTF-8");
            prop_assert_eq!(&*shown, &key);
        }
        let body: Value = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(&body["after"][&column], &json!(key));
        prop_assert_eq!(&body["source"]["table"], &json!(name));
        prop_assert_eq!(&body["source"]["position"], &json!(position));

        settings.format = Format::CloudEventsStructured;
        let events = encode(&mut encoder_with(&settings, 1 << 20), &batch);
        let (_, headers, text) = parts(&events, &events.list[0]);
        let names = ["Content-Type", "Figvine-Tx", "Figvine-Tx-Index", "Figvine-Tx-Last", "Figvine-Checkpoint"];
        prop_assert_eq!(header_names(&headers), names);
        let structured: Value = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(&structured["data"], &body);
        prop_assert_eq!(&structured["type"], &json!(format!("shop.{schema}.{name}.inserted")));
    }

    #[test]
    fn no_message_breaks_out_of_its_place(prefix in any::<Vec<u8>>(), content in any::<Vec<u8>>()) {
        let mut maker = Maker::default();
        maker.transaction(8);
        let (prefix, content) = (maker.range(&prefix), maker.range(&content));
        maker.change(0, 1, Body::Message { prefix, content }).last();
        let events = encode(&mut encoder(Format::CloudEvents), &maker.done());
        let (subject, headers, text) = parts(&events, &events.list[0]);
        prop_assert_eq!(subject.split('.').count(), 4);
        prop_assert!(header_names(&headers).iter().all(|name| EXPECTED.contains(name)));
        let _: Value = serde_json::from_str(&text).expect("JSON");
    }

    #[test]
    fn an_event_does_not_depend_on_how_changes_come_in_batches(cuts in prop::collection::vec(any::<bool>(), 9)) {
        let batches = [row_kinds(), other_kinds()];
        let mut whole = Events::default();
        let mut one = encoder(Format::CloudEvents);
        let mut expected_rows = Vec::new();
        for batch in &batches {
            expected_rows.extend(one.encode(batch, &Derived::default(), &mut whole).expect("encodable").completed_rows);
        }
        let mut split = Events::default();
        let mut other = encoder(Format::CloudEvents);
        let mut rows = Vec::new();
        let mut cuts = cuts.into_iter();
        for batch in &batches {
            let mut changes = Vec::new();
            let mut rest = batch.changes.iter().peekable();
            while let Some(change) = rest.next() {
                changes.push(change.clone());
                if rest.peek().is_none() || cuts.next().unwrap_or(false) {
                    // Tables made anew, as after a reconnect.
                    let tables = batch.tables.iter().map(|table| Arc::new(Table::clone(table))).collect();
                    let part = Batch { changes: std::mem::take(&mut changes), tables, ..batch.clone() };
                    rows.extend(other.encode(&part, &Derived::default(), &mut split).expect("encodable").completed_rows);
                }
            }
        }
        prop_assert_eq!(show(&whole), show(&split));
        prop_assert_eq!(whole.bytes, split.bytes);
        prop_assert_eq!(whole.list, split.list);
        prop_assert_eq!(rows, expected_rows);
    }

    #[test]
    fn sequences_sort_as_the_log_does(a in (0u64..10_000_000_000, 0u32..100_000), b in (0u64..10_000_000_000, 0u32..100_000)) {
        let sequence = |(ordinal, part): (u64, u32)| {
            let mut maker = Maker::default();
            maker.transaction(8).row_change(ordinal, &orders(), Op::Insert, None, Some(&[Some("1"), None, None]));
            maker.with(|change, _| change.part = part).last();
            let events = encode(&mut encoder(Format::CloudEvents), &maker.done());
            header(&parts(&events, &events.list[0]).1, "ce-sequence").expect("there").to_owned()
        };
        prop_assert_eq!(a.cmp(&b), sequence(a).cmp(&sequence(b)));
    }
}
