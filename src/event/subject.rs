//! Subjects: templates, and names and keys as tokens.

use sha2::{Digest, Sha256};

use super::identity::write_hex;
use super::number::write_padded;

/// Longest a token may be, in bytes after escaping.
const TOKEN_MAX: usize = 128;
/// How much of a longer one is kept before its mark.
const TOKEN_KEPT: usize = 96;
/// How many bytes of the digest its mark shows.
const TOKEN_DIGEST: usize = 8;

const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";

/// What stands for key and partition where an event has no key.
pub(super) const ALL: &[u8] = b"all";

/// A subject template that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A field that such events do not have.
    #[error("subject template {template:?} has the unknown field {{{field}}} (known are {known})")]
    UnknownField {
        /// The template.
        template: Box<str>,
        /// The fields that there are.
        known: &'static str,
        /// The field's name.
        field: Box<str>,
    },
    /// A brace without its other half.
    #[error("subject template {template:?} has a brace without its other half")]
    Brace {
        /// The template.
        template: Box<str>,
    },
    /// A character that a subject cannot hold: wildcards, blanks, control
    /// characters, anything outside ASCII, `$` in front.
    #[error("subject template {template:?} holds {character:?}, which a subject to publish to cannot")]
    Character {
        /// The template.
        template: Box<str>,
        /// The first such character.
        character: char,
    },
    /// A token without any character.
    #[error("subject template {template:?} has an empty token")]
    EmptyToken {
        /// The template.
        template: Box<str>,
    },
}

/// Checks a subject template, as [`super::Encoder::new`] does.
///
/// # Errors
/// When it names an unknown field or would give subjects that cannot be published to.
pub fn check_template(template: &str) -> Result<(), TemplateError> {
    Template::parse(template).map(drop)
}

/// Checks the subject template of domain events, as [`super::Encoder::new`] does.
///
/// # Errors
/// As [`check_template`].
pub fn check_domain_template(template: &str) -> Result<(), TemplateError> {
    Template::parse_domain(template).map(drop)
}

/// A template as parsed.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, Clone)]
enum Piece {
    Text(Box<str>),
    Source,
    Schema,
    Table,
    Op,
    Key,
    Partition,
    Type,
}

/// The fields of change events.
const CHANGE_FIELDS: &str = "source, schema, table, op, key, partition";
/// Those of domain events.
const DOMAIN_FIELDS: &str = "source, type, key, partition";

impl Template {
    /// Of change events.
    pub(super) fn parse(template: &str) -> Result<Self, TemplateError> {
        Self::parse_with(template, CHANGE_FIELDS)
    }

    /// Of domain events.
    pub(super) fn parse_domain(template: &str) -> Result<Self, TemplateError> {
        Self::parse_with(template, DOMAIN_FIELDS)
    }

