//! What a row holds is what its events say, digit by digit.

use super::harness::{Event, World};
use serde_json::Value;

/// What a value becomes.
enum Becomes {
    /// These bytes of JSON.
    Json(&'static str),
    /// A string: PostgreSQL's own text.
    Text,
    /// The same JSON that PostgreSQL's `to_jsonb` makes.
    Jsonb,
}
use Becomes::{Json, Jsonb, Text};

/// Type, a literal or expression of it, and what it becomes.
const VALUES: &[(&str, &str, Becomes)] = &[
    ("bool", "true", Json("true")),
    ("int2", "-32768", Json("-32768")),
    ("int4", "2147483647", Json("2147483647")),
    ("int8", "-9223372036854775808", Json("-9223372036854775808")),
    ("oid", "'4294967295'", Json("4294967295")),
    ("float4", "0.1", Json("0.1")),
    ("float4", "'3.4028235e38'", Json("3.4028235e+38")),
    ("float4", "'1e-45'", Json("1e-45")),
    ("float4", "'NaN'", Json("\"NaN\"")),
    ("float8", "0.1::float8 + 0.2", Json("0.30000000000000004")),
    ("float8", "'1.7976931348623157e308'", Json("1.7976931348623157e+308")),
    ("float8", "'5e-324'", Json("5e-324")),
    ("float8", "'-0'", Json("-0")),
    ("float8", "'Infinity'", Json("\"Infinity\"")),
    ("float8", "'-Infinity'", Json("\"-Infinity\"")),
    ("numeric(3,2)", "1.1", Json("\"1.10\"")),
    ("numeric(4,0)", "10.11", Json("\"10\"")),
    ("numeric", "10.1111", Json("\"10.1111\"")),
    ("numeric", "'NaN'", Json("\"NaN\"")),
    ("numeric", "'Infinity'", Json("\"Infinity\"")),
    ("numeric", "'-Infinity'", Json("\"-Infinity\"")),
    ("numeric", "repeat('9', 131072)::numeric", Text),
    ("numeric", "('0.' || repeat('1', 16383))::numeric", Text),
    ("numeric", "-0.000000000000000000000000000000000001", Json("\"-0.000000000000000000000000000000000001\"")),
    ("numeric(5,-2)", "12345", Json("\"12300\"")),
    ("money", "'-1234.11'", Json("\"-1234.11\"")),
    ("money", "'92233720368547758.07'", Json("\"92233720368547758.07\"")),
    ("text", "E'a\\tb\\r\\n\"\\\\ \\u00e4\\U0001F600\\x01'", Json("\"a\\tb\\r\\n\\\"\\\\ ä😀\\u0001\"")),
    ("text", "''", Json("\"\"")),
    ("varchar(3)", "'abc'", Json("\"abc\"")),
    ("char(4)", "'a'", Json("\"a   \"")),
    ("\"char\"", "'x'", Json("\"x\"")),
    ("name", "'n'", Json("\"n\"")),
    ("citext", "'MiXed'", Json("\"MiXed\"")),
    ("xml", "'<a b=\"c\">d</a>'", Json("\"<a b=\\\"c\\\">d</a>\"")),
    ("mood", "'so so'", Json("\"so so\"")),
    ("bytea", "'\\x00ff10'", Json("\"AP8Q\"")),
    ("bytea", "''", Json("\"\"")),
    (
        "json",
        "'{\"b\": 1E+30, \"a\": 123456789012345678901234567890.1, \"a\": 1.10}'",
        Json("{\"b\":1E+30,\"a\":123456789012345678901234567890.1,\"a\":1.10}"),
    ),
    ("json", "'null'", Json("null")),
    (
        "jsonb",
        "'{\"b\": [1.10, 18446744073709551615, \"x\\u00e4\"], \"a\": null}'",
        Json("{\"a\":null,\"b\":[1.10,18446744073709551615,\"xä\"]}"),
    ),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", Json("\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"")),
    ("inet", "'192.168.2.0/12'", Json("\"192.168.2.0/12\"")),
    ("inet", "'::1'", Json("\"::1\"")),
    ("cidr", "'10.0.0.0/8'", Json("\"10.0.0.0/8\"")),
    ("macaddr", "'08-00-2b-01-02-03'", Json("\"08:00:2b:01:02:03\"")),
    ("macaddr8", "'08:00:2b:01:02:03:04:05'", Text),
    ("pg_lsn", "'16/B374D848'", Json("\"16/B374D848\"")),
    ("tsvector", "'''a'':1A fat:2B'", Text),
    ("tsquery", "'fat & (rat | !cat:*)'", Text),
    ("bit(7)", "B'1000000'", Json("\"1000000\"")),
    ("varbit", "B'101'", Json("\"101\"")),
    ("point", "'(1,-2.5)'", Json("\"(1,-2.5)\"")),
    ("line", "'{1,-1,0}'", Text),
    ("lseg", "'[(1,2),(3,4)]'", Text),
    ("box", "'(1,2),(3,4)'", Text),
    ("path", "'((1,2),(3,4))'", Text),
    ("polygon", "'((1,2),(3,4),(5,6))'", Text),
    ("circle", "'<(1,2),3>'", Text),
    ("date", "'2026-11-23'", Json("\"2026-11-23\"")),
    ("date", "'infinity'", Json("\"infinity\"")),
    ("date", "'-infinity'", Json("\"-infinity\"")),
    ("date", "'4713-01-01 BC'", Json("\"-4712-01-01\"")),
    ("date", "'0001-12-31 BC'", Json("\"+0000-12-31\"")),
    ("date", "'5874897-12-31'", Json("\"+5874897-12-31\"")),
    ("time", "'23:59:59.5'", Json("\"23:59:59.5\"")),
    ("time", "'24:00:00'", Json("\"24:00:00\"")),
    ("time(0)", "'00:00:00'", Json("\"00:00:00\"")),
    ("timetz", "'23:59:59+02'", Json("\"23:59:59+02:00\"")),
    ("timetz", "'11:51:30.123789Z'", Json("\"11:51:30.123789+00:00\"")),
    ("timestamp", "'2026-11-23 09:00:00.123456'", Json("\"2026-11-23T09:00:00.123456\"")),
    ("timestamp", "'294276-12-31 23:59:59.999999'", Json("\"+294276-12-31T23:59:59.999999\"")),
    ("timestamp", "'4713-01-01 00:00:00 BC'", Json("\"-4712-01-01T00:00:00\"")),
    ("timestamp", "'-infinity'", Json("\"-infinity\"")),
    ("timestamptz", "'2026-11-23 09:00:00.5+05:30'", Json("\"2026-11-23T03:30:00.5Z\"")),
    ("timestamptz", "'infinity'", Json("\"infinity\"")),
    ("timestamptz", "'1883-11-18 11:00:00 America/New_York'", Json("\"1883-11-18T15:56:02Z\"")),
    ("interval", "'1 year 2 mons 3 days 04:05:06.78'", Json("\"P1Y2M3DT4H5M6.78S\"")),
    ("interval", "'-1 year 2 mons -3 days +04:05:06'", Json("\"P-10M-3DT4H5M6S\"")),
    ("interval", "'0'", Json("\"PT0S\"")),
    ("interval", "'178000000 years'", Json("\"P178000000Y\"")),
    ("int4[]", "'{1,NULL,3}'", Json("[1,null,3]")),
    ("int4[]", "'{}'", Json("[]")),
    ("int4[]", "'[-1:0][3:4]={{1,2},{3,4}}'", Json("[[1,2],[3,4]]")),
    ("int4[][]", "'{{{1},{2}},{{3},{4}}}'", Jsonb),
    ("text[]", "array['a,b', '', 'NULL', null, E'q\"\\\\', ' x ', '{}']", Jsonb),
    ("bytea[]", "array['\\x00ff'::bytea, '']", Json("[\"AP8=\",\"\"]")),
    ("numeric[]", "'{NaN,1.10,-Infinity}'", Json("[\"NaN\",\"1.10\",\"-Infinity\"]")),
    ("timestamptz[]", "'{2026-11-23 09:00:00+00,NULL}'", Json("[\"2026-11-23T09:00:00Z\",null]")),
    ("box[]", "'{(3,4),(1,2);(7,8),(5,6)}'", Json("[\"(3,4),(1,2)\",\"(7,8),(5,6)\"]")),
    ("jsonb[]", "array['{\"a\": 1.10}'::jsonb, 'null']", Json("[{\"a\":1.10},null]")),
    ("mood[]", "'{sad,\"so so\"}'", Json("[\"sad\",\"so so\"]")),
    ("money[]", "'{1.50,2.00}'", Json("[\"1.50\",\"2.00\"]")),
    ("interval[]", "array['1 day'::interval]", Json("[\"P1D\"]")),
    ("positive", "7", Json("7")),
    ("positive[]", "array[7, 8]::positive[]", Json("[7,8]")),
    ("prices", "array[1.10, 2]::numeric[]", Json("[\"1.10\",\"2\"]")),
    (
        "place",
        "row('Main \"St\", 1', array[1,2], '2026-11-23 09:00+00', null, 7, '\\x00')::place",
        Json(
            "{\"street\":\"Main \\\"St\\\", 1\",\"list\":[1,2],\"at\":\"2026-11-23T09:00:00Z\",\"none\":null,\"p\":7,\"b\":\"AA==\"}",
        ),
    ),
    (
        "nested",
        "row(1, row('x', null, null, '', 1, null)::place)::nested",
        Json("{\"n\":1,\"inner one\":{\"street\":\"x\",\"list\":null,\"at\":null,\"none\":\"\",\"p\":1,\"b\":null}}"),
    ),
    ("nested[]", "array[row(1, null)::nested]", Json("[{\"n\":1,\"inner one\":null}]")),
    ("int4range", "'(1,5]'", Json("\"[2,6)\"")),
    ("numrange", "'empty'", Json("\"empty\"")),
    ("tsrange", "'[2019-03-31 15:30:00,infinity)'", Json("\"[\\\"2019-03-31 15:30:00\\\",infinity)\"")),
    ("tstzrange", "'[2019-03-31 15:30:00+02,)'", Json("\"[\\\"2019-03-31 13:30:00+00\\\",)\"")),
    ("daterange", "'[2019-03-31,2019-04-02]'", Json("\"[2019-03-31,2019-04-03)\"")),
    ("int4multirange", "'{[1,2),[2,3),[8,9)}'", Json("\"{[1,3),[8,9)}\"")),
    ("floats", "'[1.5,2.5)'", Json("\"[1.5,2.5)\"")),
    ("hstore", "'a=>1, \"b \\\"c\"=>NULL, e=>\"\"'", Json("{\"a\":\"1\",\"e\":\"\",\"b \\\"c\":null}")),
    ("ltree", "'a.b_c.d'", Json("\"a.b_c.d\"")),
    ("cube", "'(1,2),(3,4)'", Text),
    ("regclass", "'pg_class'", Json("\"pg_class\"")),
    ("regclass", "'public.v0'", Json("\"public.v0\"")),
    ("xid8", "'18446744073709551615'", Text),
    ("jsonpath", "'$.a[*] ? (@ > 1)'", Text),
    ("int2vector", "'1 2 3'", Json("[1,2,3]")),
];

