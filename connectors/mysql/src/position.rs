//! Places in a log, and their text in a [`Position`].
//!
//! ```text
//! gtid/<set>                        MySQL: all transactions of the set were passed
//! mariadb/<domain-server-sequence>  MariaDB: all up to these, one per domain
//! file/<server>/<file>/<offset>     where there are no GTIDs; the server is named by its UUID (MySQL) or id (MariaDB)
//! ```

use std::fmt;

use figvine_change::{Position, Within};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::gtid::{MariaDbGtid, MariaDbSet, MySqlSet};

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

/// What an earlier session passed on of the transaction that it was in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Passed {
    /// The transaction, where the place does not tell it: MySQL's sets have no order.
    pub(crate) transaction: Option<String>,
    /// The last change that was passed on.
    pub(crate) within: Within,
}

/// How far a log was read: the place to ask the server for, and, where prepared XA transactions hold that
/// back, how far everything else was passed on. In MySQL's sets those are missing from the place and stand in the other.
///
/// Text: `<place>`, `<place>~<done>`, and `@<transaction>` behind it inside of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    place: Place,
    /// How far all but prepared transactions were passed on, where that is further.
    done: Option<Place>,
    /// The same as it was told at the beginning: what lies before it is passed over.
    passed_to: Option<Place>,
    /// How far this session has read, where places have an order.
    at: Place,
}

impl Reading {
    /// From a place on.
    pub(crate) fn from(place: Place) -> Self {
        Self { at: place.clone(), place, done: None, passed_to: None }
    }

    /// Reads a position's text; `None` when it is none of this connector.
    pub(crate) fn parse(position: &Position) -> Option<(Self, Option<Passed>)> {
        let (places, transaction) = match position.log.split_once('@') {
            Some((places, transaction)) => (places, Some(transaction.to_owned())),
            None => (&*position.log, None),
        };
        let (place, done) = match places.split_once('~') {
            Some((place, done)) => (place, Some(done)),
            None => (places, None),
        };
        let parsed = |text: &str| Place::parse(&Position::between(text));
        let place = parsed(place)?;
        let done = match done {
            Some(done) => Some(parsed(done)?),
            None => None,
        };
        let passed = position.within.map(|within| Passed { transaction, within });
        let passed_to = done.clone().and_then(|done| ahead_of(&place, done));
        Some((Self { at: place.clone(), place, passed_to, done }, passed))
    }

    /// Where to ask the server for the log.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// How far all but prepared transactions were passed on.
    pub(crate) fn done(&self) -> &Place {
        self.done.as_ref().unwrap_or(&self.place)
    }

    /// How far this session has read, where places have an order.
    pub(crate) fn at(&self) -> &Place {
        &self.at
    }

    /// Goes on behind a transaction that an earlier session passed on.
    pub(crate) fn pass(&mut self, behind: &Place) {
        go_on(&mut self.at, behind);
    }

    /// Goes on behind a transaction, or to a place of a file; whether that is news.
    pub(crate) fn add(&mut self, behind: &Place) -> bool {
        let before = self.done().clone();
        self.pass(behind);
        match &mut self.done {
            Some(done) => {
                go_on(done, behind);
                // Of a set that part alone is held back which is not told.
                if let Place::MySql(_) = self.place {
                    go_on(&mut self.place, behind);
                }
            }
            None => go_on(&mut self.place, behind),
        }
        *self.done() != before
    }

    /// Passes by a prepared transaction: the place stays before it.
    pub(crate) fn hold(&mut self, behind: &Place) {
        self.pass(behind);
        go_on(self.done.get_or_insert_with(|| self.place.clone()), behind);
    }

    /// A prepared transaction came to its end. Where places have an order, its PREPARE lies before this one already.
    pub(crate) fn completed(&mut self, behind_prepare: &Place) {
        if let Place::MySql(_) = self.place {
            self.add(behind_prepare);
        }
    }

    /// The first transaction that is held still lies behind `held`; none is where there is no such place.
    pub(crate) fn release(&mut self, held: Option<&Place>) {
        match (&self.place, held) {
            // Nothing is missing in the set any more, or its PREPARE is still to come.
            (Place::MySql(_), None) => self.done = None,
            // A set lacks what is held wherever that is.
            (Place::MySql(_), Some(_)) => {}
            (place, Some(held)) if *place == *held => {}
            (_, Some(held)) => self.place = held.clone(),
            // What was passed over at the beginning may still be to come.
            (_, None) if self.is_passing() => self.place = self.at.clone(),
            (_, None) => {
                if let Some(done) = self.done.take() {
                    self.place = done;
                }
            }
        }
    }

    /// Whether what is read now was passed on by an earlier session, as far as is known.
    pub(crate) fn is_passing(&self) -> bool {
        self.passed_to.is_some()
    }

