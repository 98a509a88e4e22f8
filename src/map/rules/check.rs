//! What `check` says of the rules, by the columns that there are.

use std::collections::BTreeMap;

use figvine_change::{Finding, NamedColumn, Severity};

use super::nearest;
use super::settings::Settings;

impl Settings {
    /// Whether the rules fit the captured tables: tables and columns by their names.
    #[must_use]
    pub fn check(&self, columns: &[NamedColumn]) -> Vec<Finding> {
        let mut tables: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for column in columns {
            tables.entry(format!("{}.{}", column.schema, column.table)).or_default().push(&column.name);
        }
        let mut findings = Vec::new();
        let mut wrong = |rule: &str, what: String| {
            findings.push(
                Finding::new(Severity::Blocker, "FV-3111", format!("rule {rule}"), what)
                    .why("The source stops at the first change that the rule is about.")
                    .hint("Mend the rule, or capture the table."),
            );
        };
        let missing_table = |table: &str| {
            let near = nearest(table, tables.keys().map(String::as_str));
            format!("there is no captured table {table}{near}")
        };
        for rule in &self.rules {
            let mut look = |table: &str, names: &mut dyn Iterator<Item = &str>| match tables.get(table) {
                None => wrong(&rule.name, missing_table(table)),
                Some(columns) => {
                    for name in names {
                        if !columns.contains(&name) {
                            let near = nearest(name, columns.iter().copied());
                            wrong(&rule.name, format!("table {table} has no column '{name}'{near}"));
                        }
                    }
                }
            };
            let read = rule.names.columns.iter().map(|(_, name)| &**name);
            let mut names: Vec<&str> = read.chain(rule.changed.iter().map(|name| &**name)).collect();
            names.sort_unstable();
            names.dedup();
            look(&format!("{}.{}", rule.schema, rule.table), &mut names.into_iter());
            for include in rule.aggregate.iter().flat_map(|aggregate| &aggregate.include) {
                let (schema, table) = include.place(&rule.schema);
                let names = include.columns.iter().map(String::as_str).chain([include.on.as_str()]);
                look(&format!("{schema}.{table}"), &mut names.collect::<Vec<_>>().into_iter());
            }
        }
        if let Some((schema, table)) = self.outbox.as_ref().and_then(|outbox| outbox.table.as_ref()) {
            let name = format!("{schema}.{table}");
            if !tables.contains_key(&name) {
                wrong("outbox", missing_table(&name));
            }
        }
        if findings.is_empty() && !self.is_empty() {
            let what = format!("all {} rules fit their tables", self.rules.len());
            findings.push(Finding::new(Severity::Ok, "FV-3111", "setting rules", what));
        }
        findings
    }
}
