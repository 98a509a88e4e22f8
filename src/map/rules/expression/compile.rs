//! From what the parser gives to the tree that runs.

use std::ops::Range;

use cel::Program;
use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};

use super::decimal::Decimal;
use super::{Names, Side, SyntaxError};
use crate::map::rules::nearest;

/// A node of the tree.
#[derive(Debug, Clone)]
pub(in crate::map::rules) enum Node {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(Box<str>),
    /// A slot.
    Column(usize),
    /// Whether the log carried a slot's column.
    Carried(usize),
    Row(Side),
    /// Whether there is no such row.
    NoRow(Side),
    Parts(usize),
    Tx(TxField),
    Local(usize),
    Member(Box<Node>, Box<str>),
    HasMember(Box<Node>, Box<str>),
    Index(Box<Node>, Box<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Conditional(Box<[Node; 3]>),
    Equal(Box<Node>, Box<Node>),
    Compare(Comparison, Box<Node>, Box<Node>),
    Arithmetic(Operator, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
    Matches(Box<Node>, regex::Regex),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Loop(Box<Loop>),
}

/// What macros over lists become.
#[derive(Debug, Clone)]
pub(in crate::map::rules) struct Loop {
    pub(super) range: Node,
    pub(super) start: Node,
    pub(super) goes_on: Node,
    pub(super) step: Node,
    pub(super) result: Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::map::rules) enum TxField {
    Id,
    Position,
    CommittedAt,
    Origin,
    Traceparent,
}

const TX: [(&str, TxField); 5] = [
    ("id", TxField::Id),
    ("position", TxField::Position),
    ("committed_at", TxField::CommittedAt),
    ("origin", TxField::Origin),
    ("traceparent", TxField::Traceparent),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::map::rules) enum Comparison {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::map::rules) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::map::rules) enum Function {
    Size,
    StartsWith,
    EndsWith,
    Contains,
    String,
    Int,
    Double,
    Decimal,
    LowerAscii,
    UpperAscii,
    Trim,
    Sum,
    /// Of the loops of macros: an error counts as true.
    NotStrictlyFalse,
}

/// Name, number of arguments with the target.
const FUNCTIONS: [(&str, usize, Function); 13] = [
    ("size", 1, Function::Size),
    ("startsWith", 2, Function::StartsWith),
    ("endsWith", 2, Function::EndsWith),
    ("contains", 2, Function::Contains),
    ("string", 1, Function::String),
    ("int", 1, Function::Int),
    ("double", 1, Function::Double),
    ("decimal", 1, Function::Decimal),
    ("lowerAscii", 1, Function::LowerAscii),
    ("upperAscii", 1, Function::UpperAscii),
    ("trim", 1, Function::Trim),
    ("sum", 1, Function::Sum),
    (operators::NOT_STRICTLY_FALSE, 1, Function::NotStrictlyFalse),
];

/// A deeper one is refused: it is parsed and run by recursion.
const DEPTH_MAX: usize = 96;
/// Brackets within brackets.
const NESTED_MAX: usize = 64;
/// Of the characters that make the parser go deeper without brackets.
const CHAIN_MAX: usize = 500;
/// Stack for that: the parser's frames are large, and it looks late how deep it is.
const STACK: usize = 512 << 20;

pub(super) fn compile(text: &str, names: &mut Names) -> Result<(Node, usize), SyntaxError> {
    refuse_deep(text)?;
    // Only what is touched of the stack is ever memory.
    let compiled = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || parse(text, names));
        thread.map(std::thread::ScopedJoinHandle::join)
    });
    match compiled {
        Ok(Ok(compiled)) => compiled,
        Ok(Err(_)) | Err(_) => Err(SyntaxError { at: 0..1, what: "cannot be parsed".into() }),
    }
}

