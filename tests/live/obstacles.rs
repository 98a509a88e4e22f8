//! What comes into the way of a backfill: tables that change under it, rows that cannot be told, rights that are taken.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use figvine_sandbox::{Postgres, wait_for};

use super::backfill::{ask, reads, start, wait_ready, wait_state};
use super::harness::{Bridge, DATABASE, Event, LONG, SOON, World};

/// Rows of the tables; what is read ahead is a small part of them.
const ROWS: i64 = 20_000;

fn id(event: &Event) -> i64 {
    event.body["key"]["id"].as_i64().expect("an id")
}

/// A bridge over `orders` with its backfill just begun, so slow that what is done next comes into its middle.
async fn begun(world: &World) -> (Bridge, String) {
    world
        .run_sql(&format!(
            "create table orders(id int primary key, note text); insert into orders select n, 'old' from generate_series(1, {ROWS}) n"
        ))
        .await;
    let bridge = world.bridge();
    wait_ready(world).await;
    let id = start(world, &["--tables", "public.orders", "--rate", "500"]).await;
    wait_rows(world, &id).await;
    (bridge, id)
}

/// Waits until some rows were read.
async fn wait_rows(world: &World, id: &str) {
    let some = wait_for("some rows", SOON, async || {
        let shown = ask(world, &["show", id]).await["backfills"][0].clone();
        (shown["rows"].as_u64() > Some(0)).then_some(())
    });
    some.await.unwrap_or_else(|e| panic!("{e}\n{}", world.log()));
}

