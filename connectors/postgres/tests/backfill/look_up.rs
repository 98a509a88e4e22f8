//! Rows of given values.

use figvine_change::{ChunkReader, Found, LookUp, Sought, SourceError, SourceErrorKind, Transaction};
use figvine_postgres::PostgresReader;

use super::world::{DEADLINE, World, request, rows};

fn transaction(id: &str) -> Transaction {
    Transaction {
        id: id.into(),
        position: "".into(),
        sequence: "".into(),
        committed_at: 0,
        start: "".into(),
        end: None,
        origin: None,
        traceparent: None,
        is_ignored: false,
        file: None,
    }
}

fn of(table: &str, column: &str, values: &[&str]) -> LookUp {
    let sought = |raw: &&str| Sought { raw: raw.as_bytes().into(), json: "".into() };
    LookUp {
        schema: "public".into(),
        name: table.into(),
        column: column.into(),
        values: values.iter().map(sought).collect(),
        behind: vec![transaction("3")],
        bytes: 8 << 20,
    }
}

async fn found(reader: &mut PostgresReader, request: &LookUp) -> Result<Found, SourceError> {
    tokio::time::timeout(DEADLINE, reader.look_up(request)).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_values_come_by_their_key_as_a_chunk_has_them() {
    let world = World::start().await;
    world
        .run(
            "create table t(b int, a int, v bigint, n numeric(9,2), s text, primary key (a, b));
             insert into t select n % 3, n, n % 5, n / 4.0, 'x' || n from generate_series(20, 1, -1) n;
             update t set s = null where v = 2",
        )
        .await;
    let mut reader = world.reader().await;
    let chunk = reader.read(&request("public", "t", 100)).await.expect("a chunk");
    let all: Vec<String> =
        rows(&chunk.batch).into_iter().filter(|row| ["\"v\":1,", "\"v\":2,"].iter().any(|v| row.contains(v))).collect();
    for _ in 0..2 {
        let found = found(&mut reader, &of("t", "v", &["2", "77", "1"])).await.expect("rows");
        assert_eq!(rows(&found.batch), all);
        assert!(found.is_whole);
        assert!(found.read_at > chunk.read_at);
        assert!(found.batch.tables[0].has_shape_of(&chunk.batch.tables[0]));
    }
    assert_eq!(all.len(), 8);
    let none = found(&mut reader, &of("t", "v", &["99"])).await.expect("none");
    assert!(none.batch.changes.is_empty() && none.is_whole);
    let error = found(&mut reader, &of("t", "nothing", &["1"])).await.expect_err("no column");
    assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1609"));
    assert!(error.what.contains("nothing"), "{}", error.what);
    let error = found(&mut reader, &of("gone", "v", &["1"])).await.expect_err("no table");
    assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1601"));
}
