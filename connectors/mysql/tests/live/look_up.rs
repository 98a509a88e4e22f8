//! Rows of given values.

use std::time::Duration;

use figvine_change::{
    Body, Cell, ChunkReader, ChunkRequest, Cursor, Found, LookUp, Sought, Source, SourceError, SourceErrorKind,
    Transaction,
};
use figvine_mysql::MysqlRows;
use figvine_mysql::config::Keyless;
use figvine_sandbox::mysql_async::Conn;
use figvine_sandbox::mysql_async::prelude::Queryable;
use figvine_sandbox::wait_for;

use super::harness::{World, chunk, cursors, next, of, reader, request};

const SOON: Duration = Duration::from_secs(60);

/// Types that both have, and values as SQL: the first is looked up, and found.
const VALUES: &[(&str, &[&str])] = &[
    ("tinyint", &["-128", "127"]),
    ("bigint unsigned", &["18446744073709551615", "18446744073709551614"]),
    ("decimal(30,10)", &["-12345678901234567890.5", "-12345678901234567890.4999999999"]),
    ("float", &["0.1", "0.2"]),
    ("double", &["0.30000000000000004", "0.3"]),
    ("year", &["2026", "0"]),
    ("date", &["'2026-11-28'", "'0000-00-00'"]),
    ("date", &["'0000-00-00'", "'2026-11-28'"]),
    ("time(3)", &["'-00:00:00.001'", "'00:00:00.001'"]),
    ("datetime(6)", &["'2026-11-28 10:00:00.000001'", "'2026-11-28 10:00:00'"]),
    ("datetime", &["'0000-00-00'", "'2026-11-28 10:00:00'"]),
    ("timestamp(3)", &["'2026-11-28 10:00:00.5'", "'2026-11-28 10:00:00'"]),
    ("bit(1)", &["1", "0"]),
    ("bit(40)", &["1099511627774", "1099511627775"]),
    ("varchar(40) character set utf8mb4", &["'a''b\\\\c\"d\" 100% _ \\n\\t😀'", "'a'"]),
    ("varchar(40) character set utf8mb4 collate utf8mb4_bin", &["'ä'", "'Ä'", "'a'"]),
    ("varchar(9) character set latin1", &["'öl'", "'b'"]),
    ("varchar(9) character set latin1 collate latin1_bin", &["'ö'", "'Ö'"]),
    ("char(9) character set latin1", &["'ä '", "'b'"]),
    ("varchar(9) character set utf16", &["'😀'", "'ä'"]),
    ("varchar(9) character set sjis", &["'日本'", "'ア'"]),
    ("text character set utf8mb4", &["repeat('x', 3000)", "repeat('x', 2999)"]),
    ("varchar(9)", &["''", "'x'"]),
    ("binary(16)", &["x'00ff0000000000000000000000610000'", "x'00ff'"]),
    ("binary(16)", &["x'00'", "x'61'"]),
    ("varbinary(9)", &["x'275c00'", "x'275c'", "x'275c0000'"]),
    ("blob", &["x'ff00'", "''"]),
    ("enum('z','y''x','','0')", &["'y''x'", "'z'"]),
    ("enum('z','y')", &["'none of them'", "'z'"]),
    ("set('z','y','x')", &["'z,x'", "'z'", "''"]),
    ("set('z','y','x')", &["''", "'z'"]),
];
const MARIADB_VALUES: &[(&str, &[&str])] = &[
    ("uuid", &["'123e4567-e89b-12d3-a456-426655440000'", "'123e4567-e89b-12d3-a456-426655440100'"]),
    ("inet6", &["'2001:db8::'", "'::1'"]),
    ("inet4", &["'10.0.0.0'", "'10.0.0.1'"]),
    ("varchar(300) compressed character set utf8mb4", &["repeat('z', 300)", "'z'"]),
];

fn transaction(id: &str, sequence: &str) -> Transaction {
    Transaction {
        id: id.into(),
        position: Box::default(),
        sequence: sequence.into(),
        committed_at: 0,
        start: Box::default(),
        end: None,
        origin: None,
        traceparent: None,
        is_ignored: false,
        file: None,
    }
}