fn parse(text: &str, names: &mut Names) -> Result<(Node, usize), SyntaxError> {
    let program = Program::compile(text).map_err(|errors| {
        let whole = || 0..text.chars().count();
        match errors.errors.first() {
            Some(error) => {
                let (line, column) = error.pos;
                let before: usize = text
                    .split_inclusive('\n')
                    .take(usize::try_from(line - 1).unwrap_or(0))
                    .map(|l| l.chars().count())
                    .sum();
                let at = before + usize::try_from(column - 1).unwrap_or(0);
                let what = error.msg.strip_prefix("Syntax error: ").unwrap_or(&error.msg);
                let what = what.split(" expecting {").next().unwrap_or(what);
                SyntaxError { at: at..at + 1, what: format!("not an expression: {what}") }
            }
            None => SyntaxError { at: whole(), what: "not an expression".into() },
        }
    })?;
    let mut compiler = Compiler { names, info: program.source_info(), locals: Vec::new(), most: 0, depth: 0 };
    let root = compiler.node(program.expression())?;
    Ok((root, compiler.most))
}

/// The parser goes down by recursion, before it looks how deep it is: a file must not end the program.
fn refuse_deep(text: &str) -> Result<(), SyntaxError> {
    let (mut open, mut chain) = (0_usize, 0);
    for (at, character) in text.chars().enumerate() {
        match character {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            '.' | '?' | '!' | '-' => chain += 1,
            _ => {}
        }
        if open > NESTED_MAX || chain > CHAIN_MAX {
            return Err(SyntaxError { at: at..at + 1, what: "deeper than an expression may be".into() });
        }
    }
    Ok(())
}

struct Compiler<'a> {
    names: &'a mut Names,
    info: &'a SourceInfo,
    locals: Vec<String>,
    most: usize,
    depth: usize,
}

