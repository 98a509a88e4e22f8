//! TABLE_MAP: the shape of a table whose rows follow.
//!
//! How much it tells is the server's setting: `binlog_row_metadata`. `FULL` has
//! names, signs, charsets, labels and the key; MySQL's `MINIMAL` signs and
//! charsets; MariaDB's `NO_LOG` nothing beyond the types.

use super::format::Format;
use super::header::kind;
use super::reader::{DecodeError, Reader};
use super::width::Width;

/// The types of columns, by MySQL's `enum_field_types`; the two of compressed columns are MariaDB's.
pub mod column_type {
    #![expect(missing_docs, reason = "the servers' own names")]

    pub const DECIMAL: u8 = 0;
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const NULL: u8 = 6;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    pub const TYPED_ARRAY: u8 = 20;
    pub const BLOB_COMPRESSED: u8 = 140;
    pub const VARCHAR_COMPRESSED: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

use column_type as t;

/// A TABLE_MAP event: which table, and its shape still in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMapEvent<'a> {
    /// The id by which the rows name the table, until the shape changes.
    pub table_id: u64,
    /// The database.
    pub schema: &'a str,
    /// The table's name.
    pub name: &'a str,
    body: &'a [u8],
    is_mariadb: bool,
    /// What stands behind the names.
    shape: Reader<'a>,
}

/// A table, as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableMap {
    /// The id by which the rows name the table, until the shape changes.
    pub table_id: u64,
    /// The database.
    pub schema: Box<str>,
    /// The table's name.
    pub name: Box<str>,
    /// Its columns, in the order of the rows; hidden ones too.
    pub columns: Vec<ColumnMap>,
    /// Indices of the primary key's columns, in the key's order; empty where there is none or it is not told.
    pub primary_key: Vec<usize>,
    /// Whether signs of numbers are told; else [`ColumnMap::unsigned`] says nothing.
    pub has_signs: bool,
    /// Whether names are told, and with them all else (`binlog_row_metadata=FULL`).
    pub has_names: bool,
    widths: Vec<Width>,
}

/// A column, as the log tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnMap {
    /// One of [`column_type`]; ENUM and SET are told apart from STRING, as which the log has them.
    pub type_code: u8,
    /// What the type needs besides, as the server holds it in memory:
    ///
    /// | type | metadata |
    /// |---|---|
    /// | FLOAT, DOUBLE | width in bytes |
    /// | VARCHAR, VAR_STRING, compressed VARCHAR | most bytes |
    /// | STRING | high byte: type 0xfe, whose bits 4 and 5 are the length's bits 8 and 9, inverted; low byte: length's low bits; see [`ColumnMap::most_bytes`] |
    /// | ENUM, SET | high byte: type; low byte: width in bytes |
    /// | BLOB, JSON, GEOMETRY, VECTOR | width of the length in bytes |
    /// | NEWDECIMAL | high byte: precision; low byte: scale |
    /// | BIT | high byte: whole bytes; low byte: bits besides |
    /// | TIME2, DATETIME2, TIMESTAMP2 | digits of a second |
    pub metadata: u16,
    /// Whether values may be null.
    pub nullable: bool,
    /// Whether a number has no sign; false where that is not told.
    pub unsigned: bool,
    /// The collation's id, of columns of characters, ENUM and SET; 63 is binary.
    pub collation: Option<u32>,
    /// The name.
    pub name: Option<Box<str>>,
    /// The labels of an ENUM or a SET, in the column's charset.
    pub labels: Vec<Box<[u8]>>,
    /// The kind of geometry, by MySQL's `Field::geometry_type`; 0 is any.
    pub geometry_type: Option<u32>,
    /// Numbers that a vector has at most.
    pub vector_dimension: Option<u32>,
    /// Whether `SELECT *` shows it; MariaDB does not tell and shows it here.
    pub visible: bool,
}

/// Most bytes of a STRING, out of its metadata.
pub(super) fn string_bytes(metadata: u16) -> u16 {
    (((metadata >> 4) & 0x300) ^ 0x300) | (metadata & 0xff)
}

impl ColumnMap {
    /// Whether values are bytes in a character set, or bytes alone.
    #[must_use]
    pub fn is_text(&self) -> bool {
        matches!(
            self.type_code,
            t::VARCHAR | t::VAR_STRING | t::STRING | t::VARCHAR_COMPRESSED | t::BLOB_COMPRESSED | t::TINY_BLOB
                ..=t::BLOB
        )
    }

    /// Most bytes of a value of characters: of CHAR(n) and BINARY(n) n times the
    /// charset's longest character. `None` for types without such a limit in the log.
    #[must_use]
    pub fn most_bytes(&self) -> Option<u16> {
        match self.type_code {
            t::STRING => Some(string_bytes(self.metadata)),
            t::VARCHAR | t::VAR_STRING | t::VARCHAR_COMPRESSED => Some(self.metadata),
            _ => None,
        }
    }

    /// For which the log tells a sign: the servers count years too.
    fn is_numeric(&self) -> bool {
        matches!(
            self.type_code,
            t::TINY | t::SHORT | t::INT24 | t::LONG | t::LONGLONG | t::NEWDECIMAL | t::FLOAT | t::DOUBLE | t::YEAR
        )
    }