/// Lets it go as fast as it can, to its end.
async fn finish(world: &World, id: &str) {
    ask(world, &["set", id, "--rate", "0"]).await;
    wait_state(world, Some(id), "done").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_emptied_in_mid_backfill_has_no_old_row_behind_its_truncate() {
    let world = World::start().await;
    let (bridge, job) = begun(&world).await;
    world.run_sql("truncate orders; insert into orders select n, 'new' from generate_series(15001, 15100) n").await;
    finish(&world, &job).await;
    bridge.stop().await;
    world.drain().await;
    let events = world.events().await;
    let emptied = events.iter().position(|event| event.op() == "truncate").expect("a truncate");
    let (before, behind) = events.split_at(emptied);
    assert!(!before.is_empty() && before.len() < usize::try_from(ROWS).expect("some"), "{}", before.len());
    let mut rebuilt = BTreeMap::new();
    for event in &behind[1..] {
        rebuilt.insert(id(event), event.body["after"]["note"].clone());
    }
    assert_eq!(rebuilt, (15_001..=15_100).map(|id| (id, "new".into())).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_altered_in_mid_backfill_is_told_in_its_old_shape_before_and_in_its_new_one_behind() {
    let world = World::start().await;
    let (bridge, job) = begun(&world).await;
    // A change too: the log tells a shape with the first of them.
    world
        .run_sql("alter table orders add column c text default 'c'; update orders set note = 'changed' where id = 1")
        .await;
    finish(&world, &job).await;
    bridge.stop().await;
    let events = world.events().await;
    let changed = events.iter().position(|event| event.op() == "update").expect("a change");
    let (before, behind) = events.split_at(changed);
    let has_c = |event: &&Event| event.body["after"].get("c").is_some();
    assert_eq!(before.iter().filter(has_c).count(), 0);
    assert!(behind.iter().filter(|event| event.op() == "read").all(|event| has_c(&event)));
    let mut keys: Vec<_> = reads(&events).iter().map(|event| id(event)).collect();
    let is_in_order = keys.is_sorted();
    keys.dedup();
    assert!(is_in_order && keys == (1..=ROWS).collect::<Vec<_>>(), "{} keys", keys.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_told_holds_its_table_up_and_is_gone_on_with_once_it_can() {
    let world = World::start().await;
    // Larger than a message may be.
    world
        .run_sql(
            "create table orders(id int primary key, note text);
             insert into orders select n, 'small' from generate_series(1, 3000) n;
             update orders set note = repeat('large', 400000) where id = 2000",
        )
        .await;
    let bridge = world.bridge();
    wait_ready(&world).await;
    let job = start(&world, &["--tables", "public.orders"]).await;
    let shown = wait_state(&world, Some(&job), "failed").await;
    let reason = shown["tables"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("the limit is") && !reason.contains("largelarge"), "{shown}");
    // What went before it is stored a little later.
    let before = wait_for("the rows before it", SOON, async || {
        let shown = ask(&world, &["show", &job]).await["backfills"][0].clone();
        (shown["rows"] == 1999).then_some(())
    });
    before.await.unwrap_or_else(|e| panic!("{e}\n{}", world.log()));
    world.run_sql("delete from orders where id = 2000").await;
    ask(&world, &["resume", &job]).await;
    wait_state(&world, Some(&job), "done").await;
    bridge.stop().await;
    let keys: Vec<_> = reads(&world.events().await).iter().map(|event| id(event)).collect();
    assert_eq!(keys, (1..=3000).filter(|id| *id != 2000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_in_mid_backfill_is_named_and_the_rest_comes_once_it_is_given_back() {
    let world = World::start().await;
    world
        .run_sql(&format!(
            "create role bridge login replication; grant create on database {DATABASE} to bridge;
             create table orders(id int primary key); insert into orders select generate_series(1, {ROWS});
             alter table orders owner to bridge"
        ))
        .await;
    let url = world.postgres.url(DATABASE).replace("postgres@", "bridge@");
    assert!(url.contains("bridge@"), "{url}");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\" }}\n    tables: [public.orders]\n",
        world.nats.url(),
    ));
    let bridge = world.bridge();
    wait_ready(&world).await;
    let job = start(&world, &["--tables", "public.orders", "--rate", "500"]).await;
    wait_rows(&world, &job).await;
    world.run_sql("revoke select on orders from bridge").await;
    ask(&world, &["set", &job, "--rate", "0"]).await;
    let shown = wait_state(&world, Some(&job), "failed").await;
    let reason = shown["tables"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("permission denied for table orders"), "{shown}");
    // The log goes on meanwhile.
    world.run_sql("insert into orders values (0)").await;
    world.run_sql("grant select on orders to bridge").await;
    ask(&world, &["resume", &job]).await;
    wait_state(&world, Some(&job), "done").await;
    bridge.stop().await;
    let events = world.events().await;
    let keys: Vec<_> = reads(&events).iter().map(|event| id(event)).collect();
    assert_eq!(keys, (1..=ROWS).collect::<Vec<_>>());
    assert!(events.iter().any(|event| event.op() == "insert" && id(event) == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_waits_for_a_replica_that_is_behind_and_says_so() {
    let world = World::start().await;
    let standby = Postgres::standby_of(&world.postgres, &[]).await.expect("a standby");
    world.configure("    backfill: { max_replica_lag: 500ms }\n");
    world
        .run_sql(&format!(
            "create table orders(id int primary key); insert into orders select generate_series(1, {ROWS})"
        ))
        .await;
    let bridge = world.bridge();
    wait_ready(&world).await;
    let there = standby.connect(DATABASE).await.expect("connects");
    there.batch_execute("select pg_wal_replay_pause()").await.expect("pauses");
    let job = start(&world, &["--tables", "public.orders", "--rate", "500"]).await;
    let client = world.sql().await;
    let mut next = 0;
    let waits = wait_for("the reason it waits", LONG, async || {
        // What is written is what a replica can be behind of.
        next -= 1;
        client.execute("insert into orders values ($1)", &[&next]).await.expect("inserts");
        let status = world.finish(&["--output", "json", "status"]).await;
        let status: serde_json::Value = serde_json::from_str(&status.stdout).ok()?;
        let backfill = &status["sources"][0]["backfills"][0];
        (backfill["id"] == *job && backfill["waits"].as_str()?.starts_with("a replica is ")).then_some(())
    });
    waits.await.unwrap_or_else(|e| panic!("{e}\n{}", world.log()));
    there.batch_execute("select pg_wal_replay_resume()").await.expect("resumes");
    finish(&world, &job).await;
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept_and_reached() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key); insert into orders select generate_series(1, 6000)").await;
    let bridge = world.bridge();
    wait_ready(&world).await;
    let began = Instant::now();
    let job = start(&world, &["--tables", "public.orders", "--rate", "2000"]).await;
    wait_state(&world, Some(&job), "done").await;
    let took = began.elapsed();
    // The first tenth of a second's rows go at once.
    assert!(took > Duration::from_millis(2800), "{took:?}");
    assert!(took < Duration::from_secs(12), "{took:?}");
    bridge.stop().await;
}