fn sought(json: &str) -> Sought {
    Sought { raw: json.as_bytes().into(), json: json.into() }
}

fn values(table: &str, column: &str, values: &[&str]) -> LookUp {
    LookUp {
        schema: "shop".into(),
        name: table.into(),
        column: column.into(),
        values: values.iter().map(|json| sought(json)).collect(),
        behind: vec![transaction("", "")],
        bytes: 1 << 20,
    }
}

async fn found(reader: &mut MysqlRows, request: &LookUp) -> Result<Found, SourceError> {
    tokio::time::timeout(SOON, reader.look_up(request)).await.expect("in time")
}

async fn both() -> [World; 2] {
    [World::mysql(&[]).await, World::mariadb(&[]).await]
}

/// The rows in words.
fn rows(found: &Found) -> Vec<String> {
    found.batch.changes.iter().map(|change| of(&found.batch, change).text).collect()
}

#[tokio::test]
async fn rows_of_values_come_by_their_key_as_a_chunk_has_them() {
    for world in both().await {
        world
            .run(
                "create table t(b int, a int, v bigint, n decimal(9,2), s varchar(9), primary key (a, b), key(v));
                 insert into t values (2, 9, 1, 0.25, 'x'), (1, 9, 2, 7, null), (3, 1, 1, -1, 'y'), (0, 100, 3, 0, 'z')",
            )
            .await;
        // The index on v gives its rows in another order.
        for doubled in 0..11 {
            world.run(&format!("insert into t select b, a + {}, v, n, s from t where v = 3", 1 << doubled)).await;
        }
        world.run("analyze table t").await;
        let mut reader = reader(&world.connector).await;
        let all = super::harness::rows(&[chunk(&mut reader, &request("t", 9)).await.expect("reads")]);
        for _ in 0..2 {
            let found = found(&mut reader, &values("t", "v", &["2", "77", "1"])).await.expect("rows");
            assert_eq!(rows(&found), all[..3]);
            assert!(found.is_whole && found.read_at > 0);
        }
        let none = found(&mut reader, &values("t", "v", &["99"])).await.expect("none");
        assert!(none.batch.changes.is_empty() && none.is_whole);
        let error = found(&mut reader, &values("t", "nothing", &["1"])).await.expect_err("no column");
        assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1609"));
        assert!(error.what.contains("nothing"), "{}", error.what);
        let error = found(&mut reader, &values("gone", "v", &["1"])).await.expect_err("no table");
        assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1601"));
    }
}

/// What the log says of the first row of a table: the value of its last column, and the row in words.
async fn logged(world: &World, from: &figvine_change::Position) -> (Sought, String) {
    let mut source = world.open(from).await.expect("opens");
    let found = loop {
        let batch = next(&mut source).await.expect("reads").expect("goes on");
        let row = batch.changes.iter().find_map(|change| match &change.body {
            Body::Row(row) => Some((row, change)),
            _ => None,
        });
        let Some((row, change)) = row else { continue };
        let table = batch.table(row.table).expect("a table");
        let Some(Cell::Value(range)) = batch.row(row.after.expect("a row")).last() else { panic!("a value") };
        let (raw, mut json) = (batch.bytes(range), Vec::new());
        table.columns.last().expect("a column").codec.write_json(raw, &mut json).expect("a value");
        let json = String::from_utf8(json).expect("UTF-8").into();
        break (Sought { raw: raw.into(), json }, of(&batch, change).text);
    };
    source.close().await;
    found
}

async fn every_type(world: &World, types: &[(&str, &[&str])]) {
    let mut client = world.client().await;
    client.query_drop("set sql_mode = '', time_zone = '+00:00', names utf8mb4").await.expect("settings");
    let mut rows_reader = reader(&world.connector).await;
    for (at, (declared, list)) in types.iter().enumerate() {
        let table = format!("v{}{at}", declared.len());
        let from = world.here().await;
        let create = format!("create table {table}(id int auto_increment primary key, v {declared} not null)");
        client.query_drop(&create).await.unwrap_or_else(|e| panic!("{create}: {e}"));
        for value in *list {
            let insert = format!("insert into {table}(v) values ({value})");
            client.query_drop(&insert).await.unwrap_or_else(|e| panic!("{insert}: {e}"));
        }
        let (value, text) = logged(world, &from).await;
        let asked = LookUp { values: vec![value.clone()], ..values(&table, "v", &[]) };
        let found = found(&mut rows_reader, &asked).await;
        let found = found.unwrap_or_else(|e| panic!("{declared}, {value:?}: {e} {:?}", e.source));
        assert_eq!(rows(&found), [text.replacen("insert", "read", 1)], "{declared}, {value:?}");
    }
}

