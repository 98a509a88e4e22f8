//! Existing rows, read beside the log.
//!
//! ```text
//!   sight   what a snapshot shows, in places of the log       shape   a table as the log would tell it
//!   key     values of keys as text and as SQL                 page    the statement that reads a chunk
//!   image   an answer's values as those of a row image        build   rows to a batch
//!   look_up rows of given values                              pass    a table without an order
//!   passed  what a reader must show
//! ```
//!
//! - A chunk is read in a consistent snapshot of its own, in the order of the primary key or of the unique index that
//!   is taken in its place. What it costs the server ends with the chunk.
//! - A table without such an index is read in one pass, in one snapshot: the server keeps the snapshot, and waits with
//!   the rest of the rows, until the last chunk was read.
//! - The table's metadata lock is held while its definition is looked at and its rows are read: what is read has the
//!   shape that is told.
//! - Rows that are not wanted any more (the chunk is full) cannot be refused: the connection is left, and made anew.

mod build;
mod image;
mod key;
mod look_up;
mod page;
mod pass;
mod passed;
mod shape;
mod sight;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use figvine_change::{Chunk, ChunkReader, ChunkRequest, Found, LookUp, SourceError, SourceErrorKind, Table};

use crate::catalogue::{Catalogue, Server};
use crate::config::Flavour;
use crate::error::{Told, failure};
use crate::session::{Answer, Failed, Session, quoted};
use crate::url::ConnectUrl;
use build::Builder;
use pass::Pass;
use shape::Shape;
use sight::Moment;

pub(crate) use page::MARK;
pub(crate) use passed::PassedOn;
pub(crate) use shape::RowValues;

/// How often the server is asked whether what was passed on of its log is committed by now.
const SETTLE_EVERY: Duration = Duration::from_millis(20);
/// What is read to its end rather than left with the connection.
const DRAINED_BYTES: usize = 1 << 20;
/// How often a table may change under our hands until we give up for now.
const TRIES: usize = 5;

/// The index that was named does not exist, or may not be used.
const NO_SUCH_INDEX: u16 = 1176;
/// The table was changed since the snapshot.
const TABLE_CHANGED: u16 = 1412;

/// One connection that reads existing rows.
#[derive(Debug)]
pub struct MysqlRows {
    url: ConnectUrl,
    program: String,
    server: Server,
    values: RowValues,
    /// `'figvine'@'%'`.
    user: String,
    /// Between chunks; `None` where it was left.
    catalogue: Option<Catalogue>,
    shapes: HashMap<(Box<str>, Box<str>), Shape>,
    pass: Option<Pass>,
}

/// A table's database and name.
type Names<'a> = (&'a str, &'a str);

