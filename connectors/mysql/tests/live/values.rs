//! Values of every type, their extremes, against what the server itself says of them.

use figvine_mysql::config::ZeroDate;
use figvine_sandbox::mysql_async::prelude::Queryable as _;

use super::harness::{World, chunks, reader, request, rows, shape, told};

/// Types that both have: declaration, values as SQL, and as JSON.
const TYPES: &[(&str, &[(&str, &str)])] = &[
    ("tinyint", &[("-128", "-128"), ("127", "127"), ("-1", "-1")]),
    ("tinyint unsigned", &[("0", "0"), ("255", "255")]),
    ("tinyint(1)", &[("1", "1"), ("-7", "-7")]),
    ("smallint", &[("-32768", "-32768"), ("32767", "32767")]),
    ("smallint unsigned", &[("65535", "65535")]),
    ("mediumint", &[("-8388608", "-8388608"), ("8388607", "8388607"), ("-1", "-1")]),
    ("mediumint unsigned", &[("16777215", "16777215")]),
    ("int", &[("-2147483648", "-2147483648"), ("2147483647", "2147483647")]),
    ("int unsigned zerofill", &[("4294967295", "4294967295"), ("7", "7")]),
    ("bigint", &[("-9223372036854775808", "-9223372036854775808"), ("9223372036854775807", "9223372036854775807")]),
    ("bigint unsigned", &[("18446744073709551615", "18446744073709551615")]),
    (
        "decimal(65,30)",
        &[
            (
                "99999999999999999999999999999999999.999999999999999999999999999999",
                "\"99999999999999999999999999999999999.999999999999999999999999999999\"",
            ),
            ("-0.000000000000000000000000000001", "\"-0.000000000000000000000000000001\""),
            ("0", "\"0.000000000000000000000000000000\""),
        ],
    ),
    ("decimal(10,0)", &[("-9999999999", "\"-9999999999\"")]),
    ("decimal(5,5)", &[("0.00001", "\"0.00001\"")]),
    ("float", &[("3.4028235e38", "3.4028235e38"), ("-0.1", "-0.1"), ("1e-37", "1e-37"), ("16777217", "16777216")]),
    ("double", &[("1.7976931348623157e308", "1.7976931348623157e308"), ("0.1", "0.1"), ("-2.5e-300", "-2.5e-300")]),
    ("bit(1)", &[("b'1'", "true"), ("b'0'", "false")]),
    ("bit(10)", &[("b'1000000001'", "\"1000000001\"")]),
    (
        "bit(64)",
        &[(
            "b'1111111111111111111111111111111111111111111111111111111111111110'",
            "\"1111111111111111111111111111111111111111111111111111111111111110\"",
        )],
    ),
    ("year", &[("1901", "1901"), ("2155", "2155"), ("'0000'", "0"), ("'18'", "2018")]),
    (
        "date",
        &[
            ("'0001-01-01'", "\"0001-01-01\""),
            ("'9999-12-31'", "\"9999-12-31\""),
            ("'0000-00-00'", "\"0000-00-00\""),
            ("'2026-00-00'", "\"2026-00-00\""),
            ("'2024-02-29'", "\"2024-02-29\""),
        ],
    ),
    ("time", &[("'-838:59:59'", "\"-838:59:59\""), ("'838:59:59'", "\"838:59:59\""), ("'00:00:00'", "\"00:00:00\"")]),
    ("time(6)", &[("'-838:59:58.999999'", "\"-838:59:58.999999\""), ("'-00:00:00.000001'", "\"-00:00:00.000001\"")]),
    ("time(3)", &[("'-01:01:01.001'", "\"-01:01:01.001\""), ("'12:00:00.5'", "\"12:00:00.500\"")]),
    (
        "datetime",
        &[
            ("'1000-01-01 00:00:00'", "\"1000-01-01T00:00:00\""),
            ("'9999-12-31 23:59:59'", "\"9999-12-31T23:59:59\""),
            ("'0000-00-00 00:00:00'", "\"0000-00-00T00:00:00\""),
        ],
    ),
    ("datetime(6)", &[("'2026-11-23 09:00:00.123456'", "\"2026-11-23T09:00:00.123456\"")]),
    (
        "timestamp",
        &[("'1970-01-01 00:00:01'", "\"1970-01-01T00:00:01Z\""), ("'2038-01-19 03:14:07'", "\"2038-01-19T03:14:07Z\"")],
    ),
    ("timestamp(6)", &[("'2026-11-23 09:00:00.000001'", "\"2026-11-23T09:00:00.000001Z\"")]),
    ("char(5)", &[("'ab'", "\"ab\""), ("''", "\"\""), ("'äöü€😀'", "\"äöü€😀\"")]),
    ("char(255)", &[("repeat('😀', 255)", "")]),
    ("varchar(300)", &[("'tail  '", "\"tail  \""), ("repeat('€', 300)", "")]),
    ("varchar(20) character set latin1", &[("'äÿ€'", "\"äÿ€\"")]),
    ("varchar(20) character set utf16", &[("'ä😀'", "\"ä😀\"")]),
    ("varchar(20) character set cp1251", &[("'Привет'", "\"Привет\"")]),
    ("varchar(20) character set sjis", &[("'日本'", "\"日本\"")]),
    ("varchar(20) character set ucs2", &[("'äж'", "\"äж\"")]),
    ("tinytext", &[("'t'", "\"t\"")]),
    ("text", &[("'line\\nnext\\t\"quoted\"\\\\'", "\"line\\nnext\\t\\\"quoted\\\"\\\\\"")]),
    ("mediumtext", &[("repeat('x', 70000)", "")]),
    ("longtext", &[("'l'", "\"l\"")]),
    ("binary(4)", &[("x'6100'", "\"YQAAAA==\""), ("x'00000000'", "\"AAAAAA==\"")]),
    ("varbinary(300)", &[("x'00ff'", "\"AP8=\""), ("''", "\"\"")]),
    ("blob", &[("x'deadbeef'", "\"3q2+7w==\"")]),
    ("longblob", &[("''", "\"\"")]),
    ("enum('a,b','c''d','ü')", &[("'a,b'", "\"a,b\""), ("'c''d'", "\"c'd\""), ("'ü'", "\"ü\""), ("99", "\"\"")]),
    ("set('a','b','c')", &[("'c,a'", "[\"a\",\"c\"]"), ("''", "[]")]),
    ("geometry", &[("st_geomfromtext('POINT(1 2)')", "{\"srid\":0,\"wkb\":\"AQEAAAAAAAAAAADwPwAAAAAAAABA\"}")]),
];

