//! PostgreSQL's values as JSON.
//!
//! pgoutput sends each value as the text that the type's output function gives.
//! That text depends on settings; the codecs here expect it under `datestyle =
//! ISO`, `intervalstyle = iso_8601`, `extra_float_digits = 3`, `timezone = UTC`,
//! `lc_monetary = C`, `bytea_output = hex`, `search_path = pg_catalog`,
//! `quote_all_identifiers = off` and `client_encoding = UTF8`.
//!
//! ```text
//!   pg_type, pg_attribute ──> TypeRow ──> Types ──> one ValueCodec per column
//!
//!   builtin    the types whose oids are the same in every server
//!   text       bool, text and whatever is shown as text, "char", bytea
//!   number     integers, floats, numeric, money, vectors of numbers
//!   time       date, time, timestamp, interval
//!   json       json, jsonb
//!   array composite hstore    values made of values
//!   debezium   the same values in Debezium's encodings
//! ```
//!
//! What JSON cannot hold is not kept: the lower bounds of an array
//! (`[0:1]={1,2}` is `[1,2]`), and in a `json` value escapes that stand for half
//! a surrogate pair, which are no characters and become U+FFFD.

#![deny(clippy::indexing_slicing)]

mod array;
mod builtin;
mod composite;
mod debezium;
mod hstore;
mod json;
mod number;
#[cfg(test)]
mod properties;
mod text;
mod time;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use figvine_change::debezium::Encoding;
use figvine_change::{JsonType, ValueCodec, ValueError};

use crate::config::ValueOptions;

/// How deep types may be nested in types; a type beyond is shown as its text.
/// No schema made by people comes near; the bound keeps the stack bounded.
const MAX_NESTING: u32 = 32;

/// One row of `pg_type` with what its codec needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypeRow {
    /// `oid`.
    pub oid: u32,
    /// The name of `typnamespace`.
    pub schema: String,
    /// `typname`.
    pub name: String,
    /// `typtype`: `b`ase, `c`omposite, `d`omain, `e`num, `p`seudo, `r`ange, `m`ultirange.
    pub kind: char,
    /// `typcategory`; `A` for arrays.
    pub category: char,
    /// `typelem` of a true array, else 0.
    pub element: u32,
    /// `typdelim`: what stands between elements in an array of this type.
    pub delimiter: u8,
    /// `typbasetype` of a domain, else 0.
    pub base: u32,
    /// `typtypmod` of a domain, else -1.
    pub base_modifier: i32,
    /// The attributes of a composite type, in order, without dropped ones: names and type oids.
    pub attributes: Vec<(String, u32)>,
}

impl TypeRow {
    /// The types this one is made of.
    fn parts(&self) -> impl Iterator<Item = u32> + '_ {
        let one = match self.kind {
            'd' => self.base,
            'b' => self.element,
            _ => 0,
        };
        let many = if self.kind == 'c' { self.attributes.as_slice() } else { &[] };
        (one != 0).then_some(one).into_iter().chain(many.iter().map(|(_, oid)| *oid))
    }

    /// The name for errors.
    fn qualified_name(&self) -> String {
        if self.schema == "pg_catalog" { self.name.clone() } else { format!("{}.{}", self.schema, self.name) }
    }
}

/// The types of one database: oid to codec.
///
/// The built-in types are known from the start and cannot be replaced or
/// forgotten: their oids are fixed. All others are told by [`Types::add`]; who
/// asks for a codec first fetches what [`Types::missing`] names.
#[derive(Debug)]
pub struct Types {
    rows: HashMap<u32, TypeRow>,
    codecs: HashMap<u32, Built>,
    unknown: Arc<dyn ValueCodec>,
    debezium: Option<Arc<Encoding>>,
}

/// A codec and the number of codecs nested in it.
#[derive(Debug)]
struct Built {
    codec: Arc<dyn ValueCodec>,
    height: u32,
}

impl Types {
    /// The built-in types.
    #[must_use]
    pub fn new(options: &ValueOptions) -> Self {
        let mut codecs = HashMap::new();
        for (oid, array_oid, name, write) in builtin::types(options) {
            let codec = Scalar::of_type(name, write, builtin::json_type(oid, options));
            let array = array::Array::shared(format!("{name}[]"), builtin::delimiter(oid), Arc::clone(&codec));
            codecs.insert(oid, Built { codec, height: 0 });
            codecs.insert(array_oid, Built { codec: array, height: 1 });
        }
        Self { rows: HashMap::new(), codecs, unknown: Scalar::text("unknown"), debezium: options.debezium.clone() }
    }