    /// For which MySQL's log tells a charset: vectors too.
    fn is_character(&self) -> bool {
        matches!(
            self.type_code,
            t::STRING
                | t::VAR_STRING
                | t::VARCHAR
                | t::VARCHAR_COMPRESSED
                | t::BLOB
                | t::BLOB_COMPRESSED
                | t::TINY_BLOB
                | t::MEDIUM_BLOB
                | t::LONG_BLOB
                | t::VECTOR
        )
    }

    /// For which MariaDB's log tells a charset: geometries too.
    fn is_mariadb_character(&self) -> bool {
        self.is_character() || self.type_code == t::GEOMETRY
    }

    fn is_labelled(&self) -> bool {
        matches!(self.type_code, t::ENUM | t::SET)
    }
}

impl<'a> TableMapEvent<'a> {
    pub(super) fn read(body: &'a [u8], base: u32, format: &Format) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body, base);
        let mut fixed = format.fixed(&mut reader, kind::TABLE_MAP, 6)?;
        let table_id = format.table_id(&mut fixed, kind::TABLE_MAP)?;
        let length = reader.u8("schema length")?;
        let schema = reader.text("schema", usize::from(length))?;
        reader.u8("end of the schema")?;
        let length = reader.u8("table name length")?;
        let name = reader.text("table name", usize::from(length))?;
        reader.u8("end of the table name")?;
        Ok(Self { table_id, schema, name, body, is_mariadb: format.is_mariadb, shape: reader })
    }

    /// All of the event behind its header: equal bytes tell an equal table.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.body
    }

    /// The shape.
    ///
    /// # Errors
    /// When it cannot be read, or has a column of a type that is not known.
    pub fn parse(&self) -> Result<TableMap, DecodeError> {
        let mut reader = self.shape.clone();
        let count = reader.packed_length("number of columns")?;
        let types = reader.take("column types", count)?;
        let at = reader.at();
        let mut metadata = Reader::new(reader.packed_bytes("column metadata")?, at);
        let nullable = reader.take("nullable columns", count.div_ceil(8))?;
        let mut columns = Vec::with_capacity(count);
        for (index, type_code) in types.iter().enumerate() {
            let (type_code, metadata) = column(&mut metadata, *type_code)?;
            columns.push(ColumnMap {
                type_code,
                metadata,
                nullable: bit(nullable, index),
                visible: true,
                ..ColumnMap::default()
            });
        }
        metadata.finish("the column metadata")?;
        let widths = columns.iter().map(|column| Width::of(column.type_code, column.metadata)).collect();
        let mut table = TableMap {
            table_id: self.table_id,
            schema: self.schema.into(),
            name: self.name.into(),
            columns,
            primary_key: Vec::new(),
            has_signs: false,
            has_names: false,
            widths,
        };
        while reader.remaining() > 0 {
            let field = reader.u8("metadata field")?;
            let at = reader.at();
            let value = reader.packed_bytes("metadata field")?;
            let is_character = if self.is_mariadb { ColumnMap::is_mariadb_character } else { ColumnMap::is_character };
            table.read_optional(field, Reader::new(value, at), is_character)?;
        }
        Ok(table)
    }
}

impl TableMap {
    pub(super) fn widths(&self) -> &[Width] {
        &self.widths
    }

    /// One field of what `binlog_row_metadata` adds, by MySQL's
    /// `Table_map_event::Optional_metadata_field_type`.
    fn read_optional(
        &mut self,
        field: u8,
        mut value: Reader<'_>,
        is_character: fn(&ColumnMap) -> bool,
    ) -> Result<(), DecodeError> {
        match field {
            1 => {
                let signs = value.rest();
                let numeric = self.columns.iter_mut().filter(|column| column.is_numeric());
                for (index, column) in numeric.enumerate() {
                    column.unsigned = bit_from_high(signs, index);
                }
                self.has_signs = true;
            }
            2 => self.read_default_collation(&mut value, is_character)?,
            3 => self.read_collations(&mut value, is_character)?,
            4 => {
                for column in &mut self.columns {
                    let length = value.packed_length("column name length")?;
                    column.name = Some(value.text("column name", length)?.into());
                }
                self.has_names = true;
            }
            5 => self.read_labels(&mut value, t::SET)?,
            6 => self.read_labels(&mut value, t::ENUM)?,
            7 => {
                for column in self.columns.iter_mut().filter(|column| column.type_code == t::GEOMETRY) {
                    column.geometry_type = Some(small(&mut value, "geometry type")?);
                }
            }
            8 | 9 => {
                while value.remaining() > 0 {
                    let index = value.packed("key column")?;
                    let columns = self.columns.len();
                    let column = usize::try_from(index).ok().filter(|index| *index < columns);
                    self.primary_key.push(column.ok_or(DecodeError::Misfit {
                        what: "key column",
                        found: index,
                        expected: columns as u64,
                    })?);
                    if field == 9 {
                        // So many characters of it, 0 for all.
                        value.packed("key prefix")?;
                    }
                }
            }
            10 => self.read_default_collation(&mut value, ColumnMap::is_labelled)?,
            11 => self.read_collations(&mut value, ColumnMap::is_labelled)?,
            12 => {
                let visible = value.rest();
                for (index, column) in self.columns.iter_mut().enumerate() {
                    column.visible = bit_from_high(visible, index);
                }
            }
            13 => {
                for column in self.columns.iter_mut().filter(|column| column.type_code == t::VECTOR) {
                    column.vector_dimension = Some(small(&mut value, "vector dimension")?);
                }
            }
            // Fields of newer servers.
            _ => {}
        }
        Ok(())
    }

