//! Values as Debezium's connector for PostgreSQL encodes them.
//!
//! It knows fewer types than there are: what it does not know is bytes, the type's text. Precision and scale of a column
//! say in which unit or form a value stands, so a codec is made of a type *and* its modifier.

mod interval;
mod moment;
mod text;

use std::sync::Arc;

use figvine_change::debezium::{Binary, Decimal, Encoding, Hstore, Time, binary, number};
use figvine_change::{ValueCodec, ValueError, json};

use super::array::Array;
use super::{Types, builtin, hstore};

/// What a type is to Debezium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bool,
    /// A whole number, by its size in bytes; 0 is an oid.
    Whole(u8),
    Float,
    Double,
    /// With the column's scale.
    Numeric(Option<usize>),
    Money,
    Text,
    Enum,
    Uuid,
    Bytes,
    /// `true` for a single one.
    Bits(bool),
    Hstore,
    Point,
    /// The other geometric types: text in which numbers stand as Java writes them.
    Geometric,
    Date,
    /// With the digits behind the second.
    Time(u32),
    ZonedTime,
    Timestamp(u32),
    Zoned(u32),
    Interval,
    /// pgvector's.
    Vector,
    /// Bytes: the type's text.
    Unknown,
}

/// The codec of a column of the type.
pub(super) fn codec(types: &Types, encoding: &Arc<Encoding>, oid: u32, modifier: i32) -> Arc<dyn ValueCodec> {
    let (oid, modifier) = types.base(oid, modifier);
    let scalar = |oid, modifier| {
        let form = form(types, oid, modifier);
        Scalar { name: types.name(oid).into(), form, encoding: Arc::clone(encoding) }
    };
    match types.element(oid) {
        Some((element, delimiter)) => {
            let element = scalar(element, modifier);
            let unavailable = element.unavailable_in_array();
            let array = Array::shared(format!("{}[]", element.name), delimiter, Arc::new(element));
            Arc::new(List { array, unavailable })
        }
        None => Arc::new(scalar(oid, modifier)),
    }
}

fn form(types: &Types, oid: u32, modifier: i32) -> Form {
    // `numeric`: precision and scale, 4 more than they are. Debezium reads a negative scale as one of eleven bits.
    let scale = || (modifier >= 4).then(|| ((modifier - 4) & 0xffff) as usize);
    let digits = || u32::try_from(modifier).unwrap_or(6);
    match oid {
        16 => Form::Bool,
        17 => Form::Bytes,
        20 => Form::Whole(8),
        21 => Form::Whole(2),
        23 => Form::Whole(4),
        26 => Form::Whole(0),
        // "char" name text json xml cidr macaddr8 macaddr inet bpchar varchar tsvector jsonb, and ranges.
        18 | 19 | 25 | 114 | 142 | 650 | 774 | 829 | 869 | 1042 | 1043 | 3614 | 3802 | 3904 | 3906 | 3908 | 3910
        | 3912 | 3926 => Form::Text,
        600 => Form::Point,
        // lseg path box polygon line circle
        601..=604 | 628 | 718 => Form::Geometric,
        700 => Form::Float,
        701 => Form::Double,
        790 => Form::Money,
        1082 => Form::Date,
        1083 => Form::Time(digits()),
        1114 => Form::Timestamp(digits()),
        1184 => Form::Zoned(digits()),
        1186 => Form::Interval,
        1266 => Form::ZonedTime,
        1560 => Form::Bits(modifier == 1),
        1562 => Form::Bits(false),
        1700 => Form::Numeric(scale()),
        2950 => Form::Uuid,
        _ => match types.rows.get(&oid) {
            Some(row) if row.kind == 'e' => Form::Enum,
            Some(row) if row.kind == 'b' => match row.name.as_str() {
                "hstore" => Form::Hstore,
                "citext" | "ltree" => Form::Text,
                "vector" | "halfvec" => Form::Vector,
                _ => Form::Unknown,
            },
            _ => Form::Unknown,
        },
    }
}

/// A type whose values are not made of values of other types.
#[derive(Debug)]
struct Scalar {
    name: Box<str>,
    form: Form,
    encoding: Arc<Encoding>,
}

