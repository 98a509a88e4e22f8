//! An AsyncAPI 3.0 document of the event types of sources: channels, messages, and the schemas in force.
//!
//! Schemas stand in the form that AsyncAPI takes without a further word, a superset of JSON Schema draft 07. So what our
//! documents keep under `$defs` stands beside them under `components`, and references lead there.

use serde_json::{Map, Value, json};

use super::book::Book;
use super::name::uri;

/// One source.
#[derive(Debug)]
pub struct Described<'a> {
    /// Its name.
    pub source: &'a str,
    /// Its stream.
    pub stream: &'a str,
    /// The template of the subjects of changes.
    pub subject: &'a str,
    /// That of domain events.
    pub domain_subject: &'a str,
    /// Whether attributes of CloudEvents stand in headers.
    pub has_headers: bool,
    /// Its event types.
    pub book: &'a Book,
}

/// The document. `servers` are addresses without credentials.
#[must_use]
pub fn document(servers: &[String], sources: &[Described<'_>]) -> Value {
    let (mut channels, mut operations) = (Map::new(), Map::new());
    let (mut messages, mut schemas) = (Map::new(), Map::new());
    for described in sources {
        for (event_type, _) in described.book.types() {
            let Some(kept) = described.book.current(event_type) else { continue };
            let name = component(event_type);
            let (address, parameters) = address(described, event_type);
            let uri = uri(event_type, kept.version);
            take_apart(&name, &kept.document, &mut schemas);
            let mut message = json!({
                "name": event_type,
                "title": kept.document.get("title").cloned().unwrap_or_else(|| event_type.into()),
                "summary": format!("Version {} ({uri})", kept.version),
                "contentType": "application/json",
                "payload": { "$ref": format!("#/components/schemas/{name}") },
            });
            if described.has_headers
                && let Value::Object(message) = &mut message
            {
                message.insert("headers".into(), headers(&uri));
            }
            messages.insert(name.clone(), message);
            let mut channel = json!({
                "address": address,
                "description": format!("Stored in the JetStream stream {}", described.stream),
                "messages": { "event": { "$ref": format!("#/components/messages/{name}") } },
            });
            if !parameters.is_empty()
                && let Value::Object(channel) = &mut channel
            {
                channel.insert("parameters".into(), parameters.into());
            }
            channels.insert(name.clone(), channel);
            operations.insert(
                format!("send.{name}"),
                json!({ "action": "send", "channel": { "$ref": format!("#/channels/{name}") },
                        "messages": [{ "$ref": format!("#/channels/{name}/messages/event") }] }),
            );
        }
    }
    let servers: Map<String, Value> = servers
        .iter()
        .enumerate()
        .map(|(at, url)| {
            let (protocol, host) = url.split_once("://").unwrap_or(("nats", url));
            // TLS is a matter of the connection, and the protocol the same.
            let protocol = if matches!(protocol, "ws" | "wss") { protocol } else { "nats" };
            (format!("nats{}", at + 1), json!({ "host": host, "protocol": protocol }))
        })
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Figvine",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Committed changes of databases, in order, each once.",
        },
        "defaultContentType": "application/json",
        "servers": servers,
        "channels": channels,
        "operations": operations,
        "components": { "messages": messages, "schemas": schemas },
    })
}

/// A name that components may have.
fn component(event_type: &str) -> String {
    event_type.replace('=', "-x")
}

/// The subjects of a type, with parameters in the place of what differs from event to event.
fn address(described: &Described<'_>, event_type: &str) -> (String, Map<String, Value>) {
    let parts: Vec<&str> = event_type.split('.').collect();
    let mut parameters = Map::new();
    let address = match parts.as_slice() {
        [source, schema, table] => {
            let filled = described.subject.replace("{source}", source);
            filled.replace("{schema}", schema).replace("{table}", table)
        }
        [source, "schema_changed"] => return (format!("cdc.{source}.schema_changes"), parameters),
        [source, "missing"] => described.subject.replace("{source}", source),
        [source, "missing_event"] => described.domain_subject.replace("{source}", source),
        [source, "message"] => format!("cdc.{source}.messages.{{prefix}}"),
        [source, event] => described.domain_subject.replace("{source}", source).replace("{type}", event),
        _ => described.domain_subject.to_owned(),
    };
    for (name, about) in [
        ("schema", "The table's schema, or database"),
        ("table", "The table"),
        ("type", "The type of the event that is missing, with _missing behind it"),
        ("op", "The operation"),
        ("key", "The key's values, as one token"),
        ("partition", "Two digits made of the key, or all"),
        ("prefix", "The message's prefix, as one token"),
    ] {
        if address.contains(&format!("{{{name}}}")) {
            parameters.insert(name.into(), json!({ "description": about }));
        }
    }
    (address, parameters)
}

fn headers(uri: &str) -> Value {
    let text = || json!({ "type": "string" });
    json!({
        "type": "object",
        "properties": {
            "ce-specversion": { "type": "string", "enum": ["1.0"] },
            "ce-id": text(),
            "ce-source": text(),
            "ce-type": text(),
            "ce-dataschema": { "type": "string", "enum": [uri] },
            "ce-subject": text(),
            "ce-time": text(),
            "ce-partitionkey": text(),
            "ce-sequence": text(),
            "ce-datacontenttype": text(),
        },
        "required": ["ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time", "ce-sequence"],
    })
}

/// Puts a document and its `$defs` among the schemas.
fn take_apart(name: &str, document: &Value, schemas: &mut Map<String, Value>) {
    let mut document = document.clone();
    if let Value::Object(members) = &mut document {
        members.shift_remove("$schema");
        members.shift_remove("$id");
        if let Some(Value::Object(definitions)) = members.shift_remove("$defs") {
            for (definition, mut schema) in definitions {
                lead(name, &mut schema);
                schemas.insert(format!("{name}.{definition}"), schema);
            }
        }
    }
    lead(name, &mut document);
    schemas.insert(name.to_owned(), document);
}

/// Leads references to where the definitions are now.
fn lead(name: &str, schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            for (key, member) in members {
                match member {
                    Value::String(target) if key == "$ref" => {
                        if let Some(definition) = target.strip_prefix("#/$defs/") {
                            *target = format!("#/components/schemas/{name}.{definition}");
                        }
                    }
                    other => lead(name, other),
                }
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(|element| lead(name, element)),
        _ => {}
    }
}