    /// One collation for most columns of a kind, and pairs (place among them, collation) for the others.
    fn read_default_collation(
        &mut self,
        value: &mut Reader<'_>,
        is_meant: fn(&ColumnMap) -> bool,
    ) -> Result<(), DecodeError> {
        let default = small(value, "default collation")?;
        let mut meant: Vec<&mut ColumnMap> = self.columns.iter_mut().filter(|column| is_meant(column)).collect();
        for column in &mut meant {
            column.collation = Some(default);
        }
        while value.remaining() > 0 {
            let index = value.packed("column of a collation")?;
            let collation = small(value, "collation")?;
            let count = meant.len() as u64;
            let column = usize::try_from(index).ok().and_then(|index| meant.get_mut(index));
            column
                .ok_or(DecodeError::Misfit { what: "column of a collation", found: index, expected: count })?
                .collation = Some(collation);
        }
        Ok(())
    }

    /// A collation for each column of a kind.
    fn read_collations(&mut self, value: &mut Reader<'_>, is_meant: fn(&ColumnMap) -> bool) -> Result<(), DecodeError> {
        for column in self.columns.iter_mut().filter(|column| is_meant(column)) {
            column.collation = Some(small(value, "collation")?);
        }
        value.finish("the collations")
    }

    fn read_labels(&mut self, value: &mut Reader<'_>, type_code: u8) -> Result<(), DecodeError> {
        for column in self.columns.iter_mut().filter(|column| column.type_code == type_code) {
            let count = value.packed_length("number of labels")?;
            column.labels = (0..count).map(|_| Ok(value.packed_bytes("label")?.into())).collect::<Result<_, _>>()?;
        }
        value.finish("the labels")
    }
}

/// A column's real type and its metadata.
fn column(metadata: &mut Reader<'_>, type_code: u8) -> Result<(u8, u16), DecodeError> {
    Ok(match type_code {
        t::FLOAT
        | t::DOUBLE
        | t::TINY_BLOB
        | t::MEDIUM_BLOB
        | t::LONG_BLOB
        | t::BLOB
        | t::BLOB_COMPRESSED
        | t::JSON
        | t::GEOMETRY
        | t::VECTOR
        | t::TIME2
        | t::DATETIME2
        | t::TIMESTAMP2 => (type_code, u16::from(metadata.u8("column metadata")?)),
        t::VARCHAR | t::VARCHAR_COMPRESSED | t::BIT => (type_code, metadata.u16("column metadata")?),
        t::NEWDECIMAL => (type_code, metadata.array("column metadata").map(u16::from_be_bytes)?),
        t::STRING | t::VAR_STRING | t::ENUM | t::SET => {
            let told = metadata.array("column metadata").map(u16::from_be_bytes)?;
            // The type's own bits 4 and 5 are the length's, inverted.
            match u8::try_from(told >> 8).unwrap_or_default() {
                real @ (t::ENUM | t::SET) => (real, told),
                _ if type_code == t::VAR_STRING => (type_code, told.swap_bytes()),
                _ => (t::STRING, told),
            }
        }
        t::TYPED_ARRAY => {
            let element = metadata.u8("element type")?;
            match element {
                // Its length takes three bytes here.
                t::VARCHAR => drop(metadata.take("element metadata", 3)?),
                t::TYPED_ARRAY => return Err(metadata.unknown("element type", u64::from(element))),
                _ => drop(column(metadata, element)?),
            }
            (type_code, 0)
        }
        t::DECIMAL
        | t::TINY
        | t::SHORT
        | t::LONG
        | t::NULL
        | t::TIMESTAMP
        | t::LONGLONG
        | t::INT24
        | t::DATE
        | t::TIME
        | t::DATETIME
        | t::YEAR
        | t::NEWDATE => (type_code, 0),
        _ => return Err(DecodeError::Unsupported { what: "column type", value: u64::from(type_code) }),
    })
}

fn small(value: &mut Reader<'_>, field: &'static str) -> Result<u32, DecodeError> {
    let number = value.packed(field)?;
    u32::try_from(number).map_err(|_| value.unknown(field, number))
}

/// Bit `index`, from the lowest of the first byte; false beyond the end.
#[inline]
pub(super) fn bit(bits: &[u8], index: usize) -> bool {
    bits.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

/// The same from the highest of the first byte.
fn bit_from_high(bits: &[u8], index: usize) -> bool {
    bits.get(index / 8).is_some_and(|byte| byte << (index % 8) & 0x80 != 0)
}
