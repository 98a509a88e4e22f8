//! The contract of sources, held against a real MySQL and a real MariaDB.

use std::error::Error;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use figvine_change::conformance::{self, Places};
use figvine_mysql::Mysql;
use figvine_mysql::config::{Config, Flavour, Keyless, OnStatement, ValueOptions};
use figvine_sandbox::mysql_async::prelude::Queryable;
use figvine_sandbox::{MariaDb, MySql, MySqlOptions, Mysqld};
use tokio::sync::Mutex;

async fn keeps_its_contract(server: &Mysqld, flavour: Flavour) {
    let database = Mutex::new(server.connect("").await.expect("connects"));
    let run = async |sql: &str| {
        for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
            database.lock().await.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
    };
    run("create database shop;
         use shop;
         create table t(id int primary key, a varchar(20) not null, b text not null);
         create table u(id int primary key, a varchar(20) not null);
         create table other(id int primary key)")
    .await;
    let connector = Mysql::new(Config {
        source: "shop".into(),
        flavour,
        url: server.url("shop").into(),
        tables: vec!["shop.*".into(), "!shop.other".into()],
        server_id: None,
        server_id_seed: "FIGVINE_SHOP".into(),
        keyless: Keyless::Refuse,
        on_statement: OnStatement::Error,
        trace_comments: false,
        ignore_comments: Vec::new(),
        heartbeat: Duration::from_millis(700),
        values: ValueOptions::default(),
    })
    .expect("a configuration");

    // How long what an XA transaction ended is kept is a matter of time there.
    let places = if flavour == Flavour::MariaDb { Places::Reworded } else { Places::Fixed };
    let calls = AtomicI32::new(0);
    let commit = async || {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        let first = call * 100;
        let rows = |from: i32| {
            let row = |id| format!("({id}, 'a', repeat('0123456789', 300))");
            (from..from + 5).map(row).collect::<Vec<_>>().join(", ")
        };
        run(&format!("insert into t values {}", rows(first))).await;
        // What is not changed stands in the log neither before nor behind.
        run(&format!(
            "set binlog_row_image = minimal;
             begin;
             update t set a = 'z' where id = {first};
             insert into other values ({first});
             update t set id = {first} + 50 where id = {first};
             insert into u values ({first}, 'u');
             update u set id = id + 1 where id = {first};
             savepoint s;
             insert into u values ({first} + 2, 'never');
             rollback to s;
             delete from t where id = {first} + 1;
             commit;
             set binlog_row_image = full"
        ))
        .await;
        run(&format!("begin; insert into u values ({first} + 3, 'never'); rollback")).await;
        // Its rows are committed behind those of a transaction that began later.
        run(&format!(
            "xa start 'x{call}';
             insert into u values ({first} + 4, 'xa'), ({first} + 5, 'xa'), ({first} + 6, 'xa');
             xa end 'x{call}';
             xa prepare 'x{call}'"
        ))
        .await;
        let mut second = server.connect("shop").await.expect("connects");
        second.query_drop(format!("insert into t values ({first} + 10, 'b', 'b')")).await.expect("inserts");
        second.query_drop(format!("insert into t values ({first} + 11, 'b', 'b')")).await.expect("inserts");
        run(&format!("xa commit 'x{call}'")).await;
        run(&format!(
            "xa start 'y{call}'; insert into u values ({first} + 7, 'never'); xa end 'y{call}'; xa prepare 'y{call}';
             xa rollback 'y{call}'"
        ))
        .await;
        run("truncate u").await;
        vec![5, 1 + 2 + 1 + 2 + 1, 1, 1, 3, 1]
    };
    let elsewhere = async || {
        for id in 1000..1050 {
            run(&format!("insert into other values ({id})")).await;
        }
    };
    if let Err(broken) = conformance::holds(&connector, places, commit, elsewhere).await {
        let mut told = format!("{broken}");
        let mut source = broken.source();
        while let Some(error) = source {
            told.push_str(&format!(": {error}"));
            source = error.source();
        }
        panic!("{told}");
    }
}

#[tokio::test]
async fn the_connector_keeps_its_contract_on_mysql() {
    let server = MySql::start(MySqlOptions::default()).await.expect("MySQL");
    keeps_its_contract(&server, Flavour::MySql).await;
}

#[tokio::test]
async fn the_connector_keeps_its_contract_on_a_mysql_without_gtids() {
    let settings = [("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server = MySql::start(MySqlOptions { settings, ..MySqlOptions::default() }).await.expect("MySQL");
    keeps_its_contract(&server, Flavour::MySql).await;
}

#[tokio::test]
async fn the_connector_keeps_its_contract_on_mariadb() {
    let server = MariaDb::start(MySqlOptions::default()).await.expect("MariaDB");
    keeps_its_contract(&server, Flavour::MariaDb).await;
}
