//! What holds for every codec, whatever the bytes.

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{TypeRow, Types, Write};
use crate::config::ValueOptions;

/// What a writer gives for a value.
pub(super) fn written(write: Write, raw: &[u8]) -> String {
    let mut out = Vec::new();
    if let Err(reason) = write(raw, &mut out) {
        panic!("{}: {reason}", String::from_utf8_lossy(raw));
    }
    String::from_utf8(out).expect("UTF-8")
}

/// Why a writer refuses what is no value.
pub(super) fn refused(write: Write, raw: &[u8]) -> &'static str {
    match write(raw, &mut Vec::new()) {
        Ok(()) => panic!("{} was taken", String::from_utf8_lossy(raw)),
        Err(reason) => reason,
    }
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}

/// Types made of types, for the properties: a composite, a domain over an array
/// of them, hstore, vector.
fn all_types(options: ValueOptions) -> (Types, Vec<u32>) {
    let mut types = Types::new(&options);
    types.add(vec![
        TypeRow {
            attributes: vec![("a".into(), 23), ("b\n".into(), 25), ("c".into(), 70_001)],
            ..row(70_000, "pair", 'c')
        },
        TypeRow { base: 1007, ..row(70_001, "list", 'd') },
        TypeRow { element: 70_000, ..row(70_002, "_pair", 'b') },
        row(70_003, "hstore", 'b'),
        row(70_004, "vector", 'b'),
        row(70_005, "mood", 'e'),
        TypeRow { element: 70_003, ..row(70_006, "_hstore", 'b') },
    ]);
    let builtin = super::builtin::types(&options).flat_map(|(oid, array, _, _)| [oid, array]);
    let oids = builtin.chain(70_000..=70_007).collect();
    (types, oids)
}

fn row(oid: u32, name: &str, kind: char) -> TypeRow {
    TypeRow {
        oid,
        schema: "public".into(),
        name: name.into(),
        kind,
        category: 'U',
        element: 0,
        delimiter: b',',
        base: 0,
        base_modifier: -1,
        attributes: Vec::new(),
    }
}

/// What takes the values that a codec writes, by its own word; but for the bounds of whole numbers, which no server
/// exceeds and random digits do.
fn validator(types: &Types, oid: u32) -> jsonschema::Validator {
    fn without_bounds(schema: &mut Value) {
        match schema {
            Value::Object(members) => {
                members.remove("minimum");
                members.remove("maximum");
                members.values_mut().for_each(without_bounds);
            }
            Value::Array(elements) => elements.iter_mut().for_each(without_bounds),
            _ => {}
        }
    }
    let mut schema = Vec::new();
    types.column_codec(oid, -1).json_type().write_schema(true, &mut schema);
    let mut schema = serde_json::from_slice(&schema).expect("JSON");
    without_bounds(&mut schema);
    jsonschema::draft202012::new(&schema).expect("a schema")
}

/// All types, plain and under options, each with what takes its values.
fn promised() -> Vec<(Types, Vec<(u32, jsonschema::Validator)>)> {
    let with = |flag| {
        let (types, oids) = all_types(ValueOptions { bigint_as_string: flag, decimal_as_number: flag, debezium: None });
        let validators = oids.into_iter().map(|oid| (oid, validator(&types, oid))).collect();
        (types, validators)
    };
    vec![with(false), with(true)]
}

thread_local! {
    static PROMISED: Vec<(Types, Vec<(u32, jsonschema::Validator)>)> = promised();
}

/// Every codec takes or refuses the bytes, and what it writes is JSON on one line of the type that it says.
fn check_all(raw: &[u8]) -> Result<(), TestCaseError> {
    PROMISED.with(|promised| {
        for (types, validators) in promised {
            for (oid, validator) in validators {
                check(types, *oid, validator, raw)?;
            }
        }
        Ok(())
    })
}

