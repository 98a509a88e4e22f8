//! MySQL's partial updates of JSON (`binlog_row_value_options=PARTIAL_JSON`),
//! applied to the value of the row before.
//!
//! ```text
//!   diff    operation (0 replace, 1 insert, 2 remove), path, value (not for remove)
//!   path    length, text: $.name."a name"[3][last]
//!   value   length, the binary form of a document
//! ```
//! Lengths are MySQL's length-encoded integers. (MySQL, `sql-common/json_diff.cc`.)

use std::borrow::Cow;

use figvine_change::ValueError;

use super::json::{Budget, DEPTH, Item, MAX_DEPTH, TEXT, push_name, write_scalar};
use super::json_text::unescape;
use super::{Outcome, error};

const TRUNCATED: &str = "has a difference that ends too early";
const PATH: &str = "has a difference whose path cannot be read";
const MISSING: &str = "has a difference for a place that the value before does not have";

/// Appends the document that comes of applying differences to `old`: JSON text
/// behind [`TEXT`], which the codec of JSON columns takes as it takes the binary form.
///
/// `old` is the whole value before, binary form; `diffs` what stands in the row
/// image behind its four bytes of length.
///
/// # Errors
/// When either cannot be read, or when the differences do not fit the value: it
/// is not the one they were made from. What was appended is meaningless then.
pub fn apply(old: &[u8], diffs: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
    apply_all(old, diffs, out).map_err(|reason| error("json", reason))
}

fn apply_all(old: &[u8], diffs: &[u8], out: &mut Vec<u8>) -> Outcome {
    let mut root = read_document(old)?;
    let mut rest = diffs;
    while let Some((&operation, tail)) = rest.split_first() {
        let (path, tail) = sized(tail)?;
        let legs = path_legs(std::str::from_utf8(path).map_err(|_| PATH)?)?;
        rest = tail;
        let mut value = None;
        if operation < 2 {
            let (document, tail) = sized(rest)?;
            value = Some(read_document(document)?);
            rest = tail;
        }
        match (operation, value) {
            (0, Some(value)) => *root.seek(&legs)? = value,
            (1, Some(value)) => root.insert(&legs, value)?,
            (2, None) => root.remove(&legs)?,
            _ => return Err("has a difference of an unknown kind"),
        }
    }
    out.push(TEXT);
    root.write(MAX_DEPTH, out)
}

/// A document that can be changed.
#[derive(Debug)]
enum Node<'a> {
    Scalar(Item<'a>),
    Array(Vec<Node<'a>>),
    /// In the server's order: by the length of the name, then by its bytes.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

/// A step of a path.
#[derive(Debug)]
enum Leg<'a> {
    Member(Cow<'a, str>),
    /// A cell, counted from the start.
    Cell(usize),
    /// A cell, counted from the last.
    FromLast(usize),
}

fn read_document(raw: &[u8]) -> Result<Node<'_>, &'static str> {
    if raw.is_empty() {
        return Ok(Node::Scalar(Item::Null));
    }
    let mut budget = Budget::of(raw);
    let item = budget.document(raw)?;
    read(item, MAX_DEPTH, &mut budget)
}

fn read<'a>(item: Item<'a>, depth: usize, budget: &mut Budget) -> Result<Node<'a>, &'static str> {
    let Item::Container(container) = item else { return Ok(Node::Scalar(item)) };
    let depth = depth.checked_sub(1).ok_or(DEPTH)?;
    let mut member = |index| -> Result<(Cow<'a, str>, Node<'a>), &'static str> {
        let (name, item) = budget.member(&container, index)?;
        Ok((Cow::Borrowed(name), read(item, depth, budget)?))
    };
    if container.is_object {
        return Ok(Node::Object((0..container.count).map(&mut member).collect::<Result<_, _>>()?));
    }
    let cells = (0..container.count).map(|index| member(index).map(|(_, node)| node));
    Ok(Node::Array(cells.collect::<Result<_, _>>()?))
}

