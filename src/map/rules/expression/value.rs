//! Values while an expression runs; most borrow from the row.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use figvine_change::json;
use serde_json::value::RawValue;

use super::EvalError;
use super::decimal::Decimal;

/// A value.
#[derive(Debug, Clone)]
pub(in crate::map::rules) enum Value<'a> {
    Null,
    Bool(bool),
    /// Signed or unsigned, of 64 bits; results outside are errors.
    Int(i128),
    Float(f64),
    Decimal(Decimal),
    Text(Cow<'a, str>),
    List(Rc<Vec<Value<'a>>>),
    Map(Rc<Vec<(Cow<'a, str>, Value<'a>)>>),
    /// JSON that was not looked into yet.
    Json(&'a str),
}

/// What a column's JSON is, beyond what it shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::map::rules) enum Reading {
    /// As it stands.
    Plain,
    /// A string or a number that is an exact decimal.
    Decimal,
    /// A number that is a double, or the text `NaN`, `Infinity`, `-Infinity`.
    Float,
    /// A document.
    Document,
}

impl<'a> Value<'a> {
    /// Of a column's JSON.
    pub(in crate::map::rules) fn of_column(text: &'a str, reading: Reading) -> Result<Self, EvalError> {
        match (reading, text.as_bytes()) {
            (_, b"null") => Ok(Self::Null),
            (Reading::Document, _) => Ok(Self::Json(text)),
            (Reading::Decimal, _) => {
                let digits = text.trim_matches('"');
                match Decimal::parse(digits) {
                    Some(decimal) => Ok(Self::Decimal(decimal)),
                    // Of these there is no exact order: they are texts.
                    None if matches!(digits, "NaN" | "Infinity" | "-Infinity") => Ok(Self::Text(Cow::Borrowed(digits))),
                    None => Err(EvalError::Unreadable("a decimal of 38 digits or less")),
                }
            }
            (Reading::Float, _) => {
                let digits = text.trim_matches('"');
                let number = match digits {
                    "Infinity" => Ok(f64::INFINITY),
                    "-Infinity" => Ok(f64::NEG_INFINITY),
                    digits => digits.parse(),
                };
                number.map(Self::Float).map_err(|_| EvalError::Unreadable("a double"))
            }
            (Reading::Plain, [b'"', inside @ .., b'"']) if memchr::memchr(b'\\', inside).is_none() => {
                Ok(Self::Text(Cow::Borrowed(text.get(1..text.len() - 1).unwrap_or_default())))
            }
            (Reading::Plain, [b'{' | b'[', ..]) => Ok(Self::Json(text)),
            (Reading::Plain, _) => Self::of_json(text),
        }
    }

    /// Of any JSON, one level deep.
    pub(in crate::map::rules) fn of_json(text: &'a str) -> Result<Self, EvalError> {
        let unreadable = |_| EvalError::Unreadable("JSON");
        match text.as_bytes() {
            b"null" => Ok(Self::Null),
            b"true" => Ok(Self::Bool(true)),
            b"false" => Ok(Self::Bool(false)),
            [b'"', ..] => serde_json::from_str::<Cow<'a, str>>(text).map(Self::Text).map_err(unreadable),
            [b'[', ..] => {
                let items: Vec<&'a RawValue> = serde_json::from_str(text).map_err(unreadable)?;
                Ok(Self::List(Rc::new(items.into_iter().map(|item| Self::Json(item.get())).collect())))
            }
            [b'{', ..] => {
                let members: Members<'a> = serde_json::from_str(text).map_err(unreadable)?;
                Ok(Self::Map(Rc::new(members.0)))
            }
            _ if let Ok(number) = text.parse::<i64>() => Ok(Self::Int(number.into())),
            _ => match text.parse::<u64>() {
                Ok(number) => Ok(Self::Int(number.into())),
                Err(_) => match Decimal::parse(text) {
                    Some(decimal) => Ok(Self::Decimal(decimal)),
                    None => text.parse().map(Self::Float).map_err(|_| EvalError::Unreadable("JSON")),
                },
            },
        }
    }

    /// Looked into.
    pub(in crate::map::rules) fn opened(self) -> Result<Self, EvalError> {
        match self {
            Self::Json(text) => Self::of_json(text),
            other => Ok(other),
        }
    }

    /// As messages name its type.
    pub(in crate::map::rules) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "double",
            Self::Decimal(_) => "decimal",
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Json(_) => "json",
        }
    }

    /// Appends it as JSON; decimals are strings, as columns are.
    pub(in crate::map::rules) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
            Self::Float(number) => match serde_json::Number::from_f64(*number) {
                Some(number) => out.extend_from_slice(number.to_string().as_bytes()),
                None if number.is_nan() => out.extend_from_slice(b"\"NaN\""),
                None if *number > 0.0 => out.extend_from_slice(b"\"Infinity\""),
                None => out.extend_from_slice(b"\"-Infinity\""),
            },
            Self::Decimal(decimal) => json::write_str(&decimal.to_string(), out),
            Self::Text(text) => json::write_str(text, out),
            Self::List(items) => {
                out.push(b'[');
                for (place, item) in items.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Map(members) => {
                out.push(b'{');
                for (place, (name, value)) in members.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    json::write_str(name, out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
            Self::Json(text) => out.extend_from_slice(text.as_bytes()),
        }
    }

    /// Whether both are the same; numbers by what they are worth, whatever their type.
    pub(in crate::map::rules) fn equals(&self, other: &Self) -> Result<bool, EvalError> {
        Ok(match (self, other) {
            (Self::Json(text), other) => Self::of_json(text)?.equals(other)?,
            (this, Self::Json(text)) => this.equals(&Self::of_json(text)?)?,
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !a.equals(b)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Map(a), Self::Map(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (name, value) in a.iter() {
                    let Some((_, other)) = b.iter().find(|(other, _)| other == name) else { return Ok(false) };
                    if !value.equals(other)? {
                        return Ok(false);
                    }
                }
                true
            }
            (a, b) => a.compare_numbers(b) == Some(Some(Ordering::Equal)),
        })
    }

    /// Numbers of any types against each other; `None` where one is no number, `Some(None)` beside NaN.
    fn compare_numbers(&self, other: &Self) -> Option<Option<Ordering>> {
        Some(match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Decimal(b)) => Some(Decimal::whole(*a).compare(*b)),
            (Self::Decimal(a), Self::Int(b)) => Some(a.compare(Decimal::whole(*b))),
            (Self::Decimal(a), Self::Decimal(b)) => Some(a.compare(*b)),
            (a, b) => a.as_float()?.partial_cmp(&b.as_float()?),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "against a double, doubles are compared")]
    fn as_float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Decimal(decimal) => Some(decimal.to_float()),
            _ => None,
        }
    }

    /// The order of two of a kind.
    pub(in crate::map::rules) fn compare(&self, other: &Self) -> Result<Option<Ordering>, EvalError> {
        match (self, other) {
            (Self::Json(text), other) => Self::of_json(text)?.compare(other),
            (this, Self::Json(text)) => this.compare(&Self::of_json(text)?),
            (Self::Bool(a), Self::Bool(b)) => Ok(Some(a.cmp(b))),
            (Self::Text(a), Self::Text(b)) => Ok(Some(a.cmp(b))),
            (a, b) => a.compare_numbers(b).ok_or_else(|| EvalError::no_overload("an order", a, b)),
        }
    }
}

/// What an integer of a database can be, signed or unsigned.
pub(super) fn is_whole(number: i128) -> bool {
    (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number)
}

/// An object's members in their order, not looked into.
struct Members<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    members.push((name, Value::Json(value.get())));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
