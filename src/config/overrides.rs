//! `FIGVINE__NATS__URL=...`: variables that win over the file.
//!
//! What such a variable holds is taken as it stands: no quotes, no `${`.

use std::collections::BTreeMap;

use super::keys::{Key, Kind, ROOT};
use super::yaml::{Entry, Node, Scalar, ScalarKind, Value};
use super::{At, Complaints, did_you_mean, is_showable, join};

const PREFIX: &str = "FIGVINE__";

/// Puts the overrides among `vars` into the tree.
pub(super) fn apply(root: &mut Node, vars: &BTreeMap<String, String>, complaints: &mut Complaints) {
    for (name, value) in vars {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let at = At::Variable(name.clone());
        let segments: Vec<&str> = path.split("__").collect();
        put(root, ROOT, "", &segments, value, &at, complaints);
    }
}

/// Goes down one section. Names match in either case, `-` and `.` as `_`: a variable cannot hold them.
fn put(
    section: &mut Node,
    keys: &[Key],
    path: &str,
    segments: &[&str],
    text: &str,
    at: &At,
    complaints: &mut Complaints,
) {
    let Some((first, rest)) = segments.split_first() else { return };
    let wanted = first.to_ascii_lowercase();
    let Some(key) = keys.iter().find(|k| k.name.replace(['-', '.'], "_") == wanted) else {
        let place = if path.is_empty() { String::new() } else { format!(" in {path}") };
        let hint = did_you_mean(&wanted, keys.iter().map(|k| k.name));
        let shown = if is_showable(&wanted) { format!(" '{wanted}'") } else { String::new() };
        complaints.push(at, path, format!("unknown key{shown}{place}{hint}"));
        return;
    };
    let path = join(path, key.name);
    match (&key.kind, rest) {
        (Kind::Section(keys), [_, ..]) => {
            if let Some(node) = open(section, key.name, at) {
                put(node, keys, &path, rest, text, at, complaints);
            }
        }
        (Kind::Named(keys), [name, rest @ ..]) if !rest.is_empty() => {
            let Some(named) = open(section, key.name, at) else { return };
            let lower = name.to_ascii_lowercase();
            let there = match &named.value {
                Value::Map(entries) => {
                    entries.iter().map(|e| &e.key).find(|k| k.to_ascii_lowercase().replace('-', "_") == lower).cloned()
                }
                _ => None,
            };
            let name = there.unwrap_or(lower);
            if let Some(node) = open(named, &name, at) {
                put(node, keys, &join(&path, &name), rest, text, at, complaints);
            }
        }
        (Kind::Each(_), _) => {
            complaints.push(at, &path, format!("{path} is a list of sections; it stands in the file alone"));
        }
        (Kind::Section(_) | Kind::Named(_), _) => {
            complaints.push(at, &path, format!("{path} is a section; a variable sets one key of it"));
        }
        (_, [_, ..]) => complaints.push(at, &path, format!("{path} has no keys below it")),
        (kind, []) => {
            let scalar =
                |text: &str| Value::Scalar(Scalar { text: text.to_owned(), kind: ScalarKind::Text, inserted: true });
            let value = match kind {
                Kind::List => {
                    let item = |t: &str| Node { at: at.clone(), value: scalar(t.trim()) };
                    Value::List(text.split(',').map(item).collect())
                }
                _ => scalar(text),
            };
            set(section, key.name, Node { at: at.clone(), value }, at);
        }
    }
}

/// The section called `name` in `parent`, made if need be; `None` where something
/// else stands at its place, which the reader of the tree will say.
fn open<'a>(parent: &'a mut Node, name: &str, at: &At) -> Option<&'a mut Node> {
    if matches!(parent.value, Value::Null) {
        parent.value = Value::Map(Vec::new());
    }
    let Value::Map(entries) = &mut parent.value else { return None };
    let index = match entries.iter().position(|e| e.key == name) {
        Some(index) => index,
        None => {
            let node = Node { at: at.clone(), value: Value::Map(Vec::new()) };
            entries.push(Entry { key: name.to_owned(), at: at.clone(), node });
            entries.len() - 1
        }
    };
    entries.get_mut(index).map(|e| &mut e.node)
}

fn set(parent: &mut Node, name: &str, node: Node, at: &At) {
    if matches!(parent.value, Value::Null) {
        parent.value = Value::Map(Vec::new());
    }
    let Value::Map(entries) = &mut parent.value else { return };
    entries.retain(|e| e.key != name);
    entries.push(Entry { key: name.to_owned(), at: at.clone(), node });
}
