use std::num::NonZeroU16;

use figvine_change::debezium::Binary;
use figvine_change::{Batch, Engine, Position};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::checkpoint::Checkpoint;
use crate::event::{Derived, Encoder, Events, Format};

mod look;

fn rule(draft: RuleDraft) -> Rule {
    Rule::new(&draft).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn draft(event_type: &str, from: &str) -> RuleDraft {
    let (event_type, from) = (event_type.to_owned(), from.to_owned());
    RuleDraft { event_type, from, version: 1, also_change_event: true, ..RuleDraft::default() }
}

fn lines(on_large: OnLarge, max_bytes: u64) -> Option<Aggregate> {
    let include = Include {
        table: "order_lines".into(),
        on: "order_id".into(),
        name: "lines".into(),
        columns: vec!["sku".into(), "price".into()],
        lookup: false,
    };
    Some(Aggregate { include: vec![include], max_bytes, on_large })
}

fn placed() -> RuleDraft {
    RuleDraft {
        on: vec![On::Insert],
        aggregate: lines(OnLarge::Park, 1 << 20),
        ..draft("order_placed", "public.orders")
    }
}

fn settings(rules: Vec<RuleDraft>) -> Arc<Settings> {
    Arc::new(Settings { rules: rules.into_iter().map(rule).collect(), outbox: None })
}

use std::sync::Arc;

/// The batch of a transaction in YAML.
fn transaction(yaml: &str) -> Batch {
    let types = "{public.order_lines: {types: {price: numeric}}}";
    let text = format!("{{name: t, tables: {types}, transaction: {yaml}}}");
    let fixture: Fixture = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    fixture.batch().expect("a transaction")
}

/// Type, key and body of what rules make of a transaction.
fn derived(rules: &Arc<Settings>, mut batch: Batch) -> Result<Vec<(String, String, Value)>, RuleError> {
    let mut out = Derived::default();
    Rules::new(Arc::clone(rules)).derive(&mut batch, &mut out)?;
    let text = |range: &std::ops::Range<usize>| String::from_utf8(out.bytes[range.clone()].to_vec()).expect("UTF-8");
    let told = out.events.iter().map(|event| {
        let body = serde_json::from_str(&text(&event.body)).expect("JSON");
        (event.event_type.to_string(), text(&event.key), body)
    });
    Ok(told.collect())
}

fn told(rules: Vec<RuleDraft>, yaml: &str) -> Vec<(String, String, Value)> {
    derived(&settings(rules), transaction(yaml))
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

fn event(event_type: &str, key: &str, data: Value) -> (String, String, Value) {
    (event_type.into(), key.into(), data)
}

#[test]
fn a_rule_is_about_its_table_its_operations_and_its_columns() {
    let shipped = RuleDraft {
        on: vec![On::Update],
        changed: vec!["status".into()],
        when: Some("after.status == 'shipped' && before.status != 'shipped'".into()),
        data: Data::Columns(vec!["id".into(), "status".into()]),
        ..draft("order_shipped", "public.orders")
    };
    let yaml = "[
        {insert: public.orders, after: {id: 1, status: shipped}},
        {update: public.orders, before: {id: 1, status: new}, after: {id: 1, status: paid}},
        {update: public.orders, before: {id: 1, status: shipped, note: a}, after: {id: 1, status: shipped, note: b}},
        {update: public.others, before: {id: 1, status: new}, after: {id: 1, status: shipped}},
        {update: public.orders, before: {id: 1, status: paid}, after: {id: 1, status: shipped}}]";
    let data = json!({"id": 1, "status": "shipped"});
    assert_eq!(told(vec![shipped], yaml), [event("order_shipped.v1", "1", data)]);
}

#[test]
fn keys_and_bodies_are_as_the_rule_says() {
    let with = |key, data| RuleDraft { key, data, ..draft("t", "public.order_lines") };
    let yaml = "[{insert: public.order_lines, after: {id: 7, order_id: 1, sku: 'a\"b', price: '1.10'}}]";
    let members = Data::Members(vec![
        ("sku".into(), "after.sku".into()),
        ("gross".into(), "after.price * 2".into()),
        ("tx".into(), "tx.id".into()),
    ]);
    let rows = json!({"id": 7, "order_id": 1, "sku": "a\"b", "price": "1.10"});
    for (key, data, expected_key, expected) in [
        (Key::OfTable, Data::Row, "7", rows),
        (
            Key::Columns(vec!["order_id".into(), "sku".into()]),
            Data::Columns(vec!["id".into()]),
            "[1,\"a\\\"b\"]",
            json!({"id": 7}),
        ),
        (
            Key::Expression("'order-' + string(after.order_id)".into()),
            members,
            "order-1",
            json!({"sku": "a\"b", "gross": "2.20", "tx": "1"}),
        ),
    ] {
        assert_eq!(told(vec![with(key, data)], yaml), [event("t.v1", expected_key, expected)]);
    }
}

#[test]
fn an_aggregate_is_told_once_as_it_stands_at_the_commit() {
    let yaml = "[
        {insert: public.order_lines, after: {id: 10, order_id: 1, sku: early, price: '1.00'}},
        {insert: public.orders, after: {id: 1, status: new}},
        {insert: public.order_lines, after: {id: 11, order_id: 1, sku: a, price: '1.10'}},
        {insert: public.order_lines, after: {id: 12, order_id: 1, sku: gone, price: '9.99'}},
        {insert: public.orders, after: {id: 2, status: new}},
        {update: public.order_lines, before: {id: 11, order_id: 1, sku: a, price: '1.10'}, after: {id: 11, order_id: 1, sku: a, price: '1.20'}},
        {delete: public.order_lines, before: {id: 12, order_id: 1, sku: gone, price: '9.99'}},
        {update: public.order_lines, before: {id: 10, order_id: 1, sku: early, price: '1.00'}, after: {id: 10, order_id: 2, sku: early, price: '1.00'}},
        {insert: public.orders, after: {id: 3, status: new}},
        {delete: public.orders, before: {id: 3, status: new}},
        {update: public.orders, before: {id: 4, status: new}, after: {id: 4, status: paid}},
        {update: public.orders, before: {id: 1, status: new}, after: {id: 1, status: paid}}]";
    assert_eq!(
        told(vec![placed()], yaml),
        [
            event("order_placed.v1", "1", json!({"id": 1, "status": "paid", "lines": [{"sku": "a", "price": "1.20"}]})),
            event(
                "order_placed.v1",
                "2",
                json!({"id": 2, "status": "new", "lines": [{"sku": "early", "price": "1.00"}]})
            ),
        ]
    );
}