fn check(types: &Types, oid: u32, validator: &jsonschema::Validator, raw: &[u8]) -> Result<(), TestCaseError> {
    let mut out = Vec::new();
    if types.codec(oid).write_json(raw, &mut out).is_ok() {
        let text = String::from_utf8_lossy(&out);
        prop_assert!(is_json(&out), "{oid}: {text}");
        prop_assert!(!out.contains(&b'\n'), "{oid}: {text}");
        prop_assert!(out.len() <= 8 * raw.len() + 256, "{oid}: {} from {}", out.len(), raw.len());
        // Numbers beyond doubles are JSON, and no value here.
        if let Ok(value) = serde_json::from_slice(&out) {
            prop_assert!(validator.is_valid(&value), "{oid}: {text} is no {:?}", types.codec(oid).json_type());
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_bytes_panic_and_all_output_is_json(raw in prop::collection::vec(any::<u8>(), 0..64)) {
        check_all(&raw)?;
    }

    #[test]
    fn no_text_near_a_value_panics_and_all_output_is_json(
        raw in r#"[-+$]?([0-9]{1,4}|[\[\]{}(),;:="'\\ \n.tfePTxuINaNUL>-]|NULL|infinity|NaN| BC|\\x|=>|"a"|-01-01|:00:00){0,12}"#,
    ) {
        check_all(raw.as_bytes())?;
    }

    #[test]
    fn json_means_the_same_without_its_blanks(value in documents()) {
        let pretty = serde_json::to_vec_pretty(&value).expect("JSON");
        let compact = serde_json::to_string(&value).expect("JSON");
        prop_assert_eq!(written(super::json::write_json, &pretty), compact);
    }

    #[test]
    fn what_postgres_would_print_reads_back((shape, value) in shapes().prop_flat_map(|shape| {
        values(&shape).prop_filter("null has no text", |value| !value.is_null()).prop_map(move |value| (shape.clone(), value))
    })) {
        let mut rows = Vec::new();
        let oid = declare(&shape, &mut rows);
        let mut types = Types::new(&ValueOptions::default());
        types.add(rows);
        prop_assert!(types.missing(oid).is_empty());
        let text = print(&shape, &value);
        let mut out = Vec::new();
        if let Err(error) = types.codec(oid).write_json(text.as_bytes(), &mut out) {
            return Err(TestCaseError::fail(format!("{error}: {text}")));
        }
        prop_assert!(validator(&types, oid).is_valid(&value), "{} {}", value, text);
        prop_assert_eq!(serde_json::from_slice::<Value>(&out).expect("JSON"), value, "{}", text);
    }
}

#[test]
fn values_of_each_kind_are_what_their_codecs_promise() {
    for (oid, texts) in [
        (16, &["t", "f"][..]),
        (17, &["\\x", "\\x00ff"]),
        (20, &["-9223372036854775808", "9223372036854775807"]),
        (21, &["-32768", "32767"]),
        (23, &["-2147483648", "2147483647"]),
        (26, &["0", "4294967295"]),
        (22, &["", "1 2"]),
        (30, &["16384 23"]),
        (700, &["0", "-1.5e-45", "NaN", "Infinity", "-Infinity"]),
        (1700, &["0", "-12.50", "NaN", "Infinity", "-Infinity"]),
        (790, &["-$1,234.56"]),
        (3802, &["null", "{\"a\": [1]}", "\"x\""]),
        (1082, &["2026-11-23", "4713-01-01 BC", "0001-01-01 BC", "5874897-12-31", "infinity", "-infinity"]),
        (1083, &["00:00:00", "24:00:00", "23:59:59.999999"]),
        (1266, &["23:59:59.5+02", "00:00:00-05:30", "00:00:00+15:59:59"]),
        (1114, &["2026-11-23 09:00:00", "294276-12-31 23:59:59.999999", "4713-01-01 00:00:00 BC", "infinity"]),
        (1184, &["2026-11-23 09:00:00.5+00", "4713-01-01 00:00:00+00 BC", "-infinity"]),
        (1186, &["P1Y2M-3DT4H5M6.78S", "PT0S", "P-1Y", "infinity"]),
        (2950, &["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
        (1009, &["{}", "{a,NULL,\"b c\"}", "{{a,b},{c,d}}"]),
        (1182, &["{2026-11-23,NULL,infinity}", "[0:0]={2026-11-23}"]),
        (1560, &["0101"]),
        (869, &["192.0.2.0/24"]),
        (3904, &["[1,5)", "empty"]),
        (70_000, &["(1,x,\"{1,2}\")", "(,,)"]),
        (70_003, &["\"a\"=>\"1\", \"b\"=>NULL", ""]),
        (70_004, &["[1,2.5]"]),
        (70_006, &["{NULL,\"\\\"a\\\"=>NULL\"}"]),
    ] {
        PROMISED.with(|promised| {
            for (types, validators) in promised {
                let (_, validator) = validators.iter().find(|(known, _)| *known == oid).expect("a type");
                for text in texts {
                    let mut out = Vec::new();
                    types.codec(oid).write_json(text.as_bytes(), &mut out).unwrap_or_else(|e| panic!("{text}: {e}"));
                    let value = serde_json::from_slice(&out).expect("JSON");
                    assert!(validator.is_valid(&value), "{value} is no {:?}", types.codec(oid).json_type());
                    // A type that takes anything says nothing; of documents alone that is so.
                    let anything = !matches!(oid, 114 | 3802) && validator.is_valid(&serde_json::json!({ "?": 1 }));
                    assert!(!anything || matches!(oid, 70_000 | 70_003), "{oid} takes anything");
                }
            }
        });
    }
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A type made of types.
#[derive(Debug, Clone)]
enum Shape {
    Int,
    Text,
    Hstore,
    /// Of one or two dimensions. Elements that are arrays are domains over arrays.
    Array(Box<Shape>, u8),
    Composite(Vec<Shape>),
}

fn shapes() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![Just(Shape::Int), Just(Shape::Text), Just(Shape::Hstore)];
    leaf.prop_recursive(4, 12, 4, |inner| {
        prop_oneof![
            (inner.clone(), 1..=2_u8).prop_map(|(element, dimensions)| Shape::Array(Box::new(element), dimensions)),
            prop::collection::vec(inner, 0..4).prop_map(Shape::Composite),
        ]
    })
}

/// Values of a type, as the JSON that they should become.
fn values(shape: &Shape) -> BoxedStrategy<Value> {
    let value = match shape {
        Shape::Int => any::<i32>().prop_map(Value::from).boxed(),
        Shape::Text => texts().prop_map(Value::from).boxed(),
        Shape::Hstore => prop::collection::btree_map(texts(), prop::option::of(texts()), 0..4)
            .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key, Value::from(value))).collect())
            .boxed(),
        Shape::Array(element, 1) => prop::collection::vec(values(element), 0..4).prop_map(Value::from).boxed(),
        Shape::Array(element, _) => {
            let element = values(element);
            (1..4_usize)
                .prop_flat_map(move |width| {
                    let inner = prop::collection::vec(element.clone(), width).prop_map(Value::from);
                    prop::collection::vec(inner, 0..3)
                })
                .prop_map(Value::from)
                .boxed()
        }
        Shape::Composite(shapes) => {
            let attributes: Vec<_> = shapes.iter().map(values).collect();
            attributes
                .prop_map(|values| {
                    values.into_iter().enumerate().map(|(at, value)| (format!("a{at}"), value)).collect()
                })
                .boxed()
        }
    };
    prop_oneof![1 => Just(Value::Null), 6 => value].boxed()
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z ,;(){}\\\\\"'=>\n]{0,8}", any::<String>(), Just("NULL".to_owned()), Just(String::new())]
}

