//! Domain events of a shop at work, while everything is killed.

use std::collections::{BTreeMap, BTreeSet};

use figvine_sandbox::wait_for;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::harness::{
    Bridge, DATABASE, SOON, STREAM, World, each_event, last_sequence, wait_growth, wait_growth_of, wait_last,
};
use super::held::{hold, kept};
use super::journal::Random;
use super::orders::{self, Order};

/// The memory that a bridge may take whose rows lie in a file, in KiB: 26 MiB were measured, and 46 with all of them in memory.
const MEMORY_KIB: u64 = 40 * 1024;

async fn world() -> World {
    let world = World::start().await;
    world.configure(&orders::rules("public"));
    world.run_sql(orders::TABLES).await;
    world.run_sql("alter table orders replica identity full").await;
    world.drain().await;
    world
}

/// Places orders until it is told to stop. A database that goes away is waited for.
fn write(world: &World, writers: u64, random: &mut Random, enough: &CancellationToken) -> JoinSet<()> {
    let mut running = JoinSet::new();
    for writer in 1..=writers {
        let (url, mut random, enough) = (world.postgres.url(DATABASE), Random::new(random.next()), enough.clone());
        running.spawn(async move {
            let mut number = 0;
            while !enough.is_cancelled() {
                let Ok((client, connection)) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let connection = tokio::spawn(connection);
                while !enough.is_cancelled() {
                    // A number whose outcome is not known is not used again.
                    number += 1;
                    let done = client.batch_execute(&orders::transaction(&mut random, writer, number)).await;
                    if done.is_err() && client.batch_execute("rollback").await.is_err() {
                        break;
                    }
                }
                connection.abort();
            }
        });
    }
    running
}

async fn orders_of(world: &World) -> BTreeMap<i64, Order> {
    let sql = world.sql().await;
    let mut orders = BTreeMap::new();
    for row in sql.query("select id::bigint, status from orders", &[]).await.expect("orders") {
        orders.insert(row.get(0), Order { status: row.get(1), ..Order::default() });
    }
    let lines = "select order_id::bigint, id::bigint, sku, quantity::bigint, price::text from order_lines order by id";
    for row in sql.query(lines, &[]).await.expect("lines") {
        if let Some(order) = orders.get_mut(&row.get::<_, i64>(0)) {
            order.lines.push((row.get(1), row.get(2), row.get(3), row.get(4)));
        }
    }
    orders
}

#[tokio::test(flavor = "multi_thread")]
async fn each_committed_order_is_told_once_with_its_lines_whatever_is_killed() {
    let world = world().await;
    let mut random = Random::seeded();
    let enough = CancellationToken::new();
    let mut bridge = world.bridge();
    let load = write(&world, 3, &mut random, &enough);
    for round in 0..8 {
        wait_growth(&world, &mut bridge, 20 + random.below(400)).await;
        let victims = if round < 3 { 1 << round } else { 1 + random.below(7) };
        if victims & 1 != 0 {
            world.nats.kill9();
        }
        if victims & 2 != 0 {
            bridge.kill9();
            bridge = world.bridge();
        }
        if victims & 4 != 0 {
            world.postgres.kill9();
            world.postgres.restart().await.expect("PostgreSQL again");
        }
        world.nats.restart().await.expect("NATS again");
    }
    wait_growth(&world, &mut bridge, 100).await;
    enough.cancel();
    load.join_all().await;
    bridge.stop().await;
    world.drain().await;
    let events = world.events().await;
    assert!(orders::check(&events, &orders_of(&world).await) > 100);
    let named = hold(&events, &kept(&world.jetstream().await).await);
    for schema in ["order_placed/2.0", "order_shipped/1.0", "order_sent/1.0", "line_seen/1.0"] {
        assert!(named.contains(&format!("figvine:shop.{schema}")), "{named:?}");
    }
}

/// A rule that promises something else in the same major version is no rule to run with, where drift stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_whose_data_breaks_its_major_version_is_refused_until_that_is_raised() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key, total numeric(12,2), note text)").await;
    let with = |version: u32, data: &str| {
        format!(
            "    schemas: {{ on_drift: stop }}\n    rules: [{{ type: placed, version: {version}, from: public.orders, data: {data} }}]\n"
        )
    };
    world.configure(&with(1, "[id, total]"));
    world.drain().await;
    world.configure(&with(1, "[id]"));
    let finished = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(finished.code, Some(3), "{}", finished.stderr);
    for words in ["FV-3302", "placed", "total", "Raise `version`"] {
        assert!(finished.stderr.contains(words), "{words}: {}", finished.stderr);
    }
    world.configure(&with(2, "[id]"));
    world.drain().await;
    world.run_sql("insert into orders values (1, 1.5, 'x')").await;
    world.drain().await;
    let events = world.events().await;
    assert!(events.iter().any(|event| event.header("ce-dataschema") == "figvine:shop.placed/2.0"));
    hold(&events, &kept(&world.jetstream().await).await);
}

