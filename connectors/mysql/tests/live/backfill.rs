//! Existing rows: every key, every order, what a snapshot shows, and what stops a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use figvine_change::{Body, Cell, ChunkRequest, Connector, Cursor, ReadOrder, Source, SourceErrorKind, Transaction};
use figvine_mysql::config::Keyless;
use figvine_sandbox::mysql_async::Conn;
use figvine_sandbox::mysql_async::prelude::Queryable;

use super::harness::{World, chunk, chunks, cursors, next, reader, request, rows, run, shape};

async fn both(settings: &[(&str, &str)]) -> [World; 2] {
    [World::mysql(settings).await, World::mariadb(settings).await]
}

/// Keys that both have: their columns, and rows.
const KEYS: &[(&str, &[&str])] = &[
    ("a tinyint", &["(-128)", "(-1)", "(0)", "(127)"]),
    ("a bigint unsigned", &["(0)", "(9223372036854775808)", "(18446744073709551615)"]),
    ("a decimal(30,10)", &["(-12345678901234567890.5)", "(0)", "(0.0000000001)", "(1.5)"]),
    ("a float", &["(-0.1)", "(0.1)", "(0.3)", "(3.4028235e38)", "(1e-37)"]),
    ("a double", &["(-2.5e-300)", "(0.1)", "(0.30000000000000004)", "(1.7976931348623157e308)"]),
    ("a year", &["(0)", "(1901)", "(1970)", "(2069)", "(2155)"]),
    ("a date", &["('0000-00-00')", "('2026-00-00')", "('2026-11-28')", "('9999-12-31')"]),
    ("a time(3)", &["('-838:59:59')", "('-00:00:00.001')", "('00:00:00')", "('12:00:00.5')", "('838:59:59')"]),
    ("a datetime(6)", &["('0000-00-00')", "('2026-11-28 10:00:00.000001')", "('2026-11-28 10:00:00.000002')"]),
    ("a timestamp", &["('0000-00-00')", "('1970-01-01 00:00:01')", "('2026-11-28 10:00:00')"]),
    ("a bit(40)", &["(0)", "(b'1')", "(1099511627775)", "(255)", "(256)"]),
    (
        "a varchar(20) character set utf8mb4",
        &["('')", "('B')", "('a')", "('ö ')", "('😀')", "('zz')", "('a''b')", "('a,b')"],
    ),
    ("a char(9) character set latin1 collate latin1_bin", &["('')", "('B')", "('a')", "('ä')", "('b')", "('a b')"]),
    ("a varchar(9) character set latin1 collate latin1_german2_ci", &["('ae')", "('af')", "('b')", "('Z')", "('ß')"]),
    ("a varchar(9) character set utf16", &["('x')", "('ä')", "('😀')", "('B')"]),
    ("a varchar(9) character set sjis", &["('日本')", "('a')", "('ア')", "('｡')"]),
    ("a binary(3)", &["(x'000000')", "(x'61')", "(x'6120')", "(x'ffffff')"]),
    ("a varbinary(9)", &["('')", "(x'00')", "(x'0000')", "('a')", "('A')", "(x'ff')"]),
    ("a enum('z','y','','0')", &["('z')", "('y')", "('')", "('0')", "(77)"]),
    ("a set('z','y','x')", &["('')", "('z')", "('y')", "('z,y')", "('x')", "('z,x')"]),
    (
        "a int, b varchar(5), c date",
        &["(1,'a','2026-01-01')", "(1,'a','2026-01-02')", "(1,'b','2026-01-01')", "(2,'a','2026-01-01')"],
    ),
    ("a int, b int desc", &["(1,1)", "(1,2)", "(1,3)", "(2,1)", "(2,2)", "(3,9)", "(3,8)"]),
];
const MARIADB_KEYS: &[(&str, &[&str])] = &[
    (
        "a uuid",
        &[
            "('123e4567-e89b-12d3-a456-426655440000')",
            "('023e4567-e89b-12d3-a456-426655440001')",
            "('ffffffff-ffff-ffff-ffff-ffffffffffff')",
            "('00000000-0000-0000-0000-000000000000')",
            "('017f22e2-79b0-7cc3-98c4-dc0c0c07398f')",
        ],
    ),
    ("a inet6", &["('::')", "('::1')", "('::ffff:10.0.0.1')", "('2001:db8::1')", "('fe80::')"]),
    ("a inet4", &["('0.0.0.0')", "('10.0.0.1')", "('9.9.9.9')", "('255.255.255.255')"]),
    ("a varchar(9) character set utf8mb4 collate utf8mb4_nopad_bin", &["('')", "(' ')", "('a')", "('a ')", "('A')"]),
];