impl Compiler<'_> {
    fn error<T>(&self, expr: &IdedExpr, what: impl Into<String>) -> Result<T, SyntaxError> {
        let (start, stop) = self.info.offset_for(expr.id).unwrap_or_default();
        let at: Range<usize> = start as usize..(stop as usize + 1).max(start as usize + 1);
        Err(SyntaxError { at, what: what.into() })
    }

    fn boxed(&mut self, expr: &IdedExpr) -> Result<Box<Node>, SyntaxError> {
        self.node(expr).map(Box::new)
    }

    fn node(&mut self, expr: &IdedExpr) -> Result<Node, SyntaxError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.error(expr, format!("more than {DEPTH_MAX} levels deep"));
        }
        let node = self.node_inside(expr);
        self.depth -= 1;
        node
    }

    fn node_inside(&mut self, expr: &IdedExpr) -> Result<Node, SyntaxError> {
        Ok(match &expr.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Null => Node::Null,
                LiteralValue::Boolean(value) => Node::Bool(*value.inner()),
                LiteralValue::Int(value) => Node::Int((*value.inner()).into()),
                LiteralValue::UInt(value) => Node::Int((*value.inner()).into()),
                LiteralValue::Double(value) => Node::Float(*value.inner()),
                LiteralValue::String(value) => Node::Text(value.inner().into()),
                LiteralValue::Bytes(_) => return self.error(expr, "bytes are strings here, in base64"),
            },
            Expr::Ident(name) => self.name(expr, name)?,
            Expr::Select(select) => {
                if let Some((side, name)) = self.row_column(&select.operand, &select.field) {
                    let slot = self.names.slot(side, name);
                    return Ok(if select.test { Node::Carried(slot) } else { Node::Column(slot) });
                }
                if matches!(&select.operand.expr, Expr::Ident(name) if name == "tx" && !self.is_local("tx")) {
                    return match TX.iter().find(|(name, _)| *name == select.field) {
                        Some((_, field)) => Ok(Node::Tx(*field)),
                        None => {
                            let near = nearest(&select.field, TX.iter().map(|(name, _)| *name));
                            self.error(expr, format!("tx has no '{}'{near}", select.field))
                        }
                    };
                }
                let of = self.boxed(&select.operand)?;
                let name = select.field.as_str().into();
                if select.test { Node::HasMember(of, name) } else { Node::Member(of, name) }
            }
            Expr::Call(call) => self.call(expr, &call.func_name, call.target.as_deref(), &call.args)?,
            Expr::List(list) if list.optional_indices.is_empty() => {
                Node::List(list.elements.iter().map(|item| self.node(item)).collect::<Result<_, _>>()?)
            }
            Expr::Map(map) => {
                let mut members = Vec::new();
                for entry in &map.entries {
                    match &entry.expr {
                        EntryExpr::MapEntry(entry) if !entry.optional => {
                            members.push((self.node(&entry.key)?, self.node(&entry.value)?));
                        }
                        _ => return self.error(expr, "there are no optional members here"),
                    }
                }
                Node::Map(members)
            }
            Expr::Comprehension(macro_) if macro_.iter_var2.is_none() => {
                let range = self.node(&macro_.iter_range)?;
                let start = self.node(&macro_.accu_init)?;
                self.locals.push(macro_.accu_var.clone());
                self.locals.push(macro_.iter_var.clone());
                self.most = self.most.max(self.locals.len());
                let goes_on = self.node(&macro_.loop_cond)?;
                let step = self.node(&macro_.loop_step)?;
                self.locals.pop();
                let result = self.node(&macro_.result)?;
                self.locals.pop();
                Node::Loop(Box::new(Loop { range, start, goes_on, step, result }))
            }
            Expr::Unspecified | Expr::List(_) | Expr::Comprehension(_) | Expr::Struct(_) => {
                return self.error(expr, "this form is not there");
            }
        })
    }

    fn is_local(&self, name: &str) -> bool {
        self.locals.iter().any(|local| local == name)
    }

    fn side(&self, expr: &IdedExpr) -> Option<Side> {
        match &expr.expr {
            Expr::Ident(name) if self.is_local(name) => None,
            Expr::Ident(name) => [Side::After, Side::Before].into_iter().find(|side| side.name() == name),
            _ => None,
        }
    }

    /// `after.total`.
    fn row_column<'e>(&self, operand: &IdedExpr, field: &'e str) -> Option<(Side, &'e str)> {
        self.side(operand).map(|side| (side, field))
    }

    fn name(&mut self, expr: &IdedExpr, name: &str) -> Result<Node, SyntaxError> {
        if let Some(place) = self.locals.iter().rposition(|local| local == name) {
            return Ok(Node::Local(place));
        }
        if let Some(side) = self.side(expr) {
            if let Some(row) = self.names.rows.get_mut(side as usize) {
                *row = true;
            }
            return Ok(Node::Row(side));
        }
        if let Some(place) = self.names.parts.iter().position(|part| **part == *name) {
            self.names.read_parts.push(place);
            return Ok(Node::Parts(place));
        }
        let known = ["after", "before", "tx"].into_iter().chain(self.names.parts.iter().map(|part| &**part));
        let near = nearest(name, known);
        self.error(expr, format!("'{name}' is not there; columns stand as after.{name} or before.{name}{near}"))
    }

    fn call(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        target: Option<&IdedExpr>,
        args: &[IdedExpr],
    ) -> Result<Node, SyntaxError> {
        let arithmetic = match name {
            operators::ADD => Some(Operator::Add),
            operators::SUBSTRACT => Some(Operator::Subtract),
            operators::MULTIPLY => Some(Operator::Multiply),
            operators::DIVIDE => Some(Operator::Divide),
            operators::MODULO => Some(Operator::Modulo),
            _ => None,
        };
        let comparison = match name {
            operators::LESS => Some(Comparison::Less),
            operators::LESS_EQUALS => Some(Comparison::LessEqual),
            operators::GREATER => Some(Comparison::Greater),
            operators::GREATER_EQUALS => Some(Comparison::GreaterEqual),
            _ => None,
        };
        Ok(match (name, args) {
            (operators::LOGICAL_NOT, [of]) => Node::Not(self.boxed(of)?),
            (operators::NEGATE, [of]) => Node::Negate(self.boxed(of)?),
            (operators::LOGICAL_AND, [a, b]) => Node::And(self.boxed(a)?, self.boxed(b)?),
            (operators::LOGICAL_OR, [a, b]) => Node::Or(self.boxed(a)?, self.boxed(b)?),
            (operators::CONDITIONAL, [a, b, c]) => {
                Node::Conditional(Box::new([self.node(a)?, self.node(b)?, self.node(c)?]))
            }
            (operators::EQUALS, [a, b]) => self.equal(a, b)?,
            (operators::NOT_EQUALS, [a, b]) => Node::Not(Box::new(self.equal(a, b)?)),
            (operators::IN, [a, b]) => Node::In(self.boxed(a)?, self.boxed(b)?),
            (operators::INDEX, [of, index]) => match (&index.expr, self.side(of)) {
                (Expr::Literal(LiteralValue::String(column)), Some(side)) => {
                    Node::Column(self.names.slot(side, column.inner()))
                }
                _ => Node::Index(self.boxed(of)?, self.boxed(index)?),
            },
            (_, [a, b]) if arithmetic.is_some() || comparison.is_some() => {
                let (a, b) = (self.boxed(a)?, self.boxed(b)?);
                match (arithmetic, comparison) {
                    (Some(operator), _) => Node::Arithmetic(operator, a, b),
                    (_, Some(comparison)) => Node::Compare(comparison, a, b),
                    (None, None) => Node::Null,
                }
            }
            _ => self.function(expr, name, target, args)?,
        })
    }

    /// `before == null` asks for a row, not for all of its columns.
    fn equal(&mut self, a: &IdedExpr, b: &IdedExpr) -> Result<Node, SyntaxError> {
        let is_null = |expr: &IdedExpr| matches!(expr.expr, Expr::Literal(LiteralValue::Null));
        match (self.side(a), self.side(b)) {
            (Some(side), None) if is_null(b) => Ok(Node::NoRow(side)),
            (None, Some(side)) if is_null(a) => Ok(Node::NoRow(side)),
            _ => Ok(Node::Equal(self.boxed(a)?, self.boxed(b)?)),
        }
    }

    fn function(
        &mut self,
        expr: &IdedExpr,
        name: &str,
        target: Option<&IdedExpr>,
        args: &[IdedExpr],
    ) -> Result<Node, SyntaxError> {
        let all: Vec<&IdedExpr> = target.into_iter().chain(args).collect();
        if name == "matches" {
            let [of, pattern] = all.as_slice() else { return self.error(expr, "matches takes a string and a pattern") };
            let Expr::Literal(LiteralValue::String(pattern)) = &pattern.expr else {
                return self.error(expr, "the pattern of matches is a string that is written out");
            };
            return match regex::Regex::new(pattern.inner()) {
                Ok(regex) => Ok(Node::Matches(self.boxed(of)?, regex)),
                Err(error) => {
                    self.error(expr, format!("not a pattern: {}", error.to_string().lines().last().unwrap_or_default()))
                }
            };
        }
        let Some((_, count, function)) = FUNCTIONS.iter().find(|(known, ..)| *known == name) else {
            let near = nearest(
                name,
                FUNCTIONS.iter().map(|(known, ..)| *known).chain([
                    "matches",
                    "has",
                    "all",
                    "exists",
                    "exists_one",
                    "filter",
                    "map",
                ]),
            );
            return self.error(expr, format!("there is no function '{name}'{near}"));
        };
        if all.len() != *count {
            return self.error(
                expr,
                format!("{name} takes {count} value{}, with its target", if *count == 1 { "" } else { "s" }),
            );
        }
        if let (Function::Decimal, [IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }]) =
            (function, all.as_slice())
            && Decimal::parse(text.inner()).is_none()
        {
            return self.error(expr, "not a decimal of at most 38 digits");
        }
        Ok(Node::Call(*function, all.into_iter().map(|arg| self.node(arg)).collect::<Result<_, _>>()?))
    }
}
