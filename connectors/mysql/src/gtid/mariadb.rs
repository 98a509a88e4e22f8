//! MariaDB's GTID positions: "Global Transaction ID" in MariaDB's documentation.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::GtidError;

/// One transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MariaDbGtid {
    /// The stream of transactions it belongs to; each domain has an order of its own.
    pub domain: u32,
    /// The server it first committed on.
    pub server: u32,
    /// Its place in the domain.
    pub sequence: u64,
}

impl FromStr for MariaDbGtid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut parts = text.split('-').map(|part| part.bytes().all(|b| b.is_ascii_digit()).then_some(part));
        let mut next = || parts.next().flatten();
        let read = match (next(), next(), next(), next()) {
            (Some(domain), Some(server), Some(sequence), None) => {
                domain.parse().ok().zip(server.parse().ok()).zip(sequence.parse().ok())
            }
            _ => None,
        };
        let ((domain, server), sequence) = read.ok_or_else(|| GtidError::MariaDb(text.into()))?;
        Ok(Self { domain, server, sequence })
    }
}

impl fmt::Display for MariaDbGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

/// A position: the last transaction of each domain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MariaDbSet {
    domains: BTreeMap<u32, (u32, u64)>,
}

impl MariaDbSet {
    /// Whether it names no transaction.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Goes on to a transaction. Its sequence may be lower than the last: without `gtid_strict_mode`
    /// the log's order is the truth.
    pub fn add(&mut self, gtid: MariaDbGtid) {
        self.domains.insert(gtid.domain, (gtid.server, gtid.sequence));
    }

    /// The last transaction of a domain.
    #[must_use]
    pub fn last(&self, domain: u32) -> Option<MariaDbGtid> {
        self.domains.get(&domain).map(|&(server, sequence)| MariaDbGtid { domain, server, sequence })
    }

    /// The last transactions, by domain, ascending.
    pub fn entries(&self) -> impl Iterator<Item = MariaDbGtid> + '_ {
        self.domains.iter().map(|(&domain, &(server, sequence))| MariaDbGtid { domain, server, sequence })
    }

    /// Whether `other` is at or behind this in every domain that this names.
    #[must_use]
    pub fn is_reached_by(&self, other: &Self) -> bool {
        self.entries().all(|gtid| other.last(gtid.domain).is_some_and(|last| last.sequence >= gtid.sequence))
    }
}

impl FromStr for MariaDbSet {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let gtid: MariaDbGtid = part.parse()?;
            if set.last(gtid.domain).is_some() {
                return Err(GtidError::DomainTwice(gtid.domain));
            }
            set.add(gtid);
        }
        Ok(set)
    }
}

impl fmt::Display for MariaDbSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, gtid) in self.entries().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{gtid}")?;
        }
        Ok(())
    }
}
