use figvine_change::{Column, JsonType, ValueCodec, ValueError};
use serde_json::json;

use super::*;

/// A codec that only says what it writes.
#[derive(Debug)]
struct Of(JsonType);

impl ValueCodec for Of {
    fn write_json(&self, _: &[u8], _: &mut Vec<u8>) -> Result<(), ValueError> {
        Err(ValueError { type_name: "of a test".into(), reason: "it is not read" })
    }

    fn json_type(&self) -> JsonType {
        self.0.clone()
    }
}

fn int() -> JsonType {
    JsonType::integer(32, true)
}

/// `public.orders`, whose first column is its key.
fn orders(columns: &[(&str, JsonType)]) -> Table {
    let column = |(name, json): &(&str, JsonType)| Column {
        name: (*name).into(),
        type_name: "any".into(),
        codec: Arc::new(Of(json.clone())),
    };
    Table {
        schema: "public".into(),
        name: "orders".into(),
        columns: columns.iter().map(column).collect(),
        key: vec![0],
    }
}

const FULL: Compatibility = Compatibility { backward: true, forward: true, is_transitive: true };

/// Keeps versions one behind the other, as the registry does under `degrade`; returns them as text.
fn versions(compatibility: Compatibility, shapes: &[&[(&str, JsonType)]]) -> Vec<String> {
    let mut book = Book::default();
    let mut given = Vec::new();
    for shape in shapes {
        let draft = of_table("shop", &orders(shape));
        let (version, document) = match book.judge(&draft, compatibility) {
            Verdict::Known(version) => {
                given.push(format!("{version} again"));
                continue;
            }
            Verdict::New { version, document } => (version, document),
            Verdict::Breaking { instead, .. } => instead,
        };
        given.push(version.to_string());
        book.insert(&draft.event_type, version, document);
    }
    given
}

#[test]
fn compatible_changes_count_in_the_minor_and_others_begin_a_major() {
    let one: &[_] = &[("id", int()), ("a", JsonType::Text)];
    let added: &[_] = &[("id", int()), ("a", JsonType::Text), ("b", JsonType::Text)];
    let dropped: &[_] = &[("id", int())];
    let widened: &[_] = &[("id", int()), ("a", JsonType::Any)];
    let none = Compatibility { backward: false, forward: false, is_transitive: false };
    let backward = Compatibility { backward: true, forward: false, is_transitive: true };
    let forward = Compatibility { backward: false, forward: true, is_transitive: true };
    assert_eq!(versions(FULL, &[one, added, one, added]), ["1.0", "1.1", "1.0 again", "1.1 again"]);
    assert_eq!(versions(FULL, &[one, dropped, one]), ["1.0", "2.0", "1.0 again"]);
    assert_eq!(versions(FULL, &[one, widened]), ["1.0", "2.0"]);
    assert_eq!(versions(backward, &[one, widened, dropped]), ["1.0", "1.1", "1.2"]);
    assert_eq!(versions(forward, &[one, widened]), ["1.0", "2.0"]);
    assert_eq!(versions(forward, &[widened, one]), ["1.0", "1.1"]);
    assert_eq!(versions(none, &[one, dropped, widened]), ["1.0", "1.1", "1.2"]);
}

#[test]
fn a_column_that_was_added_within_a_major_may_go_again_and_not_come_back_as_another_type() {
    let one: &[_] = &[("id", int()), ("a", int())];
    let added: &[_] = &[("id", int()), ("a", int()), ("b", int())];
    let another: &[_] = &[("id", int()), ("a", int()), ("c", int())];
    let otherwise: &[_] = &[("id", int()), ("a", int()), ("b", JsonType::Text)];
    assert_eq!(versions(FULL, &[one, added, another]), ["1.0", "1.1", "1.2"]);
    // The newest version has no `b`, an older one has: only the transitive rule sees it.
    assert_eq!(versions(FULL, &[one, added, another, otherwise]), ["1.0", "1.1", "1.2", "2.0"]);
    let newest = Compatibility { is_transitive: false, ..FULL };
    assert_eq!(versions(newest, &[one, added, another, otherwise]), ["1.0", "1.1", "1.2", "1.3"]);
}

#[test]
fn the_order_of_columns_is_no_part_of_a_shape() {
    let one: &[_] = &[("id", int()), ("a", int()), ("b", int())];
    let other: &[_] = &[("id", int()), ("b", int()), ("a", int())];
    assert_eq!(versions(FULL, &[one, other]), ["1.0", "1.0 again"]);
}

#[test]
fn what_breaks_is_told_with_names_types_and_for_whom() {
    let document = |table: &Table| of_table("shop", table).document;
    let old = document(&orders(&[("id", int()), ("note", JsonType::Text), ("n", JsonType::integer(16, true))]));
    let mut table = orders(&[("id", int()), ("n", int()), ("more", JsonType::Text)]);
    let told = |new: &Table| {
        let breaks = between(&old, &document(new));
        breaks.iter().map(|found| format!("{}: {}", found.reader.word(), found.what)).collect::<Vec<_>>()
    };
    let n = "forward: column n was integer from -32768 to 32767 and is integer from -2147483648 to 2147483647";
    assert_eq!(told(&table), ["forward: column note is gone", n]);
    table.key = vec![0, 1];
    assert_eq!(told(&table), ["forward: column note is gone", n, "both: the key was id and is id, n"]);
}

