//! Domain events of a shop at work, while everything is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use figvine_sandbox::mysql_async::prelude::Queryable as _;
use figvine_sandbox::mysql_async::{Conn, Opts, OptsBuilder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::world::{Kind, World};
use crate::journal::Random;
use crate::orders::{self, Order};

fn write(world: &World, writers: u64, random: &mut Random, enough: &CancellationToken) -> JoinSet<()> {
    let mut running = JoinSet::new();
    for writer in 1..=writers {
        let opts = Opts::from_url(&world.server().url("shop")).expect("a url");
        let opts: Opts = OptsBuilder::from_opts(opts).prefer_socket(false).into();
        let (mut random, enough) = (Random::new(random.next()), enough.clone());
        running.spawn(async move {
            let mut number = 0;
            'connected: while !enough.is_cancelled() {
                let Ok(Ok(mut client)) = tokio::time::timeout(Duration::from_secs(5), Conn::new(opts.clone())).await
                else {
                    tokio::task::yield_now().await;
                    continue;
                };
                while !enough.is_cancelled() {
                    // A number whose outcome is not known is not used again.
                    number += 1;
                    let sql = orders::transaction(&mut random, writer, number);
                    if client.query_drop(sql).await.is_err() && client.query_drop("rollback").await.is_err() {
                        continue 'connected;
                    }
                }
            }
        });
    }
    running
}

async fn orders_of(world: &World) -> BTreeMap<i64, Order> {
    let mut client = world.client().await;
    let rows: Vec<(i64, String)> = client.query("select id, status from orders").await.expect("orders");
    let mut orders: BTreeMap<_, _> =
        rows.into_iter().map(|(id, status)| (id, Order { status, ..Order::default() })).collect();
    let query = "select order_id, id, sku, quantity, cast(price as char) from order_lines order by id";
    let lines: Vec<(i64, i64, String, i64, String)> = client.query(query).await.expect("lines");
    for (order, id, sku, quantity, price) in lines {
        if let Some(order) = orders.get_mut(&order) {
            order.lines.push((id, sku, quantity, price));
        }
    }
    orders
}

async fn each_order_is_told_once(kind: Kind) {
    let world = World::start(kind).await;
    world.configure_more(&orders::rules("shop"));
    world.run(orders::TABLES).await;
    world.drain().await;
    let mut random = Random::seeded();
    let enough = CancellationToken::new();
    let mut bridge = world.bridge();
    let load = write(&world, 3, &mut random, &enough);
    for round in 0..6 {
        world.wait_growth(&mut bridge, 20 + random.below(400)).await;
        let victims = if round < 3 { 1 << round } else { 1 + random.below(7) };
        if victims & 1 != 0 {
            world.nats.kill9();
        }
        if victims & 2 != 0 {
            bridge.kill9();
            bridge = world.bridge();
        }
        if victims & 4 != 0 {
            world.server().kill9();
            world.server().restart().await.expect("the database again");
        }
        world.nats.restart().await.expect("NATS again");
    }
    world.wait_growth(&mut bridge, 100).await;
    enough.cancel();
    load.join_all().await;
    bridge.stop().await;
    world.drain().await;
    assert!(orders::check(&world.events().await, &orders_of(&world).await) > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_committed_order_of_mysql_is_told_once_with_its_lines_whatever_is_killed() {
    each_order_is_told_once(Kind::MySql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_committed_order_of_mariadb_is_told_once_with_its_lines_whatever_is_killed() {
    each_order_is_told_once(Kind::MariaDb).await;
}
