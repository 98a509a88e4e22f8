//! The text of a chunk's query; pure.
//!
//! What stands behind a key is asked for so that the btree which keeps the key answers it by itself, from that place
//! on and in its order: a comparison of whole rows where all columns go the same way by PostgreSQL's own operators,
//! else column by column.

use super::shape::{KeyColumn, Shape};
use crate::session::quoted;

/// A value as SQL; `None` for what cannot be written as text: NUL, or bytes that are no UTF-8.
pub(super) fn literal(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok().filter(|text| !text.contains('\0'))?;
    // The escape form reads the same whatever `standard_conforming_strings` says.
    Some(format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")))
}

/// The values of a key as SQL, each of its column's type; `None` when they are not as many or no text.
pub(super) fn literals(order: &[KeyColumn], values: &[Vec<u8>]) -> Option<Vec<String>> {
    if order.len() != values.len() {
        return None;
    }
    let cast = |(column, value): (&KeyColumn, &Vec<u8>)| Some(format!("{}::{}", literal(value)?, column.base_type));
    order.iter().zip(values).map(cast).collect()
}

/// What bounds a chunk.
#[derive(Debug, Default)]
pub(super) struct Bounds<'a> {
    /// Literals of the key that the rows lie behind.
    pub(super) after: Option<Vec<String>>,
    /// Literals of the last key.
    pub(super) upto: Option<Vec<String>>,
    /// The user's own condition.
    pub(super) condition: Option<&'a str>,
    pub(super) rows: u32,
}

/// Rows in the order of the key.
pub(super) fn by_key(shape: &Shape, order: &[KeyColumn], bounds: &Bounds<'_>) -> String {
    let after = bounds.after.as_ref().map(|key| side(order, key, Side { is_behind: true, is_inclusive: false }));
    let upto = bounds.upto.as_ref().map(|key| side(order, key, Side { is_behind: false, is_inclusive: true }));
    copy(&columns(shape), &whole(shape), [after, upto], shape, bounds, &sorted(order))
}

/// Rows for which `sought` is true, by their key where they have one.
pub(super) fn sought(shape: &Shape, sought: &str) -> String {
    let filter = shape.filter.as_ref().map_or_else(String::new, |filter| format!(" AND ({filter})"));
    let order = shape.order.as_deref().map_or_else(String::new, sorted);
    format!("COPY (SELECT {} FROM {} WHERE {sought}{filter}{order}) TO STDOUT", columns(shape).join(", "), whole(shape))
}

/// Only with ONLY a table that others inherit from gives its own rows alone, as the log does.
fn whole(shape: &Shape) -> String {
    let only = if shape.is_partitioned { "" } else { "ONLY " };
    format!("{only}{}", shape.quoted_name())
}

fn sorted(order: &[KeyColumn]) -> String {
    let sorted: Vec<String> = order.iter().map(KeyColumn::sorted).collect();
    format!(" ORDER BY {}", sorted.join(", "))
}

/// Rows as they lie on disk, each with its place (`ctid`) and the transaction that made it (`xmin`) behind its columns.
pub(super) fn by_place(shape: &Shape, part: &str, after: &str, upto: Option<&str>, bounds: &Bounds<'_>) -> String {
    let mut columns = columns(shape);
    columns.extend(["ctid".to_owned(), "xmin".to_owned()]);
    let after = Some(format!("ctid > '{after}'"));
    let upto = upto.map(|upto| format!("ctid <= '{upto}'"));
    copy(&columns, &format!("ONLY {part}"), [after, upto], shape, bounds, "")
}

fn columns(shape: &Shape) -> Vec<String> {
    shape.table.columns.iter().map(|column| quoted(&column.name)).collect()
}

fn copy(
    columns: &[String],
    from: &str,
    sides: [Option<String>; 2],
    shape: &Shape,
    bounds: &Bounds<'_>,
    order: &str,
) -> String {
    let filter = shape.filter.as_ref().map(|filter| format!("({filter})"));
    // A comment at the end of the user's condition ends with its line. And a parenthesis too many is an error, where in
    // parentheses alone `a) or (b` would undo the bounds.
    let condition = bounds.condition.map(|condition| format!("CASE WHEN {condition}\nTHEN true END"));
    let all: Vec<String> = sides.into_iter().chain([filter, condition]).flatten().collect();
    let filtered = if all.is_empty() { String::new() } else { format!(" WHERE {}", all.join(" AND ")) };
    format!("COPY (SELECT {} FROM {from}{filtered}{order} LIMIT {}) TO STDOUT", columns.join(", "), bounds.rows)
}

/// Which rows, seen from a key.
#[derive(Debug, Clone, Copy)]
struct Side {
    is_behind: bool,
    is_inclusive: bool,
}

fn side(order: &[KeyColumn], key: &[String], side: Side) -> String {
    let Some(first) = order.first().zip(key.first()) else { return "true".into() };
    let loose = |column: &KeyColumn| column.operators.loose(side.is_behind != column.is_descending).to_owned();
    if order.len() > 1 && order.iter().all(|c| c.operators.are_plain && c.is_descending == first.0.is_descending) {
        let names: Vec<String> = order.iter().map(KeyColumn::compared).collect();
        let operator = if side.is_inclusive { loose(first.0) } else { strict(first.0, side).to_owned() };
        return format!("({}) {operator} ({})", names.join(", "), key.join(", "));
    }
    let all = nested(order, key, side);
    if order.len() == 1 {
        return all;
    }
    // It follows from what comes behind it, but only it is what a btree can begin with.
    format!("{} {} {} AND ({all})", first.0.compared(), loose(first.0), first.1)
}

