//! The tables that are captured.

use figvine_change::{Finding, Severity};

use crate::catalogue::{ForeignKey, Grants, Server, TableFacts};
use crate::config::{Config, Keyless};
use crate::globs::Globs;

pub(super) fn globs(globs: &Globs, tables: &[TableFacts]) -> Vec<Finding> {
    let names: Vec<_> = tables.iter().map(TableFacts::qualified).collect();
    let idle = globs.without_match(&names).into_iter().map(|glob| {
        Finding::new(Severity::Warning, "FV-1230", format!("glob `{glob}`"), "matches no table that our user can see")
            .why("A spelling mistake would go unnoticed until rows are missed.")
            .hint("The server shows a table to those alone who have some privilege on it: SELECT will do.")
    });
    let other = tables.iter().filter(|table| !table.is_base() && globs.matches_table(&table.schema, &table.name));
    let other = other.map(|table| {
        Finding::new(
            Severity::Note,
            "FV-1231",
            format!("table {}", table.qualified()),
            format!("is a {}", table.kind.to_lowercase()),
        )
        .why("The log holds no changes of it; it is passed over.")
    });
    idle.chain(other).collect()
}

pub(super) fn one(config: &Config, server: &Server, grants: &Grants, table: &TableFacts) -> Vec<Finding> {
    let object = format!("table {}", table.qualified());
    let sql_name = table.quoted();
    let mut found = vec![match (&table.key, config.keyless) {
        (Some(key), _) if key.is_primary => {
            Finding::new(Severity::Ok, "FV-1240", &object, format!("key: {}", key.columns.join(", ")))
        }
        (Some(key), _) => Finding::new(
            Severity::Note,
            "FV-1240",
            &object,
            format!("has no primary key; a unique index is its key: {}", key.columns.join(", ")),
        )
        .why("The log names primary keys alone: the index is looked up in the table as it is now."),
        (None, Keyless::WholeRow) => {
            Finding::new(Severity::Warning, "FV-1241", &object, "has no key: the whole row is its key")
                .why("Each update is a delete and an insert of another key; equal rows cannot be told apart.")
        }
        (None, Keyless::Refuse) => Finding::new(Severity::Blocker, "FV-1241", &object, "has no key")
            .why("Consumers could not tell which row a change is of.")
            .fix(format!("ALTER TABLE {sql_name} ADD COLUMN id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY;"))
            .hint("Or leave it out of `tables`, or say `keyless: whole_row`."),
    }];
    if table.is_partitioned {
        found.push(
            Finding::new(Severity::Note, "FV-1244", &object, "is partitioned: rows come under its own name")
                .why("TRUNCATE, DROP and EXCHANGE of a single partition change its rows without a change in the log."),
        );
    }
    if table.kind == "SYSTEM VERSIONED" {
        found.push(
            Finding::new(Severity::Note, "FV-1268", &object, "is system-versioned")
                .why("The log holds its history's rows too: an update is an update and an insert of what was before."),
        );
    }
    if !matches!(table.engine.as_str(), "InnoDB" | "ROCKSDB" | "MyRocks" | "ndbcluster" | "TokuDB" | "XtraDB") {
        found.push(
            Finding::new(
                Severity::Note,
                "FV-1267",
                &object,
                format!("its engine {} knows no transactions", table.engine),
            )
            .why("Its changes stay, and are seen, when the transaction around them is rolled back."),
        );
    }
    if !grants.may_select(&table.schema, &table.name) && !grants.has_roles {
        let privilege = format!("GRANT SELECT ON {sql_name} TO {};", grants.user);
        found.push(
            Finding::new(Severity::Note, "FV-1245", &object, "may not be read by our user")
                .why(format!(
                    "Streaming from {} does not need it; reading existing rows, and types that the log does not tell, do.",
                    server.flavour.name()
                ))
                .fix(privilege),
        );
    }
    found
}

/// Captured tables whose rows foreign keys change behind the log's back.
pub(super) fn cascades(server: &Server, meant: &[&TableFacts], keys: &[ForeignKey]) -> Vec<Finding> {
    if server.logs_cascades() {
        return Vec::new();
    }
    let is_meant = |key: &&ForeignKey| meant.iter().any(|table| table.schema == key.schema && table.name == key.table);
    let found = keys.iter().filter(is_meant).map(|key| {
        let rules = [("DELETE", &key.on_delete), ("UPDATE", &key.on_update)];
        let rules = rules.iter().filter(|(_, rule)| !matches!(rule.as_str(), "NO ACTION" | "RESTRICT"));
        let rules = rules.map(|(on, rule)| format!("ON {on} {rule}")).collect::<Vec<_>>().join(" ");
        Finding::new(
            Severity::Warning,
            "FV-1265",
            format!("table {}.{}", key.schema, key.table),
            format!("foreign key {} on {}.{} has {rules}", key.name, key.parent_schema, key.parent),
        )
        .why("InnoDB changes its rows by itself then, and writes nothing of it into the log: consumers keep rows that are gone or changed.")
        .hint("Let the application delete or change the rows itself, or a trigger. MySQL logs them from 9.6 on.")
    });
    found.collect()
}