#[test]
fn expressions_of_an_aggregate_see_its_parts() {
    let rule = RuleDraft {
        when: Some("size(lines) > 0".into()),
        data: Data::Members(vec![
            ("total".into(), "sum(lines.map(l, l.price))".into()),
            ("lines".into(), "lines".into()),
        ]),
        ..placed()
    };
    let yaml = "[
        {insert: public.orders, after: {id: 1}},
        {insert: public.orders, after: {id: 2}},
        {insert: public.order_lines, after: {id: 11, order_id: 1, sku: a, price: '1.10'}},
        {insert: public.order_lines, after: {id: 12, order_id: 1, sku: b, price: '2.20'}}]";
    let lines = json!([{"sku": "a", "price": "1.10"}, {"sku": "b", "price": "2.20"}]);
    assert_eq!(told(vec![rule], yaml), [event("order_placed.v1", "1", json!({"total": "3.30", "lines": lines}))]);
}

#[test]
fn a_transaction_too_large_is_said_to_miss_or_stops() {
    let parked = |max_bytes, on_large| RuleDraft { aggregate: lines(on_large, max_bytes), ..placed() };
    let yaml = "[
        {insert: public.orders, after: {id: 1}},
        {insert: public.order_lines, after: {id: 11, order_id: 1, sku: a, price: '1.10'}}]";
    let missing = json!({"rule": "order_placed", "reason": "too_large", "code": "FV-3114", "dead_letter": null});
    assert_eq!(told(vec![parked(10, OnLarge::Park)], yaml), [event("order_placed_missing.v1", "0/1", missing)]);
    let error = derived(&settings(vec![parked(10, OnLarge::Stop)]), transaction(yaml)).expect_err("too large");
    assert!(matches!(error, RuleError::TooLarge { rows: 2, .. }), "{error}");
    // Parts alone are no event, however many.
    let parts = "[{insert: public.order_lines, after: {id: 11, order_id: 1, sku: a, price: '1.10'}}]";
    assert_eq!(told(vec![parked(10, OnLarge::Stop)], parts), []);
}

