//! MySQL's and MariaDB's values as JSON.
//!
//! A codec gets the bytes of one value as the row image has them: fixed-size types
//! whole, all others without the length in front. What the log does not say of a MariaDB
//! column (JSON, UUID, INET4, INET6 and VECTOR look like other types there) stands in [`Declared`].
//!
//! ```text
//!   ColumnMap, Declared, Charsets ──> codec() ──> one ValueCodec per column
//!
//!   number       integers, floats, YEAR, VECTOR        decimal   DECIMAL
//!   time         DATE, TIME, DATETIME, TIMESTAMP       bits      BIT, ENUM, SET
//!   text         CHAR, TEXT, BINARY, BLOB, GEOMETRY    charset   character sets to UTF-8
//!   json         MySQL's binary JSON                   json_text MariaDB's JSON
//!   json_diff    partial updates of JSON               network   UUID, INET4, INET6
//!   compressed   MariaDB's COMPRESSED columns          debezium  the same in Debezium's encodings
//!   form         what the JSON of each is
//! ```

#![deny(clippy::indexing_slicing)]

mod bits;
pub mod charset;
mod compressed;
mod debezium;
mod decimal;
mod form;
mod json;
pub mod json_diff;
mod json_text;
mod network;
mod number;
#[cfg(test)]
mod properties;
mod text;
mod time;

use std::fmt;
use std::sync::Arc;

use figvine_change::debezium::Encoding;
use figvine_change::{JsonType, ValueCodec, ValueError};

pub use charset::{Charset, Charsets};
pub use json::TEXT as JSON_TEXT;
pub(crate) use json_text::unescape;

use crate::decode::table_map::ColumnMap;

/// What the catalogue says of a column; the log cannot tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    /// `information_schema.columns.column_type`: `uuid`, `inet6`, `tinyint(1)`.
    pub column_type: String,
    /// Whether a CHECK constraint says `json_valid` of the column: MariaDB's JSON.
    pub is_json: bool,
}

/// How values are written where consumers may choose.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ValueOptions {
    /// BIGINT as a string, for consumers whose numbers are doubles.
    pub bigint_as_string: bool,
    /// DECIMAL as a JSON number, all digits, for consumers who read such.
    pub decimal_as_number: bool,
    /// `tinyint(1)` as a boolean. Needs [`Declared`]: the log has no display width.
    pub tinyint1_as_boolean: bool,
    /// Dates with a zero in them.
    pub zero_date: ZeroDate,
    /// Debezium's encodings instead of ours; the others do not hold then.
    pub debezium: Option<Arc<Encoding>>,
}

/// What to write for `0000-00-00` and `2026-00-00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ZeroDate {
    /// The text as it is.
    #[default]
    Text,
    /// null, which then may stand in a column that is NOT NULL.
    Null,
    /// Refuse the value.
    Error,
}

/// Codes of column types (`enum_field_types`).
pub(crate) mod kind {
    pub(crate) const TINY: u8 = 1;
    pub(crate) const SHORT: u8 = 2;
    pub(crate) const LONG: u8 = 3;
    pub(crate) const FLOAT: u8 = 4;
    pub(crate) const DOUBLE: u8 = 5;
    pub(crate) const TIMESTAMP: u8 = 7;
    pub(crate) const LONGLONG: u8 = 8;
    pub(crate) const INT24: u8 = 9;
    pub(crate) const DATE: u8 = 10;
    pub(crate) const TIME: u8 = 11;
    pub(crate) const DATETIME: u8 = 12;
    pub(crate) const YEAR: u8 = 13;
    pub(crate) const NEWDATE: u8 = 14;
    pub(crate) const VARCHAR: u8 = 15;
    pub(crate) const BIT: u8 = 16;
    pub(crate) const TIMESTAMP2: u8 = 17;
    pub(crate) const DATETIME2: u8 = 18;
    pub(crate) const TIME2: u8 = 19;
    /// MariaDB's COMPRESSED columns.
    pub(crate) const BLOB_COMPRESSED: u8 = 140;
    pub(crate) const VARCHAR_COMPRESSED: u8 = 141;
    pub(crate) const VECTOR: u8 = 242;
    pub(crate) const JSON: u8 = 245;
    pub(crate) const NEWDECIMAL: u8 = 246;
    pub(crate) const ENUM: u8 = 247;
    pub(crate) const SET: u8 = 248;
    pub(crate) const TINY_BLOB: u8 = 249;
    pub(crate) const MEDIUM_BLOB: u8 = 250;
    pub(crate) const LONG_BLOB: u8 = 251;
    pub(crate) const BLOB: u8 = 252;
    pub(crate) const VAR_STRING: u8 = 253;
    pub(crate) const STRING: u8 = 254;
    pub(crate) const GEOMETRY: u8 = 255;
}

