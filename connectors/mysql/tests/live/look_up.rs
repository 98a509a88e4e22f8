//! Rows of given values.

use figvine_change::{ChunkReader, Found, LookUp, Sought, SourceError, SourceErrorKind, Transaction};
use figvine_mysql::MysqlRows;

use super::harness::{World, chunk, of, reader, request};

fn transaction(id: &str, sequence: &str) -> Transaction {
    Transaction {
        id: id.into(),
        position: Box::default(),
        sequence: sequence.into(),
        committed_at: 0,
        start: Box::default(),
        end: None,
        origin: None,
        traceparent: None,
        is_ignored: false,
        file: None,
    }
}

fn sought(json: &str) -> Sought {
    Sought { raw: json.as_bytes().into(), json: json.into() }
}

fn values(table: &str, column: &str, values: &[&str]) -> LookUp {
    LookUp {
        schema: "shop".into(),
        name: table.into(),
        column: column.into(),
        values: values.iter().map(|json| sought(json)).collect(),
        behind: vec![transaction("", "")],
        bytes: 1 << 20,
    }
}

async fn found(reader: &mut MysqlRows, request: &LookUp) -> Result<Found, SourceError> {
    let soon = std::time::Duration::from_secs(60);
    tokio::time::timeout(soon, reader.look_up(request)).await.expect("in time")
}

/// The rows in words.
fn rows(found: &Found) -> Vec<String> {
    found.batch.changes.iter().map(|change| of(&found.batch, change).text).collect()
}

#[tokio::test]
async fn rows_of_values_come_by_their_key_as_a_chunk_has_them() {
    for world in [World::mysql(&[]).await, World::mariadb(&[]).await] {
        world
            .run(
                "create table t(b int, a int, v bigint, n decimal(9,2), s varchar(9), primary key (a, b));
                 insert into t values (2, 9, 1, 0.25, 'x'), (1, 9, 2, 7, null), (3, 1, 1, -1, 'y'), (0, 5, 3, 0, 'z')",
            )
            .await;
        let mut reader = reader(&world.connector).await;
        let all = super::harness::rows(&[chunk(&mut reader, &request("t", 9)).await.expect("reads")]);
        for _ in 0..2 {
            let found = found(&mut reader, &values("t", "v", &["2", "77", "1"])).await.expect("rows");
            assert_eq!(rows(&found), [&*all[0], &*all[2], &*all[3]]);
            assert!(found.is_whole && found.read_at > 0);
        }
        let none = found(&mut reader, &values("t", "v", &["99"])).await.expect("none");
        assert!(none.batch.changes.is_empty() && none.is_whole);
        let error = found(&mut reader, &values("t", "nothing", &["1"])).await.expect_err("no column");
        assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1609"));
        assert!(error.what.contains("nothing"), "{}", error.what);
        let error = found(&mut reader, &values("gone", "v", &["1"])).await.expect_err("no table");
        assert_eq!((error.kind, error.code), (SourceErrorKind::Invalid, "FV-1601"));
    }
}
