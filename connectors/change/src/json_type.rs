//! What the JSON of a column's values is, and how a JSON Schema says so.

use crate::json::{write_int, write_str, write_uint};

/// What the JSON of a column's values is. Beside it every column may be `null`: the log tells of no constraint that
/// would forbid it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JsonType {
    /// Anything at all: documents, and values of which nothing is promised.
    Any,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// The least one.
        min: i64,
        /// The greatest one.
        max: u64,
        /// Whether its digits stand in a string.
        as_string: bool,
    },
    /// A decimal number with all its digits; besides the strings `NaN`, `Infinity` and `-Infinity`.
    Decimal {
        /// Whether its digits stand in a string.
        as_string: bool,
    },
    /// A binary number, in as many digits as read back; besides the strings `NaN`, `Infinity` and `-Infinity`.
    Float,
    /// Any text.
    Text,
    /// Bytes, as base64.
    Bytes,
    /// `2026-11-23`, a signed year outside of 1 to 9999, zeros where the database has such, or `infinity`.
    Date,
    /// A time of day, `23:59:59.5`.
    Time,
    /// A time of day with an offset, `23:59:59+02:00`.
    TimeWithZone,
    /// A date and a time without a zone, `2026-11-23T09:00:00.123`; or `infinity`.
    Timestamp,
    /// A moment in UTC, `2026-11-23T09:00:00.123Z`; or `infinity`.
    TimestampWithZone,
    /// A length of time, `P1Y2M3DT4H5M6.78S`; or `infinity`.
    Duration,
    /// A length of time in hours, minutes and seconds, `-838:59:59`.
    ClockDuration,
    /// A UUID in its usual form.
    Uuid,
    /// One of these labels.
    Enum(Vec<Box<str>>),
    /// Elements or nulls, or arrays of such, as deep as it goes.
    Array(Box<JsonType>),
    /// Elements in a row, none of them null.
    List(Box<JsonType>),
    /// Members, all of them there; each may be null.
    Object(Vec<(Box<str>, JsonType)>),
    /// Members of any name; each may be null.
    Map(Box<JsonType>),
    /// The type, or a text where a value cannot be shown so.
    OrText(Box<JsonType>),
}

const DATE: &str = "([+-][0-9]{4,7}|[0-9]{4})-[0-9]{2}-[0-9]{2}";
const TIME: &str = "[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?";

impl JsonType {
    /// Whole numbers of so many bits.
    #[must_use]
    pub fn integer(bits: u32, is_signed: bool) -> Self {
        let magnitude = bits.clamp(1, 64) - u32::from(is_signed);
        let max = if magnitude == 64 { u64::MAX } else { (1 << magnitude) - 1 };
        let min = if is_signed { -1 - i64::try_from(max).unwrap_or(i64::MAX) } else { 0 };
        Self::Integer { min, max, as_string: false }
    }

    /// The same with digits in a string, of numbers.
    #[must_use]
    pub fn into_string(self) -> Self {
        match self {
            Self::Integer { min, max, .. } => Self::Integer { min, max, as_string: true },
            Self::Decimal { .. } => Self::Decimal { as_string: true },
            other => other,
        }
    }

    /// Appends a JSON Schema (2020-12, an object without blanks and references) that takes these values, and where
    /// `nullable` says so null.
    ///
    /// It does not use `format` for dates and times: what a database can hold of them is more than RFC 3339 knows.
    pub fn write_schema(&self, nullable: bool, out: &mut Vec<u8>) {
        match self {
            Self::Any => out.extend_from_slice(b"{}"),
            Self::Boolean => write_typed("boolean", nullable, "", out),
            Self::Integer { as_string: true, .. } => write_pattern("^-?[0-9]+$", nullable, out),
            Self::Integer { min, max, .. } => {
                write_type("integer", nullable, out);
                out.extend_from_slice(b",\"minimum\":");
                write_int(*min, out);
                out.extend_from_slice(b",\"maximum\":");
                write_uint(*max, out);
                out.push(b'}');
            }
            Self::Decimal { as_string: true } => {
                write_pattern("^-?[0-9]+(\\.[0-9]+)?$|^NaN$|^-?Infinity$", nullable, out);
            }
            Self::Decimal { as_string: false } | Self::Float => {
                let null = if nullable { ",\"null\"" } else { "" };
                let text = format!("{{\"type\":[\"number\",\"string\"{null}],\"pattern\":\"^(NaN|-?Infinity)$\"}}");
                out.extend_from_slice(text.as_bytes());
            }
            Self::Text => write_typed("string", nullable, "", out),
            Self::Bytes => write_typed("string", nullable, ",\"contentEncoding\":\"base64\"", out),
            Self::Date => write_pattern(&format!("^{DATE}$|^-?infinity$"), nullable, out),
            Self::Time => write_pattern(&format!("^{TIME}$"), nullable, out),
            Self::TimeWithZone => write_pattern(&format!("^{TIME}[+-][0-9]{{2}}:[0-9:]+$"), nullable, out),
            Self::Timestamp => write_pattern(&format!("^{DATE}T{TIME}$|^-?infinity$"), nullable, out),
            Self::TimestampWithZone => write_pattern(&format!("^{DATE}T{TIME}Z$|^-?infinity$"), nullable, out),
            Self::Duration => write_pattern("^P[-0-9.YMWDTHS]+$|^-?infinity$", nullable, out),
            Self::ClockDuration => {
                write_pattern("^-?[0-9]{2,3}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?$", nullable, out);
            }
            Self::Uuid => write_typed("string", nullable, ",\"format\":\"uuid\"", out),
            Self::Enum(labels) => {
                write_type("string", nullable, out);
                out.extend_from_slice(b",\"enum\":[");
                for (place, label) in labels.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    write_str(label, out);
                }
                if nullable {
                    out.extend_from_slice(if labels.is_empty() { b"null" } else { b",null" });
                }
                out.extend_from_slice(b"]}");
            }
            Self::Array(element) => {
                write_type("array", nullable, out);
                out.extend_from_slice(b",\"items\":{\"anyOf\":[");
                element.write_schema(true, out);
                out.extend_from_slice(b",{\"type\":\"array\"}]}}");
            }
            Self::List(element) => {
                write_type("array", nullable, out);
                out.extend_from_slice(b",\"items\":");
                element.write_schema(false, out);
                out.push(b'}');
            }
            Self::Object(members) => write_object(members, nullable, out),
            Self::Map(element) => {
                write_type("object", nullable, out);
                out.extend_from_slice(b",\"additionalProperties\":");
                element.write_schema(true, out);
                out.push(b'}');
            }
            Self::OrText(inner) => {
                out.extend_from_slice(b"{\"anyOf\":[");
                inner.write_schema(nullable, out);
                out.extend_from_slice(b",{\"type\":\"string\"}]}");
            }
        }
    }
}

