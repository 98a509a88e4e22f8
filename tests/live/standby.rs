//! Standbys that are read, and servers that are promoted: PostgreSQL 16 and later, tested on 18.

use std::fmt::Write as _;

use figvine_sandbox::{NatsOptions, Postgres, PostgresOptions, wait_for};

use super::harness::{Bridge, DATABASE, SOON, World, eighteen, last_sequence, wait_last};

/// A primary of version 18 with a table `orders`.
async fn primary() -> Option<World> {
    let version = eighteen()?;
    let options = PostgresOptions { version: Some(version), ..PostgresOptions::default() };
    let world = World::with(options, NatsOptions::default()).await;
    world.run_sql("create table orders(id int primary key); create publication figvine_shop for table orders").await;
    Some(world)
}

/// Reads from the servers of these ports: the first that answers.
fn read_from(world: &World, ports: &[u16]) {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"postgres://postgres@{}/{DATABASE}\" }}\n    tables: [\"public.*\"]\n",
        world.nats.url(),
        hosts.join(",")
    ));
}

/// Inserts rows, each in a transaction of its own.
async fn insert(server: &Postgres, first: i64, last: i64) {
    let client = server.connect(DATABASE).await.expect("connects");
    let mut sql = String::new();
    for id in first..=last {
        let _ = write!(sql, "begin; insert into orders values ({id}); commit;");
    }
    client.batch_execute(&sql).await.expect("inserts");
}

/// The keys in the stream, in order.
async fn keys(world: &World) -> Vec<i64> {
    world.events().await.iter().filter_map(|event| event.body["key"]["id"].as_i64()).collect()
}

/// Waits until a query of the server gives true.
async fn until(server: &Postgres, what: &str, query: &str) {
    let waited = wait_for(what, SOON, async || {
        let client = server.connect(DATABASE).await.ok()?;
        client.query_opt(query, &[]).await.expect(query)?.get::<_, bool>(0).then_some(())
    });
    waited.await.unwrap_or_else(|e| panic!("{e}\n{}", server.log_tail()));
}

