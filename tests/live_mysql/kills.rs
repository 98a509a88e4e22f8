//! Whatever is killed, and whenever: nothing is lost, nothing comes twice.

use std::time::Duration;

use figvine_sandbox::wait_for;

use super::journal::{self, Load};
use super::world::{Kind, World};
use crate::harness::Bridge;
use crate::journal::Random;

async fn all_may_be_killed(kind: Kind) {
    let world = World::start(kind).await;
    journal::create(&world).await;
    let mut random = Random::seeded();
    let mut bridge = world.bridge();
    let load = Load::start(&world, 8, &mut random);
    for round in 0..6 {
        world.wait_growth(&mut bridge, 20 + random.below(300)).await;
        // Each of the three alone first; what is killed together comes back one after the other.
        let victims = if round < 3 { 1 << round } else { 1 + random.below(7) };
        if victims & 1 != 0 {
            world.nats.kill9();
        }
        if victims & 2 != 0 {
            bridge.kill9();
            bridge = world.bridge();
        }
        if victims & 4 != 0 {
            world.server().kill9();
            world.server().restart().await.expect("the database again");
            end_prepared(&world).await;
        }
        world.nats.restart().await.expect("NATS again");
    }
    world.wait_growth(&mut bridge, 100).await;
    load.stop().await;
    end_prepared(&world).await;
    bridge.stop().await;
    assert!(journal::check(&world).await > 500);
}

/// What was prepared when its server or its writer went away is committed, as a transaction manager would.
async fn end_prepared(world: &World) {
    use figvine_sandbox::mysql_async::prelude::Queryable as _;
    let mut client = world.client().await;
    let prepared: Vec<(i64, usize, usize, String)> = client.query("xa recover").await.expect("asks");
    for (_, length, _, name) in prepared {
        let name = name.get(..length).expect("a name");
        // A writer may be about to end it by itself.
        let _ = client.query_drop(format!("xa commit '{name}'")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_may_be_killed_with_mysql() {
    all_may_be_killed(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_may_be_killed_with_mariadb() {
    all_may_be_killed(Kind::MariaDb).await;
}

/// Both read under one server id, and write into one stream: who is ended once does not end the other in turn.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_bridges_one_ends_and_the_stream_is_right() {
    for kind in [Kind::MySql, Kind::MariaDb] {
        let world = World::start(kind).await;
        journal::create(&world).await;
        let mut first = world.bridge();
        let load = Load::start(&world, 2, &mut Random::seeded());
        world.wait_growth(&mut first, 50).await;
        let elsewhere = tempfile::tempdir().expect("a directory");
        let mut second = Bridge::start(world.figvine(&["run"]), elsewhere.path());
        let ended =
            // Whose log is read by the other waits for it a minute and a half, as behind a cut line, before it ends.
            wait_for("one of them to end", Duration::from_secs(120), async || match (first.ended(), second.ended()) {
                (Some(status), None) | (None, Some(status)) => Some(status.code()),
                (None, None) => None,
                both => panic!("{both:?}\n{}\n{}", first.log(), second.log()),
            });
        let code = ended.await.unwrap_or_else(|e| panic!("{e}\n{}\n{}", first.log(), second.log()));
        assert_eq!(code, Some(9), "{}\n{}", first.log(), second.log());
        let mut left = if first.ended().is_some() { second } else { first };
        world.wait_growth(&mut left, 50).await;
        load.stop().await;
        left.stop().await;
        journal::check(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_until_now_ends_though_a_transaction_is_prepared() {
    for kind in [Kind::MySql, Kind::MariaDb] {
        let world = World::start(kind).await;
        world.run("create table t(id int primary key)").await;
        world.drain().await;
        world.run("insert into t values (1)").await;
        world.run("xa start 'x';\ninsert into t values (2);\nxa end 'x';\nxa prepare 'x'").await;
        world.run("insert into t values (3)").await;
        let keys =
            async || -> Vec<_> { world.events().await.iter().map(|event| event.body["key"]["id"].clone()).collect() };
        world.drain().await;
        assert_eq!(keys().await, [1, 3]);
        world.run("xa commit 'x'").await;
        world.run("insert into t values (4)").await;
        world.drain().await;
        assert_eq!(keys().await, [1, 3, 2, 4]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_gone_on_from_ends_the_program() {
    for kind in [Kind::MySql, Kind::MariaDb] {
        let world = World::start(kind).await;
        world.run("create table t(id int primary key)").await;
        world.drain().await;
        world.run("insert into t values (1)").await;
        world.drain().await;
        world.run("insert into t values (2);\nflush binary logs;\ninsert into t values (3)").await;
        let first = if kind == Kind::MySql { "set global binlog_expire_logs_seconds = 1" } else { "do 1" };
        world.run(first).await;
        purge(&world).await;
        let finished = world.finish(&["run", "--until", "now"]).await;
        assert_eq!(finished.code, Some(8), "{}", finished.stderr);
        assert!(finished.stderr.contains("FV-1301"), "{}", finished.stderr);
    }
}

async fn purge(world: &World) {
    use figvine_sandbox::mysql_async::prelude::Queryable as _;
    let mut client = world.client().await;
    let purged = wait_for("the purge", Duration::from_secs(30), async || {
        let files: Vec<figvine_sandbox::mysql_async::Row> = client.query("show binary logs").await.expect("files");
        let newest: String = files.last().and_then(|row| row.get(0)).expect("a file");
        client.query_drop(format!("purge binary logs to '{newest}'")).await.expect("purges");
        (files.len() == 1).then_some(())
    });
    purged.await.expect("purged");
}
