//! What `check` finds, and that what it says mends it.

use std::io::Write as _;

use super::harness::World;
use figvine_sandbox::{NatsOptions, Postgres, PostgresOptions};
use serde_json::Value;

fn configure(world: &World, url: &str, tables: &str, postgres: &str) {
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\"{postgres} }}\n    tables: {tables}\n",
        world.nats.url()
    ));
}

/// Code, severity and object of each finding.
async fn findings(world: &World, code: i32) -> Vec<(String, String, String)> {
    let checked = world.finish(&["--output", "json", "check"]).await;
    assert_eq!(checked.code, Some(code), "{}\n{}", checked.stdout, checked.stderr);
    let report: Value = serde_json::from_str(&checked.stdout).expect("JSON");
    assert_eq!(report["schema_version"], 1);
    let sections = report["checked"].as_array().expect("sections");
    let all = sections.iter().flat_map(|section| section["findings"].as_array().expect("findings"));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap_or_default().to_owned();
    all.map(|f| (text(f, "code"), text(f, "severity"), text(f, "object"))).collect()
}

fn holds(found: &[(String, String, String)], code: &str, severity: &str, object: &str) {
    let is_there = found.iter().any(|(c, s, o)| c == code && s == severity && o == object);
    assert!(is_there, "{code} {severity} {object} is not among {found:#?}");
}

