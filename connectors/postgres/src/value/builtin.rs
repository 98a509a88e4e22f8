//! The types whose oids are the same in every server (`pg_type.dat`).

use figvine_change::JsonType;

use super::{Write, json, number, text, time};
use crate::config::ValueOptions;

const INT8: u32 = 20;
const BOX: u32 = 603;
const MONEY: u32 = 790;
const NUMERIC: u32 = 1700;

/// Oid, oid of its array, name, writer.
type Builtin = (u32, u32, &'static str, Write);

/// The built-in types under the given options.
pub(super) fn types(options: &ValueOptions) -> impl Iterator<Item = Builtin> {
    let (bigint_as_string, decimal_as_number) = (options.bigint_as_string, options.decimal_as_number);
    TYPES.iter().map(move |&(oid, array, name, write)| {
        let write: Write = match oid {
            INT8 if bigint_as_string => number::write_int8_string,
            NUMERIC if decimal_as_number => number::write_numeric_number,
            MONEY if decimal_as_number => number::write_money_number,
            _ => write,
        };
        (oid, array, name, write)
    })
}

/// What the values of a built-in type become under the given options.
pub(super) fn json_type(oid: u32, options: &ValueOptions) -> JsonType {
    let decimal = JsonType::Decimal { as_string: !options.decimal_as_number };
    match name(oid).unwrap_or_default() {
        "bool" => JsonType::Boolean,
        "bytea" => JsonType::Bytes,
        "int8" if options.bigint_as_string => JsonType::integer(64, true).into_string(),
        "int8" => JsonType::integer(64, true),
        "int4" => JsonType::integer(32, true),
        "int2" => JsonType::integer(16, true),
        "int2vector" => JsonType::List(Box::new(JsonType::integer(16, true))),
        "oidvector" => JsonType::List(Box::new(JsonType::integer(32, false))),
        "oid" | "xid" | "cid" => JsonType::integer(32, false),
        "float4" | "float8" => JsonType::Float,
        "numeric" | "money" => decimal,
        "json" | "jsonb" => JsonType::Any,
        "date" => JsonType::Date,
        "time" => JsonType::Time,
        "timetz" => JsonType::TimeWithZone,
        "timestamp" => JsonType::Timestamp,
        "timestamptz" => JsonType::TimestampWithZone,
        "interval" => JsonType::Duration,
        "uuid" => JsonType::Uuid,
        _ => JsonType::Text,
    }
}

/// The type of the elements of a built-in array.
pub(super) fn element(oid: u32) -> Option<u32> {
    TYPES.iter().find(|builtin| builtin.1 == oid).map(|builtin| builtin.0)
}

/// The name of a built-in type.
pub(super) fn name(oid: u32) -> Option<&'static str> {
    TYPES.iter().find(|builtin| builtin.0 == oid).map(|builtin| builtin.2)
}

/// What stands between elements in an array of a built-in type.
pub(super) fn delimiter(oid: u32) -> u8 {
    if oid == BOX { b';' } else { b',' }
}