#[test]
fn rows_in_a_file_make_the_events_that_they_made_in_memory() {
    // What fills memory is of no root that is touched.
    let yaml = "[
        {insert: public.order_lines, after: {id: 91, order_id: 9, sku: LONG, price: '1.10'}},
        {insert: public.orders, after: {id: 1, note: null}},
        {insert: public.order_lines, after: {id: 11, order_id: 1, sku: a, price: '1.10'}},
        {insert: public.order_lines, after: {id: 12, order_id: 1, sku: b, price: '1.20'}},
        {insert: public.order_lines, after: {id: 21, order_id: 2, sku: of an order that is touched later, price: '2.10'}},
        {delete: public.order_lines, before: {id: 11}},
        {update: public.orders, before: {id: 2, note: x}, after: {id: 2}},
        {insert: public.order_lines, after: {id: 11, order_id: 2, sku: again elsewhere, price: '1.10'}},
        {delete: public.order_lines, before: {id: 12}},
        {insert: public.order_lines, after: {id: 12, order_id: 1, sku: again, price: '1.30'}},
        {delete: public.order_lines, before: {id: 99}},
        {update: public.orders, before: {id: 3, note: x}, after: {id: 4, note: x}},
        {delete: public.orders, before: {id: 5, note: y}},
        {insert: public.order_lines, after: {id: 31, order_id: 3, sku: of nothing, price: '1.10'}}]";
    let yaml = &yaml.replace("LONG", &"l".repeat(700));
    let with = |max_bytes| RuleDraft { on: Vec::new(), aggregate: lines(OnLarge::Spill, max_bytes), ..placed() };
    let held = told(vec![with(1 << 20)], yaml);
    assert_eq!(held.len(), 4);
    assert_eq!(held[0].2["lines"], json!([{"sku": "again", "price": "1.30"}]));
    // Whether the file begins with the first row or with the last.
    for max_bytes in (900..3600).step_by(60) {
        assert_eq!(told(vec![with(max_bytes)], yaml), held, "{max_bytes}");
    }
    // An index, or one root, that is larger than may be held is parked as ever.
    assert_eq!(told(vec![with(90)], yaml)[0].0, "order_placed_missing.v1");
}

#[test]
fn what_the_log_does_not_tell_is_an_error() {
    let rules = settings(vec![RuleDraft { changed: vec!["status".into()], ..draft("t", "public.orders") }]);
    let error =
        derived(&rules, transaction("[{update: public.orders, after: {id: 1, status: paid}}]")).expect_err("unknown");
    assert!(matches!(&error, RuleError::Changed { column, .. } if &**column == "status"), "{error}");
    assert!(error.hint().contains("REPLICA IDENTITY FULL"));

    let rules = settings(vec![RuleDraft { when: Some("after.total > 1".into()), ..draft("t", "public.orders") }]);
    let error =
        derived(&rules, transaction("[{insert: public.orders, after: {id: 1, total: null}}]")).expect_err("null");
    assert!(matches!(error, RuleError::Eval { source: EvalError::NoOverload(..), .. }), "{error}");
    let error = derived(&rules, transaction("[{insert: public.orders, after: {id: 1}}]")).expect_err("no column");
    assert_eq!(error.to_string(), "rule t does not fit table public.orders: there is no column 'total'");
}

#[test]
fn an_error_ends_the_batch_before_its_change() {
    let rules = settings(vec![RuleDraft { when: Some("after.n > 1".into()), ..draft("t", "public.orders") }]);
    let mut batch = transaction(
        "[{insert: public.orders, after: {id: 1, n: 2}}, {insert: public.orders, after: {id: 2, n: null}}]",
    );
    batch.end = Some(Position::between("x"));
    let mut out = Derived::default();
    Rules::new(rules).derive(&mut batch, &mut out).expect_err("null");
    assert_eq!((batch.changes.len(), batch.end, out.events.len()), (1, None, 1));
}

