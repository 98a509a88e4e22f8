//! One writer: whoever else writes ends, or ends us, and nothing is interleaved.

use std::time::Duration;

use figvine_sandbox::{NatsOptions, wait_for};

use super::harness::{Bridge, SOON, STREAM, World, each_header, figvine, finish, last_sequence, wait_growth};
use super::journal::{self, ENDLESS, Load, Random};

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
    let load = Load::start(&world.postgres, 1, ENDLESS, &mut Random::seeded());
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

/// Publishes as somebody who knows nothing of us; the message's sequence.
async fn publish_alien(world: &World) -> u64 {
    let context = world.jetstream().await;
    let acknowledged = context.publish("cdc.shop.public.items.00", "{}".into()).await.expect("sends");
    acknowledged.await.expect("is stored").sequence
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alien_who_publishes_into_a_flight_ends_it_and_is_not_forgotten() {
    const ROWS: u64 = 50_000;
    let world = World::start().await;
    world.run_sql("create table big(id int primary key, note text)").await;
    world.drain().await;
    let mut bridge = world.bridge();
    world.run_sql(&format!("insert into big select n, 'row' from generate_series(1, {ROWS}) n")).await;
    wait_growth(&world, &mut bridge, ROWS / 5).await;
    let alien = publish_alien(&world).await;
    assert_eq!(bridge.code(SOON).await, Some(9), "{}", bridge.log());
    let words = format!("another writer is active on stream FIGVINE_SHOP: message {alien} was not written by figvine");
    assert!(bridge.log().contains(&words), "{}", bridge.log());

    // What followed in the same flight may stand behind it: nobody goes on from there.
    let last = last_sequence(&world).await.expect("the stream");
    assert!(last < ROWS);
    let (code, words) = if last > alien { (9, words.as_str()) } else { (7, "was not written by figvine") };
    for _ in 0..2 {
        let finished = world.finish(&["run", "--until", "now"]).await;
        assert_eq!(finished.code, Some(code), "{}", finished.stderr);
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
    }
    assert_eq!(last_sequence(&world).await, Some(last));

    // By hand: again from the checkpoint, which stands before the alien's message.
    let shown = world.finish(&["position", "show", "--output", "json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let kept = &shown["positions"][0];
    assert!(kept["kept_sequence"].as_u64().expect("a checkpoint") < alien);
    let position = kept["kept_position"].as_str().expect("a checkpoint");
    let set = world.finish(&["position", "set", "--source", "shop", position, "--force"]).await;
    assert_eq!(set.code, Some(0), "{}", set.stderr);
    world.drain().await;
    let mut places = std::collections::BTreeSet::new();
    each_header(&world, |_, headers| {
        let place = headers.and_then(|headers| headers.get("Figvine-Tx-Index"));
        places.extend(place.and_then(|place| place.as_str().parse::<u64>().ok()));
    })
    .await;
    assert!(places.into_iter().eq(0..ROWS));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alien_who_publishes_in_a_pause_is_found_at_the_next_event() {
    let world = world().await;
    let mut bridge = world.bridge();
    world.run_sql("insert into items values (1, 1, null)").await;
    let first = wait_for("the first event", SOON, async || last_sequence(&world).await.filter(|last| *last == 1)).await;
    first.unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    // A pause is one only when the bridge has heard nothing for a while; its checkpoint comes later still.
    let kept = async || {
        let shown = world.finish(&["position", "show", "--output", "json"]).await;
        let shown: serde_json::Value = serde_json::from_str(&shown.stdout).ok()?;
        (shown["positions"][0]["kept_sequence"] == 1).then_some(())
    };
    wait_for("the checkpoint", SOON, kept).await.expect("a checkpoint");
    assert_eq!(publish_alien(&world).await, 2);
    world.run_sql("insert into items select n, 1 from generate_series(2, 1000) n").await;
    assert_eq!(bridge.code(SOON).await, Some(9), "{}", bridge.log());
    assert_eq!(last_sequence(&world).await, Some(2));
    let finished = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(finished.code, Some(7), "{}", finished.stderr);
    assert!(finished.stderr.contains("2, was not written by figvine"), "{}", finished.stderr);
}
