//! Tables that are gone through by their key.

use figvine_change::{ChunkReader, ChunkRequest, Cursor, SourceErrorKind};

use super::world::{World, all, last, request, rows};

/// Name, type and the values of a key in no order.
const KEYS: &[(&str, &str, &[&str])] = &[
    ("int", "int", &["3", "-2147483648", "0", "2147483647", "5", "4", "1"]),
    ("numeric", "numeric", &["'NaN'", "'-Infinity'", "1.10", "1.1000001", "0", "-5", "1e100", "'Infinity'"]),
    ("float", "float8", &["'NaN'", "'-Infinity'", "0.1", "0.30000000000000004", "5e-324", "-1", "'Infinity'"]),
    ("real", "float4", &["'NaN'", "0.1", "16777216", "1e-45", "3.4028235e38"]),
    ("text", "text", &["''", "'a'", "'A'", "E'it''s\\\\ \\t \\n'", "'ä'", "','", "'%2C'", "'a b'", "'Z'", "'zz'"]),
    ("c_text", "text collate \"C\"", &["'a'", "'A'", "'ä'", "'Z'", "'b'"]),
    ("icu_text", "text collate \"und-x-icu\"", &["'a'", "'A'", "'ä'", "'Z'", "'b'", "'á'", "'-'"]),
    ("loose_text", "text collate loose", &["'a'", "'B'", "'c'", "'D'", "'ä'", "'é'", "'z'"]),
    ("varchar", "varchar(5)", &["'a'", "'abcde'", "'b'", "'B'", "'  '"]),
    ("bpchar", "char(5)", &["'a'", "'abcde'", "'b'", "'ab'", "'zz'"]),
    ("name", "name", &["'a'", "'B'", "'_'", "'c'"]),
    ("char", "\"char\"", &["'a'", "'B'", "'_'", "'\\'", "' '"]),
    ("citext", "citext", &["'a'", "'B'", "'c'", "'D'", "'_x'", "'zZ'"]),
    ("citext_tenant", "citext", &["'a'", "'B'", "'c'", "'D'", "'_x'", "'zZ'"]),
    ("uuid", "uuid", &["gen_random_uuid()", "gen_random_uuid()", "gen_random_uuid()", "gen_random_uuid()"]),
    ("bytea", "bytea", &["'\\x'", "'\\x00'", "'\\x00ff'", "'\\xff'", "'\\x5c27'"]),
    ("date", "date", &["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'2024-02-29'", "'5874897-12-31'"]),
    (
        "timestamp",
        "timestamp",
        &["'infinity'", "'-infinity'", "'2024-02-29 1:2:3.000001'", "'0001-01-01 BC'", "'294276-01-01'"],
    ),
    ("timestamptz", "timestamptz", &["'infinity'", "'-infinity'", "'2024-02-29 1:2:3+2'", "'2024-02-29 1:2:3+1'"]),
    ("time", "time", &["'24:00'", "'0:0'", "'12:00:00.5'", "'12:00'"]),
    ("timetz", "timetz", &["'24:00+1'", "'0:0+2'", "'12:00:00.5-3'", "'12:00+15:59'"]),
    ("interval", "interval", &["'-1 year'", "'1 mon'", "'29 days'", "'1 us'", "'0'", "'-1 mon +2 days -3:04'"]),
    ("bool", "bool", &["true", "false"]),
    ("mood", "mood", &["'so so'", "'sad'", "'glad'", "'it''s'"]),
    ("domain", "positive", &["3", "1", "2", "10", "7"]),
    ("feeling", "feeling", &["'so so'", "'sad'", "'glad'", "'it''s'"]),
    ("short", "short", &["'ab'", "'abc'", "'b'", "'c'", "''"]),
    ("array", "int[]", &["'{}'", "'{1,NULL}'", "'{1}'", "'{1,2}'", "'{{1},{2}}'", "'[0:1]={0,5}'"]),
    ("range", "int4range", &["'empty'", "'(,)'", "'[1,5)'", "'[1,)'", "'[0,2]'"]),
    ("inet", "inet", &["'10.0.0.1'", "'10.0.0.0/8'", "'::1'", "'fe80::/10'"]),
    ("jsonb", "jsonb", &["'{\"a\": 1}'", "'null'", "'[1, 2]'", "'\"x\\\\\"'", "'1.10'"]),
    ("money", "money", &["1.5", "-92233720368547758.08", "0", "100000.01"]),
    ("bit", "bit(3)", &["B'101'", "B'000'", "B'111'", "B'001'"]),
    ("oid", "oid", &["4294967295", "0", "7", "8"]),
    ("lsn", "pg_lsn", &["'16/B374D848'", "'0/0'", "'1/1'", "'2/0'"]),
    ("class", "regclass", &["'pg_class'", "'pg_type'", "'pg_proc'", "'k_int'"]),
    ("composite", "pair", &["row(1,'a,b')", "row(1,'a')", "row(0,'\"')", "row(2,E'\\\\')"]),
    ("ltree", "ltree", &["'a.b'", "'a'", "'B'", "'a.b.c'"]),
];

