//! The rows of a table whose column holds one of some values.
//!
//! | the column is | a value is taken from |
//! |---|---|
//! | text | its JSON, as UTF-8: the server brings a constant into the column's character set, never the column |
//! | binary | the log's bytes |
//! | anything else | its JSON, less what that puts around it |

use std::time::Duration;

use figvine_change::{Found, LookUp, Sought, SourceError, SourceErrorKind};
use tokio::time::Instant;

use super::build::Builder;
use super::key::{KeyKind, Written};
use super::page::MARK;
use super::shape::Shape;
use super::sight::Moment;
use super::{MysqlRows, SETTLE_EVERY, TABLE_CHANGED, connect, reading, session};
use crate::error::{Told, failure};
use crate::session::{Failed, quoted};
use crate::value::unescape;

/// No batch may hold more: its ranges have 32 bits.
const MOST_BYTES: usize = 1 << 31;
/// So long a transaction is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so long it is said whom we wait for.
const SILENT: Duration = Duration::from_secs(1);

/// What a value that cannot be compared with the column is refused by.
///
/// - 1267, 1270, 1271: it has characters that the column's character set lacks.
/// - 1292, 1525: it is no date, no UUID.
/// - 3854, 3988: it cannot be brought into the column's character set.
const NO_VALUE: [u16; 7] = [1267, 1270, 1271, 1292, 1525, 3854, 3988];

impl MysqlRows {
    /// Looks rows up in a snapshot; `None` where the table changed meanwhile.
    pub(super) async fn find(&mut self, request: &LookUp) -> Result<Option<Found>, SourceError> {
        let of = (&*request.schema, &*request.name);
        let what = reading(of);
        let (mut catalogue, shape) = self.prepared(of).await?;
        let since = Instant::now();
        let mut is_said = false;
        let read_at = loop {
            if let Some(read_at) = Moment::behind(&mut catalogue, &self.server, &request.behind).await? {
                break read_at;
            }
            if !is_said && since.elapsed() >= SILENT {
                is_said = true;
                tracing::warn!(
                    "rows are not looked up before a transaction that the log told is visible: its commit waits for a replica's acknowledgement"
                );
            }
            if since.elapsed() >= PATIENCE {
                let what = format!("{what}: a transaction of the log is not visible");
                return Err(failure(SourceErrorKind::Unreachable, "FV-1610", what).hint(
                    "Its commit waits for a replica's acknowledgement, or the server is another one by now. It is tried again.",
                ));
            }
            tokio::time::sleep(SETTLE_EVERY).await;
        };
        if !self.holds(&mut catalogue, &shape, of).await? {
            self.catalogue = Some(catalogue);
            return Ok(None);
        }
        let sql = statement(&shape, request)?;
        let session = session(&mut catalogue)?;
        let answer = match session.rows_of(&sql).await {
            Ok(answer) => answer,
            Err(failed) if failed.code() == Some(TABLE_CHANGED) => return Ok(None),
            Err(failed) => return Err(refused(failed, request)),
        };
        let mut builder = Builder::of_rows_alone(&shape);
        let mut is_whole = true;
        while let Some(row) = session.row().await.map_err(|failed| refused(failed, request))? {
            builder.add(&shape, row, &answer.types)?;
            is_whole = builder.size() <= request.bytes.min(MOST_BYTES);
            if !is_whole {
                builder.take_back();
                break;
            }
        }
        if is_whole {
            session.forget(&answer).await?;
            catalogue.ask("COMMIT", &what).await?;
        } else {
            catalogue = connect(&self.url, &self.program, self.server.flavour).await?;
        }
        self.give_back(catalogue, shape);
        Ok(Some(Found { batch: builder.batch(), is_whole, read_at }))
    }
}

