//! What `check` says of the rules, by the columns that there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use figvine_change::{Column, Finding, NamedColumn, Severity, Table, ValueCodec, ValueError};

use super::Settings;
use super::plan::Plan;

/// Of columns whose values nobody reads here.
#[derive(Debug)]
struct Unread;

impl ValueCodec for Unread {
    fn write_json(&self, _: &[u8], _: &mut Vec<u8>) -> Result<(), ValueError> {
        Err(ValueError { type_name: "any".into(), reason: "it is not read" })
    }
}

impl Settings {
    /// Whether the rules fit the captured columns. Nothing where there are no rules.
    #[must_use]
    pub fn check(&self, columns: &[NamedColumn]) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.hides_nothing() && self.rules().is_empty() {
            return findings;
        }
        let names: Vec<String> = columns.iter().map(NamedColumn::qualified_name).collect();
        for rule in self.rules().iter().filter(|rule| !names.iter().any(|name| rule.means(name))) {
            let what = format!("the glob '{}' means no column of a captured table", rule.glob());
            findings.push(
                Finding::new(Severity::Warning, "FV-3107", "setting private", what)
                    .why("What it is meant to hide may be published under another name.")
                    .hint("Mend the glob, or take the rule out."),
            );
        }
        let mut tables: BTreeMap<(&str, &str), Vec<&NamedColumn>> = BTreeMap::new();
        for column in columns {
            tables.entry((&column.schema, &column.table)).or_default().push(column);
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for ((schema, name), columns) in tables {
            let key = columns.iter().enumerate().filter(|(_, column)| column.is_key).map(|(at, _)| at).collect();
            let described = columns.iter().map(|column| Column {
                name: column.name.clone(),
                type_name: "any".into(),
                codec: Arc::new(Unread),
            });
            let table = Table { schema: schema.into(), name: name.into(), columns: described.collect(), key };
            if let Err(error) = Plan::new(self, &Arc::new(table)) {
                findings.push(
                    Finding::new(Severity::Blocker, "FV-3104", format!("table {schema}.{name}"), error.to_string())
                        .why("The source stops at the first change of the table.")
                        .hint(error.hint()),
                );
            }
            for column in columns {
                *counts.entry(self.action(schema, name, &column.name).participle()).or_default() += 1;
            }
        }
        if findings.is_empty() {
            let counts: Vec<String> =
                counts.iter().map(|(participle, count)| format!("{count} {participle}")).collect();
            let what = format!("every rule means a column; of all columns {}", counts.join(", "));
            findings.push(Finding::new(Severity::Ok, "FV-3107", "setting private", what));
        }
        findings
    }
}
