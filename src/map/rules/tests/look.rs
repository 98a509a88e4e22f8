//! Parts that are looked up.

use figvine_change::{Found, Transaction};

use super::*;

/// Lines that are there beside what a transaction touched: order, line, sku, price.
const LINES: [(u8, u8, &str, u8); 4] = [(1, 1, "old", 9), (1, 11, "a", 1), (1, 12, "b", 2), (2, 21, "c", 3)];

/// Tells rules what they want to know, of so many roots at once at most.
pub(super) fn answer(rules: &mut Rules, most: usize) -> Vec<String> {
    let Some(mut wanted) = rules.take_wanted() else { return Vec::new() };
    while wanted.keys.len() > most {
        wanted = rules.found_too_many(wanted).expect("fewer");
    }
    let is_sought = |line: &&(u8, u8, &str, u8)| wanted.keys.iter().any(|key| *key.json == *line.0.to_string());
    let line = |(order, id, sku, price): &(u8, u8, &str, u8)| {
        format!("{{insert: public.order_lines, after: {{id: {id}, order_id: {order}, sku: {sku}, price: '{price}'}}}}")
    };
    let yaml = format!("[{}]", LINES.iter().filter(is_sought).map(line).collect::<Vec<_>>().join(", "));
    for parts in &wanted.parts {
        let found = Found { batch: transaction(&yaml), is_whole: true, read_at: 1_000_000 };
        assert!(rules.found(parts.list, &wanted, &found).expect("parts of the rule"), "known whose they are");
    }
    wanted.keys.iter().map(|key| key.json.to_string()).collect()
}

fn looked_up(on_large: OnLarge) -> RuleDraft {
    let mut aggregate = lines(on_large, 1 << 20);
    aggregate.iter_mut().flat_map(|aggregate| &mut aggregate.include).for_each(|include| include.lookup = true);
    RuleDraft { aggregate, ..draft("order_changed", "public.orders") }
}

/// Bodies, and the keys that were looked up.
fn bodies(rules: Vec<RuleDraft>, yaml: &str, most: usize) -> (Vec<Value>, Vec<String>) {
    let mut batch = transaction(yaml);
    let (mut rules, mut out, mut keys) = (Rules::new(settings(rules)), Derived::default(), Vec::new());
    loop {
        rules.derive(&mut batch, &mut out).expect("events");
        let Some(place) = out.goes_on.take() else { break };
        out.from = place;
        keys.extend(answer(&mut rules, most));
    }
    let body =
        |event: &crate::event::DomainEvent| serde_json::from_slice(&out.bytes[event.body.clone()]).expect("JSON");
    (out.events.iter().map(body).collect(), keys)
}

#[test]
fn what_the_transaction_did_to_a_part_holds_and_others_are_looked_up() {
    let yaml = "[
        {update: public.orders, before: {id: 1, n: 0}, after: {id: 1, n: 1}},
        {update: public.order_lines, before: {id: 11, order_id: 1, sku: x, price: '0'}, after: {id: 11, order_id: 1, sku: a, price: '7'}},
        {delete: public.order_lines, before: {id: 1, order_id: 1, sku: old, price: '9'}}]";
    let (told, keys) = bodies(vec![looked_up(OnLarge::Park)], yaml, 100);
    let lines = json!([{"sku": "a", "price": "7"}, {"sku": "b", "price": "2"}]);
    let at = "1970-01-01T00:00:01.000000Z";
    assert_eq!(told, [json!({"id": 1, "n": 1, "lines": lines, "lines_looked_up_at": at})]);
    assert_eq!(keys, ["1"]);
}

#[test]
fn a_root_that_came_or_went_or_is_not_told_is_not_looked_up() {
    let shipped = RuleDraft { when: Some("after == null || after.n > 2".into()), ..looked_up(OnLarge::Park) };
    let yaml = "[
        {insert: public.orders, after: {id: 1, n: 3}},
        {delete: public.orders, before: {id: 2, n: 3}},
        {update: public.orders, before: {id: 3, n: 0}, after: {id: 3, n: 1}}]";
    let (told, keys) = bodies(vec![shipped], yaml, 100);
    assert_eq!(told, [json!({"id": 1, "n": 3, "lines": []}), json!({"id": 2, "n": 3, "lines": []})]);
    assert_eq!(keys, Vec::<String>::new());
}

