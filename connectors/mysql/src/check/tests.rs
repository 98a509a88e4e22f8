use super::*;
use crate::catalogue::{ForeignKey, LogFile, LogStatus, tables::Key};
use crate::config::Keyless;
use crate::config::tests::example;

fn server(version: &str, settings: &[(&str, &str)]) -> Server {
    Server::for_tests(version, settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn table(name: &str) -> TableFacts {
    TableFacts {
        schema: "shop".into(),
        name: name.into(),
        kind: "BASE TABLE".into(),
        engine: "InnoDB".into(),
        is_partitioned: false,
        key: Some(Key { columns: vec!["id".into()], is_primary: true }),
    }
}

fn of<'a>(found: &'a [Finding], code: &str) -> &'a Finding {
    found.iter().find(|finding| finding.code == code).unwrap_or_else(|| panic!("no {code} in {found:#?}"))
}

const GOOD: [(&str, &str); 9] = [
    ("log_bin", "ON"),
    ("binlog_format", "ROW"),
    ("binlog_row_metadata", "FULL"),
    ("binlog_row_image", "FULL"),
    ("binlog_expire_logs_seconds", "2592000"),
    ("gtid_mode", "ON"),
    ("server_id", "7"),
    ("sync_binlog", "1"),
    ("innodb_flush_log_at_trx_commit", "1"),
];

#[test]
fn a_server_that_is_set_up_well_has_nothing_to_mend() {
    let found = settings::settings(&example(), &server("9.7.4", &GOOD));
    assert!(found.iter().all(|finding| finding.severity <= Severity::Note && finding.fix_sql.is_empty()), "{found:#?}");
}

#[test]
fn a_log_without_statements_is_told_where_their_comments_are_read() {
    let off = server("8.4.0", &[&GOOD[..], &[("binlog_rows_query_log_events", "OFF")]].concat());
    let on = server("8.4.0", &[&GOOD[..], &[("binlog_rows_query_log_events", "ON")]].concat());
    let maria = server("10.11.19-MariaDB", &[&GOOD[..], &[("binlog_annotate_row_events", "OFF")]].concat());
    let traced = Config { trace_comments: true, ..example() };
    let marked = Config { ignore_comments: vec!["figvine.ignore".into()], ..traced.clone() };
    for (config, server, severity, sql) in [
        (&traced, &off, Severity::Warning, &["SET PERSIST binlog_rows_query_log_events = ON;".to_owned()][..]),
        (&marked, &off, Severity::Blocker, &["SET PERSIST binlog_rows_query_log_events = ON;".to_owned()]),
        (&marked, &maria, Severity::Blocker, &["SET GLOBAL binlog_annotate_row_events = ON;".to_owned()]),
        (&marked, &on, Severity::Ok, &[]),
    ] {
        let found = settings::settings(config, server);
        let finding = of(&found, "FV-1270");
        assert_eq!((finding.severity, &finding.fix_sql[..]), (severity, sql), "{finding:?}");
    }
    assert!(settings::settings(&example(), &off).iter().all(|finding| finding.code != "FV-1270"));
}

#[test]
fn the_defaults_of_mariadb_are_blockers_with_sql_that_mends_them() {
    let server = server(
        "10.11.19-MariaDB",
        &[("log_bin", "ON"), ("binlog_format", "MIXED"), ("binlog_row_metadata", "NO_LOG"), ("server_id", "1")],
    );
    let config = Config { flavour: Flavour::MariaDb, ..example() };
    let found = settings::settings(&config, &server);
    for (code, sql) in
        [("FV-1251", "SET GLOBAL binlog_format = 'ROW';"), ("FV-1252", "SET GLOBAL binlog_row_metadata = 'FULL';")]
    {
        let finding = of(&found, code);
        assert_eq!((finding.severity, finding.fix_sql.as_slice()), (Severity::Blocker, &[sql.to_owned()][..]));
        assert!(finding.hint.as_ref().is_some_and(|hint| hint.contains("option file")));
    }
}

#[test]
fn mysql_is_mended_for_good() {
    let mut settings_list = GOOD.to_vec();
    settings_list.extend([
        ("binlog_row_metadata", "MINIMAL"),
        ("gtid_mode", "OFF_PERMISSIVE"),
        ("binlog_row_image", "MINIMAL"),
    ]);
    let found = settings::settings(&example(), &server("8.0.36", &settings_list));
    assert_eq!(of(&found, "FV-1252").fix_sql, ["SET PERSIST binlog_row_metadata = 'FULL';"]);
    assert_eq!(
        of(&found, "FV-1255").fix_sql,
        [
            "SET PERSIST enforce_gtid_consistency = ON;",
            "SET PERSIST gtid_mode = ON_PERMISSIVE;",
            "SET PERSIST gtid_mode = ON;"
        ]
    );
    assert_eq!(of(&found, "FV-1253").severity, Severity::Warning);
    let whole_rows = Config { keyless: Keyless::WholeRow, ..example() };
    let found = settings::settings(&whole_rows, &server("8.0.36", &settings_list));
    assert_eq!(of(&found, "FV-1253").severity, Severity::Blocker);
}

#[test]
fn a_server_without_a_log_is_told_so_and_no_more() {
    let found = settings::settings(&example(), &server("9.7.4", &[("log_bin", "OFF")]));
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].code, found[0].severity), ("FV-1250", Severity::Blocker));
}