const TYPES: &str = "
    create extension citext; create extension ltree;
    create collation loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create type mood as enum ('sad', 'so so', 'glad', 'it''s');
    create type pair as (n int, t text);
    create domain positive as int check (value > 0);
    create domain feeling as mood;
    create domain short as varchar(3);";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_any_type_leads_through_all_rows_once_in_its_order() {
    let world = World::start().await;
    world.run(TYPES).await;
    for (name, kind, values) in KEYS {
        let key = if name.ends_with("_tenant") { "n, k" } else { "k" };
        let list = values.iter().map(|v| format!("(({v})::{kind})")).collect::<Vec<_>>().join(", ");
        let kind = kind.to_owned();
        world
            .run(&format!(
                "create table k_{name}(n int default 1, k {kind}, primary key ({key}), at serial);
                 insert into k_{name}(k) values {list}"
            ))
            .await;
    }
    let mut reader = world.reader().await;
    let mut wrong = Vec::new();
    for (name, _, values) in KEYS {
        let table = format!("k_{name}");
        let in_order = world
            .client
            .query(&format!("select at from {table} order by k"), &[])
            .await
            .expect("rows")
            .iter()
            .map(|row| row.get::<_, i32>(0))
            .collect::<Vec<_>>();
        assert_eq!(in_order.len(), values.len());
        for size in [1, 3, 100] {
            let found = match all(&mut reader, request("public", &table, size)).await {
                Ok(found) => found,
                Err(error) => {
                    wrong.push(format!("{table} by {size}: {error} {:?}", error.source));
                    continue;
                }
            };
            let found: Vec<i32> = found
                .iter()
                .map(|row| {
                    serde_json::from_str::<serde_json::Value>(row).expect("JSON")["at"].as_i64().expect("a number")
                })
                .map(|at| i32::try_from(at).expect("small"))
                .collect();
            if found != in_order {
                wrong.push(format!("{table} by {size}: {found:?} in place of {in_order:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_many_columns_are_gone_through_as_their_index_is_sorted() {
    let world = World::start().await;
    world
        .run(
            "create extension citext;
             create table same(c text, a int, b int, primary key (b, c, a));
             create table down(a int not null, b int not null);
             create unique index down_key on down(b desc, a desc);
             alter table down replica identity using index down_key;
             create table mixed(a int not null, b citext not null, c int not null);
             create unique index mixed_key on mixed(c, b desc nulls last, a asc nulls first) include (c);
             alter table mixed replica identity using index mixed_key;
             create table pattern(a text not null);
             create unique index pattern_key on pattern(a text_pattern_ops);
             alter table pattern replica identity using index pattern_key;
             create table collated(a text not null, b int not null);
             create unique index collated_key on collated(a collate \"C\", b);
             alter table collated replica identity using index collated_key;
             create table whole(a int primary key, b int); alter table whole replica identity full;
             insert into same select chr(97 + c), a, b from generate_series(0,2) c, generate_series(0,2) a, generate_series(0,2) b;
             insert into down select a, b from generate_series(0,4) a, generate_series(0,4) b;
             insert into mixed select a, chr(65 + b + 32 * (b % 2)), c
               from generate_series(0,2) c, generate_series(0,2) a, generate_series(0,2) b;
             insert into pattern values ('a'), ('B'), ('b'), ('A'), ('_'), ('ä');
             insert into collated select t, n from unnest(array['a','B','b','A']) t, generate_series(1, 2) n;
             insert into whole select n, n from generate_series(1, 10) n",
        )
        .await;
    let mut reader = world.reader().await;
    for (table, order) in [
        ("same", "b, c, a"),
        ("down", "b desc, a desc"),
        ("mixed", "c, b desc, a"),
        ("pattern", "a collate \"C\""),
        ("collated", "a collate \"C\", b"),
        ("whole", "a"),
    ] {
        let query = format!("select string_agg(row_to_json(t)::text, ' ' order by {order}) from {table} t");
        let expected = world.text(&query).await;
        for size in [1, 3, 1000] {
            let found = all(&mut reader, request("public", table, size)).await.expect("rows");
            assert_eq!(found.join(" "), expected, "{table} by {size}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_s_index_gives_each_chunk_without_a_sort_or_a_scan_of_the_table() {
    let world =
        World::with(&[("session_preload_libraries", "auto_explain"), ("auto_explain.log_min_duration", "0")]).await;
    world
        .run(
            "create extension citext;
             create table one(a text primary key, b int);
             create table two(b int, a int, c citext, primary key (a, b), unique (c));
             create table three(c citext not null); create unique index three_key on three(c);
             alter table three replica identity using index three_key;
             create table keyless(a int); alter table keyless replica identity full;
             insert into one select md5(n::text), n from generate_series(1, 3000) n;
             insert into two select n % 7, n, 'c' || n from generate_series(1, 3000) n;
             insert into three select 'c' || n from generate_series(1, 3000) n;
             insert into keyless select n from generate_series(1, 3000) n;",
        )
        .await;
    let mut reader = world.reader().await;
    let mut asked = 0;
    for table in ["one", "two", "three", "keyless"] {
        let mut request = request("public", table, 500);
        for _ in 0..3 {
            let chunk = reader.read(&request).await.expect("a chunk");
            assert_eq!(chunk.batch.changes.len(), 500);
            request.after = last(&chunk);
            asked += 1;
        }
    }
    let log = std::fs::read_to_string(world.server.dir().join("postgres.log")).expect("a log");
    let plans: Vec<&str> = log.split("Query Text: COPY (SELECT").skip(1).collect();
    assert_eq!(plans.len(), asked);
    for plan in plans {
        let plan = plan.split("LOG: ").next().unwrap_or_default();
        assert!(
            plan.contains("Index Scan using") || plan.contains("Index Only Scan") || plan.contains("Tid Range"),
            "{plan}"
        );
        assert!(!plan.contains("Sort") && !plan.contains("Seq Scan") && !plan.contains("Bitmap"), "{plan}");
        // From the second chunk on the index is entered where the last one ended.
        let is_bounded = plan.contains("Index Cond") || plan.contains("TID Cond");
        assert_eq!(is_bounded, plan.contains(" WHERE "), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_and_a_condition_hold_and_a_bad_condition_is_named() {
    let world = World::start().await;
    world.run("create table t(a int primary key, b text); insert into t select n, 'x' || n % 3 from generate_series(1, 20) n").await;
    let mut reader = world.reader().await;
    let asked = |condition: &str| ChunkRequest {
        after: Cursor::parse("4"),
        upto: Cursor::parse("10"),
        condition: Some(condition.into()),
        ..request("public", "t", 2)
    };
    let found = all(&mut reader, asked("b <> 'x2' or false -- mine")).await.expect("rows");
    let keys = [6, 7, 9, 10].map(|n| format!("{{\"a\":{n},\"b\":\"x{}\"}}", n % 3));
    assert_eq!(found, keys);
    for condition in ["b ==", "nothing = 1", "b = 1", "1/(a - a) = 1", "true) or (true", "a in (select x)"] {
        let refused = all(&mut reader, asked(condition)).await;
        let error = refused.expect_err(condition);
        assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1605"), "{condition}: {error}");
        assert!(error.to_string().contains(condition), "{error}");
    }
    for cursor in ["x", "1,2", "%00", "99999999999999"] {
        for condition in [None, Some("true".into())] {
            let asked = ChunkRequest { after: Cursor::parse(cursor), condition, ..request("public", "t", 2) };
            let error = all(&mut reader, asked).await.expect_err(cursor);
            assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1604"), "{cursor}: {error}");
        }
    }
    assert_eq!(all(&mut reader, request("public", "t", 7)).await.expect("rows").len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_and_values_come_through() {
    let world = World::start().await;
    world
        .run(
            r#"create schema "odd ""schema'";
               create table "odd ""schema'"."t"". \ 'x"("k "" \ '" text primary key, "select" text, "$1" text);
               insert into "odd ""schema'"."t"". \ 'x" values
                 (E'\\N', null, ''), (E'\t', E'\\N', E'\\.'), (E'\n', E'a\rb\x08\x0b\x0c', 'x'), ('''', '""', '$$'),
                 (E'\\', E'\\\\t', null), ('%', ',', ' ')"#,
        )
        .await;
    let mut reader = world.reader().await;
    let mut found = all(&mut reader, request("odd \"schema'", "t\". \\ 'x", 2)).await.expect("rows");
    let query = r#"select coalesce(json_agg(t), 'null')::text from "odd ""schema'"."t"". \ 'x" t"#;
    let expected: Vec<serde_json::Value> = serde_json::from_str(&world.text(query).await).expect("JSON");
    let mut expected: Vec<String> = expected.iter().map(|row| row.to_string()).collect();
    let plain = |row: &String| serde_json::from_str::<serde_json::Value>(row).expect("JSON").to_string();
    found = found.iter().map(plain).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_ends_where_its_bytes_do_and_one_row_may_exceed_them() {
    let world = World::start().await;
    world
        .run(
            "create table t(a int primary key, b text);
             insert into t select n, repeat('x', 1000) from generate_series(1, 1000) n;
             insert into t select n, repeat('y', 200000) from generate_series(1001, 1010) n;
             insert into t select n, 'z' from generate_series(1011, 2000) n;
             create table k(a int, b text); alter table k replica identity full; insert into k select * from t",
        )
        .await;
    let mut reader = world.reader().await;
    for table in ["t", "k"] {
        let mut asked = ChunkRequest { bytes: 50_000, ..request("public", table, 100_000) };
        let (mut found, mut chunks) = (0, 0);
        loop {
            let chunk = reader.read(&asked).await.expect("a chunk");
            let rows = chunk.batch.changes.len();
            assert!(rows == 1 || chunk.batch.data.len() <= 50_000, "{rows} rows of {} bytes", chunk.batch.data.len());
            found += rows;
            chunks += 1;
            asked.after = last(&chunk);
            if chunk.is_last {
                break;
            }
        }
        assert_eq!(found, 2000, "{table}");
        assert!((30..200).contains(&chunks), "{chunks}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_altered_between_chunks_is_read_in_the_shape_that_it_has() {
    let world = World::start().await;
    world.run("create table t(a int primary key, b int); insert into t select n, n from generate_series(1, 9) n").await;
    let mut reader = world.reader().await;
    let mut asked = request("public", "t", 3);
    let chunk = reader.read(&asked).await.expect("a chunk");
    assert_eq!(rows(&chunk.batch)[2], r#"{"a":3,"b":3}"#);
    asked.after = last(&chunk);

    world.run("alter table t add c text default 'new'; alter table t drop b; alter table t alter a type bigint").await;
    let chunk = reader.read(&asked).await.expect("a chunk");
    assert_eq!(rows(&chunk.batch), [4, 5, 6].map(|n| format!(r#"{{"a":{n},"c":"new"}}"#)));
    assert_eq!(&*chunk.batch.tables[0].columns[0].type_name, "bigint");

    world.run("alter table t drop constraint t_pkey; alter table t add primary key (c, a)").await;
    let error = reader.read(&asked).await.expect_err("another key");
    assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1604"));

    world.run("alter table t rename to u").await;
    let error = reader.read(&asked).await.expect_err("gone");
    assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1601"));
    let error = reader.read(&request("public", "u", 3)).await;
    assert_eq!(rows(&error.expect("it is in the publication still").batch).len(), 3);
    world.run("alter publication figvine_shop drop table u").await;
    let error = reader.read(&request("public", "u", 3)).await.expect_err("not captured");
    assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1606"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_permission_is_named_with_its_grant_and_a_policy_that_hides_rows_is_no_gap() {
    let world = World::start().await;
    world
        .run(
            "create table t(a int primary key); insert into t values (1), (2);
             create table p(a int primary key); insert into p values (1), (2);
             alter table p enable row level security; create policy few on p using (a = 1);
             create role reader login; grant select on p to reader",
        )
        .await;
    drop(world.reader().await);
    let url = format!("postgres://reader@127.0.0.1:{}/postgres", world.server.port());
    let connector = figvine_postgres::Postgres::new(super::world::config(url)).expect("a configuration");
    let mut reader = figvine_change::Connector::reader(&connector).await.expect("a reader");
    let error = reader.read(&request("public", "t", 3)).await.expect_err("refused");
    assert_eq!((error.kind, error.code), (SourceErrorKind::Refused, "FV-1602"), "{error}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains(r#"GRANT SELECT ON "public"."t" TO "reader""#)));
    world.run("grant select on t to reader").await;
    assert_eq!(all(&mut reader, request("public", "t", 3)).await.expect("rows").len(), 2);
    let error = reader.read(&request("public", "p", 3)).await.expect_err("refused");
    assert_eq!((error.kind, error.code), (SourceErrorKind::Refused, "FV-1603"), "{error}");
    world.run("revoke execute on function pg_logical_emit_message(boolean, text, text) from public").await;
    let before = world.text("select pg_current_wal_insert_lsn()::text").await;
    let chunk = reader.read(&request("public", "t", 3)).await.expect("a chunk");
    let before: figvine_postgres::lsn::Lsn = before.parse().expect("an LSN");
    assert!(*chunk.high >= *before.sequence(), "{}", chunk.high);
}