#[test]
fn of_many_roots_each_has_its_own_parts_however_many_are_looked_up_at_once() {
    let change =
        |id: usize| format!("{{update: public.orders, before: {{id: {id}, n: 0}}, after: {{id: {id}, n: 1}}}}");
    let yaml = format!("[{}]", (0..250).map(change).collect::<Vec<_>>().join(", "));
    let (told, keys) = bodies(vec![looked_up(OnLarge::Park)], &yaml, 100);
    assert_eq!(told.len(), 250);
    assert_eq!(keys, (0..250).map(|id| id.to_string()).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(told[1]["lines"].as_array().map(Vec::len), Some(3));
    assert_eq!(told[2]["lines"], json!([{"sku": "c", "price": "3"}]));
    assert_eq!(told[3]["lines"], json!([]));
    for most in [1, 7, 64] {
        assert_eq!(
            bodies(vec![looked_up(OnLarge::Spill)], &yaml, most),
            (told.clone(), keys.clone()),
            "{most} at once"
        );
    }
}

/// So many, like the one of a batch.
fn transactions(batch: &Batch, count: usize) -> Vec<Transaction> {
    let named = |id: usize| Transaction {
        id: id.to_string().into(),
        position: format!("0/{id}").into(),
        ..batch.transactions[0].clone()
    };
    (0..count).map(named).collect()
}

/// Gives each change a transaction of its own.
fn each_alone(batch: &mut Batch) {
    batch.transactions = transactions(batch, batch.changes.len());
    for (transaction, change) in (0..).zip(&mut batch.changes) {
        change.transaction = transaction;
        change.last = true;
    }
}

/// One look-up does for all transactions of a batch, and shows all of them.
#[test]
fn later_transactions_of_a_batch_are_looked_up_together() {
    let yaml = "[
        {update: public.orders, before: {id: 1, n: 0}, after: {id: 1, n: 1}},
        {insert: public.orders, after: {id: 9, n: 1}},
        {update: public.orders, before: {id: 2, n: 0}, after: {id: 2, n: 1}},
        {update: public.order_lines, before: {id: 21, order_id: 2, sku: c, price: '3'}, after: {id: 21, order_id: 2, sku: c, price: '4'}},
        {update: public.orders, before: {id: 1, n: 1}, after: {id: 1, n: 2}}]";
    let mut batch = transaction(yaml);
    // Each order by itself.
    batch.transactions = transactions(&batch, 4);
    for (change, transaction) in batch.changes.iter_mut().zip([0, 1, 2, 2, 3]) {
        change.transaction = transaction;
        change.last = change.ordinal != 2;
    }
    for most in [100, 1] {
        let mut batch = batch.clone();
        let (mut rules, mut out, mut asked) =
            (Rules::new(settings(vec![looked_up(OnLarge::Park)])), Derived::default(), Vec::new());
        loop {
            rules.derive(&mut batch, &mut out).expect("events");
            let Some(place) = out.goes_on.take() else { break };
            out.from = place;
            let wanted = rules.take_wanted().expect("wants to know");
            asked.push(wanted.behind.iter().map(|transaction| transaction.id.to_string()).collect::<Vec<_>>());
            rules.wanted = Some(wanted);
            assert_eq!(
                answer(&mut rules, most),
                if most == 1 { vec![["1", "2", "1"][asked.len() - 1]] } else { vec!["1", "2"] }
            );
        }
        let all = ["0", "1", "2", "3"].map(str::to_owned);
        let expected = match most {
            1 => vec![all.to_vec(), all[..3].to_vec(), all.to_vec()],
            _ => vec![all.to_vec()],
        };
        assert_eq!(asked, expected);
        let lines: Vec<_> = out
            .events
            .iter()
            .map(|event| {
                let body: Value = serde_json::from_slice(&out.bytes[event.body.clone()]).expect("JSON");
                body["lines"].as_array().expect("lines").len()
            })
            .collect();
        assert_eq!(lines, [3, 0, 1, 3]);
    }
}

