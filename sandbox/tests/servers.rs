//! The private servers start, survive what is done to them, and leave nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and tells its parent what it started"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use figvine_sandbox::{
    Auth, MariaDb, MariaDbOptions, MySql, MySqlOptions, Nats, NatsCluster, NatsOptions, Postgres, PostgresOptions,
    SandboxError, Shop, Tls, wait_for,
};
use tokio_util::sync::CancellationToken;

#[path = "servers/mysql.rs"]
mod mysql;

const SOON: Duration = Duration::from_secs(20);

async fn number(client: &tokio_postgres::Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Processes that were started with the directory or that work in it.
fn users_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let cwd = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(dir) || cwd.to_string_lossy().starts_with(dir) {
            found.push(String::from_utf8_lossy(&command).replace('\0', " "));
        }
    }
    found
}

fn assert_nothing_left(dir: &Path, pids: &[u32]) {
    assert!(!dir.exists(), "{} is still there", dir.display());
    assert_eq!(users_of(dir), Vec::<String>::new());
    assert!(!pids.iter().any(|pid| alive(*pid)), "one of {pids:?} is still there");
}

#[tokio::test]
async fn postgres_takes_queries_and_keeps_what_was_committed_when_killed() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    assert!(!Postgres::versions().is_empty());
    let client = postgres.connect("postgres").await.unwrap();
    let wal_level: String = client.query_one("show wal_level", &[]).await.unwrap().get(0);
    assert_eq!(wal_level, "logical");
    client.batch_execute("create table figs (id int); insert into figs select generate_series(1, 1000)").await.unwrap();

    let (port, pids) = (postgres.port(), postgres.pids());
    assert!(pids.len() > 3, "a postmaster and its children: {pids:?}");
    postgres.kill9();
    assert!(!pids.iter().any(|pid| alive(*pid)));
    assert!(client.query_one("select 1", &[]).await.is_err());
    assert!(matches!(postgres.wait_ready(SOON).await, Err(SandboxError::NotRunning { .. })));

    postgres.restart().await.unwrap();
    assert_eq!(postgres.port(), port);
    let client = postgres.connect("postgres").await.unwrap();
    assert_eq!(number(&client, "select count(*) from figs").await, 1000);

    postgres.stop().await.unwrap();
    assert!(postgres.pids().is_empty());
    postgres.restart().await.unwrap();
    let client = postgres.connect("postgres").await.unwrap();
    assert_eq!(number(&client, "select count(*) from figs").await, 1000);
}

#[tokio::test]
async fn a_frozen_postgres_answers_only_when_thawed() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let client = postgres.connect("postgres").await.unwrap();
    postgres.freeze();
    let query = number(&client, "select 42::bigint");
    tokio::pin!(query);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut query).await.is_err());
    postgres.thaw();
    assert_eq!(tokio::time::timeout(SOON, query).await.unwrap(), 42);
}

#[tokio::test]
async fn postgres_reads_its_settings_again() {
    let settings = vec![("work_mem".to_owned(), "5MB".to_owned())];
    let postgres = Postgres::start(PostgresOptions { settings, ..Default::default() }).await.unwrap();
    let client = postgres.connect("postgres").await.unwrap();
    let work_mem = async || client.query_one("show work_mem", &[]).await.unwrap().get::<_, String>(0);
    assert_eq!(work_mem().await, "5MB");
    client.batch_execute("alter system set work_mem = '6MB'").await.unwrap();
    postgres.reload().unwrap();
    wait_for("the new setting", SOON, async || (work_mem().await == "6MB").then_some(())).await.unwrap();
}

#[tokio::test]
async fn postgres_asks_for_the_password() {
    let auth = Auth::Scram { password: "fig & vine/ß".to_owned() };
    let postgres = Postgres::start(PostgresOptions { auth, ..Default::default() }).await.unwrap();
    let client = postgres.connect("postgres").await.unwrap();
    assert_eq!(number(&client, "select 42::bigint").await, 42);
    let without = format!("postgres://postgres@127.0.0.1:{}/postgres", postgres.port());
    assert!(tokio_postgres::connect(&without, tokio_postgres::NoTls).await.is_err());
}

