//! `figvine demo` and `figvine tail` on real servers.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use figvine_sandbox::{Nats, NatsOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn figvine(temp: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_figvine"));
    command.env("TMPDIR", temp).env_remove("RUST_LOG").env_remove("COLUMNS");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What follows `mark` up to a blank.
fn word_after<'a>(text: &'a str, mark: &str) -> &'a str {
    let rest = text.split_once(mark).unwrap_or_else(|| panic!("no `{mark}` in {text}")).1;
    rest.split([' ', '\n', ',', '/']).next().expect("a word")
}

fn ended_well(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn leaves_nothing(temp: &Path, shown: &str) {
    let left: Vec<_> = fs::read_dir(temp).expect("readable").flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let database = if shown.contains("postgres@") { "postgres@" } else { "root@" };
    for mark in [database, "nats://", "http://"] {
        let address = word_after(shown, mark);
        assert!(std::net::TcpStream::connect(address).is_err(), "something still listens on {address}");
    }
}

#[test]
fn the_demo_shows_events_proves_them_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().expect("a folder");
    let output = figvine(temp.path()).args(["demo", "--seconds", "5", "--rate", "20"]).output().expect("runs");
    let shown = ended_well(&output);
    let parts = ["+ insert  orders", "~ update  orders", "status: placed → paid", "╶ tx ", "lag", "p99"];
    let made =
        ["» order_placed.v1", "lines=[1 ", "» payment_received.v1", "» customer_registered.v1", "with its lines"];
    for part in parts.into_iter().chain(made) {
        assert!(shown.contains(part), "no `{part}` in:\n{shown}");
    }
    assert!(shown.contains("each change is there, once"), "{shown}");
    assert!(!shown.contains('\x1b'), "colours in a pipe");
    assert_eq!(text(&output.stderr), "", "nothing is logged");
    leaves_nothing(temp.path(), &shown);
}

#[test]
fn the_demo_shows_the_same_on_mysql_and_mariadb() {
    for (engine, reader) in [("--mysql", "MySQL's own mysqlbinlog"), ("--mariadb", "MariaDB's own mariadb-binlog")] {
        let temp = tempfile::tempdir().expect("a folder");
        let args = ["demo", engine, "--seconds", "3", "--rate", "20"];
        let shown = ended_well(&figvine(temp.path()).args(args).output().expect("runs"));
        let parts = ["+ insert  shop.orders", "~ update  shop.orders", "status: placed → paid", "╶ tx ", "p99", reader];
        for part in parts.into_iter().chain(["» order_placed.v1", "with its lines"]) {
            assert!(shown.contains(part), "no `{part}` in:\n{shown}");
        }
        assert!(shown.contains("tail --table shop.orders"), "{shown}");
        assert!(shown.contains("each change is there, once"), "{shown}");
        leaves_nothing(temp.path(), &shown);
    }
}

#[test]
fn a_demo_has_one_database() {
    let temp = tempfile::tempdir().expect("a folder");
    let output = figvine(temp.path()).args(["demo", "--mysql", "--mariadb"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}

#[test]
fn the_demo_for_programs_is_one_object_per_line() {
    let temp = tempfile::tempdir().expect("a folder");
    let output = figvine(temp.path()).args(["--output", "json", "demo", "--seconds", "1"]).output().expect("runs");
    let shown = ended_well(&output);
    let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (summary, events) = lines.split_last().expect("lines");
    assert_eq!(summary["summary"]["is_proven"], true);
    assert_eq!(summary["summary"]["events"], events.len());
    assert!(events.iter().all(|event| event["schema_version"] == 1 && {
        let is_domain = event["subject"].as_str().expect("a subject").starts_with("events.");
        is_domain != event["data"]["op"].is_string()
    }));
}

/// A demo that is under way, and what it has shown so far.
struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    shown: String,
}

impl Running {
    fn start(temp: &Path, args: &[&str]) -> Self {
        let mut child = figvine(temp).args(args).stdout(Stdio::piped()).spawn().expect("starts");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, out, shown: String::new() }
    }

    fn until(&mut self, mark: &str) {
        let at = self.shown.len();
        while !self.shown[at..].contains(mark) {
            assert!(self.out.read_line(&mut self.shown).expect("readable") > 0, "ended before `{mark}`");
        }
    }

    fn end_by(mut self, signal: Signal) -> String {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("still there");
        self.out.read_to_string(&mut self.shown).expect("readable");
        assert!(self.child.wait().expect("ends").success(), "{}", self.shown);
        self.shown
    }
}

