//! MySQL's JSON: its binary form as text.
//!
//! ```text
//!   document   type, value                    an empty document is null
//!   container  count, size, entries, values   numbers of 2 bytes (small) or 4 (large)
//!   entry      object: key offset, key length (2); then for each: type, offset or the value itself
//! ```
//! (MySQL, `sql-common/json_binary.h`.) Offsets count from the container's start
//! and a value stands behind its container's entries, so nesting always goes forward. Nothing
//! keeps two entries from pointing to one value, though, and a few bytes could
//! unfold without end: all that is read is counted, and may not exceed the document's length.
//!
//! Numbers and the texts of dates are the server's own. A document may also be
//! [`TEXT`] and JSON text: what a partial update was applied to, or what a query gave.

use figvine_change::json::{write_escaped, write_int, write_uint};

use super::decimal::{Shape, push_decimal};
use super::text::push_base64;
use super::{Outcome, json_text, number, time};

/// Stands before a document that is JSON text. No type of the binary form has this code.
pub const TEXT: u8 = 0xff;

/// MySQL takes no deeper documents.
pub(super) const MAX_DEPTH: usize = 100;

const TRUNCATED: &str = "is a JSON document that ends too early";
const OFFSET: &str = "is a JSON document with an offset out of range";
const OVERLAP: &str = "is a JSON document whose values overlap";
const KIND: &str = "is a JSON document with an unknown type";
const LITERAL: &str = "is a JSON document with an unknown literal";
const UTF8: &str = "is a JSON document with text that is not UTF-8";
pub(super) const DEPTH: &str = "is a JSON document nested too deep";

/// Writes a document.
pub(super) fn write_json(raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    match raw.split_first() {
        // IGNORE and non-strict modes store nothing where a NOT NULL column got no value.
        None => out.extend_from_slice(b"null"),
        Some((&TEXT, text)) => json_text::write_json_text(text, out)?,
        Some(_) => {
            let mut budget = Budget::of(raw);
            let item = budget.document(raw)?;
            write_item(&item, MAX_DEPTH, &mut budget, out)?;
        }
    }
    Ok(())
}

/// A value; containers are read as they are gone through.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item<'a> {
    Null,
    Boolean(bool),
    Signed(i64),
    Unsigned(u64),
    Double(f64),
    Text(&'a str),
    /// A value of another type: its code and its bytes.
    Opaque(u8, &'a [u8]),
    Container(Container<'a>),
}

/// An object or an array.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container<'a> {
    /// Exactly its bytes.
    data: &'a [u8],
    pub(super) count: usize,
    large: bool,
    pub(super) is_object: bool,
}

/// The bytes of a document that were not read yet.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn of(document: &[u8]) -> Self {
        Self(document.len())
    }

    fn spend(&mut self, bytes: usize) -> Outcome {
        self.0 = self.0.checked_sub(bytes).ok_or(OVERLAP)?;
        Ok(())
    }

    /// The outermost value.
    pub(super) fn document<'a>(&mut self, raw: &'a [u8]) -> Result<Item<'a>, &'static str> {
        let (&kind, data) = raw.split_first().ok_or(TRUNCATED)?;
        self.item(kind, data)
    }

    /// A value whose bytes begin at `data`.
    fn item<'a>(&mut self, kind: u8, data: &'a [u8]) -> Result<Item<'a>, &'static str> {
        Ok(match kind {
            0x00..=0x03 => {
                let large = kind & 1 == 1;
                let is_object = kind < 2;
                let width = if large { 4 } else { 2 };
                let count = unsigned(data, 0, width)?;
                let size = unsigned(data, width, width)?;
                let data = data.get(..size).ok_or(OFFSET)?;
                let container = Container { data, count, large, is_object };
                let entries = container.values_at(count).ok_or(OFFSET)?;
                if entries > size {
                    return Err(OFFSET);
                }
                self.spend(entries)?;
                Item::Container(container)
            }
            0x04 => literal(u64::from(*data.first().ok_or(TRUNCATED)?))?,
            0x05 => Item::Signed(i16::from_le_bytes(fixed(data)?).into()),
            0x06 => Item::Unsigned(u16::from_le_bytes(fixed(data)?).into()),
            0x07 => Item::Signed(i32::from_le_bytes(fixed(data)?).into()),
            0x08 => Item::Unsigned(u32::from_le_bytes(fixed(data)?).into()),
            0x09 => Item::Signed(i64::from_le_bytes(fixed(data)?)),
            0x0a => Item::Unsigned(u64::from_le_bytes(fixed(data)?)),
            0x0b => Item::Double(f64::from_le_bytes(fixed(data)?)),
            0x0c => Item::Text(std::str::from_utf8(self.sized(data)?).map_err(|_| UTF8)?),
            0x0f => {
                let (&kind, data) = data.split_first().ok_or(TRUNCATED)?;
                Item::Opaque(kind, self.sized(data)?)
            }
            _ => return Err(KIND),
        })
    }

    /// Bytes behind their length: seven bits a byte, the lowest first, the top bit for more.
    fn sized<'a>(&mut self, data: &'a [u8]) -> Result<&'a [u8], &'static str> {
        let mut len = 0_u64;
        let mut rest = data;
        for shift in (0..35).step_by(7) {
            let (&byte, tail) = rest.split_first().ok_or(TRUNCATED)?;
            rest = tail;
            len |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let bytes = usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or(TRUNCATED)?;
                self.spend(bytes.len() + 1)?;
                return Ok(bytes);
            }
        }
        Err(TRUNCATED)
    }

    /// One member: its name (empty in an array) and its value.
    pub(super) fn member<'a>(
        &mut self,
        container: &Container<'a>,
        index: usize,
    ) -> Result<(&'a str, Item<'a>), &'static str> {
        let width = container.width();
        let data = container.data;
        let mut name = "";
        if container.is_object {
            let entry = 2 * width + index * (width + 2);
            let start = unsigned(data, entry, width)?;
            let len = unsigned(data, entry + width, 2)?;
            if start < container.values_at(container.count).ok_or(OFFSET)? {
                return Err(OFFSET);
            }
            let bytes = data.get(start..start.saturating_add(len)).ok_or(OFFSET)?;
            self.spend(len)?;
            name = std::str::from_utf8(bytes).map_err(|_| UTF8)?;
        }
        let entry = container.values_at(index).ok_or(OFFSET)?;
        let kind = *data.get(entry).ok_or(OFFSET)?;
        let value = unsigned(data, entry + 1, width)?;
        let item = match kind {
            0x04 => literal(value as u64)?,
            0x05 | 0x06 => self.item(kind, data.get(entry + 1..).ok_or(OFFSET)?)?,
            0x07 | 0x08 if container.large => self.item(kind, data.get(entry + 1..).ok_or(OFFSET)?)?,
            _ if value < container.values_at(container.count).ok_or(OFFSET)? => return Err(OFFSET),
            _ => self.item(kind, data.get(value..).ok_or(OFFSET)?)?,
        };
        Ok((name, item))
    }
}

