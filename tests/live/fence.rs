//! One writer: whoever else writes ends, or ends us, and nothing is interleaved.

use std::time::Duration;

use figvine_sandbox::{NatsOptions, wait_for};

use super::harness::{Bridge, SOON, STREAM, World, figvine, finish, last_sequence, wait_growth};
use super::journal::{self, Load, Random};

/// How long a second bridge may wait for a slot that somebody else reads.
const PATIENCE: Duration = Duration::from_secs(20);

async fn world() -> World {
    let world = World::with(journal::contended(), NatsOptions::default()).await;
    journal::create(&world).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_bridge_on_a_source_ends_and_the_first_goes_on() {
    let world = world().await;
    let mut first = world.bridge();
    let load = Load::start(&world.postgres, 2, 20_000, &mut Random::seeded());
    wait_growth(&world, &mut first, 50).await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let mut second = Bridge::start(world.figvine(&["run"]), elsewhere.path());
    assert_eq!(second.code(PATIENCE).await, Some(9), "{}", second.log());
    assert!(second.log().contains("slot figvine_shop is in use"), "{}", second.log());
    wait_growth(&world, &mut first, 50).await;
    load.stop().await;
    first.stop().await;
    journal::check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_slots_cannot_feed_one_stream() {
    let world = World::with(journal::contended(), NatsOptions::default()).await;
    // A slot that is older than the stream can be read from wherever the stream is.
    world.run_sql("select pg_create_logical_replication_slot('other', 'pgoutput')").await;
    journal::create(&world).await;
    let mut first = world.bridge();
    let config = std::fs::read_to_string(world.config_path()).expect("the configuration");
    let other = world.home.path().join("other.yaml");
    let renamed = config.replace("postgres: { url", "postgres: { slot: other, url");
    std::fs::write(&other, renamed).expect("writes the configuration");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let mut second = Bridge::start(figvine(&other, &["run"]), elsewhere.path());
    let query = "select count(*) from pg_replication_slots where active";
    let both = wait_for("both to stream", SOON, async || {
        let active: i64 = world.sql().await.query_one(query, &[]).await.expect("the slots").get(0);
        (active == 2).then_some(())
    });
    both.await.unwrap_or_else(|e| panic!("{e}\n{}\n{}", first.log(), second.log()));

    Load::start(&world.postgres, 2, 300, &mut Random::seeded()).finished().await;
    let ended = wait_for("one of them to end", SOON, async || match (first.ended(), second.ended()) {
        (Some(status), None) | (None, Some(status)) => Some(status.code()),
        (None, None) => None,
        both => panic!("{both:?}\n{}\n{}", first.log(), second.log()),
    });
    assert_eq!(ended.await.expect("one of them ends"), Some(9), "{}\n{}", first.log(), second.log());
    if first.ended().is_some() {
        second.stop().await;
        // The loser's slot is behind the stream: it goes on there, and finds nothing to add.
    } else {
        first.stop().await;
    }
    journal::check(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_another_source_is_refused_in_words() {
    let world = world().await;
    let config = std::fs::read_to_string(world.config_path()).expect("the configuration");
    let other = world.home.path().join("other.yaml");
    let renamed = format!("{}    stream: {{ name: {STREAM} }}\n", config.replace("  shop:", "  store:"));
    std::fs::write(&other, renamed).expect("writes the configuration");
    let finished = finish(figvine(&other, &["run"])).await;
    assert_eq!(finished.code, Some(7), "{}", finished.stderr);
    assert!(finished.stderr.contains("stream FIGVINE_SHOP belongs to source shop"), "{}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alien_who_publishes_into_the_stream_is_found_at_the_next_event() {
    let world = world().await;
    let mut bridge = world.bridge();
    let load = Load::start(&world.postgres, 2, 20_000, &mut Random::seeded());
    wait_growth(&world, &mut bridge, 100).await;
    let context = world.jetstream().await;
    context.publish("cdc.shop.public.items.00", "{}".into()).await.expect("sends").await.expect("is stored");
    assert_eq!(bridge.code(SOON).await, Some(9), "{}", bridge.log());
    assert!(bridge.log().contains("another writer is active on stream FIGVINE_SHOP"), "{}", bridge.log());
    load.stop().await;
    // Nothing of ours stands behind the alien's, and nothing will.
    let last = last_sequence(&world).await;
    let alien = world.events().await.iter().find(|e| e.header("Figvine-Tx").is_empty()).map(|e| e.sequence);
    assert_eq!(alien, last);
    let finished = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(finished.code, Some(7), "{}", finished.stderr);
    assert!(finished.stderr.contains("was not written by figvine"), "{}", finished.stderr);
    assert_eq!(last_sequence(&world).await, last);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alien_who_publishes_in_a_pause_is_found_at_the_next_event() {
    let world = world().await;
    let mut bridge = world.bridge();
    world.run_sql("insert into items values (1, 1, null)").await;
    let first = wait_for("the first event", SOON, async || last_sequence(&world).await.filter(|last| *last == 1)).await;
    first.unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    let context = world.jetstream().await;
    context.publish("cdc.shop.public.items.00", "{}".into()).await.expect("sends").await.expect("is stored");
    world.run_sql("insert into items select n, 1 from generate_series(2, 1000) n").await;
    assert_eq!(bridge.code(SOON).await, Some(9), "{}", bridge.log());
    assert_eq!(last_sequence(&world).await, Some(2));
}