#[test]
fn events_are_tailed_while_the_demo_runs_and_ctrl_c_ends_it_well() {
    let temp = tempfile::tempdir().expect("a folder");
    let mut demo = Running::start(temp.path(), &["demo", "--seconds", "600", "--rate", "20"]);
    demo.until("~ update  orders");
    let config = word_between(&demo.shown, " -c ", " tail");
    let tail = |args: &[&str]| {
        let output = figvine(temp.path()).args(["-c", &config, "tail"]).args(args).output().expect("runs");
        ended_well(&output)
    };

    let shown = tail(&["--since", "all", "--limit", "3", "--json"]);
    let events: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events.iter().map(|event| event["sequence"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    assert_eq!(events[0]["stream"], "FIGVINE_SHOP");
    assert!(events[0]["headers"]["ce-id"].is_string());

    let shown = tail(&["--since", "2", "--limit", "1", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON"), events[1]);
    let of_table = tail(&["--since", "1h", "--table", "orders", "--type", "*.updated", "--limit", "2"]);
    let lines: Vec<_> = of_table.lines().filter(|line| !line.starts_with('╶')).collect();
    assert!(lines.len() == 2 && lines.iter().all(|line| line.contains("~ update  orders ")), "{of_table}");
    let key = events[0]["data"]["key"].as_object().and_then(|key| key.values().next()).expect("a key");
    let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
    assert!(tail(&["--since", "all", "--key", &key, "--limit", "1"]).contains(&key));
    assert!(tail(&["--limit", "1"]).contains("╶ tx "), "from now on");

    let shown = demo.end_by(Signal::SIGINT);
    assert!(shown.contains("each change is there, once"), "{shown}");
    leaves_nothing(temp.path(), &shown);
}

fn word_between(text: &str, from: &str, to: &str) -> String {
    let rest = text.split_once(from).expect("the beginning").1;
    rest.split_once(to).expect("the end").0.to_owned()
}

#[test]
fn a_demo_that_is_interrupted_while_it_starts_leaves_nothing_behind() {
    let temp = tempfile::tempdir().expect("a folder");
    let demo = Running::start(temp.path(), &["demo"]);
    while fs::read_dir(temp.path()).expect("readable").next().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(demo.end_by(Signal::SIGHUP), "");
    assert!(fs::read_dir(temp.path()).expect("readable").next().is_none());
}

#[tokio::test]
async fn a_stream_that_is_missing_is_told_with_what_to_do() {
    let nats = Nats::start(NatsOptions::default()).await.expect("starts");
    let config = nats.dir().join("figvine.yaml");
    let text_of_it = format!(
        "nats: {{ url: \"{}\" }}\nsources: {{ shop: {{ postgres: {{ url: \"postgres://db/shop\" }}, tables: [\"*\"] }} }}\n",
        nats.url()
    );
    fs::write(&config, text_of_it).expect("written");
    let output = figvine(nats.dir()).arg("-c").arg(&config).arg("tail").output().expect("runs");
    assert_eq!(output.status.code(), Some(7));
    let told = text(&output.stderr);
    assert!(told.starts_with("error[FV-2402]: stream FIGVINE_SHOP does not exist\n"), "{told}");
    assert!(told.contains("figvine run"), "{told}");
}
