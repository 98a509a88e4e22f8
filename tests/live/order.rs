//! Order and wholeness under many writers.

use super::harness::World;
use super::journal::{self, Load, Random};
use figvine_sandbox::NatsOptions;

#[tokio::test(flavor = "multi_thread")]
async fn what_eight_writers_commit_stands_in_the_stream_once_and_in_order() {
    let world = World::with(journal::contended(), NatsOptions::default()).await;
    journal::create(&world).await;
    let bridge = world.bridge();
    let sent = Load::start(&world.postgres, 8, 400, &mut Random::seeded()).finished().await;
    assert_eq!(sent, 3200);
    bridge.stop().await;
    let changes = journal::check(&world).await;
    assert!(changes > 2000, "{changes} changes are no load");
}