/// Starts the bridge on a standby. The creation of a slot there waits for a record of the primary's running transactions.
async fn begin_on_standby(world: &World, standby: &Postgres) -> Bridge {
    let bridge = world.bridge();
    let client = world.sql().await;
    let waited = wait_for("the bridge to stream", SOON, async || {
        client.batch_execute("select pg_log_standby_snapshot()").await.expect("a record");
        let there = standby.connect(DATABASE).await.ok()?;
        let query = "select active from pg_replication_slots where slot_name = 'figvine_shop' and confirmed_flush_lsn is not null";
        there.query_opt(query, &[]).await.expect(query)?.get::<_, bool>(0).then_some(())
    });
    waited.await.unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    bridge
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_read_in_order_and_gone_on_with_when_it_is_promoted() {
    let Some(world) = primary().await else { return };
    let standby = Postgres::standby_of(&world.postgres, &[]).await.expect("a standby");
    read_from(&world, &[standby.port()]);
    let mut bridge = begin_on_standby(&world, &standby).await;
    insert(&world.postgres, 1, 200).await;
    wait_last(&world, &mut bridge, 200).await;
    bridge.stop().await;
    insert(&world.postgres, 201, 300).await;
    let mut bridge = world.bridge();
    wait_last(&world, &mut bridge, 300).await;

    // In order, so that nothing is lost on the way from the one to the other.
    world.postgres.stop().await.expect("stops");
    standby.promote().await.expect("promotes");
    insert(&standby, 301, 400).await;
    wait_last(&world, &mut bridge, 400).await;
    bridge.kill9();
    insert(&standby, 401, 450).await;
    world.drain().await;
    assert_eq!(keys(&world).await, (1..=450).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_drained_to_where_it_is() {
    let Some(world) = primary().await else { return };
    let standby = Postgres::standby_of(&world.postgres, &[]).await.expect("a standby");
    read_from(&world, &[standby.port()]);
    begin_on_standby(&world, &standby).await.stop().await;
    insert(&world.postgres, 1, 50).await;
    let at: String = world.sql().await.query_one("select pg_current_wal_lsn()::text", &[]).await.expect("asks").get(0);
    until(&standby, "the standby to follow", &format!("select pg_last_wal_replay_lsn() >= '{at}'::pg_lsn")).await;
    world.drain().await;
    assert_eq!(keys(&world).await, (1..=50).collect::<Vec<_>>());
}

const SYNCED: &str = "select synced and not temporary and invalidation_reason is null
                      from pg_replication_slots where slot_name = 'figvine_shop'";

/// A standby that has our slot as the primary had it a moment ago.
///
/// The primary's slot must first have moved past the place where the standby's log begins.
async fn keeper_of(world: &World) -> Postgres {
    let standby = Postgres::standby_of(&world.postgres, &[]).await.expect("a standby");
    let bridge = world.bridge();
    let client = world.sql().await;
    let waited = wait_for("the slot to be kept in step", SOON, async || {
        client.batch_execute("select pg_log_standby_snapshot()").await.expect("a record");
        let there = standby.connect(DATABASE).await.ok()?;
        there.batch_execute("select pg_sync_replication_slots()").await.ok()?;
        there.query_opt(SYNCED, &[]).await.expect(SYNCED)?.get::<_, bool>(0).then_some(())
    });
    waited.await.unwrap_or_else(|e| panic!("{e}\n{}\n{}", standby.log_tail(), bridge.log()));
    bridge.stop().await;
    standby
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_kept_in_step_survives_the_primary() {
    let Some(world) = primary().await else { return };
    world.drain().await;
    until(
        &world.postgres,
        "a slot for failovers",
        "select failover from pg_replication_slots where slot_name = 'figvine_shop'",
    )
    .await;
    let standby = keeper_of(&world).await;
    // The primary gives us nothing that the standby has not.
    let name = "select slot_name::text from pg_replication_slots where slot_type = 'physical'";
    let name: String = world.sql().await.query_one(name, &[]).await.expect("its slot").get(0);
    world.run_sql(&format!("alter system set synchronized_standby_slots = '{name}'")).await;
    world.run_sql("select pg_reload_conf()").await;
    until(&world.postgres, "the setting", "select current_setting('synchronized_standby_slots') <> ''").await;
    read_from(&world, &[world.postgres.port(), standby.port()]);
    let mut bridge = world.bridge();
    insert(&world.postgres, 1, 200).await;
    wait_last(&world, &mut bridge, 200).await;

    world.postgres.kill9();
    // The standby answers, and what is kept in step there cannot be read yet.
    wait_for("a look at the standby", SOON, async || bridge.log().contains("FV-1318").then_some(()))
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    bridge.must_run();
    standby.promote().await.expect("promotes");
    insert(&standby, 201, 300).await;
    wait_last(&world, &mut bridge, 300).await;
    bridge.stop().await;
    insert(&standby, 301, 310).await;
    world.drain().await;
    assert_eq!(keys(&world).await, (1..=310).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_promoted_standby_never_had_is_a_loss() {
    let Some(world) = primary().await else { return };
    world.drain().await;
    let standby = keeper_of(&world).await;
    insert(&world.postgres, 1, 10).await;
    world.drain().await;
    standby.stop().await.expect("stops");
    // The primary goes on without it, and we with the primary.
    insert(&world.postgres, 11, 20).await;
    world.drain().await;
    assert_eq!(last_sequence(&world).await, Some(20));
    world.postgres.kill9();
    standby.restart().await.expect("starts");
    standby.promote().await.expect("promotes");
    insert(&standby, 21, 30).await;
    read_from(&world, &[standby.port()]);
    for _ in 0..2 {
        let refused = world.finish(&["run", "--until", "now"]).await;
        assert_eq!(refused.code, Some(8), "{}", refused.stderr);
        assert!(refused.stderr.contains("FV-1301") && refused.stderr.contains("timeline 2"), "{}", refused.stderr);
    }
    assert_eq!(keys(&world).await, (1..=20).collect::<Vec<_>>());
}
