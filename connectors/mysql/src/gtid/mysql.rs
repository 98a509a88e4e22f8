//! MySQL's GTID sets. Text and binary form: "GTID Sets" in the manual, and `Gtid_set::encode` in `rpl_gtid_set.cc`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{GtidError, Intervals};

/// The largest transaction number: 2^63 - 2.
const LAST_NUMBER: u64 = i64::MAX as u64 - 1;
/// Bytes that a tag may have.
const TAG_BYTES: usize = 32;

/// A server's UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl FromStr for Uuid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let refused = || GtidError::Uuid(text.into());
        let has_dashes = text.len() == 36 && [8, 13, 18, 23].iter().all(|&at| text.as_bytes().get(at) == Some(&b'-'));
        let mut nibbles = text.bytes().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
        let mut nibble = || nibbles.next().and_then(|(_, byte)| char::from(byte).to_digit(16));
        let mut uuid = [0; 16];
        for byte in &mut uuid {
            let (high, low) = nibble().zip(nibble()).ok_or_else(refused)?;
            *byte = u8::try_from(high << 4 | low).map_err(|_| refused())?;
        }
        if has_dashes { Ok(Self(uuid)) } else { Err(refused()) }
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of transactions: per server and tag, their numbers.
///
/// Text form, as the server writes it but without blanks:
/// `3e11fa47-71ca-11e1-9e33-c80aa9429562:1-41:mytag:1-3,...`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MySqlSet {
    /// By tag; the empty one for transactions without. No set is empty.
    servers: BTreeMap<Uuid, BTreeMap<Box<str>, Intervals>>,
}

impl MySqlSet {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// Whether it holds a transaction. `tag` is empty where there is none.
    #[must_use]
    pub fn contains(&self, server: Uuid, tag: &str, number: u64) -> bool {
        self.numbers(server, tag).is_some_and(|numbers| numbers.contains(number))
    }

    /// Adds a transaction. `tag` is empty where there is none; it is in lower case, as logs have it.
    pub fn add(&mut self, server: Uuid, tag: &str, number: u64) {
        self.add_range(server, tag, number, number.saturating_add(1));
    }

    /// Whether all of it is in `other` too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.entries()
            .all(|(server, tag, numbers)| other.numbers(server, tag).is_some_and(|others| numbers.is_subset(others)))
    }

    /// Adds all of `other`.
    pub fn union(&mut self, other: &Self) {
        for (server, tag, numbers) in other.entries() {
            for (first, end) in numbers.ranges() {
                self.add_range(server, tag, first, end);
            }
        }
    }

    /// Takes all of `other` away.
    pub fn subtract(&mut self, other: &Self) {
        for (server, tag, numbers) in other.entries() {
            let Some(tags) = self.servers.get_mut(&server) else { continue };
            let Some(ours) = tags.get_mut(tag) else { continue };
            numbers.ranges().for_each(|(first, end)| ours.remove(first, end));
            if ours.is_empty() {
                tags.remove(tag);
            }
            if tags.is_empty() {
                self.servers.remove(&server);
            }
        }
    }

    /// Servers, tags (empty for none) and numbers, ascending.
    pub fn entries(&self) -> impl Iterator<Item = (Uuid, &str, &Intervals)> + '_ {
        self.servers.iter().flat_map(|(&server, tags)| tags.iter().map(move |(tag, numbers)| (server, &**tag, numbers)))
    }

    /// The binary form, as COM_BINLOG_DUMP_GTID takes it and PREVIOUS_GTIDS_EVENT has it.
    ///
    /// Without tags: count, then UUID, count, and `[first, end)` each; all 64 bits, little endian. With tags (8.3
    /// and later) the count's first and last byte are 1, and behind each UUID stands its tag: twice its length,
    /// in one byte, and its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let has_tags = self.entries().any(|(_, tag, _)| !tag.is_empty());
        let count = self.entries().count() as u64;
        let mut out = Vec::new();
        let head = if has_tags { 1 | count << 8 | 1 << 56 } else { count };
        out.extend_from_slice(&head.to_le_bytes());
        for (server, tag, numbers) in self.entries() {
            out.extend_from_slice(&server.0);
            if has_tags {
                out.push(u8::try_from(tag.len() * 2).unwrap_or(u8::MAX));
                out.extend_from_slice(tag.as_bytes());
            }
            out.extend_from_slice(&(numbers.ranges().len() as u64).to_le_bytes());
            for (first, end) in numbers.ranges() {
                out.extend_from_slice(&first.to_le_bytes());
                out.extend_from_slice(&end.to_le_bytes());
            }
        }
        out
    }

    /// Reads the binary form; bytes behind it are an error.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, GtidError> {
        let mut rest = bytes;
        let head = number(&mut rest)?;
        let (count, has_tags) = match head >> 56 {
            0 => (head, false),
            1 => (head >> 8 & 0xffff_ffff_ffff, true),
            _ => return Err(GtidError::Binary),
        };
        let mut set = Self::default();
        // Each entry takes bytes, so a made-up count ends with them.
        for _ in 0..count {
            let uuid = rest.split_off(..16).and_then(|uuid| uuid.first_chunk::<16>().copied());
            let uuid = Uuid(uuid.ok_or(GtidError::Binary)?);
            let mut name = String::new();
            if has_tags {
                let &length = rest.split_off_first().ok_or(GtidError::Binary)?;
                // A set lowest bit would mean a longer length, which no tag has.
                let length = usize::from(length >> 1) * usize::from(length & 1 == 0);
                let bytes = rest.split_off(..length).ok_or(GtidError::Binary)?;
                name = String::from_utf8(bytes.to_vec()).map_err(|_| GtidError::Binary)?;
                if !name.is_empty() {
                    name = tag(&name)?;
                }
            }
            for _ in 0..number(&mut rest)? {
                let (first, end) = (number(&mut rest)?, number(&mut rest)?);
                if first == 0 || first >= end || end > LAST_NUMBER + 1 {
                    return Err(GtidError::Binary);
                }
                set.add_range(uuid, &name, first, end);
            }
        }
        if rest.is_empty() { Ok(set) } else { Err(GtidError::Binary) }
    }

    fn numbers(&self, server: Uuid, tag: &str) -> Option<&Intervals> {
        self.servers.get(&server)?.get(tag)
    }

    fn add_range(&mut self, server: Uuid, tag: &str, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let tags = self.servers.entry(server).or_default();
        match tags.get_mut(tag) {
            Some(numbers) => numbers.add(first, end),
            None => tags.entry(tag.into()).or_default().add(first, end),
        }
    }
}