/// An order whose lines are so many that the bridge dies between them, and between the events of its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_of_orders_is_gone_on_with_in_its_middle() {
    let world = world().await;
    let sql = "begin;
        insert into orders select n, 'new', 'x' from generate_series(1, 3000) n;
        insert into order_lines select n * 10 + k, n, 'many', k, k + 0.25 from generate_series(1, 3000) n, generate_series(1, 4) k;
        commit";
    world.run_sql(sql).await;
    let mut random = Random::seeded();
    // Three thousand orders and twelve thousand lines; the wholes come at the end, and there the kills lie close together.
    for growth in [2_000, 6_000, 6_500, 700, 100] {
        let mut bridge = world.bridge();
        wait_growth_of(&world, &mut bridge, 3_000 + 12_000 + 3_000, random.below(growth)).await;
        bridge.kill9();
    }
    world.drain().await;
    let events = world.events().await;
    assert_eq!(orders::check(&events, &orders_of(&world).await), 3_000);
    assert_eq!(events.len(), 3_000 + 12_000 + 3_000);
    let last = events.last().expect("an event");
    assert_eq!((last.header("Figvine-Tx-Last"), last.header("ce-type")), ("true", "order_placed.v2"));
}

/// Thirty thousand wholes at a transaction's end, of more rows than memory may hold: the bridge dies among them, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn wholes_that_lie_in_a_file_are_told_once_each_and_take_no_memory() {
    const ORDERS: u64 = 30_000;
    const ROWS: u64 = 3 * ORDERS;
    let world = world().await;
    let spilled = "        aggregate:\n          max_bytes: 4MiB\n          on_large: spill\n";
    world.configure(&orders::rules("public").replace("        aggregate:\n", spilled));
    let sql = format!(
        "begin;
        insert into orders select n, 'new', 'x' from generate_series(1, {ORDERS}) n;
        insert into order_lines select n * 10 + k, n, 'many', k, k + 0.25 from generate_series(1, 2) k, generate_series(1, {ORDERS}) n;
        commit"
    );
    world.run_sql(&sql).await;
    let mut random = Random::seeded();
    let mut peak = 0;
    for round in 0..5 {
        let mut bridge = world.bridge();
        let growth = if round == 0 { ROWS } else { 0 } + random.below(ORDERS / 6);
        wait_growth_of(&world, &mut bridge, ROWS + ORDERS, growth).await;
        peak = peak.max(bridge.peak_kib());
        // Between two portions it may be told to stop, too.
        if round == 2 {
            bridge.stop().await;
        } else {
            bridge.kill9();
        }
        let held = last_sequence(&world).await.expect("the stream");
        assert!(round > 0 || held < ROWS + ORDERS, "all {held} are stored: not the middle of the wholes");
    }
    let mut bridge = world.bridge();
    wait_last(&world, &mut bridge, ROWS + ORDERS).await;
    peak = peak.max(bridge.peak_kib());
    bridge.stop().await;
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    let (mut ids, mut placed, mut last) = (BTreeSet::new(), BTreeSet::new(), None);
    each_event(&world.jetstream().await, STREAM, |event| {
        if event.header("ce-type") == "order_placed.v2" {
            let id = event.body["id"].as_u64().expect("a number");
            let line = |k: u64, price: &str| json!({"id": id * 10 + k, "sku": "many", "quantity": k, "price": price});
            let whole = json!({"id": id, "total": "5.75", "lines": [line(1, "1.25"), line(2, "2.25")]});
            assert_eq!(event.body, whole);
            placed.insert(id);
        }
        last = Some((event.header("ce-type").to_owned(), event.header("Figvine-Tx-Last").to_owned()));
        assert!(ids.insert(event.header("ce-id").to_owned()), "{} is told twice", event.header("ce-id"));
    })
    .await;
    assert_eq!((ids.len() as u64, placed.len() as u64), (ROWS + ORDERS, ORDERS));
    assert_eq!(last, Some(("order_placed.v2".into(), "true".into())));
}

