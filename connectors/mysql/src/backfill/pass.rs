//! A table without an order: its rows in one answer, handed out chunk by chunk.

use figvine_change::{Chunk, ChunkRequest, Cursor, SourceError, SourceErrorKind};

use super::build::Builder;
use super::shape::Shape;
use super::sight::Moment;
use super::{MysqlRows, TABLE_CHANGED, of_statement, page, reading, session};
use crate::catalogue::Catalogue;
use crate::error::{Told, failure};
use crate::session::Answer;

/// A table's rows in one answer.
#[derive(Debug)]
pub(super) struct Pass {
    catalogue: Catalogue,
    shape: Shape,
    condition: Option<Box<str>>,
    moment: Moment,
    answer: Answer,
    /// Rows that were handed out.
    at: u64,
    /// A row that was read and is not handed out yet.
    pending: Option<Vec<u8>>,
}

impl Pass {
    pub(super) fn is_for(&self, request: &ChunkRequest) -> bool {
        let table = &self.shape.table;
        table.schema == request.schema
            && table.name == request.name
            && self.condition == request.condition
            && request.after.as_ref().and_then(row_number) == Some(self.at)
    }
}

impl MysqlRows {
    /// Begins to read a table that has no order.
    pub(super) async fn begin_pass(
        &mut self,
        mut catalogue: Catalogue,
        shape: Shape,
        moment: Moment,
        request: &ChunkRequest,
    ) -> Result<Option<Chunk>, SourceError> {
        let table = shape.table.qualified_name();
        if !shape.has_snapshots {
            let what = format!("table {table} has neither a key nor an engine with snapshots");
            return Err(failure(SourceErrorKind::Invalid, "FV-1606", what).hint(
                "One pass over it would keep everybody else from writing. Give it a primary key, or make it InnoDB.",
            ));
        }
        if request.after.is_some() {
            let what = format!("the pass over table {table} was interrupted");
            return Err(failure(SourceErrorKind::Invalid, "FV-1607", what)
                .hint("It has no key by which to go on: it is read from its beginning again."));
        }
        let sql = page::in_one_pass(&shape, request);
        let answer = match session(&mut catalogue)?.rows_of(&sql).await {
            Ok(answer) => answer,
            Err(failed) if failed.code() == Some(TABLE_CHANGED) => return Ok(None),
            Err(failed) => return Err(of_statement(failed, request)),
        };
        let condition = request.condition.clone();
        self.go_on(Pass { catalogue, shape, condition, moment, answer, at: 0, pending: None }, request).await.map(Some)
    }

    /// Reads the next rows of a pass.
    pub(super) async fn go_on(&mut self, mut pass: Pass, request: &ChunkRequest) -> Result<Chunk, SourceError> {
        let what = reading((&request.schema, &request.name));
        let upto = request.upto.as_ref().map(|upto| row_number(upto).ok_or_else(|| no_number(request))).transpose()?;
        let wanted = upto.map_or(u64::MAX, |upto| upto.saturating_sub(pass.at)).min(request.rows.max(1).into());
        let mut builder = Builder::new(&pass.shape);
        builder.number_from(pass.at);
        let mut is_last = upto.is_some_and(|upto| upto <= pass.at);
        let session = session(&mut pass.catalogue)?;
        while !is_last {
            let pending = pass.pending.take();
            let row = match &pending {
                Some(row) => Some(&row[..]),
                None => session.row().await.map_err(|failed| failed.of(&what))?,
            };
            let Some(row) = row else {
                is_last = true;
                break;
            };
            if builder.rows() == wanted {
                pass.pending = Some(row.to_vec());
                break;
            }
            builder.add(&pass.shape, row, &pass.answer.types)?;
            if builder.rows() > 1 && builder.bytes() > request.bytes {
                builder.take_back();
                pass.pending = Some(row.to_vec());
                break;
            }
        }
        pass.at += builder.rows();
        is_last |= upto.is_some_and(|upto| upto <= pass.at);
        let chunk = builder.finish(pass.moment.clone(), is_last);
        if is_last {
            // What is left of its rows is left with the connection; most often there are none.
            if session.is_between() {
                session.forget(&pass.answer).await?;
                pass.catalogue.ask("COMMIT", &what).await?;
                self.catalogue = Some(pass.catalogue);
            }
        } else {
            self.pass = Some(pass);
        }
        Ok(chunk)
    }
}

/// A row's number in a pass.
fn row_number(cursor: &Cursor) -> Option<u64> {
    cursor.as_str().parse().ok()
}

fn no_number(request: &ChunkRequest) -> SourceError {
    let what = format!("a place is no row of table {}.{}", request.schema, request.name);
    failure(SourceErrorKind::Invalid, "FV-1604", what)
        .hint("It has no key: its rows have numbers, in no order of their own.")
}
