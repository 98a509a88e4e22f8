//! XA transactions: their rows stand in the log before it is known whether they are committed.

use figvine_change::{Connector as _, Durable};

use std::path::Path;
use std::process::Command;

use super::harness::{World, failure, run, take, told};

/// Prepares transactions, commits others between, restarts the server, and ends the prepared in another order.
async fn every_change_once(world: &World) {
    world.run("create table t(id int primary key, a text)").await;
    let start = world.here().await;
    // Each over a connection of its own: one that has prepared can do nothing else.
    let prepare = async |name: &str, sql: &str| {
        world.run(&format!("xa start '{name}';\n{sql};\nxa end '{name}';\nxa prepare '{name}'")).await;
    };
    world.run("insert into t values (1, 'one')").await;
    prepare("first", "insert into t values (10, 'ten'), (11, 'eleven')").await;
    world.run("insert into t values (2, 'two'), (3, 'three')").await;
    prepare("second", "insert into t values (20, 'twenty');\nupdate t set a = 'TWO' where id = 2").await;
    prepare("never", "insert into t values (30, 'thirty')").await;
    world.run("insert into t values (4, 'four');\ninsert into t values (5, 'five')").await;
    // One phase.
    world
        .run(
            "xa start 'one';\ninsert into t values (6, 'six'), (7, 'seven');\nxa end 'one';\nxa commit 'one' one phase",
        )
        .await;

    let before = [
        r#"insert shop.t id=1 a="one""#,
        r#"insert shop.t id=2 a="two""#,
        r#"insert shop.t id=3 a="three""#,
        r#"insert shop.t id=4 a="four""#,
        r#"insert shop.t id=5 a="five""#,
        r#"insert shop.t id=6 a="six""#,
        r#"insert shop.t id=7 a="seven""#,
    ];
    let seen = world.told(&start).await.expect("reads");
    let seen: Vec<_> = seen.into_iter().filter(|told| !told.is_shape).collect();
    assert_eq!(seen.iter().map(|told| told.text.as_str()).collect::<Vec<_>>(), before);
    let held = seen.last().expect("changes").position.clone();
    assert!(held.log.contains('~'), "{held} tells what is done and what is held");

    world.server.restart().await.expect("starts again");
    world.run("insert into t values (8, 'eight')").await;
    world.run("xa rollback 'never';\nxa commit 'second'").await;
    let between = world.told(&held).await.expect("reads");
    world.run("insert into t values (9, 'nine')").await;
    world.run("xa commit 'first'").await;
    world.run("insert into t values (12, 'twelve')").await;

    let behind = [
        r#"insert shop.t id=8 a="eight""#,
        r#"insert shop.t id=20 a="twenty""#,
        r#"update shop.t id=2 a="two" => id=2 a="TWO""#,
        r#"insert shop.t id=9 a="nine""#,
        r#"insert shop.t id=10 a="ten""#,
        r#"insert shop.t id=11 a="eleven""#,
        r#"insert shop.t id=12 a="twelve""#,
    ];
    let between = between.into_iter().rfind(|told| !told.is_shape).expect("changes");
    assert_eq!(world.changes(&held).await, behind);
    assert_eq!(world.changes(&between.position).await, behind[3..]);

    // In one go, and from every place between.
    let all = world.told(&start).await.expect("reads");
    let all: Vec<_> = all.into_iter().filter(|told| !told.is_shape).collect();
    assert_eq!(all.iter().map(|told| told.text.as_str()).collect::<Vec<_>>(), [&before[..], &behind[..]].concat());
    assert_eq!(all[7].transaction != all[8].transaction, all[8].transaction == all[9].transaction);
    for (at, change) in all.iter().enumerate() {
        let resumed = told(&world.connector, &change.position).await.expect("reads");
        let resumed: Vec<_> = resumed.into_iter().filter(|told| !told.is_shape).collect();
        assert_eq!(resumed, all[at + 1..], "from {}", change.position);
    }
    let last = &all.last().expect("changes").position;
    assert!(!last.log.contains('~'), "{last} is held by nothing");
}

#[tokio::test]
async fn each_change_of_an_xa_transaction_comes_once_when_it_is_committed_on_mysql() {
    every_change_once(&World::mysql(&[]).await).await;
}

#[tokio::test]
async fn each_change_of_an_xa_transaction_comes_once_when_logs_are_compressed() {
    every_change_once(&World::mysql(&[("binlog_transaction_compression", "ON")]).await).await;
}

