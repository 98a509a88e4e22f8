//! Composite values: `(1,"a b",)`.

use std::sync::Arc;

use figvine_change::json::write_str;
use figvine_change::{JsonType, ValueCodec, ValueError};

/// A composite type: an object by the names of its attributes.
#[derive(Debug)]
pub(super) struct Composite {
    name: Box<str>,
    attributes: Vec<Attribute>,
}

#[derive(Debug)]
struct Attribute {
    name: Box<str>,
    /// `"name":`, as it stands in the object.
    label: Box<[u8]>,
    codec: Arc<dyn ValueCodec>,
}

const UNCLOSED: &str = "a parenthesis or quote is not closed";

impl Composite {
    /// The attributes in order, without dropped ones.
    pub(super) fn shared<'a>(
        name: impl Into<Box<str>>,
        attributes: impl Iterator<Item = (&'a str, Arc<dyn ValueCodec>)>,
    ) -> Arc<dyn ValueCodec> {
        let attributes = attributes.map(|(name, codec)| {
            let mut label = Vec::with_capacity(name.len() + 3);
            write_str(name, &mut label);
            label.push(b':');
            Attribute { name: name.into(), label: label.into(), codec }
        });
        Arc::new(Self { name: name.into(), attributes: attributes.collect() })
    }

    fn error(&self, reason: &'static str) -> ValueError {
        ValueError { type_name: self.name.clone(), reason }
    }
}

impl ValueCodec for Composite {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let mut rest = raw.strip_prefix(b"(").ok_or_else(|| self.error("not in parentheses"))?;
        let mut scratch = Vec::new();
        out.push(b'{');
        for (index, attribute) in self.attributes.iter().enumerate() {
            if index > 0 {
                rest = rest.strip_prefix(b",").ok_or_else(|| self.error("wrong number of attributes"))?;
                out.push(b',');
            }
            out.extend_from_slice(&attribute.label);
            match rest {
                [b',' | b')', ..] => out.extend_from_slice(b"null"),
                [b'"', tail @ ..] => {
                    let (value, tail) = unescape(tail, &mut scratch).ok_or_else(|| self.error(UNCLOSED))?;
                    attribute.codec.write_json(value, out)?;
                    rest = tail;
                }
                _ => {
                    let special = |b: &u8| matches!(b, b',' | b')' | b'(' | b'"' | b'\\');
                    let end = rest.iter().position(special).ok_or_else(|| self.error(UNCLOSED))?;
                    let (value, tail) = rest.split_at_checked(end).ok_or_else(|| self.error(UNCLOSED))?;
                    attribute.codec.write_json(value, out)?;
                    rest = tail;
                }
            }
        }
        out.push(b'}');
        match rest {
            b")" => Ok(()),
            [b')', ..] => Err(self.error("something behind the closing parenthesis")),
            [] => Err(self.error(UNCLOSED)),
            _ => Err(self.error("wrong number of attributes")),
        }
    }

    fn json_type(&self) -> JsonType {
        let members = self.attributes.iter().map(|attribute| (attribute.name.clone(), attribute.codec.json_type()));
        JsonType::Object(members.collect())
    }
}

/// Reads up to the closing quote. Quotes and backslashes are doubled inside;
/// input may escape anything by a backslash. Copies into `scratch` only where
/// something is escaped. Returns the text and what follows the quote.
fn unescape<'s, 't: 's>(text: &'t [u8], scratch: &'s mut Vec<u8>) -> Option<(&'s [u8], &'t [u8])> {
    let (plain, mut rest) = text.split_at_checked(memchr::memchr2(b'"', b'\\', text)?)?;
    match rest {
        [b'"', b'"', ..] | [b'\\', ..] => {}
        [_, tail @ ..] => return Some((plain, tail)),
        [] => return None,
    }
    scratch.clear();
    scratch.extend_from_slice(plain);
    loop {
        match rest {
            [b'"', b'"', tail @ ..] => {
                scratch.push(b'"');
                rest = tail;
            }
            [b'"', tail @ ..] => return Some((scratch, tail)),
            [b'\\', escaped, tail @ ..] => {
                scratch.push(*escaped);
                rest = tail;
            }
            _ => return None,
        }
        let (plain, tail) = rest.split_at_checked(memchr::memchr2(b'"', b'\\', rest)?)?;
        scratch.extend_from_slice(plain);
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{TypeRow, Types};
    use super::*;
    use crate::config::ValueOptions;

    /// `pair (a int4, "b ""c" text)` 1, `outer (p pair, list text[])` 2, `empty ()` 3, `single (v text)` 4.
    fn types() -> Types {
        let mut types = Types::new(&ValueOptions::default());
        let row = |oid: u32, name: &str, attributes: &[(&str, u32)]| TypeRow {
            oid: 70_000 + oid,
            schema: "public".into(),
            name: name.into(),
            kind: 'c',
            category: 'C',
            element: 0,
            delimiter: b',',
            base: 0,
            base_modifier: -1,
            attributes: attributes.iter().map(|(name, oid)| ((*name).into(), *oid)).collect(),
        };
        types.add(vec![
            row(1, "pair", &[("a", 23), ("b \"c", 25)]),
            row(2, "outer", &[("p", 70_001), ("list", 1009)]),
            row(3, "empty", &[]),
            row(4, "single", &[("v", 25)]),
        ]);
        types
    }

    fn json(oid: u32, text: &str) -> Result<String, ValueError> {
        let mut out = Vec::new();
        types().codec(70_000 + oid).write_json(text.as_bytes(), &mut out)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn composites_become_objects() {
        for (oid, raw, expected) in [
            (1, "(1,x)", r#"{"a":1,"b \"c":"x"}"#),
            (1, "(,)", r#"{"a":null,"b \"c":null}"#),
            (1, "(1,\"\")", r#"{"a":1,"b \"c":""}"#),
            (1, "(1,NULL)", r#"{"a":1,"b \"c":"NULL"}"#),
            (1, r#"(-1,"a b,(c)")"#, r#"{"a":-1,"b \"c":"a b,(c)"}"#),
            (1, r#"(1,"""a"" \\ é")"#, r#"{"a":1,"b \"c":"\"a\" \\ é"}"#),
            (1, r#"(1,"\"")"#, r#"{"a":1,"b \"c":"\""}"#),
            (
                2,
                r#"("(1,""a """"q"""""")","{x,""y z"",NULL}")"#,
                r#"{"p":{"a":1,"b \"c":"a \"q\""},"list":["x","y z",null]}"#,
            ),
            (2, r#"("(,)",{})"#, r#"{"p":{"a":null,"b \"c":null},"list":[]}"#),
            (3, "()", "{}"),
            (4, "()", r#"{"v":null}"#),
            (4, r#"("")"#, r#"{"v":""}"#),
        ] {
            assert_eq!(json(oid, raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn what_is_no_composite_is_refused() {
        for raw in [
            "",
            "(",
            ")",
            "()",
            "(1)",
            "(1,",
            "(1,x",
            "(1,x,)",
            "(1,x)y",
            "(1,\"x)",
            "(1,\"x\"y)",
            "(1,x\"y\")",
            "1,x",
            "(1,\"\\",
        ] {
            assert!(json(1, raw).is_err(), "{raw}");
        }
        assert!(json(3, "(1)").is_err());
        assert_eq!(json(1, "(1)").expect_err("too few").reason, "wrong number of attributes");
        assert_eq!(json(1, "(1,2,3)").expect_err("too many").reason, "wrong number of attributes");
    }
}
