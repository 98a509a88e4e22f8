//! The text of a value, and the column type of what stands in its place.

use std::sync::Arc;

use figvine_change::json::write_string;
use figvine_change::{JsonType, ValueCodec, ValueError};

/// A value as it would be published.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Published {
    /// `null`, of a value that is written so.
    Null,
    /// The inside of a string, else the JSON as it stands.
    Text(String),
}

/// The text of a value: of a string what it says, of anything else its JSON.
pub(super) fn published(codec: &dyn ValueCodec, raw: &[u8], scratch: &mut Vec<u8>) -> Result<Published, ValueError> {
    scratch.clear();
    codec.write_json(raw, scratch)?;
    let wrong = || ValueError { type_name: "text".into(), reason: "it is not written as JSON" };
    let text = std::str::from_utf8(scratch).map_err(|_| wrong())?;
    Ok(match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        None if text == "null" => Published::Null,
        None => Published::Text(text.to_owned()),
        Some(inside) if !inside.contains('\\') => Published::Text(inside.to_owned()),
        Some(_) => Published::Text(serde_json::from_str(text).map_err(|_| wrong())?),
    })
}

/// The first byte of what stands in the place of a value: a text follows.
pub(super) const TEXT: u8 = b'=';
/// The value's own bytes follow; they are none of the column's type.
pub(super) const UNREADABLE: u8 = b'!';
/// Nothing follows: the log does not tell whose the value is.
pub(super) const NOBODYS: u8 = b'?';

/// How a hidden column is written: as a string, whatever its values were.
#[derive(Debug)]
pub(super) struct Hidden(pub(super) Arc<dyn ValueCodec>);

impl ValueCodec for Hidden {
    fn write_json(&self, raw: &[u8], out: &mut Vec<u8>) -> Result<(), ValueError> {
        let error = |reason| Err(ValueError { type_name: "a private column".into(), reason });
        match raw.split_first() {
            Some((&TEXT, text)) => {
                write_string(text, out);
                Ok(())
            }
            // Told as it would have been told without us, and never written.
            Some((&UNREADABLE, own)) => match self.0.write_json(own, &mut Vec::new()) {
                Err(told) => Err(told),
                Ok(()) => error("it cannot be hidden"),
            },
            Some((&NOBODYS, [])) => error("the log does not carry the column that names its subject"),
            _ => error("it was not hidden"),
        }
    }

    fn is_hidden(&self) -> bool {
        true
    }

    fn json_type(&self) -> JsonType {
        JsonType::Text
    }
}