/// The server picks the index.
fn statement(shape: &Shape, request: &LookUp) -> Result<String, SourceError> {
    let LookUp { schema, name, column, .. } = request;
    let at = shape.table.columns.iter().position(|other| other.name == *column);
    let at = at.ok_or_else(|| {
        failure(SourceErrorKind::Invalid, "FV-1609", format!("table {schema}.{name} has no column {column}"))
            .hint("Rows are looked up by a column that their events carry.")
    })?;
    let kind = shape.kinds.get(at).and_then(Option::as_ref).ok_or_else(|| {
        let what = format!("rows of table {schema}.{name} cannot be looked up by column {column}");
        failure(SourceErrorKind::Invalid, "FV-1609", what)
            .hint("Documents and shapes are compared with nothing: their types have no equality that an index knows.")
    })?;
    let literals: Option<Vec<String>> = request.values.iter().map(|value| literal(kind, value)).collect();
    let literals = literals.ok_or_else(|| no_value(request))?.join(", ");
    let order = match &shape.index {
        None => String::new(),
        Some(index) => {
            let columns = index.columns.iter().map(|column| format!("{}{}", column.name, column.direction()));
            format!(" ORDER BY {}", columns.collect::<Vec<_>>().join(", "))
        }
    };
    Ok(format!(
        "SELECT {MARK} {} FROM {} WHERE {} IN ({literals}){order}",
        shape.selected,
        shape.quoted,
        quoted(column)
    ))
}

/// A value as SQL that is compared with a column of a kind; `None` where it is none.
fn literal(kind: &KeyKind, value: &Sought) -> Option<String> {
    let json = &*value.json;
    let is_string = json.starts_with('"');
    match kind {
        KeyKind::Bytes { charset: None, .. } => kind.sql(&value.raw),
        KeyKind::Bytes { charset: Some(_), .. } => {
            KeyKind::Bytes { charset: Some("utf8mb4".into()), width: 0 }.sql(text(json)?.as_bytes())
        }
        // A day that is a number of days is no text of the server's: it would be read as another day.
        KeyKind::Written { form: Written::Text | Written::Moment, .. } if !is_string => None,
        KeyKind::Written { form: Written::Moment, .. } => {
            let text = text(json)?;
            kind.sql(text.strip_suffix('Z').unwrap_or(&text).replacen('T', " ", 1).as_bytes())
        }
        KeyKind::Written { .. } | KeyKind::Bit if matches!(json, "true" | "false") => {
            kind.sql(if json == "true" { b"1" } else { b"0" })
        }
        // As a string it is one of bits.
        KeyKind::Bit if is_string => Some(u64::from_str_radix(&text(json)?, 2).ok()?.to_string()),
        KeyKind::Set(_) if json.starts_with('[') => kind.sql(labels(json)?.join(",").as_bytes()),
        KeyKind::Written { .. } | KeyKind::Bit | KeyKind::Enum(_) | KeyKind::Set(_) => kind.sql(text(json)?.as_bytes()),
    }
}

/// A string's inside, or a number or boolean as it is.
fn text(json: &str) -> Option<String> {
    match json.strip_prefix('"') {
        Some(rest) => {
            let (text, rest) = string(rest)?;
            rest.is_empty().then_some(text)
        }
        None if json == "null" || json.starts_with(['{', '[']) => None,
        None => Some(json.to_owned()),
    }
}

/// The strings of a list.
fn labels(json: &str) -> Option<Vec<String>> {
    let mut rest = json.strip_prefix('[')?;
    let mut labels = Vec::new();
    while let Some(inside) = rest.strip_prefix('"') {
        let (label, behind) = string(inside)?;
        labels.push(label);
        rest = behind.strip_prefix(',').unwrap_or(behind);
    }
    (rest == "]").then_some(labels)
}

/// A string whose opening quote was read, and what follows its closing quote.
fn string(json: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut rest = json;
    loop {
        let (plain, special) = rest.split_at_checked(rest.find(['"', '\\'])?)?;
        text.push_str(plain);
        if let Some(behind) = special.strip_prefix('"') {
            return Some((text, behind));
        }
        let (char, behind) = unescape(special.strip_prefix('\\')?)?;
        text.push(char);
        rest = behind;
    }
}

/// What a statement is refused for. The server's words would show a value.
fn refused(failed: Failed, request: &LookUp) -> SourceError {
    match failed.code() {
        Some(code) if NO_VALUE.contains(&code) => no_value(request),
        _ => failed.of(&reading((&request.schema, &request.name))),
    }
}

fn no_value(request: &LookUp) -> SourceError {
    let LookUp { schema, name, column, .. } = request;
    let what = format!("a value to look up is none that column {column} of table {schema}.{name} can have");
    failure(SourceErrorKind::Invalid, "FV-1609", what)
        .hint("The values come from another table's column, whose type and character set must fit.")
}
