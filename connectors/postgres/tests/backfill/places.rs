//! Tables without a key, as they lie on disk.

use std::collections::BTreeMap;

use figvine_change::{ChunkReader, Connector, SourceErrorKind};
use figvine_postgres::Postgres;

use super::world::{World, all, last, request, rows};

/// How often each row was found.
fn counted(rows: &[String]) -> BTreeMap<&str, usize> {
    let mut counted = BTreeMap::new();
    for row in rows {
        *counted.entry(row.as_str()).or_default() += 1;
    }
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_that_nobody_touches_is_read_once_while_others_move_and_what_moves_is_left_to_the_log() {
    let world = World::start().await;
    world
        .run(
            "create table t(a int, b text); alter table t replica identity full; alter table t set (autovacuum_enabled = off);
             insert into t select n, repeat('x', 100) from generate_series(0, 1999) n; delete from t where a % 10 = 9;",
        )
        .await;
    let mut reader = world.reader().await;
    let mut asked = request("public", "t", 97);
    let mut found = Vec::new();
    for round in 0.. {
        let chunk = reader.read(&asked).await.expect("a chunk");
        found.extend(rows(&chunk.batch));
        if chunk.is_last {
            break;
        }
        asked.after = last(&chunk);
        // Every other row moves behind the place where we are, in a round and again in later ones.
        world.run(&format!("update t set b = 'moved {round}' where a % 2 = 1 and a % 20 = {}", round % 20)).await;
        world.run(&format!("insert into t values (-{round}, 'new')")).await;
        world.run("vacuum t").await;
    }
    let seen = counted(&found);
    let untouched = (0..2000).filter(|n| n % 10 != 9 && n % 2 == 0);
    for n in untouched {
        let row = format!(r#"{{"a":{n},"b":"{}"}}"#, "x".repeat(100));
        assert_eq!(seen.get(row.as_str()), Some(&1), "{n}");
    }
    assert!(seen.values().all(|count| *count == 1));
    assert!(found.iter().all(|row| !row.contains("moved") && !row.contains("new")));
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_rows_are_as_many_reads_as_there_are_rows() {
    let world = World::start().await;
    world.run("create table t(); alter table t replica identity full; create table u(a int); alter table u replica identity full").await;
    world
        .run("insert into u select 1 from generate_series(1, 10); insert into t select from generate_series(1, 10)")
        .await;
    let mut reader = world.reader().await;
    let found = all(&mut reader, request("public", "u", 3)).await.expect("rows");
    assert_eq!(counted(&found), BTreeMap::from([(r#"{"a":1}"#, 10)]));
    assert_eq!(all(&mut reader, request("public", "t", 3)).await.expect("rows").len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_written_anew_is_an_error_and_an_emptied_one_is_at_its_end() {
    let world = World::start().await;
    world
        .run(
            "create table t(a int); alter table t replica identity full;
             insert into t select n from generate_series(1, 2000) n; delete from t where a < 1000",
        )
        .await;
    let mut reader = world.reader().await;
    let mut asked = request("public", "t", 10);
    asked.after = last(&reader.read(&asked).await.expect("a chunk"));
    for rewrite in ["vacuum full t", "alter table t alter a type bigint"] {
        world.run(rewrite).await;
        let error = reader.read(&asked).await.expect_err(rewrite);
        assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1607"), "{rewrite}");
    }
    world.run("truncate t").await;
    let chunk = reader.read(&asked).await.expect("a chunk");
    assert!(chunk.is_last && chunk.batch.changes.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitioned_table_is_read_under_its_own_name_by_key_and_by_places() {
    let world = World::start().await;
    for (table, after) in [("k", ", primary key (a)"), ("p", "")] {
        world
            .run(&format!(
                "create table {table}(a int, b int{after}) partition by range (a);
                 create table {table}_0 partition of {table} for values from (0) to (10);
                 create table {table}_1(b int, gone int, a int not null);
                 alter table {table}_1 drop gone; alter table {table} attach partition {table}_1 for values from (10) to (20);
                 create table {table}_2 partition of {table} for values from (20) to (40) partition by hash (a);
                 create table {table}_20 partition of {table}_2 for values with (modulus 2, remainder 0);
                 create table {table}_21 partition of {table}_2 for values with (modulus 2, remainder 1);
                 insert into {table} select n, -n from generate_series(0, 39) n;"
            ))
            .await;
    }
    world.run("alter table p replica identity full").await;
    let mut config = world.config();
    config.via_partition_root = true;
    let connector = Postgres::new(config).expect("a configuration");
    let source = connector.open(None, figvine_change::Durable::channel().1).await.expect("opens");
    let mut reader = connector.reader().await.expect("a reader");
    let expected: Vec<String> = (0..40).map(|n| format!(r#"{{"a":{n},"b":{}}}"#, -n)).collect();
    for size in [1, 7, 1000] {
        assert_eq!(all(&mut reader, request("public", "k", size)).await.expect("rows"), expected);
        let mut found = all(&mut reader, request("public", "p", size)).await.expect("rows");
        found.sort_by_key(|row| row[5..row.find(',').unwrap_or_default()].parse::<u32>().expect("a number"));
        assert_eq!(found, expected, "by {size}");
    }
    let error = reader.read(&request("public", "k_0", 3)).await.expect_err("its root stands for it");
    assert_eq!(error.code, "FV-1606");
    let listed = connector.tables().await.expect("tables");
    assert_eq!(listed.iter().map(|t| &*t.name).collect::<Vec<_>>(), ["k", "p"]);
    assert!(listed.iter().all(|table| table.bytes >= 3 * 8192), "{listed:?}");
    drop(source);
}
