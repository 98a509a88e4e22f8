//! Rows in COPY's text format into the cells of a batch.
//!
//! A field is the text that the type's output function gives, the same as in pgoutput, with escapes for what
//! separates fields and rows (`CopyAttributeOutText` in PostgreSQL's copyto.c).

use std::ops::Range;

use figvine_change::Cell;
use memchr::{memchr, memchr2};

/// Bytes that are no row of COPY's text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowError {
    /// It has no end.
    #[error("a row without an end")]
    Unended,
    /// An escape that means nothing.
    #[error("an escape that is none")]
    Escape,
    /// Another number of fields than was asked for.
    #[error("{fields} fields in place of {columns}")]
    Fields {
        /// The fields of the row.
        fields: usize,
        /// The columns that were asked for.
        columns: usize,
    },
}

/// Reads one row of `columns` fields: their values are appended to `data`, a cell each to `cells`.
///
/// `data` stays below 4 GiB: the caller sees to that.
pub(super) fn read(line: &[u8], columns: usize, data: &mut Vec<u8>, cells: &mut Vec<Cell>) -> Result<(), RowError> {
    let line = line.strip_suffix(b"\n").ok_or(RowError::Unended)?;
    // A row without columns is an empty line, and so is a row of one empty text.
    if columns == 0 && line.is_empty() {
        return Ok(());
    }
    let before = cells.len();
    if memchr(b'\\', line).is_none() {
        plain(line, data, cells);
    } else {
        escaped(line, data, cells)?;
    }
    match cells.len() - before {
        fields if fields == columns => Ok(()),
        fields => Err(RowError::Fields { fields, columns }),
    }
}

/// Most rows hold no escape: they are copied as they are, with what stands between their fields.
fn plain(line: &[u8], data: &mut Vec<u8>, cells: &mut Vec<Cell>) {
    let base = data.len();
    data.extend_from_slice(line);
    let mut from = 0;
    for to in memchr::memchr_iter(b'\t', line) {
        cells.push(value(base + from..base + to));
        from = to + 1;
    }
    cells.push(value(base + from..base + line.len()));
}

fn escaped(line: &[u8], data: &mut Vec<u8>, cells: &mut Vec<Cell>) -> Result<(), RowError> {
    let mut rest = line;
    loop {
        if let Some(behind) = rest.strip_prefix(b"\\N")
            && matches!(behind.first(), None | Some(b'\t'))
        {
            cells.push(Cell::Null);
            match behind.split_first() {
                Some((_, next)) => rest = next,
                None => return Ok(()),
            }
            continue;
        }
        let from = data.len();
        let next = loop {
            let at = memchr2(b'\t', b'\\', rest).unwrap_or(rest.len());
            let (plain, special) = rest.split_at(at);
            data.extend_from_slice(plain);
            match special {
                [] => break None,
                [b'\t', next @ ..] => break Some(next),
                [_, byte, next @ ..] => {
                    data.push(match byte {
                        b'b' => 0x08,
                        b'f' => 0x0c,
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'v' => 0x0b,
                        b'\\' => b'\\',
                        _ => return Err(RowError::Escape),
                    });
                    rest = next;
                }
                [_] => return Err(RowError::Escape),
            }
        };
        cells.push(value(from..data.len()));
        match next {
            Some(next) => rest = next,
            None => return Ok(()),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the data stay below 4 GiB")]
pub(super) fn range(range: Range<usize>) -> Range<u32> {
    range.start as u32..range.end as u32
}

fn value(bytes: Range<usize>) -> Cell {
    Cell::Value(range(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Values = Vec<Option<Vec<u8>>>;

    fn decoded(line: &[u8], columns: usize) -> Result<Values, RowError> {
        let (mut data, mut cells) = (b"before".to_vec(), Vec::new());
        read(line, columns, &mut data, &mut cells)?;
        let value = |cell: &Cell| match cell {
            Cell::Value(range) => Some(data[range.start as usize..range.end as usize].to_vec()),
            Cell::Null | Cell::Unchanged => None,
        };
        Ok(cells.iter().map(value).collect())
    }

    /// As PostgreSQL writes it.
    fn encoded(values: &Values) -> Vec<u8> {
        let mut line = Vec::new();
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                line.push(b'\t');
            }
            let Some(value) = value else {
                line.extend_from_slice(b"\\N");
                continue;
            };
            for &byte in value {
                match byte {
                    0x08 => line.extend_from_slice(b"\\b"),
                    0x0c => line.extend_from_slice(b"\\f"),
                    b'\n' => line.extend_from_slice(b"\\n"),
                    b'\r' => line.extend_from_slice(b"\\r"),
                    b'\t' => line.extend_from_slice(b"\\t"),
                    0x0b => line.extend_from_slice(b"\\v"),
                    b'\\' => line.extend_from_slice(b"\\\\"),
                    byte => line.push(byte),
                }
            }
        }
        line.push(b'\n');
        line
    }

    /// Bytes among which those that need escapes are frequent.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![any::<u8>(), prop::sample::select(&b"\t\n\r\\Nbnt\x08\x0b\x0c."[..])]
    }

    proptest! {
        #[test]
        fn any_values_read_back(
            values in prop::collection::vec(prop::option::of(prop::collection::vec(byte(), 0..12)), 1..6)
        ) {
            prop_assert_eq!(decoded(&encoded(&values), values.len()), Ok(values));
        }

        #[test]
        fn no_bytes_are_a_reason_to_panic(line in prop::collection::vec(byte(), 0..40), columns in 0usize..4) {
            let _ = decoded(&line, columns);
        }
    }

    #[test]
    fn nothing_and_an_empty_text_are_told_apart() {
        assert_eq!(decoded(b"\n", 1), Ok(vec![Some(Vec::new())]));
        assert_eq!(decoded(b"\n", 0), Ok(vec![]));
        assert_eq!(decoded(b"\\N\n", 1), Ok(vec![None]));
        assert_eq!(decoded(b"\\\\N\n", 1), Ok(vec![Some(b"\\N".to_vec())]));
        assert_eq!(decoded(b"\\N\t\t\\N\n", 3), Ok(vec![None, Some(Vec::new()), None]));
    }

    #[test]
    fn what_is_no_row_is_an_error() {
        assert_eq!(decoded(b"a", 1), Err(RowError::Unended));
        assert_eq!(decoded(b"a\\\n", 1), Err(RowError::Escape));
        assert_eq!(decoded(b"\\x\n", 1), Err(RowError::Escape));
        assert_eq!(decoded(b"a\tb\n", 1), Err(RowError::Fields { fields: 2, columns: 1 }));
        assert_eq!(decoded(b"a\n", 0), Err(RowError::Fields { fields: 1, columns: 0 }));
    }
}