/// Why bytes are no value, without the value itself.
type Outcome = Result<(), &'static str>;

/// Writes one value.
type Write = fn(&[u8], &mut Vec<u8>) -> Outcome;

fn error(type_name: &str, reason: &'static str) -> ValueError {
    ValueError { type_name: type_name.into(), reason }
}

/// The codec of a column.
///
/// A type that is not known, or text in a character set that is not, gets a codec
/// that refuses every value: nothing is guessed.
#[must_use]
pub fn codec(
    column: &ColumnMap,
    declared: Option<&Declared>,
    charsets: &Charsets,
    options: &ValueOptions,
) -> Arc<dyn ValueCodec> {
    let name = type_name(column, declared, charsets).into_boxed_str();
    if let Some(encoding) = &options.debezium {
        return debezium::codec(name, column, charsets, encoding);
    }
    let form = form::json_type(column, declared, charsets, options);
    let make = Maker { form };
    let declared_type = declared.map(|declared| declared.column_type.as_str()).unwrap_or_default();
    let zero = options.zero_date;
    let [low, _] = column.metadata.to_le_bytes();
    match column.type_code {
        kind::TINY if options.tinyint1_as_boolean && is_tinyint1(declared_type) => {
            make.codec(name, number::write_boolean)
        }
        kind::LONGLONG if options.bigint_as_string && column.unsigned => {
            make.codec(name, number::write_bigint_unsigned_string)
        }
        kind::LONGLONG if options.bigint_as_string => make.codec(name, number::write_bigint_string),
        kind::TINY | kind::SHORT | kind::INT24 | kind::LONG | kind::LONGLONG => make.codec(name, whole(column)),
        kind::YEAR => make.codec(name, number::write_year),
        kind::FLOAT => make.codec(name, number::write_float),
        kind::DOUBLE => make.codec(name, number::write_double),
        kind::NEWDECIMAL => {
            let shape = decimal_shape(column);
            if options.decimal_as_number {
                return make.codec(name, move |raw, out| decimal::push_decimal(raw, shape, out));
            }
            make.codec(name, move |raw, out| {
                out.push(b'"');
                decimal::push_decimal(raw, shape, out)?;
                out.push(b'"');
                Ok(())
            })
        }
        kind::DATE | kind::NEWDATE => make.codec(name, move |raw, out| time::write_date(raw, zero, out)),
        kind::TIME => make.codec(name, time::write_time_old),
        kind::TIME2 => make.codec(name, move |raw, out| time::write_time(raw, low, out)),
        kind::DATETIME => make.codec(name, move |raw, out| time::write_datetime_old(raw, zero, out)),
        kind::DATETIME2 => make.codec(name, move |raw, out| time::write_datetime(raw, low, zero, out)),
        kind::TIMESTAMP => make.codec(name, move |raw, out| time::write_timestamp_old(raw, zero, out)),
        kind::TIMESTAMP2 => make.codec(name, move |raw, out| time::write_timestamp(raw, low, zero, out)),
        kind::BIT => match bit_count(column) {
            1 => make.codec(name, bits::write_bit),
            count => make.codec(name, move |raw, out| bits::write_bits(raw, count, out)),
        },
        kind::ENUM => {
            let labels = labels(column, charsets);
            make.codec(name, move |raw, out| bits::write_enum(raw, &labels, out))
        }
        kind::SET => {
            let labels = labels(column, charsets);
            make.codec(name, move |raw, out| bits::write_set(raw, &labels, out))
        }
        kind::JSON => make.codec(name, json::write_json),
        kind::GEOMETRY => make.codec(name, text::write_geometry),
        kind::VECTOR => make.codec(name, number::write_vector),
        kind::STRING => string_codec(make, name, column, declared, charsets),
        kind::VARCHAR
        | kind::VAR_STRING
        | kind::TINY_BLOB
        | kind::MEDIUM_BLOB
        | kind::LONG_BLOB
        | kind::BLOB
        | kind::VARCHAR_COMPRESSED
        | kind::BLOB_COMPRESSED => {
            let is_text = declared.is_some_and(|declared| declared.is_json);
            let write = match charset_of(column, declared, charsets) {
                None => return make.codec(name, |_, _| Err("its character set is not known")),
                Some(charset) if is_text && !charset.is_binary() => Content::Json(charset),
                Some(charset) if !charset.is_binary() => Content::Text(charset),
                Some(_) if declared_type.starts_with("vector(") => Content::Vector,
                Some(_) => Content::Bytes,
            };
            // The type says how long a content can be; see `compressed`.
            let max = match column.type_code {
                kind::VARCHAR_COMPRESSED => usize::from(column.metadata),
                kind::BLOB_COMPRESSED => {
                    1_usize.checked_shl(8 * u32::from(low.min(4))).map_or(usize::MAX, |end| end - 1)
                }
                _ => return make.codec(name, move |raw, out| write.write(raw, out)),
            };
            make.codec(name, move |raw, out| compressed::expand(raw, max, |raw| write.write(raw, out)))
        }
        _ => make.codec(name, |_, _| Err("is of a type that is not known here")),
    }
}

