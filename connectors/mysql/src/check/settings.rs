//! The server's settings.

use figvine_change::{Finding, Severity};

use crate::catalogue::{LogStatus, Server, TableFacts};
use crate::config::{Config, Flavour, Keyless};

/// Less log than this is lost to a long weekend.
const SHORT_S: f64 = 24.0 * 3600.0;

/// SQL that sets a global setting for good, and what more is to do.
fn set(server: &Server, finding: Finding, name: &str, value: &str, is_in_sessions: bool) -> Finding {
    let (sql, note) = match server.flavour {
        Flavour::MySql => (format!("SET PERSIST {name} = {value};"), None),
        Flavour::MariaDb => (
            format!("SET GLOBAL {name} = {value};"),
            Some(format!("Write `{name} = {value}` into the server's option file too: a restart reads that.")),
        ),
    };
    let sessions = is_in_sessions
        .then(|| "Connections that are open keep their old value: let the applications connect anew.".to_owned());
    let hint = [finding.hint.clone(), note, sessions].into_iter().flatten().collect::<Vec<_>>().join(" ");
    let finding = finding.fix(sql);
    if hint.is_empty() { finding } else { finding.hint(hint) }
}

pub(super) fn settings(config: &Config, server: &Server) -> Vec<Finding> {
    let mut found = Vec::new();
    if !server.is_on("log_bin") {
        return vec![
            Finding::new(Severity::Blocker, "FV-1250", "setting log_bin", "off")
                .why("Without a binary log there is nothing to read.")
                .hint(
                    "Write `log_bin`, `binlog_format = ROW`, `binlog_row_metadata = FULL` and a `server_id` into the \
                     server's option file, and restart the server: this setting is read only at its start.",
                ),
        ];
    }
    found.push(Finding::new(Severity::Ok, "FV-1250", "setting log_bin", "on"));
    found.push(format(server));
    found.push(metadata(server));
    found.extend(image(config, server));
    found.extend(statements(config, server));
    found.push(expiry(server));
    found.push(gtids(server));
    found.extend(server_id(config, server));
    if server.setting("binlog_checksum").is_some_and(|value| value.eq_ignore_ascii_case("NONE")) {
        let found_off = Finding::new(Severity::Warning, "FV-1260", "setting binlog_checksum", "none")
            .why("Damage to the log, on disk or on the way, would go unnoticed.");
        found.push(set(server, found_off, "binlog_checksum", "'CRC32'", false));
    }
    if server.number("sync_binlog").is_some_and(|value| value != 1.0) {
        let found_lazy = Finding::new(Severity::Warning, "FV-1264", "setting sync_binlog", "not 1").why(
            "A crash of the server's machine can take transactions out of its log that were already published; the \
             source stops then, since its log is no longer the one that was read.",
        );
        found.push(set(server, found_lazy, "sync_binlog", "1", false));
    }
    if server.number("innodb_flush_log_at_trx_commit").is_some_and(|value| value != 1.0) {
        let object = "setting innodb_flush_log_at_trx_commit";
        let found_lazy = Finding::new(Severity::Warning, "FV-1269", object, "not 1").why(
            "A crash of the server's machine can take transactions out of its tables that stay in its log, and so in the \
             stream; nothing tells that they are gone.",
        );
        found.push(set(server, found_lazy, "innodb_flush_log_at_trx_commit", "1", false));
    }
    let logs_replicated = ["log_replica_updates", "log_slave_updates"].iter().find_map(|name| server.setting(name));
    if logs_replicated.is_some_and(|value| !matches!(value, "ON" | "1")) {
        found.push(
            Finding::new(Severity::Note, "FV-1262", "setting log_replica_updates", "off")
                .why("Where this server is itself a replica, what it gets from its source is not in its own log.")
                .hint("Point the url at the source, or turn the setting (MariaDB: `log_slave_updates`) on and restart the server."),
        );
    }
    found.push(
        Finding::new(Severity::Note, "FV-1266", "setting sql_log_bin", "can be turned off by privileged sessions")
            .why("What a session writes after `SET sql_log_bin = 0` is in no log, and nothing tells that it happened."),
    );
    found
}