fn strict(column: &KeyColumn, side: Side) -> &str {
    column.operators.strict(side.is_behind != column.is_descending)
}

fn nested(order: &[KeyColumn], key: &[String], side: Side) -> String {
    let (Some((column, order)), Some((value, key))) = (order.split_first(), key.split_first()) else {
        return if side.is_inclusive { "true".into() } else { "false".into() };
    };
    let name = column.compared();
    if order.is_empty() {
        let forward = side.is_behind != column.is_descending;
        let operator =
            if side.is_inclusive { column.operators.loose(forward) } else { column.operators.strict(forward) };
        return format!("{name} {operator} {value}");
    }
    let rest = nested(order, key, side);
    format!("{name} {} {value} OR {name} {} {value} AND ({rest})", strict(column, side), column.operators.equal)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use figvine_change::{Column, Table};

    use super::super::shape::{Operators, shape_for_tests};
    use super::*;
    use crate::config::ValueOptions;
    use crate::value::Types;

    fn column(name: &str, base_type: &str) -> KeyColumn {
        KeyColumn {
            column: 0,
            name: name.into(),
            base_type: base_type.into(),
            is_domain: false,
            collation: None,
            is_descending: false,
            nulls_first: false,
            operators: Operators::plain(),
        }
    }

    fn shape(names: &[&str]) -> Shape {
        let types = Types::new(&ValueOptions::default());
        let column = |name: &&str| Column { name: (*name).into(), type_name: "text".into(), codec: types.codec(25) };
        shape_for_tests(Arc::new(Table {
            schema: "public".into(),
            name: "t".into(),
            columns: names.iter().map(column).collect(),
            key: vec![0],
        }))
    }

    fn text(order: &[KeyColumn], after: &[&[u8]], upto: Option<&[&[u8]]>, condition: Option<&str>) -> String {
        let literals = |key: &[&[u8]]| {
            let key: Vec<Vec<u8>> = key.iter().map(|value| value.to_vec()).collect();
            literals(order, &key).expect("literals")
        };
        let bounds = Bounds { after: Some(literals(after)), upto: upto.map(literals), condition, rows: 3 };
        by_key(&shape(&["a", "b"]), order, &bounds)
    }

    #[test]
    fn a_key_of_one_column_is_one_comparison() {
        insta::assert_snapshot!(
            text(&[column("a", "text")], &[br"it's a \"], None, None),
            @r#"COPY (SELECT "a", "b" FROM ONLY "public"."t" WHERE "a" > E'it''s a \\'::text ORDER BY "a" LIMIT 3) TO STDOUT"#
        );
    }

    #[test]
    fn columns_that_go_the_same_way_are_compared_as_a_row() {
        let order = [column("a", "integer"), column("odd \"b\"", "uuid")];
        insta::assert_snapshot!(
            text(&order, &[b"1", b"u"], Some(&[b"2", b"v"]), Some("x = 1 -- mine")),
            @r#"
        COPY (SELECT "a", "b" FROM ONLY "public"."t" WHERE ("a", "odd ""b""") > (E'1'::integer, E'u'::uuid) AND ("a", "odd ""b""") <= (E'2'::integer, E'v'::uuid) AND CASE WHEN x = 1 -- mine
        THEN true END ORDER BY "a", "odd ""b""" LIMIT 3) TO STDOUT
        "#
        );
        let down = order.map(|column| KeyColumn { is_descending: true, nulls_first: true, ..column });
        insta::assert_snapshot!(
            text(&down, &[b"1", b"u"], None, None),
            @r#"COPY (SELECT "a", "b" FROM ONLY "public"."t" WHERE ("a", "odd ""b""") < (E'1'::integer, E'u'::uuid) ORDER BY "a" DESC, "odd ""b""" DESC LIMIT 3) TO STDOUT"#
        );
    }

    #[test]
    fn columns_that_go_different_ways_or_by_operators_of_an_extension_are_compared_one_by_one() {
        let down = KeyColumn { is_descending: true, nulls_first: true, ..column("b", "integer") };
        insta::assert_snapshot!(
            text(&[column("a", "integer"), down], &[b"1", b"2"], Some(&[b"5", b"6"]), None),
            @r#"COPY (SELECT "a", "b" FROM ONLY "public"."t" WHERE "a" >= E'1'::integer AND ("a" > E'1'::integer OR "a" = E'1'::integer AND ("b" < E'2'::integer)) AND "a" <= E'5'::integer AND ("a" < E'5'::integer OR "a" = E'5'::integer AND ("b" >= E'6'::integer)) ORDER BY "a", "b" DESC LIMIT 3) TO STDOUT"#
        );
        let citext = KeyColumn {
            collation: Some("\"C\"".into()),
            operators: Operators::named("public", &["<", "<=", "=", ">=", ">"].map(str::to_owned)),
            ..column("a", "public.citext")
        };
        insta::assert_snapshot!(
            text(&[citext], &[b"x"], None, None),
            @r#"COPY (SELECT "a", "b" FROM ONLY "public"."t" WHERE ("a" COLLATE "C") OPERATOR("public".>) E'x'::public.citext ORDER BY ("a" COLLATE "C") USING OPERATOR("public".<) LIMIT 3) TO STDOUT"#
        );
    }

    #[test]
    fn what_does_not_fit_the_key_is_no_literal() {
        let order = [column("a", "text")];
        assert_eq!(literals(&order, &[]), None);
        assert_eq!(literals(&order, &[b"a\0".to_vec()]), None);
        assert_eq!(literals(&order, &[b"\xff".to_vec()]), None);
    }
}
