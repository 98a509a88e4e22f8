//! Typed readers over the tree: each takes a key of a section, complains, and goes on.
//!
//! What a reader returns after it complained is never used: a configuration with
//! complaints is not handed out.

use std::net::SocketAddr;
use std::time::Duration;

use super::keys::{Key, Kind};
use super::yaml::{Entry, Node, ScalarKind, Value};
use super::{At, Complaints, did_you_mean, is_showable, join, size};

/// One section of the tree, its unknown keys already complained about.
pub(super) struct Section<'a> {
    pub(super) path: String,
    /// Where its key stands.
    pub(super) at: At,
    keys: &'static [Key],
    entries: Vec<(&'static Key, &'a Entry)>,
}

impl<'a> Section<'a> {
    fn entry(&self, name: &str) -> Option<&'a Entry> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, entry)| *entry)
    }

    fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|k| k.name == name)
    }

    /// Whether something stands there, good or bad. A section without keys is one, a scalar without text is none.
    pub(super) fn has(&self, name: &str) -> bool {
        let is_section = self.key(name).is_some_and(|k| matches!(k.kind, Kind::Section(_)));
        self.entry(name).is_some_and(|e| is_section || !matches!(e.node.value, Value::Null))
    }

    /// Where the value stands, or the section, where it does not stand at all.
    pub(super) fn at(&self, name: &str) -> At {
        self.entry(name).map_or_else(|| self.at.clone(), |e| e.node.at.clone())
    }

    /// Where the key itself stands, or the section.
    pub(super) fn key_at(&self, name: &str) -> At {
        self.entry(name).map_or_else(|| self.at.clone(), |e| e.at.clone())
    }

    pub(super) fn path(&self, name: &str) -> String {
        join(&self.path, name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A scalar, or the default that stands for it.
struct Given<'a> {
    text: &'a str,
    kind: ScalarKind,
    /// See [`super::yaml::Scalar::inserted`]; defaults count as such.
    inserted: bool,
    at: At,
    path: String,
}

impl Given<'_> {
    /// `, found '9'`, where it may be shown.
    fn found(&self) -> String {
        let is_plain = self.text.len() <= 64 && !self.text.contains(|c: char| c.is_control() || c == '@');
        if self.inserted || !is_plain { String::new() } else { format!(", found '{}'", self.text) }
    }
}

/// Reads and complains.
pub(super) struct Reader<'c> {
    pub(super) complaints: &'c mut Complaints,
}