    /// Whether the type is built in or was added.
    #[must_use]
    pub fn known(&self, oid: u32) -> bool {
        self.codecs.contains_key(&oid)
    }

    /// Takes in rows of the catalogue, in any order; they may refer to each
    /// other. A row for a known type replaces it and all codecs made of it; rows
    /// for built-in types are ignored.
    pub fn add(&mut self, rows: Vec<TypeRow>) {
        let mut changed = HashSet::new();
        for row in rows {
            if self.is_builtin(row.oid) || self.rows.get(&row.oid) == Some(&row) {
                continue;
            }
            changed.insert(row.oid);
            self.rows.insert(row.oid, row);
        }
        self.rebuild(changed);
    }

    /// The types that must be looked up before [`Types::codec`] is exact: the
    /// type itself and what it is made of, as far as known by now. Empty when complete.
    #[must_use]
    pub fn missing(&self, oid: u32) -> Vec<u32> {
        let mut missing = Vec::new();
        let mut seen = HashSet::from([oid]);
        let mut open = vec![oid];
        while let Some(oid) = open.pop() {
            match self.rows.get(&oid) {
                Some(row) => open.extend(row.parts().filter(|&part| seen.insert(part))),
                None if self.is_builtin(oid) => {}
                None => missing.push(oid),
            }
        }
        missing
    }

    /// The codec of a type. A type that is not known is shown as its text.
    #[must_use]
    pub fn codec(&self, oid: u32) -> Arc<dyn ValueCodec> {
        Arc::clone(self.codecs.get(&oid).map_or(&self.unknown, |built| &built.codec))
    }

    /// Drops an added type, so that it is looked up anew.
    pub fn forget(&mut self, oid: u32) {
        if self.rows.remove(&oid).is_some() {
            self.rebuild(HashSet::from([oid]));
        }
    }

    /// The composite types that the type is made of, itself included, as far as known by now.
    #[must_use]
    pub fn composites(&self, oid: u32) -> Vec<u32> {
        let mut found = Vec::new();
        if self.debezium.is_some() {
            // It shows the text of those.
            return found;
        }
        let mut seen = HashSet::from([oid]);
        let mut open = vec![oid];
        while let Some(oid) = open.pop() {
            if let Some(row) = self.rows.get(&oid) {
                open.extend(row.parts().filter(|&part| seen.insert(part)));
                if row.kind == 'c' {
                    found.push(oid);
                }
            }
        }
        found
    }

    /// The codec of a column of the type with its modifier (`atttypmod`). Where the type is made of composite types, a value that was written
    /// when they had other attributes is shown as its text.
    #[must_use]
    pub fn column_codec(&self, oid: u32, modifier: i32) -> Arc<dyn ValueCodec> {
        if let Some(encoding) = &self.debezium {
            return debezium::codec(self, encoding, oid, modifier);
        }
        let codec = self.codec(oid);
        if self.composites(oid).is_empty() { codec } else { Arc::new(OrText(codec)) }
    }

    /// Built-in types have a codec and no row.
    fn is_builtin(&self, oid: u32) -> bool {
        self.codecs.contains_key(&oid) && !self.rows.contains_key(&oid)
    }

    /// Makes the codecs of `stale` types anew, and of all types made of them.
    fn rebuild(&mut self, mut stale: HashSet<u32>) {
        loop {
            let before = stale.len();
            for row in self.rows.values() {
                if row.parts().any(|part| stale.contains(&part)) {
                    stale.insert(row.oid);
                }
            }
            if stale.len() == before {
                break;
            }
        }
        for oid in &stale {
            self.codecs.remove(oid);
        }
        let mut waiting: Vec<u32> = stale.into_iter().filter(|oid| self.rows.contains_key(oid)).collect();
        loop {
            let before = waiting.len();
            waiting.retain(|oid| match self.rows.get(oid).and_then(|row| self.build(row)) {
                Some(built) => {
                    self.codecs.insert(*oid, built);
                    false
                }
                None => true,
            });
            if waiting.is_empty() || waiting.len() == before {
                break;
            }
        }
        // Only a catalogue read in the middle of a change could name a circle.
        for oid in waiting {
            if let Some(row) = self.rows.get(&oid) {
                let codec = Scalar::text(row.qualified_name());
                self.codecs.insert(oid, Built { codec, height: 0 });
            }
        }
    }