impl<'a> Node<'a> {
    /// What a path leads to. A value that is no array is also its own only cell.
    fn seek(&mut self, legs: &[Leg<'_>]) -> Result<&mut Self, &'static str> {
        let mut node = self;
        for leg in legs {
            node = match (node, leg) {
                (Node::Object(members), Leg::Member(name)) => {
                    members.iter_mut().find(|(member, _)| member == name).map(|(_, node)| node).ok_or(MISSING)?
                }
                (Node::Array(cells), Leg::Cell(index)) => cells.get_mut(*index).ok_or(MISSING)?,
                (Node::Array(cells), Leg::FromLast(back)) => {
                    let index = cells.len().checked_sub(back + 1).ok_or(MISSING)?;
                    cells.get_mut(index).ok_or(MISSING)?
                }
                (node @ (Node::Object(_) | Node::Scalar(_)), Leg::Cell(0) | Leg::FromLast(0)) => node,
                _ => return Err(MISSING),
            };
        }
        Ok(node)
    }

    fn insert(&mut self, legs: &[Leg<'_>], value: Node<'a>) -> Outcome {
        let (leg, parents) = legs.split_last().ok_or(PATH)?;
        match (self.seek(parents)?, leg) {
            (Node::Object(members), Leg::Member(name)) => {
                let place = members.partition_point(|(member, _)| (member.len(), &**member) < (name.len(), &**name));
                if members.get(place).is_some_and(|(member, _)| member == name) {
                    return Err("has a difference that inserts a member again");
                }
                members.insert(place, (Cow::Owned(name.clone().into_owned()), value));
            }
            (Node::Array(cells), Leg::Cell(index)) => cells.insert((*index).min(cells.len()), value),
            (Node::Array(cells), Leg::FromLast(back)) => cells.insert(cells.len().saturating_sub(back + 1), value),
            _ => return Err(MISSING),
        }
        Ok(())
    }

    fn remove(&mut self, legs: &[Leg<'_>]) -> Outcome {
        let (leg, parents) = legs.split_last().ok_or(PATH)?;
        match (self.seek(parents)?, leg) {
            (Node::Object(members), Leg::Member(name)) => {
                let place = members.iter().position(|(member, _)| member == name).ok_or(MISSING)?;
                members.remove(place);
            }
            (Node::Array(cells), Leg::Cell(index)) if *index < cells.len() => drop(cells.remove(*index)),
            (Node::Array(cells), Leg::FromLast(back)) if *back < cells.len() => {
                let index = cells.len() - 1 - back;
                cells.remove(index);
            }
            _ => return Err(MISSING),
        }
        Ok(())
    }

    fn write(&self, depth: usize, out: &mut Vec<u8>) -> Outcome {
        if let Node::Scalar(item) = self {
            return write_scalar(item, out);
        }
        let depth = depth.checked_sub(1).ok_or(DEPTH)?;
        match self {
            Node::Scalar(_) => {}
            Node::Array(cells) => {
                out.push(b'[');
                for (index, cell) in cells.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    cell.write(depth, out)?;
                }
                out.push(b']');
            }
            Node::Object(members) => {
                out.push(b'{');
                for (index, (name, member)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    push_name(name, out);
                    member.write(depth, out)?;
                }
                out.push(b'}');
            }
        }
        Ok(())
    }
}

/// Bytes behind a length-encoded integer, and what follows.
fn sized(data: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let (&first, rest) = data.split_first().ok_or(TRUNCATED)?;
    let width = match first {
        ..=250 => return rest.split_at_checked(first.into()).ok_or(TRUNCATED),
        252 => 2,
        253 => 3,
        254 => 8,
        _ => return Err(TRUNCATED),
    };
    let (len, rest) = rest.split_at_checked(width).ok_or(TRUNCATED)?;
    let len = len.iter().rev().fold(0_u64, |len, &byte| len << 8 | u64::from(byte));
    usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len)).ok_or(TRUNCATED)
}

/// The steps of `$.name."a name"[3][last-1]`.
fn path_legs(path: &str) -> Result<Vec<Leg<'_>>, &'static str> {
    let mut rest = path.strip_prefix('$').ok_or(PATH)?;
    let mut legs = Vec::new();
    while !rest.is_empty() {
        if let Some(name) = rest.strip_prefix(".\"") {
            let (name, tail) = quoted_name(name).ok_or(PATH)?;
            legs.push(Leg::Member(name));
            rest = tail;
        } else if let Some(name) = rest.strip_prefix('.') {
            let (name, tail) = name.split_at(name.find(['.', '[']).unwrap_or(name.len()));
            if name.is_empty() {
                return Err(PATH);
            }
            legs.push(Leg::Member(Cow::Borrowed(name)));
            rest = tail;
        } else {
            let (cell, tail) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).ok_or(PATH)?;
            let number = |text: &str| text.trim().parse().map_err(|_| PATH);
            legs.push(match cell.trim().strip_prefix("last") {
                None => Leg::Cell(number(cell)?),
                Some("") => Leg::FromLast(0),
                Some(back) => Leg::FromLast(number(back.trim_start().strip_prefix('-').ok_or(PATH)?)?),
            });
            rest = tail;
        }
        if legs.len() > MAX_DEPTH {
            return Err(DEPTH);
        }
    }
    Ok(legs)
}

/// A name whose opening quote was read, and what follows its closing quote.
fn quoted_name(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut name = Cow::Borrowed("");
    let mut rest = text;
    loop {
        let (plain, tail) = rest.split_at_checked(rest.find(['"', '\\'])?)?;
        name += plain;
        if let Some(tail) = tail.strip_prefix('"') {
            return Some((name, tail));
        }
        let (char, behind) = unescape(tail.strip_prefix('\\')?)?;
        name.to_mut().push(char);
        rest = behind;
    }
}

#[cfg(test)]
mod tests;
