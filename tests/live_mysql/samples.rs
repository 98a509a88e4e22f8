//! Databases that others made, loaded while the bridge runs, and rebuilt from events.

use std::collections::BTreeMap;

use figvine_sandbox::mysql_async::prelude::Queryable as _;
use figvine_sandbox::mysql_async::{Conn, Row, Value as Field};
use serde_json::{Map, Value, json};

use super::world::{Kind, World};
use crate::archive::sample;

/// Rows by table and key.
type Tables = BTreeMap<String, BTreeMap<String, Value>>;

/// Statements as the servers' own clients cut them: at `;` and a line's end, or at what DELIMITER says.
fn statements(dump: &[u8]) -> Vec<Vec<u8>> {
    let (mut found, mut current, mut delimiter) = (Vec::new(), Vec::new(), &b";"[..]);
    for line in dump.split_inclusive(|byte| *byte == b'\n') {
        if let Some(next) = line.strip_prefix(b"DELIMITER ") {
            delimiter = next.trim_ascii();
            continue;
        }
        // A command to MariaDB's own client.
        let is_command = line.starts_with(b"/*M!999999\\-");
        if is_command || current.is_empty() && (line.trim_ascii().is_empty() || line.starts_with(b"--")) {
            continue;
        }
        current.extend_from_slice(line);
        if let Some(whole) = current.trim_ascii_end().strip_suffix(delimiter) {
            found.push(whole.to_vec());
            current.clear();
        }
    }
    found
}

async fn load(client: &mut Conn, kind: Kind, dump: &[u8]) {
    for statement in statements(dump) {
        let words = String::from_utf8_lossy(&statement).chars().take(300).collect::<String>();
        // The archive's databases are ours here, whatever their names; and locks are of no use to one who loads alone.
        let passed_over = ["USE `", "CREATE DATABASE", "DROP DATABASE", "LOCK TABLES"];
        if passed_over.iter().any(|word| words.contains(word)) {
            continue;
        }
        let ran = match String::from_utf8(statement) {
            // A mode that MySQL has no more, and an engine that cannot stand beside another under its GTIDs.
            Ok(text) if kind == Kind::MySql => {
                let text = text.replace("NO_AUTO_CREATE_USER,", "").replace("ENGINE=MyISAM", "ENGINE=InnoDB");
                client.query_drop(text).await
            }
            Ok(text) => client.query_drop(text).await,
            Err(bytes) => client.query_drop(bytes.into_bytes()).await,
        };
        ran.unwrap_or_else(|e| panic!("{words}: {e}"));
    }
}

/// What the stream makes of the tables. Where a backfill is part of it, a row's first event may be any.
async fn rebuilt(world: &World, is_backfilled: bool) -> Tables {
    let mut tables = Tables::new();
    for event in world.events().await {
        let table = tables.entry(event.body["source"]["table"].as_str().expect("a table").to_owned()).or_default();
        let key = event.body["key"].to_string();
        match event.op() {
            "truncate" => table.clear(),
            "delete" => assert!(table.remove(&key).is_some() || is_backfilled, "{} of {key}", event.table()),
            "insert" => assert_eq!(table.insert(key, event.body["after"].clone()), None, "{}", event.table()),
            "update" => {
                let before = table.insert(key, event.body["after"].clone());
                assert!(before.is_some() || is_backfilled, "{}", event.table());
            }
            "read" if is_backfilled => {
                // What was told already is told again at most.
                if let Some(before) = table.insert(key, event.body["after"].clone()) {
                    assert_eq!(before, event.body["after"], "{}", event.table());
                }
            }
            other => panic!("{other}"),
        }
    }
    tables.retain(|_, rows| !rows.is_empty());
    tables
}

/// What the server says of them.
async fn stored(client: &mut Conn) -> Tables {
    client.query_drop("set time_zone = '+00:00', names utf8mb4").await.expect("settings");
    let of_tables =
        "select table_name from information_schema.tables where table_schema = 'shop' and table_type = 'BASE TABLE'";
    let names: Vec<String> = client.query(of_tables).await.expect("the tables");
    let mut tables = Tables::new();
    for name in names {
        let of_columns = format!(
            "select column_name, data_type, column_key from information_schema.columns
             where table_schema = 'shop' and table_name = '{name}' order by ordinal_position"
        );
        let columns: Vec<(String, String, String)> = client.query(of_columns).await.expect("the columns");
        let list: Vec<_> = columns
            .iter()
            .map(|(column, kind, _)| match kind.as_str() {
                "tinyblob" | "blob" | "mediumblob" | "longblob" | "binary" | "varbinary" => {
                    format!("replace(to_base64(`{column}`), '\\n', '')")
                }
                "geometry" => {
                    format!("concat(st_srid(`{column}`), ' ', replace(to_base64(st_aswkb(`{column}`)), '\\n', ''))")
                }
                _ => format!("`{column}`"),
            })
            .collect();
        let rows: Vec<Row> = client.query(format!("select {} from `{name}`", list.join(", "))).await.expect("rows");
        let found = tables.entry(name).or_default();
        for row in rows {
            let (mut key, mut all) = (Map::new(), Map::new());
            for ((column, kind, in_key), field) in columns.iter().zip(row.unwrap()) {
                let value = value(kind, field);
                if in_key == "PRI" {
                    key.insert(column.clone(), value.clone());
                }
                all.insert(column.clone(), value);
            }
            found.insert(Value::Object(key).to_string(), Value::Object(all));
        }
    }
    tables.retain(|_, rows| !rows.is_empty());
    tables
}

