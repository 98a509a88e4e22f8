//! Values of keys: as text in a cursor, and as SQL that compares as the index does.
//!
//! | type | text | in SQL |
//! |---|---|---|
//! | numbers, YEAR, DECIMAL | digits | the same; floats as doubles, exact |
//! | dates, times | `2026-11-28 10:00:00` | a string |
//! | CHAR, VARCHAR | the bytes in the column's character set | `_latin1 X'...'`: the column's collation compares |
//! | BINARY, VARBINARY | the bytes | `X'...'`, with all zeros at its end |
//! | ENUM, SET | label, labels with commas between | the number that the index holds |
//! | BIT | number | number |
//! | UUID, INET4, INET6 | as the server writes them | a string |

use std::fmt::Write as _;
use std::sync::Arc;

use figvine_change::ValueCodec;

use crate::catalogue::ColumnFacts;
use crate::decode::table_map::{ColumnMap, column_type as t};
use crate::tables::labels;
use crate::value::{Charsets, Declared, ValueOptions, codec};

/// A column of an index.
#[derive(Debug)]
pub(super) struct KeyColumn {
    /// Its place in the row.
    pub(super) at: usize,
    /// As SQL wants it.
    pub(super) name: String,
    pub(super) is_descending: bool,
    pub(super) kind: KeyKind,
}

impl KeyColumn {
    /// Behind its name in ORDER BY.
    pub(super) fn direction(&self) -> &'static str {
        if self.is_descending { " DESC" } else { "" }
    }
}

/// How values of a key's column are written.
#[derive(Debug, Clone)]
pub(super) enum KeyKind {
    /// Text that the codec gives, less what JSON puts around it.
    Written {
        codec: Arc<dyn ValueCodec>,
        form: Written,
    },
    /// Bytes in a character set; in none for BINARY(n), whose values have n bytes, and its like, which have no `width`.
    Bytes {
        charset: Option<String>,
        width: usize,
    },
    Enum(Vec<Box<[u8]>>),
    Set(Vec<Box<[u8]>>),
    Bit,
}

/// What a codec's text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// An exact number.
    Number,
    Float,
    Double,
    /// A text of the server's, in quotes.
    Text,
    /// The same with the `T` and `Z` of JSON.
    Moment,
}

impl KeyKind {
    /// `None` for a type that no index can have.
    pub(super) fn of(map: &ColumnMap, fact: &ColumnFacts, charsets: &Charsets) -> Option<Self> {
        let declared = Declared { column_type: fact.column_type.clone(), is_json: false };
        let written = |form| {
            let codec = codec(map, Some(&declared), charsets, &ValueOptions::default());
            Some(Self::Written { codec, form })
        };
        match map.type_code {
            t::TINY | t::SHORT | t::INT24 | t::LONG | t::LONGLONG | t::YEAR | t::NEWDECIMAL => written(Written::Number),
            t::FLOAT => written(Written::Float),
            t::DOUBLE => written(Written::Double),
            t::DATE | t::TIME2 => written(Written::Text),
            t::DATETIME2 | t::TIMESTAMP2 => written(Written::Moment),
            t::STRING if matches!(fact.column_type.as_str(), "uuid" | "inet4" | "inet6") => written(Written::Text),
            t::ENUM => Some(Self::Enum(labels(&fact.column_type))),
            t::SET => Some(Self::Set(labels(&fact.column_type))),
            t::BIT => Some(Self::Bit),
            t::STRING | t::VARCHAR | t::BLOB => {
                let charset = charsets.charset(map.collation?)?;
                let charset = (!charset.is_binary()).then(|| charset.name().to_owned());
                let width = fact.column_type.strip_prefix("binary(").and_then(|rest| rest.strip_suffix(')'));
                Some(Self::Bytes { charset, width: width.and_then(|width| width.parse().ok()).unwrap_or(0) })
            }
            _ => None,
        }
    }

