//! MySQL and MariaDB: what is promised of one holds for the other.

use std::time::Duration;

use figvine_sandbox::mysql_async::prelude::Queryable;
use figvine_sandbox::mysql_async::{Conn, Opts, OptsBuilder, SslOpts};
use figvine_sandbox::{MariaDb, MariaDbOptions, MySql, MySqlOptions, Mysqld, SandboxError, Shop, Tls, wait_for};
use tokio_util::sync::CancellationToken;

use super::{SOON, alive, assert_nothing_left, users_of};

async fn text(conn: &mut Conn, sql: &str) -> String {
    conn.query_first(sql).await.unwrap().unwrap()
}

async fn number(conn: &mut Conn, sql: &str) -> i64 {
    conn.query_first(sql).await.unwrap().unwrap()
}

async fn plant(conn: &mut Conn) {
    conn.query_drop("create database garden; create table garden.figs (id int primary key)").await.unwrap();
    conn.query_drop("insert into garden.figs values (1), (2), (3)").await.unwrap();
}

const COUNT: &str = "select count(*) from garden.figs";

async fn assert_keeps_what_was_committed_when_killed(server: &Mysqld) {
    let mut conn = server.connect("").await.unwrap();
    assert_eq!(text(&mut conn, "select @@binlog_format").await, "ROW");
    assert_eq!(text(&mut conn, "select @@binlog_row_image").await, "FULL");
    assert_eq!(text(&mut conn, "select @@binlog_row_metadata").await, "FULL");
    assert_eq!(number(&mut conn, "select @@log_bin").await, 1);
    assert_eq!(number(&mut conn, "select @@server_id").await, i64::from(server.port()));
    plant(&mut conn).await;

    let (port, pids) = (server.port(), server.pids());
    assert!(!pids.is_empty());
    server.kill9();
    assert!(!pids.iter().any(|pid| alive(*pid)));
    assert!(conn.query_drop("select 1").await.is_err());
    assert!(server.connect("").await.is_err());
    assert!(matches!(server.wait_ready(SOON).await, Err(SandboxError::NotRunning { .. })));

    server.restart().await.unwrap();
    assert_eq!(server.port(), port);
    let mut conn = server.connect("garden").await.unwrap();
    assert_eq!(number(&mut conn, COUNT).await, 3);
    assert_eq!(text(&mut conn, "select database()").await, "garden");

    server.stop().await.unwrap();
    assert!(server.pids().is_empty());
    server.restart().await.unwrap();
    let mut conn = server.connect("garden").await.unwrap();
    assert_eq!(number(&mut conn, COUNT).await, 3);
}

#[tokio::test]
async fn mysql_keeps_what_was_committed_when_killed() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    assert_keeps_what_was_committed_when_killed(&server).await;
    let mut conn = server.connect("").await.unwrap();
    assert_eq!(text(&mut conn, "select @@gtid_mode").await, "ON");
    assert_eq!(text(&mut conn, "select @@enforce_gtid_consistency").await, "ON");
}

#[tokio::test]
async fn mariadb_keeps_what_was_committed_when_killed() {
    let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    assert_keeps_what_was_committed_when_killed(&server).await;
    let mut conn = server.connect("").await.unwrap();
    assert!(text(&mut conn, "select version()").await.contains("MariaDB"));
    assert_eq!(number(&mut conn, "select @@gtid_strict_mode").await, 1);
    assert_eq!(text(&mut conn, "select @@gtid_binlog_pos").await, format!("0-{}-3", server.port()));
}

async fn assert_answers_only_when_thawed(server: &Mysqld) {
    let mut conn = server.connect("").await.unwrap();
    server.freeze();
    let query = number(&mut conn, "select 42");
    tokio::pin!(query);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut query).await.is_err());
    server.thaw();
    assert_eq!(tokio::time::timeout(SOON, query).await.unwrap(), 42);
}

#[tokio::test]
async fn a_frozen_mysql_answers_only_when_thawed() {
    assert_answers_only_when_thawed(&MySql::start(MySqlOptions::default()).await.unwrap()).await;
}

#[tokio::test]
async fn a_frozen_mariadb_answers_only_when_thawed() {
    assert_answers_only_when_thawed(&MariaDb::start(MariaDbOptions::default()).await.unwrap()).await;
}

