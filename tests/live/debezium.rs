//! `format: debezium` beside Debezium itself: the same workload, the same events.

use super::golden::How::{Json, Ours, Single};
use super::golden::{Differs, Excepted, compare, lines, ours, section, text};
use super::harness::{STREAM, World, events, wait_last};

const ENGINE: &str = "postgres";

/// What is another in the block `source`, and why.
const DIFFERS: &[Differs] = &[
    Differs {
        field: "version",
        reason: "Debezium's own, or ours",
        ours: |ours| ours.as_str() == Some(env!("CARGO_PKG_VERSION")),
    },
    Differs {
        field: "snapshot",
        reason: "the place in Debezium's snapshot; ours goes on beside the stream, which Debezium calls incremental",
        ours: |ours| ours.is_null() || ours == "incremental",
    },
    Differs {
        field: "lsn",
        reason: "another run of a server; Debezium's is the row's, ours is that of the transaction's commit",
        ours: |ours| ours.as_u64().is_some_and(|lsn| lsn > 0),
    },
    Differs {
        field: "sequence",
        reason: "the same place, behind that of the last commit, which is another after a restart",
        ours: |ours| ours.as_str().is_some_and(|ours| ours.starts_with("[null,\"") && ours.ends_with("\"]")),
    },
    Differs {
        field: "txId",
        reason: "another run of a server; of existing rows Debezium has that of its snapshot",
        ours: |ours| ours.is_null() || ours.is_u64(),
    },
];

const SKIPPED: &str = "Debezium leaves arrays of this type out, or empties them";
const INVENTED: &str = "the log does not have it, and Debezium shows the column's default, or an empty value";

const POINT: &str = r#"[{"x":1.0,"y":2.0,"wkb":"AQEAAAAAAAAAAADwPwAAAAAAAABA","srid":null}]"#;

const EXCEPTED: &[Excepted] = &[
    excepted("floats", "f4", "the shortest digits differ from those of older versions of Java", Single),
    excepted("documents", "h", "a map in Java has another order", Json),
    excepted("composites", "o", SKIPPED, Ours(&["\"MSAyIDM=\"", "\"3120322033\""])),
    excepted("lists", "iv", SKIPPED, Ours(&["[86400000000]", "[\"P0Y0M1DT0H0M0S\"]"])),
    excepted("lists", "m", SKIPPED, Ours(&["[\"AJY=\"]", "[\"1.50\"]", "[1.5]"])),
    excepted("lists", "vb", SKIPPED, Ours(&["[\"Aw==\",\"AQ==\"]"])),
    excepted("lists", "b1", SKIPPED, Ours(&["[true,false]"])),
    excepted("lists", "b3", SKIPPED, Ours(&["[\"BQ==\"]"])),
    excepted("lists", "p", SKIPPED, Ours(&[POINT])),
    excepted("lists", "n", SKIPPED, Ours(&["[\"n\"]"])),
    excepted("lists", "x", SKIPPED, Ours(&["[\"<a/>\"]"])),
    excepted(
        "stored",
        "u",
        "Debezium shows a UUID made of the placeholder",
        Ours(&["[\"__debezium_unavailable_value\"]", "[\"__gone\"]"]),
    ),
    Excepted { side: "before", ..excepted("orders", "customer", INVENTED, Ours(&["null"])) },
    Excepted { side: "before", ..excepted("orders", "n", INVENTED, Ours(&["null"])) },
];

const fn excepted(
    table: &'static str,
    column: &'static str,
    reason: &'static str,
    how: super::golden::How,
) -> Excepted {
    Excepted { table, side: "", column, reason, how }
}

async fn variant(name: &str) {
    let world = World::start().await;
    world.run_sql("create database shop").await;
    let (nats, url) = (world.nats.url(), world.postgres.url("shop"));
    world.write_config(&format!(
        "nats: {{ url: \"{nats}\" }}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{url}\", messages: [\"*\"] }}\n    tables: [\"public.*\"]\n    initial: backfill\n{}",
        section(ENGINE, name)
    ));
    let client = world.postgres.connect("shop").await.expect("connects");
    client.batch_execute(&text(ENGINE, "before.sql")).await.expect("before.sql");
    world.drain().await;
    for statement in text(ENGINE, "workload.sql").split(";\n") {
        client.batch_execute(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    world.drain().await;
    let events = events(&world.jetstream().await, STREAM).await;
    compare(lines(ENGINE, name), ours(&events), DIFFERS, EXCEPTED);
    // Where Debezium shows null for what the log did not carry, a header tells it from null.
    let unchanged = events.iter().filter(|event| event.headers.contains_key("Figvine-Unchanged"));
    let unchanged: Vec<_> = unchanged.map(|event| event.header("Figvine-Unchanged")).collect();
    let toasted = r#"["t","b","j","ta","ia","h","d"]"#;
    let stored = r#"["v","i2","i8","nd","f8","b","u","d","ts","tstz","e","x","c","ci","vb","ba","ja"]"#;
    assert_eq!(unchanged, [toasted, toasted, &toasted.replace("\"t\",", ""), stored]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_debeziums_as_it_comes() {
    variant("default").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_debeziums_with_strings() {
    variant("strings").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_debeziums_with_doubles_and_milliseconds() {
    variant("doubles").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_debeziums_with_microseconds() {
    variant("micros").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_delete_has_one_tombstone_right_behind_it_whenever_the_bridge_is_killed() {
    const ROWS: u64 = 20_000;
    let world = World::start().await;
    world.configure("    format: debezium\n    debezium: { tombstones.on.delete: true }\n");
    world.run_sql("create table t(id int primary key)").await;
    world.drain().await;
    // One transaction: each restart goes on inside of it.
    let sql = format!("begin; insert into t select generate_series(1, {ROWS}); delete from t; commit");
    world.run_sql(&sql).await;
    for part in 1..4 {
        let mut bridge = world.bridge();
        wait_last(&world, &mut bridge, ROWS + ROWS / 2 * part).await;
        bridge.kill9();
    }
    world.drain().await;
    let lines = ours(&events(&world.jetstream().await, STREAM).await);
    assert_eq!(lines.len() as u64, 3 * ROWS);
    for (at, pair) in lines.chunks_exact(2).skip(lines.len() / 6).enumerate() {
        assert_eq!(pair[0].value.as_ref().expect("a delete")["op"], "d", "{at}");
        assert_eq!((&pair[1].key, &pair[1].value), (&pair[0].key, &None), "{at}");
        assert_eq!(pair[0].key["id"], at as u64 + 1);
    }
}
