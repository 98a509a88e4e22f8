//! When the next rows may go: the rate that is set, as a governor keeps it.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::time::Instant;

use super::book::JobSettings;

/// Rows of one slice at most: what the log's changes may have to wait for.
pub(super) const SLICE_ROWS: u32 = 256;

/// The pace of one backfill.
#[derive(Debug)]
pub(super) struct Pace {
    settings: JobSettings,
    rows: Option<DefaultDirectRateLimiter>,
    bytes: Option<DefaultDirectRateLimiter>,
    /// Bytes that went and are not accounted for yet.
    owed: u32,
    clock: DefaultClock,
}

/// How many slices a second a limit is kept by, at least.
const STEPS_PER_S: u32 = 10;

fn limiter(per_s: Option<u32>) -> Option<DefaultDirectRateLimiter> {
    let per_s = per_s.and_then(NonZeroU32::new)?;
    let burst = NonZeroU32::new(per_s.get() / STEPS_PER_S).unwrap_or(NonZeroU32::MIN);
    Some(RateLimiter::direct(Quota::per_second(per_s).allow_burst(burst)))
}

impl Pace {
    pub(super) fn new(settings: JobSettings) -> Self {
        Self {
            settings,
            rows: limiter(settings.rows_per_s),
            bytes: limiter(settings.bytes_per_s),
            owed: 0,
            clock: DefaultClock::default(),
        }
    }

    /// Takes in settings that may have changed.
    pub(super) fn set(&mut self, settings: JobSettings) {
        if settings != self.settings {
            *self = Self::new(settings);
        }
    }

    /// How many rows may go now, `wanted` at most; or when some may.
    pub(super) fn take(&mut self, wanted: u32) -> Result<u32, Instant> {
        if let Some(bytes) = &self.bytes {
            let burst = burst(self.settings.bytes_per_s);
            while let Some(owed) = NonZeroU32::new(self.owed.min(burst)) {
                match bytes.check_n(owed) {
                    Ok(Ok(())) | Err(_) => self.owed -= owed.get(),
                    Ok(Err(not_yet)) => return Err(Instant::now() + self.wait(&not_yet)),
                }
            }
        }
        let Some(rows) = &self.rows else { return Ok(wanted) };
        let Some(some) = NonZeroU32::new(wanted.min(burst(self.settings.rows_per_s))) else { return Ok(0) };
        match rows.check_n(some) {
            Ok(Ok(())) | Err(_) => Ok(some.get()),
            Ok(Err(not_yet)) => Err(Instant::now() + self.wait(&not_yet)),
        }
    }

    /// Accounts for bytes that went.
    pub(super) fn sent(&mut self, bytes: usize) {
        if self.bytes.is_some() {
            self.owed = self.owed.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    fn wait(&self, not_yet: &governor::NotUntil<<DefaultClock as Clock>::Instant>) -> Duration {
        not_yet.wait_time_from(self.clock.now()).max(Duration::from_millis(1))
    }
}

fn burst(per_s: Option<u32>) -> u32 {
    per_s.map_or(u32::MAX, |per_s| (per_s / STEPS_PER_S).max(1))
}