fn format(server: &Server) -> Finding {
    let object = "setting binlog_format";
    // MySQL is about to drop the setting: ROW is what is left then.
    match server.setting("binlog_format") {
        Some("ROW") | None => Finding::new(Severity::Ok, "FV-1251", object, "ROW"),
        Some(other) => {
            let wrong = Finding::new(Severity::Blocker, "FV-1251", object, format!("it is {other}, not ROW"))
                .why("Statements in the log do not say which rows they changed.");
            set(server, wrong, "binlog_format", "'ROW'", true)
        }
    }
}

fn metadata(server: &Server) -> Finding {
    let object = "setting binlog_row_metadata";
    match server.setting("binlog_row_metadata") {
        Some("FULL") => Finding::new(Severity::Ok, "FV-1252", object, "FULL"),
        other => {
            let shown =
                other.map_or_else(|| "the server does not have it".into(), |it| format!("it is {it}, not FULL"));
            let wrong = Finding::new(Severity::Blocker, "FV-1252", object, shown)
                .why("Rows in the log are then without names, and partly without signs, labels and character sets of their columns.");
            if other.is_some() { set(server, wrong, "binlog_row_metadata", "'FULL'", false) } else { wrong }
        }
    }
}

fn image(config: &Config, server: &Server) -> Vec<Finding> {
    let mut found = Vec::new();
    let object = "setting binlog_row_image";
    found.push(match server.setting("binlog_row_image") {
        Some("FULL") | None => Finding::new(Severity::Ok, "FV-1253", object, "FULL"),
        Some(other) => {
            let (severity, why) = match config.keyless {
                Keyless::WholeRow => {
                    (Severity::Blocker, "Tables without a key have their whole row for one, and it is not in the log.")
                }
                Keyless::Refuse => (
                    Severity::Warning,
                    "Updates do not carry all values, before or after: what is missing is named in `unchanged`.",
                ),
            };
            let partial = Finding::new(severity, "FV-1253", object, format!("it is {other}, not FULL")).why(why);
            set(server, partial, "binlog_row_image", "'FULL'", true)
        }
    });
    if server.setting("binlog_row_value_options").is_some_and(|value| !value.is_empty()) {
        let partial = Finding::new(Severity::Note, "FV-1258", "setting binlog_row_value_options", "PARTIAL_JSON")
            .why("Updates of JSON carry the difference alone; it is applied to the value before, which costs time.");
        found.push(set(server, partial, "binlog_row_value_options", "''", true));
    }
    found
}

/// Comments stand in the statements, and these in the log only where that is set.
fn statements(config: &Config, server: &Server) -> Option<Finding> {
    if !config.reads_statements() {
        return None;
    }
    let name = match server.flavour {
        Flavour::MySql => "binlog_rows_query_log_events",
        Flavour::MariaDb => "binlog_annotate_row_events",
    };
    let object = format!("setting {name}");
    if server.is_on(name) {
        return Some(Finding::new(Severity::Ok, "FV-1270", object, "on"));
    }
    let off = Finding::new(Severity::Warning, "FV-1270", object, "off");
    let off = match config.ignore_comments.is_empty() {
        true => off.why("The log does not tell the statements in whose comments `trace_comments` looks for traces: events have none."),
        false => Finding { severity: Severity::Blocker, ..off }.why(
            "The log does not tell the statements in whose comments `ignore.annotations` looks: what another system wrote \
             would go back to it.",
        ),
    };
    Some(set(server, off, name, "ON", true))
}

