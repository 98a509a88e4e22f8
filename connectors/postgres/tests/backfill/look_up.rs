//! Rows of given values.

use figvine_change::{
    Body, ChunkReader, Connector, Durable, Found, LookUp, Sought, Source, SourceError, SourceErrorKind, Transaction,
};
use figvine_postgres::config::Config;
use figvine_postgres::{Postgres, PostgresReader};

use super::world::{DEADLINE, World, becomes, config, request, rows, until};

/// Name, type, and values as SQL: the first is looked up, and found.
const VALUES: &[(&str, &str, &[&str])] = &[
    ("text", "text", &["E'it''s \\\\ \\t \\n \"q\" 100% _ $1 \\U0001F600 \\\\N'", "'its'", "''"]),
    ("empty", "text", &["''", "' '"]),
    ("loose_text", "text collate loose", &["'é'", "'e'"]),
    ("short", "short", &["'ab'", "'abc'"]),
    ("bpchar", "char(5)", &["'a'", "'b'"]),
    ("char", "\"char\"", &["'\\'", "'a'"]),
    ("citext", "citext", &["'MiXed'", "'Mix'"]),
    ("tagged", "tagged", &["'MiXed'", "'Mix'"]),
    ("uuid", "uuid", &["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380000'", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380100'"]),
    ("bytea", "bytea", &["'\\x5c27ff0000'", "'\\x5c27ff00'", "''"]),
    ("bigint", "bigint", &["-7", "7"]),
    ("numeric", "numeric", &["1.50", "1.51"]),
    ("nan", "numeric", &["'NaN'", "0"]),
    ("float", "float8", &["0.1::float8 + 0.2", "0.3"]),
    ("real", "float4", &["0.1", "0.2"]),
    ("date", "date", &["'0044-03-15 BC'", "'infinity'"]),
    ("timestamptz", "timestamptz", &["'2024-02-29 1:2:3.5+2'", "'2024-02-29 1:2:3.5+1'"]),
    ("interval", "interval", &["'-1 mon +2 days -3:04'", "'1 mon'"]),
    ("bool", "bool", &["true", "false"]),
    ("mood", "mood", &["'it''s'", "'sad'"]),
    ("feeling", "feeling", &["'it''s'", "'sad'"]),
    ("array", "text[]", &["array['a,b', null, E'q\"\\\\']", "'{}'"]),
    ("prices", "prices", &["array[1.10, 2]", "'{}'"]),
    ("range", "int4range", &["'[1,5)'", "'empty'"]),
    ("inet", "inet", &["'10.0.0.0/8'", "'10.0.0.0'"]),
    ("jsonb", "jsonb", &["'{\"a\": [1.10, null]}'", "'{}'"]),
    ("bit", "bit(3)", &["B'101'", "B'100'"]),
    ("composite", "pair", &["row(1,'a,b')", "row(1,'a')"]),
    ("ltree", "ltree", &["'a.b'", "'a'"]),
    ("hstore", "hstore", &["'a=>1, \"b \\\"c\"=>NULL'", "''"]),
    ("class", "regclass", &["'pg_class'", "'pg_type'"]),
];

const TYPES: &str = "
    create extension citext; create extension ltree; create extension hstore;
    create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create type mood as enum ('sad', 'glad', 'it''s');
    create type pair as (n int, t text);
    create domain feeling as mood;
    create domain short as varchar(3);
    create domain tagged as citext;
    create domain prices as numeric[];";

fn transaction(id: &str) -> Transaction {
    Transaction {
        id: id.into(),
        position: "".into(),
        sequence: "".into(),
        committed_at: 0,
        start: "".into(),
        end: None,
        origin: None,
        traceparent: None,
        is_ignored: false,
        file: None,
    }
}

fn of(table: &str, column: &str, values: &[&str]) -> LookUp {
    let sought = |raw: &&str| Sought { raw: raw.as_bytes().into(), json: "".into() };
    LookUp {
        schema: "public".into(),
        name: table.into(),
        column: column.into(),
        values: values.iter().map(sought).collect(),
        behind: vec![transaction("3")],
        bytes: 8 << 20,
    }
}

async fn found(reader: &mut PostgresReader, request: &LookUp) -> Result<Found, SourceError> {
    tokio::time::timeout(DEADLINE, reader.look_up(request)).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_values_come_by_their_key_as_a_chunk_has_them() {
    let world = World::start().await;
    world
        .run(
            "create table t(b int, a int, v bigint, n numeric(9,2), s text, primary key (a, b));
             insert into t select n % 3, n, n % 5, n / 4.0, 'x' || n from generate_series(20, 1, -1) n;
             update t set s = null where v = 2",
        )
        .await;
    let mut reader = world.reader().await;
    let chunk = reader.read(&request("public", "t", 100)).await.expect("a chunk");
    let all: Vec<String> =
        rows(&chunk.batch).into_iter().filter(|row| ["\"v\":1,", "\"v\":2,"].iter().any(|v| row.contains(v))).collect();
    for _ in 0..2 {
        let found = found(&mut reader, &of("t", "v", &["2", "77", "1"])).await.expect("rows");
        assert_eq!(rows(&found.batch), all);
        assert!(found.is_whole);
        assert!(found.read_at > chunk.read_at);
        assert!(found.batch.tables[0].has_shape_of(&chunk.batch.tables[0]));
    }
    assert_eq!(all.len(), 8);
    let none = found(&mut reader, &of("t", "v", &["99"])).await.expect("none");
    assert!(none.batch.changes.is_empty() && none.is_whole);
    let error = found(&mut reader, &of("t", "nothing", &["1"])).await.expect_err("no column");
    assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1609"));
    assert!(error.what.contains("nothing"), "{}", error.what);
    let error = found(&mut reader, &of("gone", "v", &["1"])).await.expect_err("no table");
    assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1601"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_any_type_that_has_an_equality_finds_its_row_by_the_text_of_the_log() {
    let world = World::start().await;
    world.run(TYPES).await;
    for (name, kind, values) in VALUES {
        let list = values.iter().map(|value| format!("(({value})::{kind})")).collect::<Vec<_>>().join(", ");
        world
            .run(&format!(
                "create table v_{name}(at serial primary key, v {kind}); insert into v_{name}(v) values {list}"
            ))
            .await;
    }
    let mut reader = world.reader().await;
    let mut wrong = Vec::new();
    for (name, kind, values) in VALUES {
        let kind = kind.split(" collate").next().expect("a type");
        let raw = world.text(&format!("select (({})::{kind})::text", values[0])).await;
        match found(&mut reader, &of(&format!("v_{name}"), "v", &[&raw])).await {
            Ok(found) if rows(&found.batch).len() == 1 && rows(&found.batch)[0].starts_with("{\"at\":1,") => {}
            Ok(found) => wrong.push(format!("{name}: {:?}", rows(&found.batch))),
            Err(error) => wrong.push(format!("{name}: {error} {:?}", error.source)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Equal is what the type says, not the text.
    for (table, raw) in [("v_citext", "mIXED"), ("v_tagged", "mIXED"), ("v_numeric", "1.5"), ("v_loose_text", "É")] {
        assert_eq!(found(&mut reader, &of(table, "v", &[raw])).await.expect(table).batch.changes.len(), 1, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_the_column_cannot_have_is_refused_and_shown_to_nobody() {
    let world = World::start().await;
    world
        .run(
            "create table t(a int primary key, d date, j json, u uuid, m numeric(4,2)); insert into t(a, m) values (5, 1.5);
             create table k(a int); alter table k replica identity full; insert into k values (2), (1), (2)",
        )
        .await;
    let mut reader = world.reader().await;
    for (column, raw, word) in [
        ("a", "secret", "integer"),
        ("a", "1.5", "integer"),
        ("a", "5\0", "integer"),
        ("d", "2026-02-30", "date"),
        ("u", "x') or ('1' = '1", "uuid"),
        ("j", "{}", "json"),
    ] {
        let error = found(&mut reader, &of("t", column, &["5", raw])).await.expect_err(raw);
        let word_of = error.hint.as_deref().unwrap_or_default();
        assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1609"), "{raw}: {error}");
        assert!(error.what.contains("public.t") && error.what.contains(&format!("column {column}")), "{}", error.what);
        assert!(word_of.contains(word), "{word_of}");
        assert!(!format!("{error:?}").contains(raw), "{error:?}");
    }
    // What no row can have is asked for by itself, so that others find theirs.
    assert!(!found(&mut reader, &of("t", "a", &["5", "99999999999"])).await.expect("not by itself").is_whole);
    let beyond = found(&mut reader, &of("t", "a", &["99999999999"])).await.expect("none");
    assert_eq!((beyond.is_whole, beyond.batch.changes.len()), (true, 0));
    // What no row has is no fault, and the reader goes on.
    assert_eq!(rows(&found(&mut reader, &of("t", "m", &["123456"])).await.expect("none").batch).len(), 0);
    assert_eq!(rows(&found(&mut reader, &of("t", "a", &["5"])).await.expect("a row").batch).len(), 1);
    assert_eq!(found(&mut reader, &of("k", "a", &["2"])).await.expect("rows without a key").batch.changes.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_all_parts_are_found_and_those_that_are_not_published_are_not() {
    let world = World::start().await;
    world
        .run(
            "create table p(a int, b int, v text, primary key (b, a)) partition by list (a);
             create table p1 partition of p for values in (1); create table p2 (v text, b int not null, a int not null);
             alter table p attach partition p2 for values in (2);
             insert into p select a, b, 'v' || b % 2 from generate_series(1, 2) a, generate_series(4, 1, -1) b;
             create table f(a int primary key, v int, hidden int); insert into f select n, n % 2, n from generate_series(1, 6) n;
             create table base(a int primary key, v int); create table heir() inherits (base); alter table heir replica identity full;
             insert into base values (1, 1); insert into heir values (2, 1);
             create publication figvine_shop for table p, f (a, v) where (a > 2), base with (publish_via_partition_root)",
        )
        .await;
    let connector = Postgres::new(Config { via_partition_root: true, ..world.config() }).expect("a configuration");
    connector.open(None, Durable::channel().1).await.expect("opens").close().await;
    let mut reader = connector.reader().await.expect("a reader");
    let parts = found(&mut reader, &of("p", "v", &["v1"])).await.expect("rows");
    assert_eq!(
        rows(&parts.batch),
        [(1, 1), (2, 1), (1, 3), (2, 3)].map(|(a, b)| format!(r#"{{"a":{a},"b":{b},"v":"v1"}}"#))
    );
    let filtered = found(&mut reader, &of("f", "v", &["1"])).await.expect("rows");
    assert_eq!(rows(&filtered.batch), [3, 5].map(|a| format!(r#"{{"a":{a},"v":1}}"#)));
    let error = found(&mut reader, &of("f", "hidden", &["3"])).await.expect_err("not listed");
    assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1609"));
    assert_eq!(rows(&found(&mut reader, &of("base", "v", &["1"])).await.expect("rows").batch), [r#"{"a":1,"v":1}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_rows_than_may_be_held_are_told_as_such_and_leave_the_reader_able() {
    let world = World::start().await;
    world
        .run(
            "create table t(a int primary key, v int, b text);
             insert into t select n, 1, repeat('x', 1000) from generate_series(1, 10000) n; insert into t values (0, 2, repeat('y', 5000))",
        )
        .await;
    let mut reader = world.reader().await;
    let holding = |value: &str, bytes: usize| LookUp { bytes, ..of("t", "v", &[value]) };
    for (value, bytes, is_whole) in
        [("1", 50_000, false), ("2", 4_000, false), ("2", 6_000, true), ("1", 16 << 20, true)]
    {
        let found = found(&mut reader, &holding(value, bytes)).await.expect("rows");
        assert_eq!(found.is_whole, is_whole, "{value} in {bytes}");
        assert!(found.batch.data.len() <= bytes.max(5_100));
        assert_eq!(reader.read(&request("public", "t", 3)).await.expect("a chunk").batch.changes.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_waits_for_a_commit_that_the_log_has_told_and_that_no_snapshot_shows_yet() {
    let world = World::start().await;
    world.run("create table t(a int primary key, b int); insert into t values (1, 0)").await;
    let (connector, mut source) = world.open().await;
    let mut reader = connector.reader().await.expect("a reader");
    world.run("alter system set synchronous_standby_names = 'never'").await;
    world.run("select pg_reload_conf()").await;
    becomes("the setting", async || world.text("show synchronous_standby_names").await == "never").await;

    let writer = world.server.connect("postgres").await.expect("connects");
    let pid: i32 = writer.query_one("select pg_backend_pid()", &[]).await.expect("a pid").get(0);
    let stuck = tokio::spawn(async move { writer.batch_execute("update t set b = 1 where a = 1").await });
    let mut behind = None;
    until(&mut source, |batch| {
        let told = batch.changes.iter().find(|change| matches!(change.body, Body::Row(_)));
        behind = told.map(|change| batch.transaction(change).expect("a transaction").clone());
        behind.is_some()
    })
    .await;
    let behind = behind.expect("a transaction");
    assert_eq!(world.text("select b::text from t").await, "0");
    // What is behind another transaction, or behind what is none, waits for nothing.
    for id in ["3", "0", "", "a gtid"] {
        let found = found(&mut reader, &LookUp { behind: vec![transaction(id)], ..of("t", "a", &["1"]) }).await;
        assert_eq!(rows(&found.expect("a row").batch), [r#"{"a":1,"b":0}"#], "{id}");
    }

    let asked = LookUp { behind: vec![transaction("0"), behind], ..of("t", "a", &["1"]) };
    let looking = tokio::spawn(async move { found(&mut reader, &asked).await.expect("a row") });
    // Looks follow one another, each in a snapshot of its own, and none holds the table meanwhile.
    becomes("a second look", async || {
        world
            .text(
                "select count(*)::text from pg_stat_activity where application_name = 'figvine shop' and state = 'idle'
                      and query = 'commit' and clock_timestamp() - backend_start > interval '0.5 s'",
            )
            .await
            != "0"
    })
    .await;
    assert!(!looking.is_finished(), "it did not wait");
    world.text(&format!("select pg_cancel_backend({pid})::text")).await;
    let found = tokio::time::timeout(DEADLINE, looking).await.expect("in time").expect("no panic");
    assert_eq!(rows(&found.batch), [r#"{"a":1,"b":1}"#]);
    stuck.await.expect("no panic").expect("committed, with a warning");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_asked_at_once_whatever_it_cannot_tell_of_its_snapshot() {
    let world = World::start().await;
    world.run("create table t(a int primary key); insert into t values (1)").await;
    drop(world.reader().await);
    let standby = figvine_sandbox::Postgres::standby_of(&world.server, &[]).await.expect("a standby");
    let connector = Postgres::new(config(standby.url("postgres"))).expect("a configuration");
    let mut reader = connector.reader().await.expect("a reader");
    let next = world.text("select (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000)::text").await;
    let found = found(&mut reader, &LookUp { behind: vec![transaction(&next)], ..of("t", "a", &["1"]) }).await;
    assert_eq!(rows(&found.expect("a row").batch), [r#"{"a":1}"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_column_s_own_index_finds_the_rows_and_the_key_s_is_not_gone_through() {
    let world =
        World::with(&[("session_preload_libraries", "auto_explain"), ("auto_explain.log_min_duration", "0")]).await;
    world
        .run(
            "create extension citext; create domain code as varchar(20);
             create table t(a int primary key, v bigint, s varchar(40), c citext, d code, filler text);
             insert into t select n, n * 7919 % 20011, md5(n::text), 'C' || n, 'd' || n, repeat('x', 20)
               from generate_series(1, 50000) n;
             create index t_v on t(v); create index t_s on t(s); create index t_c on t(c); create index t_d on t(d);
             analyze t",
        )
        .await;
    let mut reader = world.reader().await;
    let md5 = world.text("select md5('9')").await;
    for (column, values, count) in
        [("v", ["5", "6"], 6), ("s", [&md5, "none"], 1), ("c", ["c9", "c10"], 2), ("d", ["d9", "d10"], 2)]
    {
        let found = found(&mut reader, &of("t", column, &values)).await.expect("rows");
        assert_eq!(found.batch.changes.len(), count, "{column}");
    }
    // The settings of chunks are there again.
    reader.read(&request("public", "t", 10)).await.expect("a chunk");
    let log = std::fs::read_to_string(world.server.dir().join("postgres.log")).expect("a log");
    let plans: Vec<&str> = log.split("Query Text: COPY (SELECT").skip(1).collect();
    assert_eq!(plans.len(), 5);
    for (plan, index) in plans.iter().zip(["t_v", "t_s", "t_c", "t_d"]) {
        let plan = plan.split("LOG: ").next().unwrap_or_default();
        assert!(
            plan.contains(&format!("Index Scan on {index} ")) || plan.contains(&format!("using {index} ")),
            "{plan}"
        );
        assert!(!plan.contains("t_pkey") && !plan.contains("Seq Scan"), "{plan}");
    }
    assert!(plans[4].contains("using t_pkey"), "{}", plans[4]);
}
