//! Documents: JSON Schema 2020-12, one per version of an event type.
//!
//! The document of a table's changes holds what rows look like under `$defs`, and how a change is made of rows above
//! it. Members that it does not name are allowed: what is added later is passed over by who does not know it.

use figvine_change::{JsonType, Table};
use serde_json::{Map, Value, json};

use super::book::Draft;
use super::name::{event_type, table_type};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// What rules tell of a domain event's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventShape {
    /// Its name, `order_placed`.
    pub name: Box<str>,
    /// Its major version, as its rule says.
    pub major: u32,
    /// The members of its body, in order.
    pub fields: Vec<Field>,
}

/// A member of a domain event's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: Box<str>,
    /// What it holds.
    pub json: JsonType,
    /// Whether it may be null.
    pub is_nullable: bool,
    /// Whether it may be absent.
    pub is_optional: bool,
}

fn schema_of(json: &JsonType, is_nullable: bool) -> Value {
    let mut text = Vec::new();
    json.write_schema(is_nullable, &mut text);
    // It is JSON; were it not, nothing would be promised.
    serde_json::from_slice(&text).unwrap_or_else(|_| json!({}))
}

/// What tells the shapes of a source's tables apart: two of the same have the same events.
pub(super) fn fingerprint(source: &str, table: &Table) -> Vec<u8> {
    let mut out = table_type(source, &table.schema, &table.name).into_bytes();
    for (at, column) in table.columns.iter().enumerate() {
        out.push(if table.key.contains(&at) { 1 } else { 0 });
        figvine_change::json::write_str(&column.name, &mut out);
        column.codec.json_type().write_schema(true, &mut out);
    }
    out
}

/// The changes of a table.
#[must_use]
pub fn of_table(source: &str, table: &Table) -> Draft {
    let columns: Map<String, Value> = table
        .columns
        .iter()
        .map(|column| (column.name.to_string(), schema_of(&column.codec.json_type(), true)))
        .collect();
    let key_columns = || table.key.iter().filter_map(|&at| table.columns.get(at));
    let key: Map<String, Value> =
        key_columns().map(|column| (column.name.to_string(), schema_of(&column.codec.json_type(), true))).collect();
    let key_names: Vec<_> = key_columns().map(|column| column.name.to_string()).collect();
    let names: Vec<_> = columns.keys().cloned().collect();
    let title = format!("Changes of {}", table.qualified_name());
    let is = |ops: &[&str]| json!({ "properties": { "op": { "enum": ops } } });
    let document = json!({
        "$schema": DIALECT,
        "title": title,
        "type": "object",
        "properties": {
            "op": { "enum": ["insert", "update", "delete", "read", "truncate"] },
            "key": { "anyOf": [{ "$ref": "#/$defs/key" }, { "type": "null" }] },
            "before": { "anyOf": [{ "$ref": "#/$defs/row" }, { "type": "null" }] },
            "after": { "anyOf": [{ "$ref": "#/$defs/row" }, { "type": "null" }] },
            "unchanged": { "type": "array", "items": { "type": "string" } },
            "rekeyed": { "$ref": "#/$defs/key" },
            "source": source_block(),
        },
        "required": ["op", "key", "before", "after", "source"],
        "allOf": [
            { "if": is(&["insert", "update", "read"]),
              "then": { "properties": { "key": { "type": "object" }, "after": { "type": "object" } } } },
            { "if": is(&["delete"]),
              "then": { "properties": { "key": { "type": "object" }, "before": { "type": "object" },
                                        "after": { "type": "null" } } } },
            { "if": is(&["truncate"]),
              "then": { "properties": { "key": { "type": "null" }, "before": { "type": "null" },
                                        "after": { "type": "null" } } } },
            { "if": { "properties": { "op": { "enum": ["insert", "update", "read"] } },
                      "not": { "required": ["unchanged"] } },
              "then": { "properties": { "after": { "$ref": "#/$defs/whole" } } } },
        ],
        "$defs": {
            "key": { "type": "object", "properties": key, "required": key_names },
            "row": { "type": "object", "properties": columns },
            "whole": { "allOf": [{ "$ref": "#/$defs/row" }], "required": names },
        },
    });
    Draft {
        event_type: table_type(source, &table.schema, &table.name),
        name: table.qualified_name(),
        major: None,
        document,
    }
}

/// A domain event.
#[must_use]
pub fn of_event(source: &str, shape: &EventShape) -> Draft {
    let properties: Map<String, Value> =
        shape.fields.iter().map(|field| (field.name.to_string(), schema_of(&field.json, field.is_nullable))).collect();
    let required: Vec<_> = shape.fields.iter().filter(|field| !field.is_optional).map(|field| &*field.name).collect();
    Draft {
        event_type: event_type(source, &shape.name),
        name: shape.name.to_string(),
        major: Some(shape.major),
        document: json!({
            "$schema": DIALECT,
            "title": shape.name,
            "type": "object",
            "properties": properties,
            "required": required,
        }),
    }
}