#[test]
fn mistakes_of_a_rule_are_told_all_at_once() {
    let draft = RuleDraft {
        event_type: "order placed".into(),
        from: "orders".into(),
        on: vec![On::Insert],
        changed: vec!["x".into()],
        when: Some("before.a == 1 &&".into()),
        data: Data::Members(vec![("n".into(), "nope".into())]),
        ..draft("t", "t")
    };
    let keys: Vec<_> = Rule::new(&draft).expect_err("mistakes").into_iter().map(|mistake| mistake.key).collect();
    assert_eq!(keys, ["type", "name", "from", "when", "data.n", "changed"]);
}

#[test]
fn an_outbox_is_told_by_its_own_types() {
    let outbox = Outbox { table: Some(("public".into(), "outbox".into())), ..Outbox::default() };
    let rules = Arc::new(Settings { rules: Vec::new(), outbox: Some(outbox) });
    let yaml = "[
        {insert: public.outbox, after: {id: 1, aggregateid: '42', type: OrderPlaced, payload: '{\"a\": 1.50}'}},
        {delete: public.outbox, before: {id: 1, aggregateid: '42', type: OrderPlaced, payload: x}},
        {insert: public.outbox, after: {id: 2, aggregateid: 43, type: Note, payload: plain}},
        {insert: public.outbox, after: {id: 3, aggregateid: 44, type: Doc, payload: {b: [1]}}}]";
    let mut batch = transaction(yaml);
    let mut out = Derived::default();
    Rules::new(Arc::clone(&rules)).derive(&mut batch, &mut out).expect("an outbox");
    assert_eq!(out.untold, [0, 1, 2, 3], "the table is a queue, no data");
    let bodies: Vec<_> = out
        .events
        .iter()
        .map(|event| {
            (
                &*event.event_type,
                std::str::from_utf8(&out.bytes[event.key.clone()]),
                std::str::from_utf8(&out.bytes[event.body.clone()]),
            )
        })
        .collect();
    assert_eq!(
        bodies,
        [
            ("OrderPlaced", Ok("42"), Ok("{\"a\": 1.50}")),
            ("Note", Ok("43"), Ok("\"plain\"")),
            ("Doc", Ok("44"), Ok("{\"b\":[1]}"))
        ]
    );

    let error = derived(
        &rules,
        transaction("[{insert: public.outbox, after: {id: 1, aggregateid: '4', type: null, payload: x}}]"),
    );
    assert!(matches!(error, Err(RuleError::Outbox { .. })));
}

#[test]
fn an_existing_row_is_told_by_rules_that_are_about_such_alone() {
    let read = |name: &str, when: &str| RuleDraft {
        on: vec![On::Read],
        when: Some(when.into()),
        also_change_event: false,
        ..draft(name, "public.orders")
    };
    let rules = settings(vec![
        draft("order_placed", "public.orders"),
        read("large", "after.n > 5"),
        read("order_snapshot", "after.n > 1"),
    ]);
    let mut batch = transaction(
        "[{insert: public.orders, after: {id: 1, n: 9}}, {insert: public.orders, after: {id: 2, n: 1}}, {insert: public.orders, after: {id: 3, n: 2}}]",
    );
    for change in &mut batch.changes {
        let figvine_change::Body::Row(row) = &mut change.body else { panic!("a row") };
        row.op = figvine_change::Op::Read;
    }
    let mut out = Derived::default();
    Rules::new(rules).derive_rows(&batch, &mut out).expect("no error");
    let told: Vec<_> = out.events.iter().map(|event| (event.behind, &*event.event_type)).collect();
    assert_eq!(told, [(0, "large.v1"), (2, "order_snapshot.v1")]);

    for draft in [
        RuleDraft { on: vec![On::Read, On::Insert], ..read("t", "true") },
        RuleDraft { also_change_event: true, ..read("t", "true") },
        RuleDraft { aggregate: lines(OnLarge::Park, 1), ..read("t", "true") },
        read("t", "before.n > 1"),
    ] {
        assert_eq!(Rule::new(&draft).expect_err("a mistake").len(), 1);
    }
}

