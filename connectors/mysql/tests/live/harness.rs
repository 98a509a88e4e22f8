//! One server, the connector, and what it tells in words.

use std::collections::HashSet;
use std::time::Duration;

use figvine_change::{
    Batch, Body, Cell, Change, Chunk, ChunkReader, ChunkRequest, Connector, Cursor, Durable, Position, Row, Source,
    SourceError, Table, Within,
};
use figvine_mysql::config::{Config, Flavour, Keyless, OnStatement, ValueOptions};
use figvine_mysql::{Mysql, MysqlRows, MysqlSource};
use figvine_sandbox::mysql_async::Conn;
use figvine_sandbox::mysql_async::prelude::Queryable;
use figvine_sandbox::{MariaDb, MySql, MySqlOptions, Mysqld};

/// How long anything may take.
const SOON: Duration = Duration::from_secs(60);

/// Either server.
#[derive(Debug)]
pub(crate) enum Server {
    MySql(MySql),
    MariaDb(MariaDb),
}

impl std::ops::Deref for Server {
    type Target = Mysqld;

    fn deref(&self) -> &Mysqld {
        match self {
            Self::MySql(server) => server,
            Self::MariaDb(server) => server,
        }
    }
}

/// A server with a database `shop`, and the way to it.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) connector: Mysql,
}

impl World {
    pub(crate) async fn mysql(settings: &[(&str, &str)]) -> Self {
        let server = MySql::start(options(settings)).await.expect("MySQL");
        Self::of(Server::MySql(server)).await
    }

    pub(crate) async fn mariadb(settings: &[(&str, &str)]) -> Self {
        let server = MariaDb::start(options(settings)).await.expect("MariaDB");
        Self::of(Server::MariaDb(server)).await
    }

    async fn of(server: Server) -> Self {
        let world = Self { connector: connector(&server, |_| {}), server };
        world.server.connect("").await.expect("connects").query_drop("create database shop").await.expect("a database");
        world
    }

    /// The way to the same server with another configuration.
    pub(crate) fn configured(&self, change: impl FnOnce(&mut Config)) -> Mysql {
        connector(&self.server, change)
    }

    pub(crate) fn is_mysql(&self) -> bool {
        matches!(self.server, Server::MySql(_))
    }

    pub(crate) async fn client(&self) -> Conn {
        self.server.connect("shop").await.expect("connects")
    }

    /// Runs statements over one connection of their own, each ended by `;` and a line's end.
    pub(crate) async fn run(&self, sql: &str) {
        run(&mut self.client().await, sql).await;
    }

    /// The newest place of the log.
    pub(crate) async fn here(&self) -> Position {
        self.connector.newest().await.expect("the newest place")
    }

    /// Opens the log.
    pub(crate) async fn open(&self, from: &Position) -> Result<MysqlSource, SourceError> {
        open(&self.connector, from).await
    }

    /// All changes from a place up to now, in words, without shapes.
    pub(crate) async fn changes(&self, from: &Position) -> Vec<String> {
        let told = self.told(from).await.expect("reads");
        told.into_iter().filter(|told| !told.is_shape).map(|told| told.text).collect()
    }

    /// All changes from a place up to now.
    pub(crate) async fn told(&self, from: &Position) -> Result<Vec<Told>, SourceError> {
        told(&self.connector, from).await
    }
}

/// A request for all rows of a table in `shop`, so many at a time.
pub(crate) fn request(name: &str, rows: u32) -> ChunkRequest {
    ChunkRequest {
        schema: "shop".into(),
        name: name.into(),
        condition: None,
        after: None,
        upto: None,
        rows,
        bytes: 1 << 20,
    }
}

pub(crate) async fn reader(connector: &Mysql) -> MysqlRows {
    tokio::time::timeout(SOON, connector.reader()).await.expect("opens in time").expect("a reader")
}

