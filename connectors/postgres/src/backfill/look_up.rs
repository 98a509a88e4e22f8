//! The rows of a table whose column holds one of some values.
//!
//! A value comes as the text that pgoutput has of it, from a column of another table perhaps of another type: it is
//! read as one of this column's type, and compared by that type's equality, as a foreign key would be.

use std::time::Duration;

use figvine_change::{Batch, Found, LookUp, SourceError, SourceErrorKind, Transaction};
use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;

use super::intake::{NotCopied, Rows};
use super::query::{self, literal};
use super::reading::{Begun, Names, first, strange};
use super::shape::Shape;
use super::{Known, PostgresReader};
use crate::catalogue::Catalogue;
use crate::error::{Told, failure, of_query};
use crate::session::quoted;

/// Between two looks at whether a transaction is visible.
const PAUSE: Duration = Duration::from_millis(20);
/// So long it is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so long it is said whom we wait for.
const SILENT: Duration = Duration::from_secs(1);

/// What lets chunks be read in their key's order would have the whole index gone through for a few rows.
const FREE_PLAN: &str = "set local enable_sort to default; set local enable_incremental_sort to default;
    set local enable_seqscan to default; set local enable_bitmapscan to default;";

/// How values of a column are compared.
#[derive(Debug, Clone)]
pub(super) struct Compared {
    /// As SQL.
    column: String,
    /// What literals are cast to.
    base_type: String,
    /// The type's own equality, where it is none of PostgreSQL's.
    equal: Option<String>,
}

impl PostgresReader {
    pub(super) async fn find(&mut self, request: &LookUp) -> Result<Found, SourceError> {
        let mut catalogue = self.connected().await?;
        let of = (&*request.schema, &*request.name);
        let begun = self.begin_behind(&catalogue, of, &request.behind).await?;
        let mut known = self.known(&catalogue, of, &begun).await?;
        let compared = match known.compared.get(&request.column) {
            Some(compared) => compared.clone(),
            None => compared(&catalogue, request, &known.shape).await?,
        };
        let found = self.found(&catalogue, request, &known.shape, &compared).await?;
        known.compared.insert(request.column.clone(), compared);
        let Some(rows) = found else {
            // By itself it finds nothing, and others find theirs without it.
            self.catalogue = Some(catalogue);
            let batch = Batch { tables: vec![known.shape.table.clone()], ..Batch::default() };
            return Ok(Found { batch, is_whole: request.values.len() == 1, read_at: begun.read_at });
        };
        if rows.is_full {
            // As a chunk leaves it.
            catalogue = self.connect().await?;
        } else {
            catalogue.client().batch_execute("commit").await.map_err(|e| of_query(e, "ending a look-up"))?;
        }
        self.catalogue = Some(catalogue);
        let Known { shape, .. } = &known;
        let (table, is_whole) = (shape.table.clone(), !rows.is_full);
        self.shapes.insert((request.schema.clone(), request.name.clone()), known);
        let (batch, _) = rows.batch(table, begun.read_at);
        Ok(Found { batch, is_whole, read_at: begun.read_at })
    }

    /// Begins a transaction whose snapshot shows others: their commits may be in the log before.
    async fn begin_behind(
        &self,
        catalogue: &Catalogue,
        of: Names<'_>,
        behind: &[Transaction],
    ) -> Result<Begun, SourceError> {
        let since = Instant::now();
        let mut is_said = false;
        loop {
            let begun = self.begin(catalogue, of, FREE_PLAN).await?;
            let Some(awaited) = behind.iter().find(|transaction| begun.snapshot.awaits(transaction)) else {
                return Ok(begun);
            };
            catalogue.client().batch_execute("commit").await.map_err(|e| of_query(e, "waiting for a commit"))?;
            if !is_said && since.elapsed() >= SILENT {
                is_said = true;
                tracing::warn!(
                    transaction = &*awaited.id,
                    "rows are not looked up before this transaction is visible: its commit waits for a synchronous standby"
                );
            }
            if since.elapsed() >= PATIENCE {
                return Err(not_visible(&awaited.id, of));
            }
            sleep(PAUSE).await;
        }
    }

    /// The rows; `None` where a value is beyond what the column can hold.
    async fn found(
        &self,
        catalogue: &Catalogue,
        request: &LookUp,
        shape: &Shape,
        compared: &Compared,
    ) -> Result<Option<Rows>, SourceError> {
        let casts: Option<Vec<String>> = request
            .values
            .iter()
            .map(|value| Some(format!("{}::{}", literal(&value.raw)?, compared.base_type)))
            .collect();
        let casts = casts.ok_or_else(|| no_value(request, compared))?.join(", ");
        let sought = match &compared.equal {
            None => format!("{} IN ({casts})", compared.column),
            Some(equal) => format!("{} {equal} ANY (ARRAY[{casts}])", compared.column),
        };
        let mut rows = Rows::default();
        let columns = shape.table.columns.len();
        let copied = rows
            .copy(catalogue, &query::sought(shape, &sought), columns, request.bytes, |rows, first| {
                rows.close(first);
                rows.is_full = rows.size() > request.bytes;
                true
            })
            .await;
        match copied {
            Ok(()) => Ok(Some(rows)),
            Err(refused) => match self.of_look_up(catalogue, refused, request, compared, &casts).await {
                Some(error) => Err(error),
                None => Ok(None),
            },
        }
    }