    /// The codec of a row; `None` while a part of it that has a row has no codec.
    fn build(&self, row: &TypeRow) -> Option<Built> {
        let mut height = 0;
        for part in row.parts() {
            match self.codecs.get(&part) {
                Some(built) => height = height.max(built.height + 1),
                None if self.rows.contains_key(&part) => return None,
                None => {}
            }
        }
        if row.kind == 'd' {
            return Some(match self.codecs.get(&row.base) {
                Some(base) => Built { codec: Arc::clone(&base.codec), height: base.height },
                None => Built { codec: Scalar::text(row.qualified_name()), height: 0 },
            });
        }
        let name = row.qualified_name();
        if height > MAX_NESTING {
            return Some(Built { codec: Scalar::text(name), height: 0 });
        }
        let codec = match row.kind {
            'c' => {
                let attributes = row.attributes.iter().map(|(name, oid)| (name.as_str(), self.codec(*oid)));
                composite::Composite::shared(name, attributes)
            }
            'b' if row.element != 0 => array::Array::shared(name, self.element_delimiter(row), self.codec(row.element)),
            // Types of extensions, which may be installed in any schema.
            'b' if row.name == "hstore" => {
                Scalar::of_type(name, hstore::write_hstore, JsonType::Map(Box::new(JsonType::Text)))
            }
            'b' if row.name == "vector" || row.name == "halfvec" => {
                Scalar::of_type(name, number::write_vector, JsonType::List(Box::new(JsonType::Float)))
            }
            _ => Scalar::text(name),
        };
        Some(Built { codec, height })
    }

    /// The delimiter is a property of the element's type; an array's own row repeats it.
    fn element_delimiter(&self, array: &TypeRow) -> u8 {
        match self.rows.get(&array.element) {
            Some(element) => element.delimiter,
            None if self.is_builtin(array.element) => builtin::delimiter(array.element),
            None => array.delimiter,
        }
    }
}

/// Writes one value, or says what is wrong with it.
type Write = fn(&[u8], &mut Vec<u8>) -> Result<(), &'static str>;

/// A type whose values are not made of values of other types.
#[derive(Debug)]
struct Scalar {
    name: Box<str>,
    write: Write,
    json: JsonType,
}

impl Scalar {
    fn of_type(name: impl Into<Box<str>>, write: Write, json: JsonType) -> Arc<dyn ValueCodec> {
        Arc::new(Self { name: name.into(), write, json })
    }

    /// Shown as its text.
    fn text(name: impl Into<Box<str>>) -> Arc<dyn ValueCodec> {
        Self::of_type(name, text::write_text, JsonType::Text)
    }
}

impl ValueCodec for Scalar {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        (self.write)(raw, out).map_err(|reason| ValueError { type_name: self.name.clone(), reason })
    }

    fn json_type(&self) -> JsonType {
        self.json.clone()
    }
}

/// Text for what the codec cannot read. The log keeps no history of composite types, and the catalogue
/// tells only what they are now.
#[derive(Debug)]
struct OrText(Arc<dyn ValueCodec>);

