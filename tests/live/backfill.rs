//! Existing rows, while the stream goes on.

use std::collections::BTreeMap;

use async_nats::jetstream::stream;
use figvine_sandbox::{NatsOptions, Postgres, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::harness::{DATABASE, Event, LONG, SOON, STREAM, World, each_event, events, wait_growth, wait_messages};
use super::journal::{Pace, Random, Rebuilt, contended, contended_rows, contended_time};

const INITIAL: &str = "    initial: backfill\n    backfill: { chunk_time: 1ms }\n";

/// Asks the bridge, by the command line; JSON.
pub(crate) async fn ask(world: &World, args: &[&str]) -> Value {
    let args: Vec<_> = ["--output", "json", "backfill"].iter().chain(args).copied().collect();
    let finished = world.finish(&args).await;
    assert_eq!(finished.code, Some(0), "{args:?}: {}", finished.stderr);
    serde_json::from_str(&finished.stdout).expect("JSON")
}

/// Begins a backfill; its name.
pub(crate) async fn start(world: &World, args: &[&str]) -> String {
    let args: Vec<_> = ["start"].iter().chain(args).copied().collect();
    ask(world, &args).await["id"].as_str().expect("a name").to_owned()
}

/// Waits until a running bridge hears commands.
pub(crate) async fn wait_ready(world: &World) {
    let ready = wait_for("the bridge to hear commands", SOON, async || {
        let finished = world.finish(&["--output", "json", "backfill", "start", "--dry-run", "--tables", "*.*"]).await;
        (finished.code == Some(0)).then_some(())
    });
    ready.await.unwrap_or_else(|e| panic!("{e}\n{}", world.log()));
}

/// Waits until a backfill, or the only one, is in a state.
pub(crate) async fn wait_state(world: &World, id: Option<&str>, state: &str) -> Value {
    let waited = wait_for("the backfill's state", contended_time(), async || {
        let listed = ask(world, &["list"]).await;
        let all = listed["backfills"].as_array().expect("a list").clone();
        all.into_iter().find(|one| id.is_none_or(|id| one["id"] == id) && one["state"] == state)
    });
    waited.await.unwrap_or_else(|e| panic!("{e}: {state}\n{}", world.log()))
}

pub(crate) fn reads(events: &[Event]) -> Vec<&Event> {
    events.iter().filter(|event| event.op() == "read").collect()
}

/// The text of `"after":{...}` of an event.
fn after(event: &Event) -> &str {
    let text = event.text();
    let from = text.find("\"after\":").expect("a row");
    let to = text.find(",\"source\":").or_else(|| text.find(",\"unchanged\":")).expect("its end");
    &text[from..to]
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_there_come_before_the_first_run_ends_and_look_as_changes_do() {
    let world = World::start().await;
    world.configure(INITIAL);
    world
        .run_sql(
            "create type mood as enum ('sad', 'it''s fine');
             create table orders(id int primary key, total numeric, note text, at timestamptz, tags text[], raw bytea, doc jsonb,
                                 mood mood, span interval, f real);
             insert into orders values
               (1, '1234567890.12345678901234567890', E'tab\\there \\\\ back\\nline', '2026-01-02 03:04:05.678901+02',
                '{a,\"b,c\",null}', '\\x00ff', '{\"b\": 1.10, \"a\": [null]}', 'it''s fine', '1 year 2 days 03:04:05.6', 0.1),
               (2, 'NaN', '', 'infinity', '{}', '', 'null', null, null, 'NaN'),
               (3, null, null, null, null, null, null, null, null, null);
             create table empty(id int primary key)",
        )
        .await;
    world.drain().await;
    let events = world.events().await;
    assert_eq!(reads(&events).len(), 3, "{events:?}");
    assert_eq!(events.len(), 3);
    assert_eq!(events[0].header("ce-type"), "shop.public.orders.read");
    assert_eq!(events[0].body["source"]["snapshot"], true);
    assert_eq!(events[0].body["key"]["id"], 1);
    assert_eq!(events[0].body["before"], Value::Null);
    assert!(events[0].header("Figvine-Tx").is_empty());
    assert!(events[0].subject.starts_with("cdc.shop.public.orders."));
    let ids: std::collections::BTreeSet<_> = events.iter().map(|event| event.header("ce-id")).collect();
    assert_eq!(ids.len(), 3);

    // The same rows through the log.
    world.run_sql("update orders set id = id").await;
    world.drain().await;
    let events = world.events().await;
    assert_eq!(events.len(), 6);
    for (read, update) in events.iter().zip(&events[3..]) {
        assert_eq!(after(read), after(update));
        assert_eq!((&read.subject, read.header("ce-subject")), (&update.subject, update.header("ce-subject")));
    }
    assert!(events.is_sorted_by_key(|e| e.header("ce-sequence").to_owned()));
    let listed = ask(&world, &["list"]).await;
    assert_eq!(listed["backfills"][0]["state"], "done", "{listed}");
    assert_eq!(listed["backfills"][0]["rows"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_the_setting_publishes_changes_alone_until_it_is_told() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key, total int); insert into orders select n, n from generate_series(1, 1000) n").await;
    let bridge = world.bridge();
    wait_ready(&world).await;
    let plan = ask(&world, &["start", "--dry-run", "--tables", "public.orders"]).await;
    assert_eq!(plan["backfills"][0]["tables"][0]["table"], "orders");
    assert_eq!(ask(&world, &["list"]).await["backfills"], Value::Array(vec![]));
    // An idle source: nothing but the backfill itself moves its log.
    let id =
        start(&world, &["--tables", "public.orders", "--where", "total % 2 = 0", "--from", "100", "--to", "200"]).await;
    wait_state(&world, Some(&id), "done").await;
    let events = world.events().await;
    let ids: Vec<_> = events.iter().map(|event| event.body["key"]["id"].as_i64().expect("an id")).collect();
    assert_eq!(ids, (101..=200).filter(|id| id % 2 == 0).collect::<Vec<_>>());
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_is_held_up_changed_gone_on_with_and_given_up() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key); insert into orders select generate_series(1, 5000)").await;
    let bridge = world.bridge();
    wait_ready(&world).await;
    let id = start(&world, &["--tables", "public.*", "--rate", "200"]).await;
    let shown = wait_for("rows", SOON, async || {
        let shown = ask(&world, &["show", &id]).await["backfills"][0].clone();
        (shown["rows"].as_u64() > Some(0)).then_some(shown)
    });
    let shown = shown.await.unwrap_or_else(|e| panic!("{e}\n{}", world.log()));
    assert_eq!(shown["settings"]["rows_per_s"], 200);
    assert!(shown["rows"].as_u64() < Some(5000), "{shown}");
    ask(&world, &["pause", &id]).await;
    let shown = wait_state(&world, Some(&id), "paused").await;
    assert_eq!(shown["waits"], "paused");
    let finished = world.finish(&["backfill", "set", "nobody", "--rate", "1"]).await;
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    assert!(finished.stderr.contains("there is no backfill nobody"), "{}", finished.stderr);
    ask(&world, &["set", &id, "--rate", "0", "--parallel", "3"]).await;
    ask(&world, &["resume", &id]).await;
    let shown = wait_state(&world, Some(&id), "done").await;
    assert_eq!((shown["rows"].as_u64(), &shown["settings"]["rows_per_s"]), (Some(5000), &Value::Null), "{shown}");
    let finished = world.finish(&["backfill", "cancel", &id]).await;
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    let keys: Vec<_> =
        world.events().await.iter().map(|event| event.body["key"]["id"].as_u64().expect("an id")).collect();
    assert_eq!(keys, (1..=5000).collect::<Vec<_>>());

    let id = start(&world, &["--tables", "public.orders", "--rate", "10"]).await;
    ask(&world, &["cancel", &id]).await;
    wait_state(&world, Some(&id), "cancelled").await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_fails_alone_says_why_and_is_gone_on_with() {
    let world = World::start().await;
    world
        .run_sql(
            "create table good(id int primary key); insert into good select generate_series(1, 300);
             create table gone(id int primary key); insert into gone select generate_series(1, 30000)",
        )
        .await;
    let bridge = world.bridge();
    wait_ready(&world).await;
    let id = start(&world, &["--tables", "public.good", "--where", "no_such_column = 1"]).await;
    let shown = wait_state(&world, Some(&id), "failed").await;
    let reason = shown["tables"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("column \"no_such_column\" does not exist"), "{shown}");

    // What is read ahead is a small part of it.
    let id = start(&world, &["--tables", "public.*", "--rate", "1"]).await;
    world.run_sql("drop table gone").await;
    ask(&world, &["set", &id, "--rate", "0"]).await;
    let shown = wait_state(&world, Some(&id), "failed").await;
    let tables = shown["tables"].as_array().expect("tables");
    let state = |name: &str| tables.iter().find(|one| one["table"] == name).map(|one| one["state"].clone());
    assert_eq!((state("good"), state("gone")), (Some("done".into()), Some("failed".into())), "{shown}");

    // Tried again, once there is something to be read.
    world.run_sql("create table gone(id int primary key); insert into gone values (7)").await;
    let done = wait_for("the rest", LONG, async || {
        // It is captured again before long.
        world.finish(&["backfill", "resume", &id]).await;
        let shown = ask(&world, &["show", &id]).await["backfills"][0].clone();
        (shown["state"] == "done").then_some(())
    });
    done.await.unwrap_or_else(|e| panic!("{e}\n{}", world.log()));
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_is_seeded_without_disturbing_the_others() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key); insert into orders select generate_series(1, 700)").await;
    let bridge = world.bridge();
    wait_ready(&world).await;
    world.run_sql("insert into orders values (701)").await;
    wait_messages(&world, 1).await;
    let finished =
        world.finish(&["backfill", "start", "--tables", "public.orders", "--to-subject", "cdc.shop.x"]).await;
    assert_eq!(finished.code, Some(2), "{}", finished.stderr);
    let id = start(&world, &["--tables", "public.orders", "--to-subject", "seeds.nobody"]).await;
    let shown = wait_state(&world, Some(&id), "failed").await;
    assert!(shown["tables"][0]["reason"].as_str().unwrap_or_default().contains("seeds.nobody"), "{shown}");

    let context = world.jetstream().await;
    let config = stream::Config { name: "SEEDS".into(), subjects: vec!["seeds.>".into()], ..stream::Config::default() };
    context.create_stream(config).await.expect("a stream of the consumer's own");
    let id = start(&world, &["--tables", "public.orders", "--to-subject", "seeds.joiner"]).await;
    wait_state(&world, Some(&id), "done").await;
    let seeds = events(&context, "SEEDS").await;
    let ids: Vec<_> = seeds.iter().map(|event| event.body["key"]["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids, (1..=701).collect::<Vec<_>>());
    assert_eq!(seeds[0].header("Figvine-Stream-Sequence"), "1");
    assert_eq!(seeds[0].header("Figvine-Checkpoint"), "");
    assert_eq!(world.events().await.len(), 1, "the source's stream has the change alone");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_while_the_bridge_runs_is_captured_without_a_gap() {
    let world = World::start().await;
    world.configure(INITIAL);
    world.run_sql("create table first(id int primary key); insert into first values (1)").await;
    let mut bridge = world.bridge();
    wait_ready(&world).await;
    world.run_sql("create table second(id int primary key, version int); insert into second select n, 1 from generate_series(1, 500) n").await;
    let client = world.sql().await;
    let mut version = 1;
    let told = wait_for("the table's last row", LONG, async || {
        bridge.must_run();
        version += 1;
        client.execute("update second set version = $1 where id = 500", &[&version]).await.expect("updates");
        let events = world.events().await;
        let of_second = events.iter().filter(|event| event.table() == "public.second");
        let keys: std::collections::BTreeSet<_> =
            of_second.map(|event| event.body["key"]["id"].as_u64().expect("an id")).collect();
        (keys.len() == 500).then_some(())
    });
    told.await.unwrap_or_else(|e| panic!("{e}\n{}", world.log()));
    bridge.stop().await;
    world.drain().await;
    let events = world.events().await;
    let last = events.iter().rfind(|event| event.body["key"]["id"] == 500).expect("an event");
    assert_eq!(last.body["after"]["version"], version);
}

/// Tables that writers change, with each key's version kept beside them, so that it goes on behind a delete.
fn contended_tables(rows: u64) -> String {
    format!(
        "create schema beside;
         create table beside.versions(id int primary key, version bigint not null);
         create table accounts(id int primary key, version bigint not null, note text);
         insert into beside.versions select n, 1 from generate_series(-{rows}, {rows}) n;
         insert into accounts select n, 1, repeat('x', n % 50) from generate_series(1, {rows}) n"
    )
}

async fn write(postgres: String, mut random: Random, enough: CancellationToken) {
    let mut pace = Pace::new();
    'connected: while !enough.is_cancelled() {
        let Ok((client, connection)) = tokio_postgres::connect(&postgres, tokio_postgres::NoTls).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let mut session = JoinSet::new();
        session.spawn(connection);
        while !enough.is_cancelled() {
            pace.next().await;
            let sql = transaction(&mut random);
            if client.batch_execute(&sql).await.is_err() && client.batch_execute("rollback").await.is_err() {
                continue 'connected;
            }
        }
    }
}

/// Some changes: each bumps the versions of the keys that it touches.
fn transaction(random: &mut Random) -> String {
    let rows = contended_rows();
    let mut sql = "begin;".to_owned();
    for _ in 0..1 + random.below(4) {
        // Every other one of few keys: writers meet there, and chunks meet them.
        let id = 1 + if random.below(2) == 0 { random.below(100) * (rows / 100) } else { random.below(rows) };
        // Statements that wait for a row judge by what they saw before: whoever holds a key's versions is alone with it.
        sql += &format!("select from beside.versions where id in ({id}, -{id}) order by id for update;");
        let bumped = |id: &str| format!("update beside.versions set version = version + 1 where id = {id};");
        let version = |id: &str| format!("(select version from beside.versions where id = {id})");
        match random.below(6) {
            0 | 1 => {
                sql += &format!(
                    "with gone as (delete from accounts where id = {id} returning id)
                     update beside.versions set version = version + 1 where id in (select id from gone);"
                );
            }
            2 => {
                // Under another key: a removal and an insertion.
                sql += &format!(
                    "update beside.versions set version = version + 1 where id in ({id}, -{id})
                       and exists (select from accounts where id = {id}) and not exists (select from accounts where id = -{id});
                     update accounts set id = -{id}, version = {} where id = {id}
                       and not exists (select from accounts a where a.id = -{id});",
                    version(&format!("-{id}"))
                );
            }
            3 => {
                let id = id.to_string();
                sql += &format!(
                    "{} insert into accounts values ({id}, {}, 'again') on conflict (id) do update set version = excluded.version;",
                    bumped(&id),
                    version(&id)
                );
            }
            _ => {
                let id = id.to_string();
                sql += &format!(
                    "update beside.versions set version = version + 1 where id = {id} and exists (select from accounts where id = {id});
                     update accounts set version = {}, note = 'changed' where id = {id};",
                    version(&id)
                );
            }
        }
    }
    sql + if random.below(10) == 0 { "rollback" } else { "commit" }
}

async fn held(world: &World) -> BTreeMap<i64, i64> {
    let rows = world.sql().await.query("select id::bigint, version from accounts", &[]).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn writers(postgres: &Postgres, count: u64, random: &mut Random) -> (JoinSet<()>, CancellationToken) {
    let enough = CancellationToken::new();
    let mut writers = JoinSet::new();
    for _ in 0..count {
        writers.spawn(write(postgres.url(DATABASE), Random::new(random.next()), enough.clone()));
    }
    (writers, enough)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_under_writers_and_kills_tells_each_row_once_and_never_of_the_past() {
    let world = World::with(contended(), NatsOptions::default()).await;
    world.configure("    initial: backfill\n    backfill: { chunk_time: 1ms, rate: 4000 }\n");
    world.run_sql(&contended_tables(contended_rows())).await;
    let mut random = Random::seeded();
    let (mut writing, enough) = writers(&world.postgres, 8, &mut random);
    let mut bridge = world.bridge();
    for _ in 0..6 {
        wait_growth(&world, &mut bridge, 500 + random.below(1500)).await;
        match random.below(3) {
            0 => {
                world.nats.kill9();
                world.nats.restart().await.expect("NATS again");
            }
            1 => {
                bridge.signal(Signal::SIGTERM);
                bridge.code(SOON).await;
                bridge = world.bridge();
            }
            _ => {
                bridge.kill9();
                bridge = world.bridge();
            }
        }
    }
    wait_growth(&world, &mut bridge, 100).await;
    wait_ready(&world).await;
    let id = ask(&world, &["list"]).await["backfills"][0]["id"].as_str().expect("a backfill").to_owned();
    ask(&world, &["set", &id, "--rate", "0"]).await;
    wait_state(&world, Some(&id), "done").await;
    enough.cancel();
    while writing.join_next().await.is_some() {}
    bridge.stop().await;
    world.drain().await;
    let mut rebuilt = Rebuilt::default();
    each_event(&world.jetstream().await, STREAM, |event| {
        if event.table() == "public.accounts" {
            rebuilt.add(&event);
        }
    })
    .await;
    assert_eq!(rebuilt.rows(), held(&world).await);
}
