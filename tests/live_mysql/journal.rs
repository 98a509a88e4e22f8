//! What the database itself saw, as [`crate::journal`] has it of PostgreSQL.
//!
//! Triggers know no transaction's name here. So each transaction begins with a row of its own in `marks`, which is captured;
//! its number stands in the journal beside every change.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use figvine_sandbox::mysql_async::prelude::Queryable as _;
use figvine_sandbox::mysql_async::{Conn, Opts, OptsBuilder};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::world::World;
use crate::harness::Event;
use crate::journal::{Random, Told, check_events};

/// Keys that writers fight over.
const KEYS: u64 = 60;

/// Makes the tables and their journal, and the place from which all that happens to them is read.
pub(crate) async fn create(world: &World) {
    let mut client = world.client().await;
    let mut run = async |sql: String| client.query_drop(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    run("create database audit".into()).await;
    run("create table audit.journal(seq bigint auto_increment primary key, mark bigint, tbl varchar(20), op varchar(10),
         `key` varchar(50), after text)"
        .into())
    .await;
    run("create table marks(id bigint primary key)".into()).await;
    let note = |table: &str, op: &str, key: &str, after: &str| {
        format!(
            "insert into audit.journal(mark, tbl, op, `key`, after) values (@mark, '{table}', '{op}', json_object('id', {key}), {after});"
        )
    };
    run(format!(
        "create trigger mi after insert on marks for each row begin {} end",
        note("marks", "insert", "new.id", "json_object('id', new.id)")
    ))
    .await;
    for table in ["items", "parts"] {
        run(format!("create table {table}(id int primary key, version bigint not null, note text)")).await;
        let row = "json_object('id', new.id, 'version', new.version, 'note', new.note)";
        let (insert, update) = (note(table, "insert", "new.id", row), note(table, "update", "new.id", row));
        let delete = note(table, "delete", "old.id", "'null'");
        run(format!("create trigger {table}_i after insert on {table} for each row begin {insert} end")).await;
        run(format!("create trigger {table}_d after delete on {table} for each row begin {delete} end")).await;
        run(format!(
            "create trigger {table}_u after update on {table} for each row begin
             if old.id <> new.id then {delete} {insert} else {update} end if; end"
        ))
        .await;
    }
    world.drain().await;
}

/// Writers at work.
#[derive(Debug)]
pub(crate) struct Load {
    writers: JoinSet<()>,
    enough: CancellationToken,
}

impl Load {
    /// Starts writers. A database that goes away is waited for.
    pub(crate) fn start(world: &World, writers: u64, random: &mut Random) -> Self {
        let enough = CancellationToken::new();
        let mut running = JoinSet::new();
        for writer in 0..writers {
            let random = Random::new(random.next());
            running.spawn(write(world.server().url("shop"), writer, random, enough.clone()));
        }
        Self { writers: running, enough }
    }

    /// Lets the writers end after the transaction at hand.
    pub(crate) async fn stop(self) {
        self.enough.cancel();
        self.writers.join_all().await;
    }
}

async fn write(url: String, writer: u64, mut random: Random, enough: CancellationToken) {
    let opts = Opts::from_url(&url).expect("a url");
    let opts: Opts = OptsBuilder::from_opts(opts).prefer_socket(false).into();
    let mut mark = (writer + 1) * 1_000_000;
    'connected: while !enough.is_cancelled() {
        let Ok(Ok(mut client)) = tokio::time::timeout(Duration::from_secs(5), Conn::new(opts.clone())).await else {
            tokio::task::yield_now().await;
            continue;
        };
        while !enough.is_cancelled() {
            mark += 1;
            // Deadlocks end a transaction: that is part of the load.
            let sql = transaction(&mut random, mark);
            if client.query_drop(sql).await.is_err() && client.query_drop("rollback").await.is_err() {
                continue 'connected;
            }
        }
    }
}

