//! What a change of an event type breaks, and for whom.
//!
//! Consumers pass over members that they do not know, and need those that their version promises. A table's version
//! promises what all versions of its major before it promise: so a column that is added later may be absent, since it
//! is from older events, and taking it away again breaks nobody.

use serde_json::Value;

use super::document::Form;
use super::fit::fits;

/// Who cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reader {
    /// Who knows the new version and reads events of the old one: late joiners, replays.
    New,
    /// Who knows the old version and reads events of the new one: those who run now.
    Old,
    /// Both.
    All,
}

impl Reader {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::New => "consumers of the new version cannot read older events",
            Self::Old => "consumers of the old version cannot read newer events",
            Self::All => "no consumer can read the other version's events",
        }
    }

    /// For programs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "backward",
            Self::Old => "forward",
            Self::All => "both",
        }
    }
}

/// One thing that a change breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// What changed; names and types.
    pub what: String,
    /// Who cannot go on.
    pub reader: Reader,
}

/// What breaks between two documents of a type.
#[must_use]
pub fn between(old: &Value, new: &Value) -> Vec<Break> {
    breaks(&Form::of(old), &Form::of(new))
}

pub(super) fn breaks(old: &Form, new: &Form) -> Vec<Break> {
    let mut found = Vec::new();
    let word = if old.is_table { "column" } else { "member" };
    for (name, before) in &old.members {
        let was_promised = old.promised.contains(name);
        let Some(after) = new.members.get(name) else {
            if was_promised {
                found.push(Break { what: format!("{word} {name} is gone"), reader: Reader::Old });
            }
            continue;
        };
        let reader = match (fits(before, after), fits(after, before)) {
            (true, true) => None,
            (true, false) => Some(Reader::Old),
            (false, true) => Some(Reader::New),
            (false, false) => Some(Reader::All),
        };
        if let Some(reader) = reader {
            let (was, is) = (described(before), described(after));
            found.push(Break { what: format!("{word} {name} was {was} and is {is}"), reader });
        }
        // Of tables what is promised follows from what is kept.
        if !new.is_table && was_promised != new.promised.contains(name) {
            let (what, reader) = match was_promised {
                true => (format!("{word} {name} may be absent now"), Reader::Old),
                false => (format!("{word} {name} must be there now"), Reader::New),
            };
            found.push(Break { what, reader });
        }
    }
    for name in new.members.keys().filter(|name| !old.members.contains_key(*name)) {
        if !new.is_table && new.promised.contains(name) {
            found.push(Break { what: format!("{word} {name} is new and must be there"), reader: Reader::New });
        }
    }
    let names = |key: &serde_json::Map<String, Value>| {
        let names: Vec<&str> = key.keys().map(String::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let is_other_key = old.key.len() != new.key.len() || old.key.keys().any(|name| !new.key.contains_key(name));
    if is_other_key {
        let what = format!("the key was {} and is {}", names(&old.key), names(&new.key));
        found.push(Break { what, reader: Reader::All });
    }
    found
}

/// What a schema takes, for people: the type without null, which nearly all take.
fn described(schema: &Value) -> String {
    let Some(members) = schema.as_object() else { return "anything".into() };
    if let Some(Value::Array(branches)) = members.get("anyOf") {
        let branches: Vec<_> = branches.iter().map(described).collect();
        return branches.join(" or ");
    }
    let names: Vec<&str> = match members.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        _ => return "anything".into(),
    };
    let mut text = names.join(" or ");
    let limits = |name: &str| members.get(name).map(ToString::to_string);
    if let (Some(least), Some(most)) = (limits("minimum"), limits("maximum")) {
        text.push_str(&format!(" from {least} to {most}"));
    }
    if let Some(Value::Array(labels)) = members.get("enum") {
        let labels: Vec<_> = labels.iter().filter(|label| !label.is_null()).map(ToString::to_string).collect();
        text.push_str(&format!(" out of {}", labels.join(" ")));
    }
    for (name, before) in [("contentEncoding", "in"), ("format", "of format"), ("pattern", "like")] {
        if let Some(Value::String(value)) = members.get(name) {
            text.push_str(&format!(" {before} {value}"));
        }
    }
    if let Some(items) = members.get("items") {
        text.push_str(&format!(" of {}", described(items)));
    }
    text
}
