//! Sets of numbers as ranges.

use std::fmt;

/// Sorted ranges `[first, end)` that neither touch nor overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intervals(Vec<(u64, u64)>);

impl Intervals {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges `[first, end)`, ascending.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Whether a number is in it.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|&(first, _)| first <= number);
        at.checked_sub(1).and_then(|at| self.0.get(at)).is_some_and(|&(_, end)| number < end)
    }

    /// Adds `[first, end)`; nothing where that is empty.
    pub fn add(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        // Transactions come mostly in order: the last range grows.
        if let Some(last) = self.0.last_mut()
            && last.0 <= first
            && first <= last.1
        {
            last.1 = last.1.max(end);
            return;
        }
        let from = self.0.partition_point(|&(_, other_end)| other_end < first);
        let to = self.0.partition_point(|&(other_first, _)| other_first <= end);
        let merged = self.0.get(from..to).unwrap_or_default().iter();
        let whole = merged.fold((first, end), |whole, range| (whole.0.min(range.0), whole.1.max(range.1)));
        self.0.splice(from..to, [whole]);
    }

    /// Takes `[first, end)` away.
    pub fn remove(&mut self, first: u64, end: u64) {
        if first >= end {
            return;
        }
        let from = self.0.partition_point(|&(_, other_end)| other_end <= first);
        let to = self.0.partition_point(|&(other_first, _)| other_first < end);
        let touched = self.0.get(from..to).unwrap_or_default();
        let left = touched.first().filter(|range| range.0 < first).map(|range| (range.0, first));
        let right = touched.last().filter(|range| range.1 > end).map(|range| (end, range.1));
        self.0.splice(from..to, left.into_iter().chain(right));
    }

    /// Whether all numbers are in `other` too.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().all(|&(first, end)| {
            let at = other.0.partition_point(|&(other_first, _)| other_first <= first);
            at.checked_sub(1).and_then(|at| other.0.get(at)).is_some_and(|&(_, other_end)| end <= other_end)
        })
    }
}

impl fmt::Display for Intervals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, end)) in self.ranges().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            match end - 1 {
                last if last == first => write!(f, "{colon}{first}")?,
                last => write!(f, "{colon}{first}-{last}")?,
            }
        }
        Ok(())
    }
}
