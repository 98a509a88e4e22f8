//! The trace that the application left in its statements' comments becomes an attribute of the events.

use super::world::{Kind, World};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";
/// Rows of a statement that a bridge does not get through at once.
const MANY: usize = 30_000;

fn said(trace: &str) -> String {
    format!("/*action='%2Fpay',traceparent='{trace}'*/")
}

/// The setting that puts statements into the log.
fn logging(kind: Kind) -> &'static str {
    match kind {
        Kind::MySql => "binlog_rows_query_log_events",
        Kind::MariaDb => "binlog_annotate_row_events",
    }
}

async fn world(kind: Kind) -> World {
    let world = World::start(kind).await;
    world.configure_engine("trace_comments: true");
    world.run(&format!("set global {} = on", logging(kind))).await;
    world.run("create table t(id int primary key, note text)").await;
    world.drain().await;
    world
}

async fn told(world: &World) -> Vec<(i64, String)> {
    let events = world.events().await;
    let told = events
        .iter()
        .map(|event| (event.body["key"]["id"].as_i64().unwrap_or_default(), event.header("ce-traceparent").to_owned()));
    told.collect()
}

async fn comments_are_traces(kind: Kind) {
    let world = world(kind).await;
    let (trace, other) = (said(TRACE), said(OTHER));
    world
        .run(&format!(
            "insert into t values (1, 'it\\'s') {trace};
             insert into t values (2, '{}'), (3, null);
             begin;
             insert into t values (4, 'before any');
             {trace} insert into t values (5, null);
             insert into t values (6, 'goes on');
             update t set id = id + 1 where id in (5, 6) order by id desc {other};
             delete from t where id = 1 /*traceparent='00-0-0-00'*/;
             commit;
             insert into t values (8, 'later');
             xa start 'x';
             insert into t values (9, null) {trace};
             insert into t values (10, null) -- traceparent={OTHER}\n;
             xa end 'x';
             xa prepare 'x';
             xa commit 'x';
             truncate t {other}",
            trace.replace('\'', "''")
        ))
        .await;
    world.drain().await;
    let expected = [
        (1, TRACE),
        (2, ""),
        (3, ""),
        (4, ""),
        (5, TRACE),
        (6, TRACE),
        (6, OTHER),
        (7, OTHER),
        (5, OTHER),
        (6, OTHER),
        (1, OTHER),
        (8, ""),
        (9, TRACE),
        (10, OTHER),
        (0, OTHER),
    ];
    assert_eq!(told(&world).await, expected.map(|(id, trace)| (id, trace.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn comments_of_statements_are_the_traces_of_their_changes_on_mysql() {
    comments_are_traces(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn comments_of_statements_are_the_traces_of_their_changes_on_mariadb() {
    comments_are_traces(Kind::MariaDb).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_found_in_what_is_compressed() {
    for (kind, setting) in [(Kind::MySql, "binlog_transaction_compression"), (Kind::MariaDb, "log_bin_compress")] {
        let world = world(kind).await;
        world.run(&format!("set global {setting} = on")).await;
        let note = "long ".repeat(100);
        world
            .run(&format!(
                "begin;\ninsert into t values (1, '{note}') {};\ninsert into t values (2, '{note}') {};\ncommit",
                said(TRACE),
                said(OTHER)
            ))
            .await;
        world.drain().await;
        assert_eq!(told(&world).await, [(1, TRACE.to_owned()), (2, OTHER.to_owned())], "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_gone_on_with_in_its_middle_keeps_its_traces() {
    for kind in [Kind::MySql, Kind::MariaDb] {
        let world = world(kind).await;
        world.run("create table other(id int primary key)").await;
        let digits = (0..10).map(|digit| format!("({digit})")).collect::<Vec<_>>().join(", ");
        world.run(&format!("insert into other values {digits}")).await;
        world.drain().await;
        let before = world.events().await.len();
        let number = "a.id + 10 * b.id + 100 * c.id + 1000 * d.id + 10000 * e.id";
        let rows = |from: usize| {
            format!(
                "insert into t select {number} + {from}, null from other a, other b, other c, other d, other e
                 where {number} < {MANY}"
            )
        };
        world.run(&format!("begin;\n{} {};\n{} {};\ncommit", rows(0), said(TRACE), rows(MANY), said(OTHER))).await;
        let mut bridge = world.bridge();
        world.wait_growth(&mut bridge, 500).await;
        bridge.kill9();
        let stored = world.last_sequence().await.expect("a stream");
        assert!(stored < (before + MANY) as u64, "{kind:?}: too much was stored before the bridge was killed");
        world.drain().await;
        let told = told(&world).await;
        assert_eq!(told.len(), before + 2 * MANY, "{kind:?}");
        for (id, trace) in &told[before..] {
            let expected = if *id < MANY as i64 { TRACE } else { OTHER };
            assert_eq!(trace, expected, "{kind:?}: row {id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_that_a_log_without_statements_has_no_traces() {
    for kind in [Kind::MySql, Kind::MariaDb] {
        let world = world(kind).await;
        let told = world.finish(&["--output", "json", "check"]).await.stdout;
        assert!(told.contains("FV-1270") && told.contains(logging(kind)), "{kind:?}: {told}");
        world.run(&format!("set global {} = off", logging(kind))).await;
        let fixes = world.finish(&["check", "--fix-sql"]).await.stdout;
        assert!(fixes.contains(&format!("{} = ON", logging(kind))), "{kind:?}: {fixes}");
    }
}
