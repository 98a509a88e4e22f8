//! Which tables are captured, and how busy the server is.

use figvine_change::{Body, ChunkReader, Connector, ReadOrder};
use figvine_postgres::Postgres;

use super::world::{World, request, rows, until};

async fn listed(connector: &Postgres) -> Vec<String> {
    let tables = connector.tables().await.expect("tables");
    tables.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_is_captured_from_its_listing_on_and_one_that_cannot_be_is_left_out() {
    let world = World::start().await;
    world.run("create table a(id int primary key); create view v as select 1").await;
    let (connector, mut source) = world.open().await;
    assert_eq!(listed(&connector).await, ["public.a"]);
    world.run("create table b(id int primary key); create table unfit(id int); create unlogged table u(id int primary key); create table x(id int)").await;
    world
        .run("alter table x replica identity full; create schema other; create table other.c(id int primary key)")
        .await;
    assert_eq!(listed(&connector).await, ["public.a", "public.b", "public.x"]);
    let orders: Vec<ReadOrder> = connector.tables().await.expect("tables").iter().map(|table| table.order).collect();
    assert_eq!(orders, [ReadOrder::Key, ReadOrder::Key, ReadOrder::Physical]);
    world.run("insert into unfit values (1); update unfit set id = 2; insert into b values (7)").await;
    until(&mut source, |batch| {
        batch
            .changes
            .iter()
            .any(|c| matches!(&c.body, Body::Row(row) if &*batch.tables[row.table as usize].name == "b"))
    })
    .await;
    // What loses its key while it is captured does not leave the publication by itself.
    world.run("alter table b drop constraint b_pkey").await;
    assert_eq!(listed(&connector).await, ["public.a", "public.b", "public.x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_table_is_not_listed_before_those_have_ended_who_wrote_into_it_earlier() {
    let world = World::start().await;
    world.run("create table a(id int primary key)").await;
    let (connector, _source) = world.open().await;
    world.run("create table b(id int primary key)").await;
    let writer = world.server.connect("postgres").await.expect("connects");
    writer.batch_execute("begin; insert into b values (1)").await.expect("runs");
    assert_eq!(listed(&connector).await, ["public.a"]);
    // Another that begins later does not matter, and a restart forgets nothing.
    let later = world.server.connect("postgres").await.expect("connects");
    later.batch_execute("begin; insert into b values (2)").await.expect("runs");
    assert_eq!(listed(&connector).await, ["public.a"]);
    assert_eq!(listed(&world.connector()).await, ["public.a"]);
    writer.batch_execute("commit").await.expect("commits");
    assert_eq!(listed(&connector).await, ["public.a", "public.b"]);
    let mut reader = connector.reader().await.expect("a reader");
    let chunk = reader.read(&request("public", "b", 10)).await.expect("a chunk");
    assert_eq!(rows(&chunk.batch), [r#"{"id":1}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_estimated_with_and_without_statistics() {
    let world = World::start().await;
    world
        .run(
            "create table counted(id int primary key, t text); create table fresh(id int primary key, t text);
             create table nothing(id int primary key); alter table fresh set (autovacuum_enabled = off);
             insert into counted select n, 'x' from generate_series(1, 20000) n; analyze counted;
             insert into fresh select n, repeat('x', 60) from generate_series(1, 20000) n",
        )
        .await;
    let (connector, _source) = world.open().await;
    let tables = connector.tables().await.expect("tables");
    let rows: Vec<u64> = tables.iter().map(|table| table.rows).collect();
    assert!((19_000..21_000).contains(&rows[0]), "{rows:?}");
    assert!((10_000..40_000).contains(&rows[1]), "{rows:?}");
    assert_eq!(rows[2], 0);
    // A table that is being rewritten has its last known size.
    let rewriter = world.server.connect("postgres").await.expect("connects");
    rewriter.batch_execute("begin; alter table counted alter id type bigint").await.expect("runs");
    assert_eq!(connector.tables().await.expect("tables").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_work_are_counted_and_a_replica_s_lag_is_told() {
    let world = World::start().await;
    world.run("create table a(id int primary key)").await;
    let (connector, _source) = world.open().await;
    let load = connector.load().await.expect("a load");
    assert_eq!((load.active_sessions, load.replica_lag), (0, None));
    let busy = world.server.connect("postgres").await.expect("connects");
    let sleeping = tokio::spawn(async move { busy.batch_execute("select pg_sleep(600)").await });
    super::world::becomes("a session at work", async || connector.load().await.expect("a load").active_sessions == 1)
        .await;
    sleeping.abort();
}
