//! The trace that the application left in its transaction becomes an attribute of the events.

use super::harness::{World, last_sequence, wait_growth};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-11111111111111111111111111111111-2222222222222222-00";
/// Rows of a transaction that a bridge does not get through at once.
const MANY: usize = 100_000;

fn said(trace: &str) -> String {
    format!("select pg_logical_emit_message(true, 'traceparent', '{trace}')")
}

/// Transactions of table `t`, and the keys of their rows with the trace that each is to have.
fn transactions() -> (Vec<String>, Vec<(i64, &'static str)>) {
    let (trace, other) = (said(TRACE), said(OTHER));
    let transactions = [
        format!("begin; {trace}; insert into t values (1), (2); update t set id = 3 where id = 2; commit"),
        "insert into t values (4)".to_owned(),
        // A rolled-back part says nothing; neither does what comes behind the first change, or is no trace.
        format!(
            "begin; savepoint s; {other}; rollback to s; {trace}; insert into t values (5); {other}; insert into t values (6); commit"
        ),
        format!("begin; {}; insert into t values (7); commit", said("not a trace")),
        format!("begin; insert into uncaptured values (1); {other}; insert into t values (8); commit"),
        format!(
            "begin; select pg_logical_emit_message(false, 'traceparent', '{TRACE}'); insert into t values (9); commit"
        ),
        format!("begin; {trace}; commit"),
        format!("begin; {other}; truncate t; commit"),
    ];
    let expected = [
        (1, TRACE),
        (2, TRACE),
        (2, TRACE),
        (3, TRACE),
        (4, ""),
        (5, TRACE),
        (6, TRACE),
        (7, ""),
        (8, OTHER),
        (9, ""),
        (0, OTHER),
    ];
    (transactions.into(), expected.into())
}

async fn world(more: &str) -> World {
    let world = World::start().await;
    world.run_sql("create table t(id int primary key); create table uncaptured(id int)").await;
    world.configure(more);
    let text = std::fs::read_to_string(world.config_path()).expect("the configuration");
    world.write_config(&text.replace("\"public.*\"", "\"public.t\""));
    world.drain().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_before_the_first_change_is_the_trace_of_its_transactions_events() {
    let world = world("").await;
    let (transactions, expected) = transactions();
    for transaction in &transactions {
        world.run_sql(transaction).await;
    }
    world.drain().await;
    let events = world.events().await;
    let told: Vec<_> = events
        .iter()
        .map(|event| (event.body["key"]["id"].as_i64().unwrap_or_default(), event.header("ce-traceparent")))
        .collect();
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_structured_event_has_its_trace_in_the_body() {
    let world = world("    format: cloudevents-structured\n").await;
    let (transactions, expected) = transactions();
    for transaction in &transactions {
        world.run_sql(transaction).await;
    }
    world.drain().await;
    let told: Vec<_> = world
        .events()
        .await
        .iter()
        .map(|event| {
            let trace = event.body.get("traceparent").map_or("", |trace| trace.as_str().expect("a text")).to_owned();
            (event.body["data"]["key"]["id"].as_i64().unwrap_or_default(), trace)
        })
        .collect();
    let expected: Vec<_> = expected.into_iter().map(|(id, trace)| (id, trace.to_owned())).collect();
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_gone_on_with_in_its_middle_keeps_its_trace() {
    let world = world("").await;
    world.run_sql(&format!("begin; {}; insert into t select generate_series(1, {MANY}); commit", said(TRACE))).await;
    let mut bridge = world.bridge();
    wait_growth(&world, &mut bridge, 500).await;
    bridge.kill9();
    let stored = last_sequence(&world).await.expect("a stream");
    assert!(stored < MANY as u64, "the transaction was stored before the bridge was killed");
    world.drain().await;
    let events = world.events().await;
    assert_eq!(events.len(), MANY);
    let mut ids = std::collections::BTreeSet::new();
    for event in &events {
        assert_eq!(event.header("ce-traceparent"), TRACE, "message {} of {stored} and more", event.sequence);
        assert!(ids.insert(event.header("ce-id")));
    }
}