/// A table as the log would tell it now; `None` where there is none, or it cannot be looked at.
pub(crate) async fn shape(
    catalogue: &mut Catalogue,
    server: &Server,
    values: &RowValues,
    of: (&str, &str),
) -> Result<Option<Arc<Table>>, SourceError> {
    match Shape::ask(catalogue, server, values, of).await {
        Ok(shape) => Ok(shape.map(|shape| shape.table)),
        Err(error) if matches!(error.kind, SourceErrorKind::Refused | SourceErrorKind::Invalid) => {
            tracing::debug!(%error, "a table without a shape");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl MysqlRows {
    /// Connects, and waits until all is committed that was passed on of the log.
    pub(crate) async fn open(
        url: ConnectUrl,
        program: String,
        server: Server,
        values: RowValues,
        user: String,
        passed: &PassedOn,
    ) -> Result<Self, SourceError> {
        let passed = passed.now();
        let mut catalogue = connect(&url, &program, server.flavour).await?;
        while !passed.is_shown(&sight::shown_now(&mut catalogue, &server).await?) {
            tokio::time::sleep(SETTLE_EVERY).await;
        }
        Ok(Self { url, program, server, values, user, catalogue: Some(catalogue), shapes: HashMap::new(), pass: None })
    }

    /// Begins a snapshot and reads a chunk in it; `None` where the table changed meanwhile. Connection and shape are
    /// taken, and given back when all went well.
    async fn chunk(&mut self, request: &ChunkRequest) -> Result<Option<Chunk>, SourceError> {
        let of = (&*request.schema, &*request.name);
        let what = reading(of);
        let (mut catalogue, mut shape) = self.prepared(of).await?;
        let moment = Moment::begin(&mut catalogue, &self.server).await?;
        if !self.holds(&mut catalogue, &shape, of).await? {
            self.catalogue = Some(catalogue);
            return Ok(None);
        }
        if shape.index.is_none() {
            return self.begin_pass(catalogue, shape, moment, request).await;
        }
        let wanted = u64::from(request.rows.max(1));
        // As many as may fit, and one that tells whether there are more.
        let fitting = shape.row_bytes.map_or(u64::MAX, |bytes| (request.bytes / bytes.max(1)) as u64 * 5 / 4 + 2);
        let limit = fitting.min(wanted + 1);
        let Some(answer) = by_key(&mut catalogue, &shape, request, limit).await? else { return Ok(None) };
        let session = session(&mut catalogue)?;
        let mut builder = Builder::new(&shape);
        let (mut taken, mut is_full) = (0, false);
        while let Some(row) = session.row().await.map_err(|failed| failed.of(&what))? {
            taken += 1;
            if is_full {
                continue;
            }
            builder.add(&shape, row, &answer.types)?;
            is_full = builder.rows() > wanted || builder.rows() > 1 && builder.bytes() > request.bytes;
            if is_full {
                builder.take_back();
                let left = usize::try_from(limit.saturating_sub(taken)).unwrap_or(usize::MAX);
                if left.saturating_mul(builder.row_bytes()) > DRAINED_BYTES {
                    break;
                }
            }
        }
        let is_read = !is_full || taken == limit || session.is_between();
        shape.row_bytes = Some(builder.row_bytes()).filter(|bytes| *bytes > 0).or(shape.row_bytes);
        let is_last = !is_full && taken < limit;
        if is_read {
            session.forget(&answer).await?;
            catalogue.ask("COMMIT", &what).await?;
        } else {
            catalogue = connect(&self.url, &self.program, self.server.flavour).await?;
        }
        let mut chunk = builder.finish(moment, is_last);
        if !shape.has_snapshots {
            chunk.high = Moment::end_of_log(&mut catalogue, &self.server).await?;
        }
        self.give_back(catalogue, shape);
        Ok(Some(chunk))
    }

    /// A connection, and a table's shape as it was last.
    async fn prepared(&mut self, of: Names<'_>) -> Result<(Catalogue, Shape), SourceError> {
        let mut catalogue = match self.catalogue.take() {
            Some(catalogue) => catalogue,
            None => connect(&self.url, &self.program, self.server.flavour).await?,
        };
        let shape = match self.shapes.remove(&(of.0.into(), of.1.into())) {
            Some(shape) => shape,
            None => {
                let shape = Shape::ask(&mut catalogue, &self.server, &self.values, of).await;
                shape.map_err(|error| of_table(error, of, &self.user))?.ok_or_else(|| no_table(of))?
            }
        };
        Ok((catalogue, shape))
    }

    fn give_back(&mut self, catalogue: Catalogue, shape: Shape) {
        self.catalogue = Some(catalogue);
        self.shapes.insert((shape.table.schema.clone(), shape.table.name.clone()), shape);
    }

    /// Takes the table's lock: no statement changes it until the transaction ends. False where it has another shape by
    /// now; the transaction is ended then.
    async fn holds(&self, catalogue: &mut Catalogue, shape: &Shape, of: Names<'_>) -> Result<bool, SourceError> {
        let what = reading(of);
        let locked = catalogue.ask(&format!("SELECT 1 FROM {} LIMIT 0", shape.quoted), &what).await;
        locked.map_err(|error| of_table(error, of, &self.user))?;
        let is_same = shape::definition(catalogue, &shape.quoted, &what).await? == shape.definition;
        if !is_same {
            catalogue.ask("COMMIT", &what).await?;
        }
        Ok(is_same)
    }
}

impl ChunkReader for MysqlRows {
    async fn read(&mut self, request: &ChunkRequest) -> Result<Chunk, SourceError> {
        if let Some(pass) = self.pass.take()
            && pass.is_for(request)
        {
            return Box::pin(self.go_on(pass, request)).await;
        }
        for _ in 0..TRIES {
            if let Some(chunk) = Box::pin(self.chunk(request)).await? {
                return Ok(chunk);
            }
        }
        Err(being_changed((&request.schema, &request.name)))
    }

    async fn look_up(&mut self, request: &LookUp) -> Result<Found, SourceError> {
        for _ in 0..TRIES {
            if let Some(found) = Box::pin(self.find(request)).await? {
                return Ok(found);
            }
        }
        Err(being_changed((&request.schema, &request.name)))
    }
}

/// The answer to the statement of a chunk; `None` where the table changed meanwhile.
async fn by_key(
    catalogue: &mut Catalogue,
    shape: &Shape,
    request: &ChunkRequest,
    limit: u64,
) -> Result<Option<Answer>, SourceError> {
    let session = session(catalogue)?;
    // An index that is there and may not be named (it is invisible) is used or not, as the server likes.
    for has_hint in [true, false] {
        let sql = page::by_key(shape, has_hint, request, limit)?;
        match session.rows_of(&sql).await {
            Ok(answer) => return Ok(Some(answer)),
            Err(failed) if has_hint && failed.code() == Some(NO_SUCH_INDEX) => {}
            Err(failed) if failed.code() == Some(TABLE_CHANGED) => return Ok(None),
            Err(failed) => return Err(of_statement(failed, request)),
        }
    }
    Ok(None)
}

/// A connection whose answers are as the rows have them.
async fn connect(url: &ConnectUrl, program: &str, flavour: Flavour) -> Result<Catalogue, SourceError> {
    let mut catalogue = Catalogue::own(url, program).await?;
    let no_limit = match flavour {
        Flavour::MySql => "max_execution_time = 0",
        Flavour::MariaDb => "max_statement_time = 0",
    };
    for sql in [
        // Statements are UTF-8; answers are in each column's own character set.
        "SET NAMES utf8mb4",
        "SET SESSION character_set_results = NULL",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        // Whoever takes rows slowly keeps the connection, and whoever pauses between two chunks.
        "SET SESSION net_write_timeout = 86400, wait_timeout = 2147483, lock_wait_timeout = 10",
        "SET SESSION sql_select_limit = DEFAULT",
        &format!("SET SESSION {no_limit}"),
    ] {
        catalogue.ask(sql, "preparing to read rows").await?;
    }
    Ok(catalogue)
}

fn session(catalogue: &mut Catalogue) -> Result<&mut Session, SourceError> {
    let left = || failure(SourceErrorKind::Unreachable, "FV-1120", "reading rows: there is no session");
    catalogue.session().ok_or_else(left)
}

fn reading((schema, name): Names<'_>) -> String {
    format!("reading rows of {schema}.{name}")
}

fn being_changed(of: Names<'_>) -> SourceError {
    failure(SourceErrorKind::Unreachable, "FV-1608", format!("{}: it is being changed", reading(of)))
}

fn no_table((schema, name): Names<'_>) -> SourceError {
    failure(SourceErrorKind::Invalid, "FV-1601", format!("there is no table {schema}.{name}"))
}

/// What a table refuses.
fn of_table(error: SourceError, of: Names<'_>, user: &str) -> SourceError {
    match error.code {
        "FV-1203" => SourceError { source: error.source, ..no_table(of) },
        "FV-1201" => {
            let table = format!("{}.{}", quoted(of.0), quoted(of.1));
            let what = format!("{}: the user lacks the privilege SELECT", reading(of));
            let meant = failure(SourceErrorKind::Refused, "FV-1602", what);
            SourceError { source: error.source, ..meant }.hint(format!("GRANT SELECT ON {table} TO {user};"))
        }
        _ => error,
    }
}

/// What a statement of ours with a condition that is not ours is refused for.
fn of_statement(failed: Failed, request: &ChunkRequest) -> SourceError {
    let what = reading((&request.schema, &request.name));
    match (&request.condition, failed.of(&what)) {
        // Whatever the server does not know otherwise: our own part of it was read before, without.
        (Some(_), error) if matches!(error.code, "FV-1209" | "FV-1203" | "FV-1201") => {
            let what = format!("{what}: the condition does not hold as SQL");
            SourceError { source: error.source, ..failure(SourceErrorKind::Invalid, "FV-1603", what) }
                .hint("It is put into the WHERE of a SELECT from this table alone.")
        }
        (_, error) => error,
    }
}
