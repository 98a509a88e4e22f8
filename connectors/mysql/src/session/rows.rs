//! Rows of a prepared statement, in the binary protocol: floats are exact in it. "Prepared Statements" in MySQL's
//! documentation of its protocol.
//!
//! ```text
//!   row   0, a bit for each null (from the third bit on), then the values that are none
//!         integers and floats in their width; dates and times behind a byte with their length; all else
//!         behind a length-encoded number
//! ```

use bytes::Buf as _;
use figvine_change::SourceError;

use super::{FULL_PACKET, Session, lenenc};
use crate::decode::table_map::column_type as t;
use crate::error::{ServerError, garbled, of_io, of_server};

/// What is asked of the connection at a time.
const READ_BYTES: usize = 64 * 1024;
/// The longest row: `max_allowed_packet` cannot be more.
const ROW_BYTES: usize = 1 << 30;

/// A statement that was executed: its rows are read by [`Session::row`], to the end.
#[derive(Debug)]
pub(crate) struct Answer {
    statement: u32,
    /// The types of the columns.
    pub(crate) types: Vec<u8>,
}

/// A failure of a statement: the server's own words are still needed to tell what it means.
#[derive(Debug)]
pub(crate) enum Failed {
    Told(ServerError),
    Broken(SourceError),
}

impl From<SourceError> for Failed {
    fn from(error: SourceError) -> Self {
        Self::Broken(error)
    }
}

impl Failed {
    /// The server's number.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Told(told) => Some(told.code),
            Self::Broken(_) => None,
        }
    }

    /// As any other failure of the server.
    pub(crate) fn of(self, what: &str) -> SourceError {
        match self {
            Self::Told(told) => of_server(told, what),
            Self::Broken(error) => error,
        }
    }
}

impl Session {
    /// Runs a statement that gives rows.
    pub(crate) async fn rows_of(&mut self, sql: &str) -> Result<Answer, Failed> {
        self.command(0x16, sql.as_bytes()).await?;
        let prepared = self.packet().await?;
        if prepared.first() == Some(&0xff) {
            return Err(Failed::Told(ServerError::read(&prepared)));
        }
        let mut rest = &prepared[..];
        let (statement, columns, parameters) =
            prepare_ok(&mut rest).ok_or_else(|| garbled("the answer to a statement"))?;
        for count in [parameters, columns] {
            // Definitions, and an EOF behind them where there are any.
            for _ in 0..(if count > 0 { count + 1 } else { 0 }) {
                self.packet().await?;
            }
        }
        // No cursor, once, and no parameters.
        let [a, b, c, d] = statement.to_le_bytes();
        self.command(0x17, &[a, b, c, d, 0, 1, 0, 0, 0]).await?;
        let first = self.packet().await?;
        let columns = match first.first() {
            Some(0xff) => return Err(Failed::Told(ServerError::read(&first))),
            Some(0x00 | 0xfb) | None => return Err(garbled("the answer to a statement").into()),
            Some(_) => lenenc(&mut &first[..]).ok_or_else(|| garbled("the answer to a statement"))?,
        };
        let mut types = Vec::new();
        for _ in 0..columns {
            let definition = self.packet().await?;
            types.push(type_of(&definition).ok_or_else(|| garbled("a column of the server's answer"))?);
        }
        self.packet().await?;
        self.is_answering = true;
        Ok(Answer { statement, types })
    }

    /// The next row; `None` behind the last, and then the session takes commands again.
    pub(crate) async fn row(&mut self) -> Result<Option<&[u8]>, Failed> {
        self.input.advance(std::mem::take(&mut self.looked_at));
        let (mut start, mut whole) = (0, Vec::new());
        let range = loop {
            let (length, sequence) = loop {
                match self.input.get(start..).and_then(|rest| rest.first_chunk::<4>()) {
                    Some(&[a, b, c, sequence]) => break (u32::from_le_bytes([a, b, c, 0]) as usize, sequence),
                    None => self.fill_more().await?,
                }
            };
            if sequence != self.sequence {
                return Err(garbled("the numbering of the server's packets").into());
            }
            self.sequence = sequence.wrapping_add(1);
            let body = start + 4..start + 4 + length;
            while self.input.len() < body.end {
                self.fill_more().await?;
            }
            if length < FULL_PACKET && whole.is_empty() {
                self.looked_at = body.end;
                break body;
            }
            // A row of several packets.
            if whole.len() + length > ROW_BYTES {
                return Err(garbled("the length of a row").into());
            }
            whole.extend_from_slice(self.input.get(body.clone()).unwrap_or_default());
            self.input.advance(body.end);
            start = 0;
            if length < FULL_PACKET {
                self.joined = whole;
                return Ok(Some(&self.joined));
            }
        };
        let packet = self.input.get(range).unwrap_or_default();
        match packet.first() {
            Some(0x00) => Ok(Some(packet)),
            Some(0xfe) if packet.len() < 9 => {
                self.is_answering = false;
                Ok(None)
            }
            Some(0xff) => {
                self.is_answering = false;
                Err(Failed::Told(ServerError::read(packet)))
            }
            _ => Err(garbled("a row of the server's answer").into()),
        }
    }

