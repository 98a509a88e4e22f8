//! What another server carried into the database, and is not to go back.

use super::world::{Kind, World};

/// The other writer's server.
const OTHER: &str = "11111111-2222-3333-4444-555555555555";

async fn is_left_out(kind: Kind, origin: &str, begin: &str, end: &str) {
    let world = World::start(kind).await;
    world.configure_more(&format!("    ignore: {{ origins: [\"{origin}\"] }}\n"));
    world.run("create table orders(id int primary key)").await;
    world.drain().await;
    world
        .run(&format!(
            "insert into orders values (1);\n{begin};\ninsert into orders values (2), (3);\n{end};\ninsert into orders values (4)"
        ))
        .await;
    world.drain().await;
    let keys: Vec<_> = world.events().await.iter().map(|event| event.body["key"]["id"].clone()).collect();
    assert_eq!(keys, [1, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_server_of_mysql_committed_first_is_not_told_once_more() {
    is_left_out(Kind::MySql, OTHER, &format!("set gtid_next = '{OTHER}:1'"), "set gtid_next = 'automatic'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_in_another_domain_of_mariadb_is_not_told_once_more() {
    is_left_out(Kind::MariaDb, "7", "set gtid_domain_id = 7", "set gtid_domain_id = 0").await;
}