impl ValueCodec for OrText {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let start = out.len();
        if self.0.write_json(raw, out).is_err() {
            out.truncate(start);
            figvine_change::json::write_string(raw, out);
        }
        Ok(())
    }

    fn json_type(&self) -> JsonType {
        JsonType::OrText(Box::new(self.0.json_type()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row as the catalogue would give it; callers change what matters.
    fn row(oid: u32, name: &str, kind: char) -> TypeRow {
        TypeRow {
            oid,
            schema: "public".into(),
            name: name.into(),
            kind,
            category: 'U',
            element: 0,
            delimiter: b',',
            base: 0,
            base_modifier: -1,
            attributes: Vec::new(),
        }
    }

    fn json(types: &Types, oid: u32, text: &str) -> String {
        let mut out = Vec::new();
        types.codec(oid).write_json(text.as_bytes(), &mut out).expect("a value");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn an_unknown_type_is_shown_as_its_text() {
        let types = Types::new(&ValueOptions::default());
        assert!(!types.known(70_000));
        assert_eq!(types.missing(70_000), [70_000]);
        assert_eq!(json(&types, 70_000, "POINT(1 \"2\")"), r#""POINT(1 \"2\")""#);
    }

    #[test]
    fn what_is_promised_follows_type_and_options() {
        let options = ValueOptions { bigint_as_string: true, decimal_as_number: true, debezium: None };
        let mut types = Types::new(&options);
        let mut plain = Types::new(&ValueOptions::default());
        let pair = TypeRow { attributes: vec![("a".into(), 20), ("b".into(), 70_001)], ..row(70_000, "pair", 'c') };
        types.add(vec![pair, TypeRow { base: 1231, ..row(70_001, "prices", 'd') }]);
        plain.add(vec![row(70_004, "mood", 'e'), row(70_005, "hstore", 'b')]);
        let object = JsonType::Object(vec![
            ("a".into(), JsonType::integer(64, true).into_string()),
            ("b".into(), JsonType::Array(Box::new(JsonType::Decimal { as_string: false }))),
        ]);
        assert_eq!(types.codec(70_000).json_type(), object);
        // A column's values may be of a time when the type had other attributes.
        assert_eq!(types.column_codec(70_000, -1).json_type(), JsonType::OrText(Box::new(object)));
        assert_eq!(plain.codec(20).json_type(), JsonType::integer(64, true));
        assert_eq!(plain.codec(1184).json_type(), JsonType::TimestampWithZone);
        assert_eq!(plain.codec(70_004).json_type(), JsonType::Text);
        assert_eq!(plain.codec(70_005).json_type(), JsonType::Map(Box::new(JsonType::Text)));
        assert_eq!(plain.codec(99_999).json_type(), JsonType::Text);
        let debezium = ValueOptions { debezium: Some(Arc::default()), ..ValueOptions::default() };
        assert_eq!(Types::new(&debezium).column_codec(20, -1).json_type(), JsonType::Any);
    }

    #[test]
    fn what_is_missing_is_named_until_nothing_is() {
        let mut types = Types::new(&ValueOptions::default());
        types.add(vec![TypeRow {
            attributes: vec![("a".into(), 23), ("b".into(), 70_001)],
            ..row(70_000, "pair", 'c')
        }]);
        assert_eq!(types.missing(70_000), [70_001]);
        types.add(vec![TypeRow { base: 70_002, ..row(70_001, "positive", 'd') }]);
        assert_eq!(types.missing(70_000), [70_002]);
        types.add(vec![TypeRow { element: 20, category: 'A', ..row(70_002, "_bigs", 'b') }]);
        assert!(types.missing(70_000).is_empty());
        assert_eq!(json(&types, 70_000, r#"(1,"{2,3}")"#), r#"{"a":1,"b":[2,3]}"#);
    }

    #[test]
    fn rows_may_come_in_any_order() {
        let mut types = Types::new(&ValueOptions::default());
        types.add(vec![
            TypeRow { base: 70_001, ..row(70_000, "d2", 'd') },
            TypeRow { base: 16, ..row(70_001, "d1", 'd') },
        ]);
        assert_eq!(json(&types, 70_000, "t"), "true");
        assert!(types.known(70_000));
    }

    #[test]
    fn a_replaced_or_forgotten_type_renews_what_is_made_of_it() {
        let mut types = Types::new(&ValueOptions::default());
        types.add(vec![
            TypeRow { element: 70_001, ..row(70_000, "_pair", 'b') },
            TypeRow { attributes: vec![("a".into(), 23)], ..row(70_001, "pair", 'c') },
        ]);
        assert_eq!(json(&types, 70_000, "{(1)}"), r#"[{"a":1}]"#);
        types.add(vec![TypeRow { attributes: vec![("x".into(), 25), ("y".into(), 16)], ..row(70_001, "pair", 'c') }]);
        assert_eq!(json(&types, 70_000, r#"{"(1,f)"}"#), r#"[{"x":"1","y":false}]"#);
        types.forget(70_001);
        assert_eq!(types.missing(70_000), [70_001]);
        assert_eq!(json(&types, 70_000, r#"{"(1,f)"}"#), r#"["(1,f)"]"#);
    }

    #[test]
    fn built_in_types_stay_whatever_the_catalogue_says() {
        let mut types = Types::new(&ValueOptions::default());
        types.add(vec![TypeRow { base: 25, ..row(23, "int4", 'd') }]);
        types.forget(23);
        assert!(types.known(23) && types.missing(23).is_empty());
        assert_eq!(json(&types, 23, "7"), "7");
    }

    #[test]
    fn a_circle_of_types_and_a_very_deep_type_are_shown_as_text() {
        let mut types = Types::new(&ValueOptions::default());
        types.add(vec![
            TypeRow { base: 70_001, ..row(70_000, "a", 'd') },
            TypeRow { attributes: vec![("a".into(), 70_000)], ..row(70_001, "b", 'c') },
        ]);
        assert_eq!(json(&types, 70_001, "(1)"), r#""(1)""#);
        assert!(types.missing(70_001).is_empty());

        let deep = |n: u32| TypeRow {
            attributes: vec![("v".into(), if n == 0 { 23 } else { 80_000 + n - 1 })],
            ..row(80_000 + n, "n", 'c')
        };
        types.add((0..1000).rev().map(deep).collect());
        assert_eq!(json(&types, 80_000, "(1)"), r#"{"v":1}"#);
        assert_eq!(json(&types, 80_000 + MAX_NESTING, "(1)"), r#""(1)""#);
    }

    #[test]
    fn types_of_extensions_are_known_by_name_in_any_schema() {
        let mut types = Types::new(&ValueOptions::default());
        types.add(vec![
            row(70_000, "hstore", 'b'),
            row(70_001, "vector", 'b'),
            row(70_002, "citext", 'b'),
            row(70_003, "ltree", 'b'),
            row(70_004, "mood", 'e'),
            row(70_005, "floatrange", 'r'),
            row(70_006, "floatmultirange", 'm'),
            TypeRow { element: 70_000, ..row(70_007, "_hstore", 'b') },
        ]);
        assert_eq!(json(&types, 70_000, r#""a"=>"1", "b"=>NULL"#), r#"{"a":"1","b":null}"#);
        assert_eq!(json(&types, 70_001, "[1,-2.5,1e-05]"), "[1,-2.5,1e-05]");
        assert_eq!(json(&types, 70_002, "Ab"), r#""Ab""#);
        assert_eq!(json(&types, 70_003, "Top.Science"), r#""Top.Science""#);
        assert_eq!(json(&types, 70_004, "sehr gut"), r#""sehr gut""#);
        assert_eq!(json(&types, 70_005, "[1.5,2.5)"), r#""[1.5,2.5)""#);
        assert_eq!(json(&types, 70_006, "{[1.5,2.5)}"), r#""{[1.5,2.5)}""#);
        assert_eq!(json(&types, 70_007, r#"{"\"a\"=>\"1\"",NULL}"#), r#"[{"a":"1"},null]"#);
    }

    #[test]
    fn an_array_takes_the_delimiter_of_its_elements() {
        let mut types = Types::new(&ValueOptions::default());
        types.add(vec![
            TypeRow { delimiter: b';', base: 603, ..row(70_000, "area", 'd') },
            TypeRow { element: 70_000, ..row(70_001, "_area", 'b') },
        ]);
        assert_eq!(json(&types, 70_001, "{(1,1),(0,0);(2,2),(1,1)}"), r#"["(1,1),(0,0)","(2,2),(1,1)"]"#);
    }

    #[test]
    fn an_error_names_the_type_and_not_the_value() {
        let mut types = Types::new(&ValueOptions::default());
        types.add(vec![TypeRow { attributes: vec![("a".into(), 23)], ..row(70_000, "pair", 'c') }]);
        let error = types.codec(70_000).write_json(b"(1,2)", &mut Vec::new()).expect_err("too many");
        assert_eq!(error.to_string(), "not a value of type public.pair: wrong number of attributes");
        let error = types.codec(70_000).write_json(b"(secret)", &mut Vec::new()).expect_err("no number");
        assert_eq!(error.to_string(), "not a value of type int4: not a whole number");
    }
}