    fn parse_with(template: &str, known: &'static str) -> Result<Self, TemplateError> {
        let whole = || Box::from(template);
        let mut pieces = Vec::new();
        let mut sample = String::new();
        let mut rest = template;
        while !rest.is_empty() {
            let (text, tail) = rest.find('{').map_or((rest, ""), |at| rest.split_at(at));
            if text.contains('}') {
                return Err(TemplateError::Brace { template: whole() });
            }
            if let Some(character) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '*' | '>')) {
                return Err(TemplateError::Character { template: whole(), character });
            }
            if !text.is_empty() {
                sample.push_str(text);
                pieces.push(Piece::Text(text.into()));
            }
            let Some(tail) = tail.strip_prefix('{') else { break };
            let Some((field, tail)) = tail.split_once('}') else {
                return Err(TemplateError::Brace { template: whole() });
            };
            let is_known = known.split(", ").any(|known| known == field);
            pieces.push(match field {
                _ if !is_known && !field.contains('{') => {
                    return Err(TemplateError::UnknownField { template: whole(), known, field: field.into() });
                }
                "type" => Piece::Type,
                "source" => Piece::Source,
                "schema" => Piece::Schema,
                "table" => Piece::Table,
                "op" => Piece::Op,
                "key" => Piece::Key,
                "partition" => Piece::Partition,
                _ => return Err(TemplateError::Brace { template: whole() }),
            });
            sample.push('x');
            rest = tail;
        }
        if sample.starts_with('$') {
            return Err(TemplateError::Character { template: whole(), character: '$' });
        }
        if sample.split('.').any(str::is_empty) {
            return Err(TemplateError::EmptyToken { template: whole() });
        }
        Ok(Self(pieces))
    }

    /// The template with all filled in that is the same for every event of a table.
    pub(super) fn of_table(&self, source: &str, schema: &str, table: &str) -> Subject {
        self.filled(source, &[schema, table, ""])
    }

    /// The same for every event of a type.
    pub(super) fn of_type(&self, source: &str, event_type: &str) -> Subject {
        self.filled(source, &["", "", event_type])
    }

    fn filled(&self, source: &str, [schema, table, event_type]: &[&str; 3]) -> Subject {
        let mut slots = Vec::new();
        let mut text = Vec::new();
        for piece in &self.0 {
            let slot = match piece {
                Piece::Text(constant) => {
                    text.extend_from_slice(constant.as_bytes());
                    continue;
                }
                Piece::Source => {
                    write_token(source.as_bytes(), &mut text);
                    continue;
                }
                Piece::Schema => {
                    write_token(schema.as_bytes(), &mut text);
                    continue;
                }
                Piece::Table => {
                    write_token(table.as_bytes(), &mut text);
                    continue;
                }
                Piece::Type => {
                    write_token(event_type.as_bytes(), &mut text);
                    continue;
                }
                Piece::Op => Slot::Op,
                Piece::Key => Slot::Key,
                Piece::Partition => Slot::Partition,
            };
            slots.push((std::mem::take(&mut text), slot));
        }
        Subject { slots, tail: text }
    }
}

/// The subject of a table or a type: constant text, and slots for what differs from event to event.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    slots: Vec<(Vec<u8>, Slot)>,
    tail: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Slot {
    Op,
    Key,
    Partition,
}

impl Subject {
    /// Appends the subject of one event; `keyed` holds the key's text and the
    /// partition, and is `None` for an event that concerns all rows.
    pub(super) fn write(&self, op: &str, keyed: Option<(&[u8], u16)>, out: &mut Vec<u8>) {
        for (text, slot) in &self.slots {
            out.extend_from_slice(text);
            match (slot, keyed) {
                (Slot::Op, _) => out.extend_from_slice(op.as_bytes()),
                (Slot::Key, Some((key, _))) => write_token(key, out),
                (Slot::Partition, Some((_, partition))) => write_padded(partition.into(), 2, out),
                (Slot::Key | Slot::Partition, None) => out.extend_from_slice(ALL),
            }
        }
        out.extend_from_slice(&self.tail);
    }
}

