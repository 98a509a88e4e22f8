//! Log sequence numbers, and positions made of them.
//!
//! A position's log part is `<system id>/<timeline>/<LSN>`, `7412345678901234567/1/0/16B3748`:
//! an LSN means something only in the cluster, and on the timeline, that wrote it.

use std::fmt;
use std::str::FromStr;

use figvine_change::Position;

/// A byte's place in a cluster's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// As text that sorts as the log does.
    #[must_use]
    pub fn sequence(self) -> Box<str> {
        format!("{:016x}", self.0).into()
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// A text that is no LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnLsn;

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let (high, low) = text.split_once('/').ok_or(NotAnLsn)?;
        let half = |digits: &str| match digits.starts_with('+') {
            true => Err(NotAnLsn),
            false => u32::from_str_radix(digits, 16).map_err(|_| NotAnLsn),
        };
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// Which log: the cluster and its timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogId {
    /// The cluster's system identifier.
    pub system: u64,
    /// The timeline: a promotion or a restore begins a new one.
    pub timeline: u32,
}

impl LogId {
    /// The text of a place in this log.
    #[must_use]
    pub fn at(self, lsn: Lsn) -> Box<str> {
        format!("{}/{}/{lsn}", self.system, self.timeline).into()
    }

    /// Reads back what [`LogId::at`] wrote.
    #[must_use]
    pub fn parse(position: &Position) -> Option<(Self, Lsn)> {
        let mut fields = position.log.splitn(3, '/');
        let system = fields.next()?.parse().ok()?;
        let timeline = fields.next()?.parse().ok()?;
        let lsn = fields.next()?.parse().ok()?;
        Some((Self { system, timeline }, lsn))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_forms_read_back() {
        for lsn in [0, 1, 0x16B_3748, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            assert_eq!(Lsn(lsn).to_string().parse(), Ok(Lsn(lsn)));
            let log = LogId { system: u64::MAX, timeline: 3 };
            assert_eq!(LogId::parse(&Position::between(log.at(Lsn(lsn)))), Some((log, Lsn(lsn))));
        }
        assert_eq!(Lsn(0x1_016B_3748).to_string(), "1/16B3748");
    }

    #[test]
    fn what_is_no_lsn_is_refused() {
        for text in ["", "0", "/", "0/", "0/G", "1/2/3", "0/123456789", "+1/0"] {
            assert_eq!(text.parse::<Lsn>(), Err(NotAnLsn), "{text:?}");
        }
    }
}
