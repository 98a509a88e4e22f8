//! `${ENV}`, `${ENV:-default}`, `${file:PATH}` inside string scalars; `$${` is a literal `${`.
//!
//! Values are inserted after the YAML was read: whatever they hold, they cannot
//! become structure, and they are not searched for further `${`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use super::yaml::{Node, ScalarKind, Value};
use super::{Complaints, join};

/// More than any key, certificate or password has: who names a larger file named the wrong one.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Inserts values into all scalars of a tree.
pub(super) fn insert(node: &mut Node, path: &str, vars: &BTreeMap<String, String>, complaints: &mut Complaints) {
    match &mut node.value {
        Value::Scalar(scalar) if scalar.kind == ScalarKind::Text && !scalar.inserted && scalar.text.contains("${") => {
            match expand(&scalar.text, vars) {
                Ok(expanded) => {
                    scalar.inserted = expanded.inserted;
                    scalar.text = expanded.text;
                }
                Err(what) => {
                    complaints.push(&node.at, path, format!("{path}: {what}"));
                    node.value = Value::Bad;
                }
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| insert(item, path, vars, complaints)),
        Value::Map(entries) => {
            for entry in entries {
                insert(&mut entry.node, &join(path, &entry.key), vars, complaints);
            }
        }
        Value::Null | Value::Scalar(_) | Value::Bad => {}
    }
}

struct Expanded {
    text: String,
    /// Whether anything came from outside.
    inserted: bool,
}

fn expand(text: &str, vars: &BTreeMap<String, String>) -> Result<Expanded, String> {
    let mut out = Expanded { text: String::with_capacity(text.len()), inserted: false };
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let tail = from.strip_prefix("${").unwrap_or_default();
        if let Some(before) = before.strip_suffix('$') {
            out.text.push_str(before);
            out.text.push_str("${");
            rest = tail;
            continue;
        }
        out.text.push_str(before);
        let Some((inside, tail)) = tail.split_once('}') else {
            return Err("'${' without '}'; a literal '${' is written '$${'".to_owned());
        };
        out.text.push_str(&look_up(inside, vars)?);
        out.inserted = true;
        rest = tail;
    }
    out.text.push_str(rest);
    Ok(out)
}

fn look_up(inside: &str, vars: &BTreeMap<String, String>) -> Result<String, String> {
    if let Some(path) = inside.strip_prefix("file:") {
        return read_file(path);
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
    if !is_name {
        return Err("what stands between '${' and '}' is neither a variable nor 'file:PATH'".to_owned());
    }
    match (vars.get(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value.clone()),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("variable {name} is not set; '${{{name}:-default}}' would give it a default")),
    }
}

fn read_file(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|e| format!("file {path} cannot be read: {}", e.kind()))?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    let read = read.map_err(|e| format!("file {path} cannot be read: {}", e.kind()))?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(format!("file {path} holds more than {MAX_FILE_BYTES} bytes"));
    }
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vars() -> BTreeMap<String, String> {
        [("A", "one"), ("EMPTY", ""), ("TRICKY", "${A}")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    fn expanded(text: &str) -> Result<String, String> {
        expand(text, &vars()).map(|e| e.text)
    }

    #[test]
    fn variables_are_inserted_once() {
        for (text, wanted) in [
            ("${A}", "one"),
            ("x${A}y${A}", "xoneyone"),
            ("${B:-two}", "two"),
            ("${B:-}", ""),
            ("${EMPTY}", ""),
            ("${EMPTY:-two}", "two"),
            ("${TRICKY}", "${A}"),
            ("$${A}", "${A}"),
            ("$A $ {A} }", "$A $ {A} }"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_inserted_is_refused() {
        for text in ["${B}", "${A", "${}", "${1A}", "${a b}", "${file:/nowhere/at/all}"] {
            assert!(expanded(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_expanded_or_refused(text in any::<String>()) {
            let _ = expanded(&text);
        }

        #[test]
        fn text_without_marks_stays(text in "[^$]*") {
            prop_assert_eq!(expanded(&text), Ok(text));
        }
    }
}
