//! A value has the same JSON from the log and from a chunk.

use figvine_change::{Body, ChunkReader, Connector};

use super::world::{World, json, request, rows, until};

/// Types, and values of them as SQL.
const VALUES: &[(&str, &str)] = &[
    ("bool", "true"),
    ("int2", "-32768"),
    ("int8", "-9223372036854775808"),
    ("oid", "'4294967295'"),
    ("float4", "0.1"),
    ("float4", "'1e-45'"),
    ("float8", "0.1::float8 + 0.2"),
    ("float8", "'-0'"),
    ("float8", "'NaN'"),
    ("numeric", "'NaN'"),
    ("numeric(5,-2)", "12345"),
    ("numeric", "repeat('9', 131072)::numeric"),
    ("money", "'-1234.11'"),
    ("text", "E'a\\tb\\r\\n\"\\\\ \\u00e4\\U0001F600\\x01\\x08\\x0b\\x0c'"),
    ("text", "''"),
    ("text", "E'\\\\N'"),
    ("text", "repeat('0123456789', 100000)"),
    ("char(4)", "'a'"),
    ("\"char\"", "'\\'"),
    ("citext", "'MiXed'"),
    ("xml", "'<a b=\"c\">d</a>'"),
    ("mood", "'so so'"),
    ("bytea", "'\\x00ff10'"),
    ("bytea", "''"),
    ("json", "'{\"b\": 1E+30,   \"a\": 1.10}'"),
    ("jsonb", "'{\"b\": [1.10, 18446744073709551615, \"x\\u00e4\"], \"a\": null}'"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"),
    ("inet", "'::1'"),
    ("cidr", "'10.0.0.0/8'"),
    ("macaddr8", "'08:00:2b:01:02:03:04:05'"),
    ("pg_lsn", "'16/B374D848'"),
    ("tsvector", "'''a'':1A fat:2B'"),
    ("tsquery", "'fat & (rat | !cat:*)'"),
    ("bit(7)", "B'1000000'"),
    ("varbit", "B'101'"),
    ("point", "'(1,-2.5)'"),
    ("box", "'(1,2),(3,4)'"),
    ("path", "'((1,2),(3,4))'"),
    ("circle", "'<(1,2),3>'"),
    ("date", "'4713-01-01 BC'"),
    ("date", "'infinity'"),
    ("time", "'24:00:00'"),
    ("timetz", "'23:59:59+02'"),
    ("timestamp", "'294276-12-31 23:59:59.999999'"),
    ("timestamptz", "'2026-11-23 09:00:00.5+05:30'"),
    ("timestamptz", "'1883-11-18 11:00:00 America/New_York'"),
    ("interval", "'-1 year 2 mons -3 days +04:05:06'"),
    ("int4[]", "'[-1:0][3:4]={{1,2},{3,4}}'"),
    ("text[]", "array['a,b', '', 'NULL', null, E'q\"\\\\', ' x ', '{}']"),
    ("bytea[]", "array['\\x00ff'::bytea, '']"),
    ("box[]", "'{(3,4),(1,2);(7,8),(5,6)}'"),
    ("mood[]", "'{sad,\"so so\"}'"),
    ("positive", "7"),
    ("prices", "array[1.10, 2]::numeric[]"),
    ("place", "row('Main \"St\", 1', array[1,2], '2026-11-23 09:00+00', null, 7, '\\x00')::place"),
    ("nested", "row(1, row('x', null, null, '', 1, null)::place)::nested"),
    ("nested[]", "array[row(1, null)::nested]"),
    ("tsrange", "'[2019-03-31 15:30:00,infinity)'"),
    ("int4multirange", "'{[1,2),[2,3),[8,9)}'"),
    ("floats", "'[1.5,2.5)'"),
    ("hstore", "'a=>1, \"b \\\"c\"=>NULL, e=>\"\"'"),
    ("ltree", "'a.b_c.d'"),
    ("cube", "'(1,2),(3,4)'"),
    ("regclass", "'public.first'"),
    ("regtype", "'mood'"),
    ("xid8", "'18446744073709551615'"),
    ("jsonpath", "'$.a[*] ? (@ > 1)'"),
    ("int2vector", "'1 2 3'"),
];

const TYPES: &str = "
    create extension hstore; create extension citext; create extension ltree; create extension cube;
    create table first(id int primary key);
    create type mood as enum ('sad', 'so so', 'glad');
    create domain positive as int check (value > 0);
    create domain prices as numeric[];
    create type place as (street text, list int[], at timestamptz, none text, p positive, b bytea);
    create type nested as (n int, \"inner one\" place);
    create type floats as range (subtype = float8);";

/// What an administrator may have set, and must not reach a value.
const HOSTILE: &str = "
    alter database postgres set datestyle = 'German'; alter database postgres set intervalstyle = 'postgres_verbose';
    alter database postgres set bytea_output = 'escape'; alter database postgres set extra_float_digits = 0;
    alter database postgres set timezone = 'Asia/Kolkata'; alter database postgres set search_path = 'public';
    alter role postgres set datestyle = 'SQL, DMY'; alter role postgres set bytea_output = 'escape';
    alter role postgres set standard_conforming_strings = off; alter role postgres set xmlbinary = 'hex';
    alter role postgres set quote_all_identifiers = on; alter role postgres set default_transaction_read_only = on;
    alter role postgres set default_transaction_isolation = 'serializable'; alter role postgres set row_security = on;";

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_any_type_has_the_same_columns_and_the_same_json_from_the_log_and_from_a_chunk() {
    let world = World::start().await;
    world.run(TYPES).await;
    let columns: Vec<String> = VALUES.iter().enumerate().map(|(at, (kind, _))| format!("v{at} {kind}")).collect();
    world
        .run(&format!(
            "create table t(g int generated always as (id + 1) stored, id int primary key, {}, gone int, z text)",
            columns.join(", ")
        ))
        .await;
    world.run("alter table t drop gone").await;
    let (connector, mut source) = world.open().await;
    let values: Vec<String> = VALUES.iter().map(|(kind, value)| format!("({value})::{kind}")).collect();
    let names: Vec<String> = (0..VALUES.len()).map(|at| format!("v{at}")).collect();
    world.run(&format!("insert into t(id, {}) values (1, {})", names.join(", "), values.join(", "))).await;
    world.run("insert into t(id) values (2)").await;
    world.run(HOSTILE).await;
    let mut from_log = Vec::new();
    let mut shape = None;
    until(&mut source, |batch| {
        for change in &batch.changes {
            if let Body::Row(row) = &change.body {
                from_log.push(json(batch, row.table, row.after.expect("a row")));
                shape = batch.table(row.table).cloned();
            }
        }
        from_log.len() == 2
    })
    .await;
    let mut reader = connector.reader().await.expect("a reader");
    for _ in 0..2 {
        let chunk = reader.read(&request("public", "t", 10)).await.expect("a chunk");
        for (from_log, from_chunk) in from_log.iter().zip(rows(&chunk.batch)) {
            if *from_log != from_chunk {
                let at =
                    from_log.bytes().zip(from_chunk.bytes()).take_while(|(a, b)| a == b).count().saturating_sub(40);
                let part = |text: &str| text.chars().skip(at).take(200).collect::<String>();
                panic!("{}\nin place of\n{}", part(&from_chunk), part(from_log));
            }
        }
        assert_eq!(chunk.batch.changes.len(), 2);
        assert!(chunk.batch.tables[0].has_shape_of(shape.as_ref().expect("a shape")));
        assert_eq!(chunk.batch.tables[0].key, shape.as_ref().expect("a shape").key);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_s_column_list_and_row_filter_hold_for_chunks_too() {
    let world = World::start().await;
    world
        .run(
            "create table t(a int primary key, b int, c int); insert into t select n, n, n from generate_series(1, 6) n;
             create table o(a int primary key, b int); insert into o values (1, 1);
             create publication figvine_shop for table t (a, c) where (a > 2 and c <> 5), o",
        )
        .await;
    let mut reader = world.reader().await;
    let chunk = reader.read(&request("public", "t", 10)).await.expect("a chunk");
    assert_eq!(rows(&chunk.batch), [3, 4, 6].map(|n| format!(r#"{{"a":{n},"c":{n}}}"#)));
}
