//! `format: debezium` beside Debezium itself: the same workload, the same events.

use super::world::{Kind, World};
use crate::golden::How::{Json, Ours, Single};
use crate::golden::{Differs, Excepted, How, compare, lines, ours, section, text};

const ENGINE: &str = "mysql";

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
    Differs { field: "server_id", reason: "another server", ours: |ours| ours.is_u64() },
    Differs {
        field: "gtid",
        reason: "another server",
        ours: |ours| ours.is_null() || ours.as_str().is_some_and(|gtid| gtid.len() > 37),
    },
    Differs {
        field: "file",
        reason: "another server, and of existing rows the place of Debezium's snapshot",
        ours: |ours| ours.as_str().is_some_and(|file| file.is_empty() || file.starts_with("binlog.")),
    },
    Differs {
        field: "pos",
        reason: "another server; Debezium's is that of the record of rows, ours that of the transaction",
        ours: |ours| ours.is_u64(),
    },
    Differs {
        field: "row",
        reason: "Debezium counts the rows of a record, we those of the transaction",
        ours: |ours| ours.is_u64(),
    },
    Differs {
        field: "thread",
        reason: "the connection that wrote, which the record of rows does not tell",
        ours: |ours| ours.is_null(),
    },
];

const SINGLE: &str = "the shortest digits differ from those of older versions of Java";
const TWO_DIGITS: &str = "Debezium takes a small year for one of two digits";

const fn excepted(table: &'static str, column: &'static str, reason: &'static str, how: How) -> Excepted {
    Excepted { table, side: "", column, reason, how }
}

/// As `select` shows it.
const TYPED: &str = r#""{\"b\":\"base64:type15:eA==\",\"d\":\"2026-11-23\",\"n\":1.10,\"t\":\"10:00:00.500000\",\"dt\":\"2026-11-23 09:00:00.500000\"}""#;

const EXCEPTED: &[Excepted] = &[
    excepted("floats", "f", SINGLE, Single),
    excepted(
        "floats",
        "f2",
        "the log does not tell the digits of FLOAT(7,3), which Debezium takes for a double",
        Single,
    ),
    excepted("choices", "e", "Debezium escapes the comma of a label", Ours(&["\"a\"", "\"b,c\"", "\"\"", "\"ä\""])),
    excepted("documents", "j", "numbers are laid out in another way", Json),
    excepted("typed", "j", "what is no type of JSON has the server's own text", Ours(&[TYPED])),
    excepted("moments", "d", TWO_DIGITS, Ours(&["-719162", "\"0001-01-01Z\""])),
    excepted("moments", "y", "Debezium takes the year 0 for 1900", Ours(&["0"])),
];

async fn variant(name: &str) {
    let world = World::start(Kind::MySql).await;
    let more = section(ENGINE, name);
    world.configure_more(&format!("    initial: backfill\n{more}"));
    world.run(&text(ENGINE, "before.sql")).await;
    world.drain().await;
    world.run(&text(ENGINE, "workload.sql")).await;
    world.drain().await;
    compare(lines(ENGINE, name), ours(&world.events().await), DIFFERS, EXCEPTED);
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
