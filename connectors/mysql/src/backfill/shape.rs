//! A table as a table map of the log would tell it, out of the catalogue: the same names of types, the same key, the
//! same codecs.

use std::sync::Arc;

use figvine_change::{Column, SourceError, Table};

use super::image::Form;
use super::key::{KeyColumn, KeyKind};
use crate::catalogue::{Catalogue, ColumnFacts, Index, Keys, Server, literal};
use crate::config::{Flavour, Keyless};
use crate::decode::table_map::{ColumnMap, column_type as t};
use crate::session::quoted;
use crate::tables::{UTF8MB4, labels};
use crate::value::charset::BINARY;
use crate::value::{Charsets, Declared, ValueOptions, codec, type_name};

/// A table whose rows are read.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) table: Arc<Table>,
    /// How each column's values become those of a row image.
    pub(super) forms: Vec<Form>,
    /// How each column's values are compared; `None` for documents and shapes, which are not.
    pub(super) kinds: Vec<Option<KeyKind>>,
    /// What is selected, one expression a column.
    pub(super) selected: String,
    /// `` `database`.`table` ``.
    pub(super) quoted: String,
    /// What the rows are gone through by.
    pub(super) index: Option<ReadIndex>,
    /// Whether its engine takes part in a consistent snapshot.
    pub(super) has_snapshots: bool,
    /// The definition that this was made of, to see whether it still holds.
    pub(super) definition: String,
    /// Bytes of a row, as far as seen.
    pub(super) row_bytes: Option<usize>,
}

/// An index that tells all rows apart.
#[derive(Debug)]
pub(super) struct ReadIndex {
    pub(super) name: String,
    pub(super) columns: Vec<KeyColumn>,
}

/// What all tables of a connector have in common.
#[derive(Debug, Clone)]
pub(crate) struct RowValues {
    pub(crate) keyless: Keyless,
    pub(crate) options: ValueOptions,
    pub(crate) charsets: Charsets,
}

impl Shape {
    /// Asks for a table; `None` where there is none. It may change while it is asked for: the definition tells.
    pub(super) async fn ask(
        catalogue: &mut Catalogue,
        server: &Server,
        values: &RowValues,
        (schema, name): (&str, &str),
    ) -> Result<Option<Self>, SourceError> {
        let what = format!("reading the shape of {schema}.{name}");
        let quoted = format!("{}.{}", quoted(schema), quoted(name));
        loop {
            let definition = definition(catalogue, &quoted, &what).await?;
            let columns = catalogue.columns(server.flavour, schema, name).await?;
            let names_keys =
                server.setting("binlog_row_metadata").is_some_and(|told| told.eq_ignore_ascii_case("FULL"));
            // A log that tells keys takes the first such index of the table's definition for the primary key.
            let order = if names_keys { definition.as_str() } else { "" };
            let keys = catalogue.keys(schema, name, order).await?;
            let sql = format!(
                "SELECT engine, table_type FROM information_schema.tables WHERE table_schema = {} AND table_name = {}",
                literal(schema),
                literal(name)
            );
            let rows = catalogue.ask(&sql, &what).await?;
            if definition != self::definition(catalogue, &quoted, &what).await? {
                continue;
            }
            let Some(row) = rows.first() else { return Ok(None) };
            let field = |at: usize| row.get(at).and_then(|field| field.as_deref()).unwrap_or_default();
            // MariaDB: `WITH SYSTEM VERSIONING` alone makes two columns that no catalogue tells; the log's rows have them.
            let is_period_hidden = field(1) == "SYSTEM VERSIONED" && !definition.contains("PERIOD FOR SYSTEM_TIME");
            let has_snapshots = matches!(field(0), "InnoDB" | "ROCKSDB");
            let period = if is_period_hidden { PERIOD } else { &[] };
            let mut shape = Self::of(server, values, (schema, name), (&columns, period), &keys);
            shape.quoted = quoted;
            shape.has_snapshots = has_snapshots;
            shape.definition = definition;
            return Ok(Some(shape));
        }
    }