/// What one of both has alone.
const MYSQL: &[(&str, &[(&str, &str)])] = &[
    (
        "json",
        &[
            (
                "'{\"b\": [1, 2.5, null, true, \"x\"], \"a\": 18446744073709551615}'",
                "{\"a\":18446744073709551615,\"b\":[1,2.5,null,true,\"x\"]}",
            ),
            ("json_object('d', cast('12.340' as decimal(10,3)), 't', cast('10:11:12.5' as time(1)))", ""),
            ("cast(-9223372036854775808 as json)", "-9223372036854775808"),
            ("'null'", "null"),
        ],
    ),
    ("vector(3)", &[("to_vector('[1, -2.5, 0]')", "[1,-2.5,0]")]),
    ("int invisible", &[("5", "5")]),
];

const MARIADB: &[(&str, &[(&str, &str)])] = &[
    (
        "json",
        &[
            ("'{\"b\": 1.50, \"a\": [18446744073709551615]}'", "{\"b\":1.50,\"a\":[18446744073709551615]}"),
            ("'null'", "null"),
        ],
    ),
    ("uuid", &[("'123e4567-e89b-12d3-a456-426655440000'", "\"123e4567-e89b-12d3-a456-426655440000\"")]),
    ("inet6", &[("'::'", "\"::\""), ("'2001:db8::ff00:42:8329'", "\"2001:db8::ff00:42:8329\"")]),
    ("inet4", &[("'192.168.0.0'", "\"192.168.0.0\"")]),
    ("varchar(300) compressed", &[("repeat('z', 300)", ""), ("''", "\"\"")]),
    ("text compressed", &[("repeat('z', 3000)", "")]),
    ("int invisible", &[("5", "5")]),
];

async fn every_type(world: &World, own: &[(&str, &[(&str, &str)])]) {
    let mut client = world.client().await;
    client.query_drop("set sql_mode = '', time_zone = '+05:00', names utf8mb4").await.expect("settings");
    let mut reader = reader(&world.connector).await;
    let mut at = 0;
    for (declared, values) in TYPES.iter().chain(own) {
        at += 1;
        let table = format!("t{at}");
        // A column on either side: a length that is wrong shows in the next one.
        let create = format!(
            "create table {table}(id int primary key, x {declared}, y {declared}, after_all varchar(10)) character set utf8mb4"
        );
        client.query_drop(&create).await.unwrap_or_else(|e| panic!("{create}: {e}"));
        let from = world.here().await;
        let mut expected = Vec::new();
        for (id, (sql, json)) in values.iter().enumerate() {
            // A zone shifts what is told of timestamps, not what is written of them.
            let zone = if declared.starts_with("timestamp") { "+00:00" } else { "+05:00" };
            client.query_drop(format!("set time_zone = '{zone}'")).await.expect("a zone");
            let insert = format!("insert into {table}(id, x, y, after_all) values ({id}, {sql}, null, 'end')");
            client.query_drop(&insert).await.unwrap_or_else(|e| panic!("{declared}: {insert}: {e}"));
            let json = match *json {
                "" => {
                    let select = format!("select cast(x as char character set utf8mb4) from {table} where id = {id}");
                    let text: String = client.query_first(select).await.expect("a value").expect("a row");
                    if *declared == "json" {
                        text.replace(' ', "")
                    } else {
                        serde_json::to_string(&text).expect("JSON")
                    }
                }
                json => json.to_owned(),
            };
            expected.push(format!("insert shop.{table} id={id} x={json} y=null after_all=\"end\""));
        }
        let told = world.told(&from).await.expect("reads");
        let (shapes, told): (Vec<_>, Vec<_>) = told.into_iter().partition(|told| told.is_shape);
        let told: Vec<_> = told.into_iter().map(|told| told.text).collect();
        assert_eq!(told.len(), expected.len());
        // The rows, read without the log, have the same bytes.
        let read = chunks(&mut reader, &request(&table, 100)).await;
        let as_inserted: Vec<_> = rows(&read).iter().map(|row| row.replacen("read ", "insert ", 1)).collect();
        assert_eq!(as_inserted, told, "{declared}");
        let read_shape = &read.first().expect("a chunk").batch.tables[0];
        assert_eq!(Some(&shape(read_shape)), shapes.first().map(|told| &told.text));
        assert_eq!(read_shape.key, [0]);
        for (told, expected) in told.iter().zip(&expected) {
            assert_eq!(told, expected, "{declared}");
        }
        // As in the row before.
        let from = world.here().await;
        client.query_drop(format!("update {table} set y = x, x = null order by id")).await.expect("updates");
        for (told, inserted) in world.changes(&from).await.iter().zip(&expected) {
            let before = inserted.strip_prefix("insert ").expect("an insert");
            assert!(told.starts_with(&format!("update {before} => ")), "{declared}: {told}");
        }
    }
}

