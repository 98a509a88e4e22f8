//! Whatever is killed, and whenever: nothing is lost, nothing comes twice.

use figvine_sandbox::NatsOptions;

use super::harness::{World, each_header, last_sequence, wait_growth, wait_last};
use super::journal::{self, ENDLESS, Load, Random};

/// The memory that a bridge may take, in KiB.
const MEMORY_KIB: u64 = 56 * 1024;

async fn world() -> World {
    let world = World::with(journal::contended(), NatsOptions::default()).await;
    journal::create(&world).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_killed_again_and_again_goes_on_where_it_was() {
    let world = world().await;
    let mut random = Random::seeded();
    let load = Load::start(&world.postgres, 3, ENDLESS, &mut random);
    for _ in 0..10 {
        let mut bridge = world.bridge();
        wait_growth(&world, &mut bridge, random.below(400)).await;
        bridge.kill9();
    }
    load.stop().await;
    journal::check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_is_killed_again_and_again_is_waited_for() {
    let world = world().await;
    let mut random = Random::seeded();
    let mut bridge = world.bridge();
    let load = Load::start(&world.postgres, 3, ENDLESS, &mut random);
    for _ in 0..5 {
        wait_growth(&world, &mut bridge, random.below(400)).await;
        world.nats.kill9();
        world.nats.restart().await.expect("NATS again");
    }
    wait_growth(&world, &mut bridge, 100).await;
    load.stop().await;
    bridge.stop().await;
    journal::check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_again_and_again_is_waited_for() {
    let world = world().await;
    let mut random = Random::seeded();
    let mut bridge = world.bridge();
    let load = Load::start(&world.postgres, 3, ENDLESS, &mut random);
    for _ in 0..4 {
        wait_growth(&world, &mut bridge, random.below(400)).await;
        world.postgres.kill9();
        world.postgres.restart().await.expect("PostgreSQL again");
    }
    wait_growth(&world, &mut bridge, 100).await;
    load.stop().await;
    bridge.stop().await;
    journal::check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_three_may_be_killed_in_any_order() {
    let world = world().await;
    let mut random = Random::seeded();
    let mut bridge = world.bridge();
    let load = Load::start(&world.postgres, 3, ENDLESS, &mut random);
    for _ in 0..4 {
        wait_growth(&world, &mut bridge, random.below(200)).await;
        // At least one; what is killed together comes back one after the other.
        let victims = 1 + random.below(7);
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
    load.stop().await;
    bridge.stop().await;
    journal::check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_told_to_stop_under_load_frees_the_slot_for_the_next() {
    let world = world().await;
    let mut random = Random::seeded();
    let load = Load::start(&world.postgres, 3, ENDLESS, &mut random);
    for round in 1..=4 {
        let mut bridge = world.bridge();
        wait_growth(&world, &mut bridge, 200).await;
        let log = bridge.log();
        assert!(!log.contains("FV-1313"), "{log}");
        bridge.stop().await;
        let log = world.log();
        let ends = log.matches("all that was read is stored").count();
        assert_eq!(ends, round, "{log}");
        let query = "select active from pg_replication_slots where slot_name = 'figvine_shop'";
        let is_active: bool = world.sql().await.query_one(query, &[]).await.expect("the slot").get(0);
        assert!(!is_active);
    }
    load.stop().await;
    journal::check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_very_many_rows_is_gone_on_with_in_its_middle() {
    const ROWS: u64 = 300_000;
    let world = World::start().await;
    world.run_sql("create table big(id int primary key, note text)").await;
    world.drain().await;
    world.run_sql(&format!("insert into big select n, 'row ' || n from generate_series(1, {ROWS}) n")).await;

    let mut random = Random::seeded();
    let enough = ROWS / 10 + random.below(ROWS / 2);
    let mut bridge = world.bridge();
    wait_growth(&world, &mut bridge, enough).await;
    let peak = bridge.peak_kib();
    bridge.kill9();
    let held = last_sequence(&world).await.expect("the stream");
    assert!((ROWS / 10..ROWS * 9 / 10).contains(&held), "killed with {held} of {ROWS} stored: not its middle");

    let mut bridge = world.bridge();
    wait_last(&world, &mut bridge, ROWS).await;
    let peak = peak.max(bridge.peak_kib());
    bridge.stop().await;
    assert!(peak < MEMORY_KIB, "{peak} KiB");

    let mut expected = 0;
    let mut wrong = Vec::new();
    each_header(&world, |sequence, headers| {
        let is = |name: &str, value: &str| {
            headers.and_then(|headers| headers.get(name)).is_some_and(|held| held.as_str() == value)
        };
        let is_right = sequence == expected + 1
            && is("Figvine-Tx-Index", &expected.to_string())
            && is("Figvine-Tx-Last", "true") == (sequence == ROWS);
        if !is_right && wrong.len() < 5 {
            wrong.push((sequence, expected));
        }
        expected += 1;
    })
    .await;
    assert_eq!((expected, wrong), (ROWS, vec![]));
}
