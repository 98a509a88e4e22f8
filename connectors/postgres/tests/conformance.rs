//! The contract of sources, held against a real PostgreSQL.

use std::error::Error;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use figvine_change::conformance::{self, Places};
use figvine_postgres::Postgres;
use figvine_postgres::config::{Config, Keyless, ValueOptions};
use figvine_sandbox::PostgresOptions;

#[tokio::test]
async fn the_connector_keeps_its_contract() {
    let server = figvine_sandbox::Postgres::start(PostgresOptions::default()).await.expect("PostgreSQL");
    let database = server.connect("postgres").await.expect("connects");
    let run = async |sql: &str| database.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    // The log leaves out `b`, stored out of line, where an update does not touch it.
    run("create table t(id int primary key, a text not null, b text not null);
         alter table t alter b set storage external;
         create table u(id int primary key, a text not null);
         alter table u replica identity full;
         create table other(id int)")
    .await;
    let connector = Postgres::new(Config {
        source: "shop".into(),
        url: server.url("postgres").into(),
        tables: vec!["public.*".into(), "!public.other".into()],
        slot: "figvine_shop".into(),
        slot_is_passing: false,
        publication: "figvine_shop".into(),
        publication_managed: true,
        via_partition_root: false,
        keyless: Keyless::Refuse,
        messages: vec!["*".into()],
        trace_message: Some("traceparent".into()),
        ignore_messages: Vec::new(),
        heartbeat: Some(Duration::from_millis(300)),
        lock_timeout: Duration::from_secs(10),
        values: ValueOptions::default(),
    })
    .expect("a configuration");

    let calls = AtomicI32::new(0);
    let commit = async || {
        let first = calls.fetch_add(100, Ordering::Relaxed);
        run(&format!(
            "insert into t select i, 'a', repeat('0123456789', 300) from generate_series({first}, {first} + 4) i"
        ))
        .await;
        run(&format!(
            "begin;
             update t set a = 'z' where id = {first};
             update t set id = {first} + 50 where id = {first};
             insert into u values ({first}, 'u');
             update u set id = id + 1 where id = {first};
             select pg_logical_emit_message(true, 'inside', 'y');
             delete from t where id = {first} + 1;
             commit"
        ))
        .await;
        // Messages of their own stand in the log before the commit of the transaction that wrote them.
        run("select pg_logical_emit_message(false, 'before', 'y')").await;
        run("begin; select pg_logical_emit_message(false, 'alone', 'x'); insert into other values (1); commit").await;
        run(&format!(
            "begin; insert into u values ({first} + 80, 'u'); select pg_logical_emit_message(false, 'right before', 'x'); commit"
        ))
        .await;
        run("truncate t, u").await;
        vec![5, 1 + 2 + 1 + 2 + 1 + 1, 1, 1, 1, 1, 2]
    };
    let elsewhere = async || run("insert into other select i from generate_series(1, 500) i").await;
    if let Err(broken) = conformance::holds(&connector, Places::Fixed, commit, elsewhere).await {
        panic!("{broken}: {:?}", broken.source());
    }
}