#[test]
fn whoever_asks_is_told_why() {
    let rule = RuleDraft {
        on: vec![On::Update],
        changed: vec!["a".into()],
        when: Some("after.a > 1".into()),
        ..draft("t", "public.orders")
    };
    let mut rules = Rules::new(settings(vec![rule]));
    rules.explain();
    let mut batch = transaction(
        "[{insert: public.orders, after: {id: 1, a: 0, b: 0}},
          {update: public.orders, before: {id: 1, a: 0, b: 0}, after: {id: 1, a: 0, b: 1}},
          {update: public.orders, before: {id: 1, a: 0, b: 0}, after: {id: 1, a: 1, b: 1}},
          {update: public.orders, before: {id: 1, a: 0, b: 0}, after: {id: 1, a: 2, b: 1}}]",
    );
    rules.derive(&mut batch, &mut Derived::default()).expect("no error");
    let why: Vec<_> = rules.take_explained().into_iter().map(|told| (told.change, told.matched, told.why)).collect();
    assert_eq!(
        why,
        [
            (0, false, "it is not about an insert".to_owned()),
            (1, false, "none of its columns changed: a".to_owned()),
            (2, false, "`when` is false".to_owned()),
            (3, true, "matched".to_owned()),
        ]
    );
}

/// The events of transactions, read from a position on, in batches of a length and told in portions, as subject, headers and body.
fn encoded(
    rules: &Arc<Settings>,
    log: &[Batch],
    from: Option<&Checkpoint>,
    (length, portion): (usize, Portion),
) -> Vec<String> {
    let settings = crate::event::Settings {
        source: "shop".into(),
        format: Format::CloudEvents,
        subject: "cdc.{source}.{schema}.{table}.{partition}".into(),
        domain_subject: "events.{source}.{type}.{partition}".into(),
        partitions: NonZeroU16::MIN,
        topic_prefix: "shop".into(),
        binary: Binary::Bytes,
        ce_source: "/figvine/shop".into(),
    };
    let engine = Engine { name: "postgres", version: "15".into(), database: "shop".into() };
    let writer = Checkpoint::parse("1 w7Tk2pQ9 x").expect("a checkpoint").writer;
    let mut encoder = Encoder::new(&settings, &engine, &writer, 1 << 20).expect("a template");
    let mut rules = Rules::new(Arc::clone(rules)).in_portions(portion);
    if let Some(from) = from {
        encoder.resume(&from.position, from.told.clone());
    }
    let mut told = Vec::new();
    for transaction in log {
        let (start, end) = (&transaction.transactions[0].start, &transaction.transactions[0].end);
        // What a connector does: whole transactions behind the position, of the first what lies behind the place in it.
        let number = |log: &str| log.rsplit_once('/').map(|(_, number)| number.parse::<u64>().expect("a number"));
        let position = from.map(|from| &from.position);
        if position.is_some_and(|position| number(&position.log) >= end.as_deref().and_then(number)) {
            continue;
        }
        let within = position.filter(|position| position.log == *start).and_then(|position| position.within);
        let mut whole = transaction.clone();
        whole.changes.retain(|change| {
            let at = figvine_change::Within { ordinal: change.ordinal, part: change.part };
            within.is_none_or(|within| at > within)
        });
        for changes in whole.changes.chunks(length) {
            let mut batch = Batch { changes: changes.to_vec(), ..whole.clone() };
            let mut derived = Derived::default();
            loop {
                let mut events = Events::default();
                rules.derive(&mut batch, &mut derived).expect("derivable");
                encoder.encode(&batch, &derived, &mut events).expect("encodable");
                let text = |from: u32, to: u32| {
                    String::from_utf8(events.bytes[from as usize..to as usize].to_vec()).expect("UTF-8")
                };
                told.extend(events.list.iter().map(|at| {
                    format!("{}\n{}{}", text(at.subject, at.headers), text(at.headers, at.body), text(at.body, at.end))
                }));
                if encoder.holds() {
                    assert_eq!(events.end, None, "no place to go on from");
                }
                if !derived.go_on() {
                    break;
                }
                look::answer(&mut rules, 1);
            }
        }
        assert!(!encoder.holds(), "all of it is told");
    }
    told
}