/// Names of columns in a key's declaration.
fn columns_of(declared: &str) -> (String, String) {
    let names: Vec<_> = declared.split(", ").map(|column| column.split(' ').next().expect("a name")).collect();
    let parts = declared.split(", ").map(|column| {
        let name = column.split(' ').next().expect("a name");
        if column.ends_with(" desc") { format!("{name} desc") } else { name.to_owned() }
    });
    (names.join(", "), parts.collect::<Vec<_>>().join(", "))
}

async fn every_key(world: &World, keys: &[(&str, &[&str])]) {
    let mut client = world.client().await;
    client.query_drop("set sql_mode = '', time_zone = '+00:00', names utf8mb4").await.expect("settings");
    let mut reader = reader(&world.connector).await;
    for (at, (declared, values)) in keys.iter().enumerate() {
        let (names, order) = columns_of(declared);
        // MariaDB 10.11 keeps the word and a descending index; in a column's declaration it is none.
        let columns = declared.replace(" desc", "");
        for (kind, index) in
            [("p", format!("primary key({order})")), ("u", format!("unique key `odd ``name`({order})"))]
        {
            let table = format!("{kind}{at}");
            let columns: Vec<_> = columns.split(", ").map(|column| format!("{column} not null")).collect();
            let create = format!("create table {table}({}, {index}, v int)", columns.join(", "));
            client.query_drop(&create).await.unwrap_or_else(|e| panic!("{create}: {e}"));
            for (v, value) in values.iter().enumerate() {
                let value = value.trim_end_matches(')');
                let insert = format!("insert into {table}({names}, v) values {value}, {v})");
                client.query_drop(&insert).await.unwrap_or_else(|e| panic!("{insert}: {e}"));
            }
            let sorted = format!("select v from {table} order by {order}");
            let expected: Vec<i32> = client.query(&sorted).await.expect("rows");
            for size in [1, 3] {
                let read = chunks(&mut reader, &request(&table, size)).await;
                let told: Vec<i32> = rows(&read)
                    .iter()
                    .map(|row| row.rsplit_once(" v=").expect("v").1.parse().expect("a number"))
                    .collect();
                assert_eq!(told, expected, "{declared}, {kind}, {size} at a time");
                assert!(read.iter().all(|chunk| chunk.batch.changes.len() <= size as usize));
            }
            // Up to the place of each row.
            let all = cursors(&chunk(&mut reader, &request(&table, 100)).await.expect("reads"));
            for (at, place) in all.iter().enumerate() {
                let upto = ChunkRequest { upto: Cursor::parse(place), ..request(&table, 100) };
                let read = chunk(&mut reader, &upto).await.expect("reads");
                assert_eq!(cursors(&read), all[..=at], "{declared} up to {place}");
                assert!(read.is_last);
            }
        }
    }
}

#[tokio::test]
async fn every_key_of_mysql_orders_all_rows_once() {
    every_key(&World::mysql(&[]).await, KEYS).await;
}