    fn of(
        server: &Server,
        values: &RowValues,
        (schema, name): (&str, &str),
        (told, untold): (&[ColumnFacts], &[&str]),
        keys: &Keys,
    ) -> Self {
        // Where the log tells all there is, it is not laid beside the catalogue: see `Tables`.
        let is_declared = server.flavour == Flavour::MariaDb
            || values.options.tinyint1_as_boolean
            || !server.setting("binlog_row_metadata").is_some_and(|told| told.eq_ignore_ascii_case("FULL"));
        let (mut forms, mut selected, mut kinds, mut made) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let untold: Vec<_> = untold.iter().map(|name| hidden(name)).collect();
        let columns = told.iter().map(|fact| (fact, is_declared)).chain(untold.iter().map(|fact| (fact, false)));
        for (fact, is_declared) in columns {
            let ReadColumn { map, form, cast } = ReadColumn::of(fact, server.flavour, &values.charsets);
            let declared = Declared { column_type: fact.column_type.clone(), is_json: fact.is_json };
            let declared = is_declared.then_some(&declared);
            let column_name = quoted(&fact.name);
            selected.push(cast.map_or_else(|| column_name.clone(), |cast| format!("CAST({column_name} AS {cast})")));
            forms.push(form);
            kinds.push(KeyKind::of(&map, fact, &values.charsets));
            made.push(Column {
                name: fact.name.as_str().into(),
                type_name: name_of(&map, fact, declared, &values.charsets).into(),
                // Compressed columns come expanded, but for that a codec is the log's.
                codec: codec(&map, declared, &values.charsets, &values.options),
            });
        }
        let place = |name: &String| made.iter().position(|column| *column.name == **name);
        let mut key: Vec<usize> = keys.columns.iter().filter_map(place).collect();
        key.sort_unstable();
        if key.is_empty() && values.keyless == Keyless::WholeRow {
            key = (0..made.len()).collect();
        }
        let index = keys.index.as_ref().and_then(|Index { name, columns }| {
            let column = |(name, is_descending): &(String, bool)| {
                let at = place(name)?;
                let kind = kinds.get(at)?.clone()?;
                Some(KeyColumn { at, name: quoted(name), is_descending: *is_descending, kind })
            };
            Some(ReadIndex { name: name.clone(), columns: columns.iter().map(column).collect::<Option<_>>()? })
        });
        for (kind, _) in kinds.iter_mut().zip(told).filter(|(_, fact)| fact.is_json) {
            *kind = None;
        }
        let table = Table { schema: schema.into(), name: name.into(), columns: made, key };
        Self {
            table: Arc::new(table),
            forms,
            kinds,
            selected: selected.join(", "),
            quoted: String::new(),
            index,
            has_snapshots: true,
            definition: String::new(),
            row_bytes: None,
        }
    }
}