impl Scalar {
    fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
        let Encoding { decimal, time, .. } = *self.encoding;
        match self.form {
            Form::Bool => super::text::write_bool(raw, out),
            Form::Whole(8) => super::number::write_int8(raw, out),
            Form::Whole(4) => super::number::write_int4(raw, out),
            Form::Whole(2) => super::number::write_int2(raw, out),
            Form::Whole(_) => super::number::write_unsigned(raw, out),
            Form::Float => {
                number::write_float(parsed(raw)?, out);
                Ok(())
            }
            Form::Double => {
                number::write_double(parsed(raw)?, out);
                Ok(())
            }
            Form::Numeric(scale) => text::write_numeric(raw, scale, decimal, out),
            Form::Money => {
                let mut amount = Vec::with_capacity(raw.len());
                super::number::write_money_number(raw, &mut amount)?;
                number::write_decimal(&amount, Some(2), decimal, out)
            }
            Form::Text if self.name.as_ref() == "char" => super::text::write_char(raw, out),
            Form::Text | Form::Enum | Form::Uuid => super::text::write_text(raw, out),
            Form::Bytes => text::write_bytea(raw, self.encoding.binary, out),
            Form::Bits(is_one) => text::write_bits(raw, is_one, out),
            Form::Hstore => match self.encoding.hstore {
                Hstore::Map => hstore::write_hstore(raw, out),
                Hstore::Json => {
                    let mut object = Vec::with_capacity(raw.len() + 2);
                    hstore::write_hstore(raw, &mut object)?;
                    json::write_string(&object, out);
                    Ok(())
                }
            },
            Form::Point => text::write_point(raw, out),
            Form::Geometric => text::write_geometric(raw, self.encoding.binary, out),
            Form::Date => moment::write_date(raw, time, out),
            Form::Time(digits) => moment::write_time(raw, digits, time, out),
            Form::ZonedTime => moment::write_timetz(raw, out),
            Form::Timestamp(digits) => moment::write_timestamp(raw, digits, time, out),
            Form::Zoned(digits) => moment::write_timestamptz(raw, digits, out),
            Form::Interval => interval::write(raw, self.encoding.interval, out),
            Form::Vector => super::number::write_vector(raw, out),
            Form::Unknown => {
                binary::write(raw, self.encoding.binary, out);
                Ok(())
            }
        }
    }

    /// The placeholder in the place of a value. Where Debezium has none it shows null.
    fn unavailable(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let Encoding { unavailable, binary: mode, decimal, hstore, .. } = &*self.encoding;
        match self.form {
            Form::Text => json::write_str(unavailable, &mut out),
            Form::Numeric(_) if *decimal == Decimal::String => json::write_str(unavailable, &mut out),
            Form::Bytes => match mode {
                Binary::Bytes => binary::write_bytes(unavailable.as_bytes(), &mut out),
                Binary::Hex => json::write_str(unavailable, &mut out),
                Binary::Base64 | Binary::Base64UrlSafe => {}
            },
            Form::Hstore => {
                let mut object = Vec::from(*b"{");
                json::write_str(unavailable, &mut object);
                object.push(b':');
                json::write_str(unavailable, &mut object);
                object.push(b'}');
                match hstore {
                    Hstore::Map => out = object,
                    Hstore::Json => json::write_string(&object, &mut out),
                }
            }
            _ => {}
        }
        if out.is_empty() {
            out.extend_from_slice(b"null");
        }
        out
    }

    /// The same of an array of such.
    fn unavailable_in_array(&self) -> Vec<u8> {
        let mut out = Vec::from(*b"[");
        let Encoding { unavailable, binary: mode, time, .. } = &*self.encoding;
        let is_whole_date = self.form == Form::Date && matches!(time, Time::Adaptive | Time::AdaptiveTimeMicroseconds);
        match self.form {
            Form::Text | Form::Uuid => json::write_str(unavailable, &mut out),
            Form::Bytes if *mode == Binary::Bytes => binary::write_bytes(unavailable.as_bytes(), &mut out),
            // The placeholder's bytes, each a number.
            Form::Whole(4 | 8) | Form::Date if self.form != Form::Date || is_whole_date => {
                for (place, byte) in unavailable.bytes().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    json::write_uint(u64::from(byte), &mut out);
                }
            }
            _ => return Vec::from(*b"null"),
        }
        out.push(b']');
        out
    }
}