#[tokio::test]
async fn a_setting_that_postgres_refuses_is_told_with_its_log() {
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = Postgres::start(PostgresOptions { settings, ..Default::default() }).await.unwrap_err();
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[tokio::test]
async fn a_version_that_is_not_there_names_the_command_that_gets_servers() {
    let error = Postgres::start(PostgresOptions { version: Some(9), ..Default::default() }).await.unwrap_err();
    assert_eq!(error.to_string(), "PostgreSQL 9 not found: run `make servers`");
}

#[tokio::test]
async fn a_standby_follows_its_primary() {
    let primary = Postgres::start(PostgresOptions::default()).await.unwrap();
    let client = primary.connect("postgres").await.unwrap();
    client.batch_execute("create table figs (id int)").await.unwrap();
    let standby = Postgres::standby_of(&primary, &[]).await.unwrap();
    client.batch_execute("insert into figs values (1), (2)").await.unwrap();
    let reader = standby.connect("postgres").await.unwrap();
    assert!(reader.query_one("select pg_is_in_recovery()", &[]).await.unwrap().get::<_, bool>(0));
    wait_for("the rows on the standby", SOON, async || {
        (number(&reader, "select count(*) from figs").await == 2).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn servers_leave_nothing_behind() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    let _client = postgres.connect("postgres").await.unwrap();
    let (postgres_dir, nats_dir) = (postgres.dir().to_owned(), nats.dir().to_owned());
    let (postgres_pids, nats_pid) = (postgres.pids(), nats.pid().unwrap());
    assert!(!users_of(&postgres_dir).is_empty() && !users_of(&nats_dir).is_empty());
    postgres.freeze();
    drop(postgres);
    drop(nats);
    assert_nothing_left(&postgres_dir, &postgres_pids);
    assert_nothing_left(&nats_dir, &[nats_pid]);
}

const VICTIM: &str = "FIGVINE_SANDBOX_VICTIM";

/// Starts servers, tells of them, and waits to be killed.
async fn be_the_victim() {
    // On a runtime that ends at once, as do those of tests: its threads are not what keeps servers alive.
    let starting = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let postgres = tokio::spawn(Postgres::start(PostgresOptions::default())).await.unwrap().unwrap();
            let nats = tokio::spawn(Nats::start(NatsOptions::default())).await.unwrap().unwrap();
            let mysql = tokio::spawn(MySql::start(MySqlOptions::default())).await.unwrap().unwrap();
            let mariadb = tokio::spawn(MariaDb::start(MariaDbOptions::default())).await.unwrap().unwrap();
            (postgres, nats, mysql, mariadb)
        })
    });
    let (postgres, nats, mysql, mariadb) = starting.join().unwrap();
    let pids = [postgres.pids(), nats.pid().into_iter().collect(), mysql.pids(), mariadb.pids()].concat();
    let dirs = [postgres.dir(), nats.dir(), mysql.dir(), mariadb.dir()].map(|dir| dir.display().to_string());
    let pids: Vec<String> = pids.into_iter().map(|pid| pid.to_string()).collect();
    println!("\nSERVERS {} {}", dirs.join(" "), pids.join(" "));
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn servers_outlive_the_thread_that_started_them_but_not_the_process() {
    if std::env::var_os(VICTIM).is_some() {
        return be_the_victim().await;
    }
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "servers_outlive_the_thread_that_started_them_but_not_the_process", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = victim.stdout.take().unwrap();
    let line = tokio::task::spawn_blocking(|| {
        BufReader::new(output).lines().map_while(Result::ok).find(|line| line.starts_with("SERVERS "))
    });
    let line = line.await.unwrap().expect("the servers of the victim");
    let mut words = line.split(' ').skip(1);
    let dirs: Vec<PathBuf> = words.by_ref().take(4).map(PathBuf::from).collect();
    let pids: Vec<u32> = words.map(|word| word.parse().unwrap()).collect();
    assert!(pids.len() > 6, "{line}");
    assert!(pids.iter().all(|pid| alive(*pid)), "all of {pids:?} are to live");
    victim.kill().unwrap();
    victim.wait().unwrap();
    let gone = wait_for("the end of the servers", SOON, async || (!pids.iter().any(|pid| alive(*pid))).then_some(()));
    gone.await.unwrap();
    for dir in dirs {
        fs::remove_dir_all(dir).unwrap();
    }
}

#[tokio::test]
async fn nats_comes_back_on_its_port() {
    let nats = Nats::start(NatsOptions::default()).await.unwrap();
    let (url, pid) = (nats.url(), nats.pid().unwrap());
    assert!(nats.is_healthy().await);
    nats.kill9();
    assert!(!alive(pid));
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", nats.port())).await.is_err());
    nats.restart().await.unwrap();
    assert_eq!(nats.url(), url);
    assert_ne!(nats.pid().unwrap(), pid);
    nats.stop().await.unwrap();
    assert_eq!(nats.pid(), None);
    nats.restart().await.unwrap();

    nats.freeze();
    assert!(!nats.is_healthy().await);
    nats.thaw();
    wait_for("health after the thaw", SOON, async || nats.is_healthy().await.then_some(())).await.unwrap();
}