/// Runs the SQL that `check --fix-sql` prints, as an administrator who feeds it to psql.
async fn mend(world: &World) {
    let script = world.finish(&["check", "--fix-sql"]).await.stdout;
    let client = world.sql().await;
    for line in script.lines().filter(|line| !line.starts_with("--") && !line.is_empty()) {
        client.batch_execute(line).await.unwrap_or_else(|e| panic!("{line}: {e:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_check_says_mends_a_server_that_was_never_meant_for_replication() {
    let settings = vec![("wal_level".into(), "replica".into()), ("max_replication_slots".into(), "0".into())];
    let options = PostgresOptions { settings, ..PostgresOptions::default() };
    let world = World::with(options, NatsOptions::default()).await;
    world
        .run_sql(
            "create role \"the bridge\" login; create schema sales; create table sales.\"Or ders\"(id int primary key, v text);
             create unlogged table sales.scratch(id int primary key); create table sales.bare(a int);",
        )
        .await;
    let url = format!("postgres://the%20bridge@127.0.0.1:{}/postgres", world.postgres.port());
    configure(&world, &url, "[\"sales.*\"]", ", keyless: whole_row");
    let found = findings(&world, 4).await;
    holds(&found, "FV-1210", "blocker", "setting wal_level");
    holds(&found, "FV-1215", "blocker", "role the bridge");
    let refused = world.finish(&["run", "--until", "now"]).await;
    assert!(matches!(refused.code, Some(3 | 6)), "{}", refused.stderr);

    mend(&world).await;
    let waiting = world.finish(&["check"]).await;
    assert_eq!(waiting.code, Some(4), "{}", waiting.stdout);
    assert!(waiting.stdout.contains("restart the server"), "{}", waiting.stdout);
    world.postgres.restart().await.expect("restarts");
    mend(&world).await;
    let found = findings(&world, 0).await;
    holds(&found, "FV-1210", "ok", "setting wal_level");
    holds(&found, "FV-1240", "ok", "table sales.Or ders");
    holds(&found, "FV-1241", "warning", "table sales.bare");
    assert!(found.iter().all(|(_, severity, _)| severity != "blocker"), "{found:#?}");

    world.drain().await;
    world
        .run_sql("insert into sales.\"Or ders\" values (1, 'x'); insert into sales.scratch values (1); insert into sales.bare values (7)")
        .await;
    world.drain().await;
    let tables: Vec<_> = world.events().await.iter().map(super::harness::Event::table).collect();
    assert_eq!(tables, ["sales.Or ders", "sales.scratch", "sales.bare"]);
    let found = findings(&world, 0).await;
    holds(&found, "FV-1315", "ok", "slot figvine_shop");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_obstacle_has_its_finding() {
    let world = World::start().await;
    let url = world.postgres.url("postgres");
    world
        .run_sql(
            "create table keyed(id int primary key, large text); create table loose(a int);
             create table loose_full(a int); alter table loose_full replica identity full;
             create table none(id int primary key); alter table none replica identity nothing;
             create unlogged table fleeting(id int primary key);
             create table computed(id int primary key, d int generated always as (id + 1) stored);
             create view a_view as select 1 as id; create materialized view kept as select 1 as id",
        )
        .await;
    world.run_sql("select pg_create_logical_replication_slot('figvine_shop', 'test_decoding')").await;
    configure(&world, &url, "[\"public.*\", \"pubilc.*\", \"!public.nowhere\"]", "");
    let found = findings(&world, 4).await;
    holds(&found, "FV-1311", "blocker", "slot figvine_shop");
    holds(&found, "FV-1230", "warning", "glob `pubilc.*`");
    holds(&found, "FV-1230", "warning", "glob `!public.nowhere`");
    for table in ["loose", "loose_full", "none", "fleeting"] {
        let object = format!("table public.{table}");
        assert!(found.iter().any(|(_, s, o)| s == "blocker" && *o == object), "{table}: {found:#?}");
    }
    holds(&found, "FV-1242", "note", "table public.keyed");
    holds(&found, "FV-1243", "note", "table public.computed");
    holds(&found, "FV-1231", "note", "table public.a_view");
    holds(&found, "FV-1231", "note", "table public.kept");
    holds(&found, "FV-1220", "note", "publication figvine_shop");
    let refused = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);

    // A given publication that is not there, or lacks a table, or leaves out operations.
    configure(&world, &url, "[keyed, computed]", ", publication: theirs, publication_managed: false, slot: other");
    let found = findings(&world, 4).await;
    holds(&found, "FV-1221", "blocker", "publication theirs");
    world.run_sql("create publication theirs for table keyed where (id > 0) with (publish = 'insert, update')").await;
    let found = findings(&world, 4).await;
    holds(&found, "FV-1226", "blocker", "publication theirs");
    holds(&found, "FV-1227", "warning", "publication theirs");
    holds(&found, "FV-1228", "note", "publication theirs");
    mend(&world).await;
    findings(&world, 0).await;
    world.drain().await;

    // One who is not the owner cannot make the publication, but use the one that was made for him.
    world.run_sql("create role guest login replication").await;
    let guest = format!("postgres://guest@127.0.0.1:{}/postgres", world.postgres.port());
    configure(&world, &guest, "[keyed]", ", publication: for_guest, slot: guest");
    let found = findings(&world, 4).await;
    holds(&found, "FV-1225", "blocker", "publication for_guest");
    holds(&found, "FV-1245", "note", "table public.keyed");
    mend(&world).await;
    findings(&world, 0).await;
    world.finish(&["run", "--dry-run", "--until", "now"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_told_apart_from_one_that_blocks() {
    let world = World::start().await;
    world.run_sql("create table t(id int primary key)").await;
    world.nats.kill9();
    let found = findings(&world, 7).await;
    assert!(found.iter().any(|(_, severity, _)| severity == "blocker"));
    world.nats.restart().await.expect("NATS");
    findings(&world, 0).await;
    world.postgres.kill9();
    findings(&world, 6).await;
    let run = world.finish(&["check", "--source", "nobody"]).await;
    assert_eq!(run.code, Some(2), "{}", run.stderr);
    assert!(run.stderr.contains("nobody"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused_where_its_version_cannot_be_read() {
    let version = Postgres::versions().into_iter().min().expect("a PostgreSQL");
    if version >= 16 {
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "that a standby is refused WAS NOT TESTED: it needs PostgreSQL 15 (`make servers`)");
        return;
    }
    let options = PostgresOptions { version: Some(version), ..PostgresOptions::default() };
    let world = World::with(options, NatsOptions::default()).await;
    world.run_sql("create table t(id int primary key); create publication figvine_shop for table t").await;
    let standby = Postgres::standby_of(&world.postgres, &[]).await.expect("a standby");
    configure(&world, &standby.url("postgres"), "[t]", "");
    let found = findings(&world, 4).await;
    holds(&found, "FV-1205", "blocker", "server version");
    let refused = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("FV-1205") && refused.stderr.contains("standby"), "{}", refused.stderr);
}