fn transaction(random: &mut Random, mark: u64) -> String {
    // Of all transactions these are the ones that a crash leaves in more states than two.
    let is_xa = random.below(5) == 0;
    let (begin, commit, rollback) = if is_xa {
        let end = format!("xa end '{mark}'; xa prepare '{mark}';");
        (format!("xa start '{mark}'"), format!("{end} xa commit '{mark}'"), format!("{end} xa rollback '{mark}'"))
    } else {
        ("begin".into(), "commit".into(), "rollback".into())
    };
    let mut sql = format!("{begin}; set @mark = {mark}; insert into marks values ({mark});");
    for _ in 0..=random.below(4) {
        if random.below(6) == 0 && !is_xa {
            let undone = statement(random);
            let end = if random.below(2) == 0 { "rollback to inner_part" } else { "release savepoint inner_part" };
            sql.push_str(&format!("savepoint inner_part; {undone}; {end};"));
        }
        sql.push_str(&statement(random));
        sql.push(';');
    }
    sql.push_str(if random.below(if is_xa { 3 } else { 12 }) == 0 { &rollback } else { &commit });
    sql
}

fn statement(random: &mut Random) -> String {
    let table = if random.below(3) == 0 { "parts" } else { "items" };
    let (key, other, note) = (random.below(KEYS), random.below(KEYS), random.next());
    match random.below(20) {
        0..6 => format!("insert ignore into {table} values ({key}, 1, 'n{note}')"),
        6..13 => format!("update {table} set version = version + 1, note = 'n{note}' where id = {key}"),
        13 => format!("update {table} set version = version + 1 where id between {key} and {}", key + 3),
        14..17 => format!("delete from {table} where id = {key}"),
        17 => format!("delete from {table} where id = {key}; insert into {table} values ({key}, 1, null)"),
        // UPDATE IGNORE would not do: MariaDB runs the triggers of rows that it then passes over.
        _ => format!(
            "update {table} set id = {other}, version = version + 1 where id = {key}
             and (select taken from (select count(*) as taken from {table} where id = {other}) of_it) = 0"
        ),
    }
}

/// Brings all into the stream, and holds it against the journal; the number of changes.
pub(crate) async fn check(world: &World) -> usize {
    world.drain().await;
    let mut journal: HashMap<String, Vec<Told>> = HashMap::new();
    let query = "select mark, tbl, op, `key`, after from audit.journal order by seq";
    let rows: Vec<(u64, String, String, String, String)> =
        world.client().await.query(query).await.expect("the journal");
    for (mark, table, op, key, after) in rows {
        let json = |text: String| serde_json::from_str(&text).expect("JSON");
        journal.entry(mark.to_string()).or_default().push(Told { table, op, key: json(key), after: json(after) });
    }
    let mut events = world.events().await;
    by_marks(&mut events);
    check_events(&events, &journal).unwrap_or_else(|what| panic!("{what}"))
}

/// Names transactions by their marks, and counts their changes without those of the journal, which is not captured.
fn by_marks(events: &mut [Event]) {
    let mut mark = String::new();
    let mut name = String::new();
    let mut places: BTreeMap<u64, u64> = BTreeMap::new();
    for event in events {
        let place: u64 = event.header("Figvine-Tx-Index").parse().expect("a place");
        if event.header("Figvine-Tx") != name {
            name = event.header("Figvine-Tx").to_owned();
            mark = event.body["key"]["id"].to_string();
            assert_eq!(event.table(), "shop.marks", "{name} begins with its mark");
            places.clear();
        }
        let count = places.len() as u64;
        assert!(places.keys().next_back().is_none_or(|last| *last <= place), "{name}: {place} behind {places:?}");
        let place = *places.entry(place).or_insert(count);
        event.headers.insert("Figvine-Tx".into(), mark.clone());
        event.headers.insert("Figvine-Tx-Index".into(), place.to_string());
    }
}
