//! The pages under `docs/`: what they show is what the program takes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use figvine::config;

/// What stands around a block that is a part of a file, by the key it begins with.
const AROUND_SOURCES: &str = "nats: { url: nats://127.0.0.1:4222 }\n";
const AROUND_A_SECTION: &str = "\
nats: { url: nats://127.0.0.1:4222 }
sources:
  shop:
    postgres: { url: postgres://figvine@db/shop }
    tables: [public.*]
";

fn pages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let files = fs::read_dir(folder).expect("docs").map(|entry| entry.expect("a readable folder").path());
    let mut pages: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    pages.sort();
    pages
}

/// The blocks of a page in a language, each with the line it begins at.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut is_inside = false;
    for (line, at) in page.lines().zip(1..) {
        match line.strip_prefix("```") {
            Some(opened) if !is_inside && opened == language => {
                is_inside = true;
                blocks.push((at, String::new()));
            }
            Some(_) => is_inside = false,
            None => {
                if let Some((_, block)) = blocks.last_mut().filter(|_| is_inside) {
                    block.push_str(line);
                    block.push('\n');
                }
            }
        }
    }
    blocks
}

/// A value for each `${NAME}`.
fn variables(text: &str) -> BTreeMap<String, String> {
    let names = text.split("${").skip(1).filter_map(|rest| rest.split(['}', ':']).next());
    names.map(|name| (name.to_owned(), "sixteen-or-more-characters".to_owned())).collect()
}

/// A block is a whole file, its sources, or a section of one source.
#[test]
fn every_block_of_yaml_is_taken_by_the_loader() {
    let mut count = 0;
    for path in pages() {
        let page = fs::read_to_string(&path).expect("readable");
        for (line, block) in blocks(&page, "yaml") {
            let first = block.lines().find(|line| !line.starts_with('#') && !line.is_empty()).unwrap_or_default();
            let text = match first.split(':').next() {
                Some("nats") => block.clone(),
                Some("sources") => format!("{AROUND_SOURCES}{block}"),
                _ => format!("{AROUND_A_SECTION}{}", block.lines().map(|l| format!("    {l}\n")).collect::<String>()),
            };
            let name = format!("{}:{line}", path.display());
            if let Err(errors) = config::parse(&name, &text, &variables(&block)) {
                panic!("the block of {name} is not taken:\n{errors}\n{text}");
            }
            count += 1;
        }
    }
    assert!(count >= 10, "{count} blocks");
}
