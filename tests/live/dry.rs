//! A dry run, messages too large, and what a running bridge tells over HTTP and in its log.

use super::harness::{Event, SOON, STREAM, World, wait_stored};
use figvine_sandbox::{NatsOptions, PostgresOptions, wait_for};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_what_would_be_published_and_stores_and_releases_nothing() {
    let world = World::start().await;
    world.run_sql("create table t(id int primary key, v text)").await;
    let first = world.finish(&["run", "--dry-run", "--until", "now"]).await;
    assert_eq!((first.code, first.stdout.as_str()), (Some(0), ""), "{}", first.stderr);
    assert_eq!(world.confirmed().await, None, "no slot is left");
    assert!(world.jetstream().await.get_stream(STREAM).await.is_err(), "no stream is made");
    assert_eq!(publications(&world).await.len(), 0, "no publication is left");

    world.drain().await;
    let before = world.confirmed().await;
    world.run_sql("insert into t values (1, 'x'); update t set v = 'y'").await;
    for _ in 0..2 {
        let text = world.finish(&["run", "--dry-run", "--until", "now"]).await;
        assert_eq!(text.code, Some(0), "{}", text.stderr);
        let lines: Vec<&str> = text.stdout.lines().collect();
        assert_eq!(lines.len(), 2, "{}", text.stdout);
        assert!(lines[0].starts_with("cdc.shop.public.t.") && lines[0].contains(r#"{"op":"insert","key":{"id":1}"#));
    }
    let json = world.finish(&["--output", "json", "run", "--dry-run", "--until", "now"]).await;
    let lines: Vec<Value> =
        json.stdout.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert!(lines.iter().all(|line| line["schema_version"] == 1), "{}", json.stdout);
    assert_eq!(lines[1]["data"]["after"]["v"], "y");
    assert_eq!(world.confirmed().await, before, "the slot stands where it stood");
    assert!(world.events().await.is_empty());
    world.drain().await;
    assert_eq!(world.events().await.len(), 2);
}

/// Each table of each publication, with its row filter.
async fn publications(world: &World) -> Vec<String> {
    let query = "select concat_ws(' ', p.pubname, t.tablename, t.rowfilter, p.pubtruncate, p.pubviaroot)
                 from pg_publication p left join pg_publication_tables t on t.pubname = p.pubname order by 1";
    world.sql().await.query(query, &[]).await.expect("publications").iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_leaves_a_publication_as_it_is_though_the_configuration_means_other_tables() {
    let world = World::start().await;
    world.run_sql("create table t(id int primary key); create table u(id int primary key)").await;
    world.drain().await;
    world
        .run_sql(
            "alter publication figvine_shop set (publish = 'insert'); create table late(id int primary key);
             alter publication figvine_shop drop table u; insert into t values (1); insert into late values (1)",
        )
        .await;
    let (before, place) = (publications(&world).await, world.confirmed().await);
    let looked = world.finish(&["run", "--dry-run", "--until", "now"]).await;
    assert_eq!(looked.code, Some(0), "{}", looked.stderr);
    assert_eq!(looked.stdout.lines().count(), 1, "{}", looked.stdout);
    assert_eq!(publications(&world).await, before);
    assert_eq!(world.confirmed().await, place);
    world.drain().await;
    assert_ne!(publications(&world).await, before, "a run that is none brings it up to the configuration");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_larger_than_a_message_stops_the_source_and_loses_nothing() {
    let nats = NatsOptions { config_extra: "max_payload: 65536\n".into(), ..NatsOptions::default() };
    let world = World::with(PostgresOptions::default(), nats).await;
    world.run_sql("create table t(id int primary key, v text)").await;
    world.drain().await;
    // How much of a message is not the value; the same for all rows but for the digits of places and times.
    world.run_sql("insert into t values (1, repeat('x', 60000))").await;
    world.drain().await;
    let event = world.events().await.remove(0);
    let size = |event: &Event| {
        let headers: usize = event.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        headers + "NATS/1.0\r\n\r\n".len() + event.payload.len()
    };
    let room = 65536 - (size(&event) - 60000);
    for size in (room - 640..=room).step_by(80) {
        world.run_sql(&format!("insert into t values ({}, repeat('y', {size}))", 100 + size)).await;
    }
    // Numbers in the headers may differ by some digits: the limit is somewhere among these.
    let mut stored = world.finish(&["run", "--until", "now"]).await;
    if stored.code == Some(1) {
        assert!(stored.stderr.contains("max_payload"), "{}", stored.stderr);
    }
    let largest = world.events().await.iter().map(size).max();
    assert!(largest.is_some_and(|size| (65536 - 640..=65536).contains(&size)), "{largest:?}");
    let confirmed = world.confirmed().await;
    world.run_sql("insert into t values (2, repeat('CANARY', 20000)); insert into t values (3, 'small')").await;
    for _ in 0..2 {
        stored = world.finish(&["run", "--until", "now"]).await;
        assert_eq!(stored.code, Some(1), "{}", stored.stderr);
        for words in ["public.t", "max_payload"] {
            assert!(stored.stderr.contains(words), "{words}: {}", stored.stderr);
        }
        assert!(!stored.stderr.contains("CANARY"));
    }
    assert!(world.confirmed().await >= confirmed);
    assert!(world.events().await.iter().all(|e| e.body["key"]["id"] != 3), "nothing passes what does not fit");
    let config = world.nats.dir().join("nats.conf");
    let text = std::fs::read_to_string(&config).expect("its configuration");
    std::fs::write(&config, text.replace("65536", "1048576")).expect("writes it");
    reload_nats(&world).await;
    world.drain().await;
    let ids: Vec<_> = world.events().await.iter().filter_map(|e| e.body["key"]["id"].as_i64()).collect();
    assert_eq!(ids.len(), 1 + 9 + 2, "{ids:?}");
    assert_eq!(ids[10..], [2, 3]);
}

/// Makes the server take its configuration up anew; `max_payload` is one of what it takes up while it runs.
async fn reload_nats(world: &World) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(world.nats.pid().expect("it runs")).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).expect("signals");
    wait_for("the new limit", SOON, async || {
        let client = async_nats::connect(world.nats.url()).await.ok()?;
        (client.server_info().max_payload == 1_048_576).then_some(())
    })
    .await
    .expect("the limit is raised");
}

/// Status and body of a GET.
async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_status_and_logs_tell_of_events_and_never_of_their_values() {
    let world = World::start().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let url = world.postgres.url("postgres");
    world.write_config(&format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: \"127.0.0.1:{port}\" }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\" }}\n    tables: [\"public.*\"]\n",
        world.nats.url()
    ));
    world.run_sql("create table t(id text primary key, v text)").await;
    let bridge = super::harness::Bridge::start(world.figvine(&["--log", "json", "-vv", "run"]), world.home.path());
    wait_for("readiness", SOON, async || get(port, "/readyz").await.filter(|(status, _)| *status == 200))
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    world.run_sql("insert into t values ('CANARY-1', 'CANARY-2'), ('x', 'CANARY-3'); update t set v = 'CANARY-4'; delete from t").await;
    wait_stored(&world, &bridge, 6).await;
    assert_eq!(get(port, "/livez").await, Some((200, "ok\n".into())));
    let metrics = wait_for("the counts", SOON, async || {
        let (_, text) = get(port, "/metrics").await?;
        text.contains("figvine_changes_read_total").then_some(text)
    })
    .await
    .expect("metrics");
    for line in [
        "figvine_changes_read_total{source=\"shop\",table=\"public.t\",op=\"insert\"} 2",
        "figvine_changes_read_total{source=\"shop\",table=\"public.t\",op=\"delete\"} 2",
        "figvine_events_published_total{source=\"shop\",type=\"shop.public.t.updated\"} 2",
        "figvine_source_connected{source=\"shop\"} 1",
    ] {
        let sorted = |line: &str| {
            let mut parts: Vec<String> = line.split(['{', '}', ',', ' ']).map(str::to_owned).collect();
            parts.sort();
            parts
        };
        assert!(metrics.lines().any(|l| sorted(l) == sorted(line)), "{line}\n{metrics}");
    }
    let (_, status) = get(port, "/status").await.expect("a status");
    let parsed: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!((&parsed["schema_version"], &parsed["sources"][0]["source"]), (&Value::from(1), &Value::from("shop")));
    assert_eq!(parsed["sources"][0]["phase"], "streaming", "{status}");

    // A row that has no event makes the bridge say why.
    world.nats.kill9();
    world.run_sql("insert into t values ('CANARY-5', 'CANARY-6')").await;
    let (_, away) = wait_for("unreadiness", SOON, async || get(port, "/readyz").await.filter(|(code, _)| *code == 503))
        .await
        .unwrap_or_else(|e| panic!("{e}\n{}", bridge.log()));
    assert_eq!(get(port, "/livez").await.map(|(code, _)| code), Some(200));
    world.nats.restart().await.expect("NATS");
    wait_stored(&world, &bridge, 7).await;
    let (_, later) = get(port, "/metrics").await.expect("metrics");
    let log = bridge.log();
    bridge.stop().await;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line.is_object());
    }
    for (what, text) in
        [("log", &log), ("metrics", &metrics), ("metrics", &later), ("status", &status), ("readyz", &away)]
    {
        assert!(!text.contains("CANARY"), "the {what} holds a value");
    }
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free again");
    let refused = world.finish(&["run", "--until", "now"]).await;
    drop(taken);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("http.listen"), "{}", refused.stderr);
}