/// Settings, the password and a certificate, which is told too, at once: each start takes seconds.
fn demanding() -> (MySqlOptions, String) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let options = MySqlOptions {
        settings: vec![("max_connections".to_owned(), "42".to_owned())],
        tls: Some(Tls { ca: Some(cert.clone()), cert: cert.clone(), key }),
        password: Some("fig & vine's/ß".to_owned()),
        ..Default::default()
    };
    (options, cert)
}

async fn assert_is_as_demanded(server: &Mysqld, certificate: String) {
    let mut conn = server.connect("").await.unwrap();
    assert_eq!(number(&mut conn, "select @@max_connections").await, 42);
    assert!(text(&mut conn, "select @@ssl_cert").await.ends_with("/server.crt"));
    assert!(text(&mut conn, "select @@ssl_ca").await.ends_with("/ca.crt"));
    let trusted = SslOpts::default().with_root_certs(vec![certificate.into_bytes().into()]);
    let opts = OptsBuilder::from_opts(Opts::from_url(&server.url("")).unwrap()).prefer_socket(false).ssl_opts(trusted);
    let mut encrypted = Conn::new(opts).await.unwrap();
    let (_, cipher): (String, String) = encrypted.query_first("show status like 'Ssl_cipher'").await.unwrap().unwrap();
    assert_ne!(cipher, "");
    let without = format!("mysql://root@127.0.0.1:{}/?prefer_socket=false", server.port());
    assert!(Conn::from_url(without).await.is_err());
}

#[tokio::test]
async fn mysql_takes_settings_password_and_certificates() {
    let (options, certificate) = demanding();
    assert_is_as_demanded(&MySql::start(options).await.unwrap(), certificate).await;
}

#[tokio::test]
async fn mariadb_takes_settings_password_and_certificates() {
    let (options, certificate) = demanding();
    assert_is_as_demanded(&MariaDb::start(options).await.unwrap(), certificate).await;
}

