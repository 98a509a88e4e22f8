//! Why rules cannot be applied to a change.

use figvine_change::ValueError;

use super::expression::EvalError;
use super::plan::PlanError;
use crate::event::Identity;

/// A change that rules cannot be applied to; no error tells values of rows.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// A rule does not fit its table.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// An expression has no value.
    #[error("change {identity} of {table}: rule {rule}: `{key}` cannot be evaluated")]
    Eval {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// The rule.
        rule: Box<str>,
        /// What of the rule.
        key: Box<str>,
        /// Why.
        source: EvalError,
    },
    /// The log does not tell whether a column changed.
    #[error("change {identity} of {table}: rule {rule}: the log does not tell whether column {column} changed")]
    Changed {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// The rule.
        rule: Box<str>,
        /// The column.
        column: Box<str>,
    },
    /// A value is none of its column's type.
    #[error("change {identity}: column {column} of {table} holds a value that cannot be read")]
    Value {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// The column.
        column: Box<str>,
        /// What is wrong with it.
        source: ValueError,
    },
    /// A row or message of the outbox is none.
    #[error("change {identity} of {table}: no event of an outbox: {what}")]
    Outbox {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// Why.
        what: &'static str,
    },
    /// An aggregate is larger than may be held.
    #[error(
        "transaction {transaction} changes {rows} rows that rule {rule} has to hold, more than aggregate.max_bytes allows"
    )]
    TooLarge {
        /// The transaction's position.
        transaction: Box<str>,
        /// The rule.
        rule: Box<str>,
        /// Rows.
        rows: u64,
    },
    /// Parts of one root that were looked up are more than may be held.
    #[error(
        "change {identity} of {table}: the parts that rule {rule} looks up are more than aggregate.max_bytes allows"
    )]
    Beyond {
        /// The change.
        identity: Identity,
        /// `schema.table`.
        table: Box<str>,
        /// The rule.
        rule: Box<str>,
    },
    /// Rows that an aggregate holds in a file cannot be written, or read again.
    #[error("transaction {transaction}: rows that rule {rule} holds in a temporary file cannot be written or read")]
    Spill {
        /// The transaction's position.
        transaction: Box<str>,
        /// The rule.
        rule: Box<str>,
        /// What the system says.
        source: std::io::Error,
    },
}

impl RuleError {
    /// A stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Plan(_) => "FV-3111",
            Self::Eval { .. } | Self::Changed { .. } => "FV-3112",
            Self::Value { .. } | Self::Outbox { .. } => "FV-3113",
            Self::TooLarge { .. } | Self::Beyond { .. } => "FV-3114",
            Self::Spill { .. } => "FV-3115",
        }
    }

    /// What is wrong, in one word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Plan(_) | Self::Eval { .. } | Self::Changed { .. } => "rule",
            Self::Value { .. } => "value",
            Self::Outbox { .. } => "outbox",
            Self::TooLarge { .. } | Self::Beyond { .. } => "too_large",
            Self::Spill { .. } => "spill",
        }
    }

    /// What to do; a sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Plan(_) => "Mend the rule, or the table; `figvine check` looks at both.",
            Self::Changed { .. } | Self::Eval { source: EvalError::NoRow(_) | EvalError::NotCarried(_), .. } => {
                "The log has old rows only where it is told to: on PostgreSQL `ALTER TABLE .. REPLICA IDENTITY FULL`, on MySQL and MariaDB `binlog_row_image=FULL`. Or ask for them with `before != null` and `has(before.column)`. Nothing was skipped."
            }
            Self::Eval { .. } => {
                "Mend the rule; `figvine rules explain` shows what it does with this transaction. Nothing was skipped."
            }
            Self::Value { .. } | Self::Outbox { .. } => "Nothing was skipped: the source's log is kept from there.",
            Self::TooLarge { .. } | Self::Beyond { .. } => {
                "Raise aggregate.max_bytes, or say `on_large: park`. Nothing was skipped."
            }
            Self::Spill { .. } => {
                "Make room in the directory for temporary files (TMPDIR), or say `on_large: park`. Nothing was skipped."
            }
        }
    }
}

/// Why a change makes no event, without its place.
#[derive(Debug)]
pub(super) enum Fault {
    Plan(PlanError),
    Eval { rule: usize, key: Box<str>, source: EvalError },
    Changed { rule: usize, column: Box<str> },
    Value { column: usize, source: ValueError },
    Outbox(&'static str),
    TooLarge { rule: usize, rows: u64 },
    Beyond { rule: usize },
    Spill { rule: usize, source: std::io::Error },
}
