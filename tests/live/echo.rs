//! What another writer carried into the database, and is not to go back.

use super::harness::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replication_origin_carried_in_is_not_told_once_more() {
    let world = World::start().await;
    world.configure("    ignore: { origins: [writeback] }\n");
    world
        .run_sql(
            "create table orders(id int primary key, note text);
             select pg_replication_origin_create('writeback'), pg_replication_origin_create('other')",
        )
        .await;
    world.drain().await;
    let as_origin = async |origin: &str, sql: &str| {
        let client = world.sql().await;
        client
            .batch_execute(&format!("select pg_replication_origin_session_setup('{origin}'); {sql}"))
            .await
            .expect(sql);
    };
    world.run_sql("insert into orders values (1, 'ours')").await;
    // With a shape that is news: what comes behind is read by it.
    as_origin("writeback", "begin; alter table orders add column more int; insert into orders values (2, 'echo', 2), (3, 'echo', 3); commit").await;
    as_origin("other", "insert into orders values (4, 'theirs', 4)").await;
    as_origin("writeback", "update orders set note = 'echo'; truncate orders").await;
    world.drain().await;
    world.run_sql("insert into orders values (5, 'ours', 5)").await;
    world.drain().await;
    let told: Vec<_> = world
        .events()
        .await
        .iter()
        .filter(|event| !event.op().is_empty() && event.subject.contains(".orders."))
        .map(|event| (event.op().to_owned(), event.body["key"]["id"].clone(), event.body["after"]["more"].clone()))
        .collect();
    let row = |id: i32, more: serde_json::Value| ("insert".to_owned(), id.into(), more);
    assert_eq!(told, [row(1, serde_json::Value::Null), row(4, 4.into()), row(5, 5.into())]);
}