#[test]
fn a_refused_shape_is_refused_until_it_is_known() {
    let policy = Policy { on_drift: OnDrift::Stop, ..Policy::default() };
    let schemas = Schemas::new("shop", policy);
    let (old, new) = (orders(&[("id", int()), ("a", int())]), orders(&[("id", int())]));
    let Some((draft, Verdict::New { version, document })) = schemas.judge(&old) else { panic!("it is the first") };
    assert_eq!(schemas.uri(&old), Ok(None));
    schemas.keep(&draft.event_type, version, document);
    assert!(schemas.judge(&old).is_none());
    assert_eq!(schemas.uri(&old).expect("known").as_deref(), Some("figvine:shop.public.orders/1.0"));
    assert!(schemas.pass(&old) && !schemas.pass(&old));

    let Some((draft, Verdict::Breaking { with, .. })) = schemas.judge(&new) else { panic!("it breaks") };
    let what = "column a is gone".into();
    schemas.refuse(&new, Refusal { event_type: draft.event_type.into(), version: with, what });
    assert!(schemas.uri(&new).is_err() && schemas.judge(&new).is_none());
    assert!(schemas.uri(&old).is_ok());
}

#[test]
fn a_domain_events_major_is_its_rules_and_not_ours() {
    let field =
        |name: &str, json: JsonType, is_optional| Field { name: name.into(), json, is_nullable: false, is_optional };
    let shape = |major, fields: Vec<Field>| EventShape { name: "order_placed".into(), major, fields };
    let mut book = Book::default();
    let mut judge = |shape: &EventShape| {
        let draft = of_event("shop", shape);
        let verdict = book.judge(&draft, FULL);
        if let Verdict::New { version, document } = &verdict {
            book.insert(&draft.event_type, *version, document.clone());
        }
        match verdict {
            Verdict::Known(version) => format!("known {version}"),
            Verdict::New { version, .. } => format!("new {version}"),
            Verdict::Breaking { breaks, .. } => breaks[0].what.clone(),
        }
    };
    let id = || field("id", int(), false);
    assert_eq!(judge(&shape(1, vec![id()])), "new 1.0");
    assert_eq!(judge(&shape(1, vec![id()])), "known 1.0");
    assert_eq!(judge(&shape(1, vec![id(), field("note", JsonType::Text, true)])), "new 1.1");
    assert_eq!(judge(&shape(1, vec![id(), field("sum", int(), false)])), "member sum is new and must be there");
    assert_eq!(judge(&shape(2, vec![id(), field("sum", int(), false)])), "new 2.0");
}

#[test]
fn documents_say_what_an_operation_has() {
    let table = orders(&[("id", int()), ("note", JsonType::Text)]);
    let draft = of_table("shop", &table);
    let validator = jsonschema::draft202012::new(&draft.document).expect("a schema");
    let source = json!({
        "name": "shop", "engine": "postgres", "version": "15.1", "database": "shop", "schema": "public", "table": "orders",
        "position": "0/1", "transaction": "7", "committed_at": "2026-11-23T09:00:00.000000Z", "snapshot": false,
    });
    let with = |mut body: Value| {
        body["source"] = source.clone();
        body
    };
    for body in [
        json!({ "op": "insert", "key": { "id": 1 }, "before": null, "after": { "id": 1, "note": null } }),
        json!({ "op": "update", "key": { "id": 1 }, "before": { "id": 1 }, "after": { "id": 1 }, "unchanged": ["note"] }),
        json!({ "op": "update", "key": { "id": 1 }, "before": null, "after": { "id": 1, "note": "x", "later": [1] } }),
        json!({ "op": "delete", "key": { "id": 1 }, "before": { "id": 1 }, "after": null, "rekeyed": { "id": 2 } }),
        json!({ "op": "truncate", "key": null, "before": null, "after": null }),
    ] {
        let body = with(body);
        assert!(validator.is_valid(&body), "{body}");
    }
    for body in [
        json!({ "op": "insert", "key": { "id": 1 }, "before": null, "after": { "id": 1 } }),
        json!({ "op": "insert", "key": { "id": "1" }, "before": null, "after": { "id": 1, "note": null } }),
        json!({ "op": "insert", "key": { "id": 1 }, "before": null, "after": null }),
        json!({ "op": "delete", "key": { "id": 1 }, "before": null, "after": null }),
        json!({ "op": "truncate", "key": { "id": 1 }, "before": null, "after": null }),
        json!({ "op": "upsert", "key": { "id": 1 }, "before": null, "after": { "id": 1, "note": null } }),
        json!({ "op": "update", "key": { "id": 1 }, "before": null, "after": { "id": 1, "note": 5 } }),
    ] {
        let body = with(body);
        assert!(!validator.is_valid(&body), "{body}");
    }
}