#[tokio::test]
async fn every_key_of_mariadb_orders_all_rows_once() {
    let world = World::mariadb(&[]).await;
    every_key(&world, KEYS).await;
    world.run("drop database shop;\ncreate database shop").await;
    every_key(&world, MARIADB_KEYS).await;
}

/// What a read row says is what the log says of it, and so do the shapes.
async fn read_as_logged(world: &World, create: &str, inserts: &[&str]) -> Vec<String> {
    let from = world.here().await;
    let mut client = world.client().await;
    client.query_drop("set sql_mode = '', time_zone = '+00:00', names utf8mb4").await.expect("settings");
    run(&mut client, create).await;
    for insert in inserts {
        client.query_drop(*insert).await.unwrap_or_else(|e| panic!("{insert}: {e}"));
    }
    let told = world.told(&from).await.expect("reads");
    let read = chunks(&mut reader(&world.connector).await, &request("t", 7)).await;
    let table = &read[0].batch.tables[0];
    assert_eq!(shape(table), told.iter().find(|told| told.is_shape).expect("a shape").text);
    let told: Vec<_> = told.into_iter().filter(|told| !told.is_shape).map(|told| told.text).collect();
    let read = rows(&read);
    assert_eq!(read.len(), told.len());
    for (read, told) in read.iter().zip(&told) {
        assert_eq!(read.strip_prefix("read "), told.strip_prefix("insert "));
    }
    read
}

#[tokio::test]
async fn documents_are_read_as_the_log_has_them() {
    let documents = [
        "'1e100'",
        "'1.0'",
        "'-0.0'",
        "'0.1'",
        "'1e-7'",
        "'1e15'",
        "'123456789012345680.0'",
        "'1.7976931348623157e308'",
        "'5e-324'",
        "'9223372036854775807'",
        "'-9223372036854775808'",
        "'18446744073709551615'",
        "'18446744073709551616'",
        "'-1'",
        "'32768'",
        "'2147483648'",
        "cast(cast('12.340' as decimal(10,3)) as json)",
        "cast(cast('-99999999999999999999999999999999999.999999999999999999999999999999' as decimal(65,30)) as json)",
        "cast(date'2026-11-28' as json)",
        "cast(timestamp'2026-11-28 10:00:00.5' as json)",
        "cast(timestamp'2026-11-28 10:00:00' as json)",
        "cast(time'-838:59:59' as json)",
        "cast(cast('10:11:12.123' as time(3)) as json)",
        "cast(cast(2026 as year) as json)",
        "json_object('b', cast(x'00ff' as binary))",
        "json_array(repeat(x'ab', 300), b'101')",
        "json_array(st_geomfromtext('POINT(1 2)'))",
        "cast('{}' as json)",
        "'[]'",
        "'[[[[]]], {\"\": {}}]'",
        "'\" a \\\\u0000 \\\\u001f \\\\n \\\\\" \\\\\\\\ ü 😀 \\\\u2028 / \"'",
        "json_object('ü', 1, 'a', 2, 'bb', 3, 'A b', json_array(true, false, null))",
        "json_array(repeat('x ', 40000), 70000, 1.5)",
        "json_object('k', repeat('y', 100), 'l', json_array(1, 65536, -65536, 4294967296))",
    ];
    let inserts: Vec<_> = documents.iter().map(|document| format!("insert into t(j) values ({document})")).collect();
    let inserts: Vec<_> = inserts.iter().map(String::as_str).collect();
    let read =
        read_as_logged(&World::mysql(&[]).await, "create table t(id int auto_increment primary key, j json)", &inserts)
            .await;
    assert_eq!(read[1], "read shop.t id=2 j=1.0");
}

