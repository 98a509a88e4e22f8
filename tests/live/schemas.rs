//! Schemas of event types: what is kept, what events name, and what a change of a table does.

use std::collections::BTreeMap;

use async_nats::jetstream;
use serde_json::Value;

use super::harness::World;
use super::held::{hold, kept};

async fn all(world: &World) -> BTreeMap<String, Value> {
    kept(&jetstream::new(async_nats::connect(world.nats.url()).await.expect("connects to NATS"))).await
}

/// The schemas that the events of a table named, each once, in their order.
async fn named(world: &World, table: &str) -> Vec<String> {
    let mut named = Vec::new();
    for event in world.events().await.iter().filter(|event| event.table() == table && event.op() != "schema_change") {
        let uri = event.header("ce-dataschema").to_owned();
        if named.last() != Some(&uri) {
            named.push(uri);
        }
    }
    named
}

/// Every kind of value, so that every kind of schema is held against what is really published.
const KINDS: &str = "
    create type pair as (a int, b text);
    create extension if not exists hstore;
    create table kinds(
        id bigint primary key, small smallint, yes boolean, amount numeric(12,2), price money, ratio float8, word text,
        code char(4), raw bytea, doc jsonb, day date, hour time, at_zone timetz, stamp timestamp, moment timestamptz, span interval,
        ref uuid, bits bit(3), list int[], words text[], twice int[][], twin pair, pairs pair[], attrs hstore, addr inet, part int4range)";
const CHANGES: &str = "
    insert into kinds values
        (1, 2, true, 19.90, 1234.5, 'NaN', 'é', 'ab', '\\x00ff', '{\"a\": [1, null]}', '2026-11-23', '24:00:00', '09:00:00+02',
         '2026-11-23 09:00', '2026-11-23 09:00:00.5+00', '1 year 2 days', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '101',
         '{1,null}', '{a,\"b c\"}', '{{1,2},{3,4}}', '(1,x)', array[row(1,'x')::pair, null], 'a=>1, b=>null', '192.0.2.1', '[1,5)'),
        (2, null, null, 'NaN', null, '-Infinity', null, null, null, 'null', 'infinity', null, null, '-infinity', '4713-01-01 00:00:00+00 BC',
         null, null, null, '{}', null, '{}', '(,)', '{}', '', null, 'empty');
    update kinds set word = 'later' where id = 1; update kinds set id = 3 where id = 2; delete from kinds where id = 3;
    truncate kinds;";