#[test]
fn a_root_with_more_parts_than_may_be_held_is_parked_or_stops_the_source() {
    let yaml = "[
        {update: public.orders, before: {id: 1, n: 0}, after: {id: 1, n: 1}},
        {update: public.orders, before: {id: 2, n: 0}, after: {id: 2, n: 1}}]";
    for on_large in [OnLarge::Park, OnLarge::Spill, OnLarge::Stop] {
        let mut rules = Rules::new(settings(vec![looked_up(on_large)]));
        let (mut batch, mut out) = (transaction(yaml), Derived::default());
        rules.derive(&mut batch, &mut out).expect("wants to know");
        let wanted = rules.take_wanted().expect("two orders");
        let first = rules.found_too_many(wanted).expect("one");
        assert_eq!(first.keys.len(), 1);
        assert!(rules.found_too_many(first).is_none(), "less than one is nothing");
        out.from = out.goes_on.take().expect("there is more");
        let told = rules.derive(&mut batch, &mut out);
        if on_large == OnLarge::Stop {
            assert_eq!(told.expect_err("stops").code(), "FV-3114");
            continue;
        }
        told.expect("parks");
        out.from = out.goes_on.take().expect("the other");
        answer(&mut rules, 100);
        rules.derive(&mut batch, &mut out).expect("told");
        let types: Vec<_> = out.events.iter().map(|event| (&*event.event_type, event.number)).collect();
        assert_eq!(types, [("order_changed_missing.v1", 0), ("order_changed.v1", 1)]);
    }
}

#[test]
fn expressions_read_parts_that_were_looked_up_but_not_whether_and_where_there_is_an_event() {
    let pieces = vec![("pieces".to_owned(), "size(lines)".to_owned())];
    let yaml = "[{update: public.orders, before: {id: 1, n: 0}, after: {id: 1, n: 1}}]";
    let rule = RuleDraft { data: Data::Members(pieces), ..looked_up(OnLarge::Park) };
    let (told, _) = bodies(vec![rule], yaml, 100);
    assert_eq!(told, [json!({"pieces": 3, "lines_looked_up_at": "1970-01-01T00:00:01.000000Z"})]);

    let mistakes =
        |draft: RuleDraft| Rule::new(&draft).expect_err("refused").into_iter().map(|m| m.key).collect::<Vec<_>>();
    let reads = || "size(lines) > 0".to_owned();
    assert_eq!(mistakes(RuleDraft { when: Some(reads()), ..looked_up(OnLarge::Park) }), ["when"]);
    assert_eq!(mistakes(RuleDraft { key: Key::Expression(reads()), ..looked_up(OnLarge::Park) }), ["key"]);
    let mark = vec![("lines_looked_up_at".to_owned(), "after.id".to_owned())];
    assert_eq!(mistakes(RuleDraft { data: Data::Members(mark), ..looked_up(OnLarge::Park) }), ["data"]);
}

#[test]
fn a_fixture_says_what_is_there() {
    let test = |there: &str| {
        let text = format!(
            "{{name: t, {there} tables: {{public.order_lines: {{types: {{price: numeric}}}}}},
              transaction: [{{update: public.orders, before: {{id: 1, n: 0}}, after: {{id: 1, n: 1}}}}]}}"
        );
        let fixture: Fixture = serde_saphyr::from_str(&text).expect("a fixture");
        let told = fixture.events(&settings(vec![looked_up(OnLarge::Park)])).expect("events");
        told.into_iter().map(|event| event.data.expect("a body")).collect::<Vec<_>>()
    };
    let there = "there: {public.order_lines: [{id: 5, order_id: 1, sku: a, price: '1.50'}, {id: 6, order_id: 2, sku: b, price: '1'}]},";
    let lines = json!([{"sku": "a", "price": "1.50"}]);
    let expected = json!({"id": 1, "n": 1, "lines": lines, "lines_looked_up_at": "1970-01-01T00:00:00.000000Z"});
    assert_eq!(test(there), [expected]);
    assert_eq!(test(""), [json!({"id": 1, "n": 1, "lines": []})]);
}

/// Beyond what one look-up asks for, a key that is known was not looked up behind its transaction.
#[test]
fn what_was_looked_up_does_for_transactions_that_it_shows_alone() {
    let change =
        |id: usize| format!("{{update: public.orders, before: {{id: {id}, n: 0}}, after: {{id: {id}, n: 1}}}}");
    let mut batch = transaction(&format!("[{}]", (0..100).chain([0]).map(change).collect::<Vec<_>>().join(", ")));
    each_alone(&mut batch);
    let (mut rules, mut out, mut asked) =
        (Rules::new(settings(vec![looked_up(OnLarge::Park)])), Derived::default(), Vec::new());
    loop {
        rules.derive(&mut batch, &mut out).expect("events");
        let Some(place) = out.goes_on.take() else { break };
        out.from = place;
        asked.push(rules.wanted.as_ref().map(|wanted| (wanted.keys.len(), wanted.behind.len())));
        answer(&mut rules, 100);
    }
    assert_eq!(asked, [Some((100, 100)), Some((1, 101))]);
    assert_eq!(out.events.len(), 101);
}

