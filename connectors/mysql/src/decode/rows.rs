//! Rows events: what a statement did to the rows of a table.

use figvine_change::{Cell, Row};

use super::format::Format;
use super::header::kind;
use super::reader::{DecodeError, Reader};
use super::table_map::{TableMap, bit, column_type};
use super::width::Width;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsKind {
    /// Rows were written.
    Insert,
    /// Rows were changed.
    Update,
    /// Rows were removed.
    Delete,
}

/// Flags of a rows event.
pub mod rows_flag {
    /// The last rows of a statement: the ids of tables end with it.
    pub const STATEMENT_END: u16 = 0x1;
    /// `foreign_key_checks` was off. MySQL 9.6 and later set it for what a cascade did.
    pub const NO_FOREIGN_KEY_CHECKS: u16 = 0x2;
    /// `unique_checks` was off.
    pub const RELAXED_UNIQUE_CHECKS: u16 = 0x4;
    /// The rows have all columns.
    pub const COMPLETE_ROWS: u16 = 0x8;
}

/// A rows event, its rows still in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows<'a> {
    /// What was done.
    pub kind: RowsKind,
    /// The table, by the id that the table map before gave it.
    pub table_id: u64,
    /// See [`rows_flag`].
    pub flags: u16,
    /// What the server adds for engines of its own (NDB, partitions), unread.
    pub extra: &'a [u8],
    columns: usize,
    before: Option<&'a [u8]>,
    after: Option<&'a [u8]>,
    /// PARTIAL_UPDATE_ROWS: JSON values may be differences to the row before.
    is_partial: bool,
    rows: Reader<'a>,
}

impl<'a> Rows<'a> {
    /// Events 23 to 25, 30 to 32 and 39. `header_code` is the type by which the
    /// format tells the fixed part's length: another, where the event was compressed.
    pub(super) fn read(
        reader: &mut Reader<'a>,
        type_code: u8,
        header_code: u8,
        format: &Format,
    ) -> Result<Self, DecodeError> {
        let (kind, has_extra) = match type_code {
            kind::WRITE_ROWS_V1 => (RowsKind::Insert, false),
            kind::UPDATE_ROWS_V1 => (RowsKind::Update, false),
            kind::DELETE_ROWS_V1 => (RowsKind::Delete, false),
            kind::WRITE_ROWS => (RowsKind::Insert, true),
            kind::UPDATE_ROWS | kind::PARTIAL_UPDATE_ROWS => (RowsKind::Update, true),
            kind::DELETE_ROWS => (RowsKind::Delete, true),
            // Those of MySQL 5.1 before its first release.
            _ => return Err(DecodeError::Unsupported { what: "rows event of type", value: u64::from(type_code) }),
        };
        let least = if has_extra { 10 } else { 6 };
        let least = if format.fixed_length(header_code).is_none() { least.max(8) } else { least };
        let mut fixed = format.fixed(reader, header_code, least)?;
        let table_id = format.table_id(&mut fixed, header_code)?;
        let flags = fixed.u16("rows flags")?;
        let extra = if has_extra {
            // The length counts itself.
            let length = fixed.u16("length of the extra data")?;
            let length = length.checked_sub(2).ok_or(DecodeError::Misfit {
                what: "length of the extra data",
                found: u64::from(length),
                expected: 2,
            })?;
            reader.take("extra data", usize::from(length))?
        } else {
            &[]
        };
        let columns = reader.packed("number of columns")?;
        let columns = usize::try_from(columns).unwrap_or(usize::MAX);
        let mut bitmap = || reader.take("columns of the image", columns.div_ceil(8));
        let (before, after) = match kind {
            RowsKind::Insert => (None, Some(bitmap()?)),
            RowsKind::Delete => (Some(bitmap()?), None),
            RowsKind::Update => (Some(bitmap()?), Some(bitmap()?)),
        };
        let is_partial = type_code == kind::PARTIAL_UPDATE_ROWS;
        Ok(Self { kind, table_id, flags, extra, columns, before, after, is_partial, rows: reader.clone() })
    }

    /// The last rows of a statement.
    #[must_use]
    pub fn ends_statement(&self) -> bool {
        self.flags & rows_flag::STATEMENT_END != 0
    }

    /// There are no rows: MySQL ends a statement so whose last rows were not logged, by a table id of no table.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.remaining() == 0 && !self.is_bare()
    }

    /// Images without any column take no byte. The servers write one such row
    /// in an event and no more, since they count rows by their bytes too.
    fn is_bare(&self) -> bool {
        let mut images = [self.before, self.after].into_iter().flatten();
        self.columns > 0
            && !self.is_partial
            && self.rows.remaining() == 0
            && images.all(|bits| Image::of(bits, self.columns).present == 0)
    }

    /// The rows, to be read one by one.
    ///
    /// # Errors
    /// When the rows have other columns than the table.
    pub fn of<'t>(&self, table: &'t TableMap) -> Result<RowReader<'a, 't>, DecodeError> {
        if table.columns.len() != self.columns {
            return Err(DecodeError::Misfit {
                what: "number of columns",
                found: self.columns as u64,
                expected: table.columns.len() as u64,
            });
        }
        let image = |present| Image::of(present, self.columns);
        let (before, after) = (self.before.map(image), self.after.map(image));
        Ok(RowReader {
            table,
            rows: self.rows.clone(),
            before,
            after,
            is_partial: self.is_partial,
            partial: Vec::new(),
            is_bare_row_due: self.is_bare(),
            has_failed: false,
        })
    }
}