async fn every_kind_of_value_in(format: &str) {
    let world = World::start().await;
    world.configure(&format!("    format: {format}\n"));
    world.run_sql(KINDS).await;
    world.run_sql("create table seed(id int primary key)").await;
    world.drain().await;
    world.run_sql(CHANGES).await;
    world
        .run_sql("insert into seed values (1); alter table seed add column note text; insert into seed values (2, 'x')")
        .await;
    world.drain().await;
    let events = world.events().await;
    let held = hold(&events, &all(&world).await);
    // Two versions of one table, one of the other, and the change of the first.
    assert_eq!((held.len(), events.len()), (4, 10), "{held:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_what_the_schema_says_that_it_names() {
    every_kind_of_value_in("cloudevents").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_is_every_event_in_structured_mode() {
    every_kind_of_value_in("cloudevents-structured").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_replay_name_the_same_versions() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key, a int)").await;
    world.drain().await;
    world.run_sql("insert into orders values (1, 1); alter table orders add column b text; insert into orders values (2, 2, 'x')").await;
    world.drain().await;
    let before = all(&world).await;
    world.run_sql("insert into orders values (3, 3, 'x')").await;
    world.drain().await;
    assert_eq!(all(&world).await, before);
    let versions = ["figvine:shop.public.orders/1.0", "figvine:shop.public.orders/1.1"];
    assert_eq!(named(&world, "public.orders").await, versions);
    assert_eq!(before["FIGVINE_SHOP"]["current"]["shop.public.orders"], versions[1]);
    assert_eq!(before["FIGVINE_SHOP"]["schemas"][versions[1]], before["shop.public.orders/1.1"]);
    assert_eq!(before["shop.public.orders/1.1"]["$id"], versions[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_has_a_schema_before_its_first_event() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key); create table quiet(id int primary key, note text)").await;
    world.drain().await;
    let kept = all(&world).await;
    assert!(kept.contains_key("shop.public.orders/1.0") && kept.contains_key("shop.public.quiet/1.0"), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_begins_a_major_version_and_goes_on() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key, a smallint, b text)").await;
    world.drain().await;
    world.run_sql("insert into orders values (1, 1, 'x')").await;
    for (sql, insert) in [
        ("add column c text", "(2, 1, 'x', 'y')"),
        ("alter column a type int", "(3, 1, 'x', 'y')"),
        ("rename column b to bb", "(4, 1, 'x', 'y')"),
        ("drop column a", "(5, 'x', 'y')"),
        ("alter column bb type varchar(9)", "(6, 'x', 'y')"),
    ] {
        world.run_sql(&format!("alter table orders {sql}; insert into orders values {insert}")).await;
    }
    world.drain().await;
    let versions = ["1.0", "1.1", "2.0", "3.0", "4.0"].map(|v| format!("figvine:shop.public.orders/{v}"));
    assert_eq!(named(&world, "public.orders").await, versions);
    hold(&world.events().await, &all(&world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_to_stop_at_drift_stops_at_the_change_and_goes_on_when_it_may() {
    let world = World::start().await;
    world.configure("    schemas: { on_drift: stop }\n");
    world.run_sql("create table orders(id int primary key, a int)").await;
    world.drain().await;
    world
        .run_sql("insert into orders values (1, 1); alter table orders add column b int; insert into orders values (2, 2, 2)")
        .await;
    world.run_sql("alter table orders drop column a; insert into orders values (3, 3)").await;
    let finished = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    for word in ["FV-3301", "public.orders", "column a is gone", "on_drift: degrade"] {
        assert!(finished.stderr.contains(word), "{word}: {}", finished.stderr);
    }
    // What lies before the change is stored.
    assert_eq!(named(&world, "public.orders").await.last().map(String::as_str), Some("figvine:shop.public.orders/1.1"));
    world.configure("    schemas: { on_drift: degrade }\n");
    world.drain().await;
    let events = world.events().await;
    let keys: Vec<_> = events.iter().filter(|e| e.op() == "insert").map(|e| e.body["key"]["id"].clone()).collect();
    assert_eq!(keys, [1, 2, 3]);
    assert_eq!(events.last().expect("events").header("ce-dataschema"), "figvine:shop.public.orders/2.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn existing_rows_and_hidden_columns_are_what_their_schemas_say() {
    let world = World::start().await;
    world.run_sql("create table people(id int primary key, born date, salary int, secret text)").await;
    world.run_sql("insert into people select n, '2000-01-01', n, 'x' from generate_series(1, 100) n").await;
    world.configure(
        "    initial: backfill\n    private:\n      columns:\n        - { match: \"*.*.salary\", mask: {} }\n        - { match: \"*.*.secret\", drop: true }\n",
    );
    world.drain().await;
    let kept = all(&world).await;
    let events = world.events().await;
    assert_eq!(events.iter().filter(|event| event.op() == "read").count(), 100);
    hold(&events, &kept);
    let row = &kept["shop.public.people/1.0"]["$defs"]["row"]["properties"];
    assert_eq!((&row["salary"]["type"][0], row.get("secret")), (&Value::from("string"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_versions_and_what_a_migration_would_break() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key, a int, note text)").await;
    let nothing = world.finish(&["schema", "list"]).await;
    assert_eq!(
        (nothing.code, nothing.stdout.trim()),
        (Some(0), "no event type has a schema yet"),
        "{}",
        nothing.stderr
    );
    world.drain().await;
    let listed = world.finish(&["--output", "json", "schema", "list"]).await;
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let orders = listed["types"].as_array().expect("types").iter().find(|one| one["type"] == "shop.public.orders");
    assert_eq!(orders.expect("the table's")["versions"], serde_json::json!(["1.0"]));
    let shown = world.finish(&["schema", "show", "shop.public.orders@1.0"]).await;
    let shown: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    assert_eq!(shown["$id"], "figvine:shop.public.orders/1.0");

    let known = world.finish(&["schema", "check"]).await;
    assert!(known.code == Some(0) && known.stdout.contains("shop.public.orders: known, version 1.0"), "{known:?}");
    let file = world.home.path().join("migration.sql");
    for (sql, code, words) in [
        ("alter table orders add column more text;", 0, "compatible, version 1.0 to 1.1"),
        ("begin; alter table orders drop column note; commit;", 1, "column note is gone"),
        ("alter table orders frobnicate;", 1, "line 1: not understood"),
    ] {
        std::fs::write(&file, sql).expect("writes");
        let told = world.finish(&["schema", "check", "--sql", file.to_str().expect("a path")]).await;
        assert!(told.code == Some(code) && told.stdout.contains(words), "{sql}: {told:?}");
    }
    world.run_sql("alter table orders drop column note").await;
    let told = world.finish(&["schema", "check"]).await;
    assert!(told.code == Some(1) && told.stdout.contains("column note is gone"), "{told:?}");
    world.run_sql("insert into orders values (1, 1)").await;
    world.drain().await;
    let differs = world.finish(&["schema", "diff", "shop.public.orders@1.0"]).await;
    assert!(
        differs.stdout.contains("from 1.0 to 2.0") && differs.stdout.contains("column note is gone"),
        "{differs:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_asyncapi_document_leads_to_every_type_and_all_its_references_lead_somewhere() {
    let world = World::start().await;
    world.configure(
        "    domain_subject: \"events.{source}.made.{type}\"
    rules: [{ type: seen, from: public.kinds, data: [id] }]\n",
    );
    world.run_sql(KINDS).await;
    world.run_sql("create table \"Order Lines\"(id int primary key)").await;
    world.drain().await;
    let told = world.finish(&["schema", "asyncapi"]).await;
    let document: Value = serde_json::from_str(&told.stdout).expect("JSON");
    if let Some(path) = std::env::var_os("FIGVINE_ASYNCAPI_OUT") {
        std::fs::write(path, &told.stdout).expect("writes");
    }
    assert_eq!(document["asyncapi"], "3.0.0");
    let addresses: Vec<_> =
        document["channels"].as_object().expect("channels").values().map(|c| &c["address"]).collect();
    for address in [
        "cdc.shop.public.kinds.{partition}",
        "cdc.shop.public.Order=20Lines.{partition}",
        "cdc.shop.schema_changes",
        "cdc.shop.messages.{prefix}",
        "cdc.shop.{schema}.{table}.{partition}",
        "events.shop.made.seen",
        "events.shop.made.{type}",
    ] {
        assert!(addresses.iter().any(|a| **a == *address), "{address} {addresses:?}");
    }
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(references.len() > 10);
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("a reference inside");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

fn collect(value: &Value, references: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect(member, references));
        }
        Value::Array(elements) => elements.iter().for_each(|element| collect(element, references)),
        _ => {}
    }
}
