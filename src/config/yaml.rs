//! The file as a tree in which every key and value knows where it stands.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{MessageFormatter, Spanned, UserMessageFormatter};

use super::{At, Complaints, join};

/// A value and where it stands. Has no `Debug`: it may hold secrets.
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
}

pub(super) enum Value {
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something was complained about already; nobody complains again.
    Bad,
}

/// A scalar as it is written, whatever YAML takes it for: `0123` stays four characters.
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) kind: ScalarKind,
    /// The text came, at least in part, from a variable or a file: it is never
    /// shown, and may stand for a number or a boolean.
    pub(super) inserted: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ScalarKind {
    Bool,
    Number,
    Text,
}

pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: At,
    pub(super) node: Node,
}

impl Value {
    /// What kind of thing it is, for people.
    pub(super) fn found(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(scalar) => match scalar.kind {
                ScalarKind::Bool => "a boolean",
                ScalarKind::Number => "a number",
                ScalarKind::Text => "a string",
            },
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
            Self::Bad => "something unreadable",
        }
    }
}

/// Reads YAML. Complains about syntax, several documents and duplicate keys;
/// of duplicates the first holds.
pub(super) fn read(text: &str, complaints: &mut Complaints) -> Node {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // `off` is a word of ours, not `false`.
        strict_booleans: true,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        // A snippet could show a password.
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(root) => place(root, text, "", complaints),
        Err(error) => {
            let at = error.location().map_or(At::Everywhere, |l| At::File { line: l.line(), column: l.column() });
            let told = match &error {
                serde_saphyr::Error::MultipleDocuments { .. } => "the file holds more than one document".to_owned(),
                serde_saphyr::Error::UnknownAnchor { .. } => "an alias of an anchor that is not there".to_owned(),
                // The only kinds that repeat what stands in the file.
                serde_saphyr::Error::SerdeInvalidType { .. } | serde_saphyr::Error::SerdeInvalidValue { .. } => {
                    "a value does not fit its place".to_owned()
                }
                other => UserMessageFormatter.format_message(other).trim_end_matches('.').to_owned(),
            };
            complaints.push(&at, "", format!("not valid YAML: {told}"));
            Node { at, value: Value::Bad }
        }
    }
}

/// Values as serde sees them.
enum Raw {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn place(raw: Spanned<Raw>, text: &str, path: &str, complaints: &mut Complaints) -> Node {
    let at = At::File { line: raw.referenced.line(), column: raw.referenced.column() };
    let written = || {
        let span = raw.defined.span();
        let first = usize::try_from(span.byte_offset()?).ok()?;
        let len = usize::try_from(span.byte_len()?).ok()?;
        Some(text.get(first..first.checked_add(len)?)?.trim().to_owned())
    };
    let scalar = |text, kind| Value::Scalar(Scalar { text, kind, inserted: false });
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Bool(value) => scalar(value.to_string(), ScalarKind::Bool),
        Raw::Number(value) => scalar(written().filter(|w| !w.is_empty()).unwrap_or(value), ScalarKind::Number),
        Raw::Text(value) => scalar(value, ScalarKind::Text),
        Raw::List(items) => Value::List(items.into_iter().map(|item| place(item, text, path, complaints)).collect()),
        Raw::Map(pairs) => {
            let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
            for (key, value) in pairs {
                let at = At::File { line: key.referenced.line(), column: key.referenced.column() };
                let path = join(path, &key.value);
                if let Some(first) = entries.iter().find(|e| e.key == key.value) {
                    let line = match first.at {
                        At::File { line, .. } => line,
                        At::Variable(_) | At::Everywhere => 0,
                    };
                    complaints.push(&at, &path, format!("duplicate key {path}; it stands first in line {line}"));
                    continue;
                }
                let node = place(value, text, &path, complaints);
                entries.push(Entry { key: key.value, at, node });
            }
            Value::Map(entries)
        }
    };
    Node { at, value }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Raw, E> {
        Ok(Raw::Text(String::from_utf8_lossy(value).into_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            map.push(pair);
        }
        Ok(Raw::Map(map))
    }
}