#[tokio::test]
async fn every_type_of_mysql_is_told_as_the_server_tells_it() {
    every_type(&World::mysql(&[]).await, MYSQL).await;
}

#[tokio::test]
async fn every_type_of_mariadb_is_told_as_the_server_tells_it() {
    every_type(&World::mariadb(&[]).await, MARIADB).await;
}

#[tokio::test]
async fn every_type_of_mariadb_is_told_without_metadata_too() {
    every_type(&World::mariadb(&[("binlog_row_metadata", "NO_LOG")]).await, MARIADB).await;
}

#[tokio::test]
async fn every_type_of_mysql_is_told_with_little_metadata_too() {
    every_type(&World::mysql(&[("binlog_row_metadata", "MINIMAL")]).await, MYSQL).await;
}

#[tokio::test]
async fn generated_and_hidden_columns_are_told() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        let from = world.here().await;
        world
            .run(
                "create table t(id int primary key, v int as (id * 2) virtual, s varchar(20) as (concat('n', id)) stored,
                                h int invisible default 3);
                 insert into t(id) values (7)",
            )
            .await;
        assert_eq!(world.changes(&from).await, [r#"insert shop.t id=7 v=14 s="n7" h=3"#]);
    }
}

#[tokio::test]
async fn wide_tables_and_large_sets_and_rows_beyond_a_packet_are_read() {
    for world in
        [World::mysql(&[("max_allowed_packet", "64M")]).await, World::mariadb(&[("max_allowed_packet", "64M")]).await]
    {
        let columns: Vec<_> = (0..600).map(|n| format!("c{n} int")).collect();
        let labels: Vec<_> = (0..64).map(|n| format!("'s{n}'")).collect();
        let many: Vec<_> = (0..300).map(|n| format!("'e{n}'")).collect();
        let from = world.here().await;
        world
            .run(&format!(
                "create table wide(id int primary key, {});\ninsert into wide(id, c599) values (1, 9);
                 create table sets(id int primary key, s set({}), e enum({}));\ninsert into sets values (1, 's63,s0', 'e299');
                 create table long_rows(id int primary key, b longblob);
                 insert into long_rows values (1, repeat('x', 20000000)), (2, 'y')",
                columns.join(", "),
                labels.join(", "),
                many.join(", ")
            ))
            .await;
        let told = world.changes(&from).await;
        assert!(told[0].starts_with("insert shop.wide id=1 c0=null ") && told[0].ends_with(" c598=null c599=9"));
        assert_eq!(told[1], r#"insert shop.sets id=1 s=["s0","s63"] e="e299""#);
        assert!(told[2].len() > 26_000_000, "{}", told[2].len());
        assert_eq!(told[3], r#"insert shop.long_rows id=2 b="eQ==""#);
    }
}

#[tokio::test]
async fn choices_of_how_values_are_written_are_kept() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        let from = world.here().await;
        world
            .run(
                "set sql_mode = '';
                 create table t(id bigint primary key, d decimal(5,2), b tinyint(1), n tinyint(2), z date not null);
                 insert into t values (9007199254740993, 1.50, 1, 1, '0000-00-00')",
            )
            .await;
        let connector = world.configured(|config| {
            config.values.bigint_as_string = true;
            config.values.decimal_as_number = true;
            config.values.tinyint1_as_boolean = true;
            config.values.zero_date = ZeroDate::Null;
        });
        let told = told(&connector, &from).await.expect("reads");
        assert_eq!(
            told.last().map(|told| told.text.as_str()),
            Some(r#"insert shop.t id="9007199254740993" d=1.50 b=true n=1 z=null"#)
        );
    }
}
