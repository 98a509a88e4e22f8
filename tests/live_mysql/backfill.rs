//! Existing rows of MySQL and MariaDB, under writers and kills.

use std::collections::BTreeMap;
use std::time::Duration;

use figvine_sandbox::mysql_async::prelude::Queryable as _;
use figvine_sandbox::mysql_async::{Conn, Opts, OptsBuilder};
use figvine_sandbox::wait_for;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::world::{Kind, World};
use crate::harness::{STREAM, each_event};
use crate::journal::{Pace, Random, Rebuilt, contended_rows, contended_time};

/// How long the backfill may take.
const LONG: Duration = Duration::from_secs(180);

/// A table, and each key's version beside it, so that it goes on behind a delete.
async fn create(world: &World) {
    let rows = contended_rows();
    assert!(rows <= 1_000_000, "six digits are joined");
    world
        .run(&format!(
            "create database beside;
create table beside.versions(id int primary key, version bigint not null);
create table digits(d int primary key);
insert into digits values (0), (1), (2), (3), (4), (5), (6), (7), (8), (9);
create table beside.numbers as
  select a.d * 100000 + b.d * 10000 + c.d * 1000 + e.d * 100 + f.d * 10 + g.d + 1 as n
  from digits a, digits b, digits c, digits e, digits f, digits g having n <= {rows};
drop table digits;
create table accounts(id int primary key, version bigint not null, note varchar(100));
insert into beside.versions select n, 1 from beside.numbers union all select -n, 1 from beside.numbers;
insert into accounts select n, 1, repeat('x', n % 50) from beside.numbers"
        ))
        .await;
}

async fn write(url: String, mut random: Random, enough: CancellationToken) {
    let opts = Opts::from_url(&url).expect("a url");
    let opts: Opts = OptsBuilder::from_opts(opts).prefer_socket(false).into();
    let mut pace = Pace::new();
    'connected: while !enough.is_cancelled() {
        let Ok(Ok(mut client)) = tokio::time::timeout(Duration::from_secs(5), Conn::new(opts.clone())).await else {
            tokio::task::yield_now().await;
            continue;
        };
        while !enough.is_cancelled() {
            pace.next().await;
            // Deadlocks end a transaction: that is part of the load.
            let sql = transaction(&mut random);
            if client.query_drop(sql).await.is_err() && client.query_drop("rollback").await.is_err() {
                continue 'connected;
            }
        }
    }
}

/// Some changes: each bumps the versions of the keys that it touches.
fn transaction(random: &mut Random) -> String {
    let rows = contended_rows();
    let mut sql = "begin;".to_owned();
    for _ in 0..1 + random.below(3) {
        // Every other one of few keys: writers meet there, and chunks meet them.
        let id = 1 + if random.below(2) == 0 { random.below(100) * (rows / 100) } else { random.below(rows) };
        let bump = "update beside.versions v set v.version = v.version + 1 where";
        let is_there = format!("exists (select 1 from accounts a where a.id = {id})");
        let is_free = format!("not exists (select 1 from accounts b where b.id = -{id})");
        let version = |id: &str| format!("(select version from beside.versions where id = {id})");
        sql += &match random.below(6) {
            0 | 1 => format!("{bump} v.id = {id} and {is_there}; delete from accounts where id = {id};"),
            // Under another key: a removal and an insertion.
            2 => format!(
                "{bump} v.id in ({id}, -{id}) and {is_there} and {is_free};
                 update accounts set version = {}, id = -{id}
                 where id = {id} and not exists (select 1 from (select id from accounts where id = -{id}) b);",
                version(&format!("-{id}"))
            ),
            3 => format!(
                "{bump} v.id = {id}; insert into accounts select id, version, 'again' from beside.versions where id = {id}
                 on duplicate key update version = values(version);"
            ),
            _ => format!(
                "{bump} v.id = {id} and {is_there};
                 update accounts set version = {}, note = 'changed' where id = {id};",
                version(&id.to_string())
            ),
        };
    }
    sql + if random.below(10) == 0 { "rollback" } else { "commit" }
}