#[tokio::test]
async fn every_kind_of_column_is_read_as_the_log_has_it() {
    let columns = "id int auto_increment primary key, f float(7,3) unsigned, d decimal(12,4) unsigned zerofill, v int as (h * 2) virtual,
        s varchar(20) as (concat('n', d)) stored, h int invisible default 3, p point, g geometrycollection, e enum('ä','b') character set latin1,
        st set('x','ü') character set utf8mb4, c char(70) character set utf8mb4, b binary(255), l char(200) character set latin1,
        tb tinyblob, mt mediumtext character set ucs2, lb longblob, m mediumint unsigned, bo bool, y year, ts timestamp(3) null, vb varbinary(3)";
    let create = format!("create table t({columns}) character set utf8mb4");
    let inserts = [
        "insert into t(f, d) values (1.5, 7.25)",
        "insert into t(f, d, h, p, g, e, st, c, b, l, tb, mt, lb, m, bo, y, ts, vb) values (0.1, 0, null, point(1, 2),
         st_geomfromtext('GEOMETRYCOLLECTION(POINT(1 1))', 0), 'ä', 'x,ü', 'ü  ', x'00', 'é', '', 'ж', x'00', 16777215, true, 0, '1970-01-01 00:00:01.001', '')",
        "insert into t(e, st, ts) values ('none', '', 0)",
    ];
    for world in both(&[]).await {
        read_as_logged(&world, &create, &inserts).await;
    }
    let own = "create table t(id int auto_increment primary key, c varchar(300) compressed, t text compressed, u uuid, x inet6, j json,
        un char(9) character set utf8mb4 collate utf8mb4_nopad_bin) with system versioning";
    let inserts = [
        "insert into t(c, t, u, x, j, un) values (repeat('z', 300), repeat('z', 3000), uuid(), '::1', '{ \"a\" : 1.50 }', 'a')",
        "insert into t(c, t) values ('', '')",
    ];
    let world = World::mariadb(&[]).await;
    read_as_logged(&world, own, &inserts).await;
    // Rows of the past are none.
    world.run("update t set c = 'new' where id = 2;\ndelete from t where id = 1").await;
    assert_eq!(rows(&chunks(&mut reader(&world.connector).await, &request("t", 9)).await).len(), 1);
}

#[tokio::test]
async fn keys_of_every_make_are_the_logs() {
    for (columns, insert) in [
        ("a int not null, b int not null, c int, unique key zz(b), unique key aa(c), unique key mm(a, b)", "(1, 2, 3)"),
        ("a int, b varchar(9), c int, primary key(c, a)", "(1, 'x', 3)"),
        ("a int not null, b varchar(9), primary key(b(2)), unique key(a)", "(1, 'x')"),
    ] {
        for world in both(&[]).await {
            let from = world.here().await;
            world.run(&format!("create table t({columns});\ninsert into t values {insert}")).await;
            let mut source = world.open(&from).await.expect("opens");
            let logged = loop {
                let batch = next(&mut source).await.expect("reads").expect("goes on");
                if let Some(table) = batch.tables.first() {
                    break std::sync::Arc::clone(table);
                }
            };
            source.close().await;
            let read = chunk(&mut reader(&world.connector).await, &request("t", 9)).await.expect("reads");
            assert!(read.batch.tables[0].has_shape_of(&logged), "{columns}: {:?} and {logged:?}", read.batch.tables[0]);
        }
    }
}

#[tokio::test]
async fn places_are_as_people_write_them() {
    for world in both(&[]).await {
        world
            .run(
                "create table t(id int, at datetime, name varchar(20), primary key(id, at, name));
                 insert into t values (42, '2026-11-28 10:00:00', 'a/b'), (43, '2026-11-28 10:00:00', 'c')",
            )
            .await;
        let mut reader = reader(&world.connector).await;
        let all = chunk(&mut reader, &request("t", 9)).await.expect("reads");
        assert_eq!(cursors(&all), ["42,2026-11-28%2010:00:00,a%2Fb", "43,2026-11-28%2010:00:00,c"]);
        for bad in ["42", "x,2026-11-28,a", "42,2026-11-28'--,a"] {
            let request = ChunkRequest { after: Cursor::parse(bad), ..request("t", 9) };
            let error = chunk(&mut reader, &request).await.expect_err(bad);
            assert_eq!((error.code, error.kind), ("FV-1604", SourceErrorKind::Invalid), "{bad}");
            assert!(error.hint.expect("a hint").contains("id,at,name"));
        }
    }
}

