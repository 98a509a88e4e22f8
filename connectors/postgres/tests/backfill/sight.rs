//! What a chunk shows, against the log.

use std::collections::HashMap;

use figvine_change::{Body, ChunkReader, Connector};

use super::world::{DEADLINE, World, becomes, json, request, rows, until};

#[tokio::test(flavor = "multi_thread")]
async fn of_transactions_around_a_chunk_each_is_told_rightly_and_all_that_is_shown_stands_before_its_high() {
    let world = World::start().await;
    world
        .run("create table t(a int primary key, b int); insert into t select n, 0 from generate_series(1, 20) n")
        .await;
    let (connector, mut source) = world.open().await;
    let mut reader = connector.reader().await.expect("a reader");
    let ended = world.server.connect("postgres").await.expect("connects");
    let open = world.server.connect("postgres").await.expect("connects");
    let nested = world.server.connect("postgres").await.expect("connects");
    open.batch_execute("begin; update t set b = 1 where a = 1").await.expect("runs");
    nested
        .batch_execute(
            "begin; savepoint x; update t set b = 1 where a = 2; savepoint y; update t set b = 1 where a = 3",
        )
        .await
        .expect("runs");
    ended.batch_execute("update t set b = 1 where a = 4").await.expect("runs");
    ended
        .batch_execute("begin; update t set b = 1 where a = 5; savepoint z; update t set b = 1 where a = 6; commit")
        .await
        .expect("runs");
    let chunk = reader.read(&request("public", "t", 100)).await.expect("a chunk");
    ended.batch_execute("update t set b = 1 where a = 7").await.expect("runs");
    nested.batch_execute("commit").await.expect("commits");
    open.batch_execute("commit").await.expect("commits");
    ended.batch_execute("update t set b = 2 where a = 20").await.expect("runs");

    let shown: HashMap<String, String> =
        rows(&chunk.batch).into_iter().map(|row| (row[5..row.find(',').expect("a comma")].to_owned(), row)).collect();
    let mut told = Vec::new();
    until(&mut source, |batch| {
        for change in &batch.changes {
            let Body::Row(row) = &change.body else { continue };
            let row = json(batch, row.table, row.after.expect("a row"));
            let key = row[5..row.find(',').expect("a comma")].to_owned();
            let transaction = batch.transaction(change).expect("a transaction");
            let is_shown = shown[&key] == row;
            assert_eq!(chunk.sight.shows(transaction), is_shown, "{row}");
            assert!(!is_shown || transaction.sequence < chunk.high, "{row}");
            told.push(key);
        }
        told.contains(&"20".to_owned())
    })
    .await;
    told.sort();
    assert_eq!(told, ["1", "2", "20", "3", "4", "5", "6", "7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_log_comes_behind_the_high_of_a_chunk_by_itself() {
    let world = World::start().await;
    world.run("create table t(a int primary key); insert into t select n from generate_series(1, 20) n").await;
    let (connector, mut source) = world.open().await;
    let mut reader = connector.reader().await.expect("a reader");
    for _ in 0..3 {
        let chunk = reader.read(&request("public", "t", 100)).await.expect("a chunk");
        until(&mut source, |batch| batch.reached.as_ref().is_some_and(|reached| *reached >= chunk.high)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_reader_waits_for_a_commit_that_the_log_has_told_and_that_no_snapshot_shows_yet() {
    let world = World::start().await;
    world.run("create table t(a int primary key, b int); insert into t values (1, 0)").await;
    let (connector, mut source) = world.open().await;
    world.run("alter system set synchronous_standby_names = 'never'").await;
    world.run("select pg_reload_conf()").await;
    let settings = async || world.text("show synchronous_standby_names").await == "never";
    becomes("the setting", settings).await;

    let writer = world.server.connect("postgres").await.expect("connects");
    let pid: i32 = writer.query_one("select pg_backend_pid()", &[]).await.expect("a pid").get(0);
    let stuck = tokio::spawn(async move { writer.batch_execute("update t set b = 1 where a = 1").await });
    // The log is told of it, and no snapshot shows it.
    until(&mut source, |batch| batch.changes.iter().any(|change| matches!(change.body, Body::Row(_)))).await;
    assert_eq!(world.text("select b::text from t").await, "0");

    // A transaction that only works, for however long, is none to wait for.
    let idle = world.server.connect("postgres").await.expect("connects");
    idle.batch_execute("begin; insert into t values (2, 0)").await.expect("runs");
    let opening = tokio::spawn(async move {
        let mut reader = connector.reader().await.expect("a reader");
        reader.read(&request("public", "t", 10)).await.expect("a chunk")
    });
    becomes("a second look", async || {
        world.text("select coalesce(max(extract(epoch from clock_timestamp() - backend_start)), 0)::text from pg_stat_activity
                    where application_name = 'figvine shop' and query like '%pg_prepared_xacts%'")
            .await
            .parse::<f64>()
            .is_ok_and(|age| age > 0.5)
    })
    .await;
    assert!(!opening.is_finished(), "it did not wait");
    world.text(&format!("select pg_cancel_backend({pid})::text")).await;
    let chunk = tokio::time::timeout(DEADLINE, opening).await.expect("in time").expect("no panic");
    assert_eq!(rows(&chunk.batch), [r#"{"a":1,"b":1}"#]);
    stuck.await.expect("no panic").expect("committed, with a warning");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_s_chunk_shows_surely_only_what_is_older_than_all_that_runs() {
    let world = World::start().await;
    world.run("create table t(a int primary key); insert into t values (1)").await;
    drop(world.reader().await);
    let standby = figvine_sandbox::Postgres::standby_of(&world.server, &[]).await.expect("a standby");
    let connector =
        figvine_postgres::Postgres::new(super::world::config(standby.url("postgres"))).expect("a configuration");
    let open = world.server.connect("postgres").await.expect("connects");
    let id = |row: tokio_postgres::Row| row.get::<_, String>(0);
    let running = open.query_one("select pg_current_xact_id()::xid::text", &[]).await.map(id).expect("an id");
    open.batch_execute("begin; insert into t values (2)").await.expect("runs");
    let inside = open.query_one("select pg_current_xact_id()::xid::text", &[]).await.map(id).expect("an id");
    world.run("insert into t values (3)").await;
    let newest = world.text("select pg_current_xact_id()::xid::text").await;
    let there = standby.connect("postgres").await.expect("connects");
    let committed = world.text("select pg_current_wal_lsn()::text").await;
    becomes("the standby", async || {
        let query = "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        there.query_one(query, &[&committed]).await.expect("a place").get(0)
    })
    .await;
    let mut reader = connector.reader().await.expect("a reader");
    let chunk = reader.read(&request("public", "t", 10)).await.expect("a chunk");
    assert_eq!(rows(&chunk.batch), [r#"{"a":1}"#, r#"{"a":3}"#]);
    let shows = |id: &str| {
        chunk.sight.shows(&figvine_change::Transaction {
            id: id.into(),
            position: "".into(),
            sequence: "".into(),
            committed_at: 0,
            start: "".into(),
            end: None,
            origin: None,
            traceparent: None,
            is_ignored: false,
            file: None,
        })
    };
    assert!(shows(&running), "it had ended before all that runs");
    assert!(!shows(&inside) && !shows(&newest));
    let committed: figvine_postgres::lsn::Lsn = committed.parse().expect("an LSN");
    assert!(*chunk.high >= *committed.sequence());
}
