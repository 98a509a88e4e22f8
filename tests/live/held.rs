//! Events, held against the schemas that they name.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::jetstream;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::harness::Event;

/// All that the bucket of schemas holds.
pub(crate) async fn kept(context: &jetstream::Context) -> BTreeMap<String, Value> {
    let store = context.get_key_value("FIGVINE_SCHEMAS").await.expect("the bucket");
    let mut kept = BTreeMap::new();
    let mut keys = store.keys().await.expect("keys");
    while let Some(key) = keys.next().await {
        let key = key.expect("a key");
        let value = store.get(&key).await.expect("answers").expect("a value");
        kept.insert(key, serde_json::from_slice(&value).expect("JSON"));
    }
    kept
}

/// Fails for an event that is not what the schema says that it names; returns the schemas that were named.
pub(crate) fn hold(events: &[Event], kept: &BTreeMap<String, Value>) -> BTreeSet<String> {
    let mut validators = BTreeMap::new();
    for event in events {
        // In structured mode attributes stand in the body.
        let whole: Value = serde_json::from_slice(&event.payload).expect("JSON");
        let (uri, data) = match whole.get("specversion") {
            Some(_) => (whole["dataschema"].as_str().expect("it names a schema"), &whole["data"]),
            None => (event.header("ce-dataschema"), &whole),
        };
        let validator = validators.entry(uri.to_owned()).or_insert_with(|| {
            let key = uri.strip_prefix("figvine:").unwrap_or_else(|| panic!("{uri:?} is no URI of a schema"));
            let document = kept.get(key).unwrap_or_else(|| panic!("{key} is not kept"));
            assert_eq!(document["$id"], uri);
            jsonschema::draft202012::new(document).expect("a schema")
        });
        if let Err(error) = validator.validate(data) {
            panic!("an event is not what {uri} says: {error}\n{data}");
        }
    }
    validators.into_keys().collect()
}
