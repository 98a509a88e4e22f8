//! Names: of event types, of their versions, of the keys under which they are kept, and their URIs.
//!
//! ```text
//!   shop.public.orders        the type: source, schema, table; each as a token of a subject
//!   shop.public.orders/1.2    the key in the bucket
//!   figvine:shop.public.orders/1.2    the URI, `ce-dataschema`
//! ```

use std::fmt;

/// The scheme of the URIs.
const SCHEME: &str = "figvine:";

/// A version of an event type: compatible changes count in the minor, others begin a new major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// From 1.
    pub major: u32,
    /// From 0.
    pub minor: u32,
}

impl Version {
    /// The first.
    pub const FIRST: Self = Self { major: 1, minor: 0 };

    /// Reads `1.2`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        let number = |text: &str| -> Option<u32> {
            let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_plain)
        };
        Some(Self { major: number(major)?, minor: number(minor)? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The type of a table's changes.
#[must_use]
pub fn table_type(source: &str, schema: &str, table: &str) -> String {
    let mut name = String::new();
    for (place, part) in [source, schema, table].into_iter().enumerate() {
        if place > 0 {
            name.push('.');
        }
        push_token(part, &mut name);
    }
    name
}

/// The type of a domain event, or of what a source tells beside its tables.
#[must_use]
pub fn event_type(source: &str, name: &str) -> String {
    let mut made = String::new();
    push_token(source, &mut made);
    made.push('.');
    push_token(name, &mut made);
    made
}

/// As a token of a subject is written: `[A-Za-z0-9_-]` stay, every other byte becomes `=XX`. Nothing is cut: names of
/// databases are short enough for keys of a bucket, which allow these characters.
fn push_token(raw: &str, out: &mut String) {
    if raw.is_empty() {
        out.push('=');
    }
    for byte in raw.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            out.push(byte.into());
        } else {
            out.push_str(&format!("={byte:02X}"));
        }
    }
}

/// The URI of a version; without the scheme it is the key under which the version is kept.
#[must_use]
pub fn uri(event_type: &str, version: Version) -> String {
    format!("{SCHEME}{event_type}/{version}")
}

/// The key behind a URI.
pub(super) fn key_of(uri: &str) -> &str {
    uri.strip_prefix(SCHEME).unwrap_or(uri)
}

/// Type and version of a key or URI.
#[must_use]
pub fn parse_key(text: &str) -> Option<(&str, Version)> {
    let (event_type, version) = key_of(text).rsplit_once('/')?;
    Some((event_type, Version::parse(version)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_holds_only_what_a_bucket_takes_and_reads_back(
            schema in any::<String>(), table in any::<String>(), major in 1..99_u32, minor in 0..99_u32
        ) {
            let name = table_type("shop", &schema, &table);
            let uri = uri(&name, Version { major, minor });
            let key = key_of(&uri);
            let is_fit = |b: u8| b.is_ascii_alphanumeric() || b"-/_=.".contains(&b);
            prop_assert!(key.bytes().all(is_fit) && !key.starts_with('.') && !key.ends_with('.'), "{}", key);
            prop_assert_eq!(parse_key(&uri), Some((name.as_str(), Version { major, minor })));
        }

        #[test]
        fn different_tables_are_different_types(a in ".{0,9}", b in ".{0,9}", c in ".{0,9}", d in ".{0,9}") {
            prop_assert_eq!((&a, &b) == (&c, &d), table_type("s", &a, &b) == table_type("s", &c, &d));
        }
    }

    #[test]
    fn names_are_as_documented() {
        assert_eq!(table_type("shop", "public", "order lines"), "shop.public.order=20lines");
        assert_eq!(uri("shop.public.orders", Version::FIRST), "figvine:shop.public.orders/1.0");
        for text in ["1", "1.", ".1", "+1.0", "a.b", "1.0.0", ""] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