/// A transaction of the shop: orders and lines, as numbers say.
fn random_log(seeds: &[Vec<(u8, u8, u8)>]) -> Vec<Batch> {
    let of = |number: usize, seeds: &Vec<(u8, u8, u8)>| {
        let change = |&(kind, order, line): &(u8, u8, u8)| match kind % 8 {
            0 => format!("{{insert: public.orders, after: {{id: {order}, n: {line}}}}}"),
            1 => format!("{{update: public.orders, before: {{id: {order}, n: 0}}, after: {{id: {order}, n: {line}}}}}"),
            2 => format!("{{delete: public.orders, before: {{id: {order}, n: {line}}}}}"),
            3 => {
                format!("{{delete: public.order_lines, before: {{id: {line}, order_id: {order}, sku: s, price: '1'}}}}")
            }
            // By its key alone: where it was is not told.
            4 => format!("{{delete: public.order_lines, before: {{id: {line}}}}}"),
            _ => format!(
                "{{insert: public.order_lines, after: {{id: {line}, order_id: {order}, sku: s, price: '{line}.5'}}}}"
            ),
        };
        // The first is of no order that is touched: it fills memory.
        let both = format!(
            "{{insert: public.order_lines, after: {{id: 251, order_id: 251, sku: {}, price: '0'}}}}, {{insert: public.orders, after: {{id: 250, n: 0}}}}, {{insert: public.order_lines, after: {{id: 250, order_id: 250, sku: s, price: '0'}}}}",
            "l".repeat(700)
        );
        // One change alone begins to be held and ends it.
        let alone = "{insert: public.orders, after: {id: 250, n: 3}}".to_owned();
        let first = if seeds.is_empty() { alone } else { both };
        let changes: Vec<_> = std::iter::once(first).chain(seeds.iter().map(change)).collect();
        let mut batch = transaction(&format!("[{}]", changes.join(", ")));
        let transaction = &mut batch.transactions[0];
        transaction.position = format!("0/{number}").into();
        transaction.start = format!("log/{}", 2 * number).into();
        transaction.end = Some(format!("log/{}", 2 * number + 1).into());
        batch
    };
    seeds.iter().enumerate().map(|(number, seeds)| of(number, seeds)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn behind_any_event_a_restart_tells_just_the_rest(
        seeds in prop::collection::vec(prop::collection::vec((any::<u8>(), 0_u8..3, 0_u8..4), 0..8), 1..4),
        lengths in (1_usize..5, 1_usize..5),
        portions in ((1_usize..4, 1_usize..4), (1_usize..4, 1_usize..4)),
        has_aggregate in any::<bool>(),
        is_rare in any::<bool>(),
        also in any::<bool>(),
        lookup in any::<bool>(),
        // What may be held in memory: often less than there is, never less than the index of a file.
        memory in (1200_u64..2000, 1200_u64..3000),
    ) {
        let log = random_log(&seeds);
        let with = |aggregate: Option<Aggregate>| {
            let rare = Some("after != null && after.n > 2".to_owned());
            let when = rare.clone().filter(|_| is_rare);
            let placed = || RuleDraft { aggregate: aggregate.clone(), when: when.clone(), ..placed() };
            let mut drafts = vec![
                RuleDraft { also_change_event: also, ..draft("order_touched", "public.orders") },
                RuleDraft { when: Some("after != null && after.n > 1".into()), ..draft("order_large", "public.orders") },
            ];
            if has_aggregate {
                drafts.insert(1, RuleDraft { on: Vec::new(), ..placed() });
                drafts.push(RuleDraft { name: Some("again".into()), on: vec![On::Insert, On::Update], ..placed() });
                drafts.push(RuleDraft { name: Some("rare".into()), when: rare, on: Vec::new(), ..placed() });
            }
            for include in drafts.iter_mut().filter_map(|draft| draft.aggregate.as_mut()).flat_map(|all| &mut all.include) {
                include.lookup = lookup;
            }
            settings(drafts)
        };
        let (rules, again) = (with(lines(OnLarge::Spill, memory.0)), with(lines(OnLarge::Spill, memory.1)));
        let whole = encoded(&rules, &log, None, (lengths.0, Portion::of(portions.0.0, portions.0.1)));
        let held = encoded(&with(lines(OnLarge::Stop, 1 << 20)), &log, None, (usize::MAX, Portion::ALL));
        prop_assert_eq!(&whole, &held, "neither batches nor portions matter, nor where rows were held");
        for (place, event) in whole.iter().enumerate() {
            let header = event.lines().find_map(|line| line.strip_prefix("Figvine-Checkpoint: ")).expect("a checkpoint");
            let checkpoint = Checkpoint::parse(header.trim_end()).expect("valid");
            let rest = encoded(&again, &log, Some(&checkpoint), (lengths.1, Portion::of(portions.1.0, portions.1.1)));
            prop_assert_eq!(rest.len(), whole.len() - place - 1, "behind {}", header);
            for (told, expected) in rest.iter().zip(&whole[place + 1..]) {
                prop_assert_eq!(told, expected);
            }
        }
        let mut ids: Vec<_> = whole.iter().filter_map(|event| event.lines().find(|line| line.starts_with("ce-id: "))).collect();
        ids.sort_unstable();
        ids.dedup();
        prop_assert_eq!(ids.len(), whole.len(), "each has its own identity");
    }
}

#[test]
fn what_a_rule_cannot_make_is_parked_by_itself_and_other_rules_go_on() {
    let dear = RuleDraft { when: Some("after.total > 100".into()), ..draft("dear", "public.orders") };
    let any = RuleDraft { data: Data::Columns(vec!["id".into()]), ..draft("any", "public.orders") };
    let whole = RuleDraft { data: Data::Members(vec![("first".into(), "lines[0].sku".into())]), ..placed() };
    let settings = settings(vec![dear, any, whole]);
    let mut batch = transaction(
        "[
        {insert: public.orders, after: {id: 1, total: null}},
        {insert: public.orders, after: {id: 2, total: 7}},
        {insert: public.order_lines, after: {id: 11, order_id: 2, sku: a, price: '1.10'}}]",
    );
    let mut rules = Rules::new(Arc::clone(&settings)).parking(true);
    let mut out = Derived::default();
    rules.derive(&mut batch, &mut out).expect("parks");
    let told: Vec<_> = out.events.iter().map(|event| (&*event.event_type, &*event.rule, event.number)).collect();
    let expected = [
        ("dear_missing.v1", "dear", 0),
        ("any.v1", "any", 0),
        ("any.v1", "any", 0),
        ("order_placed_missing.v1", "order_placed", 0),
        ("order_placed.v1", "order_placed", 1),
    ];
    assert_eq!(told, expected);
    let letters = rules.take_letters();
    let bodies: Vec<Value> = letters.iter().map(|letter| serde_json::from_slice(&letter.body).expect("JSON")).collect();
    assert_eq!(letters.iter().map(|letter| letter.reason).collect::<Vec<_>>(), ["rule", "rule"]);
    assert_eq!((&bodies[0]["rule"], &bodies[0]["after"]["id"]), (&json!("dear"), &json!(1)));
    assert!(letters[0].id.ends_with("/dear"), "{}", letters[0].id);
    // The whole has its parts with it, and is about its own row.
    assert_eq!((&bodies[1]["type"], &bodies[1]["parts"]), (&json!("order_placed.v1"), &json!({"lines": []})));
    let error = bodies[1]["error"].as_str().unwrap_or_default();
    let about = format!("change {} of public.orders: ", letters[1].id.trim_end_matches("/order_placed"));
    assert!(error.starts_with(&about), "{error}");
    let error = derived(&settings, transaction("[{insert: public.orders, after: {id: 1, total: null}}]"));
    assert!(matches!(error, Err(RuleError::Eval { .. })), "unasked it stops");
}
