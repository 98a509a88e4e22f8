//! What an event says, whichever envelope it came in.
//!
//! Values stay the text that stands in the body: reading them as numbers would cost digits.

use std::borrow::Cow;

use async_nats::HeaderMap;
use percent_encoding::percent_decode_str;
use serde::de::IgnoredAny;

/// A change as its event tells it. Values, rows and keys are JSON.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    /// `insert`, `update` and so on; anything, in an event that is not ours.
    pub(crate) op: Cow<'a, str>,
    /// The configured name of the source.
    pub(crate) source: String,
    /// `schema.table`; empty for messages.
    pub(crate) table: String,
    /// `ce-type`, or what it would be.
    pub(crate) event_type: String,
    /// `ce-id`; empty where the envelope has none.
    pub(crate) id: String,
    /// The key as one string, as `ce-subject` shows it.
    pub(crate) key: String,
    /// The transaction's id.
    pub(crate) transaction: String,
    /// The transaction's place in the log; empty where the envelope does not tell it.
    pub(crate) position: String,
    /// RFC 3339.
    pub(crate) committed_at: String,
    /// Names of the key's columns.
    pub(crate) key_columns: Vec<Cow<'a, str>>,
    /// The row before, as far as it is known.
    pub(crate) before: Vec<Member<'a>>,
    /// The row after.
    pub(crate) after: Vec<Member<'a>>,
    /// Columns whose values the log did not carry.
    pub(crate) unchanged: Vec<Cow<'a, str>>,
    /// The other key of a change that moved a row to another one.
    pub(crate) rekeyed: Option<String>,
    /// Members of the body that only some operations have: a message's content, a table's shapes.
    rest: Vec<Member<'a>>,
}

/// A name, and a value as it stands.
pub(crate) type Member<'a> = (Cow<'a, str>, &'a str);

impl<'a> Change<'a> {
    /// Reads an event; `None` for what is no event of a change.
    pub(crate) fn of(headers: Option<&HeaderMap>, payload: &'a [u8]) -> Option<Self> {
        let header = |name: &str| {
            let value = headers.and_then(|headers| headers.get(name)).map(|value| value.as_str());
            value.map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned())
        };
        serde_json::from_slice::<IgnoredAny>(payload).ok()?;
        let whole = members(std::str::from_utf8(payload).ok()?)?;
        let text = |members: &[Member<'a>], name: &str| member(members, name).and_then(string).map(Cow::into_owned);
        // Structured mode: the attributes stand around the body.
        let is_structured = member(&whole, "specversion").is_some();
        let body = if is_structured { members(member(&whole, "data")?)? } else { whole.clone() };
        let attribute = |name: &str| if is_structured { text(&whole, name) } else { header(&format!("ce-{name}")) };

        let op = member(&body, "op").and_then(string)?;
        let origin = members(member(&body, "source")?)?;
        if member(&origin, "connector").is_some() {
            return Self::of_debezium(headers, body, &op, &origin);
        }
        let key = member(&body, "key").unwrap_or("null");
        let name = text(&origin, "name").unwrap_or_default();
        let table = match (text(&origin, "schema"), text(&origin, "table")) {
            (Some(schema), Some(table)) => format!("{schema}.{table}"),
            _ => String::new(),
        };
        let row = |name| member(&body, name).and_then(members).unwrap_or_default();
        let unchanged = member(&body, "unchanged").and_then(elements).unwrap_or_default();
        Some(Self {
            event_type: attribute("type").unwrap_or_else(|| event_type(&name, &table, &op)),
            id: attribute("id").unwrap_or_default(),
            key: key_text(key),
            transaction: text(&origin, "transaction").unwrap_or_default(),
            position: text(&origin, "position").unwrap_or_default(),
            committed_at: text(&origin, "committed_at").or_else(|| attribute("time")).unwrap_or_default(),
            key_columns: members(key).unwrap_or_default().into_iter().map(|(name, _)| name).collect(),
            before: row("before"),
            after: row("after"),
            unchanged: unchanged.into_iter().filter_map(string).collect(),
            rekeyed: member(&body, "rekeyed").map(key_text),
            source: name,
            table,
            op,
            rest: body,
        })
    }

