//! Places in a log, and their text in a [`Position`].
//!
//! ```text
//! gtid/<set>                        MySQL: all transactions of the set were passed
//! mariadb/<domain-server-sequence>  MariaDB: all up to these, one per domain
//! file/<server>/<file>/<offset>     where there are no GTIDs; the server is named by its UUID (MySQL) or id (MariaDB)
//! ```

use std::fmt;

use figvine_change::Position;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::gtid::{MariaDbSet, MySqlSet};

/// What a file's name is written as: no `/`, no `;`, no blanks.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_');

/// A place between two transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Behind all transactions of the set.
    MySql(MySqlSet),
    /// Behind the last of each domain.
    MariaDb(MariaDbSet),
    /// A place in a file.
    File {
        /// The server whose file it is: its UUID, or its id where it has none.
        server: String,
        /// The file's name, without a folder.
        file: String,
        /// Offset of the next event, in bytes.
        position: u64,
    },
}

impl Place {
    /// Reads the part of a [`Position`] that names a place; `None` when it is none of this connector.
    #[must_use]
    pub fn parse(position: &Position) -> Option<Self> {
        let (kind, rest) = position.log.split_once('/')?;
        match kind {
            "gtid" => rest.parse().ok().map(Self::MySql),
            "mariadb" => rest.parse().ok().map(Self::MariaDb),
            "file" => {
                let mut parts = rest.split('/');
                let (server, file, offset) = (parts.next()?, parts.next()?, parts.next()?);
                let text = |escaped| percent_decode_str(escaped).decode_utf8().ok().map(|text| text.into_owned());
                let place = Self::File { server: text(server)?, file: text(file)?, position: offset.parse().ok()? };
                parts.next().is_none().then_some(place)
            }
            _ => None,
        }
    }

    /// The position between transactions.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::between(self.to_string())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(set) => write!(f, "gtid/{set}"),
            Self::MariaDb(set) => write!(f, "mariadb/{set}"),
            Self::File { server, file, position } => {
                let (server, file) = (utf8_percent_encode(server, &ESCAPED), utf8_percent_encode(file, &ESCAPED));
                write!(f, "file/{server}/{file}/{position}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_back_through_positions() {
        for text in [
            "gtid/",
            "gtid/aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa:7-8:b:3",
            "mariadb/",
            "mariadb/0-10-9,1-11-5",
            "file/aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa/binlog.000001/4",
            "file/10/odd%20%2Fname%3B.000001/18446744073709551615",
        ] {
            let position = Position::parse(&format!("{text};3.1")).expect("a position");
            assert_eq!(Place::parse(&position).expect("a place").position(), Position::between(text));
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["7/1/0/64", "gtid/x", "mariadb/0-1", "file/1/b", "file/1/b/x", "file/1/b/4/5", "gtid"] {
            assert_eq!(Place::parse(&Position::between(text)), None, "{text}");
        }
    }
}
