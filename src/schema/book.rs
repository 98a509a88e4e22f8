//! All versions of all event types of a source, and what becomes of a new one.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Compatibility;
use super::compatibility::{Break, Reader, breaks};
use super::document::{Form, promise};
use super::name::{Version, parse_key, uri};

/// A document that has no version yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The event type, as keys name it.
    pub event_type: String,
    /// As people name it: `public.orders`.
    pub name: String,
    /// The major version, where that is given and not for us to count.
    pub major: Option<u32>,
    /// The document, without `$id`.
    pub document: Value,
}

/// A version that is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// Which.
    pub version: Version,
    /// The document.
    pub document: Value,
}

/// What becomes of a draft.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It is this version.
    Known(Version),
    /// It is a version of its own: the first, or compatible with those before.
    New {
        /// Which.
        version: Version,
        /// The document with its `$id`.
        document: Value,
    },
    /// It is not compatible.
    Breaking {
        /// The version that it was held against last.
        with: Version,
        /// What breaks; at least one thing.
        breaks: Vec<Break>,
        /// The major version that it would begin, and its document.
        instead: (Version, Value),
    },
}

/// The versions of all types.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Book {
    types: BTreeMap<String, Vec<Kept>>,
    /// The version in force, where events told it: not always the newest.
    current: BTreeMap<String, Version>,
}

impl Book {
    /// Takes in a version that is kept. It is in force where none is.
    pub fn insert(&mut self, event_type: &str, version: Version, document: Value) {
        let versions = self.types.entry(event_type.to_owned()).or_default();
        match versions.binary_search_by_key(&version, |kept| kept.version) {
            Ok(_) => {}
            Err(at) => versions.insert(at, Kept { version, document }),
        }
    }

    /// Says which version is in force; whether that is news.
    pub fn pass(&mut self, uri: &str) -> bool {
        let Some((event_type, version)) = parse_key(uri) else { return false };
        if self.current.get(event_type) == Some(&version) {
            return false;
        }
        self.current.insert(event_type.to_owned(), version);
        true
    }

    /// The types, by name.
    pub fn types(&self) -> impl Iterator<Item = (&str, &[Kept])> {
        self.types.iter().map(|(name, versions)| (name.as_str(), versions.as_slice()))
    }

    /// The versions of a type, in their order.
    #[must_use]
    pub fn versions(&self, event_type: &str) -> &[Kept] {
        self.types.get(event_type).map_or(&[], Vec::as_slice)
    }

    /// The version in force: the one that events told last, else the newest.
    #[must_use]
    pub fn current(&self, event_type: &str) -> Option<&Kept> {
        let versions = self.versions(event_type);
        let told = self.current.get(event_type);
        versions.iter().find(|kept| Some(&kept.version) == told).or_else(|| versions.last())
    }

    /// A version.
    #[must_use]
    pub fn get(&self, event_type: &str, version: Version) -> Option<&Kept> {
        self.versions(event_type).iter().find(|kept| kept.version == version)
    }

    /// What becomes of a draft. Changes nothing.
    #[must_use]
    pub fn judge(&self, draft: &Draft, compatibility: Compatibility) -> Verdict {
        let form = Form::of(&draft.document);
        let versions = self.versions(&draft.event_type);
        let is_it = |kept: &&Kept| {
            draft.major.is_none_or(|major| major == kept.version.major)
                && Form::of(&kept.document).is_shape_of(&form)
                && (form.is_table || is_same_but_id(&kept.document, &draft.document))
        };
        if let Some(kept) = versions.iter().rev().find(is_it) {
            return Verdict::Known(kept.version);
        }
        let newest = versions.last().map_or(0, |kept| kept.version.major);
        let major = draft.major.unwrap_or(newest.max(1));
        let of_major: Vec<_> = versions.iter().filter(|kept| kept.version.major == major).collect();
        let Some(last) = of_major.last() else {
            let version = Version { major, minor: 0 };
            return Verdict::New { version, document: named(draft, version, None) };
        };
        let held_against = if compatibility.is_transitive { of_major.as_slice() } else { std::slice::from_ref(last) };
        let matters = |found: &Break| match found.reader {
            Reader::New => compatibility.backward,
            Reader::Old => compatibility.forward,
            Reader::All => compatibility.backward || compatibility.forward,
        };
        let mut found = Vec::new();
        for kept in held_against.iter().rev() {
            for broken in breaks(&Form::of(&kept.document), &form) {
                if matters(&broken) && !found.contains(&broken) {
                    found.push(broken);
                }
            }
        }
        let next = Version { major, minor: last.version.minor + 1 };
        if found.is_empty() {
            let promised = form.is_table.then(|| promised_by(&of_major, &form));
            return Verdict::New { version: next, document: named(draft, next, promised) };
        }
        // Where the major is given, its rule must say another.
        let version = Version { major: draft.major.map_or(newest, |major| major.max(newest)) + 1, minor: 0 };
        Verdict::Breaking { with: last.version, breaks: found, instead: (version, named(draft, version, None)) }
    }
}

/// What all versions of a major promise, as far as it is still there.
fn promised_by(versions: &[&Kept], form: &Form) -> Vec<String> {
    let promised: Vec<_> = versions.iter().map(|kept| Form::of(&kept.document).promised).collect();
    form.members.keys().filter(|name| promised.iter().all(|of| of.contains(name))).cloned().collect()
}

fn named(draft: &Draft, version: Version, promised: Option<Vec<String>>) -> Value {
    let mut document = draft.document.clone();
    if let Some(promised) = promised {
        promise(&mut document, &promised);
    }
    if let Value::Object(members) = &mut document {
        members.insert("$id".into(), uri(&draft.event_type, version).into());
    }
    document
}

fn is_same_but_id(kept: &Value, draft: &Value) -> bool {
    let mut kept = kept.clone();
    if let Value::Object(members) = &mut kept {
        members.remove("$id");
    }
    kept == *draft
}