/// The writer of a column of whole numbers.
fn whole(column: &ColumnMap) -> Write {
    match (column.type_code, column.unsigned) {
        (kind::TINY, false) => number::write_signed::<1>,
        (kind::TINY, true) => number::write_unsigned::<1>,
        (kind::SHORT, false) => number::write_signed::<2>,
        (kind::SHORT, true) => number::write_unsigned::<2>,
        (kind::INT24, false) => number::write_signed::<3>,
        (kind::INT24, true) => number::write_unsigned::<3>,
        (kind::LONG, false) => number::write_signed::<4>,
        (kind::LONG, true) => number::write_unsigned::<4>,
        (_, false) => number::write_signed::<8>,
        (_, true) => number::write_unsigned::<8>,
    }
}

/// What a string of bytes holds.
#[derive(Debug)]
enum Content {
    Text(Charset),
    Json(Charset),
    Bytes,
    Vector,
}

impl Content {
    fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Outcome {
        match self {
            Self::Text(charset) => text::write_text(raw, charset, out),
            Self::Json(charset) => charset.with_utf8(raw, |utf8| json_text::write_json_text(utf8, out)),
            Self::Bytes => text::write_bytes(raw, out),
            Self::Vector => number::write_vector(raw, out),
        }
    }
}

/// CHAR, BINARY, and the types that MariaDB keeps in the form of BINARY.
fn string_codec(
    make: Maker,
    name: Box<str>,
    column: &ColumnMap,
    declared: Option<&Declared>,
    charsets: &Charsets,
) -> Arc<dyn ValueCodec> {
    let declared_type = declared.map(|declared| declared.column_type.as_str()).unwrap_or_default();
    match charset_of(column, declared, charsets) {
        None => make.codec(name, |_, _| Err("its character set is not known")),
        Some(charset) if charset.is_binary() => match declared_type {
            "uuid" => make.codec(name, network::write_uuid),
            "inet4" => make.codec(name, network::write_inet4),
            "inet6" => make.codec(name, network::write_inet6),
            _ => {
                let len = usize::from(string_length(column));
                make.codec(name, move |raw, out| text::write_binary(raw, len, out))
            }
        },
        Some(charset) if declared.is_some_and(|declared| declared.is_json) => {
            make.codec(name, move |raw, out| charset.with_utf8(raw, |utf8| json_text::write_json_text(utf8, out)))
        }
        Some(charset) => make.codec(name, move |raw, out| text::write_char(raw, &charset, out)),
    }
}