/// Which columns an image has.
#[derive(Debug, Clone, Copy)]
struct Image<'a> {
    bits: &'a [u8],
    /// Number of columns that it has.
    present: usize,
    is_full: bool,
}

impl<'a> Image<'a> {
    fn of(bits: &'a [u8], columns: usize) -> Self {
        // What stands in the last byte beyond the columns is no column's, and may be set.
        let (whole, last) = bits.split_at_checked(columns / 8).unwrap_or((bits, &[]));
        let last = last.first().copied().unwrap_or(0) & !(u8::MAX << (columns % 8));
        let present = whole.iter().chain(&[last]).map(|byte| byte.count_ones() as usize).sum();
        Self { bits, present, is_full: present == columns }
    }
}

/// One row: two images of an update, one of an insert or a delete.
///
/// Under `binlog_row_image` other than FULL, the cells of columns that an image
/// leaves out are [`Cell::Unchanged`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowImages {
    /// The row before.
    pub before: Option<Row>,
    /// The row after.
    pub after: Option<Row>,
}

/// Reads rows.
#[derive(Debug)]
pub struct RowReader<'a, 't> {
    table: &'t TableMap,
    rows: Reader<'a>,
    before: Option<Image<'a>>,
    after: Option<Image<'a>>,
    is_partial: bool,
    partial: Vec<usize>,
    is_bare_row_due: bool,
    has_failed: bool,
}

impl RowReader<'_, '_> {
    /// Reads the next row; its cells are appended to `cells`. `None` behind the
    /// last row, and behind an error, when `cells` is as it was before.
    ///
    /// # Errors
    /// When the bytes are no row of the table.
    #[inline]
    pub fn next(&mut self, cells: &mut Vec<Cell>) -> Option<Result<RowImages, DecodeError>> {
        if self.has_failed || (self.rows.remaining() == 0 && !self.is_bare_row_due) {
            return None;
        }
        let (first, left) = (cells.len(), self.rows.remaining());
        let mut row = self.row(cells);
        if row.is_ok() && self.rows.remaining() == left && !std::mem::take(&mut self.is_bare_row_due) {
            // A row that takes no byte, and bytes behind it.
            row = Err(DecodeError::Left { field: "rows without columns", count: left, at: self.rows.at() as usize });
        }
        if row.is_err() {
            self.has_failed = true;
            cells.truncate(first);
        }
        Some(row)
    }

    /// The columns of the last row's after image whose cells are no values but
    /// differences to the row before: see [`super::partial_json`].
    #[must_use]
    pub fn partial(&self) -> &[usize] {
        &self.partial
    }

    #[inline]
    fn row(&mut self, cells: &mut Vec<Cell>) -> Result<RowImages, DecodeError> {
        let before = match &self.before {
            Some(image) => Some(read_image(&mut self.rows, self.table.widths(), image, cells, self.table)?),
            None => None,
        };
        let after = match self.after {
            Some(image) => {
                if self.is_partial {
                    self.read_partial_columns(&image)?;
                }
                Some(read_image(&mut self.rows, self.table.widths(), &image, cells, self.table)?)
            }
            None => None,
        };
        Ok(RowImages { before, after })
    }

    /// What stands before an after image of PARTIAL_UPDATE_ROWS: options, and a
    /// bit for each JSON column of the table, whether the image has it or not.
    fn read_partial_columns(&mut self, image: &Image<'_>) -> Result<(), DecodeError> {
        const PARTIAL_JSON: u64 = 1;
        self.partial.clear();
        match self.rows.packed("value options")? {
            0 => return Ok(()),
            PARTIAL_JSON => {}
            other => return Err(self.rows.unknown("value options", other)),
        }
        let is_json = |column: &usize| {
            self.table.columns.get(*column).is_some_and(|column| column.type_code == column_type::JSON)
        };
        let count = (0..self.table.columns.len()).filter(is_json).count();
        let bits = self.rows.take("partial columns", count.div_ceil(8))?;
        let json = (0..self.table.columns.len()).filter(is_json).enumerate();
        self.partial.extend(
            json.filter(|(index, column)| bit(bits, *index) && bit(image.bits, *column)).map(|(_, column)| column),
        );
        Ok(())
    }
}

#[inline]
fn read_image(
    rows: &mut Reader<'_>,
    widths: &[Width],
    image: &Image<'_>,
    cells: &mut Vec<Cell>,
    table: &TableMap,
) -> Result<Row, DecodeError> {
    let too_many = |_| DecodeError::Unsupported { what: "number of cells", value: cells.len() as u64 };
    let first = u32::try_from(cells.len()).map_err(too_many)?;
    let len = u32::try_from(widths.len()).map_err(too_many)?;
    let nulls = rows.take("null columns", image.present.div_ceil(8))?;
    cells.reserve(widths.len());
    // The bits of nulls count the columns that the image has.
    let mut present = 0;
    for (column, width) in widths.iter().enumerate() {
        if !image.is_full && !bit(image.bits, column) {
            cells.push(Cell::Unchanged);
            continue;
        }
        let is_null = bit(nulls, present);
        present += 1;
        cells.push(if is_null {
            Cell::Null
        } else {
            match width.take(rows)? {
                Some(range) => Cell::Value(range),
                None => return Err(unknown_type(table, column)),
            }
        });
    }
    Ok(Row { first, len })
}

#[cold]
fn unknown_type(table: &TableMap, column: usize) -> DecodeError {
    let type_code = table.columns.get(column).map_or(0, |column| column.type_code);
    DecodeError::Unsupported { what: "value of column type", value: u64::from(type_code) }
}
