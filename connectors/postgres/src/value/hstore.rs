//! hstore: `"a"=>"1", "b"=>NULL`. Its output quotes every key and every value.

use super::array::unescape;
use super::text::write_text;

const WRONG: &str = "not pairs of quoted keys and values";

/// An object of strings and nulls.
pub(super) fn write_hstore(raw: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut scratch = Vec::new();
    let mut rest = raw;
    out.push(b'{');
    while !rest.is_empty() {
        rest = write_quoted(rest, &mut scratch, out)?.strip_prefix(b"=>").ok_or(WRONG)?;
        out.push(b':');
        rest = match rest.strip_prefix(b"NULL") {
            Some(tail) => {
                out.extend_from_slice(b"null");
                tail
            }
            None => write_quoted(rest, &mut scratch, out)?,
        };
        if !rest.is_empty() {
            out.push(b',');
            rest = rest.strip_prefix(b", ").filter(|rest| !rest.is_empty()).ok_or(WRONG)?;
        }
    }
    out.push(b'}');
    Ok(())
}

fn write_quoted<'a>(text: &'a [u8], scratch: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<&'a [u8], &'static str> {
    let text = text.strip_prefix(b"\"").ok_or(WRONG)?;
    let (value, rest) = unescape(text, scratch).ok_or("a quote is not closed")?;
    write_text(value, out)?;
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::super::properties::{refused, written};
    use super::*;

    #[test]
    fn pairs_become_an_object() {
        for (raw, json) in [
            ("", "{}"),
            (r#""a"=>"1""#, r#"{"a":"1"}"#),
            (r#""a"=>NULL, "b"=>"NULL", ""=>"""#, r#"{"a":null,"b":"NULL","":""}"#),
            (r#""a\"=>\\"=>", \"", "é"=>"x y""#, r#"{"a\"=>\\":", \"","é":"x y"}"#),
        ] {
            assert_eq!(written(write_hstore, raw.as_bytes()), json);
        }
    }

    #[test]
    fn what_are_no_pairs_is_refused() {
        for raw in [
            "a",
            "a=>1",
            "\"a\"",
            "\"a\"=>",
            "\"a\"=>1",
            "\"a\"=>null",
            "\"a\"=>\"1",
            "\"a\"=>\"1\",",
            "\"a\"=>\"1\", ",
            "\"a\"=>NULLx",
            "\"\\",
            " ",
        ] {
            refused(write_hstore, raw.as_bytes());
        }
        assert_eq!(refused(write_hstore, b"\"\xff\"=>NULL"), "is not UTF-8");
    }
}
