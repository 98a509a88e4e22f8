//! The command line as it is met: help, usage errors, exit codes. No servers.

use std::fs;
use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

const SMALL: &str = "\
nats: { url: \"nats://127.0.0.1:1\" }
sources:
  shop:
    postgres: { url: \"postgres://figvine@127.0.0.1:1/shop\" }
    tables: [\"public.*\"]
";

/// A folder with a configuration, or without.
fn folder(config: Option<&str>) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    if let Some(config) = config {
        fs::write(folder.path().join("figvine.yaml"), config).expect("written");
    }
    folder
}

/// Exit code, stdout, stderr.
fn figvine(folder: &TempDir, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_figvine"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("FIGVINE") || ["RUST_LOG", "COLUMNS"].contains(&&*name) {
            command.env_remove(&*name);
        }
    }
    let output = command.current_dir(folder.path()).args(args).output().expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

/// What a successful command prints.
fn printed(args: &[&str]) -> String {
    let (code, out, err) = figvine(&folder(None), args);
    assert_eq!(code, 0, "{err}");
    out
}

/// The complaint of one that fails with `code`.
fn complaint(config: Option<&str>, args: &[&str], code: i32) -> String {
    let (found, out, err) = figvine(&folder(config), args);
    assert_eq!(found, code, "{args:?}: {err}");
    assert_eq!(out, "", "{args:?} prints to stdout");
    err
}

#[test]
fn help_tells_what_there_is() {
    insta::assert_snapshot!("help", printed(&["--help"]));
    insta::assert_snapshot!("help_run", printed(&["run", "--help"]));
    insta::assert_snapshot!("help_tail", printed(&["tail", "--help"]));
    insta::assert_snapshot!("help_demo", printed(&["demo", "--help"]));
    insta::assert_snapshot!("help_backfill_start", printed(&["backfill", "start", "--help"]));
    insta::assert_snapshot!("help_rules_test", printed(&["rules", "test", "--help"]));
    insta::assert_snapshot!("help_rules_explain", printed(&["rules", "explain", "--help"]));
}

#[test]
fn completions_and_manual_pages_are_printed() {
    assert!(printed(&["completions", "bash"]).contains("_figvine"));
    assert!(printed(&["man"]).contains(".TH figvine"));
}

#[test]
fn what_is_typed_wrong_ends_with_2() {
    for args in [
        &["nonsense"][..],
        &["run", "--nonsense"],
        &["tail", "--since", "yesterday"],
        &["tail", "--table", "["],
        &["tail", "--limit", "0"],
        &["demo", "--seconds", "0"],
        &["demo", "--rate", "-1"],
        &["demo", "--rate", "NaN"],
    ] {
        let told = complaint(None, args, 2);
        assert!(told.starts_with("error: "), "{told}");
    }
    insta::assert_snapshot!("usage", complaint(None, &["tail", "--since", "yesterday"], 2));
}

#[test]
fn an_unknown_source_ends_with_2() {
    for args in [&["run", "--source", "nope"][..], &["check", "--source", "nope"], &["tail", "--source", "nope"]] {
        let told = complaint(Some(SMALL), args, 2);
        assert_eq!(told, "error[FV-4001]: the configuration has no source `nope`\n");
    }
}

#[test]
fn without_a_configuration_it_ends_with_3() {
    for command in ["run", "check", "tail"] {
        let told = complaint(None, &[command], 3);
        insta::allow_duplicates! { insta::assert_snapshot!("no_configuration", told) };
    }
}

#[test]
fn a_bad_configuration_ends_with_3_and_all_its_mistakes() {
    let bad = SMALL.replace("tables:", "tabels:").replace("nats://127.0.0.1:1", "http://127.0.0.1:1");
    insta::assert_snapshot!("bad_configuration", complaint(Some(&bad), &["run"], 3));
}

#[test]
fn errors_have_a_shape_for_programs() {
    let told = complaint(Some("nats: 7"), &["--output", "json", "run"], 3);
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["schema_version"], 1);
    assert_eq!(told["error"]["code"], "FV-4003");
    assert_eq!(told["error"]["exit_code"], 3);
    assert!(told["error"]["what"].as_str().is_some_and(|what| what.starts_with("the configuration is invalid")));
    assert!(told["error"]["why"].is_array() && told["error"]["hint"].is_null());
}

#[test]
fn a_tail_without_nats_ends_with_7() {
    let told = complaint(Some(SMALL), &["tail"], 7);
    assert!(told.starts_with("error[FV-2101]: nats at 127.0.0.1:1 cannot be reached"), "{told}");
}

/// Two rules, one of them of a whole.
const RULES: &str = "
    rules:
      - type: order_placed
        from: public.orders
        on: [insert]
        data: { total: after.total, lines: lines }
        aggregate: { include: [{ table: order_lines, on: order_id, as: lines, columns: [sku] }] }
      - { type: order_large, from: public.orders, on: [insert], when: after.total > 100.00 }
";

