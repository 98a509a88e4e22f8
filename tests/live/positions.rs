//! A log or a stream that is not the one where we stopped: no gap is ever passed in silence.

use std::path::{Path, PathBuf};

use figvine_sandbox::{NatsOptions, Postgres, PostgresOptions, wait_for};
use nix::sys::signal::Signal;

use super::harness::{DATABASE, SOON, STREAM, World, last_sequence};

/// A source that has stored the first row of its table, and is down.
async fn stopped(postgres: PostgresOptions, more: &str) -> World {
    let world = World::with(postgres, NatsOptions::default()).await;
    world.configure(more);
    world.run_sql("create table orders(id int primary key)").await;
    world.drain().await;
    insert(&world, 1, 1).await;
    world.drain().await;
    assert_eq!(last_sequence(&world).await, Some(1));
    world
}

async fn insert(world: &World, first: i64, last: i64) {
    world.run_sql(&format!("insert into orders select generate_series({first}, {last})")).await;
}

/// Starts the bridge, which must refuse to go on, in these words; and so must the next.
async fn refuses(world: &World, code: i32, words: &str) {
    for _ in 0..2 {
        let finished = world.finish(&["run", "--until", "now"]).await;
        assert_eq!(finished.code, Some(code), "{}", finished.stderr);
        assert!(finished.stderr.contains(words), "{}", finished.stderr);
    }
}

/// The keys in the stream, in order.
async fn keys(world: &World) -> Vec<i64> {
    world.events().await.iter().filter_map(|event| event.body["key"]["id"].as_i64()).collect()
}

