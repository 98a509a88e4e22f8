//! Rows that come from no database: the most that the way from a source into the stream lets through.

use std::future::pending;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use figvine::backfill::Desk;
use figvine::config;
use figvine::pipeline::{Pipeline, Until};
use figvine::telemetry::Telemetry;
use figvine_change::{
    Batch, Body, Cell, Change, Column, Connector, Durable, Engine, Finding, Load, NoRows, Op, Position, Retention, Row,
    RowChange, Source, SourceError, Table, TableSize, Transaction, ValueCodec, ValueError,
};
use tokio_util::sync::CancellationToken;

use crate::Outcome;

const BATCH_ROWS: u64 = 1000;
/// The time of all rows: 2026-11-23, in microseconds since 1970.
const AT: i64 = 1_795_392_000_000_000;
/// What all rows have alike: the values of all columns but the first.
const ALIKE: &str = "4711\"name 4711\"\"2026-11-23T00:00:00.000000\"";
const CELLS: [Range<u32>; 3] = [0..4, 4..15, 15..43];

/// Publishes so many rows, in transactions of `per_transaction`, as the first source of a configuration would.
pub(crate) async fn publish(config: &Path, rows: u64, per_transaction: u64) -> Outcome<()> {
    let config = config::load(config, &std::env::vars().collect())?;
    let source = config.sources().first().ok_or("the configuration has no source")?;
    let pipeline = Pipeline {
        schemas: None,
        parks: source.parks,
        letters: source.letters.clone(),
        echoes: source.echoes.clone(),
        rules: source.rules.clone(),
        connector: Arc::new(Made { rows, per_transaction: per_transaction.min(BATCH_ROWS) }),
        events: source.events.clone(),
        stream: source.stream.clone(),
        nats: config.nats().clone(),
        private: Arc::clone(&source.private),
        desk: Arc::new(Desk::new(source.backfill.clone(), Arc::clone(&source.private))),
        telemetry: Telemetry::new().source(&source.name),
        until: Some(Until::Now),
    };
    Ok(Box::pin(pipeline.run(CancellationToken::new())).await?)
}

/// Values that are JSON already.
#[derive(Debug)]
struct Verbatim;

impl ValueCodec for Verbatim {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        out.extend_from_slice(raw);
        Ok(())
    }
}

#[derive(Debug)]
struct Made {
    rows: u64,
    per_transaction: u64,
}

impl Made {
    fn position(rows: u64) -> Position {
        Position::between(format!("made/{rows:012}"))
    }
}

impl Connector for Made {
    type Source = MadeRows;
    type Reader = NoRows;

    async fn check(&self) -> Result<Vec<Finding>, SourceError> {
        Ok(Vec::new())
    }

    async fn newest(&self) -> Result<Position, SourceError> {
        Ok(Self::position(self.rows))
    }

    async fn was_read(&self) -> Result<bool, SourceError> {
        Ok(false)
    }

    async fn retention(&self) -> Result<Option<Retention>, SourceError> {
        Ok(None)
    }

    async fn tables(&self) -> Result<Vec<TableSize>, SourceError> {
        Ok(Vec::new())
    }

    async fn reader(&self) -> Result<NoRows, SourceError> {
        Ok(NoRows)
    }

    async fn load(&self) -> Result<Load, SourceError> {
        Ok(Load::default())
    }

    fn is_reached(&self, target: &Position, reached: &Position) -> bool {
        reached.log >= target.log
    }

    async fn open(&self, _from: Option<Position>, _durable: Durable) -> Result<MadeRows, SourceError> {
        let column = |name: &str| Column { name: name.into(), type_name: "text".into(), codec: Arc::new(Verbatim) };
        Ok(MadeRows {
            table: Arc::new(Table {
                schema: "bench".into(),
                name: "narrow".into(),
                columns: ["id", "a", "b", "c"].map(column).into(),
                key: vec![0],
            }),
            started_at: Self::position(0),
            engine: Engine { name: "mysql", version: "0".into(), database: "bench".into() },
            rows: self.rows,
            per_transaction: self.per_transaction,
            made: 0,
        })
    }
}

struct MadeRows {
    table: Arc<Table>,
    started_at: Position,
    engine: Engine,
    rows: u64,
    per_transaction: u64,
    made: u64,
}

impl MadeRows {
    #[expect(clippy::cast_possible_truncation, reason = "a batch is small")]
    fn batch(&self) -> Batch {
        let mut batch = Batch { tables: vec![Arc::clone(&self.table)], ..Batch::default() };
        let mut data = ALIKE.as_bytes().to_vec();
        let mut digits = itoa::Buffer::new();
        for row in self.made..self.rows.min(self.made + BATCH_ROWS) {
            let ordinal = row % self.per_transaction;
            if ordinal == 0 {
                let place = |row| Made::position(row).log;
                batch.transactions.push(Transaction {
                    id: place(row),
                    position: place(row),
                    sequence: place(row),
                    committed_at: AT,
                    start: place(row),
                    end: Some(place(row + self.per_transaction)),
                    origin: None,
                    traceparent: None,
                    is_ignored: false,
                    file: None,
                });
            }
            let id = data.len() as u32;
            data.extend_from_slice(digits.format(row).as_bytes());
            let first = batch.cells.len() as u32;
            batch.cells.push(Cell::Value(id..data.len() as u32));
            batch.cells.extend(CELLS.map(Cell::Value));
            batch.changes.push(Change {
                transaction: batch.transactions.len() as u32 - 1,
                ordinal,
                part: 1,
                last: ordinal + 1 == self.per_transaction,
                body: Body::Row(RowChange {
                    table: 0,
                    op: Op::Insert,
                    before: None,
                    before_is_key: false,
                    after: Some(Row { first, len: 4 }),
                    rekeyed: None,
                }),
            });
        }
        batch.data = data.into();
        batch
    }
}

impl Source for MadeRows {
    async fn next(&mut self) -> Result<Option<Batch>, SourceError> {
        if self.made >= self.rows {
            return pending().await;
        }
        let batch = self.batch();
        self.made += BATCH_ROWS;
        Ok(Some(batch))
    }

    fn started_at(&self) -> &Position {
        &self.started_at
    }

    fn engine(&self) -> &Engine {
        &self.engine
    }

    async fn close(self) {}
}
