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

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_says_so_before_its_first_change_is_not_told() {
    let world = World::start().await;
    world.configure("    ignore: { annotations: [\"crm.*\", \"!crm.told\"] }\n");
    world.run_sql("create table orders(id int primary key, note text)").await;
    world.drain().await;
    let said = |prefix: &str| format!("select pg_logical_emit_message(true, '{prefix}', 'by the worker')");
    let (echo, told) = (said("crm.echo"), said("crm.told"));
    for transaction in [
        "insert into orders values (1, 'ours')".to_owned(),
        format!("begin; {echo}; insert into orders values (2, 'echo'); update orders set note = 'echo'; commit"),
        // With a shape that is news: what comes behind is read by it.
        format!(
            "begin; alter table orders add column more int; {echo}; insert into orders values (3, 'echo', 3); commit"
        ),
        format!("begin; {told}; insert into orders values (4, 'ours', 4); commit"),
        // What was told already stays told, and so does the rest.
        format!(
            "begin; insert into orders values (5, 'ours', 5); {echo}; insert into orders values (6, 'ours', 6); commit"
        ),
        format!("begin; savepoint s; {echo}; rollback to s; insert into orders values (7, 'ours', 7); commit"),
        format!("begin; {echo}; insert into orders select generate_series(1000, 6000), 'echo', 1; commit"),
    ] {
        world.run_sql(&transaction).await;
    }
    world.drain().await;
    // Nothing of it comes with the next start either.
    world.run_sql("insert into orders values (8, 'ours', 8)").await;
    world.drain().await;
    let events = world.events().await;
    let rows = events.iter().filter(|event| event.op() == "insert");
    let keys: Vec<_> = rows.map(|event| event.body["key"]["id"].clone()).collect();
    assert_eq!(keys, [1, 4, 5, 6, 7, 8]);
    let others = events.iter().filter(|event| event.op() != "insert").map(|event| event.subject.as_str());
    assert_eq!(others.collect::<Vec<_>>(), ["cdc.shop.schema_changes"]);
}