#[tokio::test]
async fn a_configuration_that_nats_refuses_is_told_with_its_log() {
    let options = NatsOptions { config_extra: "max_payload: many".to_owned(), ..Default::default() };
    let error = Nats::start(options).await.unwrap_err();
    assert!(matches!(&error, SandboxError::Ended { log, .. } if log.contains("nats.conf:")), "{error}");
}

#[tokio::test]
async fn both_servers_take_certificates() {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
    let tls = Tls { ca: Some(cert.clone()), cert, key };
    let postgres = Postgres::start(PostgresOptions { tls: Some(tls.clone()), ..Default::default() }).await.unwrap();
    let client = postgres.connect("postgres").await.unwrap();
    let ssl: String = client.query_one("show ssl", &[]).await.unwrap().get(0);
    assert_eq!(ssl, "on");
    let nats = Nats::start(NatsOptions { tls: Some(tls), ..Default::default() }).await.unwrap();
    assert!(nats.url().starts_with("tls://"));
    let mut greeting = String::new();
    let stream = std::net::TcpStream::connect(("127.0.0.1", nats.port())).unwrap();
    BufReader::new(stream.take(4096)).read_line(&mut greeting).unwrap();
    assert!(greeting.contains("\"tls_required\":true") && greeting.contains("\"tls_verify\":true"), "{greeting}");
}

#[tokio::test]
async fn three_nodes_form_a_cluster_and_one_may_come_back() {
    let cluster = NatsCluster::start(3).await.unwrap();
    assert_eq!(cluster.urls().len(), 3);
    let dirs: Vec<PathBuf> = cluster.nodes.iter().map(|n| n.dir().to_owned()).collect();
    cluster.nodes[0].kill9();
    cluster.wait_ready(SOON).await.unwrap();
    cluster.nodes[0].restart().await.unwrap();
    cluster.wait_ready(SOON).await.unwrap();
    assert!(cluster.nodes.iter().all(|n| n.pid().is_some()));
    drop(cluster);
    for dir in dirs {
        assert_nothing_left(&dir, &[]);
    }
}

#[tokio::test]
async fn the_shop_sells_and_survives_a_restart_of_its_database() {
    let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
    let client = postgres.connect("postgres").await.unwrap();
    Shop::create(&client).await.unwrap();
    let before = Shop::new(1).trade(&postgres.url("postgres"), 500).await.unwrap();
    assert!(before.orders > 0 && before.payments > 0 && before.shipped > 0 && before.cancelled > 0, "{before:?}");

    let (stop, url) = (CancellationToken::new(), postgres.url("postgres"));
    let stopped = stop.clone();
    let selling = tokio::spawn(async move { Shop::new(2).run(&url, 200.0, &stopped).await });
    let sold = before.orders.cast_signed();
    let count = async |at_least: i64| {
        let client = postgres.connect("postgres").await.ok()?;
        let row = client.query_one("select count(*) from orders", &[]).await.ok()?;
        (row.get::<_, i64>(0) >= at_least).then_some(())
    };
    wait_for("orders", SOON, async || count(sold + 20).await).await.unwrap();
    postgres.kill9();
    postgres.restart().await.unwrap();
    wait_for("orders after the kill", SOON, async || count(sold + 100).await).await.unwrap();
    stop.cancel();
    let sales = selling.await.unwrap().unwrap();
    assert!(sales.orders > 0 && sales.lines >= sales.orders, "{sales:?}");

    let client = postgres.connect("postgres").await.unwrap();
    let without_lines = "select count(*) from orders o
        where not exists (select from order_lines l where l.order_id = o.id)";
    assert_eq!(number(&client, without_lines).await, 0);
    let wrong_total = "select count(*) from orders o
        where total <> (select sum(quantity * price) from order_lines l where l.order_id = o.id)";
    assert_eq!(number(&client, wrong_total).await, 0);
    let lines = number(&client, "select max(n) from (select count(*) n from order_lines group by order_id) l").await;
    assert!((2..=4).contains(&lines), "{lines}");
    let unpaid = "select count(*) from orders o where status in ('paid', 'shipped')
        and not exists (select from payments p where p.order_id = o.id and p.amount = o.total)";
    assert_eq!(number(&client, unpaid).await, 0);
    assert!(number(&client, "select count(*) from orders where length(note) > 8000").await > 0);
}