fn number(rest: &mut &[u8]) -> Result<u64, GtidError> {
    let bytes = rest.split_off(..8).and_then(|bytes| bytes.first_chunk::<8>());
    bytes.map(|bytes| u64::from_le_bytes(*bytes)).ok_or(GtidError::Binary)
}

/// Checks a tag and puts it into lower case, as the server does.
fn tag(text: &str) -> Result<String, GtidError> {
    let is_word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let begins_well = text.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    if is_word && begins_well && text.len() <= TAG_BYTES {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(GtidError::Tag(text.into()))
    }
}

/// `7` or `7-9`, as `[7, 10)`.
fn range(text: &str) -> Result<(u64, u64), GtidError> {
    let refused = || GtidError::Range(text.into());
    let one = |digits: &str| {
        let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let number = is_number.then(|| digits.parse().ok()).flatten();
        number.filter(|number| (1..=LAST_NUMBER).contains(number)).ok_or_else(refused)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (one(first.trim())?, one(last.trim())?);
    if first <= last { Ok((first, last + 1)) } else { Err(refused()) }
}

impl FromStr for MySqlSet {
    type Err = GtidError;

    /// Reads a set as the server writes it: blanks and line ends anywhere between its parts.
    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (uuid, rest) = part.split_once(':').ok_or_else(|| GtidError::Range(part.into()))?;
            let uuid: Uuid = uuid.trim().parse()?;
            let mut name = String::new();
            let mut is_told = false;
            for item in rest.split(':').map(str::trim) {
                if item.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    // A tag without numbers says nothing.
                    if !name.is_empty() && !is_told {
                        return Err(GtidError::Range(part.into()));
                    }
                    name = tag(item)?;
                    is_told = false;
                } else {
                    let (first, end) = range(item)?;
                    set.add_range(uuid, &name, first, end);
                    is_told = true;
                }
            }
            if !is_told {
                return Err(GtidError::Range(part.into()));
            }
        }
        Ok(set)
    }
}

impl fmt::Display for MySqlSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (server, tags)) in self.servers.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{server}")?;
            for (tag, numbers) in tags {
                match &**tag {
                    "" => write!(f, ":{numbers}")?,
                    tag => write!(f, ":{tag}:{numbers}")?,
                }
            }
        }
        Ok(())
    }
}
