//! Whether all that one schema takes another takes too: of the schemas that `JsonType` writes, not of any.

use serde_json::{Map, Value};

/// Whether every value that `narrow` takes is one that `wide` takes. May say no where it cannot tell.
pub(super) fn fits(narrow: &Value, wide: &Value) -> bool {
    let (Value::Object(narrow), Value::Object(wide)) = (narrow, wide) else { return narrow == wide };
    if wide.is_empty() || narrow == wide {
        return true;
    }
    if let Some(Value::Array(branches)) = narrow.get("anyOf") {
        return branches.iter().all(|branch| fits(branch, &Value::Object(wide.clone())));
    }
    if let Some(Value::Array(branches)) = wide.get("anyOf") {
        // What is one type or another may fit one branch as the one, and another as the other.
        let each = types(narrow).unwrap_or_default().into_iter().map(|name| {
            let mut one = narrow.clone();
            one.insert("type".into(), name.into());
            Value::Object(one)
        });
        let each: Vec<_> = each.collect();
        return !each.is_empty() && each.iter().all(|one| branches.iter().any(|branch| fits(one, branch)));
    }
    let (Some(have), Some(may)) = (types(narrow), types(wide)) else { return false };
    let is_among = |name: &&str| may.contains(name) || **name == *"integer" && may.contains(&"number");
    have.iter().all(is_among)
        && (!have.contains(&"string") || strings_fit(narrow, wide))
        && (!have.contains(&"integer") && !have.contains(&"number") || numbers_fit(narrow, wide))
        && (!have.contains(&"array") || parts_fit(narrow, wide, "items"))
        && (!have.contains(&"object") || objects_fit(narrow, wide))
}