const DROP_SLOT: &str = "select pg_drop_replication_slot('figvine_shop')";

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_gone_is_a_gap() {
    let world = stopped(PostgresOptions::default(), "").await;
    world.run_sql(DROP_SLOT).await;
    refuses(&world, 8, "slot figvine_shop is gone").await;
    insert(&world, 2, 2).await;
    world.run_sql("select pg_create_logical_replication_slot('figvine_shop', 'pgoutput')").await;
    refuses(&world, 8, "slot figvine_shop was moved on").await;
    assert_eq!(keys(&world).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_moved_on_by_hand_is_a_gap() {
    let world = stopped(PostgresOptions::default(), "").await;
    insert(&world, 2, 2).await;
    world.run_sql("select pg_replication_slot_advance('figvine_shop', pg_current_wal_lsn())").await;
    refuses(&world, 8, "slot figvine_shop was moved on").await;
    assert_eq!(keys(&world).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_for_another_plugin_is_refused() {
    let world = World::start().await;
    world.run_sql("create table orders(id int primary key)").await;
    world.run_sql("select pg_create_logical_replication_slot('figvine_shop', 'test_decoding')").await;
    refuses(&world, 3, "slot figvine_shop is for the plugin test_decoding").await;
}

/// Writes log until the server gives up a slot that keeps more than a few segments.
async fn overrun(world: &World) {
    for _ in 0..4 {
        world.run_sql("select pg_logical_emit_message(false, 'noise', 'x'); select pg_switch_wal()").await;
    }
    world.run_sql("checkpoint").await;
    let query = "select wal_status = 'lost' from pg_replication_slots where slot_name = 'figvine_shop'";
    let lost = wait_for("the slot to be lost", SOON, async || {
        let is_lost: bool = world.sql().await.query_one(query, &[]).await.expect("the slot").get(0);
        is_lost.then_some(())
    });
    lost.await.expect("it is lost");
}

fn narrow() -> PostgresOptions {
    let settings = [("max_slot_wal_keep_size", "16MB"), ("wal_sender_timeout", "2s")];
    PostgresOptions {
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..PostgresOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_the_server_gave_up_is_a_gap() {
    let world = stopped(narrow(), "").await;
    insert(&world, 2, 2).await;
    overrun(&world).await;
    refuses(&world, 8, "the server invalidated slot figvine_shop").await;
    assert_eq!(keys(&world).await, [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_the_server_gives_up_while_we_run_is_a_gap() {
    let world = stopped(narrow(), "").await;
    let mut bridge = world.bridge();
    let query = "select count(*) from pg_stat_replication where state = 'streaming'";
    let begun = wait_for("the bridge to stream", SOON, async || {
        let count: i64 = world.sql().await.query_one(query, &[]).await.expect("walsenders").get(0);
        (count == 1).then_some(())
    });
    begun.await.unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    bridge.signal(Signal::SIGSTOP);
    insert(&world, 2, 2).await;
    overrun(&world).await;
    bridge.signal(Signal::SIGCONT);
    assert_eq!(bridge.code(SOON).await, Some(8), "{}", bridge.log());
    assert!(bridge.log().contains("slot figvine_shop"), "{}", bridge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_under_the_same_address_is_refused_and_left_as_it_is() {
    let world = stopped(PostgresOptions::default(), "").await;
    let other = Box::pin(Postgres::start(PostgresOptions::default())).await.expect("another cluster");
    let sql = other.connect(DATABASE).await.expect("connects");
    sql.batch_execute("create table orders(id int primary key)").await.expect("a table");
    let config = std::fs::read_to_string(world.config_path()).expect("the configuration");
    world.write_config(&config.replace(&world.postgres.url(DATABASE), &other.url(DATABASE)));
    refuses(&world, 8, "this server is another cluster").await;
    let query = "select (select count(*) from pg_publication) + (select count(*) from pg_replication_slots)";
    let made: i64 = sql.query_one(query, &[]).await.expect("counts").get(0);
    assert_eq!(made, 0, "a publication or a slot was made where nothing is ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_while_we_were_down_is_a_loss() {
    let world = stopped(PostgresOptions::default(), "").await;
    world.jetstream().await.delete_stream(STREAM).await.expect("deletes the stream");
    insert(&world, 2, 2).await;
    refuses(&world, 8, "stream FIGVINE_SHOP is gone or was made anew").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_and_its_checkpoint_that_were_deleted_together_are_a_loss_that_the_database_knows_of() {
    let world = stopped(PostgresOptions::default(), "").await;
    let jetstream = world.jetstream().await;
    let wipe = async || {
        jetstream.delete_stream(STREAM).await.expect("deletes the stream");
        jetstream.delete_key_value("FIGVINE_CHECKPOINTS").await.expect("deletes the bucket");
    };
    wipe().await;
    insert(&world, 2, 2).await;
    refuses(&world, 8, "FV-2309").await;
    assert_eq!(keys(&world).await, [0; 0]);
    // Told so, what the database still holds is gone on with.
    world.configure("    stream: { on_stream_loss: reread }\n");
    world.drain().await;
    assert_eq!(keys(&world).await, [2]);
    // And a slot of our own making is a beginning.
    wipe().await;
    world.configure("");
    refuses(&world, 8, "FV-2309").await;
    world.run_sql(DROP_SLOT).await;
    world.drain().await;
    insert(&world, 3, 3).await;
    world.drain().await;
    assert_eq!(keys(&world).await, [3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_while_we_run_is_a_loss() {
    let world = stopped(PostgresOptions::default(), "").await;
    let mut bridge = world.bridge();
    insert(&world, 2, 2).await;
    wait_for("the second row", SOON, async || last_sequence(&world).await.filter(|last| *last == 2)).await.expect("it");
    world.jetstream().await.delete_stream(STREAM).await.expect("deletes the stream");
    insert(&world, 3, 3).await;
    assert_eq!(bridge.code(SOON).await, Some(8), "{}", bridge.log());
    assert!(bridge.log().contains("stream FIGVINE_SHOP is gone or was made anew"), "{}", bridge.log());
    refuses(&world, 8, "stream FIGVINE_SHOP is gone or was made anew").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_purged_is_gone_on_with() {
    let world = stopped(PostgresOptions::default(), "").await;
    let purge = async || {
        let stream = world.jetstream().await.get_stream(STREAM).await.expect("the stream");
        stream.purge().await.expect("purges");
    };
    purge().await;
    insert(&world, 2, 3).await;
    let bridge = world.bridge();
    wait_for("two rows", SOON, async || last_sequence(&world).await.filter(|last| *last == 3)).await.expect("two rows");
    assert_eq!(keys(&world).await, [2, 3]);
    purge().await;
    insert(&world, 4, 4).await;
    wait_for("a row", SOON, async || last_sequence(&world).await.filter(|last| *last == 4)).await.expect("a row");
    bridge.stop().await;
    assert_eq!(keys(&world).await, [4]);
    insert(&world, 5, 5).await;
    world.drain().await;
    assert_eq!(keys(&world).await, [4, 5]);
}

const REREAD: &str = "    release_delay: 1h\n    stream: { on_stream_loss: reread }\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_deleted_is_filled_again_from_what_the_source_still_holds() {
    let world = stopped(PostgresOptions::default(), REREAD).await;
    insert(&world, 2, 100).await;
    world.drain().await;
    world.jetstream().await.delete_stream(STREAM).await.expect("deletes the stream");
    insert(&world, 101, 110).await;
    world.drain().await;
    assert_eq!(keys(&world).await, (1..=110).collect::<Vec<_>>());

    // The same while the bridge runs.
    let bridge = world.bridge();
    insert(&world, 111, 111).await;
    wait_for("a row", SOON, async || last_sequence(&world).await.filter(|last| *last == 111)).await.expect("a row");
    world.jetstream().await.delete_stream(STREAM).await.expect("deletes the stream");
    insert(&world, 112, 112).await;
    let again = wait_for("all rows", SOON, async || last_sequence(&world).await.filter(|last| *last == 112)).await;
    again.unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    bridge.stop().await;
    assert_eq!(keys(&world).await, (1..=112).collect::<Vec<_>>());
}

/// Where a server keeps the messages of our stream.
fn store(world: &World) -> PathBuf {
    world.nats.dir().join("store/jetstream/$G/streams").join(STREAM)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// What the server acknowledged behind key 1 never reached its disk.
async fn lose_tail(world: &World) {
    let backup = world.home.path().join("backup");
    world.nats.stop().await.expect("stops");
    copy(&store(world), &backup);
    world.nats.restart().await.expect("NATS again");
    insert(world, 2, 50).await;
    world.drain().await;
    assert_eq!(last_sequence(world).await, Some(50));
    world.nats.stop().await.expect("stops");
    std::fs::remove_dir_all(store(world)).expect("removes");
    copy(&backup, &store(world));
    world.nats.restart().await.expect("NATS again");
    assert_eq!(last_sequence(world).await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_lost_its_tail_is_a_loss() {
    let world = stopped(PostgresOptions::default(), "").await;
    lose_tail(&world).await;
    refuses(&world, 8, "stream FIGVINE_SHOP lost what it had acknowledged: it ends at 1, 50 was stored").await;
    // Nothing holds what the database has forgotten: it is told, not passed over.
    world.configure("    stream: { on_stream_loss: reread }\n");
    refuses(&world, 8, "slot figvine_shop was moved on").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_tail_is_read_again_from_what_the_source_still_holds() {
    let world = stopped(PostgresOptions::default(), REREAD).await;
    lose_tail(&world).await;
    insert(&world, 51, 60).await;
    world.drain().await;
    assert_eq!(keys(&world).await, (1..=60).collect::<Vec<_>>());
    world.drain().await;
    assert_eq!(last_sequence(&world).await, Some(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_position_is_forgotten_begins_anew() {
    let world = stopped(PostgresOptions::default(), "").await;
    world.jetstream().await.delete_stream(STREAM).await.expect("deletes the stream");
    world.run_sql(DROP_SLOT).await;
    let set = ["position", "set", "--source", "shop", "none"];
    let finished = world.finish(&set).await;
    assert_eq!(finished.code, Some(1), "{}", finished.stderr);
    refuses(&world, 8, "stream FIGVINE_SHOP is gone or was made anew").await;
    let finished = world.finish(&[&set[..], &["--force"]].concat()).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    world.drain().await;
    insert(&world, 2, 3).await;
    world.drain().await;
    assert_eq!(keys(&world).await, [2, 3]);
}