/// The server's text as events have it.
fn value(kind: &str, field: Field) -> Value {
    let text = match field {
        Field::NULL => return Value::Null,
        Field::Bytes(bytes) => String::from_utf8(bytes).expect("UTF-8"),
        other => panic!("{other:?}"),
    };
    match kind {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" | "float" | "double" => {
            serde_json::from_str(&text).expect("a number")
        }
        "datetime" => json!(text.replace(' ', "T")),
        "timestamp" => json!(format!("{}Z", text.replace(' ', "T"))),
        "set" => text.split(',').filter(|label| !label.is_empty()).collect(),
        "geometry" => {
            let (srid, wkb) = text.split_once(' ').expect("two parts");
            json!({"srid": srid.parse::<u32>().expect("a number"), "wkb": wkb})
        }
        _ => json!(text),
    }
}

async fn run(client: &mut Conn, work: &str) {
    for statement in work.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
        client.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
}

/// Loaded and worked on while the bridge runs.
async fn rebuilds(kind: Kind, name: &str, work: &str, rows: usize) {
    let world = World::start(kind).await;
    let Some(dump) = sample(name, world.home.path()) else { return };
    world.drain().await;
    let mut bridge = world.bridge();
    let mut client = world.client().await;
    load(&mut client, kind, &dump).await;
    let mut client = world.client().await;
    run(&mut client, work).await;
    bridge.must_run();
    bridge.stop().await;
    world.drain().await;
    is_equal(&rebuilt(&world, false).await, &stored(&mut client).await, rows);
}

/// Loaded before the bridge runs, and worked on while it reads what is there.
async fn backfills(kind: Kind, name: &str, work: &str, rows: usize) {
    let world = World::start(kind).await;
    let Some(dump) = sample(name, world.home.path()) else { return };
    load(&mut world.client().await, kind, &dump).await;
    world.configure_more("    initial: backfill\n    backfill: { chunk_time: 1ms, rate: 20000 }\n");
    let mut bridge = world.bridge();
    world.wait_growth(&mut bridge, 1000).await;
    let mut client = world.client().await;
    run(&mut client, work).await;
    bridge.kill9();
    world.drain().await;
    let rebuilt = rebuilt(&world, true).await;
    is_equal(&rebuilt, &stored(&mut client).await, rows);
}

fn is_equal(rebuilt: &Tables, stored: &Tables, rows: usize) {
    assert!(stored.values().map(BTreeMap::len).sum::<usize>() > rows);
    assert_eq!(rebuilt.keys().collect::<Vec<_>>(), stored.keys().collect::<Vec<_>>());
    for (table, rows) in stored {
        let others = &rebuilt[table];
        assert_eq!(others.len(), rows.len(), "{table}");
        for (key, row) in rows {
            assert_eq!(others.get(key), Some(row), "{table} {key}");
        }
    }
}

const SAKILA_WORK: &str = "
    update film set rental_rate = rental_rate + 1 where film_id % 3 = 0;
    update film set special_features = 'Trailers,Deleted Scenes', rating = 'NC-17' where film_id < 50;
    delete from payment where payment_id % 7 = 0;
    update customer set active = not active where customer_id % 5 = 0;
    update actor set actor_id = actor_id + 1000 where actor_id not in (select actor_id from film_actor)";

const CHINOOK_WORK: &str = "
    update Track set UnitPrice = 1.29 where TrackId % 2 = 0;
    delete from PlaylistTrack where TrackId % 11 = 0;
    update Customer set Company = 'Ä GmbH' where Company is null";

#[tokio::test(flavor = "multi_thread")]
async fn sakila_is_rebuilt_from_the_events_of_mysql() {
    rebuilds(Kind::MySql, "sakila-my-full.sql", SAKILA_WORK, 40_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sakila_is_rebuilt_from_the_events_of_mariadb() {
    rebuilds(Kind::MariaDb, "sakila-my-full.sql", SAKILA_WORK, 40_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chinook_is_rebuilt_from_the_events_of_mysql() {
    rebuilds(Kind::MySql, "chinook-my.sql", CHINOOK_WORK, 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chinook_is_rebuilt_from_the_events_of_mariadb() {
    rebuilds(Kind::MariaDb, "chinook-my.sql", CHINOOK_WORK, 10_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sakila_is_rebuilt_from_a_backfill_of_mysql_and_the_changes_beside_it() {
    backfills(Kind::MySql, "sakila-my-full.sql", SAKILA_WORK, 40_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sakila_is_rebuilt_from_a_backfill_of_mariadb_and_the_changes_beside_it() {
    backfills(Kind::MariaDb, "sakila-my-full.sql", SAKILA_WORK, 40_000).await;
}
