//! A cluster that loses the leader of the stream.

use figvine_sandbox::{Nats, NatsCluster, Postgres, wait_for};

use super::harness::{DATABASE, SOON, STREAM, World, wait_growth};
use super::journal::{self, ENDLESS, Load, Random};

async fn leader_name(world: &World) -> Option<String> {
    let stream = world.jetstream().await.get_stream(STREAM).await.ok()?;
    stream.cached_info().cluster.as_ref()?.leader.clone()
}

/// A node's name is that of its directory.
fn is_named(node: &Nats, name: &str) -> bool {
    node.dir().file_name().is_some_and(|dir| dir == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_takes_nothing_with_it() {
    let (postgres, cluster) =
        tokio::join!(Box::pin(Postgres::start(journal::contended())), Box::pin(NatsCluster::start(3)));
    let (postgres, mut cluster) = (postgres.expect("PostgreSQL"), cluster.expect("a cluster"));
    let urls = cluster.urls().join("\", \"");
    let nats = cluster.nodes.remove(0);
    let world = World { postgres, nats, home: tempfile::tempdir().expect("a directory") };
    world.write_config(&format!(
        "nats: {{ url: [\"{urls}\"] }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{}\" }}\n    tables: [\"public.*\"]\n    stream: {{ replicas: 3 }}\n",
        world.postgres.url(DATABASE)
    ));
    journal::create(&world).await;
    let mut bridge = world.bridge();
    let load = Load::start(&world.postgres, 1, ENDLESS, &mut Random::seeded());
    for _ in 0..2 {
        wait_growth(&world, &mut bridge, 200).await;
        let name = wait_for("a leader", SOON, async || leader_name(&world).await).await.expect("a leader");
        let nodes = cluster.nodes.iter().chain([&world.nats]);
        let leader = nodes.into_iter().find(|node| is_named(node, &name)).expect("the leader is one of ours");
        leader.kill9();
        leader.restart().await.expect("the node again");
    }
    wait_growth(&world, &mut bridge, 200).await;
    load.stop().await;
    bridge.stop().await;
    journal::check(&world).await;
}