/// How many rows the server went on to in indexes, since it was started.
async fn gone_through(client: &mut Conn) -> i64 {
    let row: Option<(String, i64)> =
        client.query_first("show global status like 'Handler_read_next'").await.expect("status");
    row.expect("a counter").1
}

#[tokio::test]
async fn a_chunk_reads_no_more_of_the_index_than_it_gives() {
    for world in both(&[]).await {
        let mut client = world.client().await;
        run(
            &mut client,
            "create table t(a int, b int, primary key(a, b));
             insert into t values (0, 0), (0, 1), (1, 0), (1, 1)",
        )
        .await;
        for doubled in 1..12 {
            let sql = format!("insert into t select a + {}, b from t", 1 << doubled);
            client.query_drop(sql).await.expect("rows");
        }
        let mut reader = reader(&world.connector).await;
        chunk(&mut reader, &request("t", 10)).await.expect("reads");
        let before = gone_through(&mut client).await;
        let request = ChunkRequest { after: Cursor::parse("2000,0"), ..request("t", 10) };
        let read = chunk(&mut reader, &request).await.expect("reads");
        assert_eq!(cursors(&read).first().map(String::as_str), Some("2000,1"));
        let rows = gone_through(&mut client).await - before;
        assert!(rows < 200, "{rows} rows of 8192 were looked at");
    }
}

#[tokio::test]
async fn conditions_and_hostile_names_are_kept() {
    for world in both(&[]).await {
        world
            .run(
                "create table `sélect ``from`(`order` int, `a``b` varchar(9), `group by` int, primary key(`order`, `a``b`));
                 insert into `sélect ``from` values (1, 'x', 10), (1, 'y', 20), (2, 'x', 30), (3, 'ä', 40)",
            )
            .await;
        let mut reader = reader(&world.connector).await;
        let all = request("sélect `from", 2);
        let read = rows(&chunks(&mut reader, &all).await);
        assert_eq!(read.len(), 4);
        assert_eq!(read[3], "read shop.sélect `from order=3 a`b=\"ä\" group by=40");
        let some = ChunkRequest {
            condition: Some("`group by` > 10 and `a``b` in ('ä', 'y') -- these".into()),
            ..all.clone()
        };
        assert_eq!(chunks(&mut reader, &some).await.iter().map(|chunk| chunk.batch.changes.len()).sum::<usize>(), 2);
        for bad in ["nothing = 1", "order =", "1 = (select id from shop.nothing)"] {
            let request = ChunkRequest { condition: Some(bad.into()), ..all.clone() };
            let error = chunk(&mut reader, &request).await.expect_err(bad);
            assert_eq!((error.code, error.kind), ("FV-1603", SourceErrorKind::Invalid), "{bad}");
        }
    }
}

#[tokio::test]
async fn a_chunk_holds_no_more_bytes_than_it_may_and_one_row_at_least() {
    for world in both(&[("max_allowed_packet", "64M")]).await {
        world
            .run(
                "create table t(id int primary key, b longblob);
                 insert into t select id, repeat('x', 100000) from (select 1 id union select 2 union select 3 union select 4 union select 5) x;
                 insert into t values (6, repeat('y', 20000000)), (7, 'z')",
            )
            .await;
        let mut reader = reader(&world.connector).await;
        let small = ChunkRequest { bytes: 250_000, ..request("t", 100) };
        let read = chunks(&mut reader, &small).await;
        let sizes: Vec<_> = read.iter().map(|chunk| chunk.batch.changes.len()).collect();
        assert_eq!(sizes, [2, 2, 1, 1, 1]);
        assert!(read.iter().all(|chunk| chunk.batch.data.len() <= 250_000 || chunk.batch.changes.len() == 1));
        let places: Vec<_> = read.iter().flat_map(cursors).collect();
        assert_eq!(places, ["1", "2", "3", "4", "5", "6", "7"]);
    }
}