#[tokio::test]
async fn a_setting_that_is_refused_is_told_with_the_log() {
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let options = MySqlOptions { settings, ..Default::default() };
    let error = MySql::start(options.clone()).await.unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
    let error = MariaDb::start(options).await.unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn servers_have_their_own_defaults_on_demand() {
    let options = MySqlOptions { server_defaults: true, ..Default::default() };
    let mysql = MySql::start(options.clone()).await.unwrap();
    let mut conn = mysql.connect("").await.unwrap();
    assert_eq!(number(&mut conn, "select @@server_id").await, 1);
    assert_eq!(text(&mut conn, "select @@binlog_row_metadata").await, "MINIMAL");
    let mariadb = MariaDb::start(options).await.unwrap();
    let mut conn = mariadb.connect("").await.unwrap();
    assert_eq!(number(&mut conn, "select @@log_bin").await, 0);
    assert_eq!(text(&mut conn, "select @@binlog_row_metadata").await, "NO_LOG");
}

/// That the replica gets what was there before it and what comes later, logs it under the same GTIDs, and goes on after
/// both were killed.
async fn assert_follows(primary: &Mysqld, replica: &Mysqld, gtids: &str) {
    let mut writer = primary.connect("").await.unwrap();
    writer.query_drop("insert into garden.figs values (4)").await.unwrap();
    let arrived = async |rows: i64| {
        let mut conn = replica.connect("").await.ok()?;
        (conn.query_first::<i64, _>(COUNT).await.ok()? == Some(rows)).then_some(())
    };
    wait_for("the rows on the replica", SOON, async || arrived(4).await).await.unwrap();
    let mut reader = replica.connect("").await.unwrap();
    assert_eq!(text(&mut reader, gtids).await, text(&mut writer, gtids).await);
    let id = "select cast(@@server_id as char)";
    assert_ne!(text(&mut reader, id).await, text(&mut writer, id).await);

    replica.kill9();
    primary.kill9();
    primary.restart().await.unwrap();
    replica.restart().await.unwrap();
    let mut writer = primary.connect("").await.unwrap();
    writer.query_drop("insert into garden.figs values (5)").await.unwrap();
    wait_for("the rows after the kill", SOON, async || arrived(5).await).await.unwrap();
}

#[tokio::test]
async fn a_replica_of_mysql_follows_its_primary() {
    let options = MySqlOptions { password: Some("it's".to_owned()), ..Default::default() };
    let primary = MySql::start(options).await.unwrap();
    plant(&mut primary.connect("").await.unwrap()).await;
    let replica = MySql::replica_of(&primary, &[]).await.unwrap();
    assert_follows(&primary, &replica, "select @@gtid_executed").await;
    let uuid = "select @@server_uuid";
    let (mut ours, mut theirs) = (primary.connect("").await.unwrap(), replica.connect("").await.unwrap());
    assert_ne!(text(&mut ours, uuid).await, text(&mut theirs, uuid).await);
}

#[tokio::test]
async fn a_replica_of_mariadb_follows_its_primary() {
    let options = MariaDbOptions { password: Some("it's".to_owned()), ..Default::default() };
    let primary = MariaDb::start(options).await.unwrap();
    plant(&mut primary.connect("").await.unwrap()).await;
    let replica = MariaDb::replica_of(&primary, &[]).await.unwrap();
    assert_follows(&primary, &replica, "select @@gtid_binlog_pos").await;
}

#[tokio::test]
async fn mysql_and_mariadb_leave_nothing_behind() {
    let mysql = MySql::start(MySqlOptions::default()).await.unwrap();
    let mariadb = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    let _conn = mysql.connect("").await.unwrap();
    let dirs = [mysql.dir().to_owned(), mariadb.dir().to_owned()];
    let pids = [mysql.pids(), mariadb.pids()].concat();
    assert!(dirs.iter().all(|dir| !users_of(dir).is_empty()));
    mysql.freeze();
    drop(mysql);
    drop(mariadb);
    for dir in dirs {
        assert_nothing_left(&dir, &pids);
    }
}

async fn assert_sells_and_survives_a_restart(server: &Mysqld, url: String) {
    let mut conn = server.connect("").await.unwrap();
    conn.query_drop("create database shop").await.unwrap();
    let mut conn = server.connect("shop").await.unwrap();
    Shop::create_mysql(&mut conn).await.unwrap();
    assert!(matches!(Shop::create_mysql(&mut conn).await, Err(SandboxError::MySql { .. })));
    let before = Shop::new(1).trade(&url, 500).await.unwrap();
    assert!(before.orders > 0 && before.payments > 0 && before.shipped > 0 && before.cancelled > 0, "{before:?}");

    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let selling = tokio::spawn(async move { Shop::new(2).run(&url, 200.0, &stopped).await });
    let sold = before.orders.cast_signed();
    let count = async |at_least: i64| {
        let mut conn = server.connect("shop").await.ok()?;
        let orders: i64 = conn.query_first("select count(*) from orders").await.ok()??;
        (orders >= at_least).then_some(())
    };
    wait_for("orders", SOON, async || count(sold + 20).await).await.unwrap();
    server.kill9();
    server.restart().await.unwrap();
    wait_for("orders after the kill", SOON, async || count(sold + 100).await).await.unwrap();
    stop.cancel();
    let sales = selling.await.unwrap().unwrap();
    assert!(sales.orders > 0 && sales.lines >= sales.orders, "{sales:?}");

    let mut conn = server.connect("shop").await.unwrap();
    let without_lines = "select count(*) from orders o
        where not exists (select 1 from order_lines l where l.order_id = o.id)";
    assert_eq!(number(&mut conn, without_lines).await, 0);
    let wrong_total = "select count(*) from orders o
        where total <> (select sum(quantity * price) from order_lines l where l.order_id = o.id)";
    assert_eq!(number(&mut conn, wrong_total).await, 0);
    let lines = "select max(n) from (select count(*) n from order_lines group by order_id) l";
    assert!((2..=4).contains(&number(&mut conn, lines).await));
    let unpaid = "select count(*) from orders o where status in ('paid', 'shipped')
        and not exists (select 1 from payments p where p.order_id = o.id and p.amount = o.total)";
    assert_eq!(number(&mut conn, unpaid).await, 0);
    assert!(number(&mut conn, "select count(*) from orders where length(note) > 8000").await > 0);
    // Names outside ASCII come back as they were told.
    let umlaut = "select count(*) from customers where name like '%ü%' collate utf8mb4_bin";
    assert!(number(&mut conn, umlaut).await > 0);
}

#[tokio::test]
async fn the_shop_sells_on_mysql_and_survives_a_restart() {
    let server = MySql::start(MySqlOptions::default()).await.unwrap();
    assert_sells_and_survives_a_restart(&server, server.url("shop")).await;
}

#[tokio::test]
async fn the_shop_sells_on_mariadb_and_survives_a_restart() {
    let server = MariaDb::start(MariaDbOptions::default()).await.unwrap();
    let url = server.url("shop").replace("mysql://", "mariadb://");
    assert_sells_and_survives_a_restart(&server, url).await;
}