impl Reader<'_> {
    pub(super) fn complain(&mut self, at: &At, path: &str, what: &str) {
        self.complaints.push(at, path, format!("{path}: {what}"));
    }

    /// Takes a node as a section with the given keys; nothing counts as an empty section.
    pub(super) fn section<'a>(
        &mut self,
        path: &str,
        at: &At,
        node: &'a Node,
        keys: &'static [Key],
    ) -> Option<Section<'a>> {
        let mut section = Section { path: path.to_owned(), at: at.clone(), keys, entries: Vec::new() };
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => return Some(section),
            Value::Bad => return None,
            other => {
                let found = other.found();
                let place = if path.is_empty() { String::new() } else { format!("{path}: ") };
                self.complaints.push(&node.at, path, format!("{place}expected a mapping, found {found}"));
                return None;
            }
        };
        for entry in entries {
            match keys.iter().find(|k| k.name == entry.key) {
                Some(key) => section.entries.push((key, entry)),
                None => self.unknown(path, entry, keys),
            }
        }
        Some(section)
    }

    fn unknown(&mut self, path: &str, entry: &Entry, keys: &[Key]) {
        let name = &entry.key;
        // Where keys have points, a name with points is probably meant for one.
        let has_points = keys.iter().any(|k| k.name.contains('.'));
        let is_shown = is_showable(name) || has_points && is_showable(&name.replace('.', ""));
        let shown = if is_shown { format!(" '{name}'") } else { String::new() };
        let place = if path.is_empty() { String::new() } else { format!(" in {path}") };
        let mut hint = did_you_mean(name, keys.iter().map(|k| k.name));
        if hint.is_empty() {
            let below = keys.iter().find(|k| match k.kind {
                Kind::Section(below) => below.iter().any(|b| b.name == name),
                _ => false,
            });
            if let Some(below) = below {
                hint = format!("; it belongs under '{}'", below.name);
            }
        }
        self.complaints.push(&entry.at, &join(path, name), format!("unknown key{shown}{place}{hint}"));
    }

    /// Says that a key is missing; its place is its section's.
    pub(super) fn missing(&mut self, section: &Section<'_>, name: &str) {
        let place = if section.path.is_empty() { String::new() } else { format!(" in {}", section.path) };
        let what = format!("missing required key '{name}'{place}");
        self.complaints.push(&section.at, &section.path(name), what);
    }

    /// The node of a key; says so where it is required and missing.
    fn node<'a>(&mut self, section: &Section<'a>, name: &str) -> Option<&'a Node> {
        if let Some(entry) = section.entry(name).filter(|_| section.has(name)) {
            return Some(&entry.node);
        }
        if section.key(name).is_some_and(|k| k.required) {
            self.missing(section, name);
        }
        None
    }

    /// The section under a key; an empty one where there is none.
    pub(super) fn below<'a>(&mut self, section: &Section<'a>, name: &str) -> Option<Section<'a>> {
        let keys = match section.key(name)?.kind {
            Kind::Section(keys) | Kind::Named(keys) => keys,
            _ => return None,
        };
        let (path, at) = (section.path(name), section.key_at(name));
        match self.node(section, name) {
            Some(node) => self.section(&path, &at, node, keys),
            None => Some(Section { path, at, keys, entries: Vec::new() }),
        }
    }

    /// The sections of a list.
    pub(super) fn each<'a>(&mut self, section: &Section<'a>, name: &str) -> Vec<Section<'a>> {
        let Some(Key { kind: Kind::Each(keys), .. }) = section.key(name) else { return Vec::new() };
        let path = section.path(name);
        let items = match self.node(section, name).map(|node| (&node.value, &node.at)) {
            None | Some((Value::Bad, _)) => return Vec::new(),
            Some((Value::List(items), _)) => items,
            Some((other, at)) => {
                self.complain(at, &path, &format!("expected a list of mappings, found {}", other.found()));
                return Vec::new();
            }
        };
        let sections = items.iter().enumerate();
        sections.filter_map(|(at, item)| self.section(&format!("{path}[{at}]"), &item.at, item, keys)).collect()
    }

    /// The sections under names of the user's choice.
    pub(super) fn named<'a>(&mut self, section: &Section<'a>, name: &str) -> Vec<(&'a str, Section<'a>)> {
        let Some(Key { kind: Kind::Named(keys), .. }) = section.key(name) else { return Vec::new() };
        let path = section.path(name);
        let entries = match self.node(section, name).map(|n| (&n.value, &n.at)) {
            None | Some((Value::Bad, _)) => return Vec::new(),
            Some((Value::Map(entries), _)) => entries,
            Some((other, at)) => {
                self.complain(at, &path, &format!("expected a mapping of names, found {}", other.found()));
                return Vec::new();
            }
        };
        if entries.is_empty() {
            self.complain(&section.at(name), &path, "needs at least one name");
        }
        let mut found = Vec::new();
        for entry in entries {
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            if entry.key.is_empty() || !entry.key.chars().all(is_name) {
                self.complain(&entry.at, &path, "a name holds letters, digits, '_' and '-' only");
            }
            let path = join(&path, &entry.key);
            found.extend(self.section(&path, &entry.at, &entry.node, keys).map(|s| (entry.key.as_str(), s)));
        }
        found
    }

    fn given<'a>(&mut self, section: &Section<'a>, name: &str, expected: &str) -> Option<Given<'a>> {
        let (at, path) = (section.at(name), section.path(name));
        match self.node(section, name).map(|n| &n.value) {
            None => {
                let text = section.key(name)?.default?;
                Some(Given { text, kind: ScalarKind::Text, inserted: true, at, path })
            }
            Some(Value::Scalar(s)) => Some(Given { text: &s.text, kind: s.kind, inserted: s.inserted, at, path }),
            Some(Value::Null | Value::Bad) => None,
            Some(other) => {
                self.complain(&at, &path, &format!("expected {expected}, found {}", other.found()));
                None
            }
        }
    }

    /// A text that is not empty. Never shown: the caller knows whether it may be.
    pub(super) fn text(&mut self, section: &Section<'_>, name: &str) -> Option<String> {
        let given = self.given(section, name, "a string")?;
        if given.kind == ScalarKind::Bool {
            self.complain(&given.at, &given.path, "expected a string, found a boolean; put it in quotes");
            return None;
        }
        if given.text.is_empty() {
            self.complain(&given.at, &given.path, "must not be empty");
            return None;
        }
        Some(given.text.to_owned())
    }

    /// Whether the text came from a variable or a file, so that no message may show it.
    pub(super) fn is_inserted(&self, section: &Section<'_>, name: &str) -> bool {
        section.entry(name).is_some_and(|e| matches!(&e.node.value, Value::Scalar(s) if s.inserted))
    }

    /// A list of texts that are not empty.
    pub(super) fn list(&mut self, section: &Section<'_>, name: &str) -> Vec<String> {
        let Some(node) = self.node(section, name) else { return Vec::new() };
        let path = section.path(name);
        match &node.value {
            Value::List(items) => items.iter().filter_map(|item| self.item(item, &path)).collect(),
            Value::Bad => Vec::new(),
            other => {
                self.complain(&node.at, &path, &format!("expected a list of strings, found {}", other.found()));
                Vec::new()
            }
        }
    }

    /// A list of texts or one text with commas between; with the place of each.
    pub(super) fn text_or_list(&mut self, section: &Section<'_>, name: &str) -> Vec<(At, String)> {
        let Some(node) = self.node(section, name) else { return Vec::new() };
        let path = section.path(name);
        let items = match &node.value {
            Value::List(items) if items.is_empty() => {
                self.complain(&node.at, &path, "must not be empty");
                return Vec::new();
            }
            Value::List(items) => items.iter().collect(),
            Value::Scalar(_) => vec![node],
            Value::Bad | Value::Null => return Vec::new(),
            other @ Value::Map(_) => {
                self.complain(
                    &node.at,
                    &path,
                    &format!("expected a string or a list of strings, found {}", other.found()),
                );
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for item in items {
            if let Some(text) = self.item(item, &path) {
                texts.extend(text.split(',').map(|t| (item.at.clone(), t.trim().to_owned())));
            }
        }
        texts
    }

    fn item(&mut self, item: &Node, path: &str) -> Option<String> {
        match &item.value {
            Value::Scalar(s) if s.kind != ScalarKind::Bool && !s.text.is_empty() => return Some(s.text.clone()),
            Value::Scalar(s) if s.kind != ScalarKind::Bool => self.complain(&item.at, path, "must not be empty"),
            Value::Bad => {}
            other => self.complain(&item.at, path, &format!("expected a string, found {}", other.found())),
        }
        None
    }

    /// Texts under names of the user's choice, with the place of each; `None` where there is a list, or nothing.
    pub(super) fn members<'a>(&mut self, section: &Section<'a>, name: &str) -> Option<Vec<(&'a str, At, String)>> {
        let node = self.node(section, name)?;
        let path = section.path(name);
        let Value::Map(entries) = &node.value else { return None };
        let mut members = Vec::new();
        for entry in entries {
            let text = self.item(&entry.node, &join(&path, &entry.key));
            members.extend(text.map(|text| (entry.key.as_str(), entry.node.at.clone(), text)));
        }
        Some(members)
    }

    /// Whether a list stands there.
    pub(super) fn is_list(&self, section: &Section<'_>, name: &str) -> bool {
        section.entry(name).is_some_and(|entry| matches!(entry.node.value, Value::List(_)))
    }

    /// One of the words of the table; an empty one after a complaint.
    pub(super) fn word(&mut self, section: &Section<'_>, name: &str) -> &'static str {
        let Some(Key { kind: Kind::Word(words), .. }) = section.key(name) else { return "" };
        // A bare `null` is one to YAML; as a word of ours it is as good as any other.
        if let Some(null) = words.iter().find(|word| **word == "null")
            && section.entry(name).is_some_and(|entry| matches!(entry.node.value, Value::Null))
        {
            return null;
        }
        let expected = format!("one of {}", words.join(", "));
        let Some(given) = self.given(section, name, &expected) else { return "" };
        if let Some(word) = words.iter().find(|w| **w == given.text) {
            return word;
        }
        let hint = did_you_mean(given.text, words.iter().copied());
        self.complain(&given.at, &given.path, &format!("expected {expected}{}{hint}", given.found()));
        ""
    }

    /// `true` or `false`.
    pub(super) fn bool(&mut self, section: &Section<'_>, name: &str) -> bool {
        let Some(given) = self.given(section, name, "true or false") else { return false };
        if given.kind == ScalarKind::Bool || given.inserted {
            match given.text {
                "true" => return true,
                "false" => return false,
                _ => {}
            }
        }
        self.complain(&given.at, &given.path, &format!("expected true or false{}", given.found()));
        false
    }

    /// A whole number in the range of the table.
    pub(super) fn whole(&mut self, section: &Section<'_>, name: &str) -> u64 {
        let Some(Key { kind: Kind::Whole { min, max }, .. }) = section.key(name) else { return 0 };
        let expected = format!("a whole number from {min} to {max}");
        let Some(given) = self.given(section, name, &expected) else { return 0 };
        let number = given.text.parse::<u64>().ok();
        if let Some(number) = number.filter(|n| (*min..=*max).contains(n))
            && (given.kind == ScalarKind::Number || given.inserted)
        {
            return number;
        }
        let is_quoted = given.kind == ScalarKind::Text && !given.inserted && number.is_some();
        let hint = if is_quoted { " in quotes" } else { "" };
        self.complain(&given.at, &given.path, &format!("expected {expected}{}{hint}", given.found()));
        0
    }

    /// A length of time; `None` when off, or absent and without a default.
    pub(super) fn duration(&mut self, section: &Section<'_>, name: &str) -> Option<Duration> {
        let Some(Key { kind: Kind::Duration { min_ms, off }, .. }) = section.key(name) else { return None };
        let expected = if *off {
            "a duration such as 500ms, 10s, 5m, 12h, 7d, or off"
        } else {
            "a duration such as 500ms, 10s, 5m, 12h, 7d"
        };
        let given = self.given(section, name, expected)?;
        if *off && matches!(given.text, "off" | "0") {
            return None;
        }
        let Some(duration) = size::duration(given.text).filter(|_| given.kind != ScalarKind::Bool) else {
            self.complain(&given.at, &given.path, &format!("expected {expected}{}", given.found()));
            return None;
        };
        if duration < Duration::from_millis(*min_ms) {
            self.complain(&given.at, &given.path, &format!("must be at least {min_ms}ms{}", given.found()));
            return None;
        }
        Some(duration)
    }

    /// A number of bytes; `None` when off, or absent and without a default.
    pub(super) fn size(&mut self, section: &Section<'_>, name: &str) -> Option<u64> {
        let Some(Key { kind: Kind::Size { min, max, off }, .. }) = section.key(name) else { return None };
        let expected = if *off {
            "a size such as 512B, 64KiB, 32MiB, 1GiB, 10MB, or off"
        } else {
            "a size such as 512B, 64KiB, 32MiB, 1GiB, 10MB"
        };
        let given = self.given(section, name, expected)?;
        if *off && matches!(given.text, "off" | "0") {
            return None;
        }
        let Some(bytes) = size::bytes(given.text).filter(|_| given.kind != ScalarKind::Bool) else {
            self.complain(&given.at, &given.path, &format!("expected {expected}{}", given.found()));
            return None;
        };
        if !(*min..=*max).contains(&bytes) {
            self.complain(&given.at, &given.path, &format!("must be from {min} to {max} bytes{}", given.found()));
            return None;
        }
        Some(bytes)
    }

    /// A socket address; `None` when off.
    pub(super) fn listen(&mut self, section: &Section<'_>, name: &str) -> Option<SocketAddr> {
        let expected = "an address and port such as 127.0.0.1:9464, or off";
        let given = self.given(section, name, expected)?;
        if given.text == "off" {
            return None;
        }
        let address = given.text.parse().ok();
        if address.is_none() {
            self.complain(&given.at, &given.path, &format!("expected {expected}{}", given.found()));
        }
        address
    }
}