#[tokio::test]
async fn a_table_without_a_key_is_read_in_one_pass_of_one_snapshot() {
    for world in both(&[]).await {
        world.run("create table t(a int, b varchar(9));\ninsert into t values (1, 'x'), (1, 'x'), (2, null), (3, 'y'), (4, 'z')").await;
        world.run("create table k(id int primary key);\ninsert into k values (1)").await;
        let connector = world.configured(|config| config.keyless = Keyless::WholeRow);
        let orders: Vec<_> = connector.tables().await.expect("tables").into_iter().map(|t| (t.name, t.order)).collect();
        assert_eq!(orders, [("k".into(), ReadOrder::Key), ("t".into(), ReadOrder::OnePass)]);
        let mut reader = reader(&connector).await;
        let first = chunk(&mut reader, &request("t", 2)).await.expect("reads");
        assert_eq!(cursors(&first), ["1", "2"]);
        assert_eq!(first.batch.tables[0].key, [0, 1]);
        assert!(!first.is_last);
        world.run("insert into t values (5, 'new');\nupdate t set b = 'other'").await;
        let then = |place: &str| ChunkRequest { after: Cursor::parse(place), ..request("t", 2) };
        let second = chunk(&mut reader, &then("2")).await.expect("reads");
        let third = chunk(&mut reader, &then("4")).await.expect("reads");
        assert!(third.is_last);
        assert_eq!((&second.high, &third.high), (&first.high, &first.high));
        let read = rows(&[first, second, third]);
        assert_eq!(read.last().map(String::as_str), Some("read shop.t a=4 b=\"z\""), "{read:?}");
        assert_eq!(read.len(), 5);
        // It goes on nowhere but where it is.
        let error = chunk(&mut reader, &then("2")).await.expect_err("interrupted");
        assert_eq!((error.code, error.kind), ("FV-1607", SourceErrorKind::Invalid));
        assert_eq!(chunks(&mut reader, &request("t", 4)).await.iter().map(|c| c.cursors.len()).sum::<usize>(), 6);
        // Another table in its middle leaves it.
        chunk(&mut reader, &request("t", 2)).await.expect("reads");
        assert_eq!(rows(&chunks(&mut reader, &request("k", 2)).await), ["read shop.k id=1"]);
    }
}

#[tokio::test]
async fn tables_that_change_come_in_the_shape_they_have() {
    for world in both(&[]).await {
        world.run("create table t(id int primary key, a varchar(9));\ninsert into t values (1, 'x'), (2, 'y')").await;
        let mut reader = reader(&world.connector).await;
        assert_eq!(rows(&chunks(&mut reader, &request("t", 9)).await)[0], "read shop.t id=1 a=\"x\"");
        world.run("alter table t add column e enum('p','q') not null default 'q' first, drop column a;\ninsert into t values ('p', 3)").await;
        let read = rows(&chunks(&mut reader, &request("t", 2)).await);
        assert_eq!(read, ["read shop.t e=\"q\" id=1", "read shop.t e=\"q\" id=2", "read shop.t e=\"p\" id=3"]);
        world.run("alter table t modify e enum('p','q','r') not null;\nupdate t set e = 'r' where id = 3").await;
        assert_eq!(rows(&chunks(&mut reader, &request("t", 2)).await)[2], "read shop.t e=\"r\" id=3");
        world.run("drop table t").await;
        let error = chunk(&mut reader, &request("t", 2)).await.expect_err("gone");
        assert_eq!((error.code, error.kind), ("FV-1601", SourceErrorKind::Invalid));
    }
}

