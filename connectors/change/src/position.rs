//! Where in a log.

use std::cmp::Ordering;
use std::fmt;

use crate::TOMBSTONE;

/// Where reading goes on. Minted by a connector, opaque above it: two positions
/// are equal or not, but have no order (GTID sets have none).
///
/// Text form, for checkpoints: `<log>` or `<log>;<ordinal>.<part>`. `log` holds
/// no `;`, no blanks and no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// The connector's own words: the log's identity and a place between transactions.
    pub log: Box<str>,
    /// Set when the first transaction behind `log` was already passed in part:
    /// the last change that was.
    pub within: Option<Within>,
}

/// A place inside a transaction: a change's ordinal and part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Within {
    /// See [`crate::Change::ordinal`].
    pub ordinal: u64,
    /// See [`crate::Change::part`].
    pub part: u32,
}

impl Ord for Within {
    /// A tombstone stands right behind its removal.
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |within: &Self| (within.ordinal, within.part & !TOMBSTONE, within.part);
        place(self).cmp(&place(other))
    }
}

impl PartialOrd for Within {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Position {
    /// A place between two transactions.
    #[must_use]
    pub fn between(log: impl Into<Box<str>>) -> Self {
        Self { log: log.into(), within: None }
    }

    /// Reads the text form; `None` when it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let valid = |log: &str| !log.is_empty() && log.bytes().all(|b| b.is_ascii_graphic() && b != b';');
        let (log, within) = match text.split_once(';') {
            None => (text, None),
            Some((log, within)) => {
                let (ordinal, part) = within.split_once('.')?;
                (log, Some(Within { ordinal: ordinal.parse().ok()?, part: part.parse().ok()? }))
            }
        };
        valid(log).then(|| Self { log: log.into(), within })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.log)?;
        match self.within {
            None => Ok(()),
            Some(Within { ordinal, part }) => write!(f, ";{ordinal}.{part}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_reads_back() {
        for text in ["7/1/0/16B3748", "7/1/0/16B3748;12.1"] {
            assert_eq!(Position::parse(text).expect("valid").to_string(), text);
        }
    }

    #[test]
    fn a_tombstone_stands_between_its_removal_and_what_follows() {
        let places = [(1, 0), (1, 1), (1, 1 | TOMBSTONE), (1, 2), (2, 0)];
        let places = places.map(|(ordinal, part)| Within { ordinal, part });
        assert!(places.is_sorted());
        assert_ne!(places[1], places[2]);
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in ["", ";1.1", "a b", "a;1", "a;1.", "a;x.1", "a;1.1;2.2", "a\r\nb"] {
            assert_eq!(Position::parse(text), None, "{text:?}");
        }
    }
}
