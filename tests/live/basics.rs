//! The main way.

use super::harness::{SOON, World, wait_messages};
use figvine_sandbox::wait_for;

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_becomes_an_event_in_the_order_of_the_log() {
    Box::pin(operations(World::start().await)).await;
}

/// Each operation, whatever the version of the server.
pub(crate) async fn operations(world: World) {
    world.run_sql("create table orders(id int primary key, status text, total numeric(12,2))").await;
    world.drain().await;
    let client = world.sql().await;
    for transaction in [
        "begin; insert into orders values (1, 'new', 19.90), (2, 'new', 5); update orders set status = 'paid' where id = 1; commit",
        "update orders set id = 3 where id = 2",
        "delete from orders where id = 1",
        "truncate orders",
    ] {
        client.batch_execute(transaction).await.expect(transaction);
    }
    world.drain().await;
    let events = world.events().await;
    let seen: Vec<_> = events.iter().map(|e| (e.op(), e.body["key"]["id"].as_i64())).collect();
    assert_eq!(
        seen,
        [
            ("insert", Some(1)),
            ("insert", Some(2)),
            ("update", Some(1)),
            ("delete", Some(2)),
            ("insert", Some(3)),
            ("delete", Some(1)),
            ("truncate", None),
        ]
    );
    assert_eq!(events[3].body["rekeyed"]["id"], 3);
    assert_eq!(events[2].body["after"]["total"], "19.90");
    let last: Vec<_> = events.iter().map(|e| e.header("Figvine-Tx-Last") == "true").collect();
    assert_eq!(last, [false, false, true, false, true, true, true]);
    assert!(events.is_sorted_by_key(|e| e.header("ce-sequence").to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_source_still_releases_its_log() {
    Box::pin(idle(World::start().await)).await;
}

/// Nothing is captured, and much is written beside it.
pub(crate) async fn idle(world: World) {
    world
        .run_sql("create schema other; create table orders(id int primary key); create table other.noise(t text)")
        .await;
    let bridge = world.bridge();
    wait_for("the slot", SOON, async || world.confirmed().await).await.expect("a slot");
    world.run_sql("insert into orders values (1)").await;
    wait_messages(&world, 1).await;
    let before = world.confirmed().await.expect("a slot");
    world.run_sql("insert into other.noise select repeat('x', 100) from generate_series(1, 10000)").await;
    let noise_end: i64 =
        world.sql().await.query_one("select (pg_current_wal_lsn() - '0/0')::bigint", &[]).await.expect("asks").get(0);
    wait_for("the slot to pass what is not captured", SOON, async || {
        world.confirmed().await.filter(|confirmed| *confirmed >= noise_end)
    })
    .await
    .unwrap_or_else(|e| panic!("{e}: it stayed near {before} of {noise_end}\n{}", bridge.log()));
    assert_eq!(world.events().await.len(), 1);
    bridge.stop().await;
}