#[tokio::test]
async fn a_missing_grant_is_named() {
    for world in both(&[]).await {
        world.run("create table t(id int primary key);\ncreate user fig identified by 'fig'").await;
        let replica = if world.is_mysql() { "replication client" } else { "binlog monitor" };
        world.run(&format!("grant replication slave, {replica} on *.* to fig;\ngrant insert on shop.t to fig")).await;
        let url = world.server.url("shop").replacen("root:", "fig:", 1);
        let connector = world.configured(|config| config.url = with_user(&url, "fig", "fig").into());
        let mut reader = reader(&connector).await;
        let error = chunk(&mut reader, &request("t", 2)).await.expect_err("refused");
        assert_eq!((error.code, error.kind), ("FV-1602", SourceErrorKind::Refused));
        assert_eq!(error.hint.as_deref(), Some("GRANT SELECT ON `shop`.`t` TO 'fig'@'%';"));
        world.run("grant select on shop.t to fig").await;
        assert!(chunk(&mut reader, &request("t", 2)).await.expect("reads").is_last);
    }
}

fn with_user(url: &str, user: &str, password: &str) -> String {
    let (scheme, rest) = url.split_once("://").expect("a url");
    let (_, host) = rest.split_once('@').expect("a user");
    format!("{scheme}://{user}:{password}@{host}")
}

#[tokio::test]
async fn a_connection_that_broke_is_told_and_the_next_chunk_has_another() {
    for world in both(&[]).await {
        world.run("create table t(id int primary key);\ninsert into t values (1)").await;
        let mut reader = reader(&world.connector).await;
        chunk(&mut reader, &request("t", 2)).await.expect("reads");
        let mut client = world.client().await;
        // The reader's may still be ending its last statement.
        let others = "select id from information_schema.processlist
                      where id <> connection_id() and command <> 'Daemon' and user not in ('system user', 'event_scheduler')";
        let ids: Vec<u64> = client.query(others).await.expect("ids");
        assert!(!ids.is_empty());
        for id in ids {
            // One that left by itself meanwhile is none.
            let _ = client.query_drop(format!("kill {id}")).await;
        }
        let error = chunk(&mut reader, &request("t", 2)).await.expect_err("broken");
        assert_eq!(error.kind, SourceErrorKind::Unreachable);
        assert_eq!(chunk(&mut reader, &request("t", 2)).await.expect("reads").cursors.len(), 1);
    }
}

#[tokio::test]
async fn an_idle_log_is_reached_at_once() {
    for world in both(&[]).await {
        world.run("create table t(id int primary key);\ninsert into t values (1), (2)").await;
        // Heartbeats come too late to help.
        let connector = world.configured(|config| config.heartbeat = std::time::Duration::from_secs(3600));
        let here = world.here().await;
        let mut source = super::harness::open(&connector, &here).await.expect("opens");
        let mut rows_reader = reader(&connector).await;
        for round in 0..3 {
            let high = chunk(&mut rows_reader, &request("t", 9)).await.expect("reads").high;
            let mut reached: Option<Box<str>> = None;
            while reached.as_ref().is_none_or(|reached| *reached < high) {
                let batch = next(&mut source).await.expect("reads").expect("goes on");
                if batch.reached.is_some() {
                    reached = batch.reached;
                }
            }
            world.run(&format!("insert into t values ({})", 10 + round)).await;
            if round == 1 {
                world.run("flush binary logs;\ncreate table other_of_no_interest(id int)").await;
            }
        }
        source.close().await;
    }
}

