//! Which tables are captured: globs over `schema.table`.

use globset::{GlobBuilder, GlobMatcher};

/// A list of globs; `!` takes away, later ones win.
#[derive(Debug, Clone)]
pub struct Globs {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    text: String,
    takes_away: bool,
    matcher: GlobMatcher,
}

/// A text that is no glob.
#[derive(Debug, thiserror::Error)]
#[error("`{glob}` is no glob")]
pub struct GlobError {
    /// The text.
    pub glob: String,
    /// What is wrong with it.
    pub source: globset::Error,
}

impl Globs {
    /// Reads globs over tables. One without a dot means a table of the schema `public`.
    ///
    /// # Errors
    /// When one is no glob.
    pub fn of_tables(globs: &[String]) -> Result<Self, GlobError> {
        Self::new(globs, |glob| if glob.contains('.') { glob.to_owned() } else { format!("public.{glob}") })
    }

    /// Reads globs over plain names.
    ///
    /// # Errors
    /// When one is no glob.
    pub fn of_names(globs: &[String]) -> Result<Self, GlobError> {
        Self::new(globs, str::to_owned)
    }

    fn new(globs: &[String], complete: impl Fn(&str) -> String) -> Result<Self, GlobError> {
        let rules = globs.iter().map(|text| {
            let (takes_away, glob) = match text.strip_prefix('!') {
                Some(glob) => (true, glob),
                None => (false, text.as_str()),
            };
            let built = GlobBuilder::new(&complete(glob)).literal_separator(false).backslash_escape(true).build();
            let built = built.map_err(|source| GlobError { glob: text.clone(), source })?;
            Ok(Rule { text: text.clone(), takes_away, matcher: built.compile_matcher() })
        });
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// Whether a table is meant.
    #[must_use]
    pub fn matches_table(&self, schema: &str, table: &str) -> bool {
        self.matches(&format!("{schema}.{table}"))
    }

    /// Whether a name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.rules.iter().rev().find(|rule| rule.matcher.is_match(name)).is_some_and(|rule| !rule.takes_away)
    }

    /// The globs that match none of the names (`schema.table`).
    #[must_use]
    pub fn without_match<'a>(&'a self, names: &[String]) -> Vec<&'a str> {
        let idle = self.rules.iter().filter(|rule| !names.iter().any(|name| rule.matcher.is_match(name)));
        idle.map(|rule| rule.text.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(list: &[&str]) -> Globs {
        Globs::of_tables(&list.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>()).expect("globs")
    }

    #[test]
    fn later_globs_win() {
        let globs = globs(&["public.*", "!public.audit_*", "public.audit_log", "orders"]);
        assert!(globs.matches_table("public", "customers"));
        assert!(!globs.matches_table("public", "audit_old"));
        assert!(globs.matches_table("public", "audit_log"));
        assert!(globs.matches_table("public", "orders"));
        assert!(!globs.matches_table("sales", "orders"));
    }

    #[test]
    fn a_glob_that_matches_nothing_is_told() {
        let globs = globs(&["public.*", "sales.*", "!x.y"]);
        assert_eq!(globs.without_match(&["public.a".into()]), ["sales.*", "!x.y"]);
    }

    #[test]
    fn what_is_no_glob_is_refused() {
        assert!(Globs::of_tables(&["public.[a".into()]).is_err());
    }
}