/// What stands in the place of any event of a rule that could not be made.
fn missing_event(source: &str) -> (&'static str, Draft) {
    let document = json!({
        "$schema": DIALECT,
        "title": "What stands in the place of a domain event that could not be made",
        "type": "object",
        "properties": {
            "rule": { "type": "string" },
            "reason": { "type": "string" },
            "code": { "type": "string" },
            "dead_letter": { "type": ["string", "null"] },
        },
        "required": ["rule", "reason", "code", "dead_letter"],
    });
    let name = "missing_event";
    (name, Draft { event_type: event_type(source, name), name: name.into(), major: None, document })
}

/// What a source tells beside the changes of tables: with the last word of each type.
#[must_use]
pub fn fixed(source: &str) -> [(&'static str, Draft); 4] {
    let draft = |name: &'static str, title: &str, op: &str, properties: Value, required: Value| {
        let mut members = json!({ "op": { "const": op } });
        if let (Value::Object(members), Value::Object(more)) = (&mut members, properties) {
            members.extend(more);
            members.insert("source".into(), source_block());
        }
        let document = json!({
            "$schema": DIALECT,
            "title": title,
            "type": "object",
            "properties": members,
            "required": required,
        });
        (name, Draft { event_type: event_type(source, name), name: name.into(), major: None, document })
    };
    let shape = json!({
        "type": "object",
        "properties": {
            "columns": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": { "name": { "type": "string" }, "type": { "type": "string" } },
                    "required": ["name", "type"],
                },
            },
            "key": { "type": "array", "items": { "type": "string" } },
        },
        "required": ["columns", "key"],
    });
    [
        draft(
            "message",
            "Messages that applications write into the log",
            "message",
            json!({
                "prefix": { "type": "string" },
                "content": { "type": "string" },
                "content_base64": { "type": "string", "contentEncoding": "base64" },
            }),
            json!(["op", "prefix", "source"]),
        ),
        draft(
            "schema_changed",
            "Changes of the shapes of tables",
            "schema_change",
            json!({
                "table": { "type": "string" },
                "old": shape,
                "new": shape,
                "ddl": { "type": ["string", "null"] },
            }),
            json!(["op", "table", "old", "new", "ddl", "source"]),
        ),
        draft(
            "missing",
            "What stands in the place of an event that could not be told",
            "missing",
            json!({
                "key": { "type": ["object", "null"] },
                "before": { "type": "null" },
                "after": { "type": "null" },
                "missing": {
                    "type": "object",
                    "properties": {
                        "op": { "type": "string" },
                        "reason": { "type": "string" },
                        "code": { "type": "string" },
                        "dead_letter": { "type": "string" },
                    },
                    "required": ["op", "reason", "code", "dead_letter"],
                },
            }),
            json!(["op", "key", "before", "after", "missing", "source"]),
        ),
        missing_event(source),
    ]
}

fn source_block() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "engine": { "type": "string" },
            "version": { "type": "string" },
            "database": { "type": "string" },
            "schema": { "type": "string" },
            "table": { "type": "string" },
            "position": { "type": "string" },
            "transaction": { "type": ["string", "null"] },
            "committed_at": { "type": "string" },
            "snapshot": { "type": "boolean" },
        },
        "required": ["name", "engine", "version", "database", "position", "transaction", "committed_at", "snapshot"],
    })
}

/// What of a document is compared: the members of rows or events, which of them are sure to be there, and the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) members: Map<String, Value>,
    pub(super) promised: Vec<String>,
    pub(super) key: Map<String, Value>,
    /// Whether what is promised follows from the versions before, and not from the shape.
    pub(super) is_table: bool,
}

impl Form {
    pub(super) fn of(document: &Value) -> Self {
        let members = |at: &str| document.pointer(at).and_then(Value::as_object).cloned().unwrap_or_default();
        let names = |at: &str| -> Vec<String> {
            let names = document.pointer(at).and_then(Value::as_array).into_iter().flatten();
            names.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let is_table = document.get("$defs").is_some();
        let (row, whole) =
            if is_table { ("/$defs/row/properties", "/$defs/whole/required") } else { ("/properties", "/required") };
        Self { members: members(row), promised: names(whole), key: members("/$defs/key/properties"), is_table }
    }

    /// Whether both tell the same shape.
    pub(super) fn is_shape_of(&self, other: &Self) -> bool {
        self.members == other.members
            && self.key == other.key
            && self.is_table == other.is_table
            && (self.is_table || self.promised == other.promised)
    }
}

/// Says in the document of a table what is sure to be there.
pub(super) fn promise(document: &mut Value, promised: &[String]) {
    if let Some(names) = document.pointer_mut("/$defs/whole/required") {
        *names = promised.into();
    }
}
