//! `figvine check` on servers as their makers deliver them, and behind what it says mends them.

use std::path::Path;
use std::process::{Command, Output};

use figvine_sandbox::mysql_async::prelude::Queryable;
use figvine_sandbox::{MariaDb, MariaDbOptions, MySql, MySqlOptions, Mysqld, Nats, NatsOptions};
use serde_json::Value;

/// A configuration for the user `figvine`, who has no privileges yet but on the tables.
struct Checked<'a> {
    server: &'a Mysqld,
    nats: Nats,
}

impl<'a> Checked<'a> {
    async fn new(server: &'a Mysqld, engine: &str) -> Self {
        let mut root = server.connect("").await.expect("connects");
        for sql in [
            "create database shop",
            "create table shop.orders (id bigint primary key, total decimal(12,2))",
            "create table shop.notes (text varchar(100))",
            "create user figvine@'%' identified by 'hunter2'",
            "grant select on shop.* to figvine@'%'",
        ] {
            root.query_drop(sql).await.expect(sql);
        }
        let nats = Nats::start(NatsOptions::default()).await.expect("starts");
        let config = format!(
            "nats: {{ url: \"{}\" }}\nsources:\n  shop:\n    {engine}: {{ url: \"mysql://figvine:hunter2@127.0.0.1:{}/shop\" }}\n    \
             tables: [\"shop.*\"]\nhttp: {{ listen: off }}\n",
            nats.url(),
            server.port()
        );
        std::fs::write(nats.dir().join("figvine.yaml"), config).expect("written");
        Self { server, nats }
    }

    fn file(&self) -> std::path::PathBuf {
        self.nats.dir().join("figvine.yaml")
    }

    /// What `check` finds that keeps the bridge from running, by codes.
    fn blockers(&self) -> Vec<String> {
        let output = figvine(&self.file(), &["--output", "json", "check"]);
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let sections = told["checked"].as_array().expect("sections").iter();
        let findings = sections.flat_map(|section| section["findings"].as_array().expect("findings").clone());
        let blockers = findings.filter(|finding| finding["severity"] == "blocker");
        let mut codes: Vec<_> = blockers.map(|finding| finding["code"].as_str().expect("a code").to_owned()).collect();
        codes.sort();
        assert_eq!(output.status.code(), Some(if codes.is_empty() { 0 } else { 4 }), "{told:#}");
        codes
    }

    /// Reads what is written between two runs, as the user whose privileges were mended.
    async fn drains(&self) {
        let ends = |args: &[&str]| {
            let output = figvine(&self.file(), args);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("UTF-8")
        };
        let mut root = self.server.connect("shop").await.expect("connects");
        ends(&["run", "--until", "now"]);
        root.query_drop("insert into orders values (1, 19.90)").await.expect("inserts");
        ends(&["run", "--until", "now"]);
        let shown = ends(&["tail", "--since", "all", "--limit", "1", "--json"]);
        let event: Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(event["data"]["after"], serde_json::json!({ "id": 1, "total": "19.90" }), "{event:#}");
        // Begins at the newest place, so there is nothing to show.
        assert_eq!(ends(&["run", "--dry-run", "--until", "now"]), "");
    }

    /// Runs what `--fix-sql` prints, as an administrator would; returns it.
    async fn mend(&self) -> String {
        let output = figvine(&self.file(), &["check", "--fix-sql"]);
        let script = String::from_utf8(output.stdout).expect("UTF-8");
        let mut root = self.server.connect("").await.expect("connects");
        for sql in script.lines().filter(|line| !line.starts_with("--") && !line.is_empty()) {
            root.query_drop(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        script
    }
}

fn figvine(config: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_figvine"));
    command.env_remove("RUST_LOG").arg("-c").arg(config).args(args).output().expect("runs")
}

#[tokio::test]
async fn a_mysql_with_its_own_defaults_is_mended_by_the_sql_of_check() {
    let options = MySqlOptions { server_defaults: true, ..MySqlOptions::default() };
    let server = MySql::start(options).await.expect("starts");
    let checked = Checked::new(&server, "mysql").await;
    // Names of columns, the privilege to replicate, a key.
    assert_eq!(checked.blockers(), ["FV-1215", "FV-1241", "FV-1252"]);
    let script = checked.mend().await;
    assert!(script.contains("\nSET PERSIST binlog_row_metadata = 'FULL';"), "{script}");
    assert_eq!(checked.blockers(), Vec::<String>::new());
    checked.drains().await;
    // For good: a restart keeps it.
    server.restart().await.expect("starts again");
    assert_eq!(checked.blockers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_mariadb_with_its_own_defaults_is_mended_by_its_option_file_and_the_sql_of_check() {
    let options = MariaDbOptions { server_defaults: true, ..MariaDbOptions::default() };
    let server = MariaDb::start(options).await.expect("starts");
    let checked = Checked::new(&server, "mariadb").await;
    assert_eq!(checked.blockers(), ["FV-1215", "FV-1241", "FV-1250"]);
    let script = checked.mend().await;
    let hint = "-- Write `log_bin`, `binlog_format = ROW`, `binlog_row_metadata = FULL` and a `server_id` into the server's \
                option file, and restart the server";
    assert!(script.contains(hint), "{script}");
    drop(checked);
    drop(server);

    let told = [("log_bin", ""), ("binlog_format", "ROW"), ("binlog_row_metadata", "FULL"), ("server_id", "1")];
    let server = with_settings(&told).await;
    let checked = Checked::new(&server, "mariadb").await;
    assert_eq!(checked.blockers(), ["FV-1215", "FV-1241"]);
    checked.mend().await;
    assert_eq!(checked.blockers(), Vec::<String>::new());
    checked.drains().await;
}

#[tokio::test]
async fn a_mariadb_that_logs_by_its_own_defaults_is_mended_by_the_sql_of_check() {
    let server = with_settings(&[("log_bin", "")]).await;
    let checked = Checked::new(&server, "mariadb").await;
    assert_eq!(checked.blockers(), ["FV-1215", "FV-1241", "FV-1251", "FV-1252"]);
    let script = checked.mend().await;
    assert!(script.contains("\n-- Write `binlog_row_metadata = 'FULL'` into the server's option file too"), "{script}");
    assert_eq!(checked.blockers(), Vec::<String>::new());
}

async fn with_settings(settings: &[(&str, &str)]) -> MariaDb {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = MariaDbOptions { server_defaults: true, settings, ..MariaDbOptions::default() };
    MariaDb::start(options).await.expect("starts")
}

#[tokio::test]
async fn a_server_of_the_other_kind_is_told_apart() {
    let server = MariaDb::start(MariaDbOptions::default()).await.expect("starts");
    let checked = Checked::new(&server, "mysql").await;
    assert!(checked.blockers().contains(&"FV-1217".to_owned()));
    let output = figvine(&checked.file(), &["run", "--until", "now"]);
    assert_eq!(output.status.code(), Some(3));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("FV-1206") && told.contains("the server is MariaDB, not MySQL"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
}
