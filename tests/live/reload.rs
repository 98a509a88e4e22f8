//! A configuration that changes while the bridge runs.

use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use figvine_sandbox::wait_for;

use super::backfill::{wait_ready, wait_state};
use super::harness::{DATABASE, LONG, SOON, World};

fn configure(world: &World, tables: &str) {
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    initial: backfill\n    postgres: {{ url: \"{}\" }}\n    tables: [{tables}]\n",
        world.nats.url(),
        world.postgres.url(DATABASE)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_added_to_the_configuration_of_a_running_bridge_comes_without_a_gap() {
    let world = World::start().await;
    world
        .run_sql(
            "create table first(id int primary key, n int); insert into first values (1, 0);
             create table second(id int primary key, n int); insert into second select n, 0 from generate_series(1, 2000) n",
        )
        .await;
    configure(&world, "public.first");
    let mut bridge = world.bridge();
    wait_ready(&world).await;
    wait_state(&world, None, "done").await;

    // Both are written all the time.
    let enough = CancellationToken::new();
    let (client, writing) = (world.sql().await, enough.clone());
    let mut writer = JoinSet::new();
    writer.spawn(async move {
        while !writing.is_cancelled() {
            // Not more than a slow machine follows: existing rows come where the log was read to.
            let change = "begin; update first set n = n + 1; update second set n = n + 1 where id % 400 = 0; commit;
                          select pg_sleep(0.01)";
            client.batch_execute(change).await.expect("writes");
        }
    });
    // A mistake changes nothing and ends nothing.
    world.write_config("sources: { shop: { tabels: [x] } }");
    bridge.signal(Signal::SIGHUP);
    let told = wait_for("the complaint", SOON, async || world.log().contains("did you mean 'tables'").then_some(()));
    told.await.unwrap_or_else(|e| panic!("{e}\n{}", world.log()));
    bridge.must_run();

    configure(&world, "public.first, public.second");
    bridge.signal(Signal::SIGHUP);
    let seen = wait_for("the added table", LONG, async || {
        bridge.must_run();
        let events = world.events().await;
        let of_second = events.iter().filter(|event| event.table() == "public.second");
        let ops: std::collections::BTreeSet<_> = of_second.map(|event| event.op().to_owned()).collect();
        (ops.contains("read") && ops.contains("update")).then_some(())
    });
    seen.await.unwrap_or_else(|e| panic!("{e}\n{}", world.log()));
    let listed = world.finish(&["backfill", "list"]).await;
    assert!(listed.stdout.contains("public.second"), "{}", listed.stdout);
    enough.cancel();
    while writer.join_next().await.is_some() {}
    bridge.stop().await;
    world.drain().await;

    let events = world.events().await;
    // Each table rebuilt is what it is; and no change of any row was left out.
    for (table, rows) in [("first", 1), ("second", 2000)] {
        let mut rebuilt = std::collections::BTreeMap::new();
        for event in events.iter().filter(|event| event.table() == format!("public.{table}")) {
            let (id, n) = (event.body["key"]["id"].as_i64(), event.body["after"]["n"].as_i64().expect("n"));
            if let Some(before) = rebuilt.insert(id.expect("an id"), n) {
                let expected = if event.op() == "read" { before } else { before + 1 };
                assert_eq!(n, expected, "{table} {id:?}, message {}", event.sequence);
            }
        }
        assert_eq!(rebuilt.len(), rows);
        let held = world.sql().await.query(&format!("select id, n from {table}"), &[]).await.expect("rows");
        let held = held.iter().map(|row| (row.get::<_, i32>(0).into(), row.get::<_, i32>(1).into())).collect();
        assert_eq!(rebuilt, held, "{table}");
    }
}
