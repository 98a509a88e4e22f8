//! The log itself: its form, its files, and its end.

use figvine_change::{Connector as _, Durable, Position, Source as _, SourceErrorKind};
use std::time::Duration;

use figvine_sandbox::mysql_async::prelude::Queryable as _;
use figvine_sandbox::wait_for;

use super::harness::{World, failure, open, refused, take};

const WORK: &str = "insert into t values (1, repeat('a', 300)), (2, 'b');
     update t set id = 3 where id = 2;
     delete from t where id = 1";

async fn the_same_in_every_form(world: &World, forms: &[&str]) {
    world.run("create table t(id int primary key, a text)").await;
    let long = "a".repeat(300);
    let expected = [
        format!(r#"insert shop.t id=1 a="{long}""#),
        r#"insert shop.t id=2 a="b""#.to_owned(),
        r#"delete shop.t id=2 a="b" (rekeyed)"#.to_owned(),
        r#"insert shop.t id=3 a="b" (rekeyed)"#.to_owned(),
        format!(r#"delete shop.t id=1 a="{long}""#),
    ];
    let mut all = Vec::new();
    let start = world.here().await;
    for form in forms {
        let from = world.here().await;
        world.run(&format!("{form};\n{WORK}")).await;
        assert_eq!(world.changes(&from).await, expected, "{form}");
        all.extend_from_slice(&expected);
        let from = world.here().await;
        world.run("delete from t").await;
        assert_eq!(world.changes(&from).await, [r#"delete shop.t id=3 a="b""#], "{form}");
        all.push(r#"delete shop.t id=3 a="b""#.to_owned());
    }
    assert_eq!(world.changes(&start).await, all, "in one go");
}

#[tokio::test]
async fn compressed_and_plain_checked_and_unchecked_logs_tell_the_same_on_mysql() {
    let forms = [
        "set binlog_transaction_compression = on",
        "set global binlog_checksum = none",
        "set binlog_transaction_compression = on",
        "flush binary logs",
        "set global binlog_checksum = crc32",
        "set binlog_rows_query_log_events = on",
    ];
    the_same_in_every_form(&World::mysql(&[]).await, &forms).await;
    the_same_in_every_form(&World::mysql(&[("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")]).await, &forms)
        .await;
}

#[tokio::test]
async fn compressed_and_plain_checked_and_unchecked_logs_tell_the_same_on_mariadb() {
    let forms = [
        "set global log_bin_compress_min_len = 10;\nset global log_bin_compress = on",
        "set global binlog_checksum = none",
        "set global log_bin_compress = off",
        "flush binary logs",
        "set global binlog_checksum = crc32",
        "set binlog_annotate_row_events = off",
    ];
    the_same_in_every_form(&World::mariadb(&[("binlog_checksum", "NONE")]).await, &forms).await;
}

/// A session that is open meanwhile reads on in the next file; one that was closed goes on in it; a server that was
/// restarted is gone on with.
async fn goes_on_through_files_and_restarts(world: &World) {
    world.run("create table t(id int primary key)").await;
    let start = world.here().await;
    let mut source = world.open(&start).await.expect("opens");
    let mut told = Vec::new();
    for id in 0..5 {
        world.run(&format!("insert into t values ({id});\nflush binary logs")).await;
        told.extend(take(&mut source, 1).await.into_iter().filter(|told| !told.is_shape));
    }
    let texts: Vec<_> = told.iter().map(|told| told.text.clone()).collect();
    assert_eq!(texts, (0..5).map(|id| format!("insert shop.t id={id}")).collect::<Vec<_>>());

    world.server.stop().await.expect("stops");
    let error = failure(&mut source).await;
    assert_eq!(error.kind, SourceErrorKind::Unreachable, "{error}");
    let error = refused(&world.connector, &told[4].position).await;
    assert_eq!(error.kind, SourceErrorKind::Unreachable, "{error}");
    world.server.restart().await.expect("starts again");
    world.run("insert into t values (5)").await;
    for (at, told) in told.iter().enumerate() {
        let expected: Vec<_> = (at + 1..6).map(|id| format!("insert shop.t id={id}")).collect();
        assert_eq!(world.changes(&told.position).await, expected, "from {}", told.position);
    }

    world.server.kill9();
    world.server.restart().await.expect("starts again");
    let at = told[4].position.clone();
    assert_eq!(world.changes(&at).await, ["insert shop.t id=5"]);
}

#[tokio::test]
async fn reading_goes_on_through_files_and_restarts_on_mysql() {
    goes_on_through_files_and_restarts(&World::mysql(&[]).await).await;
}

#[tokio::test]
async fn reading_goes_on_through_files_and_restarts_without_gtids() {
    let world = World::mysql(&[("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")]).await;
    goes_on_through_files_and_restarts(&world).await;
}

#[tokio::test]
async fn reading_goes_on_through_files_and_restarts_on_mariadb() {
    goes_on_through_files_and_restarts(&World::mariadb(&[]).await).await;
}

/// A place that the server has no more, and one that it never had.
async fn lost_places_are_not_gone_on_from(world: &World) {
    world.run("create table t(id int primary key);\ninsert into t values (1)").await;
    let stopped = world.here().await;
    world.run("insert into t values (2);\nflush binary logs;\ninsert into t values (3)").await;
    let mut client = world.client().await;
    let newest: (String, u64) = {
        let rows: Vec<figvine_sandbox::mysql_async::Row> = client.query("show binary logs").await.expect("files");
        let last = rows.last().expect("a file");
        (last.get(0).expect("a name"), last.get(1).expect("a size"))
    };
    let here = world.here().await;
    // MariaDB keeps a file until it has written down that a recovery needs it no more.
    let purged = wait_for("the purge", Duration::from_secs(30), async || {
        client.query_drop(format!("purge binary logs to '{}'", newest.0)).await.expect("purges");
        let rows: Vec<figvine_sandbox::mysql_async::Row> = client.query("show binary logs").await.expect("files");
        (rows.len() == 1).then_some(())
    });
    purged.await.expect("purged");
    let error = refused(&world.connector, &stopped).await;
    assert_eq!((error.kind, error.code), (SourceErrorKind::PositionLost, "FV-1301"), "{error}");
    world.run("insert into t values (4)").await;
    assert_eq!(world.changes(&here).await, ["insert shop.t id=4"]);
}

#[tokio::test]
async fn a_purged_log_is_lost_and_not_skipped() {
    lost_places_are_not_gone_on_from(&World::mysql(&[]).await).await;
    lost_places_are_not_gone_on_from(&World::mariadb(&[]).await).await;
    let without_gtids = [("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")];
    lost_places_are_not_gone_on_from(&World::mysql(&without_gtids).await).await;
}

#[tokio::test]
async fn places_of_other_servers_are_refused() {
    let worlds =
        [World::mysql(&[]).await, World::mysql(&[]).await, World::mariadb(&[]).await, World::mariadb(&[]).await];
    for world in &worlds {
        world.run("create table t(id int primary key);\ninsert into t values (1);\ninsert into t values (2)").await;
    }
    for (at, world) in worlds.iter().enumerate() {
        let position = world.here().await;
        for (other, elsewhere) in worlds.iter().enumerate() {
            if at != other {
                let error = refused(&elsewhere.connector, &position).await;
                assert_eq!(error.kind, SourceErrorKind::PositionLost, "{position} at {other}: {error}");
            }
        }
    }
    let unknown = ["gtid/11111111-1111-1111-1111-111111111111:1-5", "file/1/binlog.000001/4", "7/1/0/64", "gtid/x"];
    for text in unknown {
        for world in &worlds {
            let error = refused(&world.connector, &Position::between(text)).await;
            assert_eq!(error.kind, SourceErrorKind::PositionLost, "{text}: {error}");
        }
    }
}

#[tokio::test]
async fn a_second_reader_under_the_same_id_ends_the_first() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        world.run("create table t(id int primary key)").await;
        let here = world.here().await;
        let mut first = world.open(&here).await.expect("opens");
        world.run("insert into t values (1)").await;
        take(&mut first, 1).await;
        let newcomer = world.configured(|_| {});
        let mut second = open(&newcomer, &here).await.expect("opens");
        take(&mut second, 1).await;
        let error = failure(&mut first).await;
        assert_eq!((error.kind, error.code), (SourceErrorKind::Busy, "FV-1313"), "{error}: {:?}", error.source);
        world.run("insert into t values (2)").await;
        assert_eq!(take(&mut second, 1).await[0].text, "insert shop.t id=2");
        // The first does not come back as long as the second reads: else they would end each other for ever.
        let error = refused(&world.connector, &here).await;
        assert_eq!((error.kind, error.code), (SourceErrorKind::Busy, "FV-1313"), "{error}");

        let other = world.configured(|config| config.server_id = Some(4711));
        let mut third = open(&other, &here).await.expect("opens");
        assert_eq!(take(&mut third, 2).await.len(), 3);
        world.run("insert into t values (3)").await;
        assert_eq!(take(&mut second, 1).await[0].text, "insert shop.t id=3");

        second.close().await;
        let back = wait_for("the server to see that the second left", Duration::from_secs(30), async || {
            world.open(&here).await.ok()
        });
        assert_eq!(take(&mut back.await.expect("opens again"), 3).await.len(), 4);
    }
}

#[tokio::test]
async fn a_first_session_begins_at_the_newest_place() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        world.run("create table t(id int primary key);\ninsert into t values (1)").await;
        let (_teller, durable) = Durable::channel();
        let mut source = world.connector.open(None, durable).await.expect("opens");
        assert_eq!(*source.started_at(), world.here().await);
        world.run("insert into t values (2)").await;
        let told = take(&mut source, 1).await;
        assert_eq!(told.last().map(|told| told.text.as_str()), Some("insert shop.t id=2"));
    }
}