/// Appends a name or key as one token of a subject.
///
/// `[A-Za-z0-9_-]` stay, every other byte becomes `=XX`; nothing becomes `=`. A
/// token that would be longer than 128 bytes is cut to at most 96, followed by
/// `=~` and the first 16 hexadecimal digits of the SHA-256 of the raw bytes.
pub(crate) fn write_token(raw: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    if raw.is_empty() {
        out.push(b'=');
        return;
    }
    for &byte in raw {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            out.push(byte);
        } else {
            let digit = |nibble: u8| UPPER_HEX.get(nibble as usize).copied().unwrap_or(b'0');
            out.extend_from_slice(&[b'=', digit(byte >> 4), digit(byte & 0xf)]);
        }
        if out.len() - start > TOKEN_MAX {
            // An escape is three bytes: it begins at most two before the cut.
            let mut kept = TOKEN_KEPT;
            for back in 1..=2 {
                if out.get(start + TOKEN_KEPT - back) == Some(&b'=') {
                    kept = TOKEN_KEPT - back;
                }
            }
            out.truncate(start + kept);
            out.extend_from_slice(b"=~");
            write_hex(Sha256::digest(raw).iter().take(TOKEN_DIGEST), out);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escape(raw: &[u8]) -> String {
        let mut out = b"before.".to_vec();
        write_token(raw, &mut out);
        String::from_utf8(out).unwrap()["before.".len()..].to_owned()
    }

    fn unescape(token: &str) -> Option<Vec<u8>> {
        if token == "=" {
            return Some(Vec::new());
        }
        let mut out = Vec::new();
        let mut rest = token.as_bytes();
        while let Some((&byte, tail)) = rest.split_first() {
            if byte == b'=' {
                let (hex, tail) = tail.split_at_checked(2)?;
                out.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
                rest = tail;
            } else {
                out.push(byte);
                rest = tail;
            }
        }
        Some(out)
    }

    proptest! {
        #[test]
        fn a_token_holds_only_what_a_subject_may(raw in any::<Vec<u8>>()) {
            let token = escape(&raw);
            prop_assert!(!token.is_empty() && token.len() <= TOKEN_MAX);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-=~".contains(&b)), "{token}");
        }

        #[test]
        fn a_token_that_is_not_cut_reads_back(raw in any::<Vec<u8>>()) {
            let token = escape(&raw);
            if !token.contains("=~") {
                prop_assert_eq!(unescape(&token), Some(raw));
            }
        }

        #[test]
        fn different_names_give_different_tokens(a in ".{0,80}", b in ".{0,80}") {
            prop_assert_eq!(a == b, escape(a.as_bytes()) == escape(b.as_bytes()));
        }

        #[test]
        fn a_cut_token_ends_behind_a_whole_escape(raw in prop::collection::vec(prop_oneof![Just(b'a'), Just(b'.')], 100..200)) {
            let token = escape(&raw);
            if let Some((kept, mark)) = token.split_once("=~") {
                prop_assert!(raw.starts_with(&unescape(kept).expect("whole escapes")));
                prop_assert_eq!(mark.len(), 2 * TOKEN_DIGEST);
            }
        }

        #[test]
        fn any_template_is_parsed_or_refused(template in ".{0,40}") {
            let _ = check_template(&template);
        }
    }

    #[test]
    fn tokens_are_as_documented() {
        assert_eq!(escape(b"orders_2-A"), "orders_2-A");
        assert_eq!(escape(b""), "=");
        assert_eq!(escape(b"a.b*> \r\n="), "a=2Eb=2A=3E=20=0D=0A=3D");
        assert_eq!(escape("ä".as_bytes()), "=C3=A4");
        assert_eq!(escape(&[b'x'; 128]), "x".repeat(128));
        let long = escape(&[b'x'; 129]);
        assert_eq!(long, format!("{}=~0ec9eb33e74510bc", "x".repeat(96)));
    }

    #[test]
    fn long_tokens_that_differ_only_in_their_tail_stay_apart() {
        let mut other = [b'x'; 300];
        other[299] = b'y';
        assert_ne!(escape(&[b'x'; 300]), escape(&other));
    }

    #[test]
    fn a_template_is_filled_in() {
        let template = Template::parse("cdc.{source}.{schema}-{table}.{op}.{key}.p{partition}.end").expect("valid");
        let subject = template.of_table("shop", "public", "a.b");
        let mut out = Vec::new();
        subject.write("insert", Some((b"4 2", 3)), &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "cdc.shop.public-a=2Eb.insert.4=202.p03.end");
        out.clear();
        subject.write("truncate", None, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "cdc.shop.public-a=2Eb.truncate.all.pall.end");
    }

    #[test]
    fn templates_that_cannot_be_published_to_are_refused() {
        for template in [
            "",
            ".",
            "a..b",
            "a.",
            ".a",
            "a b",
            "a.*",
            "a.>",
            "a.{type}",
            "a.{",
            "a.}",
            "a.{{key}}",
            "a.{key",
            "$JS.{key}",
            "ä",
            "a\r\n",
            "{}",
        ] {
            assert!(check_template(template).is_err(), "{template:?}");
        }
        assert!(check_domain_template("events.{source}.{type}.{partition}").is_ok());
        assert!(check_domain_template("events.{table}").is_err());
        assert!(check_template("cdc.{source}.{schema}.{table}.{partition}").is_ok());
    }

    #[test]
    fn an_unknown_field_is_named() {
        assert_eq!(
            check_template("cdc.{tabel}").unwrap_err().to_string(),
            "subject template \"cdc.{tabel}\" has the unknown field {tabel} \
             (known are source, schema, table, op, key, partition)"
        );
    }
}
