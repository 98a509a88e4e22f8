//! What editors are told of the file: a JSON Schema out of the table of keys.

use serde_json::{Map, Value, json};

use super::keys::{Key, Kind, ROOT};

/// The JSON Schema of the file (draft 2020-12), with a line feed at its end.
#[must_use]
pub fn json_schema() -> String {
    let mut schema = Map::new();
    schema.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".to_owned(), json!("Figvine configuration"));
    if let Value::Object(root) = section(ROOT) {
        schema.extend(root);
    }
    // A scalar may come from a variable or a file, whatever its type.
    schema.insert("$defs".to_owned(), json!({ "inserted": { "type": "string", "pattern": r"\$\{.+\}" } }));
    let mut text = format!("{:#}", Value::Object(schema));
    text.push('\n');
    text
}

/// The paths of all keys that hold something, sources as `*`: `sources.*.stream.name`.
#[must_use]
pub fn known_keys() -> Vec<String> {
    fn walk(path: &str, keys: &[Key], out: &mut Vec<String>) {
        for key in keys {
            let path = if path.is_empty() { key.name.to_owned() } else { format!("{path}.{}", key.name) };
            match key.kind {
                Kind::Section(keys) => walk(&path, keys, out),
                Kind::Named(keys) | Kind::Each(keys) => walk(&format!("{path}.*"), keys, out),
                _ => out.push(path),
            }
        }
    }
    let mut out = Vec::new();
    walk("", ROOT, &mut out);
    out
}

fn section(keys: &[Key]) -> Value {
    let properties: Map<String, Value> = keys.iter().map(|k| (k.name.to_owned(), property(k))).collect();
    let mut section = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let required: Vec<_> = keys.iter().filter(|k| k.required).map(|k| k.name).collect();
    if !required.is_empty() {
        insert(&mut section, "required", json!(required));
    }
    section
}

fn property(key: &Key) -> Value {
    let or_inserted = |value: Value| json!({ "anyOf": [value, { "$ref": "#/$defs/inserted" }] });
    // YAML reads a bare `0` as a number.
    let zero = json!({ "const": 0 });
    let mut property = match &key.kind {
        Kind::Text | Kind::Secret => json!({ "type": "string", "minLength": 1 }),
        Kind::SecretOrList | Kind::TextOrList => json!({ "anyOf": [
            { "type": "string", "minLength": 1 },
            { "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1 },
        ] }),
        Kind::List => {
            let mut list = json!({ "type": "array", "items": { "type": "string", "minLength": 1 } });
            if key.required {
                insert(&mut list, "minItems", json!(1));
            }
            list
        }
        Kind::Word(words) => {
            // YAML reads a bare `null` as nothing.
            let bare = words.contains(&"null").then_some(Value::Null);
            let words = words.iter().map(|word| json!(word)).chain(bare).collect::<Vec<_>>();
            or_inserted(json!({ "enum": words }))
        }
        Kind::Bool => or_inserted(json!({ "type": "boolean" })),
        Kind::Whole { min, max } => or_inserted(json!({ "type": "integer", "minimum": min, "maximum": max })),
        Kind::Duration { min_ms, off } => {
            let mut forms = vec![json!({ "type": "string", "pattern": r"^[0-9]+ *(ms|s|m|h|d)$" })];
            if *off {
                forms.push(json!({ "const": "off" }));
            }
            if *off || *min_ms == 0 {
                forms.push(zero);
            }
            forms.push(json!({ "$ref": "#/$defs/inserted" }));
            json!({ "anyOf": forms })
        }
        Kind::Size { off, .. } => {
            let mut forms = vec![json!({ "type": "string", "pattern": r"^[0-9]+ *(B|[KMGT]i?B|kB)$" })];
            if *off {
                forms.extend([json!({ "const": "off" }), zero]);
            }
            forms.push(json!({ "$ref": "#/$defs/inserted" }));
            json!({ "anyOf": forms })
        }
        Kind::Members => json!({ "anyOf": [
            { "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1 },
            { "type": "object", "additionalProperties": { "type": "string", "minLength": 1 } },
        ] }),
        Kind::Listen => or_inserted(json!({ "type": "string", "pattern": "^(off|.+:[0-9]+)$" })),
        Kind::Section(keys) => section(keys),
        Kind::Each(keys) => json!({ "type": "array", "items": section(keys) }),
        Kind::Named(keys) => json!({
            "type": "object",
            "minProperties": 1,
            "propertyNames": { "pattern": "^[A-Za-z0-9_-]+$" },
            "additionalProperties": section(keys),
        }),
    };
    insert(&mut property, "description", json!(key.about));
    if let Some(default) = key.default {
        let default = match key.kind {
            Kind::Bool => json!(default == "true"),
            Kind::Whole { .. } => default.parse::<u64>().map_or(Value::Null, |n| json!(n)),
            _ => json!(default),
        };
        insert(&mut property, "default", default);
    }
    property
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(object) = object {
        object.insert(name.to_owned(), value);
    }
}