    /// Reads Debezium's envelope, whose key is a header.
    fn of_debezium(
        headers: Option<&HeaderMap>,
        body: Vec<Member<'a>>,
        op: &str,
        origin: &[Member<'a>],
    ) -> Option<Self> {
        let header = |name: &str| headers.and_then(|headers| headers.get(name)).map_or("null", |value| value.as_str());
        let text = |name: &str| member(origin, name).and_then(string).map(Cow::into_owned);
        let op = match op {
            "c" => "insert",
            "u" => "update",
            "d" => "delete",
            "r" => "read",
            "t" => "truncate",
            "m" => "message",
            _ => return None,
        };
        let row = |name| member(&body, name).and_then(members).unwrap_or_default();
        let owned = |text: &str| string(text).map(|text| Cow::Owned(text.into_owned()));
        let key = header("Figvine-Key");
        let other = ["__debezium.newkey", "__debezium.oldkey"].map(header).into_iter().find(|key| *key != "null");
        let name = text("name").unwrap_or_default();
        // MySQL has no schemas below its databases. A message is of no table.
        let schema = text("schema").or_else(|| text("db")).unwrap_or_default();
        let table = text("table").filter(|table| !table.is_empty()).map(|table| format!("{schema}.{table}"));
        let table = table.unwrap_or_default();
        let micros = member(origin, "ts_us").and_then(|micros| micros.parse().ok());
        let committed_at = micros.and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok());
        let message = member(&body, "message").and_then(members).unwrap_or_default();
        let transaction = text("gtid").or_else(|| member(origin, "txId").map(str::to_owned));
        Some(Self {
            event_type: event_type(&name, &table, op),
            id: String::new(),
            key: key_text(key),
            transaction: transaction.filter(|transaction| transaction != "null").unwrap_or_default(),
            position: String::new(),
            committed_at: committed_at.map(|at| format!("{at:.6}")).unwrap_or_default(),
            key_columns: members(key)
                .unwrap_or_default()
                .iter()
                .map(|(name, _)| Cow::Owned(name.to_string()))
                .collect(),
            before: row("before"),
            after: row("after"),
            unchanged: elements(header("Figvine-Unchanged"))
                .unwrap_or_default()
                .into_iter()
                .filter_map(owned)
                .collect(),
            rekeyed: other.map(key_text),
            source: name,
            table,
            op: op.into(),
            rest: message,
        })
    }

    /// Whether a column belongs to the key.
    pub(crate) fn is_key(&self, column: &str) -> bool {
        self.key_columns.iter().any(|name| name == column)
    }

    /// Whether the row before is known beyond its key.
    pub(crate) fn has_row_before(&self) -> bool {
        self.before.iter().any(|(name, _)| !self.is_key(name))
    }

    /// A member of the body by its name.
    pub(crate) fn member(&self, name: &str) -> Option<&'a str> {
        member(&self.rest, name)
    }
}

/// The type as events in the format `plain` do not carry it.
fn event_type(source: &str, table: &str, op: &str) -> String {
    let participle = match op {
        "insert" => "inserted",
        "update" => "updated",
        "delete" => "deleted",
        "truncate" => "truncated",
        "schema_change" => return format!("{source}.schema_changed"),
        "message" => return format!("{source}.message"),
        other => other,
    };
    format!("{source}.{table}.{participle}")
}

/// A key as one string: the value of its one column, or the list of its values.
fn key_text(key: &str) -> String {
    let values = members(key).unwrap_or_default();
    match values.as_slice() {
        [] => String::new(),
        [(_, value)] => string(value).map_or_else(|| (*value).to_owned(), Cow::into_owned),
        several => {
            let values: Vec<_> = several.iter().map(|(_, value)| *value).collect();
            format!("[{}]", values.join(","))
        }
    }
}

/// The value of a member.
pub(crate) fn member<'a>(members: &[Member<'a>], name: &str) -> Option<&'a str> {
    members.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
}

/// The content of a JSON string; `None` for another value.
pub(crate) fn string(json: &str) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inside)) }
}

