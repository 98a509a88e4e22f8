//! A replica takes over: by GTIDs reading goes on there.

use std::time::Duration;

use figvine_change::{Connector as _, SourceErrorKind};
use figvine_sandbox::{MariaDb, MySql, wait_for};

use super::harness::{Server, World, connector_of, refused, run, told};

/// Kills the primary with a transaction open to the reader, and goes on at the replica.
async fn goes_on_at_the_replica(world: World, replica: Server) {
    let connector = connector_of(&replica);
    let start = world.here().await;
    world.run("create table t(id int primary key, a text);\ninsert into t values (1, 'x'), (2, 'x'), (3, 'x')").await;
    for id in 4..30 {
        world.run(&format!("insert into t values ({id}, 'x');\nupdate t set a = 'y' where id = {id}")).await;
    }
    let newest = world.here().await;
    let all = world.told(&start).await.expect("reads");
    let caught_up = wait_for("the replica", Duration::from_secs(30), async || {
        connector.is_reached(&newest, &connector.newest().await.ok()?).then_some(())
    });
    caught_up.await.expect("caught up");

    // Another one, that the replica does not get.
    let alone = {
        let mut client = replica.connect("shop").await.expect("connects");
        run(&mut client, if matches!(replica, Server::MySql(_)) { "stop replica" } else { "stop slave" }).await;
        world.run("insert into t values (1000, 'lost')").await;
        world.here().await
    };
    world.server.kill9();
    let mut client = replica.connect("shop").await.expect("connects");
    run(&mut client, "insert into t values (2000, 'new'), (2001, 'new')").await;
    let at_replica = told(&connector, &start).await.expect("reads");
    let at_replica: Vec<_> = at_replica.into_iter().filter(|told| !told.is_shape).collect();

    // Behind every change that was read at the old one, inside of transactions and between them.
    for (at, change) in all.iter().filter(|told| !told.is_shape).enumerate() {
        let resumed = told(&connector, &change.position).await.expect("reads");
        let resumed: Vec<_> = resumed.iter().filter(|told| !told.is_shape).map(identity).collect();
        let expected: Vec<_> = at_replica[at + 1..].iter().map(identity).collect();
        assert_eq!(resumed, expected, "from {}", change.position);
        assert_eq!(identity(change), identity(&at_replica[at]), "the same at either");
    }
    assert_eq!(at_replica.last().map(|told| told.text.as_str()), Some(r#"insert shop.t id=2001 a="new""#));

    // What was read of the lost one is not in this history.
    let error = refused(&connector, &alone).await;
    assert_eq!(error.kind, SourceErrorKind::PositionLost, "{error}");
}

fn identity(told: &super::harness::Told) -> (&str, &str, u64, u32, bool) {
    (&told.text, &told.transaction, told.ordinal, told.part, told.last)
}

#[tokio::test]
async fn a_replica_of_mysql_is_gone_on_with_where_its_primary_was_left() {
    let world = World::mysql(&[]).await;
    let Server::MySql(primary) = &world.server else { panic!("MySQL") };
    let replica = Server::MySql(MySql::replica_of(primary, &[]).await.expect("a replica"));
    goes_on_at_the_replica(world, replica).await;
}

#[tokio::test]
async fn a_replica_of_mariadb_is_gone_on_with_where_its_primary_was_left() {
    let world = World::mariadb(&[]).await;
    let Server::MariaDb(primary) = &world.server else { panic!("MariaDB") };
    let replica = Server::MariaDb(MariaDb::replica_of(primary, &[]).await.expect("a replica"));
    goes_on_at_the_replica(world, replica).await;
}

/// Holds the replica back by an hour, and asks it.
async fn tells_its_lag(world: World, replica: Server, delay: &str) {
    let connector = connector_of(&replica);
    // Its database comes with the log.
    let client = wait_for("the replica", Duration::from_secs(30), async || replica.connect("shop").await.ok()).await;
    run(&mut client.unwrap_or_else(|e| panic!("{e}")), delay).await;
    let behind = wait_for("lag", Duration::from_secs(30), async || {
        // It knows of its lag once there is something to wait for.
        world.run("create or replace view v as select 1").await;
        connector.load().await.expect("asks").replica_lag.filter(|lag| *lag > Duration::ZERO)
    });
    behind.await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(world.connector.load().await.expect("asks").replica_lag, None, "the primary");
}

#[tokio::test]
async fn a_replica_that_is_read_tells_how_far_it_is_behind() {
    let world = World::mysql(&[]).await;
    let Server::MySql(primary) = &world.server else { panic!("MySQL") };
    let replica = Server::MySql(MySql::replica_of(primary, &[]).await.expect("a replica"));
    let delay = "stop replica;\nchange replication source to source_delay = 3600;\nstart replica";
    tells_its_lag(world, replica, delay).await;

    let world = World::mariadb(&[]).await;
    let Server::MariaDb(primary) = &world.server else { panic!("MariaDB") };
    let replica = Server::MariaDb(MariaDb::replica_of(primary, &[]).await.expect("a replica"));
    tells_its_lag(world, replica, "stop slave;\nchange master to master_delay = 3600;\nstart slave").await;
}
