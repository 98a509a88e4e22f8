//! What a preflight has found.

use std::fmt;

/// One finding of `check`: what, where, why it matters and what mends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A stable code, `FV-1203`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The object it is about: `setting wal_level`, `table public.orders`, `role figvine`.
    pub object: String,
    /// What was found, lowercase, without a full stop.
    pub what: String,
    /// Why it matters: what the database or the consumers would see. A sentence.
    pub why: String,
    /// SQL that mends it, run as given by an administrator; empty where no SQL can.
    pub fix_sql: Vec<String>,
    /// What to do where SQL alone does not mend it (a restart, a decision). Sentences.
    pub hint: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing: what consumers will see.
    Note,
    /// Works, with a cost or a risk.
    Warning,
    /// `run` would fail or harm the database.
    Blocker,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Blocker => "blocker",
        })
    }
}
