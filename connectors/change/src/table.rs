//! A table in the shape that held when a row of it was written.

use std::sync::Arc;

use crate::ValueCodec;

/// A table's names, columns and key.
#[derive(Debug, Clone)]
pub struct Table {
    /// The schema; for MySQL the database.
    pub schema: Box<str>,
    /// The table's own name.
    pub name: Box<str>,
    /// Columns in the order of the row.
    pub columns: Vec<Column>,
    /// Indices of the key's columns in the order of the row; empty for a
    /// table whose key is unknown. A keyless table that is captured by explicit
    /// setting names all its columns.
    pub key: Vec<usize>,
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its name.
    pub name: Box<str>,
    /// Its type as the database writes it, `numeric(12,2)`.
    pub type_name: Box<str>,
    /// How its values become JSON.
    pub codec: Arc<dyn ValueCodec>,
}

/// A column of a captured table, by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedColumn {
    /// The schema; for MySQL the database.
    pub schema: Box<str>,
    /// The table's own name.
    pub table: Box<str>,
    /// The column's own name.
    pub name: Box<str>,
    /// Whether it belongs to the key.
    pub is_key: bool,
}

impl NamedColumn {
    /// `schema.table.name`, for people and globs.
    #[must_use]
    pub fn qualified_name(&self) -> String {
        format!("{}.{}.{}", self.schema, self.table, self.name)
    }
}

impl Table {
    /// `schema.name`, for people.
    #[must_use]
    pub fn qualified_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// Whether both have the same columns, of the same types, and the same key.
    #[must_use]
    pub fn has_shape_of(&self, other: &Table) -> bool {
        self.key == other.key
            && self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(|(a, b)| a.name == b.name && a.type_name == b.type_name)
    }
}