    /// Appends the text of a value, whose bytes are those of a row image.
    pub(super) fn write(&self, image: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Written { codec, form } => {
                let start = out.len();
                codec.write_json(image, out).ok()?;
                let is_quoted = out.get(start) == Some(&b'"');
                if is_quoted {
                    out.pop();
                    out.remove(start);
                }
                if *form == Written::Moment {
                    if out.last() == Some(&b'Z') {
                        out.pop();
                    }
                    if let Some(byte) = out.iter_mut().skip(start).find(|byte| **byte == b'T') {
                        *byte = b' ';
                    }
                }
            }
            Self::Bytes { .. } => out.extend_from_slice(image),
            Self::Enum(labels) => match usize::try_from(little(image)).ok()?.checked_sub(1) {
                Some(index) => out.extend_from_slice(labels.get(index)?),
                None => out.extend_from_slice(&no_label(labels)),
            },
            Self::Set(labels) => {
                let bits = little(image);
                let set = labels.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
                for (at, (_, label)) in set.enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(label);
                }
            }
            Self::Bit => {
                let number = image.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
                out.extend_from_slice(number.to_string().as_bytes());
            }
        }
        Some(())
    }

    /// A text as SQL; `None` when it is no value of the type.
    pub(super) fn sql(&self, text: &[u8]) -> Option<String> {
        let plain = || std::str::from_utf8(text).ok();
        Some(match self {
            Self::Written { form, .. } => {
                let text = plain()?;
                match form {
                    Written::Number => {
                        let digits = text.strip_prefix('-').unwrap_or(text);
                        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                        let has_digits = digits.starts_with(|c: char| c.is_ascii_digit());
                        (is_number && has_digits && digits.matches('.').count() < 2).then(|| text.to_owned())?
                    }
                    // With an exponent it is a double, not a decimal.
                    Written::Float => format!("{:e}", f64::from(text.parse::<f32>().ok().filter(|f| f.is_finite())?)),
                    Written::Double => format!("{:e}", text.parse::<f64>().ok().filter(|f| f.is_finite())?),
                    Written::Text | Written::Moment => {
                        let is_plain = |c: char| c.is_ascii_hexdigit() || matches!(c, '-' | ':' | '.' | ' ' | 'T');
                        text.chars().all(is_plain).then(|| format!("'{text}'"))?
                    }
                }
            }
            Self::Bytes { charset, width } => {
                let mut sql = charset.as_ref().map_or_else(|| "X'".to_owned(), |charset| format!("_{charset} X'"));
                // The log leaves out the zeros at the end.
                let zeros = std::iter::repeat_n(&0, width.saturating_sub(text.len()));
                for byte in text.iter().chain(zeros) {
                    write!(sql, "{byte:02x}").ok()?;
                }
                sql.push('\'');
                sql
            }
            Self::Enum(labels) => match labels.iter().position(|label| **label == *text) {
                Some(index) => (index + 1).to_string(),
                None if text == no_label(labels) => "0".to_owned(),
                None => return None,
            },
            Self::Set(labels) => {
                let mut bits = 0_u64;
                for label in text.split(|&byte| byte == b',').filter(|label| !label.is_empty()) {
                    bits |= 1_u64.checked_shl(u32::try_from(labels.iter().position(|l| **l == *label)?).ok()?)?;
                }
                bits.to_string()
            }
            Self::Bit => plain()?.parse::<u64>().ok()?.to_string(),
        })
    }
}

/// What stands for the server's mark of a value that was none of the labels: shown as the empty text, which may be
/// a label too; then zeros that are none.
fn no_label(labels: &[Box<[u8]>]) -> Vec<u8> {
    let mut text = Vec::new();
    while labels.iter().any(|label| **label == *text) {
        text.push(b'0');
    }
    text
}

fn little(image: &[u8]) -> u64 {
    image.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::super::image::Form;
    use super::*;
    use crate::config::Flavour;

    fn fact(column_type: &str) -> ColumnFacts {
        ColumnFacts {
            name: "k".into(),
            column_type: column_type.into(),
            collation: None,
            is_nullable: false,
            is_generated: false,
            is_invisible: false,
            is_json: false,
        }
    }

    fn kind(column_type: &str) -> KeyKind {
        let fact = fact(column_type);
        let made = super::super::shape::ReadColumn::of(&fact, Flavour::MariaDb, &Charsets::new());
        KeyKind::of(&made.map, &fact, &Charsets::new()).expect("a type of keys")
    }

    fn round(kind: &KeyKind, image: &[u8]) -> (String, String) {
        let mut text = Vec::new();
        kind.write(image, &mut text).expect("a value");
        let sql = kind.sql(&text).expect("a value");
        (String::from_utf8(text).expect("UTF-8"), sql)
    }

    fn both(text: &str, sql: &str) -> (String, String) {
        (text.to_owned(), sql.to_owned())
    }

    #[test]
    fn values_are_written_for_people_and_compared_as_the_index_does() {
        assert_eq!(round(&kind("int"), &(-5_i32).to_le_bytes()), both("-5", "-5"));
        assert_eq!(round(&kind("float"), &0.1_f32.to_le_bytes()), both("0.1", "1.0000000149011612e-1"));
        let mut moment = Vec::new();
        Form::DateTime(0).write(&[0xea, 0x07, 11, 23, 9, 1, 2], &mut moment).expect("a value");
        assert_eq!(round(&kind("datetime"), &moment), both("2026-11-23 09:01:02", "'2026-11-23 09:01:02'"));
        assert_eq!(round(&kind("bit(10)"), &[2, 1]), both("513", "513"));
        assert_eq!(round(&kind("inet4"), &[127, 0, 0, 1]), both("127.0.0.1", "'127.0.0.1'"));
        let set = kind("set('a','b','c')");
        assert_eq!(round(&set, &[5]), both("a,c", "5"));
        assert_eq!(round(&set, &[0]), both("", "0"));
        assert_eq!(set.sql(b"a,d"), None);
    }

    #[test]
    fn what_is_none_of_the_labels_is_told_apart_from_every_label() {
        let plain = kind("enum('x','y')");
        assert_eq!(round(&plain, &[2]), both("y", "2"));
        assert_eq!(round(&plain, &[0]), both("", "0"));
        let odd = kind("enum('x','','0')");
        assert_eq!(round(&odd, &[2]), both("", "2"));
        assert_eq!(round(&odd, &[3]), both("0", "3"));
        assert_eq!(round(&odd, &[0]), both("00", "0"));
        assert_eq!(plain.sql(b"z"), None);
    }

    #[test]
    fn nothing_but_a_value_becomes_sql() {
        for (column_type, text) in [
            ("int", "1 or 1=1"),
            ("int", ""),
            ("int", "1.2.3"),
            ("double", "nan"),
            ("date", "2026-01-01' or '1"),
            ("uuid", "x'"),
            ("bit(3)", "-1"),
        ] {
            assert_eq!(kind(column_type).sql(text.as_bytes()), None, "{text}");
        }
        assert_eq!(kind("varbinary(9)").sql(b"a'b").as_deref(), Some("X'612762'"));
    }
}
