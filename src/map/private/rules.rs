//! What is hidden, as it is configured.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};
use secrecy::{ExposeSecret, SecretString};

use super::{Mask, Master};

/// What becomes of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is published as it is.
    Publish,
    /// It is not published.
    Drop,
    /// Little or nothing is left of its values.
    Mask(Mask),
    /// Its values' HMAC-SHA256, in hexadecimal digits.
    Hash,
    /// A text of the same look, one to one.
    Tokenise,
    /// A ciphertext under the key of the subject that the row is about.
    Encrypt(Encrypt),
}

impl Action {
    /// As types of columns and messages say it.
    #[must_use]
    pub fn participle(&self) -> &'static str {
        match self {
            Self::Publish => "published",
            Self::Drop => "dropped",
            Self::Mask(_) => "masked",
            Self::Hash => "hashed",
            Self::Tokenise => "tokenised",
            Self::Encrypt(_) => "encrypted",
        }
    }

    /// Whether it needs a master key.
    #[must_use]
    pub fn needs_key(&self) -> bool {
        match self {
            Self::Publish | Self::Drop | Self::Mask(_) => false,
            Self::Hash | Self::Tokenise | Self::Encrypt(_) => true,
        }
    }
}

/// Whose key encrypts a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encrypt {
    /// The column of the same row that names the subject.
    pub subject: Box<str>,
    /// What kind of thing it names, so that customer 42 and supplier 42 are two.
    pub kind: Box<str>,
    /// What becomes of later values of a subject that was shredded.
    pub shredded: Shredded,
}

/// What becomes of later values of a subject that was shredded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shredded {
    /// They are null.
    Null,
    /// They are the text `***`.
    Mask,
}

/// One rule.
#[derive(Clone)]
pub struct Rule {
    glob: String,
    matcher: GlobMatcher,
    action: Action,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("match", &self.glob).field("action", &self.action).finish()
    }
}

/// A text that is no glob over columns.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// It is no glob.
    #[error("is no glob")]
    Glob(#[source] globset::Error),
    /// It has fewer than two dots.
    #[error("expected a glob over schema.table.column, such as '*.*.email'")]
    Parts,
}

impl Rule {
    /// A rule for the columns that a glob over `schema.table.column` means, in either case: MySQL takes the names of columns
    /// in either, and a name that is written otherwise must not come to light.
    ///
    /// # Errors
    /// When it is no such glob.
    pub fn new(glob: &str, action: Action) -> Result<Self, RuleError> {
        if glob.matches('.').count() < 2 {
            return Err(RuleError::Parts);
        }
        let built =
            GlobBuilder::new(glob).literal_separator(false).backslash_escape(true).case_insensitive(true).build();
        let matcher = built.map_err(RuleError::Glob)?.compile_matcher();
        Ok(Self { glob: glob.to_owned(), matcher, action })
    }

    /// Its glob.
    #[must_use]
    pub fn glob(&self) -> &str {
        &self.glob
    }

    /// What it does.
    #[must_use]
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// Whether it means a column, `schema.table.column`.
    #[must_use]
    pub fn means(&self, column: &str) -> bool {
        self.matcher.is_match(column)
    }
}

/// What one source hides.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    denies: bool,
    rules: Vec<Rule>,
    master: Option<Master>,
}

impl Settings {
    /// `denies`: a column without a rule is not published. Of several rules for a column the last holds.
    #[must_use]
    pub fn new(denies: bool, rules: Vec<Rule>, secret: Option<&SecretString>) -> Self {
        Self { denies, rules, master: secret.map(|secret| Master::new(secret.expose_secret())) }
    }

    /// The rules, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The keys, where a secret is configured.
    #[must_use]
    pub fn master(&self) -> Option<&Master> {
        self.master.as_ref()
    }

    /// The kinds of subjects whose data is encrypted, each once.
    #[must_use]
    pub fn kinds(&self) -> Vec<&str> {
        let kinds = self.rules.iter().filter_map(|rule| match &rule.action {
            Action::Encrypt(encrypt) => Some(&*encrypt.kind),
            _ => None,
        });
        let mut kinds: Vec<_> = kinds.collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    }

    /// Whether no column of any table can be hidden.
    #[must_use]
    pub fn hides_nothing(&self) -> bool {
        !self.denies && self.rules.iter().all(|rule| rule.action == Action::Publish)
    }

    /// What becomes of a column.
    #[must_use]
    pub fn action(&self, schema: &str, table: &str, column: &str) -> &Action {
        let name = format!("{schema}.{table}.{column}");
        let rule = self.rules.iter().rev().find(|rule| rule.means(&name));
        rule.map_or(if self.denies { &Action::Drop } else { &Action::Publish }, |rule| &rule.action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_holds_and_case_does_not_count() {
        let rule = |glob, action| Rule::new(glob, action).expect("a rule");
        let rules = vec![
            rule("*.*.email", Action::Hash),
            rule("public.staff.*", Action::Drop),
            rule("public.staff.Email", Action::Publish),
        ];
        let settings = Settings::new(false, rules.clone(), None);
        assert_eq!(settings.action("crm", "people", "EMail"), &Action::Hash);
        assert_eq!(settings.action("public", "staff", "name"), &Action::Drop);
        assert_eq!(settings.action("public", "staff", "email"), &Action::Publish);
        assert_eq!(settings.action("public", "people", "name"), &Action::Publish);
        assert_eq!(Settings::new(true, rules, None).action("public", "people", "name"), &Action::Drop);
    }

    #[test]
    fn what_means_no_columns_is_refused() {
        for glob in ["email", "public.email", "a.b.[c", ""] {
            assert!(Rule::new(glob, Action::Drop).is_err(), "{glob}");
        }
    }
}