impl Container<'_> {
    fn width(&self) -> usize {
        if self.large { 4 } else { 2 }
    }

    /// Where the value entry of a member begins; for `count`, where the entries end.
    fn values_at(&self, index: usize) -> Option<usize> {
        let width = self.width();
        let keys = if self.is_object { self.count.checked_mul(width + 2)? } else { 0 };
        index.checked_mul(width + 1)?.checked_add(keys)?.checked_add(2 * width)
    }
}

fn fixed<const N: usize>(data: &[u8]) -> Result<[u8; N], &'static str> {
    data.first_chunk().copied().ok_or(TRUNCATED)
}

/// A little-endian number of 2 or 4 bytes.
fn unsigned(data: &[u8], at: usize, width: usize) -> Result<usize, &'static str> {
    let bytes = data.get(at..at + width).ok_or(TRUNCATED)?;
    Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte)))
}

fn literal(code: u64) -> Result<Item<'static>, &'static str> {
    match code {
        0 => Ok(Item::Null),
        1 => Ok(Item::Boolean(true)),
        2 => Ok(Item::Boolean(false)),
        _ => Err(LITERAL),
    }
}

fn write_item(item: &Item<'_>, depth: usize, budget: &mut Budget, out: &mut Vec<u8>) -> Outcome {
    let Item::Container(container) = item else { return write_scalar(item, out) };
    let depth = depth.checked_sub(1).ok_or(DEPTH)?;
    out.push(if container.is_object { b'{' } else { b'[' });
    for index in 0..container.count {
        if index > 0 {
            out.push(b',');
        }
        let (name, item) = budget.member(container, index)?;
        if container.is_object {
            push_name(name, out);
        }
        write_item(&item, depth, budget, out)?;
    }
    out.push(if container.is_object { b'}' } else { b']' });
    Ok(())
}

/// Appends a member's name and the colon.
pub(super) fn push_name(name: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped(name, out);
    out.extend_from_slice(b"\":");
}

/// Writes what is no container.
pub(super) fn write_scalar(item: &Item<'_>, out: &mut Vec<u8>) -> Outcome {
    match *item {
        Item::Null => out.extend_from_slice(b"null"),
        Item::Boolean(true) => out.extend_from_slice(b"true"),
        Item::Boolean(false) => out.extend_from_slice(b"false"),
        Item::Signed(number) => write_int(number, out),
        Item::Unsigned(number) => write_uint(number, out),
        Item::Double(number) => {
            let start = out.len();
            number::push_double(number, out);
            // So the server tells a double from an integer.
            if !out.iter().skip(start).any(|byte| matches!(byte, b'.' | b'e' | b'"')) {
                out.extend_from_slice(b".0");
            }
        }
        Item::Text(text) => {
            out.push(b'"');
            write_escaped(text, out);
            out.push(b'"');
        }
        Item::Opaque(kind, raw) => write_opaque(kind, raw, out)?,
        Item::Container(_) => return Err(KIND),
    }
    Ok(())
}

fn write_opaque(kind: u8, raw: &[u8], out: &mut Vec<u8>) -> Outcome {
    match kind {
        super::kind::NEWDECIMAL => match raw {
            [precision, scale, packed @ ..] => {
                push_decimal(packed, Shape { precision: (*precision).into(), scale: (*scale).into() }, out)
            }
            _ => Err(TRUNCATED),
        },
        super::kind::DATE | super::kind::NEWDATE => time::write_json_date(raw, out),
        super::kind::TIME | super::kind::TIME2 => time::write_json_time(raw, out),
        super::kind::DATETIME | super::kind::DATETIME2 | super::kind::TIMESTAMP | super::kind::TIMESTAMP2 => {
            time::write_json_datetime(raw, out)
        }
        _ => {
            out.extend_from_slice(b"\"base64:type");
            write_uint(kind.into(), out);
            out.push(b':');
            // The server breaks its base64 after 76 characters, here as elsewhere.
            for (index, line) in raw.chunks(57).enumerate() {
                if index > 0 {
                    out.extend_from_slice(b"\\n");
                }
                push_base64(line, out);
            }
            out.push(b'"');
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