/// A column's type as the server writes it, `decimal(12,2) unsigned`: what the
/// catalogue says where it was asked, else what the log tells (which has no
/// display widths, and no name for MariaDB's own types).
#[must_use]
pub fn type_name(column: &ColumnMap, declared: Option<&Declared>, charsets: &Charsets) -> String {
    if let Some(declared) = declared.filter(|declared| !declared.column_type.is_empty()) {
        return declared.column_type.clone();
    }
    let [low, _] = column.metadata.to_le_bytes();
    let number = |name: &str| format!("{name}{}", if column.unsigned { " unsigned" } else { "" });
    let fraction = |name: &str| if low == 0 { name.to_owned() } else { format!("{name}({low})") };
    let charset = charset_of(column, None, charsets);
    let binary = charset.as_ref().is_none_or(Charset::is_binary);
    let suffix = match &charset {
        Some(charset) if !charset.is_binary() => format!(" character set {}", charset.name()),
        _ => String::new(),
    };
    let max_bytes = charset.as_ref().map_or(1, Charset::max_bytes);
    let choose = |bytes: &str, text: &str| if binary { bytes.to_owned() } else { format!("{text}{suffix}") };
    match column.type_code {
        kind::TINY => number("tinyint"),
        kind::SHORT => number("smallint"),
        kind::INT24 => number("mediumint"),
        kind::LONG => number("int"),
        kind::LONGLONG => number("bigint"),
        kind::FLOAT => number("float"),
        kind::DOUBLE => number("double"),
        kind::NEWDECIMAL => {
            let shape = decimal_shape(column);
            number(&format!("decimal({},{})", shape.precision, shape.scale))
        }
        kind::YEAR => "year".to_owned(),
        kind::DATE | kind::NEWDATE => "date".to_owned(),
        kind::TIME | kind::TIME2 => fraction("time"),
        kind::DATETIME | kind::DATETIME2 => fraction("datetime"),
        kind::TIMESTAMP | kind::TIMESTAMP2 => fraction("timestamp"),
        kind::BIT => format!("bit({})", bit_count(column)),
        kind::ENUM | kind::SET => {
            let labels: Vec<String> =
                labels(column, charsets).iter().map(|label| label_name(label.as_deref())).collect();
            let name = if column.type_code == kind::ENUM { "enum" } else { "set" };
            format!("{name}({}){suffix}", labels.join(","))
        }
        kind::JSON => "json".to_owned(),
        kind::GEOMETRY => "geometry".to_owned(),
        kind::VECTOR => match column.vector_dimension {
            Some(dimension) => format!("vector({dimension})"),
            None => "vector".to_owned(),
        },
        kind::STRING if binary => format!("binary({})", string_length(column)),
        kind::STRING => format!("char({}){suffix}", string_length(column) / max_bytes),
        kind::VARCHAR | kind::VAR_STRING if binary => format!("varbinary({})", column.metadata),
        kind::VARCHAR | kind::VAR_STRING => format!("varchar({}){suffix}", column.metadata / max_bytes),
        kind::VARCHAR_COMPRESSED => choose("varbinary compressed", "varchar compressed"),
        kind::BLOB | kind::TINY_BLOB | kind::MEDIUM_BLOB | kind::LONG_BLOB | kind::BLOB_COMPRESSED => {
            let compressed = if column.type_code == kind::BLOB_COMPRESSED { " compressed" } else { "" };
            let size = match low {
                1 => "tiny",
                3 => "medium",
                4 => "long",
                _ => "",
            };
            choose(&format!("{size}blob{compressed}"), &format!("{size}text{compressed}"))
        }
        code => format!("of code {code}"),
    }
}

