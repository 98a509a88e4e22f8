//! Arrays: `{1,NULL,"a\"b"}`, nested by dimension, perhaps behind `[0:1]=`.

use std::sync::Arc;

use figvine_change::{JsonType, ValueCodec, ValueError};

/// PostgreSQL has at most 6 dimensions (`MAXDIM`).
const MAX_DIMENSIONS: usize = 16;

/// An array of any number of dimensions, without its lower bounds.
#[derive(Debug)]
pub(super) struct Array {
    name: Box<str>,
    delimiter: u8,
    element: Arc<dyn ValueCodec>,
}

impl Array {
    /// `delimiter` is `typdelim` of the element's type.
    pub(super) fn shared(
        name: impl Into<Box<str>>,
        delimiter: u8,
        element: Arc<dyn ValueCodec>,
    ) -> Arc<dyn ValueCodec> {
        Arc::new(Self { name: name.into(), delimiter, element })
    }

    fn error(&self, reason: &'static str) -> ValueError {
        ValueError { type_name: self.name.clone(), reason }
    }

    /// Writes an element that stands without quotes at the start of `text`; returns what follows.
    fn write_bare<'a>(&self, text: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], ValueError> {
        let special = |&b: &u8| b == self.delimiter || matches!(b, b'{' | b'}' | b'"' | b'\\');
        let at = text.iter().position(special).unwrap_or(text.len());
        let (element, rest) = text.split_at_checked(at).unwrap_or((text, &[]));
        if element.is_empty() {
            return Err(self.error("an element is missing"));
        }
        if element.eq_ignore_ascii_case(b"NULL") {
            out.extend_from_slice(b"null");
        } else {
            self.element.write_json(element, out)?;
        }
        Ok(rest)
    }
}

impl ValueCodec for Array {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let mut rest = after_bounds(raw).ok_or_else(|| self.error("malformed array bounds"))?;
        let mut scratch = Vec::new();
        let mut depth = 0;
        // The depth of all elements, once the first was seen.
        let mut dimensions = None;
        loop {
            // An element, or an array that opens.
            match rest {
                [b'{', b'}', tail @ ..] if dimensions.is_none() => {
                    out.extend_from_slice(b"[]");
                    rest = tail;
                }
                [b'{', tail @ ..] => {
                    depth += 1;
                    if depth > MAX_DIMENSIONS {
                        return Err(self.error("too many dimensions"));
                    }
                    out.push(b'[');
                    rest = tail;
                    continue;
                }
                _ if depth == 0 => return Err(self.error("not in braces")),
                _ if *dimensions.get_or_insert(depth) != depth => {
                    return Err(self.error("elements of different depth"));
                }
                [b'"', tail @ ..] => {
                    let (element, tail) =
                        unescape(tail, &mut scratch).ok_or_else(|| self.error("a quote is not closed"))?;
                    self.element.write_json(element, out)?;
                    rest = tail;
                }
                _ => rest = self.write_bare(rest, out)?,
            }
            // What closes behind it.
            while let [b'}', tail @ ..] = rest
                && depth > 0
            {
                depth -= 1;
                out.push(b']');
                rest = tail;
            }
            match rest {
                [] if depth == 0 => return Ok(()),
                [byte, tail @ ..] if *byte == self.delimiter && depth > 0 => {
                    out.push(b',');
                    rest = tail;
                }
                [] => return Err(self.error("a brace is not closed")),
                _ => return Err(self.error("something else than a delimiter behind an element")),
            }
        }
    }

    fn json_type(&self) -> JsonType {
        JsonType::Array(Box::new(self.element.json_type()))
    }
}

/// What follows `[1:2][-1:0]=`, where an array's bounds do not start at 1; `None` when that is malformed.
fn after_bounds(raw: &[u8]) -> Option<&[u8]> {
    if !raw.starts_with(b"[") {
        return Some(raw);
    }
    let (bounds, body) = memchr::memchr(b'=', raw).and_then(|at| raw.split_at_checked(at))?;
    let valid = bounds.iter().all(|b| b.is_ascii_digit() || matches!(b, b'[' | b']' | b':' | b'-'));
    if valid { body.strip_prefix(b"=") } else { None }
}

