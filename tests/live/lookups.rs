//! Parts that a transaction did not touch: looked up in the database.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::harness::{DATABASE, Event, World};

/// The rule, with more for the aggregate.
fn rule(more: &str) -> String {
    format!(
        "    rules: [{{ type: order_changed, from: public.orders, on: [update], aggregate: {{ include: [{{ table: order_lines, on: order_id, as: lines, columns: [id, sku], lookup: true }}]{more} }} }}]\n"
    )
}

/// Orders with lines, all of it told before.
async fn world(more: &str) -> World {
    let world = World::start().await;
    world.configure(&rule(more));
    world
        .run_sql(
            "create table orders(id int primary key, n int not null);
             create table order_lines(id int primary key, order_id bigint not null references orders(id) on update cascade, sku text not null);
             create index on order_lines(order_id);
             insert into orders select g, 0 from generate_series(1, 400) g;
             insert into order_lines select 10 * o + l, o, 'sku ' || l from generate_series(1, 400) o, generate_series(1, 3) l",
        )
        .await;
    world.drain().await;
    world
}

fn wholes(events: &[Event]) -> Vec<&Event> {
    events.iter().filter(|event| event.header("ce-type").starts_with("order_changed")).collect()
}

fn lines(event: &Event) -> Value {
    event.body["lines"].clone()
}

fn three(order: u64) -> Value {
    json!((1..=3).map(|line| json!({"id": 10 * order + line, "sku": format!("sku {line}")})).collect::<Vec<_>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_is_told_with_the_parts_that_its_transaction_did_not_touch() {
    let world = world("").await;
    world
        .run_sql(
            "begin; update orders set n = 1 where id = 1; commit;
             begin; update orders set n = 1 where id in (2, 3);
                    delete from order_lines where id = 21; update order_lines set sku = 'other' where id = 33;
                    insert into order_lines values (39, 3, 'new'); update order_lines set order_id = 2 where id = 31; commit;
             begin; update orders set id = 1004 where id = 4; commit;
             begin; update orders set n = 1 where id between 100 and 399; commit",
        )
        .await;
    // What comes later shows where the transaction itself said nothing.
    world.run_sql("update order_lines set sku = 'later' where id in (22, 33)").await;
    world.drain().await;
    let events = world.events().await;
    let told: BTreeMap<_, _> =
        wholes(&events).into_iter().map(|event| (event.body["id"].as_u64().expect("an id"), event)).collect();
    assert_eq!(told.len(), 4 + 300);
    assert_eq!(lines(told[&1]), three(1));
    let line = |id: u64, sku: &str| json!({"id": id, "sku": sku});
    assert_eq!(lines(told[&2]), json!([line(31, "sku 1"), line(22, "later"), line(23, "sku 3")]));
    assert_eq!(lines(told[&3]), json!([line(33, "other"), line(39, "new"), line(32, "sku 2")]));
    assert_eq!(lines(told[&1004]), three(4), "under its new key");
    (100..400).for_each(|order| assert_eq!(lines(told[&order]), three(order)));
    for event in told.values() {
        let looked_up_at = event.body["lines_looked_up_at"].as_str().expect("a time");
        assert!(looked_up_at >= event.header("ce-time"), "{looked_up_at}");
    }
}

/// A key that events write in two ways, `1` and `"1"`, is one to the database.
#[tokio::test(flavor = "multi_thread")]
async fn parts_whose_key_is_of_another_type_are_found_too() {
    let world = world("").await;
    world
        .run_sql("alter table order_lines drop constraint order_lines_order_id_fkey, alter order_id type numeric(9, 1)")
        .await;
    world.run_sql("update orders set n = 1 where id between 20 and 24; update orders set n = 2 where id = 22").await;
    world.drain().await;
    let events = world.events().await;
    let told: Vec<_> = wholes(&events).into_iter().map(|event| (event.body["id"].clone(), lines(event))).collect();
    assert_eq!(told, [20, 21, 22, 23, 24].map(|order: u64| (json!(order), three(order))));
}

/// Lookups stay within `max_bytes`, of all orders together and of each alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_with_more_lines_than_may_be_held_is_missing_and_others_are_told() {
    let world = world(", max_bytes: 4KiB").await;
    world
        .run_sql("insert into order_lines select 100000 + g, 7, repeat('x', 100) from generate_series(1, 100) g")
        .await;
    world.run_sql("update orders set n = 1 where id between 5 and 9").await;
    world.drain().await;
    let events = world.events().await;
    let told: Vec<_> = wholes(&events).iter().map(|event| event.header("ce-type").to_owned()).collect();
    let (whole, missing) = ("order_changed.v1", "order_changed_missing.v1");
    assert_eq!(told, [whole, whole, missing, whole, whole]);
    for (event, order) in wholes(&events).into_iter().zip(5..).filter(|(_, order)| *order != 7) {
        assert_eq!(lines(event), three(order));
    }
}

/// Nothing is told without its lines because they may not be read.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_may_not_be_read_stop_the_source_until_they_may() {
    let world = world("").await;
    world
        .run_sql(&format!(
            "create role bridge login replication; grant create on database {DATABASE} to bridge;
             alter table orders owner to bridge; alter table order_lines owner to bridge; alter publication figvine_shop owner to bridge;
             revoke select on order_lines from bridge; update orders set n = 1 where id = 1"
        ))
        .await;
    let config = std::fs::read_to_string(world.config_path()).expect("a configuration");
    world.write_config(&config.replace("postgres@", "bridge@"));
    let finished = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(finished.code, Some(6), "{}", finished.stderr);
    for words in ["FV-1602", "table public.order_lines may not be read by role bridge", "GRANT SELECT ON"] {
        assert!(finished.stderr.contains(words), "{words}: {}", finished.stderr);
    }
    world.run_sql("grant select on order_lines to bridge").await;
    world.drain().await;
    let events = world.events().await;
    assert_eq!(wholes(&events).into_iter().map(lines).collect::<Vec<_>>(), [three(1)]);
}

/// Parts are hidden as in the log; what is hidden cannot be looked up by.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_is_hidden_in_parts_too_and_is_nothing_to_look_up_by() {
    let world = world("").await;
    let with = |column: &str| {
        format!("{}    private: {{ columns: [{{ match: public.order_lines.{column}, mask: {{}} }}] }}\n", rule(""))
    };
    world.configure(&with("sku"));
    world.run_sql("update orders set n = 1 where id = 1").await;
    world.drain().await;
    let events = world.events().await;
    let masked = json!((11..=13).map(|id| json!({"id": id, "sku": "***"})).collect::<Vec<_>>());
    assert_eq!(wholes(&events).into_iter().map(lines).collect::<Vec<_>>(), [masked]);

    world.run_sql("update orders set n = 2 where id = 1").await;
    world.configure(&with("order_id"));
    let finished = world.finish(&["check"]).await;
    assert_eq!(finished.code, Some(4), "{}", finished.stdout);
    let words = "column public.order_lines.order_id, which is masked";
    assert!(finished.stdout.contains(words), "{}", finished.stdout);
    let finished = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
    for words in ["FV-3111", "parts cannot be looked up by column order_id, which is masked"] {
        assert!(finished.stderr.contains(words), "{words}: {}", finished.stderr);
    }
}
