//! The statement that reads a chunk.
//!
//! Rows behind a key `(x, y)`, so that both servers read them as one range of the index:
//!
//! ```text
//! a >= x AND (a > x OR (a = x AND b > y))
//! ```
//! Neither uses an index for `(a, b) > (x, y)`.

use figvine_change::{ChunkRequest, Cursor, SourceError, SourceErrorKind};

use super::key::KeyColumn;
use super::shape::Shape;
use crate::error::{Told, failure};
use crate::session::quoted;

/// What the server's lists of statements show: that it is ours.
pub(crate) const MARK: &str = "/* figvine backfill */";

/// Which side of a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Behind,
    UpTo,
}

/// The statement for a chunk of at most `rows` rows, in the order of the index.
pub(super) fn by_key(shape: &Shape, has_hint: bool, request: &ChunkRequest, rows: u64) -> Result<String, SourceError> {
    let Some(index) = &shape.index else { return Ok(in_one_pass(shape, request)) };
    let mut wheres = Vec::new();
    for (cursor, side) in [(&request.after, Side::Behind), (&request.upto, Side::UpTo)] {
        if let Some(cursor) = cursor {
            wheres.push(bound(&index.columns, cursor, side).ok_or_else(|| {
                let table = shape.table.qualified_name();
                failure(SourceErrorKind::Invalid, "FV-1604", format!("a place is no key of table {table}"))
                    .hint(format!("A key is given as its values with commas between: {}.", names(&index.columns)))
            })?);
        }
    }
    wheres.extend(condition(request));
    let hint = if has_hint { format!(" FORCE INDEX ({})", quoted(&index.name)) } else { String::new() };
    let order: Vec<_> = index.columns.iter().map(|column| format!("{}{}", column.name, column.direction())).collect();
    let wheres = if wheres.is_empty() { String::new() } else { format!(" WHERE {}", wheres.join(" AND ")) };
    Ok(format!(
        "SELECT {MARK} {} FROM {}{hint}{wheres} ORDER BY {} LIMIT {rows}",
        shape.selected,
        shape.quoted,
        order.join(", ")
    ))
}

/// The statement for all rows.
pub(super) fn in_one_pass(shape: &Shape, request: &ChunkRequest) -> String {
    let condition = condition(request).map_or_else(String::new, |condition| format!(" WHERE {condition}"));
    format!("SELECT {MARK} {} FROM {}{condition}", shape.selected, shape.quoted)
}

/// A comment at its end must not hide what stands behind it.
fn condition(request: &ChunkRequest) -> Option<String> {
    // A comment at the end of the condition ends with its line. A parenthesis too many is an error, where in parentheses
    // it might take the other conditions away.
    request.condition.as_ref().map(|condition| format!("CASE WHEN {condition}\nTHEN TRUE END"))
}

fn names(columns: &[KeyColumn]) -> String {
    columns.iter().map(|column| column.name.trim_matches('`')).collect::<Vec<_>>().join(",")
}

fn bound(columns: &[KeyColumn], cursor: &Cursor, side: Side) -> Option<String> {
    let texts = cursor.key().filter(|texts| texts.len() == columns.len())?;
    let values: Vec<String> = columns.iter().zip(&texts).map(|(c, text)| c.kind.sql(text)).collect::<Option<_>>()?;
    let greater = |column: &KeyColumn| (side == Side::Behind) != column.is_descending;
    // From the last column outwards.
    let mut sql = String::new();
    for (column, value) in columns.iter().zip(&values).rev() {
        let (name, beyond) = (&column.name, if greater(column) { '>' } else { '<' });
        sql = match (sql.as_str(), side) {
            ("", Side::Behind) => format!("{name} {beyond} {value}"),
            ("", Side::UpTo) => format!("{name} {beyond}= {value}"),
            (inner, _) => format!("({name} {beyond} {value} OR ({name} = {value} AND {inner}))"),
        };
    }
    // One range, whatever an optimizer makes of the alternatives.
    if let ([first, _, ..], [value, ..]) = (columns, values.as_slice()) {
        let beyond = if greater(first) { '>' } else { '<' };
        sql = format!("{} {beyond}= {value} AND {sql}", first.name);
    }
    Some(sql)
}

#[cfg(test)]
mod tests {
    use super::super::key::KeyKind;
    use super::*;

    fn column(name: &str, is_descending: bool) -> KeyColumn {
        KeyColumn { at: 0, name: name.into(), is_descending, kind: KeyKind::Bit }
    }

    #[test]
    fn a_key_bounds_what_is_read() {
        let cursor = Cursor::parse("1,2,3").expect("a cursor");
        let columns = [column("a", false), column("b", true), column("c", false)];
        assert_eq!(
            bound(&columns, &cursor, Side::Behind).as_deref(),
            Some("a >= 1 AND (a > 1 OR (a = 1 AND (b < 2 OR (b = 2 AND c > 3))))")
        );
        assert_eq!(
            bound(&columns, &cursor, Side::UpTo).as_deref(),
            Some("a <= 1 AND (a < 1 OR (a = 1 AND (b > 2 OR (b = 2 AND c <= 3))))")
        );
        assert_eq!(bound(&columns[..1], &Cursor::parse("7").expect("a cursor"), Side::UpTo).as_deref(), Some("a <= 7"));
        assert_eq!(bound(&columns[..2], &cursor, Side::Behind), None);
    }
}
