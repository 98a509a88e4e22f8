//! What a TABLE_MAP event tells of a table.

/// A column of a table, as the TABLE_MAP event before its rows tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnMap {
    /// `enum_field_types`; for MYSQL_TYPE_STRING the real type (ENUM, SET or STRING) from the metadata.
    pub type_code: u8,
    /// The type's metadata, as the server holds it in memory.
    pub metadata: u16,
    /// Whether the column may be null.
    pub nullable: bool,
    /// Whether a number has no sign.
    pub unsigned: bool,
    /// The collation's id, of character, ENUM and SET columns.
    pub collation: Option<u32>,
    /// The column's name.
    pub name: Option<Box<str>>,
    /// The labels of an ENUM or SET, in the column's character set.
    pub labels: Vec<Box<[u8]>>,
    /// The geometry's type.
    pub geometry_type: Option<u32>,
    /// The number of a vector's elements.
    pub vector_dimension: Option<u32>,
    /// Whether `SELECT *` shows the column.
    pub visible: bool,
}
