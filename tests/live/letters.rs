//! Dead letters: what cannot be told is parked, and all else goes on.

use figvine_sandbox::{NatsOptions, PostgresOptions};
use serde_json::{Value, json};

use super::harness::{Event, World, wait_growth_of};
use super::held::{hold, kept};
use super::journal::Random;

/// What the server takes.
const MAX_PAYLOAD: usize = 65_536;

async fn world(extra: &str) -> World {
    let nats = NatsOptions { config_extra: format!("max_payload: {MAX_PAYLOAD}\n"), ..NatsOptions::default() };
    let world = World::with(PostgresOptions::default(), nats).await;
    world.configure(&format!("    on_poison: park\n{extra}"));
    world
}

async fn listed(world: &World) -> Vec<Value> {
    let finished = world.finish(&["--output", "json", "dlq", "list"]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let listed: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    listed["dead_letters"].as_array().expect("a list").clone()
}

async fn shown(world: &World, letter: &str) -> Value {
    let finished = world.finish(&["dlq", "show", letter]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    serde_json::from_str(&finished.stdout).expect("JSON")
}

fn missing(events: &[Event]) -> Vec<&Event> {
    events.iter().filter(|event| event.op() == "missing").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_too_large_is_parked_whole_and_those_around_it_are_told() {
    let world = world("").await;
    world.run_sql("create table notes(id int primary key, body text)").await;
    world.drain().await;
    world
        .run_sql("insert into notes values (1, 'a'), (2, (select string_agg(n::text, ',') from generate_series(1, 50000) n)), (3, 'c')")
        .await;
    world.drain().await;
    let events = world.events().await;
    let ops: Vec<&str> = events.iter().map(Event::op).collect();
    assert_eq!(ops, ["insert", "missing", "insert"]);
    assert_eq!(events[1].body["key"], json!({"id": 2}));
    assert_eq!(events[1].header("ce-type"), "shop.public.notes.missing");
    assert_eq!(events[1].header("ce-dataschema"), "figvine:shop.missing/1.0");
    hold(&events, &kept(&world.jetstream().await).await);
    let letters = listed(&world).await;
    assert_eq!(letters.len(), 1);
    let id = events[1].body["missing"]["dead_letter"].as_str().expect("a letter's id");
    assert_eq!((letters[0]["id"].as_str(), letters[0]["reason"].as_str()), (Some(id), Some("too_large")));
    assert_eq!(events[1].header("ce-id"), id);
    // By its id and by its number; it is larger than a message may be.
    let letter = shown(&world, id).await;
    assert_eq!(letter, shown(&world, &letters[0]["letter"].to_string()).await);
    let whole: Vec<String> = (1..=50_000).map(|n| n.to_string()).collect();
    assert!(letter["after"]["body"] == whole.join(","), "the row is there to the last byte");
    assert_eq!((&letter["table"], &letter["op"]), (&json!("public.notes"), &json!("insert")));

    let status = world.finish(&["dlq", "drop", id]).await;
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    assert_eq!(listed(&world).await, Vec::<Value>::new());
    let unknown = world.finish(&["dlq", "show", id]).await;
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.stderr.contains("FV-4060"), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_row_too_large_is_parked_and_its_backfill_goes_on() {
    let world = world("    initial: backfill\n").await;
    world.run_sql("create table notes(id int primary key, body text)").await;
    world.run_sql("insert into notes select n, repeat('x', case when n = 500 then 90000 else 1 end) from generate_series(1, 1000) n").await;
    world.drain().await;
    let events = world.events().await;
    assert_eq!(events.len(), 1000);
    let missing = missing(&events);
    assert_eq!(missing.len(), 1);
    assert_eq!((&missing[0].body["missing"]["op"], &missing[0].body["key"]), (&json!("read"), &json!({"id": 500})));
    let letters = listed(&world).await;
    assert_eq!((letters.len(), letters[0]["id"].as_str()), (1, Some(missing[0].header("ce-id"))));
    assert!(shown(&world, missing[0].header("ce-id")).await["after"]["body"] == "x".repeat(90_000));
}

/// Each tenth order has no total, so that the rule has no answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_rule_cannot_make_is_parked_once_whatever_is_killed() {
    let world = world("    rules: [{ type: dear, from: public.orders, when: after.total > 100, data: [id] }]\n").await;
    world.run_sql("create table orders(id int primary key, total numeric)").await;
    world.drain().await;
    world.run_sql("insert into orders select n, nullif(n % 10, 0) * 40 from generate_series(1, 2000) n").await;
    let mut random = Random::seeded();
    for _ in 0..4 {
        let mut bridge = world.bridge();
        wait_growth_of(&world, &mut bridge, 2000, random.below(900)).await;
        bridge.kill9();
    }
    world.drain().await;
    let events = world.events().await;
    let of = |name: &str| events.iter().filter(|event| event.header("ce-type") == name).collect::<Vec<_>>();
    assert_eq!(of("shop.public.orders.inserted").len(), 2000, "the changes themselves are told");
    assert_eq!(of("dear.v1").len(), 200 * 7);
    let missing = of("dear_missing.v1");
    assert_eq!(missing.len(), 200);
    hold(&events, &kept(&world.jetstream().await).await);
    assert_eq!(missing[0].header("ce-dataschema"), "figvine:shop.missing_event/1.0");
    let letters = listed(&world).await;
    let ids = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        ids(letters.iter().filter_map(|letter| letter["id"].as_str()).collect()),
        ids(missing.iter().map(|event| event.header("ce-id")).collect()),
    );
    let first = shown(&world, missing[0].header("ce-id")).await;
    assert_eq!((&first["rule"], &first["code"]), (&json!("dear"), &json!("FV-3112")));
    assert_eq!(first["after"], json!({"id": 10, "total": null}));
    assert_eq!(missing[0].body["dead_letter"], missing[0].header("ce-id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_of_letters_stops_the_source_and_loses_nothing() {
    let with = |max_messages: u32| {
        format!(
            "    on_poison: park\n    dead_letters: {{ max_messages: {max_messages} }}
    rules: [{{ type: dear, from: public.orders, when: after.total > 100 }}]\n"
        )
    };
    let world = world("").await;
    world.configure(&with(2));
    world.run_sql("create table orders(id int primary key, total int)").await;
    world.drain().await;
    for id in 1..=4 {
        world.run_sql(&format!("insert into orders values ({id}, null)")).await;
    }
    let finished = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(finished.code, Some(7), "{}", finished.stderr);
    for words in ["FV-2216", "FIGVINE_SHOP_DEAD of dead letters is full", "max_messages"] {
        assert!(finished.stderr.contains(words), "{words}: {}", finished.stderr);
    }
    assert_eq!(listed(&world).await.len(), 2);
    world.configure(&with(10));
    world.drain().await;
    let events = world.events().await;
    let made = |name: &str| events.iter().filter(|event| event.header("ce-type") == name).count();
    assert_eq!((made("shop.public.orders.inserted"), made("dear_missing.v1")), (4, 4));
    assert_eq!(listed(&world).await.len(), 4, "those that were kept before are not kept again");
    assert_eq!(world.finish(&["dlq", "drop", "--all"]).await.code, Some(0));
    assert_eq!(listed(&world).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_a_shape_that_breaks_the_schema_are_parked_until_it_may() {
    let world = world("    schemas: { on_drift: park }\n").await;
    world.run_sql("create table orders(id int primary key, note text)").await;
    world.drain().await;
    world
        .run_sql(
            "insert into orders values (1, 'a');
             alter table orders drop column note; insert into orders values (2); truncate orders;
             alter table orders add column note text; insert into orders values (3, 'c')",
        )
        .await;
    world.drain().await;
    let events = world.events().await;
    let told: Vec<(&str, &str)> = events.iter().map(|event| (event.op(), event.header("ce-dataschema"))).collect();
    let (orders, missing, changed) =
        ("figvine:shop.public.orders/1.0", "figvine:shop.missing/1.0", "figvine:shop.schema_changed/1.0");
    assert_eq!(
        told,
        [
            ("insert", orders),
            ("schema_change", changed),
            ("missing", missing),
            ("truncate", ""),
            ("schema_change", changed),
            ("insert", orders)
        ]
    );
    let letters = listed(&world).await;
    assert_eq!(
        (letters.len(), &letters[0]["reason"], &letters[0]["code"]),
        (1, &json!("schema_drift"), &json!("FV-3301"))
    );
    let letter = shown(&world, letters[0]["id"].as_str().expect("an id")).await;
    assert_eq!(letter["after"], json!({"id": 2}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_no_event_is_in_its_letter_whole() {
    let world = world("    outbox: { messages: [\"shop.*\"] }\n").await;
    world.run_sql("create table seed(id int primary key)").await;
    world.drain().await;
    world.run_sql("select pg_logical_emit_message(true, 'shop.mail', '{\"type\": 1}')").await;
    world.drain().await;
    let events = world.events().await;
    assert_eq!(events.iter().map(|event| event.header("ce-type")).collect::<Vec<_>>(), ["outbox_missing.v1"]);
    let letter = shown(&world, events[0].header("ce-id")).await;
    assert_eq!((&letter["reason"], &letter["code"]), (&json!("outbox"), &json!("FV-3113")));
    assert_eq!(letter["message"], json!({"prefix": "shop.mail", "content_base64": "eyJ0eXBlIjogMX0="}));
}