const TYPES: &[Builtin] = &[
    (16, 1000, "bool", text::write_bool),
    (17, 1001, "bytea", text::write_bytea),
    (18, 1002, "char", text::write_char),
    (19, 1003, "name", text::write_text),
    (INT8, 1016, "int8", number::write_int8),
    (21, 1005, "int2", number::write_int2),
    (22, 1006, "int2vector", number::write_int_vector),
    (23, 1007, "int4", number::write_int4),
    (24, 1008, "regproc", text::write_text),
    (25, 1009, "text", text::write_text),
    (26, 1028, "oid", number::write_unsigned),
    (27, 1010, "tid", text::write_text),
    (28, 1011, "xid", number::write_unsigned),
    (29, 1012, "cid", number::write_unsigned),
    (30, 1013, "oidvector", number::write_int_vector),
    (114, 199, "json", json::write_json),
    (142, 143, "xml", text::write_text),
    (600, 1017, "point", text::write_text),
    (601, 1018, "lseg", text::write_text),
    (602, 1019, "path", text::write_text),
    (BOX, 1020, "box", text::write_text),
    (604, 1027, "polygon", text::write_text),
    (628, 629, "line", text::write_text),
    (650, 651, "cidr", text::write_text),
    (700, 1021, "float4", number::write_float),
    (701, 1022, "float8", number::write_float),
    (718, 719, "circle", text::write_text),
    (774, 775, "macaddr8", text::write_text),
    (MONEY, 791, "money", number::write_money),
    (829, 1040, "macaddr", text::write_text),
    (869, 1041, "inet", text::write_text),
    (1033, 1034, "aclitem", text::write_text),
    (1042, 1014, "bpchar", text::write_text),
    (1043, 1015, "varchar", text::write_text),
    (1082, 1182, "date", time::write_date),
    (1083, 1183, "time", time::write_time),
    (1114, 1115, "timestamp", time::write_timestamp),
    (1184, 1185, "timestamptz", time::write_timestamptz),
    (1186, 1187, "interval", time::write_interval),
    (1266, 1270, "timetz", time::write_timetz),
    (1560, 1561, "bit", text::write_text),
    (1562, 1563, "varbit", text::write_text),
    (NUMERIC, 1231, "numeric", number::write_numeric),
    (1790, 2201, "refcursor", text::write_text),
    (2202, 2207, "regprocedure", text::write_text),
    (2203, 2208, "regoper", text::write_text),
    (2204, 2209, "regoperator", text::write_text),
    (2205, 2210, "regclass", text::write_text),
    (2206, 2211, "regtype", text::write_text),
    (2950, 2951, "uuid", text::write_text),
    (2970, 2949, "txid_snapshot", text::write_text),
    (3220, 3221, "pg_lsn", text::write_text),
    (3614, 3643, "tsvector", text::write_text),
    (3615, 3645, "tsquery", text::write_text),
    (3734, 3735, "regconfig", text::write_text),
    (3769, 3770, "regdictionary", text::write_text),
    (3802, 3807, "jsonb", json::write_json),
    (3904, 3905, "int4range", text::write_text),
    (3906, 3907, "numrange", text::write_text),
    (3908, 3909, "tsrange", text::write_text),
    (3910, 3911, "tstzrange", text::write_text),
    (3912, 3913, "daterange", text::write_text),
    (3926, 3927, "int8range", text::write_text),
    (4072, 4073, "jsonpath", text::write_text),
    (4089, 4090, "regnamespace", text::write_text),
    (4096, 4097, "regrole", text::write_text),
    (4191, 4192, "regcollation", text::write_text),
    (4451, 6150, "int4multirange", text::write_text),
    (4532, 6151, "nummultirange", text::write_text),
    (4533, 6152, "tsmultirange", text::write_text),
    (4534, 6153, "tstzmultirange", text::write_text),
    (4535, 6155, "datemultirange", text::write_text),
    (4536, 6157, "int8multirange", text::write_text),
    (5038, 5039, "pg_snapshot", text::write_text),
    (5069, 271, "xid8", text::write_text),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokio_postgres::types::{Kind, Type};

    use super::*;

    #[test]
    fn the_oids_are_those_of_the_catalogue() {
        let mut seen = HashSet::new();
        for &(oid, array, name, _) in TYPES {
            assert!(seen.insert(oid) && seen.insert(array), "{name}");
            assert_eq!(Type::from_oid(oid).expect("a type").name(), name);
            let array = Type::from_oid(array).expect("an array");
            assert!(matches!(array.kind(), Kind::Array(element) if element.oid() == oid), "{name}");
        }
    }

    #[test]
    fn the_table_is_sorted_by_oid() {
        assert!(TYPES.is_sorted_by_key(|builtin| builtin.0));
    }
}