/// Reads up to the closing quote, taking backslashes away. Copies into `scratch`
/// only where there are any. Returns the text and what follows the quote.
pub(super) fn unescape<'s, 't: 's>(text: &'t [u8], scratch: &'s mut Vec<u8>) -> Option<(&'s [u8], &'t [u8])> {
    let mut at = memchr::memchr2(b'"', b'\\', text)?;
    let (plain, mut rest) = text.split_at_checked(at)?;
    if let [b'"', tail @ ..] = rest {
        return Some((plain, tail));
    }
    scratch.clear();
    scratch.extend_from_slice(plain);
    loop {
        match rest {
            [b'"', tail @ ..] => return Some((scratch, tail)),
            [b'\\', escaped, tail @ ..] => {
                scratch.push(*escaped);
                rest = tail;
            }
            _ => return None,
        }
        at = memchr::memchr2(b'"', b'\\', rest)?;
        let (plain, tail) = rest.split_at_checked(at)?;
        scratch.extend_from_slice(plain);
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::super::Types;
    use super::*;
    use crate::config::ValueOptions;

    fn json(oid: u32, text: &str) -> Result<String, ValueError> {
        let mut out = Vec::new();
        Types::new(&ValueOptions::default()).codec(oid).write_json(text.as_bytes(), &mut out)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    const INT4: u32 = 1007;
    const TEXT: u32 = 1009;
    const BOX: u32 = 1020;

    #[test]
    fn arrays_become_arrays_of_the_same_depth() {
        for (oid, raw, expected) in [
            (INT4, "{}", "[]"),
            (INT4, "{1}", "[1]"),
            (INT4, "{1,NULL,-3}", "[1,null,-3]"),
            (INT4, "{{1,2},{3,4}}", "[[1,2],[3,4]]"),
            (INT4, "{{{{{{1}}}}}}", "[[[[[[1]]]]]]"),
            (INT4, "[0:1]={1,2}", "[1,2]"),
            (INT4, "[-1:0][2:3]={{1,2},{3,NULL}}", "[[1,2],[3,null]]"),
            (TEXT, r#"{a,"a b","","NULL",null,"a\"b\\c","{,}"}"#, r#"["a","a b","","NULL",null,"a\"b\\c","{,}"]"#),
            (TEXT, r#"{"\\","\"","é,🐘"}"#, r#"["\\","\"","é,🐘"]"#),
            (TEXT, "{=,a=b}", r#"["=","a=b"]"#),
            (BOX, "{(1,1),(0,0);(2,2),(1,1)}", r#"["(1,1),(0,0)","(2,2),(1,1)"]"#),
            (1115, r#"{"2026-11-23 09:00:00",infinity}"#, r#"["2026-11-23T09:00:00","infinity"]"#),
            (1001, r#"{"\\x00ff"}"#, r#"["AP8="]"#),
            (3807, r#"{"{\"a\": [1, 2]}",NULL}"#, r#"[{"a":[1,2]},null]"#),
            (1231, "{1.10,NaN}", r#"["1.10","NaN"]"#),
            (1000, "{t,f}", "[true,false]"),
            (1006, r#"{"1 2",3}"#, "[[1,2],[3]]"),
        ] {
            assert_eq!(json(oid, raw).as_deref(), Ok(expected), "{raw}");
        }
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for raw in [
            "", "1", "{", "}", "{}}", "{}{}", "{1", "{1}}", "{1,}", "{,1}", "{,}", "{\"1}", "{\"1\\", "{1 2}", "{1}2",
            "{{1},2}", "{1,{2}}", "{{1}{2}}", "{\"1\"2}", "{1\"2\"}", "[0:1]", "[0:1]=", "[a]={1}", "{{1},}", "{}1",
            "{1},{2}", "NULL", "{1,{}}", "{1;2}",
        ] {
            assert!(json(INT4, raw).is_err(), "{raw}");
        }
        let deep = format!("{}1{}", "{".repeat(17), "}".repeat(17));
        assert_eq!(json(INT4, &deep).expect_err("too deep").reason, "too many dimensions");
        assert!(json(INT4, &"{".repeat(100_000)).is_err());
        assert_eq!(
            json(INT4, "{x}").expect_err("no number").to_string(),
            "not a value of type int4: not a whole number"
        );
    }
}