async fn wait_done(world: &World) {
    let waited = wait_for("the backfill's end", contended_time(), async || {
        let listed = world.finish(&["--output", "json", "backfill", "list"]).await;
        let listed: Value = serde_json::from_str(&listed.stdout).ok()?;
        (listed["backfills"][0]["state"] == "done").then_some(())
    });
    waited.await.unwrap_or_else(|e| {
        let log = std::fs::read_to_string(world.home.path().join("figvine.log"));
        panic!("{e}\n{}", log.unwrap_or_default())
    });
}

async fn under_writers_and_kills(kind: Kind) {
    let world = World::start(kind).await;
    let rate = contended_rows() / 5;
    world.configure_more(&format!("    initial: backfill\n    backfill: {{ chunk_time: 1ms, rate: {rate} }}\n"));
    create(&world).await;
    let mut random = Random::seeded();
    let enough = CancellationToken::new();
    let mut writing = JoinSet::new();
    for _ in 0..8 {
        writing.spawn(write(world.server().url("shop"), Random::new(random.next()), enough.clone()));
    }
    let mut bridge = world.bridge();
    for round in 0..4 {
        world.wait_growth(&mut bridge, 500 + random.below(1000)).await;
        if round % 2 == 0 {
            bridge.kill9();
            bridge = world.bridge();
        } else {
            world.nats.kill9();
            world.nats.restart().await.expect("NATS again");
        }
    }
    wait_done(&world).await;
    enough.cancel();
    while writing.join_next().await.is_some() {}
    bridge.stop().await;
    world.drain().await;
    let mut rebuilt = Rebuilt::default();
    let client = async_nats::connect(world.nats.url()).await.expect("connects to NATS");
    each_event(&async_nats::jetstream::new(client), STREAM, |event| {
        if event.table() == "shop.accounts" {
            rebuilt.add(&event);
        }
    })
    .await;
    let rows: Vec<(i64, i64)> = world.client().await.query("select id, version from accounts").await.expect("rows");
    assert_eq!(rebuilt.rows(), rows.into_iter().collect::<BTreeMap<_, _>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_of_mysql_under_writers_and_kills_tells_each_row_once_and_never_of_the_past() {
    under_writers_and_kills(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_of_mariadb_under_writers_and_kills_tells_each_row_once_and_never_of_the_past() {
    under_writers_and_kills(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_over_a_table_without_a_key_begins_anew_where_it_was_interrupted() {
    let world = World::start(Kind::MariaDb).await;
    world.configure_engine("keyless: whole_row");
    world
        .run(
            "create table notes(n int, note varchar(20)) engine = InnoDB;
insert into notes select seq, 'text' from seq_1_to_20000",
        )
        .await;
    let mut bridge = world.bridge();
    let ask = async |args: &[&str]| {
        let args: Vec<_> = ["--output", "json", "backfill"].iter().chain(args).copied().collect();
        serde_json::from_str::<Value>(&world.finish(&args).await.stdout).unwrap_or_default()
    };
    let started = wait_for("a bridge that hears commands", LONG, async || {
        bridge.must_run();
        ask(&["start", "--tables", "shop.notes", "--rate", "500"]).await["id"].as_str().map(str::to_owned)
    });
    let id = started.await.unwrap_or_else(|e| panic!("{e}"));
    let some = wait_for("some rows", LONG, async || {
        (ask(&["show", &id]).await["backfills"][0]["rows"].as_u64() > Some(0)).then_some(())
    });
    some.await.unwrap_or_else(|e| panic!("{e}"));
    ask(&["pause", &id]).await;
    ask(&["set", &id, "--rate", "0"]).await;
    ask(&["resume", &id]).await;
    wait_done(&world).await;
    bridge.stop().await;
    let shown = ask(&["show", &id]).await;
    let tables = shown["backfills"][0]["tables"].as_array().expect("tables").clone();
    let states: Vec<_> = tables.iter().map(|table| table["state"].as_str().unwrap_or_default()).collect();
    assert_eq!(states, ["interrupted", "done"], "{shown}");
    assert_eq!(tables[1]["rows"], 20_000);
    let events = world.events().await;
    let keys: std::collections::BTreeSet<_> =
        events.iter().map(|event| event.body["after"]["n"].as_u64().expect("n")).collect();
    assert_eq!(keys.len(), 20_000);
    let ids: std::collections::BTreeSet<_> = events.iter().map(|event| event.header("ce-id")).collect();
    assert_eq!(ids.len(), events.len(), "an identity came twice");
}
