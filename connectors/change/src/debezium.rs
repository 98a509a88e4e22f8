//! Debezium's encodings of values, where connectors have them in common.
//!
//! Each is proven by what Debezium's own engine made of the same rows: `tests/golden`. The words of options are
//! Debezium's (<https://debezium.io/documentation/reference/stable/connectors/>).

pub mod binary;
pub mod moment;
pub mod number;

/// How values are encoded: the options of a connector of Debezium that concern values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// `decimal.handling.mode`
    pub decimal: Decimal,
    /// `time.precision.mode`
    pub time: Time,
    /// `binary.handling.mode`
    pub binary: Binary,
    /// `hstore.handling.mode`
    pub hstore: Hstore,
    /// `interval.handling.mode`
    pub interval: Interval,
    /// `bigint.unsigned.handling.mode`
    pub bigint_unsigned: BigintUnsigned,
    /// `unavailable.value.placeholder`
    pub unavailable: Box<str>,
    /// `tombstones.on.delete`: whether each delete is followed by a message without a body.
    pub tombstones: bool,
}

/// `decimal.handling.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decimal {
    /// Kafka's logical type: the unscaled number's bytes.
    #[default]
    Precise,
    /// The digits.
    String,
    /// A double, which may not hold all digits.
    Double,
}

/// `time.precision.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Time {
    /// Milliseconds or microseconds, as the column's precision needs.
    #[default]
    Adaptive,
    /// The same, but times of day in microseconds always.
    AdaptiveTimeMicroseconds,
    /// Milliseconds, as Kafka's logical types are.
    Connect,
    /// ISO 8601, in UTC.
    IsoString,
}

/// `binary.handling.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Binary {
    /// Bytes, which JSON shows in base64.
    #[default]
    Bytes,
    /// A string in base64.
    Base64,
    /// The same in the alphabet that is safe in addresses.
    Base64UrlSafe,
    /// A string of hexadecimal digits.
    Hex,
}

/// `hstore.handling.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Hstore {
    /// A string that holds a JSON object.
    #[default]
    Json,
    /// An object.
    Map,
}

/// `interval.handling.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Interval {
    /// Microseconds; a month has 30.4375 days.
    #[default]
    Numeric,
    /// `P1Y2M3DT4H5M6S`, each part there.
    String,
}

/// `bigint.unsigned.handling.mode`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BigintUnsigned {
    /// A signed number: what is 2^63 or more is negative.
    #[default]
    Long,
    /// As [`Decimal::Precise`].
    Precise,
}

impl Default for Encoding {
    fn default() -> Self {
        Self {
            decimal: Decimal::default(),
            time: Time::default(),
            binary: Binary::default(),
            hstore: Hstore::default(),
            interval: Interval::default(),
            bigint_unsigned: BigintUnsigned::default(),
            unavailable: "__debezium_unavailable_value".into(),
            tombstones: false,
        }
    }
}