#[test]
fn what_a_crash_of_the_machine_can_take_back_is_told() {
    let mut settings_list = GOOD.to_vec();
    settings_list.extend([("sync_binlog", "0"), ("innodb_flush_log_at_trx_commit", "2")]);
    let found = settings::settings(&example(), &server("9.7.4", &settings_list));
    for (code, sql) in
        [("FV-1264", "SET PERSIST sync_binlog = 1;"), ("FV-1269", "SET PERSIST innodb_flush_log_at_trx_commit = 1;")]
    {
        assert_eq!((of(&found, code).severity, &*of(&found, code).fix_sql), (Severity::Warning, &[sql.to_owned()][..]));
    }
}

#[test]
fn our_server_id_must_not_be_the_servers() {
    let mut settings_list = GOOD.to_vec();
    settings_list.push(("server_id", "7"));
    let config = Config { server_id: Some(7), ..example() };
    assert_eq!(
        of(&settings::settings(&config, &server("9.7.4", &settings_list)), "FV-1256").severity,
        Severity::Blocker
    );
}

#[test]
fn the_wrong_flavour_and_old_versions_are_blockers() {
    for (version_text, configured, code, severity) in [
        ("9.7.4", Flavour::MySql, "FV-1204", Severity::Ok),
        ("10.11.1-MariaDB", Flavour::MariaDb, "FV-1204", Severity::Ok),
        ("10.4.1-MariaDB", Flavour::MariaDb, "FV-1204", Severity::Blocker),
        ("5.7.44", Flavour::MySql, "FV-1204", Severity::Blocker),
        ("9.7.4", Flavour::MariaDb, "FV-1217", Severity::Blocker),
    ] {
        let found = version(configured, &server(version_text, &[]));
        assert_eq!((found.code, found.severity), (code, severity), "{version_text}");
    }
}

#[test]
fn filters_of_the_log_name_the_tables_they_keep_out() {
    let orders = table("orders");
    let status = |only: &[&str], ignored: &[&str]| LogStatus {
        file: LogFile { name: "b.1".into(), size: 4 },
        only: only.iter().map(|n| (*n).to_owned()).collect(),
        ignored: ignored.iter().map(|n| (*n).to_owned()).collect(),
    };
    let found = settings::filters(&status(&["crm"], &[]), &[&orders]);
    assert_eq!(found[0].severity, Severity::Blocker);
    assert!(found[0].what.contains("shop.orders"));
    assert_eq!(settings::filters(&status(&[], &["shop"]), &[&orders])[0].severity, Severity::Blocker);
    assert_eq!(settings::filters(&status(&["shop"], &["crm"]), &[&orders])[0].severity, Severity::Note);
    assert!(settings::filters(&status(&[], &[]), &[&orders]).is_empty());
}

#[test]
fn keyless_and_odd_tables_are_told() {
    let server = server("9.7.4", &GOOD);
    let odd = TableFacts { key: None, is_partitioned: true, engine: "MyISAM".into(), ..table("log") };
    let grants = Grants::read("fig@%", std::iter::empty());
    let found = tables::one(&example(), &server, &grants, &odd);
    assert_eq!(of(&found, "FV-1241").severity, Severity::Blocker);
    assert_eq!(of(&found, "FV-1245").fix_sql, ["GRANT SELECT ON `shop`.`log` TO 'fig'@'%';"]);
    of(&found, "FV-1244");
    of(&found, "FV-1267");
    let whole_rows = Config { keyless: Keyless::WholeRow, ..example() };
    assert_eq!(of(&tables::one(&whole_rows, &server, &grants, &odd), "FV-1241").severity, Severity::Warning);
}

#[test]
fn cascades_are_told_where_the_log_lacks_them() {
    let child = table("lines");
    let key = ForeignKey {
        schema: "shop".into(),
        table: "lines".into(),
        name: "fk".into(),
        parent_schema: "shop".into(),
        parent: "orders".into(),
        on_delete: "CASCADE".into(),
        on_update: "NO ACTION".into(),
    };
    let keys = [key];
    let found = tables::cascades(&server("8.4.0", &[]), &[&child], &keys);
    assert!(found[0].what.ends_with("has ON DELETE CASCADE"), "{}", found[0].what);
    assert!(tables::cascades(&server("9.7.4", &[("innodb_native_foreign_keys", "OFF")]), &[&child], &keys).is_empty());
    assert!(tables::cascades(&server("8.4.0", &[]), &[&table("other")], &keys).is_empty());
}

#[test]
fn missing_privileges_come_as_grants() {
    let grants = Grants::read("fig@%", std::iter::empty());
    let found = privileges(&server("9.7.4", &GOOD), &grants);
    assert_eq!(of(&found, "FV-1215").fix_sql, ["GRANT REPLICATION SLAVE ON *.* TO 'fig'@'%';"]);
    assert_eq!(of(&found, "FV-1218").fix_sql, ["GRANT REPLICATION CLIENT ON *.* TO 'fig'@'%';"]);
    let found = privileges(&server("9.7.4", &[("gtid_mode", "OFF")]), &grants);
    assert_eq!(of(&found, "FV-1219").fix_sql[0], "GRANT BACKUP_ADMIN ON *.* TO 'fig'@'%';");
    let found = privileges(&server("10.11.1-MariaDB", &[]), &grants);
    assert!(found.iter().all(|finding| finding.code != "FV-1219"));
    assert_eq!(of(&found, "FV-1218").fix_sql, ["GRANT BINLOG MONITOR ON *.* TO 'fig'@'%';"]);
    let by_role = Grants::read("fig@%", ["GRANT `reader`@`%` TO `fig`@`%`"].into_iter());
    assert_eq!(of(&privileges(&server("9.7.4", &GOOD), &by_role), "FV-1215").severity, Severity::Warning);
}
