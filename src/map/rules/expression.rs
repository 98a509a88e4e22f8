//! Expressions in CEL, the Common Expression Language, over the rows of a change.
//!
//! The crate `cel` parses and expands macros; what it parsed is compiled here to a tree in which columns are slots, and run
//! over the JSON of just those columns. (Its own interpreter takes 0.6-1.1 us for one to three comparisons with columns that
//! are values already, and 86 us to make a context; here a rule with two comparisons costs 0.4 us a row, its columns read
//! from the log included. And it knows doubles where we need exact decimals.)
//!
//! What differs from CEL's definition: `int` and `uint` are one type; `decimal` is a type of its own, exact, that mixes
//! with `int`; `sum(list)` adds; timestamps are strings, and strings of one form sort by time; there are no protocol
//! buffers, durations and optionals.

mod compile;
mod decimal;
mod run;
mod value;

use std::ops::Range;

pub(super) use compile::Node;
pub(super) use run::{Scope, Slot, Tx};
pub(super) use value::{Reading, Value};

/// Which row of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Side {
    After,
    Before,
}

impl Side {
    /// As expressions name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::After => "after",
            Self::Before => "before",
        }
    }
}

/// An expression that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(super) struct SyntaxError {
    /// Where in its text, in characters.
    pub(super) at: Range<usize>,
    pub(super) what: String,
}

/// Why an expression has no value for a row; never tells values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// Of an insert there is no row before, of a delete none after; and the log gives old rows only if it is told to.
    #[error("there is no row `{0}`")]
    NoRow(&'static str),
    /// See [`figvine_change::Cell::Unchanged`].
    #[error("the log does not carry column {0}")]
    NotCarried(Box<str>),
    /// The operator or function is not there for these types.
    #[error("{0} is not there for {1}")]
    NoOverload(&'static str, String),
    /// A member that is not there.
    #[error("there is no member {0}")]
    NoMember(Box<str>),
    /// An index outside of its list.
    #[error("an index lies outside of its list")]
    OutOfBounds,
    /// More than 64 bits, or more than 38 digits.
    #[error("a number is larger than can be held exactly")]
    Overflow,
    /// By zero.
    #[error("a division by zero")]
    DivisionByZero,
    /// A text that is none of what it should be.
    #[error("a value is not {0} that can be read")]
    Unreadable(&'static str),
}

impl EvalError {
    fn no_overload(what: &'static str, a: &Value<'_>, b: &Value<'_>) -> Self {
        Self::NoOverload(what, format!("{} and {}", a.type_name(), b.type_name()))
    }

    fn not_for(what: &'static str, a: &Value<'_>) -> Self {
        Self::NoOverload(what, a.type_name().to_owned())
    }
}

/// A compiled expression.
#[derive(Debug, Clone)]
pub(super) struct Expression {
    root: Node,
    locals: usize,
}

/// What expressions of one rule may speak of, and what of it they do.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The lists of an aggregate's parts.
    pub(super) parts: Vec<Box<str>>,
    /// The columns that are read, each once: the slots.
    pub(super) columns: Vec<(Side, Box<str>)>,
    /// Whether whole rows are.
    pub(super) rows: [bool; 2],
    /// The lists that are read.
    pub(super) read_parts: Vec<usize>,
}

impl Names {
    /// The slot of a column.
    pub(super) fn slot(&mut self, side: Side, name: &str) -> usize {
        let known = self.columns.iter().position(|(s, n)| *s == side && **n == *name);
        known.unwrap_or_else(|| {
            self.columns.push((side, name.into()));
            self.columns.len() - 1
        })
    }
}

impl Expression {
    /// Compiles.
    ///
    /// # Errors
    /// When it is no CEL, or speaks of what is not there.
    pub(super) fn compile(text: &str, names: &mut Names) -> Result<Self, SyntaxError> {
        let (root, locals) = compile::compile(text, names)?;
        Ok(Self { root, locals })
    }

    /// A column as it stands.
    pub(super) fn column(side: Side, name: &str, names: &mut Names) -> Self {
        Self { root: Node::Column(names.slot(side, name)), locals: 0 }
    }

    /// The slot, where it is nothing but a column.
    pub(super) fn as_slot(&self) -> Option<usize> {
        match self.root {
            Node::Column(slot) => Some(slot),
            _ => None,
        }
    }

    /// The list of parts, where it is nothing but one.
    pub(super) fn as_parts(&self) -> Option<usize> {
        match self.root {
            Node::Parts(place) => Some(place),
            _ => None,
        }
    }

    /// Runs.
    ///
    /// # Errors
    /// Where it has no value.
    pub(super) fn run<'a>(&'a self, scope: &Scope<'a>) -> Result<Value<'a>, EvalError> {
        run::run(&self.root, scope, &mut Vec::with_capacity(self.locals))
    }

    /// Runs one that is a condition.
    ///
    /// # Errors
    /// Where it has no value, or none that is true or false.
    pub(super) fn holds(&self, scope: &Scope<'_>) -> Result<bool, EvalError> {
        match self.run(scope)?.opened()? {
            Value::Bool(holds) => Ok(holds),
            other => Err(EvalError::not_for("a condition", &other)),
        }
    }
}

#[cfg(test)]
mod tests;