fn expiry(server: &Server) -> Finding {
    let (object, name) = ("setting binlog_expire_logs_seconds", "binlog_expire_logs_seconds");
    if let Some(bytes) = server.number("max_binlog_total_size").filter(|bytes| *bytes > 0.0) {
        return Finding::new(Severity::Warning, "FV-1254", "setting max_binlog_total_size", format!("{bytes} bytes"))
            .why("When a burst of writes fills it, log is removed however new it is, and a bridge that was away has a gap.")
            .hint("Make it as large as the disk can spare.");
    }
    let days = server.number("expire_logs_days").unwrap_or(0.0) * 86_400.0;
    let seconds = server.number(name).filter(|seconds| *seconds > 0.0).unwrap_or(days);
    let never = server.setting("binlog_expire_logs_auto_purge").is_some_and(|value| value == "OFF");
    if seconds <= 0.0 || never {
        return Finding::new(Severity::Note, "FV-1254", object, "log is never removed by itself")
            .why("No log is lost to a bridge that is away; the disk fills unless somebody purges it.");
    }
    let shown = format!("log is removed after {:.1} hours", seconds / 3600.0);
    if seconds < SHORT_S {
        let short = Finding::new(Severity::Warning, "FV-1254", object, shown)
            .why("A bridge that is away for longer has a gap, and stops.");
        return set(server, short, name, "604800", false);
    }
    Finding::new(Severity::Ok, "FV-1254", object, shown)
}

fn gtids(server: &Server) -> Finding {
    match server.flavour {
        Flavour::MySql => {
            let mode = server.setting("gtid_mode").unwrap_or("OFF");
            if mode == "ON" {
                return Finding::new(Severity::Ok, "FV-1255", "setting gtid_mode", "on");
            }
            let mut off = Finding::new(Severity::Warning, "FV-1255", "setting gtid_mode", format!("it is {mode}"))
                .why("Places in the log are then files and offsets, which hold on this server alone: no failover.")
                .hint(
                    "Run the steps one by one, and each on all servers of a replication topology before the next. \
                     The source begins anew with another stream then.",
                );
            let consistent = server.is_on("enforce_gtid_consistency");
            if !consistent {
                off = off.fix("SET PERSIST enforce_gtid_consistency = ON;");
            }
            let steps = ["OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"];
            let done = steps.iter().position(|step| *step == mode).map_or(0, |at| at + 1);
            steps.iter().skip(done).fold(off, |off, step| off.fix(format!("SET PERSIST gtid_mode = {step};")))
        }
        Flavour::MariaDb if server.is_on("gtid_strict_mode") => {
            Finding::new(Severity::Ok, "FV-1255", "setting gtid_strict_mode", "on")
        }
        Flavour::MariaDb => {
            let off = Finding::new(Severity::Note, "FV-1255", "setting gtid_strict_mode", "off").why(
                "Transactions may then be logged out of order, after a failover for instance; a restart of the bridge \
                 behind such a place is refused.",
            );
            set(server, off, "gtid_strict_mode", "ON", false)
        }
    }
}

fn server_id(config: &Config, server: &Server) -> Option<Finding> {
    let object = "setting server_id";
    let ours = config.server_id();
    let theirs = server.setting("server_id").unwrap_or("0");
    if theirs == "0" {
        let none = Finding::new(Severity::Blocker, "FV-1256", object, "0")
            .why("A server without an id gives its log to nobody.");
        return Some(set(server, none, "server_id", "1", false));
    }
    (theirs == ours.to_string()).then(|| {
        Finding::new(Severity::Blocker, "FV-1256", object, format!("{ours}, which is ours too"))
            .why("Two servers under one id take each other's changes for their own, and skip them.")
            .hint("Configure another `server_id` for the source.")
    })
}

/// Databases that are kept out of the log.
pub(super) fn filters(status: &LogStatus, meant: &[&TableFacts]) -> Vec<Finding> {
    let is_out =
        |schema: &String| (!status.only.is_empty() && !status.only.contains(schema)) || status.ignored.contains(schema);
    let mut found = Vec::new();
    for (name, databases) in [("binlog_do_db", &status.only), ("binlog_ignore_db", &status.ignored)] {
        if databases.is_empty() {
            continue;
        }
        let object = format!("setting {name}");
        let out: Vec<_> = meant.iter().filter(|table| is_out(&table.schema)).map(|table| table.qualified()).collect();
        found.push(if out.is_empty() {
            Finding::new(Severity::Note, "FV-1257", object, databases.join(", "))
                .why("Other databases are kept out of the log; no captured table is.")
        } else {
            Finding::new(
                Severity::Blocker,
                "FV-1257",
                object,
                format!("keeps captured tables out of the log: {}", out.join(", ")),
            )
            .why("Their changes would not be seen.")
            .hint("Take the setting out of the server's option file and restart the server, or capture other tables.")
        });
    }
    found
}