#[tokio::test]
async fn a_value_of_any_type_finds_its_row_by_what_the_log_says_of_it() {
    for world in both().await {
        every_type(&world, VALUES).await;
        if !world.is_mysql() {
            every_type(&world, MARIADB_VALUES).await;
        }
    }
}

#[tokio::test]
async fn a_value_of_another_type_that_fits_finds_the_row() {
    for world in both().await {
        world
            .run(
                "create table t(id int primary key, big bigint, dec_ decimal(9,2), bits bit(8), e enum('x','7'), day datetime,
                 word varchar(9) character set latin1);
                 insert into t values (1, 7, 7, 7, '7', '2026-11-28', '7'), (2, 8, 8, 8, 'x', '2026-11-29', 'é')",
            )
            .await;
        let mut reader = reader(&world.connector).await;
        for (column, json, id) in [
            ("big", "7", 1),
            ("big", "\"7\"", 1),
            ("dec_", "7", 1),
            ("dec_", "\"7.000\"", 1),
            ("bits", "7", 1),
            ("bits", "\"00001000\"", 2),
            ("e", "7", 1),
            ("word", "7", 1),
            ("word", "\"\\u00e9\"", 2),
            ("day", "\"2026-11-29\"", 2),
            ("day", "\"2026-11-29T00:00:00Z\"", 2),
        ] {
            let found = found(&mut reader, &values("t", column, &[json])).await;
            let found = rows(&found.unwrap_or_else(|e| panic!("{column} {json}: {e}")));
            assert!(found.len() == 1 && found[0].starts_with(&format!("read shop.t id={id} ")), "{column}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_value_that_the_column_cannot_have_is_refused_and_shown_to_nobody() {
    for world in both().await {
        world
            .run(
                "create table t(id int primary key, d date, e enum('x'), b bit(3), w varchar(9) character set latin1, j json, p point);
                 insert into t(id, d) values (5, '2026-11-28')",
            )
            .await;
        let mut reader = reader(&world.connector).await;
        let mut bad = vec![
            ("id", "\"secret\""),
            ("id", "\"5 or 1\""),
            ("id", "null"),
            ("id", "{\"a\":1}"),
            ("d", "\"nope\""),
            ("d", "20420"),
            ("e", "\"unknown\""),
            ("b", "\"10123\""),
            ("w", "\"a😀\""),
            ("w", "\"broken"),
            ("w", "[1,2]"),
            ("j", "\"anything\""),
            ("p", "\"anything\""),
        ];
        if world.is_mysql() {
            bad.push(("d", "\"2026-02-30\""));
        }
        for (column, json) in bad {
            let error =
                match found(&mut reader, &values("t", column, &["5", json][usize::from(column != "id")..])).await {
                    Ok(found) => panic!("{column} {json}: {:?}", rows(&found)),
                    Err(error) => error,
                };
            assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1609"), "{column} {json}: {error:?}");
            assert!(
                error.what.contains("shop.t") && error.what.contains(&format!("column {column}")),
                "{}",
                error.what
            );
            assert!(error.hint.is_some() && !format!("{error:?}").contains(json.trim_matches('"')), "{error:?}");
        }
        // What no row has is no fault, and the reader goes on.
        assert!(found(&mut reader, &values("t", "id", &["99999999999"])).await.expect("none").batch.changes.is_empty());
        assert_eq!(found(&mut reader, &values("t", "id", &["5"])).await.expect("a row").batch.changes.len(), 1);
    }
}

#[tokio::test]
async fn more_rows_than_may_be_held_are_told_as_such_and_leave_the_reader_able() {
    for world in both().await {
        world
            .run(
                "create table t(id int primary key, v int, b longtext);
                 insert into t values (0, 2, repeat('y', 5000)), (1, 1, repeat('x', 1000)), (2, 1, repeat('x', 1000))",
            )
            .await;
        for doubled in 1..12 {
            world.run(&format!("insert into t select id + {}, v, b from t where v = 1", 1 << doubled)).await;
        }
        let mut reader = reader(&world.connector).await;
        for (value, bytes, is_whole) in
            [("1", 50_000, false), ("2", 4_000, false), ("2", 6_000, true), ("1", 16 << 20, true)]
        {
            let found = found(&mut reader, &LookUp { bytes, ..values("t", "v", &[value]) }).await.expect("rows");
            assert_eq!(found.is_whole, is_whole, "{value} in {bytes}");
            assert!(found.batch.data.len() <= bytes);
            assert_eq!(chunk(&mut reader, &request("t", 3)).await.expect("reads").cursors.len(), 3);
        }
    }
}

#[tokio::test]
async fn a_look_up_takes_the_table_as_it_is_and_leaves_a_pass_alone() {
    for world in both().await {
        world.run("create table t(id int primary key, v int);\ninsert into t values (1, 7), (2, 8)").await;
        world.run("create table k(v int, w int);\ninsert into k values (1, 1), (2, 2), (1, 3), (3, 4)").await;
        let connector = world.configured(|config| config.keyless = Keyless::WholeRow);
        let mut reader = reader(&connector).await;
        let first = chunk(&mut reader, &request("k", 2)).await.expect("reads");
        assert_eq!(
            rows(&found(&mut reader, &values("t", "v", &["7"])).await.expect("a row")),
            ["read shop.t id=1 v=7"]
        );
        world.run("alter table t add column w varchar(9) not null default 'new' first").await;
        assert_eq!(
            rows(&found(&mut reader, &values("t", "v", &["7"])).await.expect("a row")),
            ["read shop.t w=\"new\" id=1 v=7"]
        );
        assert_eq!(found(&mut reader, &values("k", "v", &["1"])).await.expect("rows").batch.changes.len(), 2);
        let after = Cursor::parse(cursors(&first).last().expect("a place"));
        let second = chunk(&mut reader, &ChunkRequest { after, ..request("k", 9) }).await.expect("goes on");
        assert_eq!(second.batch.changes.len(), 2);
    }
}

/// How many rows the server went on to, in indexes and tables, since it was started.
async fn gone_through(client: &mut Conn) -> i64 {
    let sql = "show global status where variable_name in ('Handler_read_next', 'Handler_read_rnd_next')";
    let counters: Vec<(String, i64)> = client.query(sql).await.expect("status");
    assert_eq!(counters.len(), 2);
    counters.into_iter().map(|(_, count)| count).sum()
}

#[tokio::test]
async fn the_column_s_own_index_finds_the_rows_in_every_character_set_and_collation() {
    for world in both().await {
        let mut client = world.client().await;
        let columns = [
            ("v", "bigint", "a * 7919 % 65537"),
            ("l", "varchar(20) character set latin1", "concat('l', v)"),
            ("b", "varchar(20) character set utf8mb4 collate utf8mb4_bin", "concat('b', v)"),
            ("c", "varchar(20) character set utf8mb4 collate utf8mb4_unicode_ci", "concat('c', v)"),
            ("u", "varchar(20) character set utf16", "concat('u', v)"),
            ("n", "binary(8)", "concat('n', v)"),
        ];
        let declared: Vec<_> = columns.iter().map(|(name, kind, _)| format!("{name} {kind}, key({name})")).collect();
        let create = format!("create table t(a int primary key, {})", declared.join(", "));
        client.query_drop(&create).await.unwrap_or_else(|e| panic!("{create}: {e}"));
        client.query_drop("insert into t(a) values (0)").await.expect("a row");
        for doubled in 0..15 {
            client.query_drop(format!("insert into t(a) select a + {} from t", 1 << doubled)).await.expect("rows");
        }
        let sets: Vec<_> = columns.iter().map(|(name, _, value)| format!("{name} = {value}")).collect();
        client.query_drop(format!("update t set {}", sets.join(", "))).await.expect("values");
        client.query_drop("analyze table t").await.expect("statistics");
        let mut reader = reader(&world.connector).await;
        found(&mut reader, &values("t", "v", &["0"])).await.expect("the shape");
        for (column, kind, _) in columns {
            let texts = [7919, 15838].map(|n| if column == "v" { n.to_string() } else { format!("{column}{n}") });
            let sought = |text: &String| match column {
                "v" => sought(text),
                _ => Sought { raw: text.as_bytes().into(), json: format!("\"{text}\"").into() },
            };
            let asked = LookUp { values: texts.iter().map(sought).collect(), ..values("t", column, &[]) };
            let before = gone_through(&mut client).await;
            let found = found(&mut reader, &asked).await.expect("rows");
            let after = gone_through(&mut client).await;
            assert_eq!(found.batch.changes.len(), 2, "{kind}");
            assert!(after - before < 500, "{} rows of 32768 were looked at, by {kind}", after - before);
        }
    }
}

#[tokio::test]
async fn a_look_up_waits_for_a_commit_that_the_log_has_told_and_that_no_snapshot_shows_yet() {
    for world in both().await {
        let mut client = world.client().await;
        client.query_drop("create table t(id int primary key, v int)").await.expect("a table");
        client.query_drop("insert into t values (1, 0)").await.expect("a row");
        let side = if world.is_mysql() { "source" } else { "master" };
        if world.is_mysql() {
            let install = "install plugin rpl_semi_sync_source soname 'semisync_source.so'";
            client.query_drop(install).await.expect("the plugin that MySQL comes with");
        }
        for setting in ["wait_point = after_sync", "timeout = 3600000", "enabled = on"] {
            let sql = format!("set global rpl_semi_sync_{side}_{setting}");
            client.query_drop(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        let from = world.here().await;
        let mut source = world.open(&from).await.expect("opens");
        // Before the log tells of it: opening a reader waits too.
        let mut rows_reader = reader(&world.connector).await;
        let mut writer = world.client().await;
        let stuck = tokio::spawn(async move { writer.query_drop("update t set v = 1 where id = 1").await });
        let behind = loop {
            let batch = next(&mut source).await.expect("reads").expect("goes on");
            let told = batch.changes.iter().find(|change| matches!(change.body, Body::Row(_)));
            if let Some(change) = told {
                break batch.transaction(change).expect("a transaction").clone();
            }
        };
        let shown: Option<i32> = client.query_first("select v from t").await.expect("a row");
        assert_eq!(shown, Some(0));
        // What is behind another transaction, or behind what is none, waits for nothing.
        for behind in [transaction("", ""), transaction("binlog.000001:4", "")] {
            let found = found(&mut rows_reader, &LookUp { behind: vec![behind], ..values("t", "id", &["1"]) })
                .await
                .expect("a row");
            assert_eq!(rows(&found), ["read shop.t id=1 v=0"]);
        }
        let asked = LookUp { behind: vec![behind], ..values("t", "id", &["1"]) };
        let looking = tokio::spawn(async move { found(&mut rows_reader, &asked).await.expect("a row") });
        let look = if world.is_mysql() { "Com_select" } else { "Com_begin" };
        let count = async |client: &mut Conn| {
            let row: Option<(String, i64)> =
                client.query_first(format!("show global status like '{look}'")).await.expect("status");
            row.expect("a counter").1
        };
        let before = count(&mut client).await;
        let mut watcher = world.client().await;
        wait_for("looks", SOON, async || (count(&mut watcher).await > before + 3).then_some(())).await.expect("looks");
        assert!(!looking.is_finished(), "it did not wait");
        client.query_drop(format!("set global rpl_semi_sync_{side}_enabled = off")).await.expect("lets go");
        let found = tokio::time::timeout(SOON, looking).await.expect("in time").expect("no panic");
        assert_eq!(rows(&found), ["read shop.t id=1 v=1"]);
        stuck.await.expect("no panic").expect("commits");
        source.close().await;
    }
}
