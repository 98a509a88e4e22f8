//! What the database itself saw: triggers write every row change into a journal, in the same transaction.
//! The stream must tell the same.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use figvine_sandbox::{Postgres, PostgresOptions};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Interval;
use tokio_util::sync::CancellationToken;

use super::harness::{DATABASE, Event, LONG, World};

/// Two tables in turn captured, and a journal beside them that is not.
const TABLES: &str = "
    create schema audit;
    create table audit.journal(seq bigserial primary key, xid bigint, tbl text, op text, key text, after jsonb);
    create function audit.note() returns trigger language plpgsql as $$
    begin
        if tg_op = 'DELETE' or (tg_op = 'UPDATE' and old.id <> new.id) then
            insert into audit.journal(xid, tbl, op, key)
            values (txid_current(), tg_table_name, 'delete', jsonb_build_object('id', old.id));
        end if;
        if tg_op = 'INSERT' or (tg_op = 'UPDATE' and old.id <> new.id) then
            insert into audit.journal(xid, tbl, op, key, after)
            values (txid_current(), tg_table_name, 'insert', jsonb_build_object('id', new.id), to_jsonb(new));
        elsif tg_op = 'UPDATE' then
            insert into audit.journal(xid, tbl, op, key, after)
            values (txid_current(), tg_table_name, 'update', jsonb_build_object('id', new.id), to_jsonb(new));
        end if;
        return null;
    end $$;
    create table items(id int primary key, version bigint not null, note text);
    create table parts(id int primary key, version bigint not null, note text);
    create trigger note after insert or update or delete on items for each row execute function audit.note();
    create trigger note after insert or update or delete on parts for each row execute function audit.note();
";

/// Keys that writers fight over.
const KEYS: u64 = 60;

/// More transactions than a test lets pass: the load ends when the test says so.
pub(crate) const ENDLESS: u64 = 1_000_000;

/// Settings for a database that writers fight over.
pub(crate) fn contended() -> PostgresOptions {
    let settings = [("deadlock_timeout", "20ms"), ("max_connections", "60")];
    PostgresOptions {
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..PostgresOptions::default()
    }
}

/// Makes the tables and their journal, and the slot that will see all that happens to them.
pub(crate) async fn create(world: &World) {
    world.run_sql(TABLES).await;
    world.drain().await;
}

