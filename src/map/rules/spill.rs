//! Rows of a transaction that are more than memory holds: in a file that has no name, each behind the one before it.
//!
//! ```text
//!   file     | root 1 | part of 1 | root 2 | part of 1 | part of 2 |      a record says where the one of its root before it
//!                 ^---------' ^-----------------'                         is: a root is read from its end to its beginning
//!   memory   root 1: ---------------------------^     root 2: ---^
//! ```
//! In memory is a place per root, by 128 bits of a hash of its key, and one per part that is gone from nobody knows where. The
//! order of the roots is that of their first touch, as in memory: what is told does not depend on where rows were held.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use figvine_change::{Cell, Table, Within};

use super::aggregate::{Note, Root, Roots};
use super::rows::{OwnedRow, RowRef};
use crate::event::RowId;

/// What a root takes in memory, and what a part that is gone does: entries of tables that are half empty at worst.
const ENTRY_BYTES: u64 = 96;
/// Records are written in pieces of this size.
const BUFFER_BYTES: usize = 256 << 10;

/// Rows in a file.
#[derive(Debug)]
pub(super) struct Spill {
    file: BufWriter<File>,
    /// Bytes written.
    end: u64,
    places: HashMap<RowId, usize>,
    chains: Vec<Chain>,
    /// Of parts whose removal does not tell their root: how much was written before the last of them.
    gone: HashMap<RowId, u64>,
    /// The shapes of rows.
    tables: Vec<Arc<Table>>,
    /// What its index, and what one root, may take in memory.
    max_bytes: u64,
    has_large_root: bool,
}

/// The records of one root.
#[derive(Debug, Default, Clone, Copy)]
struct Chain {
    last: Link,
    bytes: u64,
    /// Whether the row itself was touched.
    is_touched: bool,
}

/// A record's place; none where it has no length.
#[derive(Debug, Default, Clone, Copy)]
struct Link {
    at: u64,
    length: u32,
}