fn types(schema: &Map<String, Value>) -> Option<Vec<&str>> {
    match schema.get("type")? {
        Value::String(name) => Some(vec![name]),
        Value::Array(names) => names.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// What limits texts: `contentEncoding` and `format` limit nothing for a validator, and all for a reader.
fn strings_fit(narrow: &Map<String, Value>, wide: &Map<String, Value>) -> bool {
    let is_same_or_free = |name: &str| wide.get(name).is_none_or(|wanted| narrow.get(name) == Some(wanted));
    let labels_fit = match (narrow.get("enum"), wide.get("enum")) {
        (_, None) => true,
        (Some(Value::Array(have)), Some(Value::Array(may))) => have.iter().all(|label| may.contains(label)),
        _ => false,
    };
    // Base64 is text to nobody who reads it: both say it or none.
    let encoding_fits = narrow.get("contentEncoding") == wide.get("contentEncoding");
    labels_fit && encoding_fits && ["pattern", "format"].into_iter().all(is_same_or_free)
}

fn numbers_fit(narrow: &Map<String, Value>, wide: &Map<String, Value>) -> bool {
    let whole = |schema: &Map<String, Value>, name: &str| -> Option<i128> {
        let bound = schema.get(name)?;
        bound.as_i64().map(i128::from).or_else(|| bound.as_u64().map(i128::from))
    };
    let within = |name: &str, is_within: fn(i128, i128) -> bool| match (whole(narrow, name), whole(wide, name)) {
        (_, None) => true,
        (Some(have), Some(limit)) => is_within(have, limit),
        (None, Some(_)) => false,
    };
    within("minimum", |have, limit| have >= limit) && within("maximum", |have, limit| have <= limit)
}

fn parts_fit(narrow: &Map<String, Value>, wide: &Map<String, Value>, name: &str) -> bool {
    match (narrow.get(name), wide.get(name)) {
        (_, None) => true,
        (Some(have), Some(may)) => fits(have, may),
        (None, Some(_)) => false,
    }
}

/// Members that the other does not know are passed over by its readers.
fn objects_fit(narrow: &Map<String, Value>, wide: &Map<String, Value>) -> bool {
    let members = |schema: &Map<String, Value>| schema.get("properties").and_then(Value::as_object).cloned();
    let (have, may) = (members(narrow).unwrap_or_default(), members(wide).unwrap_or_default());
    let required = |schema: &Map<String, Value>| schema.get("required").and_then(Value::as_array).cloned();
    let there = required(narrow).unwrap_or_default();
    have.iter().all(|(name, member)| may.get(name).is_none_or(|other| fits(member, other)))
        && required(wide).unwrap_or_default().iter().all(|name| there.contains(name))
        && parts_fit(narrow, wide, "additionalProperties")
}

#[cfg(test)]
mod tests {
    use figvine_change::JsonType;
    use proptest::prelude::*;

    use super::*;

    fn schema(of: &JsonType) -> Value {
        let mut out = Vec::new();
        of.write_schema(true, &mut out);
        serde_json::from_slice(&out).expect("JSON")
    }

    fn fit(narrow: &JsonType, wide: &JsonType) -> bool {
        fits(&schema(narrow), &schema(wide))
    }

    #[test]
    fn wider_types_take_narrower_ones_and_not_the_other_way() {
        use JsonType::*;
        let list = |of: JsonType| List(Box::new(of));
        let object = |members: &[(&str, JsonType)]| {
            Object(members.iter().map(|(name, of)| ((*name).into(), of.clone())).collect())
        };
        let labels = |labels: &[&str]| Enum(labels.iter().map(|label| (*label).into()).collect());
        for (narrow, wide) in [
            (JsonType::integer(16, true), JsonType::integer(32, true)),
            (JsonType::integer(16, false), JsonType::integer(32, true)),
            (JsonType::integer(32, true), Float),
            (Date, Text),
            (labels(&["a"]), labels(&["a", "b"])),
            (labels(&["a"]), Text),
            (Uuid, Text),
            (Boolean, Any),
            (list(JsonType::integer(8, true)), list(JsonType::integer(16, true))),
            (Array(Box::new(Date)), Array(Box::new(Text))),
            (object(&[("a", Text), ("b", Text)]), object(&[("a", Text)])),
            (Text, OrText(Box::new(Boolean))),
            (Map(Box::new(Date)), Map(Box::new(Text))),
        ] {
            assert!(fit(&narrow, &wide), "{narrow:?} {wide:?}");
            assert!(!fit(&wide, &narrow), "{wide:?} {narrow:?}");
        }
    }

    #[test]
    fn what_is_read_otherwise_does_not_fit() {
        use JsonType::*;
        for (one, other) in [
            (Text, Bytes),
            (Bytes, Text),
            (Decimal { as_string: true }, Decimal { as_string: false }),
            (JsonType::integer(64, true), JsonType::integer(64, true).into_string()),
            (Date, Timestamp),
            (Boolean, JsonType::integer(8, true)),
            (JsonType::integer(32, false), JsonType::integer(32, true)),
        ] {
            assert!(!fit(&one, &other), "{one:?} {other:?}");
        }
    }

    fn types() -> impl Strategy<Value = JsonType> {
        let leaf = prop_oneof![
            Just(JsonType::Any),
            Just(JsonType::Boolean),
            Just(JsonType::Float),
            Just(JsonType::Text),
            Just(JsonType::Uuid),
            (1..=64_u32, any::<bool>()).prop_map(|(bits, is_signed)| JsonType::integer(bits, is_signed)),
            prop::collection::btree_set("[a-c]", 0..3)
                .prop_map(|labels| JsonType::Enum(labels.into_iter().map(Into::into).collect())),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(|of| JsonType::Array(Box::new(of))),
                inner.clone().prop_map(|of| JsonType::List(Box::new(of))),
                inner.clone().prop_map(|of| JsonType::Map(Box::new(of))),
                inner.clone().prop_map(|of| JsonType::OrText(Box::new(of))),
                prop::collection::btree_map("[a-c]", inner, 0..3)
                    .prop_map(|m| JsonType::Object(m.into_iter().map(|(name, of)| (name.into(), of)).collect())),
            ]
        })
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[a-c]".prop_map(Value::from),
            Just(Value::from(1.5)),
        ];
        leaf.prop_recursive(3, 8, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|m| m.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_type_fits_itself(of in types()) {
            prop_assert!(fit(&of, &of));
        }

        #[test]
        fn what_fits_is_taken_by_a_validator(
            narrow in types(), wide in types(), values in prop::collection::vec(values(), 20)
        ) {
            if fit(&narrow, &wide) {
                let validator = |of| jsonschema::draft202012::new(&schema(of)).expect("a schema");
                let (from, into) = (validator(&narrow), validator(&wide));
                for value in values {
                    prop_assert!(!from.is_valid(&value) || into.is_valid(&value), "{}", value);
                }
            }
        }
    }
}