/// A generator that repeats itself for the same seed (xorshift64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// From `FIGVINE_LIVE_SEED`, or the clock; printed, so that a failure can be repeated as far as servers repeat.
    #[expect(clippy::print_stdout, reason = "shown with a test that fails")]
    pub(crate) fn seeded() -> Self {
        let seed = match std::env::var("FIGVINE_LIVE_SEED") {
            Ok(seed) => seed.parse().expect("a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| u64::from(now.subsec_nanos())),
        };
        println!("FIGVINE_LIVE_SEED={seed}");
        Self::new(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Writers at work.
#[derive(Debug)]
pub(crate) struct Load {
    writers: JoinSet<u64>,
    enough: CancellationToken,
}

impl Load {
    /// Starts writers of so many transactions each. A database that goes away is waited for.
    pub(crate) fn start(postgres: &Postgres, writers: u64, transactions: u64, random: &mut Random) -> Self {
        let enough = CancellationToken::new();
        let mut running = JoinSet::new();
        for _ in 0..writers {
            let random = Random::new(random.next());
            running.spawn(write(postgres.url(DATABASE), transactions, random, enough.clone()));
        }
        Self { writers: running, enough }
    }

    /// Waits until all is written; the number of transactions that were sent.
    pub(crate) async fn finished(self) -> u64 {
        self.writers.join_all().await.into_iter().sum()
    }

    /// Lets the writers end after the transaction at hand.
    pub(crate) async fn stop(self) -> u64 {
        self.enough.cancel();
        self.finished().await
    }
}

async fn write(url: String, transactions: u64, mut random: Random, enough: CancellationToken) -> u64 {
    let mut sent = 0;
    'connected: while sent < transactions && !enough.is_cancelled() {
        let Ok((client, connection)) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let mut session = JoinSet::new();
        session.spawn(connection);
        while sent < transactions && !enough.is_cancelled() {
            sent += 1;
            // Deadlocks and keys that are taken end a transaction: that is part of the load.
            if client.batch_execute(&transaction(&mut random)).await.is_err()
                && client.batch_execute("rollback").await.is_err()
            {
                continue 'connected;
            }
        }
    }
    sent
}

fn transaction(random: &mut Random) -> String {
    let mut sql = String::from("begin;");
    for _ in 0..=random.below(4) {
        if random.below(6) == 0 {
            let undone = statement(random);
            let end = if random.below(2) == 0 { "rollback to inner_part" } else { "release inner_part" };
            sql.push_str(&format!("savepoint inner_part;{undone};{end};"));
        }
        sql.push_str(&statement(random));
        sql.push(';');
    }
    sql.push_str(if random.below(12) == 0 { "rollback" } else { "commit" });
    sql
}

fn statement(random: &mut Random) -> String {
    let table = if random.below(3) == 0 { "parts" } else { "items" };
    let (key, other, note) = (random.below(KEYS), random.below(KEYS), random.next());
    match random.below(20) {
        0..6 => format!("insert into {table} values ({key}, 1, 'n{note}') on conflict do nothing"),
        6..13 => format!("update {table} set version = version + 1, note = 'n{note}' where id = {key}"),
        13 => format!("update {table} set version = version + 1 where id between {key} and {}", key + 3),
        14..17 => format!("delete from {table} where id = {key}"),
        17 => format!("delete from {table} where id = {key}; insert into {table} values ({key}, 1, null)"),
        _ => format!(
            "update {table} set id = {other}, version = version + 1 where id = {key}
             and not exists (select from {table} where id = {other})"
        ),
    }
}

/// A row change, as the journal and the stream both tell it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub(crate) table: String,
    pub(crate) op: String,
    pub(crate) key: Value,
    pub(crate) after: Value,
}

impl Told {
    fn of(event: &Event) -> Self {
        let part = |name: &str| event.body.get(name).cloned().unwrap_or_default();
        Self {
            table: event.body["source"]["table"].as_str().unwrap_or_default().to_owned(),
            op: event.op().to_owned(),
            key: part("key"),
            after: part("after"),
        }
    }
}

/// Transactions of the journal, by their ids.
async fn journal(world: &World) -> HashMap<String, Vec<Told>> {
    let query = "select xid::text, tbl, op, key, coalesce(after::text, 'null') from audit.journal order by seq";
    let mut transactions: HashMap<String, Vec<Told>> = HashMap::new();
    for row in world.sql().await.query(query, &[]).await.expect("the journal") {
        let json = |text: String| serde_json::from_str(&text).expect("JSON");
        let told = Told { table: row.get(1), op: row.get(2), key: json(row.get(3)), after: json(row.get(4)) };
        transactions.entry(row.get(0)).or_default().push(told);
    }
    transactions
}

/// Brings all into the stream, and holds it against the journal; the number of changes.
pub(crate) async fn check(world: &World) -> usize {
    world.drain().await;
    let events = world.events().await;
    check_events(&events, &journal(world).await).unwrap_or_else(|what| panic!("{what}"))
}

/// Every committed change once; transactions whole, one behind the other, each in its own order; versions without a gap.
pub(crate) fn check_events(events: &[Event], journal: &HashMap<String, Vec<Told>>) -> Result<usize, String> {
    let mut sequence = "";
    let mut transactions: Vec<(&str, Vec<Told>)> = Vec::new();
    let mut ids = HashSet::new();
    let mut open = false;
    let mut place_before: Option<u64> = None;
    let mut versions: BTreeMap<(String, String), Value> = BTreeMap::new();
    for event in events {
        let place = format!("message {}", event.sequence);
        if event.header("ce-sequence") <= sequence {
            return Err(format!("{place}: ce-sequence {} behind {sequence}", event.header("ce-sequence")));
        }
        sequence = event.header("ce-sequence");
        if !ids.insert(event.header("ce-id")) {
            return Err(format!("{place}: a second event with the id {}", event.header("ce-id")));
        }
        let transaction = event.header("Figvine-Tx");
        if !open {
            transactions.push((transaction, Vec::new()));
            place_before = None;
        }
        let Some((current, told)) = transactions.last_mut() else { continue };
        if *current != transaction {
            return Err(format!("{place}: transaction {transaction} begins before {current} has its last event"));
        }
        // The two halves of a key change are one change of the log.
        let is_second_half = event.op() == "insert" && event.body.get("rekeyed").is_some();
        let place_in_log = if is_second_half { place_before } else { place_before.map_or(Some(0), |at| Some(at + 1)) };
        if event.header("Figvine-Tx-Index").parse::<u64>().ok() != place_in_log {
            let index = event.header("Figvine-Tx-Index");
            return Err(format!("{place}: place {index} in its transaction, {place_in_log:?} is expected"));
        }
        told.push(Told::of(event));
        place_before = place_in_log;
        open = event.header("Figvine-Tx-Last") != "true";
        follow(&mut versions, event).map_err(|what| format!("{place}: {what}"))?;
    }
    if open {
        return Err("the last transaction has no last event".into());
    }
    let mut seen = HashSet::new();
    for (transaction, told) in &transactions {
        if !seen.insert(*transaction) {
            return Err(format!("transaction {transaction} stands in the stream twice"));
        }
        match journal.get(*transaction) {
            Some(expected) if expected == told => {}
            expected => return Err(format!("transaction {transaction}: {told:?} instead of {expected:?}")),
        }
    }
    if let Some(missing) = journal.keys().find(|id| !seen.contains(id.as_str())) {
        return Err(format!("transaction {missing} is missing, {} of {} are there", seen.len(), journal.len()));
    }
    Ok(events.len())
}

/// Per key: inserted while absent, changed by one version at a time, deleted while there.
fn follow(versions: &mut BTreeMap<(String, String), Value>, event: &Event) -> Result<(), String> {
    let key = (event.table(), event.body["key"].to_string());
    let now = event.body["after"]["version"].clone();
    let before = versions.get(&key).and_then(Value::as_i64);
    match (event.op(), before) {
        ("insert", None) => drop(versions.insert(key, now)),
        ("update", Some(version)) if now == version + 1 => drop(versions.insert(key, now)),
        ("delete", Some(_)) => drop(versions.remove(&key)),
        (op, before) => return Err(format!("{op} of {key:?} to version {now} behind version {before:?}")),
    }
    Ok(())
}

#[test]
fn the_check_sees_what_is_wrong() {
    let event = |sequence: u64, index: u64, op: &str, version: i64, last: bool| {
        let after = if op == "delete" { Value::Null } else { serde_json::json!({"id": 1, "version": version}) };
        let body = serde_json::json!({
            "op": op, "key": {"id": 1}, "after": after, "source": {"schema": "public", "table": "items"}
        });
        let mut headers = BTreeMap::from([
            ("ce-id".to_owned(), format!("{sequence}")),
            ("ce-sequence".to_owned(), format!("{sequence:09}")),
            ("Figvine-Tx".to_owned(), "7".to_owned()),
            ("Figvine-Tx-Index".to_owned(), index.to_string()),
        ]);
        if last {
            headers.insert("Figvine-Tx-Last".to_owned(), "true".to_owned());
        }
        Event { sequence, subject: String::new(), headers, payload: Vec::new(), body }
    };
    let right = vec![event(1, 0, "insert", 1, false), event(2, 1, "update", 2, false), event(3, 2, "delete", 0, true)];
    let journal = HashMap::from([("7".to_owned(), right.iter().map(Told::of).collect::<Vec<_>>())]);
    assert_eq!(check_events(&right, &journal), Ok(3));

    let mut twice = right.clone();
    twice.insert(1, right[0].clone());
    let mut turned = right.clone();
    turned.swap(0, 1);
    let mut skipped = right.clone();
    skipped[1] = event(2, 1, "update", 3, false);
    let mut unended = right.clone();
    unended[2] = event(3, 2, "delete", 0, false);
    let without_first = right[1..].to_vec();
    let without_all = Vec::new();
    for wrong in [twice, turned, skipped, unended, without_first, without_all] {
        check_events(&wrong, &journal).expect_err("wrong");
    }
    check_events(&right, &HashMap::new()).expect_err("not in the journal");
}

/// Rows of a table that is backfilled under writers: 20,000, or as many as FIGVINE_LIVE_ROWS says.
pub(crate) fn contended_rows() -> u64 {
    std::env::var("FIGVINE_LIVE_ROWS").map_or(20_000, |rows| rows.parse().expect("FIGVINE_LIVE_ROWS: a number"))
}

/// How long a backfill of those may take beside the writers.
pub(crate) fn contended_time() -> Duration {
    LONG + Duration::from_millis(2 * contended_rows())
}

/// The pace of each of the writers. Beside few rows they take all they can get; beside many they would take all the machine
/// has for most of an hour, and the rows wait for the log.
pub(crate) struct Pace(Option<Interval>);

impl Pace {
    pub(crate) fn new() -> Self {
        Self((contended_rows() > 100_000).then(|| tokio::time::interval(Duration::from_millis(40))))
    }

    /// Until the next transaction may begin.
    pub(crate) async fn next(&mut self) {
        if let Some(ticks) = &mut self.0 {
            ticks.tick().await;
        }
    }
}

/// A table with the columns `id` and `version`, rebuilt of what the stream tells of it. Each key's versions rise by one with
/// each change, a read says what stood, and no row is read twice.
#[derive(Debug, Default)]
pub(crate) struct Rebuilt {
    known: HashMap<i64, (i64, bool)>,
    read: HashSet<i64>,
    reads: HashSet<String>,
}

impl Rebuilt {
    /// Takes in an event of the table.
    pub(crate) fn add(&mut self, event: &Event) {
        let known = &mut self.known;
        let id = event.body["key"]["id"].as_i64().expect("an id");
        let version = event.body["after"]["version"].as_i64();
        let before = known.get(&id).copied();
        let place = event.sequence;
        if event.op() == "read" {
            assert!(self.read.insert(id), "message {place}: row {id} was read twice");
            assert!(self.reads.insert(event.header("ce-id").to_owned()), "message {place}: an identity came twice");
        }
        match (event.op(), version, before) {
            ("read", Some(version), Some((last, alive))) => {
                assert_eq!(
                    (version, alive),
                    (last, true),
                    "message {place}: key {id} read behind version {last}, there: {alive}"
                );
            }
            ("insert" | "update", Some(version), Some((last, _))) => {
                assert_eq!(version, last + 1, "message {place}: {} of key {id}", event.op());
            }
            _ => {}
        }
        match version {
            Some(version) => known.insert(id, (version, true)),
            None => known.insert(id, (before.map_or(0, |(last, _)| last + 1), false)),
        };
        // A delete as the first word on a key tells no version: the next one is taken as it is.
        if version.is_none() && before.is_none() {
            known.remove(&id);
        }
    }

    /// The rows that are there at the end, with their versions.
    pub(crate) fn rows(self) -> BTreeMap<i64, i64> {
        self.known.into_iter().filter(|(_, (_, alive))| *alive).map(|(id, (version, _))| (id, version)).collect()
    }
}
