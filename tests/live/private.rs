//! Private data: what is hidden is nowhere to be found, stays joinable, repeats itself, and can be shredded.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_nats::jetstream;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use figvine_sandbox::{NatsOptions, PostgresOptions, wait_for};
use futures_util::TryStreamExt as _;
use serde_json::Value;

use super::backfill::{ask, reads, wait_state};
use super::harness::{
    Bridge, Event, LONG, SOON, STREAM, World, last_sequence, wait_growth, wait_last, wait_messages, wait_stored,
};

const CANARY: &str = "CANARY";

/// The section `private`, with rules that are given as lines of YAML flow.
fn rules(rules: &[&str]) -> String {
    let list: String = rules.iter().map(|rule| format!("        - {{ {rule} }}\n")).collect();
    format!("    private:\n      key: a secret of this test\n      columns:\n{list}")
}

/// Fails when a text holds the canary, as it is, in another case, or in base64.
fn must_not_sing(place: &str, text: &[u8]) {
    let mut forms: Vec<Vec<u8>> = vec![CANARY.into(), CANARY.to_lowercase().into()];
    for before in ["", "x", "xx"] {
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let encoded = engine.encode(format!("{before}{CANARY}"));
            // What hangs on the bytes around it is left out.
            forms.push(encoded.as_bytes()[if before.is_empty() { 0 } else { 4 }..encoded.len() - 2].to_vec());
        }
    }
    for form in forms {
        let at = text.windows(form.len()).position(|window| window == form);
        if let Some(at) = at {
            let shown = String::from_utf8_lossy(&text[at.saturating_sub(200)..(at + 200).min(text.len())]).into_owned();
            panic!("{place} tells {}: {shown}", String::from_utf8_lossy(&form));
        }
    }
}

/// All that JetStream holds: each message of each stream, KV buckets among them, as subject, headers and payload.
async fn everything(world: &World) -> Vec<(String, Vec<u8>)> {
    let context = world.jetstream().await;
    let mut found = Vec::new();
    let names: Vec<String> = context.stream_names().try_collect().await.expect("the streams' names");
    for name in names {
        let mut stream = context.get_stream(&name).await.expect("the stream");
        let state = stream.info().await.expect("its state").state.clone();
        for sequence in state.first_sequence..=state.last_sequence {
            // Between them some are gone.
            let Ok(message) = stream.get_raw_message(sequence).await else { continue };
            let head = format!("{} {:?}", message.subject, message.headers);
            found.push((format!("message {sequence} of {name}"), [head.as_bytes(), &message.payload].concat()));
        }
    }
    found
}