/// Counters under writers: what a chunk shows is at least what its sight says, and at most what stands before `high`.
async fn sights_hold(world: &World, samples: usize) {
    world.run("create table counters(id int primary key, n int not null)").await;
    for id in 0..6 {
        world.run(&format!("insert into counters values ({id}, 0)")).await;
    }
    let here = world.here().await;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for id in 0..6 {
        let (mut client, is_over) = (world.client().await, Arc::clone(&is_over));
        writers.push(tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                client.query_drop(format!("update counters set n = n + 1 where id = {id}")).await.expect("counts");
            }
        }));
    }
    let mut rows_reader = reader(&world.connector).await;
    let mut read = Vec::new();
    for _ in 0..samples {
        read.push(chunk(&mut rows_reader, &request("counters", 9)).await.expect("reads"));
    }
    is_over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    // All transactions: which counter each set to what.
    let newest = world.here().await;
    let mut source = world.open(&here).await.expect("opens");
    let mut log: Vec<(Transaction, usize, i32)> = Vec::new();
    let mut reached = here;
    while !world.connector.is_reached(&newest, &reached) {
        let batch = next(&mut source).await.expect("reads").expect("goes on");
        for change in &batch.changes {
            if let Body::Row(row) = &change.body {
                let [Cell::Value(id), Cell::Value(n)] = batch.row(row.after.expect("a row")) else { panic!("values") };
                let number = |bytes: &[u8]| i32::from_le_bytes(bytes.try_into().expect("four bytes"));
                let transaction = batch.transaction(change).expect("a transaction").clone();
                log.push((transaction, number(batch.bytes(id)) as usize, number(batch.bytes(n))));
            }
        }
        if let Some(end) = batch.end {
            reached = end;
        }
    }
    source.close().await;
    let mut exact = 0;
    for chunk in &read {
        let mut shown = [0; 6];
        for change in &chunk.batch.changes {
            let Body::Row(row) = &change.body else { panic!("a row") };
            let [Cell::Value(id), Cell::Value(n)] = chunk.batch.row(row.after.expect("a row")) else {
                panic!("values")
            };
            let number = |bytes: &[u8]| i32::from_le_bytes(bytes.try_into().expect("four bytes"));
            shown[number(chunk.batch.bytes(id)) as usize] = number(chunk.batch.bytes(n));
        }
        let (mut least, mut most) = ([0; 6], [0; 6]);
        for (transaction, id, n) in &log {
            if chunk.sight.shows(transaction) {
                least[*id] = *n;
            }
            if *transaction.sequence < *chunk.high {
                most[*id] = *n;
            }
        }
        exact += usize::from(least == shown);
        for id in 0..6 {
            assert!(least[id] <= shown[id], "{least:?} are said to be shown, {shown:?} are");
            assert!(shown[id] <= most[id], "{shown:?} are shown, and {most:?} stand before {}", chunk.high);
        }
    }

    assert!(log.len() > samples, "the writers wrote: {}", log.len());
    if !world.is_mysql() {
        assert_eq!(exact, read.len(), "MariaDB's snapshots belong to one place");
    }
}

#[tokio::test]
async fn what_a_chunk_shows_lies_between_its_marks_under_writers() {
    sights_hold(&World::mysql(&[]).await, 300).await;
    sights_hold(&World::mariadb(&[]).await, 300).await;
}

#[tokio::test]
async fn what_a_chunk_shows_lies_between_its_marks_without_gtids() {
    sights_hold(&World::mysql(&[("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")]).await, 300).await;
}

#[tokio::test]
async fn load_is_what_others_do() {
    for world in both(&[]).await {
        let here = world.here().await;
        let source = world.open(&here).await.expect("opens");
        let works = async |sessions: u32| {
            // Between two looks the connection of the first has left: while it does, it counts.
            let seen = figvine_sandbox::wait_for("sessions at work", std::time::Duration::from_secs(15), async || {
                (world.connector.load().await.expect("asks").active_sessions == sessions).then_some(())
            });
            seen.await.unwrap_or_else(|e| panic!("{e}: {sessions}"));
        };
        works(0).await;
        let mut client = world.client().await;
        let is_busy = tokio::spawn(async move { client.query_drop("select sleep(20)").await });
        works(1).await;
        is_busy.abort();
        source.close().await;
    }
}