pub(crate) async fn chunk(reader: &mut MysqlRows, request: &ChunkRequest) -> Result<Chunk, SourceError> {
    tokio::time::timeout(SOON, reader.read(request)).await.expect("reads in time")
}

/// Chunk by chunk, to the last.
pub(crate) async fn chunks(reader: &mut MysqlRows, request: &ChunkRequest) -> Vec<Chunk> {
    let mut request = request.clone();
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut seen = HashSet::new();
    loop {
        let chunk = chunk(reader, &request).await.expect("reads");
        for place in cursors(&chunk) {
            assert!(seen.insert(place.clone()), "{place} comes twice");
        }
        assert_eq!(chunk.cursors.len(), chunk.batch.changes.len());
        if let Some(last) = cursors(&chunk).pop() {
            request.after = Cursor::parse(&last);
            assert!(request.after.is_some(), "{last}");
        } else {
            assert!(chunk.is_last, "an empty chunk is the last");
        }
        let is_last = chunk.is_last;
        chunks.push(chunk);
        if is_last {
            return chunks;
        }
    }
}

/// The rows' places.
pub(crate) fn cursors(chunk: &Chunk) -> Vec<String> {
    let text = |range| String::from_utf8_lossy(chunk.batch.bytes(range)).into_owned();
    chunk.cursors.iter().map(text).collect()
}

/// The rows in words, `read shop.t id=1`.
pub(crate) fn rows(chunks: &[Chunk]) -> Vec<String> {
    let words = |chunk: &Chunk| -> Vec<String> {
        chunk.batch.changes.iter().map(|change| of(&chunk.batch, change).text).collect()
    };
    chunks.iter().flat_map(words).collect()
}

/// The shape of a table, as [`Told`] tells it.
pub(crate) fn shape(table: &Table) -> String {
    let columns = table.columns.iter().map(|column| format!("{} {}", column.name, column.type_name));
    format!("shape {}({})", table.qualified_name(), columns.collect::<Vec<_>>().join(", "))
}

pub(crate) fn options(settings: &[(&str, &str)]) -> MySqlOptions {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    MySqlOptions { settings, ..MySqlOptions::default() }
}

fn connector(server: &Server, change: impl FnOnce(&mut Config)) -> Mysql {
    let mut config = Config {
        source: "shop".into(),
        flavour: if matches!(server, Server::MySql(_)) { Flavour::MySql } else { Flavour::MariaDb },
        url: server.url("shop").into(),
        tables: vec!["shop.*".into(), "!shop.other*".into()],
        server_id: None,
        server_id_seed: "FIGVINE_SHOP".into(),
        keyless: Keyless::Refuse,
        on_statement: OnStatement::Error,
        trace_comments: false,
        ignore_comments: Vec::new(),
        heartbeat: Duration::from_millis(700),
        values: ValueOptions::default(),
    };
    change(&mut config);
    Mysql::new(config).expect("a configuration")
}

/// The way to any server, as [`World::connector`].
pub(crate) fn connector_of(server: &Server) -> Mysql {
    connector(server, |_| {})
}

pub(crate) async fn run(client: &mut Conn, sql: &str) {
    for statement in sql.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
        client.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
}

pub(crate) async fn open(connector: &Mysql, from: &Position) -> Result<MysqlSource, SourceError> {
    let (_teller, durable) = Durable::channel();
    tokio::time::timeout(SOON, connector.open(Some(from.clone()), durable)).await.expect("opens in time")
}

/// All changes from a place up to now.
pub(crate) async fn told(connector: &Mysql, from: &Position) -> Result<Vec<Told>, SourceError> {
    let newest = connector.newest().await?;
    let mut source = open(connector, from).await?;
    let mut told = Vec::new();
    let mut reached = from.clone();
    while !connector.is_reached(&newest, &reached) || reached.within.is_some() {
        let Some(batch) = next(&mut source).await? else { break };
        told.extend(batch.changes.iter().map(|change| of(&batch, change)));
        if let Some(end) = batch.end.clone().or_else(|| told.last().map(|last| last.position.clone())) {
            reached = end;
        }
    }
    source.close().await;
    Ok(told)
}