    /// Whether a MariaDB transaction was passed on by an earlier session.
    pub(crate) fn has_passed_gtid(&mut self, gtid: MariaDbGtid) -> bool {
        let Some(Place::MariaDb(to)) = &self.passed_to else { return false };
        let Some(last) = to.last(gtid.domain) else { return false };
        if last.sequence == gtid.sequence {
            let mut left = MariaDbSet::default();
            to.entries().filter(|other| other.domain != gtid.domain).for_each(|other| left.add(other));
            self.passed_to = (!left.is_empty()).then_some(Place::MariaDb(left));
        }
        gtid.sequence <= last.sequence
    }

    /// Whether a transaction that begins before `offset` was passed on by an earlier session.
    pub(crate) fn has_passed_file(&mut self, file: &str, offset: u64) -> bool {
        let Some(Place::File { file: to, position, .. }) = &self.passed_to else { return false };
        let is_passed = in_log(file, offset) <= in_log(to, *position);
        if !is_passed {
            self.passed_to = None;
        }
        is_passed
    }

    /// A place in a file of the server that is read.
    pub(crate) fn file_place(&self, file: &str, position: u64) -> Place {
        let server = match &self.place {
            Place::File { server, .. } => server.clone(),
            Place::MySql(_) | Place::MariaDb(_) => String::new(),
        };
        Place::File { server, file: file.to_owned(), position }
    }

    /// The offset of which an event's header tells the lower 32 bits.
    pub(crate) fn offset_near(&self, file: &str, low: u32) -> u64 {
        let low = u64::from(low);
        match self.done() {
            Place::File { file: at, position, .. } if at == file => {
                let offset = (position & !0xffff_ffff) | low;
                // Behind the last place: one that seems far before it is in the next 4 GiB.
                if offset + (1 << 31) < *position { offset + (1 << 32) } else { offset }
            }
            _ => low,
        }
    }
}

/// A place of a file, in the order of the log: files are numbered, and the number grows longer than six digits.
pub(crate) fn in_log(file: &str, offset: u64) -> (usize, &str, u64) {
    (file.len(), file, offset)
}

/// A place of a file as text that sorts as the log of one server does: the file's number and the offset in it.
pub(crate) fn sequence(file: &str, offset: u64) -> Box<str> {
    let digits = file.rsplit('.').next().unwrap_or_default();
    let number: u64 = digits.parse().unwrap_or_default();
    format!("{number:010}-{offset:012}").into()
}

/// Goes on to, or adds, what lies behind a transaction.
fn go_on(place: &mut Place, behind: &Place) {
    match (place, behind) {
        (Place::MySql(set), Place::MySql(more)) => set.union(more),
        (Place::MariaDb(set), Place::MariaDb(more)) => more.entries().for_each(|gtid| set.add(gtid)),
        (place @ Place::File { .. }, Place::File { .. }) => *place = behind.clone(),
        // A transaction without the name by which this log is read: the place does not tell of it.
        _ => {}
    }
}

/// Where `done` is further than `place`. The server does not send again what lies before `place`.
fn ahead_of(place: &Place, done: Place) -> Option<Place> {
    match (place, done) {
        (Place::MariaDb(from), Place::MariaDb(done)) => {
            let mut ahead = MariaDbSet::default();
            let further = done.entries().filter(|gtid| from.last(gtid.domain) != Some(*gtid));
            further.for_each(|gtid| ahead.add(gtid));
            (!ahead.is_empty()).then_some(Place::MariaDb(ahead))
        }
        // The server itself passes over what is in the set.
        (Place::MySql(_), _) => None,
        (place, done) => (*place != done).then_some(done),
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        match &self.done {
            Some(done) => write!(f, "~{done}"),
            None => Ok(()),
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
    fn what_lies_between_the_place_and_what_was_done_is_passed_over() {
        let reading = |text: &str| Reading::parse(&Position::between(text)).expect("a position").0;
        let gtid = |text: &str| text.parse::<MariaDbGtid>().expect("a gtid");
        let mut mariadb = reading("mariadb/0-1-6,1-1-5~mariadb/0-1-9,1-1-5");
        assert!(mariadb.has_passed_gtid(gtid("0-1-7")));
        assert!(!mariadb.has_passed_gtid(gtid("1-1-6")));
        assert!(mariadb.has_passed_gtid(gtid("0-1-9")));
        assert!(!mariadb.is_passing(), "nothing of domain 1 is told again");
        assert!(!mariadb.has_passed_gtid(gtid("0-1-10")));

        let mut file = reading("file/s/b.000009/4~file/s/b.000010/100");
        for (name, offset, is_passed) in
            [("b.000009", 900, true), ("b.000010", 100, true), ("b.000011", 50, false), ("b.000010", 50, false)]
        {
            assert_eq!(file.has_passed_file(name, offset), is_passed, "{name}:{offset}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["7/1/0/64", "gtid/x", "mariadb/0-1", "file/1/b", "file/1/b/x", "file/1/b/4/5", "gtid"] {
            assert_eq!(Place::parse(&Position::between(text)), None, "{text}");
        }
    }
}
