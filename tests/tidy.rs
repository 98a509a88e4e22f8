//! The house keeps its shape: imports point down, and no room is opened twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `figvine` in the order of the data. Each imports only from those before it.
const ORDER: [&str; 14] = [
    "telemetry",
    "checkpoint",
    "schema",
    "event",
    "map",
    "nats",
    "stream",
    "backfill",
    "pipeline",
    "config",
    "wiring",
    "control",
    "http",
    "cli",
];

/// The only module that names concrete connectors, beside the settings that it hands them
/// and the commands that start private servers.
const NAMES_CONNECTORS: [&str; 2] = ["wiring", "config"];

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Source text without its unit tests and comments.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("readable");
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn modules() -> BTreeMap<PathBuf, String> {
    let src = root().join("src");
    let mut modules = BTreeMap::new();
    for path in rust_files(&src) {
        let relative = path.strip_prefix(&src).expect("below src");
        let first = relative.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        let module = first.trim_end_matches(".rs").to_owned();
        if module != "lib" && module != "main" {
            modules.insert(path, module);
        }
    }
    modules
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    for (path, module) in modules() {
        let place = ORDER.iter().position(|m| *m == module);
        let Some(place) = place else {
            wrong.push(format!("{}: module {module} has no place in the order of the data", path.display()));
            continue;
        };
        for (at, later) in ORDER.iter().enumerate() {
            if at > place && code(&path).contains(&format!("crate::{later}")) {
                wrong.push(format!("{}: {module} imports from {later}, which comes behind it", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_wiring_names_connectors() {
    let wrong: Vec<_> = modules()
        .into_iter()
        .filter(|(_, module)| !NAMES_CONNECTORS.contains(&module.as_str()))
        .filter(|(path, _)| ["figvine_postgres", "figvine_mysql"].iter().any(|name| code(path).contains(name)))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "these name a connector: {wrong:?}");
}

/// Scripts tell failures apart by them.
#[test]
fn a_code_of_a_failed_command_belongs_to_one_command() {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let folder = root().join("src/cli");
    for path in rust_files(&folder) {
        let below = path.strip_prefix(&folder).expect("below");
        let command = below.iter().next().expect("a name").to_string_lossy().trim_end_matches(".rs").to_owned();
        // What commands speak through is none.
        if command == "line" {
            continue;
        }
        let text = code(&path);
        // A constructor's second argument, on its line.
        for line in text.lines().filter(|line| line.contains("CliError::new(")) {
            let Some(code) = line.split("\"FV-").nth(1).and_then(|rest| rest.get(..4)) else { continue };
            let owner = owners.entry(code.to_owned()).or_insert_with(|| command.clone());
            assert_eq!(*owner, command, "FV-{code} is used by two commands");
        }
    }
    assert!(owners.len() > 10, "{owners:?}");
}

#[test]
fn only_the_demo_starts_private_servers() {
    let demo = root().join("src/cli/demo");
    let wrong: Vec<_> = modules()
        .into_keys()
        .filter(|path| !path.starts_with(&demo) && *path != demo.with_extension("rs"))
        .filter(|path| code(path).contains("figvine_sandbox"))
        .map(|path| path.display().to_string())
        .collect();
    assert!(wrong.is_empty(), "these name the sandbox: {wrong:?}");
}

#[test]
fn connectors_know_neither_each_other_nor_nats_nor_the_configuration_file() {
    let connectors = root().join("connectors");
    for (name, banned) in [
        ("change", &["figvine_postgres", "figvine_mysql", "async_nats", "serde_saphyr", "figvine::"][..]),
        ("postgres", &["figvine_mysql", "async_nats", "serde_saphyr", "figvine::"][..]),
        ("mysql", &["figvine_postgres", "async_nats", "serde_saphyr", "figvine::"][..]),
    ] {
        for path in rust_files(&connectors.join(name).join("src")) {
            for word in banned {
                assert!(!code(&path).contains(word), "{} mentions {word}", path.display());
            }
        }
    }
}

#[test]
fn no_file_is_named_mod() {
    for folder in ["src", "connectors", "sandbox", "tests"] {
        for path in rust_files(&root().join(folder)) {
            assert!(!path.ends_with("mod.rs"), "{}: write `foo.rs` beside `foo/`", path.display());
        }
    }
}

#[test]
fn no_test_is_ignored_and_none_sleeps() {
    for folder in ["tests", "connectors", "sandbox"] {
        for path in rust_files(&root().join(folder)) {
            if path.ends_with("tidy.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).expect("readable");
            assert!(!text.contains("#[ignore"), "{} ignores a test", path.display());
        }
    }
}
