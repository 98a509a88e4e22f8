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

async fn says_so(kind: Kind) {
    let world = World::start(kind).await;
    world.configure_more("    ignore: { annotations: [\"by=crm\"] }\n");
    let setting = if kind == Kind::MySql { "binlog_rows_query_log_events" } else { "binlog_annotate_row_events" };
    world.run(&format!("set global {setting} = on")).await;
    world.run("create table orders(id int primary key, note text);\ncreate database elsewhere").await;
    world.run("create table elsewhere.log(id int primary key)").await;
    world.drain().await;
    world
        .run(
            "insert into orders values (1, 'ours /* by=crm */');
             insert into orders values (2, 'echo') /* by=crm */;
             begin;
             /* by=crm */ insert into orders values (3, 'echo');
             insert into orders values (4, 'echo');
             update orders set note = 'echo';
             commit;
             begin;
             insert into orders values (5, 'ours');
             /* by=crm */ insert into orders values (6, 'ours');
             commit;
             begin;
             /* by=crm */ insert into elsewhere.log values (1);
             insert into orders values (7, 'echo');
             commit;
             xa start 'x';
             insert /* by=crm */ into orders values (8, 'echo');
             xa end 'x';
             xa prepare 'x';
             xa commit 'x';
             insert into orders values (9, 'ours');
             insert into orders values (10, 'ours\\' /* by=crm */ ');
             truncate /* by=crm */ orders;
             insert into orders values (11, 'ours') -- by=cr\n",
        )
        .await;
    world.drain().await;
    world.run("insert into orders values (12, 'ours')").await;
    world.drain().await;
    let keys: Vec<_> = world.events().await.iter().map(|event| event.body["key"]["id"].clone()).collect();
    assert_eq!(keys, [1, 5, 6, 9, 10, 11, 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_first_statement_says_so_is_not_told_of_mysql() {
    says_so(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_first_statement_says_so_is_not_told_of_mariadb() {
    says_so(Kind::MariaDb).await;
}