    /// Whether the last row was read: commands can be sent.
    pub(crate) fn is_between(&self) -> bool {
        !self.is_answering
    }

    /// The server may forget a statement. It does not answer.
    pub(crate) async fn forget(&mut self, answer: &Answer) -> Result<(), SourceError> {
        self.command(0x19, &answer.statement.to_le_bytes()).await
    }

    async fn fill_more(&mut self) -> Result<(), SourceError> {
        self.input.reserve(READ_BYTES);
        match tokio::io::AsyncReadExt::read_buf(&mut self.stream, &mut self.input).await {
            Ok(0) => Err(of_io(std::io::ErrorKind::UnexpectedEof.into(), "reading rows")),
            Ok(_) => Ok(()),
            Err(error) => Err(of_io(error, "reading rows")),
        }
    }
}

/// COM_STMT_PREPARE_OK: the statement's id, and how many columns and parameters it has.
fn prepare_ok(rest: &mut &[u8]) -> Option<(u32, u16, u16)> {
    let [0, a, b, c, d, columns_low, columns_high, low, high] = *rest.first_chunk::<9>()? else { return None };
    let columns = u16::from_le_bytes([columns_low, columns_high]);
    Some((u32::from_le_bytes([a, b, c, d]), columns, u16::from_le_bytes([low, high])))
}

/// The type in a column's definition: behind six texts, a length, a collation and the column's length.
fn type_of(definition: &[u8]) -> Option<u8> {
    let mut rest = definition;
    for _ in 0..6 {
        let length = usize::try_from(lenenc(&mut rest)?).ok()?;
        rest.split_off(..length)?;
    }
    // MariaDB's extended metadata would stand here; we do not announce that we know it.
    lenenc(&mut rest)?;
    rest.get(6).copied()
}

/// The values of a row; `None` for null.
#[derive(Debug)]
pub(crate) struct Values<'r> {
    nulls: &'r [u8],
    rest: &'r [u8],
    at: usize,
}

impl<'r> Values<'r> {
    /// Of a row of so many columns; `None` when it is too short.
    pub(crate) fn of(row: &'r [u8], columns: usize) -> Option<Self> {
        let (nulls, rest) = row.get(1..)?.split_at_checked((columns + 9) / 8)?;
        Some(Self { nulls, rest, at: 2 })
    }

    /// The next one, of a type; `None` where the row ends too early.
    pub(crate) fn next(&mut self, type_code: u8) -> Option<Option<&'r [u8]>> {
        let is_null = self.nulls.get(self.at / 8)? >> (self.at % 8) & 1 == 1;
        self.at += 1;
        if is_null {
            return Some(None);
        }
        let length = match type_code {
            t::TINY => 1,
            t::SHORT | t::YEAR => 2,
            t::LONG | t::INT24 | t::FLOAT => 4,
            t::LONGLONG | t::DOUBLE => 8,
            t::DATE | t::NEWDATE | t::TIME | t::DATETIME | t::TIMESTAMP => usize::from(*self.rest.split_off_first()?),
            t::NULL => return None,
            _ => usize::try_from(lenenc(&mut self.rest)?).ok()?,
        };
        Some(Some(self.rest.split_off(..length)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_by_their_types_and_broken_rows_refused() {
        let row = b"\x00\x00\x07\x02ab\x04\xea\x07\x0b\x17";
        let mut values = Values::of(row, 4).expect("a row");
        assert_eq!(values.next(t::TINY), Some(Some(&b"\x07"[..])));
        assert_eq!(values.next(t::VAR_STRING), Some(Some(&b"ab"[..])));
        assert_eq!(values.next(t::DATE), Some(Some(&b"\xea\x07\x0b\x17"[..])));
        assert_eq!(values.next(t::LONG), None, "the row is at its end");
        let mut values = Values::of(b"\x00\x04\x02ab", 2).expect("a row");
        assert_eq!(values.next(t::LONG), Some(None));
        assert_eq!(values.next(t::BLOB), Some(Some(&b"ab"[..])));
        assert!(Values::of(b"\x00", 1).is_none());
    }
}
