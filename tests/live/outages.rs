//! NATS is away, frozen or full, for longer than anyone remembers: the source waits, connected, in bounded memory.

use std::time::Duration;

use figvine_sandbox::{NatsOptions, wait_for};
use tokio::time::Instant;

use super::harness::{Bridge, SOON, World, each_header, last_sequence, wait_growth, wait_last};
use super::journal::{self, Load, Random};

/// Longer than `wal_sender_timeout` below, than the stream's duplicate window, and than the patience for an answer.
const OUTAGE: Duration = Duration::from_secs(8);
/// The memory that a bridge may take, in KiB.
const MEMORY_KIB: u64 = 64 * 1024;

/// The server's process that feeds our slot.
async fn walsender(world: &World) -> Option<i32> {
    let query = "select active_pid from pg_replication_slots where slot_name = 'figvine_shop'";
    world.sql().await.query_one(query, &[]).await.expect("the slot").get(0)
}

/// Waits until [`OUTAGE`] is over, while the bridge and its walsender stay.
async fn outage(world: &World, bridge: &mut Bridge, sender: i32) {
    let began = Instant::now();
    let over = wait_for("the outage's end", SOON, async || {
        bridge.must_run();
        assert_eq!(walsender(world).await, Some(sender), "{}", bridge.log());
        (began.elapsed() >= OUTAGE).then_some(())
    });
    over.await.expect("it passes");
}

async fn world() -> World {
    let mut options = journal::contended();
    options.settings.push(("wal_sender_timeout".into(), "4s".into()));
    let world = World::with(options, NatsOptions::default()).await;
    journal::create(&world).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_is_away_for_long_costs_neither_the_source_nor_an_event() {
    let world = world().await;
    let mut random = Random::seeded();
    let mut bridge = world.bridge();
    let load = Load::start(&world.postgres, 2, 6_000, &mut random);
    wait_growth(&world, &mut bridge, 200).await;
    let sender = walsender(&world).await.expect("a walsender");
    world.nats.kill9();
    outage(&world, &mut bridge, sender).await;
    world.nats.restart().await.expect("NATS again");
    wait_growth(&world, &mut bridge, 200).await;
    assert_eq!(walsender(&world).await, Some(sender));
    load.stop().await;
    bridge.stop().await;
    journal::check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_is_frozen_for_long_costs_neither_the_source_nor_an_event() {
    let world = world().await;
    let mut random = Random::seeded();
    let mut bridge = world.bridge();
    let load = Load::start(&world.postgres, 2, 6_000, &mut random);
    wait_growth(&world, &mut bridge, 200).await;
    let sender = walsender(&world).await.expect("a walsender");
    world.nats.freeze();
    outage(&world, &mut bridge, sender).await;
    world.nats.thaw();
    wait_growth(&world, &mut bridge, 200).await;
    assert_eq!(walsender(&world).await, Some(sender));
    load.stop().await;
    bridge.stop().await;
    journal::check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_bridge_had_sent_may_arrive_when_the_next_one_runs() {
    const ROWS: u64 = 10_000;
    const ROUNDS: u64 = 5;
    let world = World::start().await;
    world.run_sql("create table big(id int primary key, note text)").await;
    world.drain().await;
    for round in 0..ROUNDS {
        let first = round * ROWS;
        // Of this bridge: the walsender of the one before may still be there.
        let sessions = || world.log().matches("streaming source=").count();
        let before = sessions();
        let bridge = world.bridge();
        let begun = wait_for("a session", SOON, async || (sessions() > before).then_some(())).await;
        begun.unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
        world.nats.freeze();
        // Its frames wait in the frozen server's sockets.
        let insert = "insert into big select n, repeat('x', 500) from generate_series";
        world.run_sql(&format!("{insert}({first}, {}) n", first + ROWS - 1)).await;
        let doubt = wait_for("a doubt", SOON, async || {
            let doubts = bridge.log().matches("is in doubt").count() as u64;
            (doubts > round).then_some(())
        });
        doubt.await.unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
        bridge.kill9();
        let mut bridge = world.bridge();
        world.nats.thaw();
        let stored = wait_for("all rows", SOON, async || {
            bridge.must_run();
            last_sequence(&world).await.filter(|last| *last >= first + ROWS)
        });
        stored.await.unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
        bridge.stop().await;
    }
    let mut index = 0;
    each_header(&world, |sequence, headers| {
        let told = headers.and_then(|headers| headers.get("Figvine-Tx-Index")).map(ToString::to_string);
        assert_eq!((sequence, told), (index + 1, Some((index % ROWS).to_string())));
        index += 1;
    })
    .await;
    assert_eq!(index, ROWS * ROUNDS);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_while_a_large_transaction_waits_for_a_frozen_nats_server() {
    const ROWS: u64 = 300_000;
    let world = World::start().await;
    world.run_sql("create table big(id int primary key, note text)").await;
    world.drain().await;
    let mut bridge = world.bridge();
    world.run_sql("insert into big values (0, 'first')").await;
    wait_for("the first row", SOON, async || last_sequence(&world).await.filter(|last| *last == 1)).await.expect("it");
    world.nats.freeze();
    let insert = format!("insert into big select n, repeat('x', 200) || n from generate_series(1, {ROWS}) n");
    world.run_sql(&insert).await;
    wait_for("a doubt", SOON, async || bridge.log().contains("is in doubt").then_some(())).await.expect("a doubt");
    // The database has sent what sockets and queues hold, and waits for us.
    let query = "select wait_event from pg_stat_activity where backend_type = 'walsender'";
    let waits = wait_for("the database to wait for us", SOON, async || {
        let event: Option<String> = world.sql().await.query_one(query, &[]).await.expect("a walsender").get(0);
        event.filter(|event| event.starts_with("WalSenderWrite"))
    });
    waits.await.expect("it waits");
    bridge.must_run();
    world.nats.thaw();
    wait_last(&world, &mut bridge, ROWS + 1).await;
    let peak = bridge.peak_kib();
    bridge.stop().await;
    assert_eq!(last_sequence(&world).await, Some(ROWS + 1));
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_holds_the_source_up_until_it_may_hold_more() {
    let world = World::with(journal::contended(), NatsOptions::default()).await;
    let limited = |bytes: &str| world.configure(&format!("    stream: {{ max_bytes: {bytes} }}\n"));
    limited("128KiB");
    journal::create(&world).await;
    let mut bridge = world.bridge();
    Load::start(&world.postgres, 2, 400, &mut Random::seeded()).finished().await;
    wait_for("the stream to be full", SOON, async || bridge.log().contains("maximum bytes exceeded").then_some(()))
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    bridge.must_run();
    let full = last_sequence(&world).await;
    bridge.kill9();
    limited("64MiB");
    let changes = journal::check(&world).await;
    assert!(Some(changes as u64) > full, "{changes} changes did not fill the stream");
}
