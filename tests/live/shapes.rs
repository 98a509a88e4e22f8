//! Tables and types that change their shape while they are read.

use super::harness::{Event, World, wait_stored};
use serde_json::{Value, json};

/// The events of a table's rows.
fn of<'a>(events: &'a [Event], table: &str) -> Vec<&'a Event> {
    events.iter().filter(|e| e.table() == table && e.op() != "schema_change").collect()
}

fn afters(events: &[Event], table: &str) -> Vec<Value> {
    of(events, table).iter().map(|e| e.body["after"].clone()).collect()
}

fn changes(events: &[Event]) -> Vec<&Event> {
    events.iter().filter(|e| e.op() == "schema_change").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_go_and_change_between_transactions_and_within_one() {
    Box::pin(columns(World::start().await)).await;
}

/// Changes of shape, whatever the version of the server.
pub(crate) async fn columns(world: World) {
    let client = world.sql().await;
    client.batch_execute("create table t(id int primary key, a text, n numeric(5,2))").await.expect("a table");
    world.drain().await;
    let bridge = world.bridge();
    for sql in [
        "insert into t values (1, 'x', 1.5)",
        "alter table t add column b timestamptz default '2026-11-23 09:00+00'",
        "insert into t values (2, 'y', 2)",
        "begin; insert into t values (3, 'z', 3); alter table t drop column a; insert into t values (4, 4);
         alter table t rename column n to m; insert into t(id, m) values (5, 5);
         alter table t alter column m type int using m::int; insert into t(id, m) values (6, 6);
         alter table t add column c int[]; insert into t values (7, 7, null, '{1}'); commit",
        "begin; alter table t add column gone int; insert into t(id, gone) values (8, 8); rollback",
        "insert into t values (9, 9, null, null)",
        "alter table t rename to u",
        "insert into u values (10, 10, null, null)",
    ] {
        client.batch_execute(sql).await.expect(sql);
    }
    wait_stored(&world, &bridge, 14).await;
    bridge.kill9();
    world.drain().await;
    let events = world.events().await;
    assert!(events.iter().zip(1..).all(|(event, at)| event.sequence == at));
    let at = "2026-11-23T09:00:00Z";
    assert_eq!(
        afters(&events, "public.t"),
        [
            json!({"id": 1, "a": "x", "n": "1.50"}),
            json!({"id": 2, "a": "y", "n": "2.00", "b": at}),
            json!({"id": 3, "a": "z", "n": "3.00", "b": at}),
            json!({"id": 4, "n": "4.00", "b": at}),
            json!({"id": 5, "m": "5.00", "b": at}),
            json!({"id": 6, "m": 6, "b": at}),
            json!({"id": 7, "m": 7, "b": null, "c": [1]}),
            json!({"id": 9, "m": 9, "b": null, "c": null}),
        ]
    );
    assert_eq!(afters(&events, "public.u"), [json!({"id": 10, "m": 10, "b": null, "c": null})]);
    let changes = changes(&events);
    assert!(changes.iter().all(|e| e.subject == "cdc.shop.schema_changes"), "{:?}", changes[0].subject);
    let column = |name: &str, kind: &str| json!({"name": name, "type": kind});
    assert_eq!(changes[0].body["table"], "public.t");
    assert_eq!(
        changes[0].body["old"],
        json!({"columns": [column("id", "integer"), column("a", "text"), column("n", "numeric(5,2)")], "key": ["id"]})
    );
    assert_eq!(
        changes[0].body["new"]["columns"],
        json!([
            column("id", "integer"),
            column("a", "text"),
            column("n", "numeric(5,2)"),
            column("b", "timestamp with time zone")
        ])
    );
    let names: Vec<Vec<&str>> = changes
        .iter()
        .map(|e| {
            e.body["new"]["columns"].as_array().expect("columns").iter().filter_map(|c| c["name"].as_str()).collect()
        })
        .collect();
    assert_eq!(
        names,
        [
            vec!["id", "a", "n", "b"],
            vec!["id", "n", "b"],
            vec!["id", "m", "b"],
            vec!["id", "m", "b"],
            vec!["id", "m", "b", "c"]
        ]
    );
    assert_eq!(changes[3].body["new"]["columns"][1]["type"], "integer");
    // News of a shape stand before the first row of that shape.
    let place = |at: usize| events.iter().position(|e| std::ptr::eq(e, changes[at]));
    let row = |id: i64| events.iter().position(|e| e.body["key"]["id"] == id);
    assert_eq!(place(0).map(|at| at + 1), row(2));
    assert_eq!(place(1).map(|at| at + 1), row(4));
    let ids: std::collections::BTreeSet<_> = events.iter().map(|e| e.header("ce-id")).collect();
    assert_eq!(ids.len(), events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_anew_under_its_old_name_is_read_in_its_new_shape() {
    let world = World::start().await;
    let client = world.sql().await;
    client
        .batch_execute("create table t(id int primary key, a text); create publication all_of_it for all tables;")
        .await
        .expect("a table");
    let url = world.postgres.url("postgres");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\", publication: all_of_it, publication_managed: false }}\n    tables: [\"public.*\"]\n",
        world.nats.url()
    ));
    world.drain().await;
    for sql in [
        "insert into t values (1, 'x')",
        "begin; drop table t; create table t(k uuid primary key, j jsonb);
         insert into t values ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"b\": 1.0}'); commit",
        "create table short_lived(id int primary key, m text[]); insert into short_lived values (1, '{a}'); drop table short_lived",
    ] {
        client.batch_execute(sql).await.expect(sql);
    }
    world.drain().await;
    let events = world.events().await;
    assert_eq!(
        afters(&events, "public.t"),
        [json!({"id": 1, "a": "x"}), json!({"k": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "j": {"b": 1.0}})]
    );
    assert_eq!(afters(&events, "public.short_lived"), [json!({"id": 1, "m": ["a"]})]);
    let changes = changes(&events);
    assert_eq!(changes.len(), 1, "a shape that is new under an old name is told");
    assert_eq!(changes[0].body["old"]["key"], json!(["id"]));
    assert_eq!(changes[0].body["new"]["key"], json!(["k"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn types_grow_and_rename_their_parts_while_the_bridge_runs() {
    let world = World::start().await;
    let client = world.sql().await;
    client
        .batch_execute(
            "create type mood as enum ('sad', 'glad'); create type pair as (a int, b text);
             create domain amount as int check (value > 0);
             create table t(id int primary key, m mood, p pair, ps pair[], d amount);",
        )
        .await
        .expect("a table");
    world.drain().await;
    let bridge = world.bridge();
    for sql in [
        "insert into t values (1, 'sad', '(1,x)', null, 1)",
        "alter type mood add value 'so so' before 'glad'",
        "insert into t values (2, 'so so', '(1,x)', null, 1)",
        "begin; alter type mood rename value 'sad' to 'blue'; insert into t values (3, 'blue', null, null, 1); commit",
        "alter domain amount drop constraint amount_check; insert into t values (4, null, null, null, -4)",
        "alter type pair add attribute c numeric(4,2)",
    ] {
        client.batch_execute(sql).await.expect(sql);
        if sql.starts_with("insert into t values (1") {
            wait_stored(&world, &bridge, 1).await;
        }
    }
    client
        .batch_execute("insert into t values (5, null, '(1,x,2.5)', array['(3,y,4)']::pair[], 1)")
        .await
        .expect("a row");
    wait_stored(&world, &bridge, 5).await;
    client.batch_execute("alter type pair drop attribute a").await.expect("drops");
    client.batch_execute("insert into t values (6, null, '(x,2.5)', null, 1)").await.expect("a row");
    wait_stored(&world, &bridge, 6).await;
    client.batch_execute("alter type pair rename attribute c to \"see me\"").await.expect("renames");
    client.batch_execute("insert into t values (7, null, '(x,2.5)', null, 1)").await.expect("a row");
    wait_stored(&world, &bridge, 7).await;
    bridge.stop().await;
    // Read only after its type has changed: the catalogue no longer tells what its parts were.
    client
        .batch_execute("insert into t values (8, null, '(x,2.5)', null, 1); alter type pair add attribute d int;")
        .await
        .expect("a row");
    world.drain().await;
    let events = world.events().await;
    let after = |id: i64| {
        let event = events.iter().find(|e| e.body["key"]["id"] == id).expect("its event");
        event.body["after"].clone()
    };
    assert_eq!(after(1), json!({"id": 1, "m": "sad", "p": {"a": 1, "b": "x"}, "ps": null, "d": 1}));
    assert_eq!(after(2)["m"], "so so");
    assert_eq!(after(3)["m"], "blue");
    assert_eq!(after(4)["d"], -4);
    assert_eq!(after(5)["p"], json!({"a": 1, "b": "x", "c": "2.50"}));
    assert_eq!(after(5)["ps"], json!([{"a": 3, "b": "y", "c": "4.00"}]));
    assert_eq!(after(6)["p"], json!({"b": "x", "c": "2.50"}));
    assert_eq!(after(7)["p"], json!({"b": "x", "see me": "2.50"}));
    assert_eq!(after(8)["p"], "(x,2.50)");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_1600_columns_and_of_words_that_events_use_themselves_are_read() {
    let world = World::start().await;
    let client = world.sql().await;
    let columns: Vec<String> = (1..1600).map(|at| format!("c{at} int2")).collect();
    client
        .batch_execute(&format!(
            "create table wide(id int primary key, {});
             create table words(before int, after text, op text primary key, key json, source text, unchanged text, rekeyed text);
             alter table words replica identity full;",
            columns.join(", ")
        ))
        .await
        .expect("tables");
    world.drain().await;
    client
        .batch_execute("insert into wide(id, c1, c1599) values (1, 2, 3); update wide set c2 = 4")
        .await
        .expect("wide");
    client
        .batch_execute(
            "insert into words values (1, 'a', 'delete', '{\"key\": 1}', 's', 'u', 'r'); update words set before = 2;
             update words set op = 'insert'",
        )
        .await
        .expect("words");
    world.drain().await;
    let events = world.events().await;
    let wide = of(&events, "public.wide");
    let after = wide[1].body["after"].as_object().expect("a row");
    assert_eq!(after.len(), 1600);
    assert_eq!(
        (&after["c1"], &after["c2"], &after["c3"], &after["c1599"]),
        (&json!(2), &json!(4), &json!(null), &json!(3))
    );
    let words = of(&events, "public.words");
    let row = |before, op| json!({"before": before, "after": "a", "op": op, "key": {"key": 1}, "source": "s", "unchanged": "u", "rekeyed": "r"});
    assert_eq!(words.iter().map(|e| e.op()).collect::<Vec<_>>(), ["insert", "update", "delete", "insert"]);
    assert_eq!(words[1].body["before"], row(1, "delete"));
    assert_eq!(words[1].body["after"], row(2, "delete"));
    assert_eq!(words[2].body["key"], json!({"op": "delete"}));
    assert_eq!(words[3].body["after"], row(2, "insert"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_columns_is_told_of_before_the_start_and_does_not_stop_the_others() {
    let world = World::start().await;
    let client = world.sql().await;
    client
        .batch_execute(
            "create table nothing(); alter table nothing replica identity full; create table t(id int primary key)",
        )
        .await
        .expect("tables");
    let url = world.postgres.url("postgres");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\", keyless: whole_row }}\n    tables: [\"public.*\"]\n",
        world.nats.url()
    ));
    world.drain().await;
    client.batch_execute("insert into nothing default values; insert into t values (1)").await.expect("rows");
    client.batch_execute("delete from nothing; insert into t values (2)").await.expect("rows");
    world.drain().await;
    let events = world.events().await;
    assert_eq!(of(&events, "public.t").len(), 2);
    let nothing: Vec<_> = of(&events, "public.nothing").iter().map(|e| (e.op(), e.body["key"].clone())).collect();
    assert_eq!(nothing, [("insert", json!({})), ("delete", json!({}))]);
}
