//! What our user may do: SHOW GRANTS, read as far as needed.

use std::collections::BTreeSet;

use figvine_change::SourceError;

use super::{Catalogue, field};

/// The privileges of our user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Grants {
    /// `'figvine'@'%'`.
    pub(crate) user: String,
    /// On everything.
    global: BTreeSet<String>,
    /// On one database or table: its pattern, and the privileges.
    scoped: Vec<(Scope, BTreeSet<String>)>,
    /// Whether roles were granted, whose privileges may not be listed.
    pub(crate) has_roles: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Scope {
    /// With `%` and `_`, which `\` takes the meaning from.
    database: String,
    /// `None` for all.
    table: Option<String>,
}

impl Grants {
    /// Reads lines of SHOW GRANTS. `user` is what CURRENT_USER() says.
    pub(crate) fn read<'a>(user: &str, lines: impl Iterator<Item = &'a str>) -> Self {
        let (name, host) = user.rsplit_once('@').unwrap_or((user, "%"));
        let quoted = |part: &str| format!("'{}'", part.replace('\\', "\\\\").replace('\'', "''"));
        let mut grants = Self { user: format!("{}@{}", quoted(name), quoted(host)), ..Self::default() };
        for line in lines {
            let Some(rest) = line.strip_prefix("GRANT ") else { continue };
            let Some((privileges, rest)) = rest.split_once(" ON ") else {
                grants.has_roles = true;
                continue;
            };
            let Some((object, _)) = rest.split_once(" TO ") else { continue };
            // Column lists hold commas too; those privileges are of no use to us.
            let privileges = privileges.split(", ").map(|p| p.trim().to_ascii_uppercase()).collect();
            match scope(object) {
                None if object == "*.*" => grants.global.extend(privileges),
                None => {}
                Some(scope) => grants.scoped.push((scope, privileges)),
            }
        }
        grants
    }

    /// Whether one of these privileges holds on everything.
    pub(crate) fn has(&self, any_of: &[&str]) -> bool {
        let everything = ["ALL PRIVILEGES", "ALL"];
        any_of.iter().chain(&everything).any(|privilege| self.global.contains(*privilege))
    }

    /// Whether rows of a table may be read.
    pub(crate) fn may_select(&self, database: &str, table: &str) -> bool {
        self.has(&["SELECT"])
            || self.scoped.iter().any(|(scope, privileges)| {
                let fits = is_like(database, &scope.database) && scope.table.as_deref().is_none_or(|t| t == table);
                fits && ["SELECT", "ALL PRIVILEGES", "ALL"].iter().any(|p| privileges.contains(*p))
            })
    }
}

/// `` `shop`.* `` or `` `shop`.`orders` ``.
fn scope(object: &str) -> Option<Scope> {
    let rest = object.strip_prefix('`')?;
    let (database, rest) = rest.split_once("`.")?;
    let table = match rest {
        "*" => None,
        table => Some(table.strip_prefix('`')?.strip_suffix('`')?.replace("``", "`")),
    };
    Some(Scope { database: database.replace("``", "`"), table })
}

/// SQL's LIKE.
fn is_like(text: &str, pattern: &str) -> bool {
    let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
    let (mut t, mut p) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&c) = text.get(t) {
        let step = match (pattern.get(p), pattern.get(p + 1)) {
            (Some('%'), _) => {
                retry = Some((t, p));
                p += 1;
                continue;
            }
            (Some('\\'), Some(&escaped)) if escaped == c => 2,
            (Some('_'), _) => 1,
            (Some(&plain), _) if plain == c && plain != '\\' => 1,
            _ => 0,
        };
        match (step, retry) {
            (0, None) => return false,
            // The last `%` takes one character more.
            (0, Some((from, percent))) => {
                retry = Some((from + 1, percent));
                (t, p) = (from + 1, percent + 1);
            }
            _ => (t, p) = (t + 1, p + step),
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&c| c == '%'))
}

impl Catalogue {
    /// Asks what we may do.
    pub(crate) async fn grants(&mut self) -> Result<Grants, SourceError> {
        let what = "asking for our privileges";
        let user = self.ask_one("SELECT CURRENT_USER()", what).await?;
        let rows = self.ask("SHOW GRANTS", what).await?;
        Ok(Grants::read(&user, rows.iter().map(|row| field(row, 0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_line_by_line() {
        let lines = [
            "GRANT REPLICATION SLAVE, BINLOG MONITOR ON *.* TO `fig`@`%` IDENTIFIED BY PASSWORD '*AA ON B TO C'",
            "GRANT SELECT, INSERT ON `sh\\_p`.* TO `fig`@`%`",
            "GRANT SELECT (`a`, `b`) ON `crm`.`secret` TO `fig`@`%`",
            "GRANT SELECT ON `crm`.`cust``omers` TO `fig`@`%`",
            "GRANT PROXY ON ''@'' TO `fig`@`%`",
        ];
        let grants = Grants::read("fig@%", lines.into_iter());
        assert_eq!(grants.user, "'fig'@'%'");
        assert!(grants.has(&["REPLICATION CLIENT", "BINLOG MONITOR"]));
        assert!(!grants.has(&["RELOAD"]));
        assert!(grants.may_select("sh_p", "x"));
        assert!(!grants.may_select("shop", "x"));
        assert!(grants.may_select("crm", "cust`omers"));
        assert!(!grants.may_select("crm", "secret"));
        assert!(!grants.has_roles);
        assert!(Grants::read("a@b", ["GRANT `r`@`%` TO `a`@`b`"].into_iter()).has_roles);
        assert!(Grants::read("a@b", ["GRANT ALL PRIVILEGES ON *.* TO `a`@`b`"].into_iter()).may_select("x", "y"));
    }

    #[test]
    fn patterns_match_as_in_sql() {
        for (text, pattern, is) in [
            ("shop", "shop", true),
            ("shop", "sh%", true),
            ("shop", "%p", true),
            ("shop", "s__p", true),
            ("shop", "s_p", false),
            ("shop", "%x%", false),
            ("a_b", "a\\_b", true),
            ("axb", "a\\_b", false),
            ("aab", "%ab", true),
            ("", "%", true),
            ("", "_", false),
        ] {
            assert_eq!(is_like(text, pattern), is, "{text} {pattern}");
        }
    }
}
