//! The configuration as its user meets it: what a file means, and what its mistakes are called.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use figvine::config::{self, At, Config, EngineConfig};
use figvine::event::Format;
use figvine::nats::Auth;
use figvine::schema::{OnDrift, Policy};
use figvine::stream::OnLoss;
use figvine_change::debezium::{Binary, Decimal, Encoding, Time};
use figvine_mysql::config::{Config as Mysql, Flavour, ZeroDate};
use figvine_postgres::config::{Config as Postgres, Keyless};
use proptest::prelude::*;
use secrecy::ExposeSecret;
use serde_json::Value;

const SMALL: &str = "\
nats:
  url: nats://127.0.0.1:4222
sources:
  shop:
    postgres:
      url: postgres://figvine:hunter2@db/shop
    tables: [public.*]
";

fn vars(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn good(text: &str, pairs: &[(&str, &str)]) -> Config {
    config::parse("figvine.yaml", text, &vars(pairs)).unwrap_or_else(|errors| panic!("{errors}"))
}

fn mistakes(text: &str, pairs: &[(&str, &str)]) -> String {
    let told = config::parse("figvine.yaml", text, &vars(pairs)).expect_err("has mistakes").to_string();
    for secret in ["hunter2", "s3cret", "t0ken"] {
        assert!(!told.contains(secret), "a secret is told: {told}");
    }
    told
}

fn postgres(config: &Config, index: usize) -> &Postgres {
    let EngineConfig::Postgres(postgres) = &config.sources()[index].engine else { panic!("no PostgreSQL") };
    postgres
}

fn mysql(config: &Config, index: usize) -> &Mysql {
    let EngineConfig::Mysql(mysql) = &config.sources()[index].engine else { panic!("no MySQL") };
    mysql
}

/// The smallest file of a MySQL, with one more line in its section.
fn in_mysql(line: &str) -> String {
    let small = SMALL.replace("postgres:\n", "mysql:\n").replace("postgres://", "mysql://");
    small.replace("    tables", &format!("      {line}\n    tables"))
}

/// The smallest file with one more line at the end of the source.
fn in_source(line: &str) -> String {
    format!("{SMALL}    {line}\n")
}

fn in_stream(line: &str) -> String {
    format!("{SMALL}    stream:\n      {line}\n")
}

fn in_private(line: &str) -> String {
    format!("{SMALL}    private:\n      {line}\n")
}

fn in_postgres(line: &str) -> String {
    SMALL.replace("    tables", &format!("      {line}\n    tables"))
}

fn in_nats(line: &str) -> String {
    SMALL.replace("sources", &format!("  {line}\nsources"))
}

#[test]
fn a_small_file_gets_careful_defaults() {
    let config = good(SMALL, &[]);
    insta::assert_debug_snapshot!("defaults", config);
}

#[test]
fn a_source_with_dashes_gets_names_that_servers_take() {
    let config = good(&SMALL.replace("shop:", "My-Shop:"), &[]);
    assert_eq!(config.sources()[0].stream.name, "FIGVINE_MY-SHOP");
    assert_eq!(config.sources()[0].stream.subjects, ["cdc.My-Shop.>"]);
    assert_eq!(postgres(&config, 0).slot, "figvine_my_shop");
}

#[test]
fn every_key_is_heard() {
    let text = r#"
nats:
  url: [nats://a:4222, "tls://b:4222"]
  auth: {jwt: /a.jwt, seed: /a.seed}
  tls: {ca: /ca, cert: /cert, key: /key, first: true}
sources:
  shop:
    postgres:
      url: postgresql://db/shop
      slot: s1
      publication: p1
      publication_managed: false
      publish_via_partition_root: true
      keyless: whole_row
      messages: ["outbox.*"]
      trace_message: trace
      heartbeat: off
      lock_timeout: 500ms
      bigint: string
      decimal: number
    tables: ["*.*", "!public.x"]
    stream:
      name: S
      replicas: 3
      max_age: 7d
      max_bytes: 1GiB
      compression: true
      adopt: true
      on_stream_loss: reread
      ack_timeout: 5s
      window_messages: 100
      window_bytes: 64KiB
    format: plain
    partitions: 100
    subject: "cdc.{source}.{table}.{key}"
    ce_source: https://example.org/shop
    release_delay: 5m
    ignore: {origins: [crm], annotations: ["echo.*"]}
    private:
      default: deny
      key: hunter2-hunter2-hunter2
      columns:
        - {match: "*.*.a", publish: true}
        - {match: "*.*.b", drop: true}
        - {match: "*.*.c", mask: {}}
        - {match: "*.*.d", mask: {text: hidden}}
        - {match: "*.*.e", mask: {keep_first: 1, keep_last: 2}}
        - {match: "*.*.f", hash: {}}
        - {match: "*.*.g", tokenise: {}}
        - {match: "*.*.h", encrypt: {subject: id}}
        - {match: "*.*.i", encrypt: {subject: id, kind: customer, shredded: mask}}
    initial: backfill
    backfill: {rate: 5000, bytes_rate: 10MiB, parallel: 4, chunk_time: 1s, max_replica_lag: off, max_active_sessions: 50, min_log_free: 10}
http: {listen: off}
shutdown_timeout: 1m
"#;
    insta::assert_debug_snapshot!("every_key", good(text, &[]));
}

#[test]
fn traces_of_messages_can_be_turned_off() {
    let prefix = |line: &str| postgres(&good(&in_postgres(line), &[]), 0).trace_message.clone();
    assert_eq!(prefix("trace_message: off"), None);
    assert_eq!(prefix("").as_deref(), Some("traceparent"));
    let told = mistakes(&in_postgres("trace_message: ''"), &[]);
    assert!(told.contains("sources.shop.postgres.trace_message: must not be empty"), "{told}");
}

#[test]
fn a_small_file_of_a_mysql_gets_careful_defaults() {
    insta::assert_debug_snapshot!("mysql_defaults", mysql(&good(&in_mysql(""), &[]), 0));
}

#[test]
fn every_key_of_a_mariadb_is_heard() {
    let text = "
nats: {url: nats://a}
sources:
  shop:
    mariadb:
      url: mysql://u@db
      server_id: 4711
      keyless: whole_row
      on_statement: warn
      trace_comments: true
      heartbeat: 500ms
      bigint: string
      decimal: number
      tinyint1: boolean
      zero_date: error
    tables: ['shop.*']
    ignore: {annotations: [figvine.ignore, by=crm]}
    stream: {name: S}
";
    insta::assert_debug_snapshot!("every_key_of_mariadb", mysql(&good(text, &[]), 0));
}

#[test]
fn a_bare_null_is_a_word_where_null_is_one() {
    for written in ["null", "'null'", "${WORD}"] {
        let config = good(&in_mysql(&format!("zero_date: {written}")), &[("WORD", "null")]);
        assert_eq!(mysql(&config, 0).values.zero_date, ZeroDate::Null, "{written}");
    }
}

#[test]
fn two_sources_of_one_server_get_ids_of_their_own() {
    let two = in_mysql("") + "  zoo:\n    mysql: {url: 'mysql://u@db'}\n    tables: ['zoo.*']\n";
    let config = good(&two, &[]);
    assert_ne!(mysql(&config, 0).server_id(), mysql(&config, 1).server_id());
    assert!(config.sources().iter().zip(0..).all(|(_, at)| mysql(&config, at).flavour == Flavour::MySql));
}

#[test]
fn each_mistake_has_its_message() {
    let cases: &[(&str, String)] = &[
        ("unknown key at the top", format!("{SMALL}htpp: {{}}\n")),
        ("unknown key in a source", SMALL.replace("tables", "tabels")),
        ("unknown key in a section", in_stream("replica: 3")),
        ("unknown key that belongs below", in_source("replicas: 3")),
        ("unknown key that nothing resembles", in_source("zzzzzz: 3")),
        (
            "unknown key that may be a secret",
            SMALL.replace("postgres://figvine:hunter2@db/shop", "{postgres://hunter2@db: 1}"),
        ),
        ("an empty file", String::new()),
        ("only comments", "# nothing\n".to_owned()),
        ("a list at the top", "- a\n".to_owned()),
        ("a word at the top", "hunter2\n".to_owned()),
        ("two documents", format!("{SMALL}---\na: 1\n")),
        ("no YAML", "nats: [a\nsources: }\n".to_owned()),
        ("tabs for blanks", "nats:\n\turl: a\n".to_owned()),
        ("an unknown anchor", in_source("ce_source: *hunter")),
        ("a duplicate key", in_source("tables: [a.b]")),
        ("no nats", SMALL.replace("nats:\n  url: nats://127.0.0.1:4222\n", "")),
        ("no address", SMALL.replace("  url: nats", "  # nats")),
        ("an empty nats", SMALL.replace("  url: nats", "  # url: nats").replace("nats:\n", "nats:\n  tls:\n")),
        ("an empty database", SMALL.replace("url: postgres", "# postgres").replace("hunter2", "")),
        ("a long source name", SMALL.replace("shop:", &format!("{}:", "s".repeat(60)))),
        ("no sources", "nats:\n  url: nats://a\n".to_owned()),
        ("empty sources", "nats:\n  url: nats://a\nsources: {}\n".to_owned()),
        ("sources as a list", "nats:\n  url: nats://a\nsources:\n  - shop\n".to_owned()),
        ("a source as a string", "nats:\n  url: nats://a\nsources:\n  shop: hunter2\n".to_owned()),
        ("a bad source name", SMALL.replace("shop:", "my.shop:")),
        ("no database", SMALL.replace("    postgres:\n      url: postgres://figvine:hunter2@db/shop\n", "")),
        ("two databases", SMALL.replace("    tables", "    mariadb: {url: 'mysql://u:hunter2@db'}\n    tables")),
        ("a MySQL at the address of a PostgreSQL", SMALL.replace("postgres:\n", "mysql:\n")),
        ("a MySQL without an address", in_mysql("").replace("url: mysql", "# mysql")),
        ("a MySQL without tables", in_mysql("").replace("[public.*]", "[]")),
        ("a key of PostgreSQL at a MySQL", in_mysql("slot: s")),
        ("an id that is none", in_mysql("server_id: 0")),
        ("an id that is too large", in_mysql("server_id: 4294967296")),
        ("a heartbeat that cannot be off", in_mysql("heartbeat: off")),
        ("a heartbeat that is too short", in_mysql("heartbeat: 1ms")),
        ("an unknown way with keyless tables", in_mysql("keyless: ignore")),
        ("an unknown way with statements", in_mysql("on_statement: skip")),
        ("an unknown way with tinyint(1)", in_mysql("tinyint1: bool")),
        ("an unknown way with zero dates", in_mysql("zero_date: text")),
        (
            "the same id twice",
            in_mysql("server_id: 7")
                + "  zoo:\n    mariadb: {url: 'mariadb://u:s3cret@db:3306/zoo', server_id: 7}\n    tables: ['zoo.*']\n",
        ),
        ("no database address", SMALL.replace("url: postgres", "# postgres")),
        ("another scheme", SMALL.replace("postgres://figvine", "mysql://figvine")),
        ("no tables", SMALL.replace("    tables: [public.*]\n", "")),
        ("empty tables", SMALL.replace("[public.*]", "[]")),
        ("tables that only take away", SMALL.replace("[public.*]", "[\"!public.x\"]")),
        ("tables as a string", SMALL.replace("[public.*]", "public.*")),
        ("tables with an empty glob", SMALL.replace("[public.*]", "[\"\", 'a.b']")),
        ("tables with a mapping", SMALL.replace("[public.*]", "[{a: b}]")),
        ("too many replicas", in_stream("replicas: 9")),
        ("replicas as a word", in_stream("replicas: three")),
        ("replicas in quotes", in_stream("replicas: \"3\"")),
        ("replicas below zero", in_stream("replicas: -1")),
        ("replicas as a list", in_stream("replicas: [1]")),
        ("too many partitions", in_source("partitions: 101")),
        ("no partitions", in_source("partitions: 0")),
        ("a duration without a unit", in_stream("ack_timeout: 10")),
        ("a duration of no length", in_stream("ack_timeout: 0s")),
        ("a duration that cannot be off", in_stream("ack_timeout: off")),
        ("an odd duration", in_stream("max_age: 2 weeks")),
        ("a short age", in_stream("max_age: 1ms")),
        ("a size without a unit", in_stream("max_bytes: 100")),
        ("a window that is too large", in_stream("window_bytes: 65MiB")),
        ("a window that is too small", in_stream("window_bytes: 1B")),
        ("yes for true", in_stream("adopt: yes")),
        ("a word of another case", in_source("format: CloudEvents")),
        ("an unknown word", in_source("format: cloudevent")),
        ("a word that is far off", in_source("format: avro")),
        ("debezium of mariadb", in_mysql("").replace("mysql:", "mariadb:") + "    format: debezium\n"),
        ("an option that is nearly Debezium's", in_source("debezium: { decimal.handling.mod: string }")),
        ("an option that is not built", in_source("format: debezium\n    debezium: { schemas.enable: true }")),
        ("a mode that is none", in_source("debezium: { binary.handling.mode: base-64 }")),
        ("an option of another database", in_source("debezium: { bigint.unsigned.handling.mode: long }")),
        (
            "options of another database",
            in_mysql("") + "    debezium: { hstore.handling.mode: map, time.precision.mode: adaptive }\n",
        ),
        ("an unknown word of a database", in_postgres("keyless: whole-row")),
        ("a bad slot name", in_postgres("slot: Shop-1")),
        ("a long publication name", in_postgres(&format!("publication: {}", "p".repeat(64)))),
        ("a bad stream name", in_stream("name: a.b")),
        ("a boolean for a string", in_stream("name: true")),
        ("an empty string", in_stream("name: ''")),
        ("a subject outside the stream", in_source("subject: 'shop.{table}'")),
        ("a subject with an unknown field", in_source("subject: 'cdc.{source}.{tabel}'")),
        ("a subject with an open brace", in_source("subject: 'cdc.{source}.{table'")),
        ("a subject with a wildcard", in_source("subject: 'cdc.{source}.>'")),
        ("a source that is no URI", in_source("ce_source: 'a b'")),
        ("a bad listener", format!("{SMALL}http:\n  listen: localhost\n")),
        ("http as a string", format!("{SMALL}http: off\n")),
        ("a bad NATS address", SMALL.replace("nats://127", "http://127")),
        ("no addresses", SMALL.replace("nats://127.0.0.1:4222", "[]")),
        ("two ways to authenticate", in_nats("auth: {token: t0ken, creds: /a}")),
        ("a user without a password", in_nats("auth: {user: u}")),
        ("a seed without a JWT", in_nats("auth: {seed: /a}")),
        ("an empty auth", in_nats("auth: {}")),
        ("credentials at two places", in_nats("auth: {token: t0ken}").replace("nats://127", "nats://u:s3cret@127")),
        ("a certificate without a key", in_nats("tls: {cert: /a}")),
        ("a context that is no name", in_nats("context: ../hunter")),
        ("a context without a home", in_nats("context: prod")),
        ("a variable that is not set", in_stream("name: '${NAME}'")),
        ("a variable without an end", in_stream("name: '${NAME'")),
        ("a variable that is no name", in_stream("name: '${a b}'")),
        ("a file that is not there", in_stream("name: '${file:/nowhere/at/all}'")),
        ("a rule as a string", in_private("columns: ['*.*.email']")),
        ("rules as a mapping", in_private("columns: {match: '*.*.email', drop: true}")),
        ("a rule that does nothing", in_private("columns: [{match: '*.*.email'}]")),
        ("a rule that does two things", in_private("columns: [{match: '*.*.email', drop: true, mask: {}}]")),
        ("a rule without columns", in_private("columns: [{drop: true}]")),
        ("an unknown way to hide", in_private("columns: [{match: '*.*.email', tokenize: {}}]")),
        ("a rule that does not drop", in_private("columns: [{match: '*.*.email', drop: false}]")),
        ("a rule over tables", in_private("columns: [{match: 'public.email', drop: true}]")),
        ("a rule that is no glob", in_private("columns: [{match: 'public.t.[a', drop: true}]")),
        ("a hash with a setting", in_private("columns: [{match: '*.*.email', hash: {key: s3cret}}]")),
        ("a hash without a key", in_private("columns: [{match: '*.*.email', hash: {}}]")),
        ("a key that can be guessed at", in_private("key: s3cret")),
        ("a mask that is two", in_private("columns: [{match: '*.*.email', mask: {text: x, keep_last: 2}}]")),
        ("a mask that keeps nothing", in_private("columns: [{match: '*.*.email', mask: {keep_last: 0}}]")),
        ("an encryption for nobody", in_private("columns: [{match: '*.*.email', encrypt: {}}]")),
        ("an unknown default", in_private("default: denied")),
        ("the same stream twice", twice("stream: {name: S}")),
        (
            "the same slot twice",
            SMALL.replace("      url", "      slot: s\n      url")
                + "  zoo:\n    postgres: {url: 'postgres://figvine:hunter2@db/shop', slot: s}\n    tables: ['*']\n",
        ),
    ];
    let mut told = String::new();
    for (name, text) in cases {
        told.push_str(&format!("# {name}\n{}\n\n", mistakes(text, &[])));
    }
    insta::assert_snapshot!("mistakes", told);
}

fn twice(line: &str) -> String {
    in_source(line) + &format!("  zoo:\n    postgres: {{url: postgres://db/zoo}}\n    tables: ['*']\n    {line}\n")
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "\
nats:
  url: http://user:s3cret@a
  tsl: {}
sources:
  shop:
    postgres:
      url: hunter2
      heartbeat: often
    tables: public.*
    stream:
      replicas: 0
      max_age: forever
    format: json
";
    insta::assert_snapshot!("all_at_once", mistakes(text, &[("FIGVINE__HTTP__LISTN", "s3cret")]));
}

#[test]
fn a_mistake_names_its_key_and_place() {
    let text = SMALL.replace("tables", "tabels");
    let errors = config::parse("figvine.yaml", &text, &vars(&[])).expect_err("a mistake").errors;
    assert!(
        errors.iter().any(|e| e.path == "sources.shop.tabels" && e.at == At::File { line: 7, column: 5 }),
        "{errors:?}"
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let told = config::load(Path::new("/nowhere/figvine.yaml"), &vars(&[])).expect_err("no file").to_string();
    assert_eq!(told, "/nowhere/figvine.yaml: the file cannot be read: entity not found");
}

#[test]
fn values_come_from_variables_and_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("password");
    fs::write(&secret, "a: \"b\"\r\n").expect("written");
    let text =
        format!("{}      replicas: ${{COPIES}}\n      adopt: ${{ADOPT:-true}}\n", in_stream("name: '${NAME:-S}'"))
            .replace("hunter2", &format!("${{file:{}}}", secret.display()));
    let config = good(&text, &[("COPIES", "3"), ("NAME", "")]);
    assert_eq!(config.sources()[0].stream.name, "S");
    assert_eq!(config.sources()[0].stream.replicas, 3);
    assert!(config.sources()[0].stream.adopt);
    assert_eq!(postgres(&config, 0).url.expose_secret(), "postgres://figvine:a: \"b\"@db/shop");
}

#[test]
fn options_of_debezium_hold_for_its_format_alone() {
    let section = "debezium: { topic.prefix: crm, decimal.handling.mode: double, time.precision.mode: connect }";
    let text = in_source(section);
    let config = good(&text, &[]);
    assert!(postgres(&config, 0).values.debezium.is_none());
    let overrides = [
        ("FIGVINE__SOURCES__SHOP__FORMAT", "debezium"),
        ("FIGVINE__SOURCES__SHOP__DEBEZIUM__BINARY_HANDLING_MODE", "hex"),
    ];
    let config = good(&text, &overrides);
    let events = &config.sources()[0].events;
    assert_eq!((events.format, &*events.topic_prefix), (Format::Debezium, "crm"));
    let expected =
        Encoding { decimal: Decimal::Double, time: Time::Connect, binary: Binary::Hex, ..Encoding::default() };
    assert_eq!(postgres(&config, 0).values.debezium.as_deref(), Some(&expected));
    let config = good(&(in_mysql("") + "    format: debezium\n"), &[]);
    let expected = Encoding { time: Time::AdaptiveTimeMicroseconds, ..Encoding::default() };
    assert_eq!(mysql(&config, 0).values.debezium.as_deref(), Some(&expected));
}

#[test]
fn a_doubled_dollar_stays_literal() {
    let text = SMALL.replace("[public.*]", "['$${A}']");
    assert_eq!(postgres(&good(&text, &[("A", "x")]), 0).tables, ["${A}"]);
}

#[test]
fn an_inserted_value_cannot_become_structure() {
    let text = in_stream("name: '${NAME}'");
    let told = mistakes(&text, &[("NAME", "s3cret}\n      replicas: 9")]);
    assert!(told.contains("sources.shop.stream.name: a stream's name"), "{told}");
}

#[test]
fn what_was_inserted_is_not_shown() {
    let text =
        in_stream("replicas: ${A}") + "    format: ${A}\n    partitions: ${A}\n    subject: 'cdc.{source}.{${A}}'\n";
    let told = mistakes(&text, &[("A", "s3cret")]);
    assert_eq!(told.lines().count(), 4, "{told}");
}

#[test]
fn numbers_and_words_of_yaml_are_strings_where_strings_are_needed() {
    let text = in_nats("auth: {user: 0123, password: 1e5}");
    let config = good(&text, &[]);
    let Auth::User { user, password } = &config.nats().auth else { panic!("user and password") };
    assert_eq!((user.as_str(), password.expose_secret()), ("0123", "1e5"));
}

#[test]
fn credentials_leave_the_address() {
    let config = good(&SMALL.replace("nats://127", "nats://u:s3c%40ret@127"), &[]);
    assert_eq!(config.nats().urls, ["nats://127.0.0.1:4222"]);
    let Auth::User { user, password } = &config.nats().auth else { panic!("user and password") };
    assert_eq!((user.as_str(), password.expose_secret()), ("u", "s3c@ret"));
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let text = in_nats("auth: {user: u, password: s3cret}");
    let shown = format!("{:?}", good(&text, &[]));
    assert!(!shown.contains("hunter2") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn variables_override_the_file() {
    let config = good(
        &SMALL.replace("shop:", "my-shop:"),
        &[
            ("FIGVINE__NATS__URL", "nats://a:1, nats://b:2"),
            ("FIGVINE__SOURCES__MY_SHOP__POSTGRES__URL", "postgres://u:${p}@h/d"),
            ("FIGVINE__SOURCES__MY_SHOP__STREAM__REPLICAS", "3"),
            ("FIGVINE__SOURCES__MY_SHOP__STREAM__ON_STREAM_LOSS", "reread"),
            ("FIGVINE__SOURCES__MY_SHOP__TABLES", "a.*,!a.b"),
            ("FIGVINE__SOURCES__MY_SHOP__POSTGRES__KEYLESS", "whole_row"),
            ("figvine__http__listen", "of another name"),
            ("FIGVINE__HTTP__LISTEN", "off"),
            ("FIGVINE__shutdown_timeout", "1s"),
        ],
    );
    assert_eq!(config.nats().urls, ["nats://a:1", "nats://b:2"]);
    let source = &config.sources()[0];
    assert_eq!(source.name, "my-shop");
    assert_eq!((source.stream.replicas, source.stream.on_loss), (3, OnLoss::Reread));
    assert_eq!(postgres(&config, 0).url.expose_secret(), "postgres://u:${p}@h/d");
    assert_eq!(postgres(&config, 0).tables, ["a.*", "!a.b"]);
    assert_eq!(postgres(&config, 0).keyless, Keyless::WholeRow);
    assert_eq!((config.http().listen, config.shutdown_timeout()), (None, Duration::from_secs(1)));
}

#[test]
fn variables_alone_are_a_configuration() {
    let config = good(
        "",
        &[
            ("FIGVINE__NATS__URL", "nats://a"),
            ("FIGVINE__SOURCES__SHOP__POSTGRES__URL", "postgres://db/shop"),
            ("FIGVINE__SOURCES__SHOP__TABLES", "*.*"),
            ("FIGVINE__SOURCES__SHOP__FORMAT", "plain"),
        ],
    );
    assert_eq!((config.sources()[0].name.as_str(), config.sources()[0].events.format), ("shop", Format::Plain));
}

#[test]
fn mistakes_in_variables_name_the_variable() {
    let told = mistakes(
        SMALL,
        &[
            ("FIGVINE__NATS__URI", "s3cret"),
            ("FIGVINE__NATS", "s3cret"),
            ("FIGVINE__", "s3cret"),
            ("FIGVINE__NATS__URL__HOST", "s3cret"),
            ("FIGVINE__SOURCES__SHOP", "s3cret"),
            ("FIGVINE__SOURCES__SHOP__MYSQL", "s3cret"),
            ("FIGVINE__SOURCES__SHOP__STREAM__REPLICAS", "s3cret"),
            ("FIGVINE__SOURCES__SHOP__STREAM__MAX_AGE", "s3cret"),
            ("FIGVINE__SOURCES__SHOP__POSTGRES__URL", "s3cret"),
            ("FIGVINE__SOURCES__OTHER__FORMAT", "plain"),
        ],
    );
    insta::assert_snapshot!("mistakes_in_variables", told);
}

#[test]
fn a_context_of_the_nats_cli_is_read() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join(".config/nats/context");
    fs::create_dir_all(&folder).expect("made");
    fs::write(
        folder.join("prod.json"),
        r#"{"description":"x","url":"nats://a:4222,b","token":"","user":"","creds":"~/figvine.creds","ca":"/ca.pem"}"#,
    )
    .expect("written");
    fs::write(folder.join("bad.json"), r#"{"url":"nats://u:s3cret@a", "token": t0ken}"#).expect("written");
    let home_is = home.path().to_str().expect("UTF-8");
    let text = SMALL.replace("url: nats://127.0.0.1:4222", "context: prod");
    let config = good(&text, &[("HOME", home_is)]);
    assert_eq!(config.nats().urls, ["nats://a:4222", "nats://b"]);
    assert_eq!(config.nats().tls.ca.as_deref(), Some(Path::new("/ca.pem")));
    let Auth::Creds(creds) = &config.nats().auth else { panic!("a credentials file") };
    assert_eq!(creds, &home.path().join("figvine.creds"));

    let config = good(&text, &[("XDG_CONFIG_HOME", &format!("{home_is}/.config"))]);
    assert_eq!(config.nats().urls.len(), 2);

    let config = good(&in_nats("context: prod"), &[("HOME", home_is)]);
    assert_eq!(config.nats().urls, ["nats://127.0.0.1:4222"]);

    let told = mistakes(&text.replace("prod", "bad"), &[("HOME", home_is)]);
    assert!(told.contains("bad.json is not valid JSON: line 1, column 39"), "{told}");
    let told = mistakes(&text.replace("prod", "none"), &[("HOME", home_is)]);
    assert!(told.contains("none.json cannot be read: entity not found"), "{told}");
}

/// Variables that the reference needs.
const PASSWORDS: [(&str, &str); 4] = [
    ("SHOP_PASSWORD", "hunter2"),
    ("CRM_PASSWORD", "hunter2"),
    ("ERP_PASSWORD", "hunter2"),
    ("FIGVINE_SECRET", "hunter2-hunter2-hunter2"),
];

fn committed(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).expect("committed")
}

#[test]
fn the_reference_loads_as_it_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.yaml");
    let config = config::load(&path, &vars(&PASSWORDS)).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(postgres(&config, 0).url.expose_secret().contains(":hunter2@"));
    assert!(mysql(&config, 1).url.expose_secret().contains(":hunter2@"));
}

#[test]
fn the_reference_shows_the_defaults() {
    let reference = good(&committed("reference.yaml"), &PASSWORDS);
    let small = good(SMALL, &[]);
    let shown = |config: &Config| {
        let mut postgres = postgres(config, 0).clone();
        postgres.url = String::new().into();
        postgres.tables.clear();
        // Lists have an example there.
        postgres.ignore_messages.clear();
        let source = &config.sources()[0];
        format!(
            "{postgres:#?}{:#?}{:#?}{:#?}{:?}",
            source.events,
            source.stream,
            config.http(),
            config.shutdown_timeout()
        )
    };
    assert_eq!(shown(&reference), shown(&small));

    let shown = |mysql: &Mysql| {
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            mysql.server_id, mysql.keyless, mysql.on_statement, mysql.trace_comments, mysql.heartbeat, mysql.values
        )
    };
    let defaults = shown(mysql(&good(&in_mysql(""), &[]), 0));
    assert_eq!([1, 2].map(|source| shown(mysql(&reference, source))), [defaults.clone(), defaults]);
    assert_eq!([1, 2].map(|source| mysql(&reference, source).flavour), [Flavour::MySql, Flavour::MariaDb]);
}

#[test]
fn the_reference_holds_every_key_and_no_other() {
    // Keys that exclude others stand in comments, as `# key: value`.
    let text: String = committed("reference.yaml")
        .lines()
        .map(|line| {
            let comment = line.trim_start().strip_prefix("# ").filter(|l| {
                l.split_once(": ").is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            });
            match comment {
                Some(live) => format!("{}{live}\n", &line[..line.len() - line.trim_start().len()]),
                None => format!("{line}\n"),
            }
        })
        .collect();
    let tree: Value = serde_saphyr::from_str(&text).expect("YAML");
    fn walk(path: &str, value: &Value, out: &mut BTreeSet<String>) {
        match value {
            Value::Object(section) => {
                for (key, value) in section {
                    let key = if path == "sources" { "*" } else { key };
                    walk(&if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }, value, out);
                }
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                items.iter().for_each(|item| walk(&format!("{path}.*"), item, out));
            }
            _ => {
                out.insert(path.to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk("", &tree, &mut found);
    assert_eq!(found, config::known_keys().into_iter().collect());
}

/// A block is a whole file, or the section `private` of a source.
#[test]
fn every_block_of_yaml_in_the_page_on_private_data_is_loaded() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/private-data.md");
    let page = fs::read_to_string(page).expect("committed");
    let blocks: Vec<&str> =
        page.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect();
    assert!(blocks.len() >= 3, "{blocks:?}");
    for block in blocks {
        let text = match block.starts_with("private:") {
            true => format!("{SMALL}{}", block.lines().map(|line| format!("    {line}\n")).collect::<String>()),
            false => block.to_owned(),
        };
        let config = good(&text, &PASSWORDS);
        assert!(!config.sources()[0].private.hides_nothing(), "{block}");
    }
}

#[test]
fn every_block_of_yaml_in_the_page_on_schemas_is_loaded() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schemas.md");
    let page = fs::read_to_string(page).expect("committed");
    let blocks: Vec<&str> =
        page.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect();
    let policies: Vec<_> = blocks
        .iter()
        .map(|block| {
            let lines: String = block.lines().map(|line| format!("    {line}\n")).collect();
            good(&format!("{SMALL}{lines}"), &PASSWORDS).sources()[0].schemas.expect("they are on")
        })
        .collect();
    let [defaults, backward] = policies.as_slice() else { panic!("{blocks:?}") };
    assert_eq!(*defaults, Policy::default());
    assert_eq!(good(SMALL, &PASSWORDS).sources()[0].schemas, Some(Policy::default()));
    assert_eq!((backward.compatibility.forward, backward.on_drift), (false, OnDrift::Stop));
}

#[test]
fn schemas_are_off_where_that_is_said_and_in_debeziums_format() {
    let schemas = |more: &str| good(&format!("{SMALL}{more}"), &PASSWORDS).sources()[0].schemas;
    assert_eq!(schemas("    schemas: { enabled: false }\n"), None);
    assert_eq!(schemas("    format: debezium\n"), None);
    let told = mistakes(&format!("{SMALL}    format: debezium\n    schemas: {{ on_drift: stop }}\n"), &PASSWORDS);
    assert!(told.contains("the format debezium has no schemas of ours"), "{told}");
}

/// `INSTA_UPDATE=always` writes the file anew.
#[test]
fn the_committed_schema_is_that_of_the_loader() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/figvine.schema.json");
    let schema = config::json_schema();
    if std::env::var("INSTA_UPDATE").is_ok_and(|v| v == "always") {
        fs::write(&path, &schema).expect("written");
    }
    assert_eq!(committed("figvine.schema.json"), schema);
}

#[test]
fn deep_and_wide_files_are_refused_in_bounded_space() {
    let deep = "[".repeat(100_000);
    assert!(mistakes(&deep, &[]).contains("not valid YAML"));
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for pair in ["a", "b", "c", "d", "e", "f", "g", "h"].windows(2) {
        let (of, name) = (pair[0], pair[1]);
        bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 10].join(", ")));
    }
    assert!(mistakes(&bomb, &[]).contains("not valid YAML"));
}

proptest! {
    #[test]
    fn any_text_is_loaded_or_refused_with_a_reason(text in any::<String>()) {
        if let Err(errors) = config::parse("f", &text, &vars(&[])) {
            prop_assert!(!errors.errors.is_empty());
        }
    }

    #[test]
    fn a_file_with_a_slip_is_loaded_or_refused_with_a_reason(
        at in 0..SMALL.len(),
        slip in prop::sample::select(vec!["\n", " ", ":", "{", "]", "'", "&a ", "*a ", "- ", "? ", "<<: ", "~", "${", "\t", "!!int ", "é", "\0"]),
    ) {
        let mut text = SMALL.to_owned();
        text.insert_str(at, slip);
        if let Err(errors) = config::parse("f", &text, &vars(&[])) {
            prop_assert!(!errors.errors.is_empty());
            prop_assert!(!errors.to_string().contains("hunter2"), "{errors}");
        }
    }

    #[test]
    fn any_override_is_heard_or_refused(name in "FIGVINE__[A-Z_]{0,40}", value in any::<String>()) {
        let _ = config::parse("f", SMALL, &vars(&[(&name, &value)]));
    }
}