/// Adds the rows of a type; returns its oid.
fn declare(shape: &Shape, rows: &mut Vec<TypeRow>) -> u32 {
    match shape {
        Shape::Int => 23,
        Shape::Text => 25,
        Shape::Hstore => add(rows, |oid| row(oid, "hstore", 'b')),
        Shape::Array(element, _) => {
            let mut element_oid = declare(element, rows);
            if matches!(**element, Shape::Array(..)) {
                element_oid = add(rows, |oid| TypeRow { base: element_oid, ..row(oid, "list", 'd') });
            }
            add(rows, |oid| TypeRow { element: element_oid, ..row(oid, "_list", 'b') })
        }
        Shape::Composite(shapes) => {
            let attributes =
                shapes.iter().enumerate().map(|(at, shape)| (format!("a{at}"), declare(shape, rows))).collect();
            add(rows, |oid| TypeRow { attributes, ..row(oid, "made", 'c') })
        }
    }
}

fn add(rows: &mut Vec<TypeRow>, make: impl FnOnce(u32) -> TypeRow) -> u32 {
    let oid = 70_000 + rows.len() as u32;
    rows.push(make(oid));
    oid
}

/// The text of a value as the type's output function would print it.
fn print(shape: &Shape, value: &Value) -> String {
    match (shape, value) {
        (Shape::Text, Value::String(text)) => text.clone(),
        (Shape::Hstore, Value::Object(pairs)) => {
            let quote = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{}=>{}", quote(key), value.as_str().map_or("NULL".into(), quote)))
                .collect();
            pairs.join(", ")
        }
        (Shape::Array(element, dimensions), Value::Array(values)) => {
            // Some with bounds of their own, as after `a[0] := ...`.
            let bounds = match (values.len(), dimensions) {
                (3, 1) => "[0:2]=",
                _ => "",
            };
            format!("{bounds}{}", print_dimension(element, *dimensions, values))
        }
        (Shape::Composite(shapes), Value::Object(values)) => {
            let values: Vec<String> = shapes
                .iter()
                .zip(values.values())
                .map(
                    |(shape, value)| {
                        if value.is_null() { String::new() } else { quote_attribute(&print(shape, value)) }
                    },
                )
                .collect();
            format!("({})", values.join(","))
        }
        (_, value) => value.to_string(),
    }
}

fn print_dimension(element: &Shape, dimensions: u8, values: &[Value]) -> String {
    let values: Vec<String> = values
        .iter()
        .map(|value| match value {
            Value::Array(values) if dimensions > 1 => print_dimension(element, dimensions - 1, values),
            Value::Null => "NULL".into(),
            value => quote_element(&print(element, value)),
        })
        .collect();
    format!("{{{}}}", values.join(","))
}

/// As `array_out` does.
fn quote_element(text: &str) -> String {
    let special = |c: char| matches!(c, '{' | '}' | '"' | '\\' | ',') || c.is_ascii_whitespace();
    if text.is_empty() || text.eq_ignore_ascii_case("NULL") || text.contains(special) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        text.into()
    }
}

/// As `record_out` does.
fn quote_attribute(text: &str) -> String {
    let special = |c: char| matches!(c, '(' | ')' | '"' | '\\' | ',') || c.is_ascii_whitespace();
    if text.is_empty() || text.contains(special) {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\"\""))
    } else {
        text.into()
    }
}
