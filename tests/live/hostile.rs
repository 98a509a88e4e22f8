//! Names and keys that try to be something else on their way.

use std::collections::{BTreeMap, BTreeSet};

use super::harness::{Event, World};
use serde_json::Value;

const HEADERS: [&str; 13] = [
    "Figvine-Checkpoint",
    "Figvine-Tx",
    "Figvine-Tx-Index",
    "ce-datacontenttype",
    "ce-dataschema",
    "ce-id",
    "ce-partitionkey",
    "ce-sequence",
    "ce-source",
    "ce-specversion",
    "ce-subject",
    "ce-time",
    "ce-type",
];

fn configure(world: &World, source: &str) {
    let url = world.postgres.url("postgres");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\" }}\n{source}",
        world.nats.url()
    ));
}

/// FNV-1a over 32 bits by its definition, in arithmetic of 64.
fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 2_166_136_261_u64;
    for byte in bytes {
        hash = ((hash ^ u64::from(*byte)) * 16_777_619) % (1 << 32);
    }
    hash
}

/// A token of a subject as consumers read it: `=` and two hexadecimal digits stand for a byte, `=` alone for nothing.
fn token(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    if text == "=" {
        return bytes;
    }
    while let [first, tail @ ..] = rest {
        if *first == b'=' {
            let digits = std::str::from_utf8(&tail[..2]).expect("digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("a byte"));
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

fn percent(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(&tail[..2]).expect("digits");
            bytes.push(u8::from_str_radix(digits, 16).expect("a byte"));
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

/// What every event holds to, whatever it is about.
fn assert_sound(event: &Event) {
    assert!(event.subject.bytes().all(|b| b.is_ascii_graphic() && b != b'*' && b != b'>'), "{}", event.subject);
    assert!(!event.subject.split('.').any(str::is_empty), "{}", event.subject);
    let mut expected = BTreeSet::from(HEADERS);
    // The attribute `subject` of CloudEvents is never empty, and absent instead.
    if event.body["key"]["k"] == "" {
        expected.remove("ce-subject");
        expected.remove("ce-partitionkey");
    }
    let mut names: BTreeSet<&str> =
        event.headers.keys().map(String::as_str).filter(|n| !n.starts_with("Nats-")).collect();
    names.remove("Figvine-Tx-Last");
    assert_eq!(names, expected);
    // A checkpoint is words with blanks between.
    let is_sound = |b: u8| b.is_ascii_graphic() || b == b' ';
    assert!(event.headers.values().all(|value| value.bytes().all(is_sound)), "{:?}", event.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_any_characters_make_sound_subjects_that_read_back() {
    let world = World::start().await;
    configure(&world, "    tables: [\"*.*\"]\n");
    let client = world.sql().await;
    let long = "l".repeat(63);
    let wide = "ß".repeat(31);
    let names: [&str; 14] = [
        "plain",
        "a.b",
        "*",
        ">",
        "with blank",
        "quote\"d",
        "it's",
        "line\r\nfeed: yes",
        "tab\t",
        "ünïcödé 🌳",
        "=41",
        "%41{table}$$",
        &long,
        &wide,
    ];
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for name in names {
        let (schema, table) = (quoted(&format!("s{}", name.chars().take(20).collect::<String>())), quoted(name));
        let sql =
            format!("create schema {schema}; create table {schema}.{table}({table} text primary key, \"a\\b\" int)");
        client.batch_execute(&sql).await.expect(&sql);
    }
    world.drain().await;
    for name in names {
        let (schema, table) = (quoted(&format!("s{}", name.chars().take(20).collect::<String>())), quoted(name));
        let sql = format!("insert into {schema}.{table} values ('k', 7)");
        client.batch_execute(&sql).await.expect(&sql);
    }
    world.drain().await;
    let events = world.events().await;
    assert_eq!(events.len(), names.len());
    for (event, name) in events.iter().zip(names) {
        assert_sound(event);
        let schema: String = format!("s{}", name.chars().take(20).collect::<String>());
        let tokens: Vec<&str> = event.subject.split('.').collect();
        assert_eq!(tokens.len(), 5, "{}", event.subject);
        assert_eq!(tokens[..2], ["cdc", "shop"]);
        if !tokens[3].contains("=~") {
            assert_eq!(token(tokens[3]), name.as_bytes());
        }
        assert_eq!(token(tokens[2]), schema.as_bytes());
        assert_eq!(event.body["source"]["table"], name);
        assert_eq!(event.body["source"]["schema"], schema.as_str());
        assert_eq!(event.body["after"][name], "k");
        assert_eq!(event.body["after"]["a\\b"], 7);
        assert_eq!(percent(event.header("ce-type")), format!("shop.{schema}.{name}.inserted").as_bytes());
    }
    let subjects: BTreeSet<_> = events.iter().map(|e| &e.subject).collect();
    assert_eq!(subjects.len(), names.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_any_characters_stay_keys_and_their_partition_is_what_consumers_compute() {
    let world = World::start().await;
    let large = "k\n".repeat(5000);
    let keys: Vec<&str> = vec![
        "plain",
        "",
        " ",
        "a.b.c",
        "*",
        ">",
        "$JS.API.>",
        "x\r\nHeader: x",
        "x\r\n\r\nbody",
        "NATS/1.0\r\n",
        "\"quoted\" \\ %20",
        "ключ 🌳",
        "=3D",
        "\u{1}\u{7f}",
        &large,
    ];
    for (template, partitions) in
        [("cdc.{source}.{schema}.{table}.{partition}", 16), ("cdc.{source}.{op}.{key}.{partition}", 7)]
    {
        let stream = format!("FIGVINE_{partitions}");
        let url = world.postgres.url("postgres");
        world.write_config(&format!(
            "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  of_{partitions}:\n    postgres: {{ url: \"{url}\" }}\n    tables: [\"public.t{partitions}\"]\n    stream: {{ name: {stream} }}\n    subject: \"{template}\"\n    partitions: {partitions}\n",
            world.nats.url()
        ));
        // Indices hold no 10 kB: a hash makes the key, the whole row stands for the identity.
        let client = world.sql().await;
        client
            .batch_execute(&format!("create table t{partitions}(k text, v int, primary key (k))"))
            .await
            .expect("a table");
        client
            .batch_execute(&format!("alter table t{partitions} alter column k set storage external"))
            .await
            .expect("storage");
        world.drain().await;
        let mut kept = Vec::new();
        for key in &keys {
            let insert = format!("insert into t{partitions} values ($1, 1)");
            // What no index takes cannot be a primary key.
            if client.execute(&insert, &[key]).await.is_ok() {
                kept.push(*key);
                client.execute(&format!("update t{partitions} set v = 2 where k = $1"), &[key]).await.expect("updates");
                client.execute(&format!("delete from t{partitions} where k = $1"), &[key]).await.expect("deletes");
            }
        }
        assert!(kept.len() >= keys.len() - 1);
        world.drain().await;
        let events = super::harness::events(&world.jetstream().await, &stream).await;
        assert_eq!(events.len(), 3 * kept.len());
        for (of_key, key) in events.chunks(3).zip(kept) {
            for (event, op) in of_key.iter().zip(["insert", "update", "delete"]) {
                assert_sound(event);
                assert_eq!((event.op(), event.body["key"]["k"].as_str()), (op, Some(key)));
                assert_eq!(percent(event.header("ce-subject")), key.as_bytes());
                assert_eq!(event.header("ce-partitionkey"), event.header("ce-subject"));
                let tokens: Vec<&str> = event.subject.split('.').collect();
                assert_eq!(tokens[4], format!("{:02}", fnv1a(key.as_bytes()) % partitions), "{key:?}");
                if partitions == 7 {
                    assert_eq!(tokens[2], op);
                    assert_eq!(token(tokens[3]), key.as_bytes());
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_too_long_for_headers_and_subjects_is_cut_and_hashed_and_stays_whole_in_the_body() {
    let world = World::start().await;
    let client = world.sql().await;
    client.batch_execute("create table t(k text, n int); alter table t replica identity full").await.expect("a table");
    let url = world.postgres.url("postgres");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\", keyless: whole_row }}\n    tables: [\"public.*\"]\n    subject: \"cdc.{{source}}.{{table}}.{{key}}.{{partition}}\"\n",
        world.nats.url()
    ));
    world.drain().await;
    let keys = ["x\r\nHeader: x".repeat(1000), format!("{}y", "x\r\nHeader: x".repeat(1000))];
    for key in &keys {
        client.execute("insert into t values ($1, null)", &[key]).await.expect("a row");
    }
    world.drain().await;
    let events = world.events().await;
    assert_eq!(events.len(), 2);
    for (event, key) in events.iter().zip(&keys) {
        assert_sound(event);
        assert_eq!(event.body["key"]["k"], key.as_str());
        assert!(event.header("ce-subject").len() < 4096);
        let text = format!("[{},null]", Value::from(key.as_str()));
        assert!(event.subject.ends_with(&format!(".{:02}", fnv1a(text.as_bytes()) % 16)), "{}", event.subject);
    }
    assert_ne!(events[0].subject, events[1].subject);
    assert_ne!(events[0].header("ce-subject"), events[1].header("ce-subject"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_formats_carry_the_same_change() {
    let world = World::start().await;
    let mut bodies = BTreeMap::new();
    let client = world.sql().await;
    client.batch_execute("create table t(id int primary key, a numeric)").await.expect("a table");
    let url = world.postgres.url("postgres");
    let formats = ["cloudevents", "cloudevents-structured", "plain"];
    let sources: String = formats
        .iter()
        .enumerate()
        .map(|(at, format)| {
            format!(
                "  s{at}:\n    postgres: {{ url: \"{url}\" }}\n    tables: [\"public.*\"]\n    format: {format}\n    ce_source: \"/some/where/%C3%BC\"\n"
            )
        })
        .collect();
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n{sources}",
        world.nats.url()
    ));
    world.drain().await;
    client
        .batch_execute("begin; insert into t values (1, 1.10); update t set a = 2; commit; truncate t")
        .await
        .expect("rows");
    world.drain().await;
    for (at, format) in formats.iter().enumerate() {
        bodies.insert(*format, super::harness::events(&world.jetstream().await, &format!("FIGVINE_S{at}")).await);
    }
    let [binary, structured, plain] = formats.map(|format| &bodies[format]);
    assert_eq!([binary.len(), structured.len(), plain.len()], [3, 3, 3]);
    for ((binary, structured), plain) in binary.iter().zip(structured).zip(plain) {
        let same = |event: &Event| {
            let mut body = event.body.clone();
            body["source"]["name"] = Value::Null;
            body
        };
        assert_eq!(same(plain), same(binary));
        let names: Vec<_> =
            plain.headers.keys().filter(|n| !n.starts_with("Nats-") && !n.starts_with("Figvine-")).collect();
        assert!(names.is_empty(), "{names:?}");
        assert!(binary.headers.keys().all(|name| !name.eq_ignore_ascii_case("content-type")));
        assert!(
            structured.header("Content-Type").starts_with("application/cloudevents+json"),
            "{:?}",
            structured.headers
        );
        let mut data = structured.body["data"].clone();
        data["source"]["name"] = Value::Null;
        assert_eq!(data, same(binary));
        assert_eq!(structured.body["source"], "/some/where/%C3%BC");
        assert_eq!(percent(binary.header("ce-source")), b"/some/where/%C3%BC");
        for name in ["specversion", "id", "time", "sequence", "datacontenttype"] {
            assert_eq!(structured.body[name].as_str(), Some(binary.header(&format!("ce-{name}"))), "{name}");
        }
        let others = ["Figvine-Tx", "Figvine-Tx-Index", "Figvine-Tx-Last"];
        for event in [structured, plain] {
            assert!(others.iter().all(|name| event.header(name) == binary.header(name)), "{:?}", event.headers);
        }
    }
    let truncated = &bodies["cloudevents-structured"][2];
    assert_eq!((truncated.body["subject"].as_str(), truncated.body["partitionkey"].as_str()), (None, None));
}