impl ValueCodec for Scalar {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        self.write(raw, out).map_err(|reason| ValueError { type_name: self.name.clone(), reason })
    }

    fn write_unavailable(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.unavailable());
    }
}

/// An array.
#[derive(Debug)]
struct List {
    array: Arc<dyn ValueCodec>,
    unavailable: Vec<u8>,
}

impl ValueCodec for List {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        self.array.write_json(raw, out)
    }

    fn write_unavailable(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.unavailable);
    }
}

fn parsed<T: std::str::FromStr>(raw: &[u8]) -> Result<T, &'static str> {
    std::str::from_utf8(raw).ok().and_then(|text| text.parse().ok()).ok_or("not a number")
}

impl Types {
    /// The type behind domains, and its modifier.
    fn base(&self, mut oid: u32, mut modifier: i32) -> (u32, i32) {
        for _ in 0..super::MAX_NESTING {
            match self.rows.get(&oid) {
                Some(row) if row.kind == 'd' => (oid, modifier) = (row.base, row.base_modifier),
                _ => break,
            }
        }
        (oid, modifier)
    }

    /// The type of an array's elements and what stands between them.
    fn element(&self, oid: u32) -> Option<(u32, u8)> {
        match self.rows.get(&oid) {
            Some(row) if row.kind == 'b' && row.element != 0 => Some((row.element, self.element_delimiter(row))),
            Some(_) => None,
            None => builtin::element(oid).map(|element| (element, builtin::delimiter(element))),
        }
    }

    fn name(&self, oid: u32) -> &str {
        self.rows.get(&oid).map(|row| row.name.as_str()).or_else(|| builtin::name(oid)).unwrap_or("unknown")
    }
}

#[cfg(test)]
mod tests {
    use figvine_change::debezium::Interval;
    use proptest::prelude::*;

    use super::*;
    use crate::config::ValueOptions;

    /// The codecs of all built-in types, plain and with some modifier, under two encodings.
    fn codecs() -> Vec<Arc<dyn ValueCodec>> {
        let plain = Encoding::default();
        let other = Encoding {
            decimal: Decimal::String,
            time: Time::IsoString,
            binary: Binary::Hex,
            hstore: Hstore::Map,
            interval: Interval::String,
            ..plain.clone()
        };
        let mut codecs = Vec::new();
        for encoding in [plain, other] {
            let options = ValueOptions { debezium: Some(Arc::new(encoding)), ..ValueOptions::default() };
            let types = Types::new(&options);
            for (oid, array, ..) in builtin::types(&options) {
                for modifier in [-1, 1, 3, (8 << 16 | 2) + 4] {
                    codecs.extend([types.column_codec(oid, modifier), types.column_codec(array, modifier)]);
                }
            }
        }
        codecs
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_a_value_is_it_becomes_json_or_an_error(
            raw in prop_oneof![
                any::<Vec<u8>>(),
                "[-0-9T:.+P \\(\\),{}]{0,30}".prop_map(String::into_bytes),
                "-?[0-9]{1,60}(\\.[0-9]{1,60})?".prop_map(String::into_bytes),
                "[0-9]{4,7}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,7})?(\\+00)?( BC)?"
                    .prop_map(String::into_bytes),
                "P(-?[0-9]{1,12}[YMD])*(T(-?[0-9]{1,12}(\\.[0-9]{1,7})?[HMS])*)?".prop_map(String::into_bytes),
            ],
        ) {
            for codec in codecs() {
                let mut out = Vec::new();
                if codec.write_json(&raw, &mut out).is_ok() {
                    let read = serde_json::from_slice::<serde_json::Value>(&out);
                    prop_assert!(read.is_ok(), "{codec:?} {}", String::from_utf8_lossy(&out));
                }
            }
        }
    }

    #[test]
    fn what_was_not_carried_is_json_too() {
        for codec in codecs() {
            let mut out = Vec::new();
            codec.write_unavailable(&mut out);
            assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok(), "{codec:?}");
        }
    }
}
