//! A database that others made, read as it is and then once more by its log.

use std::collections::BTreeMap;
use std::process::Command;

use super::archive::sample;
use super::harness::{DATABASE, Event, World};

/// What an event tells of its row: the bytes.
fn row(event: &Event) -> String {
    let after = event.text().split_once("\"after\":").expect("a row").1;
    after.split_once(",\"source\":").expect("its end").0.to_owned()
}

fn by_key<'a>(events: impl Iterator<Item = &'a Event>) -> BTreeMap<(String, String), String> {
    let mut rows = BTreeMap::new();
    for event in events {
        let key = (event.table(), event.body["key"].to_string());
        assert_eq!(rows.insert(key, row(event)), None, "{} came twice: {}", event.table(), event.text());
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn sakila_is_read_as_its_log_tells_it() {
    let world = World::start().await;
    let home = world.home.path();
    let names = ["sakila-pg-schema.sql", "sakila-pg-data.sql"];
    if names.iter().any(|name| sample(name, home).is_none()) {
        return;
    }
    let mut load = Command::new("psql");
    load.args(["--no-psqlrc", "--quiet", "--output=/dev/null", "-d", &world.postgres.url(DATABASE)]);
    load.args(names.iter().flat_map(|name| ["-f".into(), home.join("samples").join(name)]));
    let loaded = load.output().expect("psql");
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let client = world.sql().await;
    let tables =
        "select relname::text, not exists (select from pg_constraint c where c.conrelid = t.oid and c.contype = 'p')
                  from pg_class t where relnamespace = 'public'::regnamespace and relkind = 'r'";
    let mut held = BTreeMap::new();
    for table in client.query(tables, &[]).await.expect("tables") {
        let (name, is_keyless): (String, bool) = (table.get(0), table.get(1));
        if is_keyless {
            client.batch_execute(&format!("alter table {name} replica identity full")).await.expect("an identity");
        }
        let count = client.query_one(&format!("select count(*) from only {name}"), &[]).await.expect("a count");
        if count.get::<_, i64>(0) > 0 {
            held.insert(format!("public.{name}"), usize::try_from(count.get::<_, i64>(0)).expect("some"));
        }
    }
    let (nats, url) = (world.nats.url(), world.postgres.url(DATABASE));
    world.write_config(&format!(
        "nats: {{ url: \"{nats}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    initial: backfill\n    postgres: {{ keyless: whole_row, url: \"{url}\" }}\n    tables: [\"public.*\"]\n",
    ));
    world.drain().await;
    let read = world.events().await.len();
    // Triggers would change what is written.
    let mut touch = "set session_replication_role = replica;".to_owned();
    for name in held.keys() {
        let column =
            "select attname::text from pg_attribute where attrelid = $1::text::regclass and attnum > 0 limit 1";
        let column: String = client.query_one(column, &[name]).await.expect("a column").get(0);
        touch.push_str(&format!("update only {name} set {column} = {column};"));
    }
    client.batch_execute(&touch).await.expect("updates");
    world.drain().await;

    let events = world.events().await;
    let (reads, updates) = events.split_at(read);
    assert!(reads.iter().all(|event| event.op() == "read") && updates.iter().all(|event| event.op() == "update"));
    let (reads, updates) = (by_key(reads.iter()), by_key(updates.iter()));
    let mut counts = BTreeMap::new();
    reads.keys().for_each(|(table, _)| *counts.entry(table.clone()).or_insert(0_usize) += 1);
    assert_eq!(counts, held);
    assert_eq!(reads.len(), updates.len());
    for (key, read) in &reads {
        assert_eq!(updates.get(key), Some(read), "{key:?}");
    }
}
