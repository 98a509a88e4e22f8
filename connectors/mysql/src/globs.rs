//! Which tables are captured: globs over `database.table`.

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

/// A text that is no glob over tables.
#[derive(Debug, thiserror::Error)]
pub enum GlobError {
    /// Its syntax.
    #[error("`{glob}` is no glob")]
    Syntax {
        /// The text.
        glob: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// It names no database, and the URL none either.
    #[error("`{glob}` names no database and the url has none")]
    NoDatabase {
        /// The text.
        glob: String,
    },
}

impl Globs {
    /// Reads globs. One without a dot means a table of `database`.
    ///
    /// # Errors
    /// When one is no glob.
    pub fn of_tables(globs: &[String], database: Option<&str>) -> Result<Self, GlobError> {
        let rules = globs.iter().map(|text| {
            let (takes_away, glob) = match text.strip_prefix('!') {
                Some(glob) => (true, glob),
                None => (false, text.as_str()),
            };
            let whole = match database {
                _ if glob.contains('.') => glob.to_owned(),
                Some(database) => format!("{}.{glob}", globset::escape(database)),
                None => return Err(GlobError::NoDatabase { glob: text.clone() }),
            };
            let built = GlobBuilder::new(&whole).literal_separator(false).backslash_escape(true).build();
            let built = built.map_err(|source| GlobError::Syntax { glob: text.clone(), source })?;
            Ok(Rule { text: text.clone(), takes_away, matcher: built.compile_matcher() })
        });
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// Whether a table is meant.
    #[must_use]
    pub fn matches_table(&self, schema: &str, table: &str) -> bool {
        let name = format!("{schema}.{table}");
        self.rules.iter().rev().find(|rule| rule.matcher.is_match(&name)).is_some_and(|rule| !rule.takes_away)
    }

    /// The globs that match none of the names (`database.table`).
    #[must_use]
    pub fn without_match<'a>(&'a self, names: &[String]) -> Vec<&'a str> {
        let idle = self.rules.iter().filter(|rule| !names.iter().any(|name| rule.matcher.is_match(name)));
        idle.map(|rule| rule.text.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(globs: &[&str]) -> Vec<String> {
        globs.iter().map(|glob| (*glob).to_owned()).collect()
    }

    #[test]
    fn later_globs_win() {
        let globs = list(&["shop.*", "!shop.audit_*", "shop.audit_log", "orders"]);
        let globs = Globs::of_tables(&globs, Some("crm[1]")).expect("globs");
        assert!(globs.matches_table("shop", "customers"));
        assert!(!globs.matches_table("shop", "audit_old"));
        assert!(globs.matches_table("shop", "audit_log"));
        assert!(globs.matches_table("crm[1]", "orders"));
        assert!(!globs.matches_table("sales", "orders"));
        assert_eq!(globs.without_match(&["shop.a".into()]), ["!shop.audit_*", "shop.audit_log", "orders"]);
    }

    #[test]
    fn what_is_no_glob_over_tables_is_refused() {
        assert!(Globs::of_tables(&list(&["shop.[a"]), None).is_err());
        assert!(Globs::of_tables(&list(&["orders"]), None).is_err());
    }
}