async fn get(port: u16, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_value_is_nowhere_to_be_found() {
    let nats = NatsOptions { config_extra: "max_payload: 65536\n".into(), ..NatsOptions::default() };
    let world = World::with(PostgresOptions::default(), nats).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    world.configure(&format!(
        "    initial: backfill\n    backfill: {{ chunk_time: 1ms }}\n    subject: \"cdc.{{source}}.{{schema}}.{{table}}.{{key}}\"\n{}",
        rules(&[
            "match: \"*.*.email\", hash: {}",
            "match: \"*.people.name\", tokenise: {}",
            "match: \"*.people.phone\", mask: { keep_last: 2 }",
            "match: \"*.people.born\", mask: {}",
            "match: \"*.*.password*\", drop: true",
            "match: \"*.people.address\", encrypt: { subject: email }",
            "match: \"*.files.*\", encrypt: { subject: owner }",
        ])
    ));
    let text = std::fs::read_to_string(world.config_path()).expect("the configuration");
    world.write_config(&text.replace("listen: off", &format!("listen: \"127.0.0.1:{port}\"")));
    world
        .run_sql(
            "create table people(email text primary key, name text, phone text, born text, password text, address jsonb, note text);
             create table files(id text, owner text, body bytea, primary key (id, owner));
             insert into people select 'CANARY' || n, 'CANARY', 'CANARY' || n, 'CANARY', 'CANARY', '\"CANARY\"', 'plain'
             from generate_series(1, 300) n;",
        )
        .await;
    world.drain().await;
    world.run_sql("insert into files values ('CANARY', 'CANARY', 'CANARY')").await;

    let bridge = Bridge::start(world.figvine(&["--log", "json", "-vv", "run"]), world.home.path());
    world
        .run_sql(
            "insert into people values ('CANARY@x', 'CANARY CANARY', 'CANARY', 'CANARY', 'CANARY', '{\"CANARY\": \"CANARY\"}', 'plain');
             update people set email = 'CANARY@y', address = '[\"CANARY\"]' where email = 'CANARY@x';
             update people set note = 'still plain' where email = 'CANARY@y';
             alter table people add password_hint text; update people set password_hint = 'CANARY' where email = 'CANARY@y';
             alter table people alter phone type varchar(40); update people set phone = 'CANARY-12' where email = 'CANARY@y';
             delete from people where email = 'CANARY@y';
             update files set body = 'CANARY CANARY'; delete from files",
        )
        .await;
    wait_stored(&world, &bridge, 300 + 1 + 2 + 1 + 1 + 2 + 1 + 2).await;
    ask(&world, &["start", "--tables", "public.people", "--from", "CANARY1", "--to", "CANARY3"]).await;
    let listed = wait_for("the second backfill's end", LONG, async || {
        let listed = ask(&world, &["list"]).await;
        let all = listed["backfills"].as_array().expect("a list").clone();
        (all.len() == 2 && all.iter().all(|one| one["state"] == "done")).then_some(listed)
    });
    let listed = listed.await.unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    let seen = [
        ("the list of backfills", listed.to_string()),
        ("metrics", get(port, "/metrics").await.expect("metrics")),
        ("status over HTTP", get(port, "/status").await.expect("a status")),
        ("status", world.finish(&["--output", "json", "status"]).await.stdout),
        (
            "the text of backfills",
            world.finish(&["backfill", "show", listed["backfills"][1]["id"].as_str().expect("an id")]).await.stdout,
        ),
    ];
    bridge.stop().await;

    // A dry run, and then an event that is too large: an error.
    world
        .run_sql(
            "insert into people values ('CANARY@z', 'CANARY', 'CANARY', 'CANARY', 'CANARY', '\"CANARY\"', 'plain')",
        )
        .await;
    let dry = world.finish(&["run", "--dry-run", "--until", "now"]).await;
    assert!(dry.stdout.contains("plain"), "{}", dry.stderr);
    world.run_sql("insert into people values ('CANARY', repeat('CANARY', 20000))").await;
    let large = world.finish(&["-vv", "run", "--until", "now"]).await;
    assert_eq!(large.code, Some(1), "{}", large.stderr);
    assert!(large.stderr.contains("max_payload"), "{}", large.stderr);
    let stopping = std::fs::read_to_string(world.config_path()).expect("the configuration");
    world.write_config(&stopping.replace("    initial: backfill", "    on_poison: park\n    initial: backfill"));
    world.drain().await;
    let listed = world.finish(&["--output", "json", "dlq", "list"]).await;
    let listed: Value = serde_json::from_str(&listed.stdout).expect("JSON");
    let number = listed["dead_letters"][0]["letter"].to_string();
    let letter = world.finish(&["dlq", "show", &number]).await;
    assert!(letter.stdout.contains("too_large"), "{}", letter.stderr);

    let events = world.events().await;
    let tail = world.finish(&["tail", "--since", "all", "--limit", &events.len().to_string(), "--json"]).await;
    assert!(tail.stdout.contains("still plain"), "{}", tail.stderr);
    let text = world.finish(&["tail", "--since", "all", "--limit", &events.len().to_string()]).await;
    for (place, text) in seen.into_iter().chain([
        ("the log", world.log()),
        ("a dry run", dry.stdout + &dry.stderr),
        ("an error", large.stdout + &large.stderr),
        ("a dead letter", letter.stdout + &letter.stderr),
        ("tail", tail.stdout + &tail.stderr),
        ("tail in text", text.stdout + &text.stderr),
    ]) {
        must_not_sing(place, text.as_bytes());
    }
    let everything = everything(&world).await;
    for place in
        ["FIGVINE_SHOP", "KV_FIGVINE_BACKFILLS", "KV_FIGVINE_CHECKPOINTS", "KV_FIGVINE_KEYS", "FIGVINE_SHOP_DEAD"]
    {
        assert!(everything.iter().any(|(name, _)| name.ends_with(place)), "{place} was looked at");
    }
    for (place, bytes) in &everything {
        must_not_sing(place, bytes);
    }
    assert!(reads(&events).iter().filter(|event| event.table() == "public.people").count() > 300);
    let shapes: Vec<&Event> = events.iter().filter(|event| event.op() == "schema_change").collect();
    assert!(shapes.iter().all(|event| !event.text().contains("password")), "{shapes:?}");
    assert!(shapes.iter().any(|event| event.text().contains("masked character varying(40)")), "{shapes:?}");
    let with_password = events.iter().filter(|event| event.text().contains("password")).count();
    assert_eq!(with_password, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hashes_and_tokens_join_across_tables_types_and_ways() {
    let world = World::start().await;
    world.configure(&format!(
        "    initial: backfill\n{}",
        rules(&["match: \"*.*.*id\", hash: {}", "match: \"*.*.iban\", tokenise: {}"])
    ));
    world
        .run_sql(
            "create table people(id int primary key, iban text); create table orders(n int primary key, person_id text, iban text);
             insert into people values (42, 'DE02 1203 0000 0000 2020 51')",
        )
        .await;
    world.drain().await;
    world
        .run_sql(
            "update people set iban = iban;
             insert into orders values (1, '42', 'DE02 1203 0000 0000 2020 51'), (2, '43', null)",
        )
        .await;
    world.drain().await;
    let events = world.events().await;
    let after = |at: usize, column: &str| events[at].body["after"][column].clone();
    assert_eq!(events[0].op(), "read");
    for (table, column) in [(1, "id"), (2, "person_id")] {
        assert_eq!(after(table, column), after(0, "id"));
    }
    assert_eq!(after(0, "id").as_str().map(str::len), Some(64));
    assert_ne!(after(3, "person_id"), after(0, "id"));
    let token = after(0, "iban").as_str().expect("a token").to_owned();
    assert_eq!([after(1, "iban"), after(2, "iban")], [Value::from(token.clone()), Value::from(token.clone())]);
    assert!(token.len() == 27 && token.as_bytes()[4] == b' ' && token != "DE02 1203 0000 0000 2020 51", "{token}");
    assert_eq!(after(3, "iban"), Value::Null);
    // The key is the hash, everywhere.
    assert_eq!(events[0].header("ce-subject"), events[0].body["key"]["id"]);
    assert_eq!(events[0].subject, events[1].subject);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_rule_is_not_published_where_columns_are_denied() {
    let world = World::start().await;
    world.run_sql("create table t(id int primary key, a text, b text)").await;
    world.configure("    private: { default: deny, columns: [{ match: \"*.t.a\", publish: true }] }\n");
    world.run_sql("insert into t values (0, 'x', 'CANARY')").await;
    // The slot is made first; the row behind it is refused.
    world.drain().await;
    world.run_sql("insert into t values (1, 'x', 'CANARY')").await;
    let refused = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    for words in ["column id of table public.t belongs to its key", "FV-3104", "what to do"] {
        assert!(refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    assert!(world.events().await.is_empty());
    world.configure("    private: { default: deny, columns: [{ match: \"*.t.[ai]*\", publish: true }] }\n");
    world.drain().await;
    world.run_sql("alter table t add c text; insert into t values (2, 'y', 'CANARY', 'CANARY')").await;
    world.drain().await;
    let events = world.events().await;
    assert_eq!(events.len(), 2, "a column that is not published is no change of shape: {events:?}");
    let columns: BTreeSet<&String> = events[1].body["after"].as_object().expect("a row").keys().collect();
    assert_eq!(columns, BTreeSet::from([&"a".to_owned(), &"id".to_owned()]));
    assert!(everything(&world).await.iter().all(|(_, bytes)| !String::from_utf8_lossy(bytes).contains(CANARY)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_by_a_hidden_key_goes_on_where_it_was_killed() {
    let world = World::start().await;
    world.configure(&format!(
        "    initial: backfill\n    backfill: {{ chunk_time: 1ms, rate: 2000 }}\n{}",
        rules(&["match: \"*.people.email\", hash: {}"])
    ));
    world
        .run_sql("create table people(email text primary key, n int); insert into people select 'CANARY' || n, n from generate_series(1, 3000) n")
        .await;
    for stored in [300, 900, 1700] {
        let mut bridge = world.bridge();
        wait_for("the stream", SOON, async || last_sequence(&world).await).await.expect("the stream");
        wait_last(&world, &mut bridge, stored).await;
        bridge.kill9();
    }
    let bridge = world.bridge();
    wait_messages(&world, 3000).await;
    wait_state(&world, None, "done").await;
    bridge.stop().await;
    let events = world.events().await;
    let rows: BTreeSet<i64> = reads(&events).iter().filter_map(|event| event.body["after"]["n"].as_i64()).collect();
    assert_eq!((events.len(), rows.len()), (3000, 3000));
    for (place, bytes) in everything(&world).await {
        must_not_sing(&place, &bytes);
    }
}

const ENCRYPTED: &[&str] = &["match: \"*.people.address\", encrypt: { subject: id, kind: person }"];

/// `after.address` of all events by `after.id`.
fn addresses(events: &[Event]) -> BTreeMap<i64, BTreeSet<String>> {
    let mut found: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for after in events.iter().map(|event| &event.body["after"]).filter(|after| after.is_object()) {
        let address = after["address"].to_string();
        found.entry(after["id"].as_i64().expect("an id")).or_default().insert(address);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_values_are_the_same_bytes_across_kills_and_replays() {
    let world = World::start().await;
    world.configure(&format!("    release_delay: 1h\n    stream: {{ on_stream_loss: reread }}\n{}", rules(ENCRYPTED)));
    world.run_sql("create table people(id int primary key, address text, n int)").await;
    world.drain().await;
    let shown = world.finish(&["--output", "json", "position", "show"]).await.stdout;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let beginning = shown["positions"][0]["kept_position"].as_str().expect("a position").to_owned();
    for round in 0..4 {
        let mut bridge = world.bridge();
        let sql = world.sql().await;
        sql.batch_execute(&format!(
            "insert into people select {round} * 1000 + n, 'street ' || n, 0 from generate_series(1, 500) n;
             update people set n = n + 1"
        ))
        .await
        .expect("writes");
        wait_growth(&world, &mut bridge, 200 + 300 * round).await;
        bridge.kill9();
    }
    world.drain().await;
    let once = world.events().await;
    assert_eq!(once.len(), (500 + 500) + (500 + 1000) + (500 + 1500) + (500 + 2000));
    let told = addresses(&once);
    assert_eq!(told.len(), 2000);
    for (id, address) in &told {
        assert_eq!(address.len(), 1, "{id} has one address: {address:?}");
    }
    let sealed: BTreeSet<&String> = told.values().flatten().collect();
    assert_eq!(sealed.len(), 2000, "each under a key of its own");
    assert!(sealed.iter().all(|address| address.starts_with("\"fv1:")));

    // The same once more, by another session.
    let back = world.finish(&["position", "set", "--source", "shop", &beginning, "--force"]).await;
    assert_eq!(back.code, Some(0), "{}", back.stderr);
    let context = world.jetstream().await;
    let stream = context.get_stream(STREAM).await.expect("the stream");
    stream.purge().await.expect("purges");
    world.drain().await;
    let twice = world.events().await;
    assert_eq!(twice.len(), once.len());
    for (one, other) in once.iter().zip(&twice) {
        assert_eq!(one.text(), other.text());
    }
}

async fn shred(world: &World, id: &str) -> Value {
    let finished = world.finish(&["--output", "json", "shred", "--kind", "person", id]).await;
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let shredded: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    shredded["shredded"][0].clone()
}

/// The entries of a subject in the bucket of keys, gone ones left out.
async fn entries(context: &jetstream::Context, subject: &str) -> Vec<Value> {
    let mut stream = context.get_stream("KV_FIGVINE_KEYS").await.expect("the bucket");
    let state = stream.info().await.expect("its state").state.clone();
    let mut found = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let Ok(message) = stream.get_raw_message(sequence).await else { continue };
        if message.subject.ends_with(subject) {
            found.push(serde_json::from_slice(&message.payload).expect("JSON"));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shredded_subject_cannot_be_read_any_more_and_gets_no_other_key() {
    let world = World::start().await;
    world.configure(&rules(ENCRYPTED));
    world.run_sql("create table people(id int primary key, address text, n int)").await;
    world.drain().await;
    let bridge = world.bridge();
    world.run_sql("insert into people values (1, 'first \"street\"', 0), (2, null, 0), (3, 'third street', 0)").await;
    wait_stored(&world, &bridge, 3).await;
    let events = world.events().await;
    let address = |at: usize| events[at].body["after"]["address"].as_str().expect("an address").to_owned();
    assert_eq!(events[1].body["after"]["address"], Value::Null);
    let opened = world.finish(&["unseal", &address(0), &address(2)]).await;
    assert_eq!((opened.code, opened.stdout.as_str()), (Some(0), "\"first \\\"street\\\"\"\n\"third street\"\n"));

    let shredded = shred(&world, "1").await;
    assert_eq!(shredded["outcome"], "shredded");
    let subject = shredded["subject"].as_str().expect("a subject").to_owned();
    assert!(address(0).starts_with(&format!("fv1:{subject}:")), "{subject}");
    let left = entries(&world.jetstream().await, &subject).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0]["key"].is_null() && left[0]["shredded_at"].is_string(), "{left:?}");
    let closed = world.finish(&["unseal", &address(0)]).await;
    assert_eq!((closed.code, closed.stdout.as_str()), (Some(1), ""), "{}", closed.stderr);

    // The running bridge held the key: it forgets it.
    wait_for("a later value to be null", SOON, async || {
        world.run_sql("update people set n = n + 1 where id = 1").await;
        let told = world.events().await;
        let last = told.iter().rev().find(|event| event.body["key"]["id"] == 1 && event.op() == "update")?;
        last.body["after"]["address"].is_null().then_some(())
    })
    .await
    .unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    // And nothing of the others.
    world.run_sql("update people set n = 100 where id = 3").await;
    wait_for("the other's update", SOON, async || {
        let told = world.events().await;
        told.iter().any(|event| event.body["after"]["n"] == 100).then_some(())
    })
    .await
    .expect("it comes");
    bridge.stop().await;

    // Nor does a later run make another key; one who had none gets none either.
    assert_eq!(shred(&world, "1").await["outcome"], "before");
    assert_eq!(shred(&world, "4").await["outcome"], "no_key");
    world.run_sql("update people set n = -1; insert into people values (4, 'fourth street', -1)").await;
    world.drain().await;
    let mut last: HashMap<i64, Value> = HashMap::new();
    let events = world.events().await;
    for after in events.iter().map(|event| &event.body["after"]) {
        last.insert(after["id"].as_i64().expect("an id"), after["address"].clone());
    }
    assert_eq!((&last[&1], &last[&2], &last[&4]), (&Value::Null, &Value::Null, &Value::Null));
    assert_eq!(last[&3], address(2));
    // A whole stream may be opened on its way.
    let tail = world.finish(&["tail", "--since", "all", "--limit", &events.len().to_string(), "--json"]).await;
    let file = world.home.path().join("tail.json");
    std::fs::write(&file, &tail.stdout).expect("writes");
    let mut command = world.figvine(&["unseal"]);
    command.stdin(std::fs::File::open(&file).expect("opens"));
    let opened = super::harness::finish(command).await;
    assert_eq!(opened.code, Some(0), "{}", opened.stderr);
    assert_eq!(opened.stdout.lines().count(), events.len());
    assert_eq!(opened.stdout.matches("\"address\":\"third street\"").count(), 3, "{}", opened.stdout);
    assert!(opened.stdout.contains(&address(0)) && !opened.stdout.contains("first"), "{}", opened.stdout);

    let wrong = world.finish(&["shred", "1"]).await;
    assert_eq!(wrong.code, Some(2), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("person"), "{}", wrong.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_is_refused_before_a_shredded_subject_gets_a_second_life() {
    let world = World::start().await;
    world.configure(&rules(ENCRYPTED));
    world.run_sql("create table people(id int primary key, address text)").await;
    world.drain().await;
    assert_eq!(shred(&world, "1").await["outcome"], "no_key");
    let text = std::fs::read_to_string(world.config_path()).expect("the configuration");
    world.write_config(&text.replace("a secret of this test", "another secret of this test"));
    world.run_sql("insert into people values (1, 'CANARY')").await;
    for command in [&["run", "--until", "now"][..], &["shred", "--kind", "person", "1"], &["unseal", "fv1:x:y"]] {
        let refused = world.finish(command).await;
        assert_eq!(refused.code, Some(3), "{command:?}: {}", refused.stderr);
        assert!(
            refused.stderr.contains("private.key") && !refused.stderr.contains("of this test"),
            "{}",
            refused.stderr
        );
    }
    assert!(world.events().await.is_empty());
    world.write_config(&text);
    world.drain().await;
    assert_eq!(world.events().await[0].body["after"]["address"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_rules_without_columns_and_keys_that_would_go() {
    let world = World::start().await;
    world.run_sql("create table people(id int primary key, email text); create table u(id int primary key)").await;
    world.configure(&rules(&["match: \"*.*.mail\", hash: {}", "match: \"*.people.id\", mask: {}"]));
    let checked = world.finish(&["check"]).await;
    assert_eq!(checked.code, Some(4), "{}", checked.stdout);
    for words in [
        "the glob '*.*.mail' means no column of a captured table",
        "column id of table public.people belongs to its key and cannot be masked",
    ] {
        assert!(checked.stdout.contains(words), "{words}: {}", checked.stdout);
    }
    world.configure(&rules(&["match: \"*.*.email\", hash: {}"]));
    let checked = world.finish(&["check"]).await;
    assert!(
        checked.stdout.contains("every rule means a column; of all columns 1 hashed, 2 published"),
        "{}",
        checked.stdout
    );
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);
}