    /// What a refused look-up means: the values may be to blame. Nothing where one is beyond what the column can hold: then no
    /// row has it.
    async fn of_look_up(
        &self,
        catalogue: &Catalogue,
        refused: NotCopied,
        request: &LookUp,
        compared: &Compared,
        casts: &str,
    ) -> Option<SourceError> {
        let of = (&*request.schema, &*request.name);
        let error = match refused {
            NotCopied::Refused(error) => error,
            NotCopied::Strange(error) => return Some(strange(error, of)),
        };
        let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
        if !code.starts_with("22") && !code.starts_with("42") || code == "42501" {
            return Some(self.refused(error, of));
        }
        let tried = catalogue.client().simple_query(&format!("rollback; select {casts}")).await;
        match tried {
            Err(tried) if tried.code() == Some(&SqlState::NUMERIC_VALUE_OUT_OF_RANGE) => None,
            // The server's words would show the value.
            Err(tried) if tried.code().is_some() => Some(no_value(request, compared)),
            // No such operator.
            _ if code == "42883" => Some(no_equality(request, compared).because(error)),
            _ => Some(self.refused(error, of)),
        }
    }
}

/// Asks how the column is compared.
async fn compared(catalogue: &Catalogue, request: &LookUp, shape: &Shape) -> Result<Compared, SourceError> {
    let no_column = || {
        let what =
            format!("table {}.{} has no column {} that is captured", request.schema, request.name, request.column);
        failure(SourceErrorKind::Invalid, "FV-1609", what)
            .hint("Rows are looked up by a column that their events carry: the publication must list it.")
    };
    if !shape.table.columns.iter().any(|column| column.name == request.column) {
        return Err(no_column());
    }
    let (Some(table), Some(column)) = (literal(shape.quoted_name().as_bytes()), literal(request.column.as_bytes()))
    else {
        return Err(no_column());
    };
    // With an empty search path the equality of an extension's type goes by no name: `citext = citext` would be the
    // comparison of text, which no index of it answers.
    let statement = format!(
        "select format_type(b.oid, -1), t.typtype = 'd', equal.schema, equal.name
         from pg_attribute a join pg_type t on t.oid = a.atttypid
         cross join lateral (
           with recursive base(oid, kind, below) as (
             select t.oid, t.typtype, t.typbasetype
             union all
             select u.oid, u.typtype, u.typbasetype from base join pg_type u on base.kind = 'd' and u.oid = base.below)
           select base.oid from base where base.kind <> 'd') b
         left join lateral (
           select n.nspname as schema, p.oprname as name
           from pg_opclass o join pg_am m on m.oid = o.opcmethod
           join pg_amop x on x.amopfamily = o.opcfamily and x.amoplefttype = o.opcintype
             and x.amoprighttype = o.opcintype and x.amopstrategy = case m.amname when 'btree' then 3 else 1 end
           join pg_operator p on p.oid = x.amopopr join pg_namespace n on n.oid = p.oprnamespace
           where m.amname in ('btree', 'hash') and o.opcdefault and o.opcintype = b.oid and n.nspname <> 'pg_catalog'
           order by m.amname limit 1) equal on true
         where a.attrelid = {table}::regclass and a.attname = {column} and not a.attisdropped"
    );
    let answer = catalogue.client().simple_query(&statement).await;
    let answer = answer.map_err(|e| of_query(e, "asking how a column is compared"))?;
    let base_type = first(&answer, 0).ok_or_else(no_column)?.to_owned();
    let name = quoted(&request.column);
    // A domain over an enum has no operators.
    let column = if first(&answer, 1) == Some("t") { format!("{name}::{base_type}") } else { name };
    let equal = first(&answer, 2).zip(first(&answer, 3));
    let equal = equal.map(|(schema, name)| format!("OPERATOR({}.{name})", quoted(schema)));
    Ok(Compared { column, base_type, equal })
}

/// Whether it ever will be is for the source to say, which looks at the server anew then.
fn not_visible(transaction: &str, of: Names<'_>) -> SourceError {
    let what = format!("looking up rows of {}.{}: transaction {transaction} is in the log and not visible", of.0, of.1);
    failure(SourceErrorKind::Unreachable, "FV-1610", what)
        .hint("Its commit waits for a synchronous standby, or the server is another one by now. It is tried again.")
}

fn no_value(request: &LookUp, compared: &Compared) -> SourceError {
    let LookUp { schema, name, column, .. } = request;
    let what = format!("a value to look up is none that column {column} of table {schema}.{name} can have");
    failure(SourceErrorKind::Invalid, "FV-1609", what).hint(format!(
        "The column is of type {}. The values come from another table's column, whose type must fit.",
        compared.base_type
    ))
}

fn no_equality(request: &LookUp, compared: &Compared) -> SourceError {
    let LookUp { schema, name, column, .. } = request;
    let what = format!("rows of table {schema}.{name} cannot be looked up by column {column}");
    failure(SourceErrorKind::Invalid, "FV-1609", what).hint(format!("Its type {} has no equality.", compared.base_type))
}
