//! What `check` says of the rules, by the columns that there are.

use std::collections::BTreeMap;

use figvine_change::{Finding, NamedColumn, Severity};

use super::nearest;
use super::settings::{Include, Rule, Settings};
use crate::map::private::{self, Action};

impl Settings {
    /// Whether the rules fit the captured tables: tables and columns by their names, and whether what they look parts up by is
    /// not hidden.
    #[must_use]
    pub fn check(&self, columns: &[NamedColumn], private: &private::Settings) -> Vec<Finding> {
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
        for (rule, column, action) in self.hidden_lookups(columns, private) {
            let name = column.qualified_name();
            wrong(&rule.name, format!("parts cannot be looked up by column {name}, which is {}", action.participle()));
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

    /// Columns that parts are looked up by, or would be, and whose values are hidden.
    fn hidden_lookups<'a>(
        &'a self,
        columns: &'a [NamedColumn],
        private: &'a private::Settings,
    ) -> impl Iterator<Item = (&'a Rule, &'a NamedColumn, &'a Action)> {
        self.rules.iter().flat_map(move |rule| {
            let parts = rule.aggregate.iter().flat_map(|aggregate| &aggregate.include);
            let parts: Vec<_> = parts.filter(|include| include.lookup).collect();
            let is_meant = move |column: &NamedColumn| {
                let (schema, table) = (&*column.schema, &*column.table);
                let is_root_key = column.is_key && (schema, table) == (&*rule.schema, &*rule.table);
                let is_of =
                    |include: &&Include| include.place(&rule.schema) == (schema, table) && include.on == *column.name;
                is_root_key && !parts.is_empty() || parts.iter().any(is_of)
            };
            columns.iter().filter(move |column| is_meant(column)).filter_map(move |column| {
                let action = private.action(&column.schema, &column.table, &column.name);
                (*action != Action::Publish).then_some((rule, column, action))
            })
        })
    }
}