/// The members of a JSON object. The text must be valid JSON; `None` for another value.
pub(crate) fn members(json: &str) -> Option<Vec<Member<'_>>> {
    let inside = json.trim().strip_prefix('{')?.strip_suffix('}')?;
    let member = |member: &'_ str| -> Option<usize> {
        let mut bytes = member.bytes().enumerate().skip(1);
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'\\' => drop(bytes.next()),
                b'"' => return Some(at + 1),
                _ => {}
            }
        }
        None
    };
    let parts = parts(inside).into_iter().map(|part| {
        let (name, value) = part.split_at_checked(member(part)?)?;
        Some((string(name)?, value.trim_start().strip_prefix(':')?.trim_start()))
    });
    parts.collect()
}

/// The elements of a JSON array. The text must be valid JSON; `None` for another value.
pub(crate) fn elements(json: &str) -> Option<Vec<&str>> {
    Some(parts(json.trim().strip_prefix('[')?.strip_suffix(']')?))
}

/// What stands between commas that are in no string and no bracket.
fn parts(inside: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth, mut is_string) = (0, 0_usize, false);
    let mut bytes = inside.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if is_string => drop(bytes.next()),
            b'"' => is_string = !is_string,
            _ if is_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.extend(inside.get(start..at).map(str::trim));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(inside.get(start..).map(str::trim).filter(|last| !last.is_empty()));
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_of_numbers_are_kept() {
        let json = r#"{"a" : 123456789012345678901234567890.10 , "b\"":"x,}\\\"", "c":[1,{"d":[]}],"e":{}}"#;
        let members = members(json).expect("an object");
        assert_eq!(members[0], ("a".into(), "123456789012345678901234567890.10"));
        assert_eq!(members[1], ("b\"".into(), r#""x,}\\\"""#));
        assert_eq!(elements(members[2].1), Some(vec!["1", r#"{"d":[]}"#]));
        assert_eq!(super::members(members[3].1), Some(vec![]));
    }

    #[test]
    fn debeziums_envelope_tells_the_same() {
        let mut headers = HeaderMap::new();
        headers.insert("Figvine-Key", r#"{"id":"50%25"}"#);
        headers.insert("Figvine-Unchanged", r#"["note"]"#);
        let body = br#"{"before":null,"after":{"id":"50%25","note":null},"source":{"connector":"mysql","name":"shop","db":"crm",
            "table":"orders","ts_us":1795893304341740,"gtid":null},"op":"u"}"#;
        let change = Change::of(Some(&headers), body).expect("a change");
        assert_eq!((&*change.op, &*change.key, &*change.table), ("update", "50%25", "crm.orders"));
        assert_eq!((&*change.event_type, &*change.transaction), ("shop.crm.orders.updated", ""));
        assert_eq!(change.committed_at, "2026-11-28T19:15:04.341740Z");
        assert_eq!((change.is_key("id"), change.unchanged), (true, vec![Cow::Borrowed("note")]));
        assert_eq!(change.after, [("id".into(), r#""50%25""#), ("note".into(), "null")]);
    }

    #[test]
    fn the_key_is_told_as_the_attribute_tells_it() {
        assert_eq!(key_text(r#"{"id":42}"#), "42");
        assert_eq!(key_text(r#"{"sku":"FIG \"x\""}"#), "FIG \"x\"");
        assert_eq!(key_text(r#"{"order_id":7,"line":"a"}"#), r#"[7,"a"]"#);
        assert_eq!(key_text("null"), "");
    }

    proptest! {
        #[test]
        fn any_object_comes_apart_as_a_parser_takes_it_apart(
            names in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..5)
        ) {
            let nested: serde_json::Value = serde_json::json!({ "x": names, "y": [names, names] });
            let json = nested.to_string();
            let outer = members(&json).expect("an object");
            let inner = members(outer[0].1).expect("an object");
            prop_assert_eq!(inner.len(), names.len());
            for (name, value) in &inner {
                let value = string(value);
                prop_assert_eq!(value.as_deref(), names.get(&**name).map(String::as_str));
            }
            prop_assert_eq!(elements(outer[1].1).expect("an array"), vec![outer[0].1; 2]);
        }

        #[test]
        fn any_payload_is_read_or_left(payload in any::<Vec<u8>>()) {
            let _ = Change::of(None, &payload);
        }

        #[test]
        fn any_text_is_taken_apart_or_left(text in r#"[\[{"\\,:}\] a1é]{0,30}"#) {
            let _ = (members(&text), elements(&text), string(&text), key_text(&text));
        }
    }
}
