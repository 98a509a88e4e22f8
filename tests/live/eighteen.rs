//! PostgreSQL 18: what holds on other versions, and what it alone can do.

use figvine_sandbox::{NatsOptions, PostgresOptions};

use super::harness::{World, eighteen};
use super::{basics, shapes, tables, values};

async fn world() -> Option<World> {
    let version = eighteen()?;
    let options = PostgresOptions { version: Some(version), ..PostgresOptions::default() };
    Some(World::with(options, NatsOptions::default()).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_and_idle_times_are_on_18_as_on_others() {
    let Some(first) = world().await else { return };
    Box::pin(basics::operations(first)).await;
    let Some(second) = world().await else { return };
    Box::pin(basics::idle(second)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_on_18_as_on_others() {
    let Some(first) = world().await else { return };
    Box::pin(values::types(first)).await;
    let Some(second) = world().await else { return };
    Box::pin(values::large_values(second)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_their_shapes_are_on_18_as_on_others() {
    let Some(first) = world().await else { return };
    Box::pin(shapes::columns(first)).await;
    let Some(second) = world().await else { return };
    Box::pin(tables::identities(second)).await;
    let Some(third) = world().await else { return };
    Box::pin(tables::partitions(third)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_generated_columns_are_published_and_the_application_is_never_refused() {
    let Some(world) = world().await else { return };
    world
        .run_sql(
            "create table plain(id int primary key, a int, twice int generated always as (a * 2) stored,
                                seen int generated always as (a + 1) virtual);
             create table whole(id int primary key, a int, twice int generated always as (a * 2) stored);
             alter table whole replica identity full;
             create publication figvine_shop for table plain",
        )
        .await;
    world.drain().await;
    world
        .run_sql("insert into plain values (1, 5); update plain set a = 6; insert into whole values (1, 7); update whole set a = 8")
        .await;
    world.drain().await;
    let after: Vec<String> = world.events().await.iter().map(|event| event.body["after"].to_string()).collect();
    assert_eq!(
        after,
        [
            r#"{"id":1,"a":5,"twice":10}"#,
            r#"{"id":1,"a":6,"twice":12}"#,
            r#"{"id":1,"a":7,"twice":14}"#,
            r#"{"id":1,"a":8,"twice":16}"#,
        ]
    );
    let checked = world.finish(&["check"]).await;
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
    assert!(checked.stdout.contains("1 generated column"), "{}", checked.stdout);

    // Its whole row is to be in the log, and a virtual column never is.
    world
        .run_sql(
            "create table hidden(id int primary key, a int, seen int generated always as (a + 1) virtual);
             alter table hidden replica identity full",
        )
        .await;
    let checked = world.finish(&["check"]).await;
    assert_eq!(checked.code, Some(4), "{}", checked.stdout);
    let refused = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("public.hidden"), "{}", refused.stderr);
    world.run_sql("insert into hidden values (1, 1); update hidden set a = 2; delete from hidden").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_publication_without_generated_columns_is_respected_and_told_of() {
    let Some(world) = world().await else { return };
    world.configure("");
    let config = std::fs::read_to_string(world.config_path()).expect("the configuration");
    world.write_config(
        &config.replace("/postgres\" }", "/postgres\", publication: theirs, publication_managed: false }"),
    );
    world
        .run_sql(
            "create table plain(id int primary key, twice int generated always as (id * 2) stored);
             create publication theirs for table plain",
        )
        .await;
    world.drain().await;
    world.run_sql("insert into plain values (1)").await;
    world.drain().await;
    let after: Vec<String> = world.events().await.iter().map(|event| event.body["after"].to_string()).collect();
    assert_eq!(after, [r#"{"id":1}"#]);
    let checked = world.finish(&["check"]).await;
    for words in ["1 generated columns are not sent", "FV-1232"] {
        assert!(checked.stdout.contains(words), "{words}: {}", checked.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_came_by_replication_are_changes_like_others() {
    let Some(world) = world().await else { return };
    world.run_sql("create table t(id int primary key)").await;
    world.drain().await;
    world
        .run_sql(
            "insert into t values (1); select pg_replication_origin_create('elsewhere');
             select pg_replication_origin_session_setup('elsewhere'); begin; insert into t values (2), (3); commit;
             select pg_replication_origin_session_reset(); insert into t values (4)",
        )
        .await;
    world.drain().await;
    let keys: Vec<_> = world.events().await.iter().filter_map(|event| event.body["key"]["id"].as_i64()).collect();
    assert_eq!(keys, [1, 2, 3, 4]);
}