/// No room for a file is waited for, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_made_is_tried_again() {
    let world = World::start().await;
    world
        .run_sql(
            "create table orders(id int primary key, note text); create table lines(id int primary key, order_id int)",
        )
        .await;
    world.configure("    rules: [{ type: placed, from: public.orders, data: [id], aggregate: { include: [{ table: lines, on: order_id }], max_bytes: 2KiB, on_large: spill } }]\n");
    world.drain().await;
    world.run_sql("insert into orders select n, repeat('x', 1000) from generate_series(1, 9) n").await;
    let mut command = world.figvine(&["run"]);
    command.env("TMPDIR", world.home.path().join("nowhere"));
    let bridge = Bridge::start(command, world.home.path());
    let refused = wait_for("a file that cannot be made", SOON, async || bridge.log().contains("FV-3115").then_some(()));
    refused.await.unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    bridge.kill9();
    world.drain().await;
    let events = world.events().await;
    let placed = events.iter().filter(|event| event.header("ce-type") == "placed.v1");
    assert_eq!(placed.map(|event| event.body["id"].clone()).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
    assert_eq!(events.len(), 18);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_that_cannot_be_evaluated_stops_the_source_and_loses_nothing() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key, total numeric(12,2))").await;
    let with =
        |when: &str| format!("    rules: [{{ type: large, from: public.orders, when: '{when}', data: [id] }}]\n");
    world.configure(&with("after.total > 100"));
    world.drain().await;
    world.run_sql("insert into orders values (1, 100.01), (2, 100.00), (3, null), (4, 200)").await;
    let finished = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    for words in ["FV-3112", "rule large", "an order is not there for null and int", "rules explain"] {
        assert!(finished.stderr.contains(words), "{words}: {}", finished.stderr);
    }
    world.configure(&with("after.total != null && after.total > 100"));
    world.drain().await;
    let large: Vec<_> =
        world.events().await.into_iter().filter(|event| event.header("ce-type") == "large.v1").collect();
    assert_eq!(large.iter().map(|event| event.body["id"].clone()).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(world.events().await.len(), 4 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_fit_no_table_are_found_by_check() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key, status text)").await;
    world.configure(
        "    rules:\n      - { type: a, from: public.order, when: after.id > 1 }\n      - { type: b, from: public.orders, when: after.statuz == 'x' }\n",
    );
    let finished = world.finish(&["check"]).await;
    assert_eq!(finished.code, Some(4), "{}", finished.stdout);
    for words in [
        "there is no captured table public.order; did you mean 'public.orders'?",
        "table public.orders has no column 'statuz'; did you mean 'status'?",
    ] {
        assert!(finished.stdout.contains(words), "{words}: {}", finished.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_of_rows_and_of_messages_is_told() {
    let world = World::start().await;
    world.configure("    outbox: { table: public.outbox, messages: [\"shop.*\"] }\n");
    world.run_sql("create table outbox(id uuid primary key default gen_random_uuid(), aggregatetype text, aggregateid text, type text, payload jsonb)").await;
    world.drain().await;
    world
        .run_sql(
            "begin;
             insert into outbox(aggregatetype, aggregateid, type, payload) values ('order', '7', 'OrderPlaced', '{\"total\": 12.50}');
             delete from outbox;
             commit;
             select pg_logical_emit_message(true, 'shop.mail', '{\"type\": \"MailSent\", \"key\": \"7\", \"payload\": {\"to\": 1}}');
             select pg_logical_emit_message(true, 'other', 'x')",
        )
        .await;
    world.drain().await;
    let told: Vec<_> = world
        .events()
        .await
        .iter()
        .map(|event| {
            (
                event.subject.clone(),
                event.header("ce-type").to_owned(),
                event.header("ce-subject").to_owned(),
                event.text().to_owned(),
            )
        })
        .collect();
    let event =
        |name: &str, body: &str| (format!("events.shop.{name}.06"), name.to_owned(), "7".to_owned(), body.to_owned());
    assert_eq!(told, [event("OrderPlaced", "{\"total\":12.50}"), event("MailSent", "{\"to\": 1}")]);
}

/// Rows that were there say so, whatever a rule makes of new ones; a bridge that dies among them tells each once.
#[tokio::test(flavor = "multi_thread")]
async fn existing_rows_are_snapshots_and_never_pretend_to_be_new() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key, total numeric(12,2))").await;
    world.run_sql("insert into orders select n, n + 0.5 from generate_series(1, 4000) n").await;
    world.configure(
        "    initial: backfill
    rules:
      - { type: order_placed, from: public.orders, data: [id] }
      - { type: order_snapshot, from: public.orders, on: [read], when: after.id != 7, data: [id, total], also_change_event: false }
",
    );
    let mut random = Random::seeded();
    for _ in 0..3 {
        let mut bridge = world.bridge();
        wait_growth_of(&world, &mut bridge, 4000, random.below(1200)).await;
        bridge.kill9();
    }
    world.drain().await;
    world.run_sql("insert into orders values (0, 1)").await;
    world.drain().await;
    let events = world.events().await;
    let of = |name: &str| events.iter().filter(|event| event.header("ce-type") == name).collect::<Vec<_>>();
    let mut snapshots: Vec<_> = of("order_snapshot.v1").iter().map(|event| event.text().to_owned()).collect();
    snapshots.sort_unstable();
    let mut expected: Vec<_> =
        (1..=4000).filter(|id| *id != 7).map(|id| format!("{{\"id\":{id},\"total\":\"{id}.50\"}}")).collect();
    expected.sort_unstable();
    assert_eq!(snapshots, expected);
    assert_eq!(of("shop.public.orders.read").len(), 1, "the one that no rule takes");
    assert_eq!(of("order_placed.v1").len(), 1, "the one that was placed");
    assert_eq!(events.len(), 4000 + 2);
}
