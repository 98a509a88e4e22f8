//! How many bytes a value takes in a row image, by its column's type and metadata.

use super::reader::{DecodeError, Reader};
use super::table_map::{column_type as t, string_bytes};

/// How a value stands in a row image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// So many bytes.
    Fixed(u8),
    /// Behind its length, a number of so many bytes, 1 to 4.
    Prefixed(u8),
    /// A type that cannot be read.
    Unknown,
}

impl Width {
    /// Of a column's real type, with its [`super::table_map::ColumnMap::metadata`].
    pub(super) fn of(type_code: u8, metadata: u16) -> Self {
        let [low, high] = metadata.to_le_bytes();
        match type_code {
            t::TINY | t::YEAR => Self::Fixed(1),
            t::SHORT => Self::Fixed(2),
            t::INT24 | t::DATE | t::NEWDATE | t::TIME => Self::Fixed(3),
            t::LONG | t::TIMESTAMP => Self::Fixed(4),
            t::LONGLONG | t::DATETIME => Self::Fixed(8),
            t::NULL => Self::Fixed(0),
            // The metadata is the width.
            t::FLOAT | t::DOUBLE if matches!(metadata, 4 | 8) => Self::Fixed(low),
            t::TIMESTAMP2 if metadata <= 6 => Self::Fixed(4 + low.div_ceil(2)),
            t::DATETIME2 if metadata <= 6 => Self::Fixed(5 + low.div_ceil(2)),
            t::TIME2 if metadata <= 6 => Self::Fixed(3 + low.div_ceil(2)),
            t::NEWDECIMAL => decimal(high, low),
            // Whole bytes, and bits of one more.
            t::BIT if low <= 8 && high <= 8 => Self::Fixed(high + u8::from(low > 0)),
            t::ENUM if matches!(low, 1 | 2) => Self::Fixed(low),
            t::SET if matches!(low, 1..=8) => Self::Fixed(low),
            t::STRING => Self::Prefixed(if string_bytes(metadata) > 255 { 2 } else { 1 }),
            t::VARCHAR | t::VAR_STRING | t::VARCHAR_COMPRESSED => Self::Prefixed(if metadata > 255 { 2 } else { 1 }),
            t::TINY_BLOB
            | t::MEDIUM_BLOB
            | t::LONG_BLOB
            | t::BLOB
            | t::BLOB_COMPRESSED
            | t::JSON
            | t::GEOMETRY
            | t::VECTOR
                if matches!(metadata, 1..=4) =>
            {
                Self::Prefixed(low)
            }
            // JSON inside.
            t::TYPED_ARRAY => Self::Prefixed(4),
            // DECIMAL is MySQL 4's, of which the log does not tell the width.
            _ => Self::Unknown,
        }
    }

    /// The next value, as a range of the buffer without its length.
    #[inline]
    pub(super) fn take(self, reader: &mut Reader<'_>) -> Result<Option<std::ops::Range<u32>>, DecodeError> {
        let length = match self {
            Self::Fixed(length) => usize::from(length),
            Self::Prefixed(1) => usize::from(reader.u8("value length")?),
            Self::Prefixed(2) => usize::from(reader.u16("value length")?),
            Self::Prefixed(3) => reader.u24("value length")? as usize,
            Self::Prefixed(_) => reader.u32("value length")? as usize,
            Self::Unknown => return Ok(None),
        };
        reader.range("value", length).map(Some)
    }
}

/// Nine digits take four bytes, before and behind the point, and what is left of them fewer.
fn decimal(precision: u8, scale: u8) -> Width {
    const DIGITS_BYTES: [u8; 9] = [0, 1, 1, 2, 2, 3, 3, 4, 4];
    const MOST_DIGITS: u8 = 65;
    let Some(whole) = precision.checked_sub(scale).filter(|_| precision <= MOST_DIGITS && precision > 0) else {
        return Width::Unknown;
    };
    let bytes = |digits: u8| digits / 9 * 4 + DIGITS_BYTES.get(usize::from(digits % 9)).copied().unwrap_or(0);
    Width::Fixed(bytes(whole) + bytes(scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_servers() {
        for (type_code, metadata, width) in [
            (t::NEWDECIMAL, 0x411e, Width::Fixed(30)),
            (t::NEWDECIMAL, 0x0c02, Width::Fixed(6)),
            (t::NEWDECIMAL, 0x0500, Width::Fixed(3)),
            (t::NEWDECIMAL, 0x0506, Width::Unknown),
            (t::BIT, 0x0101, Width::Fixed(2)),
            (t::BIT, 0x0800, Width::Fixed(8)),
            (t::TIMESTAMP2, 6, Width::Fixed(7)),
            (t::DATETIME2, 1, Width::Fixed(6)),
            (t::TIME2, 0, Width::Fixed(3)),
            (t::TIME2, 7, Width::Unknown),
            (t::STRING, 0xcefc, Width::Prefixed(2)),
            (t::STRING, 0xfe03, Width::Prefixed(1)),
            (t::ENUM, 0xf702, Width::Fixed(2)),
            (t::VARCHAR, 255, Width::Prefixed(1)),
            (t::SET, 0xf808, Width::Fixed(8)),
            (t::SET, 0xf809, Width::Unknown),
            (t::VECTOR, 4, Width::Prefixed(4)),
            (t::DECIMAL, 0, Width::Unknown),
            (200, 0, Width::Unknown),
        ] {
            assert_eq!(Width::of(type_code, metadata), width, "{type_code} {metadata:#x}");
        }
    }
}