impl Spill {
    /// With what was in memory.
    pub(super) fn of(roots: Roots, max_bytes: u64) -> io::Result<Self> {
        let mut spill = Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, tempfile::tempfile()?),
            end: 0,
            places: HashMap::new(),
            chains: Vec::new(),
            gone: HashMap::new(),
            tables: Vec::new(),
            max_bytes,
            has_large_root: false,
        };
        let mut keys: Vec<_> = roots.places.into_iter().collect();
        keys.sort_unstable_by_key(|(_, place)| *place);
        for ((key, _), root) in keys.into_iter().zip(roots.roots) {
            let Root { about, existed, is_rekeyed, before, before_is_key, after, lists, looked_up: _, is_beyond: _ } =
                root;
            if let Some(at) = about {
                spill.note(&key, &Note::Root { at, existed, is_rekeyed, before_is_key, before, after })?;
            }
            for (list, parts) in lists.into_iter().enumerate() {
                for (part, row) in parts.into_each() {
                    spill.note(&key, &Note::Part { list, key: part, row })?;
                }
            }
        }
        Ok(spill)
    }

    /// How many roots there are.
    pub(super) fn roots(&self) -> usize {
        self.chains.len()
    }

    /// Whether its index, or a root that is to be told, is larger than may be held in memory.
    pub(super) fn is_large(&self) -> bool {
        self.has_large_root || (self.chains.len() + self.gone.len()) as u64 * ENTRY_BYTES > self.max_bytes
    }

    /// Appends what a change says of a root.
    pub(super) fn note(&mut self, key: &[u8], note: &Note) -> io::Result<()> {
        let place = *self.places.entry(RowId::of("", key)).or_insert(self.chains.len());
        if place == self.chains.len() {
            self.chains.push(Chain::default());
        }
        let before = self.chains.get(place).map(|chain| chain.last).unwrap_or_default();
        let mut record = Vec::new();
        record.extend_from_slice(&before.at.to_le_bytes());
        record.extend_from_slice(&before.length.to_le_bytes());
        self.write_note(note, &mut record)?;
        self.file.write_all(&record)?;
        if let Some(chain) = self.chains.get_mut(place) {
            chain.last = Link { at: self.end, length: length(record.len())? };
            chain.bytes += record.len() as u64;
            chain.is_touched |= matches!(note, Note::Root { .. });
            self.has_large_root |= chain.is_touched && chain.bytes > self.max_bytes;
        }
        self.end += record.len() as u64;
        Ok(())
    }

    /// Takes a part out wherever it is.
    pub(super) fn part_gone(&mut self, list: usize, key: &[u8]) {
        self.gone.insert(part_id(list, key), self.end);
    }

    /// Reads a root; `None` where it was not touched itself.
    pub(super) fn read(&mut self, place: usize, lists: usize) -> io::Result<Option<Root>> {
        let Some(chain) = self.chains.get(place).filter(|chain| chain.is_touched) else { return Ok(None) };
        let mut link = chain.last;
        self.file.flush()?;
        let mut notes = Vec::new();
        while link.length > 0 {
            let mut record = vec![0; link.length as usize];
            let file = self.file.get_mut();
            file.seek(SeekFrom::Start(link.at))?;
            file.read_exact(&mut record)?;
            let mut fields = Fields { record: &record, at: 0, tables: &self.tables };
            let before = Link { at: fields.u64()?, length: fields.u32()? };
            let mut note = fields.note()?;
            if let Note::Part { list, key, row } = &mut note
                && self.gone.get(&part_id(*list, key)).is_some_and(|gone| link.at < *gone)
            {
                *row = None;
            }
            notes.push(note);
            link = before;
        }
        let mut root = Root::new(lists);
        notes.into_iter().rev().for_each(|note| root.note(note));
        Ok(Some(root))
    }

    fn write_note(&mut self, note: &Note, out: &mut Vec<u8>) -> io::Result<()> {
        match note {
            Note::Root { at, existed, is_rekeyed, before_is_key, before, after } => {
                out.push(0);
                out.extend_from_slice(&at.ordinal.to_le_bytes());
                out.extend_from_slice(&at.part.to_le_bytes());
                out.extend([*existed, *is_rekeyed, *before_is_key].map(u8::from));
                self.write_row(before.as_ref(), out)?;
                self.write_row(after.as_ref(), out)
            }
            Note::Part { list, key, row } => {
                out.push(1);
                out.extend_from_slice(&length(*list)?.to_le_bytes());
                write_bytes(key, out)?;
                self.write_row(row.as_ref(), out)
            }
        }
    }

    fn write_row(&mut self, row: Option<&OwnedRow>, out: &mut Vec<u8>) -> io::Result<()> {
        out.push(row.is_some().into());
        let Some(row) = row else { return Ok(()) };
        let known = self.tables.iter().rposition(|table| Arc::ptr_eq(table, &row.table));
        let table = known.unwrap_or_else(|| {
            self.tables.push(Arc::clone(&row.table));
            self.tables.len() - 1
        });
        let view = row.view();
        out.extend_from_slice(&length(table)?.to_le_bytes());
        out.extend_from_slice(&length(view.cells.len())?.to_le_bytes());
        for cell in view.cells {
            match (cell, view.bytes(cell)) {
                (Cell::Null, _) => out.push(0),
                (Cell::Value(_), Some(bytes)) => {
                    out.push(1);
                    write_bytes(bytes, out)?;
                }
                _ => out.push(2),
            }
        }
        Ok(())
    }
}

fn part_id(list: usize, key: &[u8]) -> RowId {
    RowId::of(&list.to_string(), key)
}

fn length(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&length(bytes.len())?.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// A record as it is read back.
struct Fields<'a> {
    record: &'a [u8],
    at: usize,
    tables: &'a [Arc<Table>],
}

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> io::Result<&'a [u8]> {
        let taken = self.record.get(self.at..).and_then(|rest| rest.get(..length));
        self.at += length;
        taken.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn u8(&mut self) -> io::Result<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn note(&mut self) -> io::Result<Note> {
        Ok(match self.u8()? {
            0 => {
                let at = Within { ordinal: self.u64()?, part: self.u32()? };
                let [existed, is_rekeyed, before_is_key] = self.array()?.map(|flag: u8| flag == 1);
                Note::Root { at, existed, is_rekeyed, before_is_key, before: self.row()?, after: self.row()? }
            }
            _ => {
                let (list, length) = (self.u32()? as usize, self.u32()? as usize);
                Note::Part { list, key: self.take(length)?.to_vec(), row: self.row()? }
            }
        })
    }

    fn row(&mut self) -> io::Result<Option<OwnedRow>> {
        if self.u8()? == 0 {
            return Ok(None);
        }
        let table = self.tables.get(self.u32()? as usize).ok_or(io::ErrorKind::InvalidData)?;
        let mut cells = Vec::new();
        for _ in 0..self.u32()? {
            cells.push(match self.u8()? {
                0 => Cell::Null,
                1 => {
                    let bytes = self.u32()?;
                    let start = length(self.at)?;
                    self.take(bytes as usize)?;
                    Cell::Value(start..start + bytes)
                }
                _ => Cell::Unchanged,
            });
        }
        Ok(Some(OwnedRow::new(table, RowRef { data: self.record, cells: &cells })))
    }
}
