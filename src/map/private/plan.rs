//! What becomes of one table in one shape.

use std::sync::Arc;

use figvine_change::{Column, Table};

use super::Settings;
use super::rules::{Action, Encrypt};
use super::text::Hidden;

/// A rule does not fit its table.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Rows could not be told apart any more.
    #[error("column {column} of table {table} belongs to its key and cannot be {participle}")]
    Key {
        /// `schema.table`.
        table: Box<str>,
        /// The column's name.
        column: Box<str>,
        /// `dropped` or `masked`.
        participle: &'static str,
    },
    /// There is no column that names the subject.
    #[error("column {column} of table {table} is to be encrypted for its {subject}, and there is no such column")]
    NoSubject {
        /// `schema.table`.
        table: Box<str>,
        /// The column's name.
        column: Box<str>,
        /// The column that is missing.
        subject: Box<str>,
    },
    /// A deleted row tells its key alone, and so not whose the key is.
    #[error(
        "column {column} of the key of table {table} is to be encrypted for its {subject}, which is not in the key"
    )]
    SubjectOutsideKey {
        /// `schema.table`.
        table: Box<str>,
        /// The column's name.
        column: Box<str>,
        /// The column that names the subject.
        subject: Box<str>,
    },
    /// No secret is configured.
    #[error("column {column} of table {table} cannot be {participle} without a key")]
    NoSecret {
        /// `schema.table`.
        table: Box<str>,
        /// The column's name.
        column: Box<str>,
        /// `hashed`, `tokenised`, `encrypted`.
        participle: &'static str,
    },
}

impl PlanError {
    /// What to do; a sentence.
    #[must_use]
    pub(super) fn hint(&self) -> &'static str {
        match self {
            Self::Key { .. } => {
                "Give it a rule with `publish`, `hash`, `tokenise` or `encrypt`, or leave the table out of `tables`."
            }
            Self::NoSubject { .. } => "Name a column of the table as `subject`.",
            Self::SubjectOutsideKey { .. } => "Use `hash` or `tokenise` for it, or a `subject` that is in the key.",
            Self::NoSecret { .. } => "Set `private.key`.",
        }
    }
}

/// What becomes of one table.
#[derive(Debug)]
pub(super) struct Plan {
    /// The table as it came; held so that its address stays its own.
    pub(super) _came: Arc<Table>,
    /// The table as it goes on; `None` where nothing of it is hidden.
    pub(super) made: Option<Arc<Table>>,
    /// Columns of the table as it came.
    pub(super) width: usize,
    /// The columns that are left, in the order of the row.
    pub(super) kept: Vec<Kept>,
    /// Whether any is encrypted.
    pub(super) encrypts: bool,
}

/// A column that is left.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its place in the row as it came.
    pub(super) at: usize,
    pub(super) is_key: bool,
    /// `None` where its cells are left as they are.
    pub(super) hidden: Option<How>,
}

/// How a column is hidden.
#[derive(Debug)]
pub(super) struct How {
    pub(super) action: Action,
    /// `schema.table.column`, where it is encrypted.
    pub(super) name: Box<str>,
    /// For encryption: the place of the column that names the subject, and whether it belongs to the key.
    pub(super) subject: Option<(usize, bool)>,
}

impl Plan {
    /// The plan of a table.
    ///
    /// # Errors
    /// When a rule does not fit it.
    pub(super) fn new(settings: &Settings, table: &Arc<Table>) -> Result<Self, PlanError> {
        let mut kept = Vec::with_capacity(table.columns.len());
        let mut columns = Vec::with_capacity(table.columns.len());
        let mut is_touched = false;
        for (at, column) in table.columns.iter().enumerate() {
            let action = settings.action(&table.schema, &table.name, &column.name);
            let is_key = table.key.contains(&at);
            let (name, of) = (|| table.qualified_name().into(), || column.name.clone());
            match action {
                Action::Publish => {
                    kept.push(Kept { at, is_key, hidden: None });
                    columns.push(column.clone());
                    continue;
                }
                Action::Drop | Action::Mask(_) if is_key => {
                    return Err(PlanError::Key { table: name(), column: of(), participle: action.participle() });
                }
                Action::Drop => {
                    is_touched = true;
                    continue;
                }
                _ if action.needs_key() && settings.master().is_none() => {
                    return Err(PlanError::NoSecret { table: name(), column: of(), participle: action.participle() });
                }
                Action::Mask(_) | Action::Hash | Action::Tokenise | Action::Encrypt(_) => {}
            }
            is_touched = true;
            let subject = match action {
                Action::Encrypt(encrypt) => Some(subject(table, &column.name, is_key, encrypt)?),
                _ => None,
            };
            let how = How {
                action: action.clone(),
                name: format!("{}.{}", table.qualified_name(), column.name).into(),
                subject,
            };
            kept.push(Kept { at, is_key, hidden: Some(how) });
            // The type that it had stays in its type's name: a change of it may be one of all values.
            columns.push(Column {
                name: column.name.clone(),
                type_name: format!("{} {}", action.participle(), column.type_name).into(),
                codec: Arc::new(Hidden(Arc::clone(&column.codec))),
            });
        }
        // A key's columns are all kept, in their order.
        let key = kept.iter().enumerate().filter(|(_, kept)| kept.is_key).map(|(place, _)| place).collect();
        let made = || Arc::new(Table { schema: table.schema.clone(), name: table.name.clone(), columns, key });
        Ok(Self {
            _came: Arc::clone(table),
            made: is_touched.then(made),
            width: table.columns.len(),
            encrypts: kept.iter().any(|kept| kept.hidden.as_ref().is_some_and(|how| how.subject.is_some())),
            kept,
        })
    }
}

/// The place of the column that names the subject, and whether it belongs to the key.
fn subject(table: &Table, column: &str, is_key: bool, encrypt: &Encrypt) -> Result<(usize, bool), PlanError> {
    // As rules mean columns: in either case.
    let is_it = |other: &Column| other.name.eq_ignore_ascii_case(&encrypt.subject);
    let (name, of) = (|| table.qualified_name().into(), || column.into());
    let Some(at) = table.columns.iter().position(is_it) else {
        return Err(PlanError::NoSubject { table: name(), column: of(), subject: encrypt.subject.clone() });
    };
    let is_in_key = table.key.contains(&at);
    if is_key && !is_in_key {
        return Err(PlanError::SubjectOutsideKey { table: name(), column: of(), subject: encrypt.subject.clone() });
    }
    Ok((at, is_in_key))
}