#[tokio::test]
async fn each_change_of_an_xa_transaction_comes_once_without_gtids() {
    every_change_once(&World::mysql(&[("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")]).await).await;
}

#[tokio::test]
async fn each_change_of_an_xa_transaction_comes_once_when_it_is_committed_on_mariadb() {
    every_change_once(&World::mariadb(&[("log_bin_compress", "ON"), ("log_bin_compress_min_len", "10")]).await).await;
}

#[tokio::test]
async fn a_first_session_does_not_begin_behind_a_prepared_transaction() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        world.run("create table t(id int primary key)").await;
        world.run("xa start 'x';\ninsert into t values (1);\nxa end 'x';\nxa prepare 'x'").await;
        let (_teller, durable) = Durable::channel();
        let Err(error) = world.connector.open(None, durable.clone()).await else { panic!("opened") };
        assert_eq!(error.code, "FV-1315", "{error}");
        run(&mut world.client().await, "xa commit 'x'").await;
        let mut source = world.connector.open(None, durable).await.expect("opens");
        world.run("insert into t values (2)").await;
        assert_eq!(take(&mut source, 1).await.last().map(|told| told.text.as_str()), Some("insert shop.t id=2"));
    }
}

/// A MariaDB whose engine a crash puts back to where it was when this was made, while its log stays: MariaDB writes the log
/// first.
struct Crash {
    kept: tempfile::TempDir,
}

impl Crash {
    /// Keeps the engine's files, and starts the server again.
    async fn keep(world: &World) -> Self {
        world.server.kill9();
        let kept = tempfile::tempdir().expect("a directory");
        copy(&world.server.data_dir(), kept.path());
        world.server.restart().await.expect("starts again");
        Self { kept }
    }

    /// Kills the server and starts it with those files.
    async fn come(self, world: &World) {
        world.server.kill9();
        copy(self.kept.path(), &world.server.data_dir());
        world.server.restart().await.expect("starts again");
    }
}

/// Copies the files of InnoDB, with their owners.
fn copy(from: &Path, to: &Path) {
    for name in ["ibdata1", "ib_logfile0", "aria_log_control", "shop"] {
        let status = Command::new("cp").args(["-a", "-T"]).arg(from.join(name)).arg(to.join(name)).status();
        assert!(status.expect("copies").success(), "{name}");
    }
}

async fn prepare(world: &World, name: &str, sql: &str) {
    world.run(&format!("xa start '{name}';\n{sql};\nxa end '{name}';\nxa prepare '{name}'")).await;
}

#[tokio::test]
async fn what_a_crash_of_mariadb_undid_is_told_as_it_ended() {
    let world = World::mariadb(&[]).await;
    world.run("create table t(id int primary key)").await;
    let start = world.here().await;
    world.run("insert into t values (1)").await;
    prepare(&world, "rolled-back", "insert into t values (10), (11)").await;
    prepare(&world, "committed", "insert into t values (20)").await;
    let crash = Crash::keep(&world).await;
    world.run("xa rollback 'rolled-back';\nxa commit 'committed'").await;
    prepare(&world, "lost", "insert into t values (30)").await;
    let before = world.told(&start).await.expect("reads");
    let held = before.last().expect("changes").position.clone();
    crash.come(&world).await;

    world.run("xa commit 'rolled-back';\nxa commit 'committed';\ninsert into t values (2)").await;
    let behind = ["insert shop.t id=10", "insert shop.t id=11", "insert shop.t id=2"];
    assert_eq!(world.changes(&held).await, behind);
    let all = world.changes(&start).await;
    assert_eq!(all, [&["insert shop.t id=1", "insert shop.t id=20"][..], &behind].concat());
    let last = world.told(&start).await.expect("reads").pop().expect("changes").position;
    assert!(!last.log.contains('~'), "{last} is held by nothing, not by what was never prepared either");
}

#[tokio::test]
async fn a_commit_that_a_crash_undid_and_that_is_rolled_back_ends_the_source() {
    let world = World::mariadb(&[]).await;
    world.run("create table t(id int primary key)").await;
    let start = world.here().await;
    prepare(&world, "x", "insert into t values (1)").await;
    let crash = Crash::keep(&world).await;
    let mut source = world.open(&start).await.expect("opens");
    world.run("xa commit 'x'").await;
    let held = take(&mut source, 1).await.pop().expect("a change").position;
    crash.come(&world).await;
    world.run("xa rollback 'x'").await;
    let error = failure(&mut world.open(&held).await.expect("opens")).await;
    assert_eq!(error.code, "FV-1303", "{error}");
}
