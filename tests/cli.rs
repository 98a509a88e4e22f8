//! The command line as it is met: help, usage errors, exit codes. No servers.

use std::fs;

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
