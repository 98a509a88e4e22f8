//! Places of rows on disk, for tables that have no key to go by.
//!
//! ```text
//!   17.3@a1b2c3d4e5f60718/740:752:741,744         block 17, row 3 of it
//!   16402.17.3@a1b2c3d4e5f60718/740:752:741,744   the same in one partition of a table
//!              layout           the pass's first snapshot
//! ```
//!
//! An UPDATE moves a row, perhaps to where the pass comes later. So versions made by a transaction that the first
//! snapshot of the pass did not show are left out: the log tells them. Two things are not told by a row's `xmin`:
//! - A transaction within a transaction has a number of its own, which a snapshot does not name. What one that ran
//!   at the pass's beginning wrote is read besides being told by the log.
//! - It has 32 bits, and a row that nobody touched keeps it for good. In a database past its first four billion
//!   transactions an old row can look like a new one: there none is left out, and a row that moves may come twice.
//!
//! Rows of equal values are as many reads as there are rows; nobody can tell them apart.
//!
//! VACUUM FULL, CLUSTER and some forms of ALTER TABLE write a table anew, with other places and other `xmin`s. The
//! layout is a digest of the files' numbers, which all of these change.

use std::fmt;
use std::str::FromStr;

use figvine_change::Cursor;

use super::sight::Snapshot;

/// A pass over a table as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pass {
    /// A digest of which files hold the table.
    pub(super) layout: u64,
    /// The first snapshot.
    pub(super) begun: Snapshot,
}

impl Pass {
    /// Whether a row's version is the log's to tell, seen in a snapshot with this `xmax`.
    pub(super) fn leaves_out(&self, made_by: u32, now: u64) -> bool {
        const EPOCH: u64 = 1 << 32;
        // Numbers below 3 are no transactions: the row was there from the beginning.
        if now >= EPOCH || made_by < 3 {
            return false;
        }
        !self.begun.has_ended(u64::from(made_by))
    }
}

/// Where a row lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The partition's id; 0 for a table that has none.
    pub(super) part: u32,
    pub(super) block: u32,
    pub(super) offset: u16,
}

impl Place {
    /// As a `ctid`.
    pub(super) fn ctid(self) -> String {
        format!("({},{})", self.block, self.offset)
    }

    /// Reads a `ctid`.
    pub(super) fn of_ctid(part: u32, ctid: &[u8]) -> Option<Self> {
        let inner = ctid.strip_prefix(b"(")?.strip_suffix(b")")?;
        let (block, offset) = std::str::from_utf8(inner).ok()?.split_once(',')?;
        Some(Self { part, block: block.parse().ok()?, offset: offset.parse().ok()? })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.part != 0 {
            write!(f, "{}.", self.part)?;
        }
        write!(f, "{}.{}", self.block, self.offset)
    }
}

/// A text that names no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAPlace;

impl FromStr for Place {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let fields: Vec<&str> = text.split('.').collect();
        let (part, block, offset) = match *fields.as_slice() {
            [block, offset] => ("0", block, offset),
            [part, block, offset] => (part, block, offset),
            _ => return Err(NotAPlace),
        };
        let number = |text: &str| text.parse::<u32>().map_err(|_| NotAPlace);
        Ok(Self { part: number(part)?, block: number(block)?, offset: offset.parse().map_err(|_| NotAPlace)? })
    }
}

/// Reads a cursor: a place, and the pass it belongs to where it comes from one.
pub(super) fn parse(cursor: &Cursor) -> Option<(Place, Option<Pass>)> {
    let Some((place, pass)) = cursor.as_str().split_once('@') else {
        return Some((cursor.as_str().parse().ok()?, None));
    };
    let (layout, begun) = pass.split_once('/')?;
    let layout = u64::from_str_radix(layout, 16).ok()?;
    Some((place.parse().ok()?, Some(Pass { layout, begun: begun.parse().ok()? })))
}

/// What follows the place in a cursor.
pub(super) fn suffix(pass: &Pass) -> String {
    format!("@{:x}/{}", pass.layout, pass.begun.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_cursor_reads_back() {
        let pass = Pass { layout: 0xa1b2_c3d4_e5f6_0718, begun: "740:752:741,744".parse().expect("a snapshot") };
        for part in [0, 16402] {
            let place = Place { part, block: 17, offset: 3 };
            let text = format!("{place}{}", suffix(&pass));
            assert_eq!(parse(&Cursor::parse(&text).expect("a cursor")), Some((place, Some(pass.clone()))));
            let text = place.to_string();
            assert_eq!(parse(&Cursor::parse(&text).expect("a cursor")), Some((place, None)));
            assert_eq!(Place::of_ctid(part, place.ctid().as_bytes()), Some(place));
        }
        for text in ["1", "1.2.3.4", "1.70000", "a.1", "1.2@", "1.2@x/1:2:", "1.2@1/1"] {
            assert_eq!(parse(&Cursor::parse(text).expect("a cursor")), None, "{text}");
        }
    }

    #[test]
    fn what_the_first_snapshot_did_not_show_is_left_to_the_log() {
        let pass = Pass { layout: 1, begun: "740:752:741,744".parse().expect("a snapshot") };
        let left_out = |made_by: u32| pass.leaves_out(made_by, 800);
        assert_eq!([2, 3, 740, 743, 751].map(left_out), [false; 5]);
        assert_eq!([741, 744, 752, 799].map(left_out), [true; 4]);
        assert!(!pass.leaves_out(752, (1 << 32) + 5), "an old row may look like it");
    }
}