/// A label between single quotes, as in DDL.
fn label_name(label: Option<&[u8]>) -> String {
    let json = label.unwrap_or(b"\"?\"");
    let inside = json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
    format!("'{}'", String::from_utf8_lossy(inside).replace('\'', "''"))
}

fn is_tinyint1(declared_type: &str) -> bool {
    declared_type.strip_prefix("tinyint(1)").is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// Precision and scale: the metadata's first and second byte.
fn decimal_shape(column: &ColumnMap) -> decimal::Shape {
    let [scale, precision] = column.metadata.to_le_bytes();
    decimal::Shape { precision: precision.into(), scale: scale.into() }
}

/// Bits: those beyond whole bytes in the low byte, the bytes in the high one.
fn bit_count(column: &ColumnMap) -> usize {
    let [bits, bytes] = column.metadata.to_le_bytes();
    usize::from(bytes) * 8 + usize::from(bits)
}

/// The declared length in bytes of a CHAR or BINARY. Lengths above 255 do not fit the
/// low byte: their two upper bits stand, inverted, in bits 4 and 5 of the type code in the high byte.
fn string_length(column: &ColumnMap) -> u16 {
    let [low, high] = column.metadata.to_le_bytes();
    match high {
        0..=3 => column.metadata,
        _ => u16::from(low) | u16::from(high & 0x30 ^ 0x30) << 4,
    }
}

/// Where the log does not name the collation, the catalogue's type tells bytes from text.
fn charset_of(column: &ColumnMap, declared: Option<&Declared>, charsets: &Charsets) -> Option<Charset> {
    match column.collation {
        Some(collation) => {
            Some(charsets.charset(collation).unwrap_or_else(|| Charset::named(&format!("of collation {collation}"))))
        }
        None => declared
            .filter(|declared| declared.column_type.contains("blob") || declared.column_type.contains("binary"))
            .map(|_| Charset::named("binary")),
    }
}

/// The labels as JSON strings.
fn labels(column: &ColumnMap, charsets: &Charsets) -> bits::Labels {
    let charset = charset_of(column, None, charsets);
    let label = |raw: &[u8]| {
        let mut out = Vec::new();
        text::write_text(raw, charset.as_ref()?, &mut out).ok()?;
        Some(out.into_boxed_slice())
    };
    column.labels.iter().map(|raw| label(raw)).collect()
}

fn make<F>(name: Box<str>, write: F) -> Arc<dyn ValueCodec>
where
    F: Fn(&[u8], &mut Vec<u8>) -> Outcome + Send + Sync + 'static,
{
    Maker { form: JsonType::Any }.codec(name, write)
}

/// Makes the codec of a column whose values become this.
struct Maker {
    form: JsonType,
}

impl Maker {
    fn codec<F>(self, name: Box<str>, write: F) -> Arc<dyn ValueCodec>
    where
        F: Fn(&[u8], &mut Vec<u8>) -> Outcome + Send + Sync + 'static,
    {
        Arc::new(Codec { name, form: self.form, write })
    }
}

/// A type's name, what its values become, and its writer.
struct Codec<F> {
    name: Box<str>,
    form: JsonType,
    write: F,
}

impl<F> fmt::Debug for Codec<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Codec").field(&self.name).finish()
    }
}

impl<F> ValueCodec for Codec<F>
where
    F: Fn(&[u8], &mut Vec<u8>) -> Outcome + Send + Sync,
{
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        (self.write)(raw, out).map_err(|reason| error(&self.name, reason))
    }

    fn json_type(&self) -> JsonType {
        self.form.clone()
    }
}

#[cfg(test)]
mod tests;
