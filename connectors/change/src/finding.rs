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

impl Finding {
    /// A finding, as yet without a reason and without anything to do about it.
    #[must_use]
    pub fn new(severity: Severity, code: &'static str, object: impl Into<String>, what: impl Into<String>) -> Self {
        let (object, what) = (object.into(), what.into());
        Self { code, severity, object, what, why: String::new(), fix_sql: Vec::new(), hint: None }
    }

    /// With why it matters.
    #[must_use]
    pub fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    /// With one statement more that mends it.
    #[must_use]
    pub fn fix(mut self, sql: impl Into<String>) -> Self {
        self.fix_sql.push(sql.into());
        self
    }

    /// With what to do where SQL alone does not mend it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
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