/// Roots that lie in a file are not brought into memory all at once.
#[test]
fn of_large_roots_few_are_looked_up_at_once() {
    let note = "x".repeat(1000);
    let change = |id: usize| {
        format!("{{update: public.orders, before: {{id: {id}, n: 0}}, after: {{id: {id}, n: 1, note: {note}}}}}")
    };
    let mut batch = transaction(&format!("[{}]", (0..10).map(change).collect::<Vec<_>>().join(", ")));
    let mut draft = looked_up(OnLarge::Spill);
    draft.aggregate.iter_mut().for_each(|aggregate| aggregate.max_bytes = 3000);
    let (mut rules, mut out, mut asked) = (Rules::new(settings(vec![draft])), Derived::default(), Vec::new());
    loop {
        rules.derive(&mut batch, &mut out).expect("events");
        let Some(place) = out.goes_on.take() else { break };
        out.from = place;
        asked.push(answer(&mut rules, 100).len());
    }
    assert_eq!(asked, [3, 3, 3, 1]);
    assert_eq!(out.events.len(), 10);
}

/// The database takes for one key what is written otherwise: who asks for one key alone knows whose the rows are.
#[test]
fn rows_whose_key_is_written_otherwise_are_looked_up_again_one_root_at_a_time() {
    let change =
        |id: usize| format!("{{update: public.orders, before: {{id: {id}, n: 0}}, after: {{id: {id}, n: 1}}}}");
    let mut batch = transaction(&format!("[{}]", (1..=3).map(change).collect::<Vec<_>>().join(", ")));
    let (mut rules, mut out) = (Rules::new(settings(vec![looked_up(OnLarge::Park)])), Derived::default());
    let mut asked = Vec::new();
    loop {
        rules.derive(&mut batch, &mut out).expect("events");
        let Some(place) = out.goes_on.take() else { break };
        out.from = place;
        let mut wanted = rules.take_wanted().expect("wants to know");
        loop {
            let keys: Vec<_> = wanted.keys.iter().map(|key| key.json.to_string()).collect();
            let line = |id: &String| {
                format!(
                    "{{insert: public.order_lines, after: {{id: {id}0, order_id: '{id}', sku: s{id}, price: '1'}}}}"
                )
            };
            let yaml = format!("[{}]", keys.iter().map(line).collect::<Vec<_>>().join(", "));
            let found = Found { batch: transaction(&yaml), is_whole: true, read_at: 0 };
            asked.push(keys.len());
            if rules.found(0, &wanted, &found).expect("rows") {
                break;
            }
            wanted = rules.look_up_fewer(wanted).expect("fewer");
        }
    }
    let sku = |event: &crate::event::DomainEvent| {
        let body: Value = serde_json::from_slice(&out.bytes[event.body.clone()]).expect("JSON");
        body["lines"][0]["sku"].as_str().map(str::to_owned)
    };
    let told: Vec<_> = out.events.iter().filter_map(sku).collect();
    assert_eq!(told, ["s1", "s2", "s3"]);
    assert_eq!(asked.first(), Some(&3));
    assert_eq!(asked.iter().filter(|keys| **keys == 1).count(), 3);
}

/// What one rule knows of a batch stays while another looks up for itself.
#[test]
fn two_rules_over_one_root_look_up_once_each() {
    let change =
        |id: usize| format!("{{update: public.orders, before: {{id: {id}, n: 0}}, after: {{id: {id}, n: 1}}}}");
    let mut batch = transaction(&format!("[{}]", [1, 2, 1, 3].map(change).join(", ")));
    each_alone(&mut batch);
    let other = RuleDraft { event_type: "order_other".into(), ..looked_up(OnLarge::Park) };
    let mut rules = Rules::new(settings(vec![looked_up(OnLarge::Park), other]));
    let (mut out, mut asked) = (Derived::default(), Vec::new());
    loop {
        rules.derive(&mut batch, &mut out).expect("events");
        let Some(place) = out.goes_on.take() else { break };
        out.from = place;
        asked.push(answer(&mut rules, 100));
    }
    assert_eq!(asked, [["1", "2", "3"], ["1", "2", "3"]]);
    assert_eq!(out.events.len(), 8);
}
