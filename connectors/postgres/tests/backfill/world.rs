//! A server with a source that is open, and what tests ask of both.

use std::future::Future;
use std::time::{Duration, Instant};

use figvine_change::{
    Batch, Body, Cell, Chunk, ChunkReader, ChunkRequest, Connector, Cursor, Durable, Row, Source, SourceError,
};
use figvine_postgres::config::{Config, Keyless, ValueOptions};
use figvine_postgres::{Postgres, PostgresReader, PostgresSource};
use figvine_sandbox::PostgresOptions;
use tokio_postgres::Client;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) server: figvine_sandbox::Postgres,
    pub(crate) client: Client,
}

pub(crate) fn config(url: String) -> Config {
    Config {
        source: "shop".into(),
        url: url.into(),
        tables: vec!["public.*".into(), "odd*.*".into()],
        slot: "figvine_shop".into(),
        slot_is_passing: false,
        publication: "figvine_shop".into(),
        publication_managed: true,
        via_partition_root: false,
        keyless: Keyless::WholeRow,
        messages: Vec::new(),
        trace_message: None,
        ignore_messages: Vec::new(),
        heartbeat: None,
        lock_timeout: Duration::from_secs(10),
        values: ValueOptions::default(),
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let options = PostgresOptions { settings, ..PostgresOptions::default() };
        let server = figvine_sandbox::Postgres::start(options).await.expect("PostgreSQL");
        let client = server.connect("postgres").await.expect("connects");
        Self { server, client }
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    pub(crate) async fn text(&self, sql: &str) -> String {
        self.client.query_one(sql, &[]).await.unwrap_or_else(|e| panic!("{sql}: {e:?}")).get(0)
    }

    pub(crate) fn config(&self) -> Config {
        config(self.server.url("postgres"))
    }

    pub(crate) fn connector(&self) -> Postgres {
        Postgres::new(self.config()).expect("a configuration")
    }

    /// The source, from now on.
    pub(crate) async fn open(&self) -> (Postgres, PostgresSource) {
        let connector = self.connector();
        let source = connector.open(None, Durable::channel().1).await.expect("opens");
        (connector, source)
    }

    /// The publication, and a reader.
    pub(crate) async fn reader(&self) -> PostgresReader {
        let (connector, source) = self.open().await;
        source.close().await;
        connector.reader().await.expect("a reader")
    }
}

pub(crate) fn request(schema: &str, name: &str, rows: u32) -> ChunkRequest {
    ChunkRequest {
        schema: schema.into(),
        name: name.into(),
        condition: None,
        after: None,
        upto: None,
        rows,
        bytes: 8 << 20,
    }
}

/// The rows of a chunk as JSON objects, columns in order.
pub(crate) fn rows(batch: &Batch) -> Vec<String> {
    let row = |change: &figvine_change::Change| match &change.body {
        Body::Row(row) => row.after.map(|after| json(batch, row.table, after)),
        _ => None,
    };
    batch.changes.iter().filter_map(row).collect()
}

pub(crate) fn json(batch: &Batch, table: u32, row: Row) -> String {
    let table = batch.table(table).expect("a table");
    assert_eq!(table.columns.len(), batch.row(row).len());
    let mut out = b"{".to_vec();
    for (column, cell) in table.columns.iter().zip(batch.row(row)) {
        if out.len() > 1 {
            out.push(b',');
        }
        figvine_change::json::write_str(&column.name, &mut out);
        out.push(b':');
        match cell {
            Cell::Null => out.extend_from_slice(b"null"),
            Cell::Unchanged => out.extend_from_slice(b"unchanged"),
            Cell::Value(range) => column.codec.write_json(batch.bytes(range), &mut out).expect("a value"),
        }
    }
    out.push(b'}');
    String::from_utf8(out).expect("UTF-8")
}

pub(crate) fn last(chunk: &Chunk) -> Option<Cursor> {
    let range = chunk.cursors.last()?;
    let text = std::str::from_utf8(chunk.batch.bytes(range)).expect("ASCII");
    Some(Cursor::parse(text).expect("a cursor"))
}

/// All rows of a table, chunk by chunk.
pub(crate) async fn all(reader: &mut PostgresReader, mut request: ChunkRequest) -> Result<Vec<String>, SourceError> {
    let mut found = Vec::new();
    loop {
        let chunk = reader.read(&request).await?;
        assert_eq!(chunk.batch.changes.len(), chunk.cursors.len());
        assert!(chunk.batch.changes.len() <= request.rows as usize);
        found.extend(rows(&chunk.batch));
        match last(&chunk) {
            Some(cursor) if !chunk.is_last => request.after = Some(cursor),
            None if !chunk.is_last => panic!("an empty chunk that is not the last"),
            _ => return Ok(found),
        }
    }
}

/// The batches of the log until what is asked for was seen.
pub(crate) async fn until(source: &mut PostgresSource, mut is_seen: impl FnMut(&Batch) -> bool) {
    let seen = async {
        loop {
            let batch = source.next().await.expect("a batch").expect("a log without end");
            if is_seen(&batch) {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, seen).await.expect("in time");
}

/// Waits until something is so.
pub(crate) async fn becomes<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < DEADLINE, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