/// Appends a type up to what follows it.
fn write_type(name: &str, nullable: bool, out: &mut Vec<u8>) {
    let text = if nullable { format!("{{\"type\":[\"{name}\",\"null\"]") } else { format!("{{\"type\":\"{name}\"") };
    out.extend_from_slice(text.as_bytes());
}

fn write_typed(name: &str, nullable: bool, more: &str, out: &mut Vec<u8>) {
    write_type(name, nullable, out);
    out.extend_from_slice(more.as_bytes());
    out.push(b'}');
}

fn write_pattern(pattern: &str, nullable: bool, out: &mut Vec<u8>) {
    write_type("string", nullable, out);
    out.extend_from_slice(b",\"pattern\":");
    write_str(pattern, out);
    out.push(b'}');
}

fn write_object(members: &[(Box<str>, JsonType)], nullable: bool, out: &mut Vec<u8>) {
    write_type("object", nullable, out);
    out.extend_from_slice(b",\"properties\":{");
    for (place, (name, member)) in members.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_str(name, out);
        out.push(b':');
        member.write_schema(true, out);
    }
    out.extend_from_slice(b"},\"required\":[");
    for (place, (name, _)) in members.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_str(name, out);
    }
    out.extend_from_slice(b"]}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(of: &JsonType, nullable: bool) -> String {
        let mut out = Vec::new();
        of.write_schema(nullable, &mut out);
        serde_json::from_slice::<serde_json::Value>(&out).expect("JSON");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn whole_numbers_have_the_bounds_of_their_bits() {
        let bounds = |bits, is_signed| match JsonType::integer(bits, is_signed) {
            JsonType::Integer { min, max, as_string: false } => (min, max),
            other => panic!("{other:?}"),
        };
        assert_eq!(bounds(8, true), (-128, 127));
        assert_eq!(bounds(24, false), (0, 16_777_215));
        assert_eq!(bounds(64, true), (i64::MIN, i64::MAX as u64));
        assert_eq!(bounds(64, false), (0, u64::MAX));
    }

    #[test]
    fn schemas_name_null_where_it_may_stand() {
        for (of, plain, nullable) in [
            (JsonType::Any, "{}", "{}"),
            (JsonType::Boolean, r#"{"type":"boolean"}"#, r#"{"type":["boolean","null"]}"#),
            (
                JsonType::integer(8, true),
                r#"{"type":"integer","minimum":-128,"maximum":127}"#,
                r#"{"type":["integer","null"],"minimum":-128,"maximum":127}"#,
            ),
            (
                JsonType::Enum(vec!["a\"".into()]),
                r#"{"type":"string","enum":["a\""]}"#,
                r#"{"type":["string","null"],"enum":["a\"",null]}"#,
            ),
            (
                JsonType::Object(vec![("x".into(), JsonType::Text)]),
                r#"{"type":"object","properties":{"x":{"type":["string","null"]}},"required":["x"]}"#,
                r#"{"type":["object","null"],"properties":{"x":{"type":["string","null"]}},"required":["x"]}"#,
            ),
            (
                JsonType::List(Box::new(JsonType::Text)),
                r#"{"type":"array","items":{"type":"string"}}"#,
                r#"{"type":["array","null"],"items":{"type":"string"}}"#,
            ),
        ] {
            assert_eq!(schema(&of, false), plain);
            assert_eq!(schema(&of, true), nullable);
        }
    }

    #[test]
    fn every_schema_is_json() {
        use JsonType::*;
        let inner = || Box::new(JsonType::Decimal { as_string: true });
        for of in [
            JsonType::integer(64, true).into_string(),
            Decimal { as_string: false },
            Float,
            Bytes,
            Date,
            Time,
            TimeWithZone,
            Timestamp,
            TimestampWithZone,
            Duration,
            ClockDuration,
            Uuid,
            Enum(Vec::new()),
            Array(inner()),
            Map(inner()),
            OrText(inner()),
            Object(Vec::new()),
        ] {
            schema(&of, false);
            schema(&of, true);
        }
    }
}