/// The table's definition without what changes with its rows.
pub(super) async fn definition(catalogue: &mut Catalogue, quoted: &str, what: &str) -> Result<String, SourceError> {
    let rows = catalogue.ask(&format!("SHOW CREATE TABLE {quoted}"), what).await?;
    let text = rows.first().and_then(|row| row.get(1)).and_then(|field| field.as_deref()).unwrap_or_default();
    Ok(match text.rsplit_once(" AUTO_INCREMENT=") {
        // Behind the columns: a comment cannot stand there without its quotes.
        Some((columns, rest)) if columns.contains("\n) ENGINE=") => {
            format!("{columns}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        _ => text.to_owned(),
    })
}

/// What `WITH SYSTEM VERSIONING` calls its columns.
const PERIOD: &[&str] = &["row_start", "row_end"];

fn hidden(name: &str) -> ColumnFacts {
    ColumnFacts {
        name: name.into(),
        column_type: "timestamp(6)".into(),
        collation: None,
        is_nullable: false,
        is_generated: true,
        is_invisible: true,
        is_json: false,
    }
}

/// A column as a table map tells it, and how it is read.
#[derive(Debug)]
pub(super) struct ReadColumn {
    pub(super) map: ColumnMap,
    form: Form,
    /// What it is cast to.
    cast: Option<&'static str>,
}

impl ReadColumn {
    pub(super) fn of(fact: &ColumnFacts, flavour: Flavour, charsets: &Charsets) -> Self {
        let declared = fact.column_type.as_str();
        let word = declared.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let number = |at: usize| -> Option<u16> {
            let (_, rest) = declared.split_once('(')?;
            rest.split(')').next()?.split(',').nth(at)?.trim().parse().ok()
        };
        let collation = match fact.collation.as_deref() {
            // A collation's name begins with that of its character set.
            Some(name) => charsets.collation_of(name.split('_').next().unwrap_or_default()),
            None => Some(BINARY),
        };
        let most_bytes = collation.and_then(|id| charsets.charset(id)).map_or(1, |charset| charset.max_bytes());
        let length = || number(0).unwrap_or(1).saturating_mul(most_bytes);
        let digits = u8::try_from(number(0).unwrap_or(0)).unwrap_or(6);
        let column = |type_code: u8, metadata: u16, form: Form| Self {
            map: ColumnMap {
                type_code,
                metadata,
                unsigned: declared.contains("unsigned"),
                name: Some(fact.name.as_str().into()),
                nullable: fact.is_nullable,
                // Other kinds look alike to all codecs.
                geometry_type: (word == "point").then_some(1),
                ..ColumnMap::default()
            },
            form,
            cast: None,
        };
        let characters = |made: Self| Self { map: ColumnMap { collation, ..made.map }, ..made };
        let text = |type_code: u8, metadata: u16| characters(column(type_code, metadata, Form::Same));
        // As bytes, whatever the type makes of them in an answer.
        let as_bytes =
            |length: u16, cast: &'static str| Self { cast: Some(cast), ..text(t::STRING, string_metadata(length)) };
        let labelled = |type_code: u8| {
            let labels = labels(declared);
            let width = match type_code {
                t::ENUM if labels.len() > 255 => 2,
                t::ENUM => 1,
                _ => match labels.len().div_ceil(8) {
                    bytes @ 0..=4 => bytes.max(1),
                    _ => 8,
                },
            };
            let made = column(type_code, u16::from(type_code) << 8 | width as u16, Form::Integer(width));
            // The catalogue speaks UTF-8.
            let map = ColumnMap { labels, collation: Some(UTF8MB4), ..made.map };
            Self { map, cast: Some("UNSIGNED"), ..made }
        };
        match word {
            "tinyint" => column(t::TINY, 0, Form::Integer(1)),
            "smallint" => column(t::SHORT, 0, Form::Integer(2)),
            "mediumint" => column(t::INT24, 0, Form::Integer(3)),
            "int" => column(t::LONG, 0, Form::Integer(4)),
            "bigint" => column(t::LONGLONG, 0, Form::Integer(8)),
            "float" => column(t::FLOAT, 4, Form::Same),
            "double" => column(t::DOUBLE, 8, Form::Same),
            "decimal" => {
                let (precision, scale) = (number(0).unwrap_or(10), number(1).unwrap_or(0));
                let form = Form::Decimal { precision: precision.into(), scale: scale.into() };
                column(t::NEWDECIMAL, precision << 8 | scale, form)
            }
            "year" => column(t::YEAR, 0, Form::Year),
            "date" => column(t::DATE, 0, Form::Date),
            "time" => column(t::TIME2, digits.into(), Form::Time(digits)),
            "datetime" => column(t::DATETIME2, digits.into(), Form::DateTime(digits)),
            "timestamp" => column(t::TIMESTAMP2, digits.into(), Form::Timestamp(digits)),
            "bit" => {
                let bits = number(0).unwrap_or(1);
                column(t::BIT, ((bits / 8) << 8) | (bits % 8), Form::Same)
            }
            "enum" => labelled(t::ENUM),
            "set" => labelled(t::SET),
            "char" | "binary" => text(t::STRING, string_metadata(length())),
            "varchar" | "varbinary" => text(t::VARCHAR, length()),
            "tinytext" | "tinyblob" => text(t::BLOB, 1),
            "text" | "blob" => text(t::BLOB, 2),
            "mediumtext" | "mediumblob" => text(t::BLOB, 3),
            "longtext" | "longblob" => text(t::BLOB, 4),
            "json" => column(t::JSON, 4, Form::Json),
            "uuid" | "inet6" => as_bytes(16, "BINARY(16)"),
            "inet4" => as_bytes(4, "BINARY(4)"),
            "vector" if flavour == Flavour::MySql => {
                let made = column(t::VECTOR, 4, Form::Same);
                Self { map: ColumnMap { vector_dimension: number(0).map(u32::from), ..made.map }, ..made }
            }
            "vector" => text(t::VARCHAR, number(0).unwrap_or(1).saturating_mul(4)),
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
            | "geomcollection" | "geometrycollection" => column(t::GEOMETRY, 4, Form::Same),
            // Refused by its codec, value by value.
            _ => column(t::NULL, 0, Form::Same),
        }
    }
}

/// The name of a type, as a table map gives it.
fn name_of(map: &ColumnMap, fact: &ColumnFacts, declared: Option<&Declared>, charsets: &Charsets) -> String {
    let name = type_name(map, declared, charsets);
    match (declared, &fact.collation) {
        // Labels are read as UTF-8, and shown in the column's character set.
        (None, Some(collation)) if !map.labels.is_empty() => {
            let charset = collation.split('_').next().unwrap_or_default();
            match name.strip_suffix(" character set utf8mb4") {
                Some(labels) if charset == "binary" => labels.to_owned(),
                Some(labels) => format!("{labels} character set {charset}"),
                None => name,
            }
        }
        _ => name,
    }
}

/// The metadata of a CHAR or BINARY: see [`ColumnMap::metadata`].
fn string_metadata(length: u16) -> u16 {
    let high = 0xfe ^ (length & 0x300) >> 4;
    high << 8 | length & 0xff
}
