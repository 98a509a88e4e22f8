//! The section `debezium` of a source: options by Debezium's own names.

use figvine_change::debezium::{BigintUnsigned, Binary, Decimal, Encoding, Hstore, Interval, Time};

use super::keys::{Key, Kind};
use super::raw::{Reader, Section};

const fn option(name: &'static str, kind: Kind, default: Option<&'static str>, about: &'static str) -> Key {
    Key { name, kind, default, required: false, about }
}

/// The keys of the section.
pub(super) const KEYS: &[Key] = &[
    option("topic.prefix", Kind::Text, None, "What source.name holds; by default the source's name."),
    option(
        "decimal.handling.mode",
        Kind::Word(&["precise", "string", "double"]),
        Some("precise"),
        "How decimals are written: the unscaled number's bytes in base64, their digits, or doubles.",
    ),
    option(
        "time.precision.mode",
        Kind::Word(&["adaptive", "adaptive_time_microseconds", "connect", "isostring"]),
        None,
        "How dates and times are written; by default adaptive, of MySQL adaptive_time_microseconds.",
    ),
    option(
        "binary.handling.mode",
        Kind::Word(&["bytes", "base64", "base64-url-safe", "hex"]),
        Some("bytes"),
        "How bytes are written.",
    ),
    option(
        "hstore.handling.mode",
        Kind::Word(&["json", "map"]),
        Some("json"),
        "How PostgreSQL's hstore is written: a string of JSON, or an object.",
    ),
    option(
        "interval.handling.mode",
        Kind::Word(&["numeric", "string"]),
        Some("numeric"),
        "How PostgreSQL's intervals are written: microseconds, or P1Y2M3DT4H5M6S.",
    ),
    option(
        "bigint.unsigned.handling.mode",
        Kind::Word(&["long", "precise"]),
        Some("long"),
        "How MySQL's BIGINT UNSIGNED is written: a signed number, or as precise decimals are.",
    ),
    option(
        "unavailable.value.placeholder",
        Kind::Text,
        Some("__debezium_unavailable_value"),
        "What stands for a value that the log did not carry.",
    ),
    option(
        "tombstones.on.delete",
        Kind::Bool,
        Some("false"),
        "Whether each delete is followed by a message without a body. Debezium's own default is true.",
    ),
];

impl Reader<'_> {
    /// The encoding of a source's values and `source.name`. What the database has nothing for is complained about.
    pub(super) fn debezium(&mut self, source: &Section<'_>) -> Option<(Encoding, Option<String>)> {
        let section = self.below(source, "debezium")?;
        let is_postgres = source.has("postgres");
        let foreign: &[&str] = match is_postgres {
            true => &["bigint.unsigned.handling.mode"],
            false => &["hstore.handling.mode", "interval.handling.mode", "unavailable.value.placeholder"],
        };
        for name in foreign {
            if section.has(name) {
                let whose = if is_postgres { "MySQL" } else { "PostgreSQL" };
                self.complain(&section.key_at(name), &section.path(name), &format!("this is for {whose} alone"));
            }
        }
        let time = match section.has("time.precision.mode") {
            true => self.word(&section, "time.precision.mode"),
            false if is_postgres => "adaptive",
            false => "adaptive_time_microseconds",
        };
        if time == "adaptive" && !is_postgres {
            let what = "'adaptive' is for PostgreSQL alone; MySQL's times of day need microseconds";
            self.complain(&section.at("time.precision.mode"), &section.path("time.precision.mode"), what);
        }
        let encoding = Encoding {
            decimal: match self.word(&section, "decimal.handling.mode") {
                "string" => Decimal::String,
                "double" => Decimal::Double,
                _ => Decimal::Precise,
            },
            time: match time {
                "adaptive_time_microseconds" => Time::AdaptiveTimeMicroseconds,
                "connect" => Time::Connect,
                "isostring" => Time::IsoString,
                _ => Time::Adaptive,
            },
            binary: match self.word(&section, "binary.handling.mode") {
                "base64" => Binary::Base64,
                "base64-url-safe" => Binary::Base64UrlSafe,
                "hex" => Binary::Hex,
                _ => Binary::Bytes,
            },
            hstore: match self.word(&section, "hstore.handling.mode") {
                "map" => Hstore::Map,
                _ => Hstore::Json,
            },
            interval: match self.word(&section, "interval.handling.mode") {
                "string" => Interval::String,
                _ => Interval::Numeric,
            },
            bigint_unsigned: match self.word(&section, "bigint.unsigned.handling.mode") {
                "precise" => BigintUnsigned::Precise,
                _ => BigintUnsigned::Long,
            },
            unavailable: self.text(&section, "unavailable.value.placeholder").unwrap_or_default().into(),
            tombstones: self.bool(&section, "tombstones.on.delete"),
        };
        Some((encoding, self.text(&section, "topic.prefix")))
    }
}