const TYPES: &str = "
    create extension hstore; create extension citext; create extension ltree; create extension cube;
    create type mood as enum ('sad', 'so so', 'glad');
    create domain positive as int check (value > 0);
    create domain prices as numeric[];
    create type place as (street text, list int[], at timestamptz, none text, p positive, b bytea);
    create type nested as (n int, \"inner one\" place);
    create type floats as range (subtype = float8);";

/// What an administrator may have set for a database or a role, and must not reach an event.
const HOSTILE: &str = "
    alter database postgres set datestyle = 'German'; alter database postgres set intervalstyle = 'postgres_verbose';
    alter database postgres set bytea_output = 'escape'; alter database postgres set extra_float_digits = 0;
    alter database postgres set timezone = 'Asia/Kolkata'; alter database postgres set search_path = 'nowhere';
    alter role postgres set datestyle = 'SQL, DMY'; alter role postgres set intervalstyle = 'sql_standard';
    alter role postgres set bytea_output = 'escape'; alter role postgres set extra_float_digits = -15;
    alter role postgres set timezone = 'America/St_Johns'; alter role postgres set standard_conforming_strings = off;
    alter role postgres set xmlbinary = 'hex'; alter role postgres set quote_all_identifiers = on;
    alter role postgres set row_security = on; alter role postgres set default_transaction_read_only = off;";

const DETERMINISTIC: &str = "set datestyle = ISO; set intervalstyle = iso_8601; set extra_float_digits = 3;
    set timezone = UTC; set bytea_output = hex; set search_path = public; set standard_conforming_strings = on;
    set quote_all_identifiers = off;";

async fn expected(client: &tokio_postgres::Client, at: usize) -> String {
    let (kind, value, becomes) = &VALUES[at];
    let ask = async |what: &str| -> String {
        let sql = format!("select {what} from (select ({value})::{kind} as v) s");
        client.query_one(&sql, &[]).await.expect(&sql).get(0)
    };
    match becomes {
        Json(json) => (*json).to_owned(),
        Text => Value::from(ask("v::text").await).to_string(),
        Jsonb => {
            let json: Value = serde_json::from_str(&ask("to_jsonb(v)::text").await).expect("JSON");
            json.to_string()
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_has_the_same_exact_value_from_insert_and_update_whatever_database_and_role_are_set_to() {
    Box::pin(types(World::start().await)).await;
}

/// Every type, whatever the version of the server.
pub(crate) async fn types(world: World) {
    let client = world.sql().await;
    client.batch_execute(TYPES).await.expect("types");
    let tables: String = VALUES
        .iter()
        .enumerate()
        .map(|(at, (kind, ..))| format!("create table v{at}(id int primary key, v {kind});"))
        .collect();
    client.batch_execute(&tables).await.expect("tables");
    client.batch_execute(HOSTILE).await.expect("settings");
    world.drain().await;
    client.batch_execute(DETERMINISTIC).await.expect("settings");
    for (at, (kind, value, _)) in VALUES.iter().enumerate() {
        let sql = format!(
            "begin; insert into v{at} values (1, ({value})::{kind}), (2, null);
             update v{at} set v = ({value})::{kind} where id = 2; commit;"
        );
        client.batch_execute(&sql).await.expect(&sql);
    }
    world.drain().await;
    let events = world.events().await;
    let mut wrong = Vec::new();
    for (at, (kind, value, _)) in VALUES.iter().enumerate() {
        let table = format!("public.v{at}");
        let of_table: Vec<&Event> = events.iter().filter(|event| event.table() == table).collect();
        assert_eq!(of_table.iter().map(|e| e.op()).collect::<Vec<_>>(), ["insert", "insert", "update"], "{kind}");
        assert!(of_table[1].text().contains(r#""after":{"id":2,"v":null}"#), "{}", of_table[1].text());
        let expected = expected(&client, at).await;
        for (id, event) in [(1, of_table[0]), (2, of_table[2])] {
            if !event.text().contains(&format!(r#""after":{{"id":{id},"v":{expected}}}"#)) {
                let found: String = event.text().chars().take(300).collect();
                let expected: String = expected.chars().take(200).collect();
                wrong.push(format!("{kind} {value}: expected {expected}\n    found {found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_whose_numbers_are_doubles_may_have_strings_and_those_who_read_digits_may_have_numbers() {
    let world = World::start().await;
    let url = world.postgres.url("postgres");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\", bigint: string, decimal: number }}\n    tables: [\"public.*\"]\n",
        world.nats.url()
    ));
    world
        .run_sql("create table t(id int8 primary key, a int8[], n numeric, x numeric, m money, l numeric[], i int4)")
        .await;
    world.drain().await;
    world
        .run_sql("insert into t values (9007199254740993, '{1,2}', 0.10, 'NaN', '1.50', '{123456789012345678901234567890.10,NaN}', 5)")
        .await;
    world.drain().await;
    let events = world.events().await;
    let after = r#""after":{"id":"9007199254740993","a":["1","2"],"n":0.10,"x":"NaN","m":1.50,"l":[123456789012345678901234567890.10,"NaN"],"i":5}"#;
    assert!(events[0].text().contains(after), "{}", events[0].text());
    assert_eq!(events[0].header("ce-subject"), "9007199254740993");
}

/// 8 kB that do not compress: stored out of line.
const LARGE: &str =
    "(select string_agg(encode(sha256((g::text || 'SEED')::bytea), 'hex'), '') from generate_series(1, 125) g)";

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_that_an_update_leaves_alone_is_named_not_nulled_and_filled_where_the_log_has_it() {
    Box::pin(large_values(World::start().await)).await;
}

/// Values out of line, whatever the version of the server.
pub(crate) async fn large_values(world: World) {
    let client = world.sql().await;
    client
        .batch_execute(
            "create table keyed(id int primary key, n int, large text, other text);
             create table whole(id int primary key, n int, large text, other text);
             alter table whole replica identity full;",
        )
        .await
        .expect("tables");
    world.drain().await;
    for table in ["keyed", "whole"] {
        for sql in [
            format!("insert into {table} values (1, 1, {LARGE}, {})", LARGE.replace("SEED", "x")),
            format!("update {table} set n = 2"),
            format!("update {table} set large = null"),
            format!("update {table} set other = 'small'"),
            format!("update {table} set id = 2, other = {LARGE}"),
            format!("update {table} set id = 3"),
            format!("delete from {table}"),
        ] {
            client.batch_execute(&sql).await.expect(&sql);
        }
    }
    world.drain().await;
    let large: String = client.query_one(&format!("select {LARGE}"), &[]).await.expect("asks").get(0);
    let other: String =
        client.query_one(&format!("select {}", LARGE.replace("SEED", "x")), &[]).await.expect("asks").get(0);
    let events = world.events().await;
    let of =
        |table: &str| -> Vec<Value> { events.iter().filter(|e| e.table() == table).map(|e| e.body.clone()).collect() };
    let ops = ["insert", "update", "update", "update", "delete", "insert", "delete", "insert", "delete"];

    let keyed = of("public.keyed");
    assert_eq!(keyed.iter().map(|b| b["op"].as_str().expect("an op")).collect::<Vec<_>>(), ops);
    assert_eq!(keyed[0]["after"]["large"], large.as_str());
    assert_eq!(keyed[0].get("unchanged"), None);
    assert_eq!(keyed[1]["after"], serde_json::json!({"id": 1, "n": 2}));
    assert_eq!(keyed[1]["unchanged"], serde_json::json!(["large", "other"]));
    assert_eq!(keyed[2]["after"], serde_json::json!({"id": 1, "n": 2, "large": null}));
    assert_eq!(keyed[2]["unchanged"], serde_json::json!(["other"]));
    assert_eq!(keyed[3]["after"]["other"], "small");
    assert_eq!(keyed[3].get("unchanged"), None);
    // Both halves of a change of key: the log has the old key alone.
    assert_eq!(keyed[6]["before"], serde_json::json!({"id": 2}));
    assert_eq!(keyed[7]["after"], serde_json::json!({"id": 3, "n": 2, "large": null}));
    assert_eq!(keyed[7]["unchanged"], serde_json::json!(["other"]));

    let whole = of("public.whole");
    assert_eq!(whole.iter().map(|b| b["op"].as_str().expect("an op")).collect::<Vec<_>>(), ops);
    assert!(whole.iter().all(|body| body.get("unchanged").is_none()));
    let row = |id, n, large: &Value, other: &str| serde_json::json!({"id": id, "n": n, "large": large, "other": other});
    let large = Value::from(large);
    assert_eq!(whole[1]["before"], row(1, 1, &large, &other));
    assert_eq!(whole[1]["after"], row(1, 2, &large, &other));
    assert_eq!(whole[2]["before"], row(1, 2, &large, &other));
    assert_eq!(whole[2]["after"], row(1, 2, &Value::Null, &other));
    assert_eq!(whole[7]["after"], row(3, 2, &Value::Null, large.as_str().expect("text")));
    assert_eq!(whole[8]["before"], row(3, 2, &Value::Null, large.as_str().expect("text")));
}

#[tokio::test(flavor = "multi_thread")]
async fn text_of_any_server_encoding_comes_as_utf8() {
    let world = World::start().await;
    world.run_sql("create database latin encoding 'LATIN1' lc_collate 'C' lc_ctype 'C' template template0").await;
    world.run_sql("alter database latin set client_encoding = 'LATIN1'").await;
    let client = world.postgres.connect("latin").await.expect("connects");
    client
        .batch_execute("create table \"Gär\"(\"schlüssel\" text primary key, b bytea, j jsonb)")
        .await
        .expect("a table");
    let url = world.postgres.url("latin");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\" }}\n    tables: [\"public.*\"]\n",
        world.nats.url()
    ));
    world.drain().await;
    client.batch_execute("insert into \"Gär\" values ('Größe ÿ', '\\xfc', '{\"ä\": \"é\"}')").await.expect("a row");
    world.drain().await;
    let events = world.events().await;
    assert!(
        events[0].text().contains(
            r#""key":{"schlüssel":"Größe ÿ"},"before":null,"after":{"schlüssel":"Größe ÿ","b":"/A==","j":{"ä":"é"}}"#
        ),
        "{}",
        events[0].text()
    );
    assert_eq!(events[0].body["source"]["table"], "Gär");
    assert_eq!(events[0].body["source"]["database"], "latin");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_a_role_is_given_for_its_queries_do_not_end_the_stream() {
    let world = World::start().await;
    let client = world.sql().await;
    client
        .batch_execute(
            "create type pair as (a int); create table t(id int primary key, v pair);
             create publication figvine_shop for table t; create role bridge superuser login;
             alter role bridge set statement_timeout = '2s'; alter role bridge set idle_session_timeout = '300ms';
             alter role bridge set idle_in_transaction_session_timeout = '300ms';
             alter role bridge set default_transaction_isolation = 'serializable';
             alter role bridge set default_transaction_read_only = on; alter role bridge set synchronous_commit = off;",
        )
        .await
        .expect("a role");
    let url = format!("postgres://bridge@127.0.0.1:{}/postgres", world.postgres.port());
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\", heartbeat: 500ms }}\n    tables: [\"public.*\"]\n",
        world.nats.url()
    ));
    world.drain().await;
    let bridge = world.bridge();
    client.batch_execute("insert into t values (1, '(1)')").await.expect("a row");
    super::harness::wait_stored(&world, &bridge, 1).await;
    // Until the server has thrown the idle session of the catalogue out.
    figvine_sandbox::wait_for("the end of an idle session", super::harness::SOON, async || {
        world.postgres.log_tail().contains("idle-session timeout").then_some(())
    })
    .await
    .unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    client.batch_execute("alter type pair add attribute b text").await.expect("alters");
    client.batch_execute("insert into t values (2, '(1,x)')").await.expect("a row");
    client.batch_execute("create type mood as enum ('a'); alter table t add column w mood").await.expect("alters");
    client.batch_execute("insert into t values (3, '(1,x)', 'a')").await.expect("a row");
    super::harness::wait_stored(&world, &bridge, 4).await;
    assert_eq!(bridge.log().matches("reading the log").count(), 1, "another session: {}", bridge.log());
    bridge.stop().await;
    let events = world.events().await;
    let last = events.last().expect("events");
    assert_eq!(last.body["after"], serde_json::json!({"id": 3, "v": {"a": 1, "b": "x"}, "w": "a"}));
}