/// The next batch, in time.
pub(crate) async fn next(source: &mut MysqlSource) -> Result<Option<Batch>, SourceError> {
    tokio::time::timeout(SOON, source.next()).await.expect("a batch in time")
}

/// Reads until so many changes, shapes apart, have come.
pub(crate) async fn take(source: &mut MysqlSource, count: usize) -> Vec<Told> {
    let mut told = Vec::new();
    while told.iter().filter(|told: &&Told| !told.is_shape).count() < count {
        let batch = next(source).await.expect("reads").expect("the log goes on");
        told.extend(batch.changes.iter().map(|change| of(&batch, change)));
    }
    told
}

/// Opens the log where it must not be opened.
pub(crate) async fn refused(connector: &Mysql, from: &Position) -> SourceError {
    match open(connector, from).await {
        Ok(_) => panic!("opened at {from}"),
        Err(error) => error,
    }
}

/// Reads until the source fails.
pub(crate) async fn failure(source: &mut MysqlSource) -> SourceError {
    loop {
        match next(source).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the log ends"),
            Err(error) => return error,
        }
    }
}

/// A change in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// `insert shop.t id=1 a="x"`, `update shop.t id=1 a="x" => id=1 a="y"`, `truncate shop.t`. A value that the log
    /// left out is `-`.
    pub(crate) text: String,
    pub(crate) is_shape: bool,
    pub(crate) transaction: String,
    pub(crate) ordinal: u64,
    pub(crate) part: u32,
    pub(crate) last: bool,
    /// The place behind it.
    pub(crate) position: Position,
}

pub(crate) fn of(batch: &Batch, change: &Change) -> Told {
    let transaction = batch.transaction(change).expect("a transaction");
    let position = match (change.last, &transaction.end) {
        (true, Some(end)) => Position::between(end.clone()),
        _ => Position {
            log: transaction.start.clone(),
            within: Some(Within { ordinal: change.ordinal, part: change.part }),
        },
    };
    let table = |index: u32| batch.table(index).expect("a table");
    let text = match &change.body {
        Body::Row(row) => {
            let op = format!("{:?}", row.op).to_lowercase();
            let table = table(row.table);
            let halves = [row.before, row.after].into_iter().flatten().map(|half| words(batch, half, table));
            let rekeyed = if row.rekeyed.is_some() { " (rekeyed)" } else { "" };
            format!("{op} {} {}{rekeyed}", table.qualified_name(), halves.collect::<Vec<_>>().join(" => "))
        }
        Body::Truncate { table: index } => format!("truncate {}", table(*index).qualified_name()),
        Body::Shape { table: index } => shape(table(*index)),
        Body::Message { .. } => "message".into(),
    };
    Told {
        text,
        is_shape: matches!(change.body, Body::Shape { .. }),
        transaction: transaction.position.to_string(),
        ordinal: change.ordinal,
        part: change.part,
        last: change.last,
        position,
    }
}

fn words(batch: &Batch, row: Row, table: &Table) -> String {
    let cells = batch.row(row);
    assert_eq!(cells.len(), table.columns.len());
    let words = cells.iter().zip(&table.columns).map(|(cell, column)| {
        let value = match cell {
            Cell::Null => "null".to_owned(),
            Cell::Unchanged => "-".to_owned(),
            Cell::Value(range) => {
                let mut json = Vec::new();
                let raw = batch.bytes(range);
                column.codec.write_json(raw, &mut json).unwrap_or_else(|e| panic!("{e}: {raw:02x?}"));
                let text = String::from_utf8(json).expect("UTF-8");
                serde_json::from_str::<serde_json::Value>(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
                text
            }
        };
        format!("{}={value}", column.name)
    });
    words.collect::<Vec<_>>().join(" ")
}
