//! Identity and keys, partitions, truncation, transactions, and what gives no event.

use super::harness::{Event, World};
use figvine_sandbox::{NatsOptions, PostgresOptions};
use serde_json::{Value, json};

/// Ops and keys of a table's events.
fn seen<'a>(events: &'a [Event], table: &str) -> Vec<(&'a str, &'a Value)> {
    events.iter().filter(|e| e.table() == table).map(|e| (e.op(), &e.body["key"])).collect()
}

fn of<'a>(events: &'a [Event], table: &str) -> Vec<&'a Event> {
    events.iter().filter(|e| e.table() == table).collect()
}

/// A configuration of one source with more settings of its database.
fn configure(world: &World, postgres: &str, tables: &str) {
    let url = world.postgres.url("postgres");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\"{postgres} }}\n    tables: {tables}\n",
        world.nats.url()
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replica_identity_says_what_the_key_and_the_row_before_are() {
    Box::pin(identities(World::start().await)).await;
}

/// Each replica identity, whatever the version of the server.
pub(crate) async fn identities(world: World) {
    let client = world.sql().await;
    client
        .batch_execute(
            "create table by_default(a int, id int primary key, t text);
             create table by_full(a int, id int primary key, t text); alter table by_full replica identity full;
             create table by_index(a int not null, id int primary key, t text);
             create unique index by_index_a on by_index(a); alter table by_index replica identity using index by_index_a;
             create table covering(a int, id int, t text, primary key (id) include (a));
             create table two(b text, a int, t text, primary key (a, b));",
        )
        .await
        .expect("tables");
    world.drain().await;
    for table in ["by_default", "by_full", "by_index", "covering"] {
        let sql = format!(
            "insert into {table} values (1, 10, 'x'); update {table} set t = 'y'; update {table} set a = 2;
             update {table} set id = 11; delete from {table};"
        );
        client.batch_execute(&sql).await.expect(&sql);
    }
    client
        .batch_execute(
            "insert into two values ('p', 1, 't'); update two set b = 'q'; update two set t = 'u'; delete from two",
        )
        .await
        .expect("two");
    world.drain().await;
    let events = world.events().await;

    let (id, other) = (json!({"id": 10}), json!({"id": 11}));
    for table in ["public.by_default", "public.covering"] {
        let found = seen(&events, table);
        let ops = ["insert", "update", "update", "delete", "insert", "delete"];
        assert_eq!(found.iter().map(|(op, _)| *op).collect::<Vec<_>>(), ops, "{table}");
        assert_eq!(found.iter().map(|(_, key)| *key).collect::<Vec<_>>(), [&id, &id, &id, &id, &other, &other]);
        let found = of(&events, table);
        assert_eq!(found[1].body["before"], Value::Null);
        assert_eq!(found[3].body["before"], id);
        assert_eq!(found[3].body["rekeyed"], other);
        assert_eq!(found[4].body["rekeyed"], id);
        assert_eq!(found[4].body["after"], json!({"a": 2, "id": 11, "t": "y"}));
        assert_eq!(found[5].body["before"], other);
    }
    let full = of(&events, "public.by_full");
    assert_eq!(
        seen(&events, "public.by_full").iter().map(|(_, key)| *key).collect::<Vec<_>>(),
        [&id, &id, &id, &id, &other, &other]
    );
    assert_eq!(full[1].body["before"], json!({"a": 1, "id": 10, "t": "x"}));
    assert_eq!(full[1].body["after"], json!({"a": 1, "id": 10, "t": "y"}));
    assert_eq!(full[3].body["before"], json!({"a": 2, "id": 10, "t": "y"}));
    assert_eq!(full[5].body["before"], json!({"a": 2, "id": 11, "t": "y"}));
    let (one, two) = (json!({"a": 1}), json!({"a": 2}));
    assert_eq!(
        seen(&events, "public.by_index"),
        [("insert", &one), ("update", &one), ("delete", &one), ("insert", &two), ("update", &two), ("delete", &two)]
    );
    let pair = seen(&events, "public.two");
    assert_eq!(pair.iter().map(|(op, _)| *op).collect::<Vec<_>>(), ["insert", "delete", "insert", "update", "delete"]);
    assert_eq!(pair[2].1, &json!({"b": "q", "a": 1}));
    // The key's order is the row's.
    assert_eq!(of(&events, "public.two")[2].header("ce-subject"), "[%22q%22,1]");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_is_refused_until_its_whole_row_may_be_the_key() {
    let world = World::start().await;
    let client = world.sql().await;
    client.batch_execute("create table loose(a int, b text)").await.expect("a table");
    let refused = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    for words in ["public.loose", "REPLICA IDENTITY FULL"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    client.batch_execute("alter table loose replica identity full").await.expect("an identity");
    let refused = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    for words in ["public.loose", "keyless: whole_row"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    assert_eq!(world.confirmed().await, None, "a refusal leaves no slot behind");

    configure(&world, ", keyless: whole_row", "[\"public.*\"]");
    client
        .batch_execute(
            "create table deferred(id int primary key deferrable, b text); alter table deferred replica identity full;",
        )
        .await
        .expect("a table");
    world.drain().await;
    client
        .batch_execute(
            "insert into loose values (1, 'x'), (1, 'x'), (null, null);
             update loose set b = 'y' where a = 1; delete from loose where a is null;
             insert into deferred values (1, 'a'), (2, 'b'); update deferred set id = 3 - id;",
        )
        .await
        .expect("rows");
    world.drain().await;
    let events = world.events().await;
    let (x, y, none) = (json!({"a": 1, "b": "x"}), json!({"a": 1, "b": "y"}), json!({"a": null, "b": null}));
    assert_eq!(
        seen(&events, "public.loose"),
        [
            ("insert", &x),
            ("insert", &x),
            ("insert", &none),
            ("delete", &x),
            ("insert", &y),
            ("delete", &x),
            ("insert", &y),
            ("delete", &none)
        ]
    );
    // Keyed by `id` alone, the second row would be overwritten and then deleted.
    let swapped: Vec<_> =
        seen(&events, "public.deferred").iter().map(|(op, key)| (*op, key["id"].as_i64(), key["b"].as_str())).collect();
    assert_eq!(
        swapped,
        [
            ("insert", Some(1), Some("a")),
            ("insert", Some(2), Some("b")),
            ("delete", Some(1), Some("a")),
            ("insert", Some(2), Some("a")),
            ("delete", Some(2), Some("b")),
            ("insert", Some(1), Some("b"))
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deferrable_primary_key_alone_tells_no_rows_apart() {
    let world = World::start().await;
    world.run_sql("create table deferred(id int primary key deferrable, b text)").await;
    let check = world.finish(&["check"]).await;
    assert_eq!(check.code, Some(4), "{}{}", check.stdout, check.stderr);
    let refused = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("public.deferred"), "{}", refused.stderr);
    // What was refused is the application's own to use still.
    world.run_sql("insert into deferred values (1, 'a'); update deferred set b = 'b'; delete from deferred").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_publication_is_respected_with_its_filters_columns_and_operations() {
    let world = World::start().await;
    let client = world.sql().await;
    client
        .batch_execute(
            "create table filtered(id int primary key, a int not null, secret text);
             alter table filtered replica identity full;
             create table narrow(id int primary key, a int, secret text);
             create table appended(id int primary key, t text); alter table appended replica identity nothing;
             create table taken_away(id int primary key);
             create publication inserts for table appended with (publish = 'insert');
             create publication given for table filtered where (a > 10), narrow (id, a), taken_away;",
        )
        .await
        .expect("publications");
    configure(&world, ", publication: given, publication_managed: false", "[\"public.*\", \"!public.taken_*\"]");
    world.drain().await;
    client
        .batch_execute(
            "insert into filtered values (1, 1, 'no'), (2, 20, 'yes');
             update filtered set a = 30 where id = 1; update filtered set a = 40 where id = 1;
             update filtered set a = 5 where id = 1; delete from filtered;
             insert into narrow values (1, 2, 'hush'); update narrow set a = 3; update narrow set secret = 'hush hush';
             insert into taken_away values (1); insert into appended values (0, 'unseen');",
        )
        .await
        .expect("rows");
    world.drain().await;
    let events = world.events().await;
    let filtered: Vec<_> = seen(&events, "public.filtered").iter().map(|(op, key)| (*op, key["id"].as_i64())).collect();
    assert_eq!(
        filtered,
        [("insert", Some(2)), ("insert", Some(1)), ("update", Some(1)), ("delete", Some(1)), ("delete", Some(2))]
    );
    let narrow: Vec<_> = of(&events, "public.narrow").iter().map(|e| e.body["after"].clone()).collect();
    assert_eq!(narrow, [json!({"id": 1, "a": 2}), json!({"id": 1, "a": 3}), json!({"id": 1, "a": 3})]);
    assert_eq!(of(&events, "public.taken_away").len() + of(&events, "public.appended").len(), 0);

    // Without an identity there are only inserts; their key is the primary key.
    let url = world.postgres.url("postgres");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  log:\n    postgres: {{ url: \"{url}\", publication: inserts, publication_managed: false }}\n    tables: [\"public.appended\"]\n",
        world.nats.url()
    ));
    world.drain().await;
    client.batch_execute("insert into appended values (1, 'seen')").await.expect("a row");
    world.drain().await;
    let events = super::harness::events(&world.jetstream().await, "FIGVINE_LOG").await;
    assert_eq!(seen(&events, "public.appended"), [("insert", &json!({"id": 1}))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_managed_publication_is_brought_up_to_the_configured_tables_and_keeps_the_filters_of_those_that_stay() {
    let world = World::start().await;
    let client = world.sql().await;
    let run = async |sql: &str| client.batch_execute(sql).await.expect(sql);
    run("create table stays(id int primary key); alter table stays replica identity full;
         create table goes(id int primary key); create table comes(id int primary key)")
    .await;
    configure(&world, "", "[public.stays, public.goes]");
    world.drain().await;
    run("alter publication figvine_shop set table stays where (id > 10), goes;
         alter publication figvine_shop set (publish = 'insert, delete')")
    .await;
    // Taken out and put in again by hand while nobody reads.
    run("alter publication figvine_shop drop table goes; insert into goes values (1);
         alter publication figvine_shop add table goes; insert into goes values (2)")
    .await;
    world.drain().await;
    configure(&world, "", "[public.stays, public.comes]");
    run("insert into stays values (1), (11)").await;
    world.drain().await;
    run("insert into stays values (2), (12); update stays set id = 13 where id = 12;
         insert into goes values (3); insert into comes values (4)")
    .await;
    world.drain().await;
    let events = world.events().await;
    let of_all: Vec<_> = events.iter().map(|e| (e.table(), e.op(), e.body["key"]["id"].as_i64())).collect();
    let expected = [
        ("public.goes", "insert", 2),
        ("public.stays", "insert", 11),
        ("public.stays", "insert", 12),
        ("public.stays", "delete", 12),
        ("public.stays", "insert", 13),
        ("public.comes", "insert", 4),
    ];
    assert_eq!(of_all, expected.map(|(table, op, id)| (table.to_owned(), op, Some(id))));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_stand_for_themselves_or_for_their_root() {
    Box::pin(partitions(World::start().await)).await;
}

/// Partitions, whatever the version of the server.
pub(crate) async fn partitions(world: World) {
    let client = world.sql().await;
    for name in ["leaves", "roots"] {
        let sql = format!(
            "create schema {name}; set search_path = {name};
             create table p(id int, region text, note text, primary key (id, region)) partition by list (region);
             create table p_eu partition of p for values in ('eu');
             create table p_us(note text, dropped int, region text not null, id int not null);
             alter table p_us drop column dropped; alter table p_us add primary key (id, region);
             alter table p attach partition p_us for values in ('us');
             create table p_rest partition of p default partition by list (region);
             create table p_asia partition of p_rest for values in ('asia');"
        );
        client.batch_execute(&sql).await.expect(&sql);
    }
    let url = world.postgres.url("postgres");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  leaves:\n    postgres: {{ url: \"{url}\" }}\n    tables: [\"leaves.*\"]\n  roots:\n    postgres: {{ url: \"{url}\", publish_via_partition_root: true }}\n    tables: [\"roots.p\"]\n",
        world.nats.url()
    ));
    world.drain().await;
    for name in ["leaves", "roots"] {
        let sql = format!(
            "set search_path = {name}; insert into p values (1, 'eu', 'x'), (2, 'us', 'y'), (3, 'asia', 'z');
             update p set note = 'yy' where id = 2; update p set region = 'us' where id = 1; truncate p_eu; truncate p;"
        );
        client.batch_execute(&sql).await.expect(&sql);
    }
    world.drain().await;
    let context = world.jetstream().await;
    let told = |events: &[Event]| -> Vec<String> {
        events.iter().map(|e| format!("{} {} {}", e.table(), e.op(), e.body["key"])).collect()
    };
    let leaves = super::harness::events(&context, "FIGVINE_LEAVES").await;
    let found = told(&leaves);
    assert_eq!(
        found[..6],
        [
            r#"leaves.p_eu insert {"id":1,"region":"eu"}"#,
            r#"leaves.p_us insert {"region":"us","id":2}"#,
            r#"leaves.p_asia insert {"id":3,"region":"asia"}"#,
            r#"leaves.p_us update {"region":"us","id":2}"#,
            r#"leaves.p_eu delete {"id":1,"region":"eu"}"#,
            r#"leaves.p_us insert {"region":"us","id":1}"#
        ]
    );
    assert_eq!(found[6], "leaves.p_eu truncate null");
    let mut rest = found[7..].to_vec();
    rest.sort();
    assert_eq!(rest, ["leaves.p_asia truncate null", "leaves.p_eu truncate null", "leaves.p_us truncate null"]);
    assert_eq!(leaves[1].body["after"], json!({"note": "y", "region": "us", "id": 2}));

    let roots = super::harness::events(&context, "FIGVINE_ROOTS").await;
    assert_eq!(
        told(&roots),
        [
            r#"roots.p insert {"id":1,"region":"eu"}"#,
            r#"roots.p insert {"id":2,"region":"us"}"#,
            r#"roots.p insert {"id":3,"region":"asia"}"#,
            r#"roots.p update {"id":2,"region":"us"}"#,
            r#"roots.p delete {"id":1,"region":"eu"}"#,
            r#"roots.p insert {"id":1,"region":"us"}"#,
            "roots.p truncate null"
        ]
    );
    assert_eq!(
        roots[1].text().split(r#""after":"#).nth(1).map(|t| &t[..34]),
        Some(r#"{"id":2,"region":"us","note":"y"},"#)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn truncation_names_each_table_and_a_rolled_back_one_none() {
    let world = World::start().await;
    let client = world.sql().await;
    client
        .batch_execute(
            "create table a(id int primary key); create table b(id int primary key references a);
             create table c(id serial primary key); create schema other; create table other.d(id int primary key);",
        )
        .await
        .expect("tables");
    world.drain().await;
    client
        .batch_execute("insert into a values (1); insert into b values (1); insert into c values (1)")
        .await
        .expect("rows");
    client.batch_execute("begin; truncate a, b; rollback").await.expect("rolled back");
    client
        .batch_execute("begin; savepoint s; truncate c; rollback to s; insert into c values (2); commit")
        .await
        .expect("rolled back");
    client
        .batch_execute(
            "begin; insert into c values (3); truncate other.d, c restart identity; insert into c values (4); commit",
        )
        .await
        .expect("one");
    client.batch_execute("truncate a cascade").await.expect("cascade");
    world.drain().await;
    let events = world.events().await;
    let told: Vec<_> = events.iter().map(|e| format!("{} {}", e.table(), e.op())).collect();
    assert_eq!(
        told[..7],
        [
            "public.a insert",
            "public.b insert",
            "public.c insert",
            "public.c insert",
            "public.c insert",
            "public.c truncate",
            "public.c insert"
        ]
    );
    let mut cascade = told[7..].to_vec();
    cascade.sort();
    assert_eq!(cascade, ["public.a truncate", "public.b truncate"]);
    let truncated: Vec<&Event> = events.iter().filter(|e| e.op() == "truncate").collect();
    assert!(truncated.iter().all(|e| e.subject.ends_with(".all") && e.body["key"].is_null()));
    let ids: std::collections::BTreeSet<_> = events.iter().map(|e| e.header("ce-id")).collect();
    assert_eq!(ids.len(), events.len(), "identities are unique");
    let last: Vec<_> = events[7..].iter().map(|e| e.header("Figvine-Tx-Last")).collect();
    assert_eq!(last, ["", "true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rewrites_of_tables_and_rolled_back_work_give_no_events_and_prepared_work_counts_when_it_is_committed() {
    let options = PostgresOptions {
        settings: vec![("max_prepared_transactions".into(), "10".into())],
        ..PostgresOptions::default()
    };
    let world = World::with(options, NatsOptions::default()).await;
    let client = world.sql().await;
    client
        .batch_execute(
            "create table t(id int primary key, v text, twice int generated always as (id * 2) stored);
             create table log_only(id int primary key); create unlogged table not_logged(id int primary key);
             create materialized view m as select id from t; create view w as select id from t;",
        )
        .await
        .expect("tables");
    let url = world.postgres.url("postgres");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\" }}\n    tables: [\"public.*\", \"!*.not_logged\"]\n",
        world.nats.url()
    ));
    world.drain().await;
    for sql in [
        "insert into t values (1, 'a'), (2, 'b')",
        "insert into not_logged values (1)",
        "refresh materialized view m",
        "cluster t using t_pkey",
        "vacuum full t",
        "create temporary table x as select * from t",
        "begin; insert into t values (9, 'no'); rollback",
        "begin; insert into t values (3, 'c'); savepoint s; insert into t values (8, 'no'); rollback to s;
         savepoint s2; insert into t values (4, 'd'); release s2; update t set v = 'cc' where id = 3; commit",
        "begin; insert into t values (5, 'e'); prepare transaction 'five'",
        "begin; insert into t values (7, 'no'); prepare transaction 'seven'",
        "rollback prepared 'seven'",
        "insert into t values (6, 'f')",
    ] {
        client.batch_execute(sql).await.expect(sql);
    }
    world.drain().await;
    client.batch_execute("commit prepared 'five'").await.expect("commits");
    client.batch_execute("alter table t alter column v type varchar(10)").await.expect("rewrites");
    client.batch_execute("alter table t alter column v type text using v || v").await.expect("rewrites");
    world.drain().await;
    let events = world.events().await;
    let told: Vec<_> = events.iter().map(|e| (e.op(), e.body["key"]["id"].as_i64().unwrap_or_default())).collect();
    assert_eq!(
        told,
        [("insert", 1), ("insert", 2), ("insert", 3), ("insert", 4), ("update", 3), ("insert", 6), ("insert", 5)]
    );
    assert_eq!(events[0].body["after"], json!({"id": 1, "v": "a"}), "a generated column is not in the log");
    let transactions: Vec<_> = events.iter().map(|e| e.header("Figvine-Tx").to_owned()).collect();
    assert_eq!(transactions[2], transactions[4]);
    assert_ne!(transactions[4], transactions[5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn logical_messages_become_events_where_their_prefix_is_wanted() {
    let world = World::start().await;
    let client = world.sql().await;
    client.batch_execute("create table t(id int primary key)").await.expect("a table");
    configure(&world, ", messages: [\"outbox.*\", \"!outbox.private*\", \"{a,b}c\"]", "[\"public.*\"]");
    world.drain().await;
    client
        .batch_execute(
            "begin; insert into t values (1); select pg_logical_emit_message(true, 'outbox.paid', '{\"id\": 1}');
             select pg_logical_emit_message(true, 'outbox.private.x', 'no'); insert into t values (2); commit;",
        )
        .await
        .expect("one");
    client
        .batch_execute("begin; select pg_logical_emit_message(true, 'outbox.paid', 'no'); rollback")
        .await
        .expect("rolled back");
    client
        .batch_execute("begin; select pg_logical_emit_message(false, 'bc', '\\xff00'::bytea); rollback")
        .await
        .expect("at once");
    client.batch_execute("select pg_logical_emit_message(false, 'elsewhere', 'no')").await.expect("unwanted");
    client.batch_execute("select pg_logical_emit_message(false, 'outbox.', '')").await.expect("empty");
    world.drain().await;
    let events = world.events().await;
    let told: Vec<_> = events.iter().map(|e| (e.op(), e.body["prefix"].as_str().unwrap_or_default())).collect();
    assert_eq!(
        told,
        [("insert", ""), ("message", "outbox.paid"), ("insert", ""), ("message", "bc"), ("message", "outbox.")]
    );
    assert_eq!(events[1].body["content"], "{\"id\": 1}");
    assert_eq!(events[1].header("Figvine-Tx"), events[0].header("Figvine-Tx"));
    assert_eq!(events[3].body["content_base64"], "/wA=");
    assert_eq!(events[4].body["content"], "");
    let ids: std::collections::BTreeSet<_> = events.iter().map(|e| e.header("ce-id")).collect();
    assert_eq!(ids.len(), events.len());
    world.drain().await;
    assert_eq!(world.events().await.len(), 5, "a restart says nothing twice");
}
