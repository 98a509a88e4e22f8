//! Schemas of event types: what events name, and what a change of a table does.

use async_nats::jetstream;

use super::world::{Kind, World};
use crate::held::{hold, kept};

/// Every kind of value that both have.
const KINDS: &str = "
    create table kinds(
        id bigint unsigned primary key, tiny tinyint, yes tinyint(1), small smallint unsigned, medium mediumint, whole int,
        amount decimal(12,2), ratio double, word varchar(20), code char(4) character set latin1, raw varbinary(8), fixed binary(4),
        big longtext, doc json, day date, hour time(3), stamp datetime(6), moment timestamp null, born year, bit1 bit(1), bits bit(9),
        mood enum('good','bad'), tags set('a','b','c'), place point)";
const CHANGES: &str = "
    set sql_mode = '';
    insert into kinds values
        (1, -1, 2, 3, -4, 5, 19.90, 0.1, 'é', 'ab', x'00ff', x'01', 'long', '{\"a\": [1, null]}', '2026-11-23', '-838:59:59',
         '2026-11-23 09:00', '2026-11-23 09:00:00', 2026, b'1', b'101', 'good', 'a,c', point(1, 2));
    insert into kinds(id, day, stamp, born, mood, tags, amount) values (2, '0000-00-00', '2026-00-00 00:00:00', 0, '', '', -0.01);
    update kinds set word = 'later' where id = 1;
    update kinds set id = 3 where id = 2;
    delete from kinds where id = 3;
    truncate kinds";

async fn values_and_drift(kind: Kind) {
    let world = World::start(kind).await;
    world.run(KINDS).await;
    world.run("create table orders(id int primary key, a int, b varchar(9))").await;
    world.drain().await;
    world.run(CHANGES).await;
    world.run("insert into orders values (1, 1, 'x')").await;
    for statements in [
        "alter table orders add column c text;\ninsert into orders values (2, 1, 'x', 'y')",
        "alter table orders modify a bigint;\ninsert into orders values (3, 1, 'x', 'y')",
        "alter table orders change b bb varchar(9);\ninsert into orders values (4, 1, 'x', 'y')",
        "alter table orders drop column a;\ninsert into orders values (5, 'x', 'y')",
        "alter table orders modify bb varchar(19);\ninsert into orders values (6, 'x', 'y')",
    ] {
        world.run(statements).await;
        world.drain().await;
    }
    let events = world.events().await;
    let context = jetstream::new(async_nats::connect(world.nats.url()).await.expect("connects to NATS"));
    hold(&events, &kept(&context).await);
    let mut named: Vec<String> = Vec::new();
    for event in events.iter().filter(|event| event.table() == "shop.orders" && event.op() == "insert") {
        let uri = event.header("ce-dataschema").to_owned();
        if named.last() != Some(&uri) {
            named.push(uri);
        }
    }
    assert_eq!(named, ["1.0", "1.1", "2.0", "3.0", "4.0"].map(|v| format!("figvine:shop.shop.orders/{v}")));
    assert!(events.iter().filter(|event| event.table() == "shop.kinds").count() >= 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_mysql_are_what_the_schemas_say_that_they_name() {
    values_and_drift(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_mariadb_are_what_the_schemas_say_that_they_name() {
    values_and_drift(Kind::MariaDb).await;
}