const TESTS: &str = "\
tests:
  - name: an order with its lines is one event
    tables: { public.orders: { types: { total: numeric } } }
    transaction:
      - { insert: public.orders, after: { id: 1, total: '12.90' } }
      - { insert: public.order_lines, after: { id: 7, order_id: 1, sku: FIG-JAM } }
    events:
      - { type: order_placed.v1, key: '1', data: { total: '12.90', lines: [{ sku: FIG-JAM }] } }
";

/// Runs `rules test` over a file; exit code, stdout, stderr.
fn rules_test(tests: &str, args: &[&str]) -> (i32, String, String) {
    rules_test_with(&format!("{SMALL}{RULES}"), tests, args)
}

fn rules_test_with(config: &str, tests: &str, args: &[&str]) -> (i32, String, String) {
    let folder = folder(Some(config));
    fs::write(folder.path().join("orders.yaml"), tests).expect("written");
    let args = [args, &["rules", "test", "orders.yaml"]].concat();
    figvine(&folder, &args)
}

/// The page's first configuration, and the file of tests that it shows.
#[test]
fn the_tests_on_the_page_about_rules_hold() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md");
    let page = fs::read_to_string(page).expect("committed");
    let block = |mark: &str| {
        let (_, from) = page.split_once(mark).unwrap_or_else(|| panic!("no {mark:?}"));
        from.split_once("\n```").expect("its end").0.to_owned()
    };
    let tests = format!("tests:{}\n", block("\n```\ntests:"));
    let (code, out, err) = rules_test_with(&block("```yaml\n"), &tests, &[]);
    assert_eq!((code, &*err), (0, ""), "{out}");
}

#[test]
fn a_test_of_rules_that_holds_ends_with_0() {
    let (code, out, err) = rules_test(TESTS, &[]);
    assert_eq!((code, &*err), (0, ""), "{out}");
    assert_eq!(out, "ok      an order with its lines is one event  orders.yaml\n1 test: 1 ok, 0 failed\n");
}

#[test]
fn a_test_of_rules_that_fails_ends_with_1_and_shows_where() {
    let more = "
  - name: what the log does not carry
    transaction: [{ insert: public.orders, after: { id: 3 } }]
  - name: a large order
    tables: { public.orders: { types: { total: numeric } } }
    transaction: [{ insert: public.orders, after: { id: 2, total: '300.00' } }]
    events:
      - { type: order_large.v1, key: 2 }
      - { type: order_placed.v1, data: { total: '301.00', lines: [] } }
      - { type: order_shipped.v1, key: '2' }
";
    let tests = format!("{}{more}", TESTS.replace("sku: FIG-JAM }] }", "sku: BREAD }] }"));
    let (code, out, err) = rules_test(&tests, &[]);
    assert_eq!(code, 1, "{out}");
    assert_eq!(err, "error[FV-4043]: 3 of 3 tests failed\n");
    insta::assert_snapshot!("rules_test_failed", out);

    let (code, out, _) = rules_test(&tests, &["--output", "json"]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &told["schema_version"], &told["failed"]), (1, &1.into(), &3.into()));
    assert_eq!(told["tests"][0]["differences"][0]["kind"], "changed");
    assert!(told["tests"][1]["error"].as_str().is_some_and(|error| error.starts_with("FV-3111: ")), "{out}");
    assert_eq!(told["tests"][2]["differences"][1]["expected"]["type"], "order_shipped.v1");
}

#[test]
fn a_file_of_tests_with_a_mistake_is_told_with_its_place() {
    for (name, tests, told) in [
        ("key", TESTS.replace("events:", "evnets:"), "orders.yaml:7:5: unknown field"),
        ("yaml", TESTS.replace("'12.90' } }", "'12.90' }"), "orders.yaml:6:"),
        ("empty", "tests: []".to_owned(), "orders.yaml: there are no tests"),
        ("nothing", "tests: [{name: n, transaction: []}]".to_owned(), "orders.yaml: test 'n' has no changes"),
    ] {
        let (code, out, err) = rules_test(&tests, &[]);
        assert_eq!((code, &*out), (1, ""), "{name}: {err}");
        assert!(err.starts_with(&format!("error[FV-4042]: {told}")), "{name}: {err}");
    }
    let told = complaint(Some(&format!("{SMALL}{RULES}")), &["rules", "test", "nowhere.yaml"], 1);
    assert!(told.starts_with("error[FV-4042]: nowhere.yaml: the file cannot be read: entity not found"), "{told}");
}

#[test]
fn it_must_be_clear_whose_rules_are_tested() {
    let none = complaint(Some(SMALL), &["rules", "test", "t.yaml"], 1);
    assert!(none.starts_with("error[FV-4040]: the configuration has no rules"), "{none}");
    let shop = SMALL.split_once("  shop:").expect("a source").1;
    let two = format!("{SMALL}{RULES}  zoo:{shop}{RULES}").replacen("tables:", "stream: { name: S }\n    tables:", 1);
    let several = complaint(Some(&two), &["rules", "test", "t.yaml"], 2);
    assert!(several.starts_with("error[FV-4041]: several sources have rules: shop, zoo"), "{several}");
    let one = complaint(Some(&two), &["rules", "test", "t.yaml", "--source", "zoo"], 1);
    assert!(one.starts_with("error[FV-4042]"), "{one}");
}
