//! What holds for every codec, whatever the bytes.

use std::collections::HashMap;

use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::*;

/// What a writer gives for a value.
pub(super) fn written(write: Write, raw: &[u8]) -> String {
    let mut out = Vec::new();
    if let Err(reason) = write(raw, &mut out) {
        panic!("{raw:02x?}: {reason}");
    }
    String::from_utf8(out).expect("UTF-8")
}

/// Why a writer refuses what is no value.
pub(super) fn refused(write: Write, raw: &[u8]) -> &'static str {
    match write(raw, &mut Vec::new()) {
        Ok(()) => panic!("{raw:02x?} was taken"),
        Err(reason) => reason,
    }
}

/// A codec for every type code, with metadata and collations that matter.
fn all_codecs() -> Vec<(String, Arc<dyn ValueCodec>)> {
    let charsets = Charsets::new();
    let mut codecs = Vec::new();
    let metadatas = [0, 1, 3, 6, 0x0a02, 0x4100, 0x411e, 0x0801, 0xfe10, 0xeeff, 300, 60_000];
    // One collation of each character set, and two that do not exist.
    let mut collations = vec![None, Some(100_000)];
    let mut seen = std::collections::HashSet::new();
    for id in 0..320 {
        if charsets.charset(id).is_some_and(|charset| seen.insert(charset.name().to_owned())) {
            collations.push(Some(id));
        }
    }
    let declared = ["uuid", "inet4", "inet6", "vector(3)", "tinyint(1)", "json"]
        .map(|name| Declared { column_type: name.into(), is_json: name == "json" });
    let options = [
        ValueOptions::default(),
        ValueOptions {
            bigint_as_string: true,
            decimal_as_number: true,
            tinyint1_as_boolean: true,
            zero_date: ZeroDate::Null,
            debezium: None,
        },
        ValueOptions { debezium: Some(Arc::default()), ..ValueOptions::default() },
    ];
    for type_code in 0..=255 {
        let has_charset = matches!(type_code, 15 | 140 | 141 | 247..=254);
        for &metadata in &metadatas {
            for &collation in collations.iter().take(if has_charset { 100 } else { 1 }) {
                // Character sets do not depend on the metadata: once is enough.
                if collation.is_some_and(|id| id != BINARY_ID) && metadata != 300 {
                    continue;
                }
                let column = ColumnMap {
                    type_code,
                    metadata,
                    collation,
                    unsigned: metadata % 2 == 1,
                    labels: vec![b"a\"".as_slice().into(), b"\xff".as_slice().into()],
                    ..ColumnMap::default()
                };
                for declared in declared.iter().map(Some).chain([None]).skip(if has_charset { 0 } else { 4 }) {
                    for options in &options {
                        let name = format!("{column:?} {declared:?}");
                        codecs.push((name, codec(&column, declared, &charsets, options)));
                    }
                }
            }
        }
    }
    codecs
}

/// What takes the values that a codec writes, by its own word.
type Validators = HashMap<String, Arc<jsonschema::Validator>>;

fn validator(codec: &dyn ValueCodec, known: &mut Validators) -> Arc<jsonschema::Validator> {
    let mut schema = Vec::new();
    codec.json_type().write_schema(true, &mut schema);
    let schema = String::from_utf8(schema).expect("UTF-8");
    let made = known.entry(schema).or_insert_with_key(|schema| {
        let schema: Value = serde_json::from_str(schema).expect("JSON");
        Arc::new(jsonschema::draft202012::new(&schema).expect("a schema"))
    });
    Arc::clone(made)
}

/// A codec with the column it is of and what takes its values.
type Promised = (String, Arc<dyn ValueCodec>, Arc<jsonschema::Validator>);

fn promised() -> Vec<Promised> {
    let mut known = Validators::new();
    let with = |(name, codec): (String, Arc<dyn ValueCodec>)| {
        let validator = validator(&*codec, &mut known);
        (name, codec, validator)
    };
    all_codecs().into_iter().map(with).collect()
}

const BINARY_ID: u32 = charset::BINARY;

/// Every codec takes or refuses the bytes, and what it writes is JSON on one
/// line, of bounded length.
fn check(codecs: &[Promised], raw: &[u8]) -> Result<(), TestCaseError> {
    let mut out = Vec::new();
    for (name, codec, validator) in codecs {
        out.clear();
        if codec.write_json(raw, &mut out).is_ok() {
            let text = String::from_utf8_lossy(&out);
            let read = serde_json::from_slice::<Value>(&out);
            // Its numbers are doubles: one that is beyond them is JSON all the same.
            prop_assert!(read.is_ok() || serde_json::from_slice::<IgnoredAny>(&out).is_ok(), "{name}: {text}");
            if let Ok(value) = read {
                prop_assert!(validator.is_valid(&value), "{name}: {text} is no {:?}", codec.json_type());
            }
            prop_assert!(!out.contains(&b'\n'), "{name}: {text}");
            // The longest: the control characters of text, six for one; BINARY is padded.
            prop_assert!(out.len() <= 16 * raw.len() + 512, "{name}: {} from {}", out.len(), raw.len());
        }
    }
    Ok(())
}

thread_local! {
    static CODECS: Vec<Promised> = promised();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_break_a_codec(raw in prop::collection::vec(any::<u8>(), 0..64)) {
        CODECS.with(|codecs| check(codecs, &raw))?;
    }

    #[test]
    fn no_text_breaks_a_codec(text in any::<String>()) {
        CODECS.with(|codecs| check(codecs, text.as_bytes()))?;
    }
}

/// Documents that look like the binary form: containers with small numbers in them.
fn documents() -> impl Strategy<Value = Vec<u8>> {
    let small = prop_oneof![0_u8..16, 0_u8..16, any::<u8>()];
    (0_u8..4, prop::collection::vec(small, 0..200)).prop_map(|(kind, mut raw)| {
        // The size, so that more than the header is looked at.
        let len = raw.len();
        if let Some(size) = raw.get_mut(2) {
            *size = len as u8;
        }
        if let Some(high) = raw.get_mut(3) {
            *high = 0;
        }
        raw.insert(0, kind);
        raw
    })
}

proptest! {
    #[test]
    fn no_document_breaks_the_reader(raw in documents()) {
        let mut out = Vec::new();
        if json::write_json(&raw, &mut out).is_ok() {
            prop_assert!(serde_json::from_slice::<IgnoredAny>(&out).is_ok());
            prop_assert!(out.len() <= 16 * raw.len() + 512);
        }
    }

    #[test]
    fn no_differences_break_the_reader(old in documents(), diffs in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut out = Vec::new();
        if json_diff::apply(&old, &diffs, &mut out).is_ok() {
            let mut json = Vec::new();
            prop_assert!(json::write_json(&out, &mut json).is_ok());
        }
    }

    #[test]
    fn text_in_utf16_reads_back(text in any::<String>()) {
        let raw: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let mut out = Vec::new();
        text::write_text(&raw, &Charset::named("utf16"), &mut out).expect("text");
        prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("JSON"), text);
    }

    #[test]
    fn doubles_read_back(bits in any::<u64>()) {
        let number = f64::from_bits(bits);
        let text = written(number::write_double, &number.to_le_bytes());
        if number.is_finite() {
            prop_assert_eq!(text.parse::<f64>().expect("a number").to_bits(), bits);
        }
        let single = f32::from_bits(bits as u32);
        let text = written(number::write_float, &single.to_le_bytes());
        if single.is_finite() {
            prop_assert_eq!(text.parse::<f32>().expect("a number").to_bits(), bits as u32);
        }
    }
}
