//! What the JSON of a column's values is.

use figvine_change::JsonType;

use super::{Charset, Charsets, Declared, ValueOptions, bit_count, charset_of, is_tinyint1, kind};
use crate::decode::table_map::ColumnMap;

/// What [`super::codec`] writes for a column; of Debezium's encodings nothing is promised. `zero_date` changes nothing: a
/// date may look like `0000-00-00`, and any column may be null.
pub(super) fn json_type(
    column: &ColumnMap,
    declared: Option<&Declared>,
    charsets: &Charsets,
    options: &ValueOptions,
) -> JsonType {
    let declared_type = declared.map(|declared| declared.column_type.as_str()).unwrap_or_default();
    let integer = |bits| JsonType::integer(bits, !column.unsigned);
    match column.type_code {
        kind::TINY if options.tinyint1_as_boolean && is_tinyint1(declared_type) => JsonType::Boolean,
        kind::TINY => integer(8),
        kind::SHORT => integer(16),
        kind::INT24 => integer(24),
        kind::LONG => integer(32),
        kind::LONGLONG if options.bigint_as_string => integer(64).into_string(),
        kind::LONGLONG => integer(64),
        kind::YEAR => JsonType::Integer { min: 0, max: 2155, as_string: false },
        kind::FLOAT | kind::DOUBLE => JsonType::Float,
        kind::NEWDECIMAL => JsonType::Decimal { as_string: !options.decimal_as_number },
        kind::DATE | kind::NEWDATE => JsonType::Date,
        kind::TIME | kind::TIME2 => JsonType::ClockDuration,
        kind::DATETIME | kind::DATETIME2 => JsonType::Timestamp,
        kind::TIMESTAMP | kind::TIMESTAMP2 => JsonType::TimestampWithZone,
        kind::BIT if bit_count(column) == 1 => JsonType::Boolean,
        kind::BIT => JsonType::Text,
        kind::ENUM => {
            // The empty text is the server's mark of a value that was none of the labels.
            let mut known = vec!["".into()];
            known.extend(readable(column, charsets).filter(|label| !label.is_empty()));
            JsonType::Enum(known)
        }
        kind::SET => JsonType::List(Box::new(JsonType::Enum(readable(column, charsets).collect()))),
        kind::JSON => JsonType::Any,
        kind::GEOMETRY => {
            JsonType::Object(vec![("srid".into(), JsonType::integer(32, false)), ("wkb".into(), JsonType::Bytes)])
        }
        kind::VECTOR => JsonType::List(Box::new(JsonType::Float)),
        kind::STRING
        | kind::VARCHAR
        | kind::VAR_STRING
        | kind::TINY_BLOB
        | kind::MEDIUM_BLOB
        | kind::LONG_BLOB
        | kind::BLOB
        | kind::VARCHAR_COMPRESSED
        | kind::BLOB_COMPRESSED => content(column, declared, charsets),
        // Refused, whatever the value is.
        _ => JsonType::Any,
    }
}

/// Of texts, bytes, and the types of MariaDB that are kept in their form.
fn content(column: &ColumnMap, declared: Option<&Declared>, charsets: &Charsets) -> JsonType {
    let declared_type = declared.map(|declared| declared.column_type.as_str()).unwrap_or_default();
    let is_string = column.type_code == kind::STRING;
    match charset_of(column, declared, charsets) {
        None => JsonType::Any,
        Some(charset) if !charset.is_binary() => match declared {
            Some(declared) if declared.is_json => JsonType::Any,
            _ => JsonType::Text,
        },
        Some(_) if is_string && declared_type == "uuid" => JsonType::Uuid,
        Some(_) if is_string && matches!(declared_type, "inet4" | "inet6") => JsonType::Text,
        Some(_) if !is_string && declared_type.starts_with("vector(") => JsonType::List(Box::new(JsonType::Float)),
        Some(_) => JsonType::Bytes,
    }
}

/// The labels that can be read.
fn readable(column: &ColumnMap, charsets: &Charsets) -> impl Iterator<Item = Box<str>> {
    let charset = charset_of(column, None, charsets);
    column.labels.iter().filter_map(move |raw| text_of(charset.as_ref()?, raw))
}

fn text_of(charset: &Charset, raw: &[u8]) -> Option<Box<str>> {
    let mut text = None;
    let read = charset.with_utf8(raw, |utf8| {
        text = std::str::from_utf8(utf8).ok().map(Into::into);
        Ok(())
    });
    read.ok().and(text)
}
