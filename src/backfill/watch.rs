//! What is asked of the source from time to time: which tables there are, and how busy it is.

use std::sync::Arc;
use std::time::Duration;

use figvine_change::Connector;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Desk;
use super::book::JobState;
use crate::telemetry::SourceTelemetry;

/// How often the captured tables are listed.
const TABLES_EVERY: Duration = Duration::from_secs(10);
/// How much longer than a listing takes the pause behind it is, at least.
const TABLES_SPARED: u32 = 100;
/// How often the load is looked at while rows are read.
const LOAD_EVERY: Duration = Duration::from_secs(3);

/// Lists the captured tables from time to time: new ones are backfilled, where that is configured. For ever.
pub(crate) async fn tables<C: Connector>(connector: Arc<C>, desk: Arc<Desk>) {
    // The session that begins has just asked.
    let mut pause = TABLES_EVERY;
    loop {
        sleep(pause).await;
        let began = Instant::now();
        match connector.tables().await {
            Ok(tables) => desk.learn(tables),
            Err(error) => tracing::debug!(code = error.code, %error, "the captured tables cannot be listed"),
        }
        // A server with very many tables, or a busy one, is asked less often.
        pause = TABLES_EVERY.max(began.elapsed() * TABLES_SPARED);
    }
}

/// Tells why the source is to be spared, as long as it is, and counts backfills. For ever.
pub(crate) async fn load<C: Connector>(
    connector: Arc<C>,
    desk: Arc<Desk>,
    telemetry: Arc<SourceTelemetry>,
    told: watch::Sender<Option<String>>,
) {
    let mut ticks = interval(LOAD_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let book = desk.book();
        for state in JobState::ALL {
            telemetry.backfills(state.as_str(), book.jobs.iter().filter(|job| job.state == state).count());
        }
        let reason = if book.is_running() { reason(&*connector, &desk).await } else { None };
        told.send_if_modified(|now| {
            let is_news = *now != reason;
            *now = reason;
            is_news
        });
    }
}

async fn reason<C: Connector>(connector: &C, desk: &Desk) -> Option<String> {
    let settings = desk.settings();
    if settings.max_replica_lag.is_some() || settings.max_active_sessions.is_some() {
        match connector.load().await {
            Ok(load) => {
                if let Some((lag, most)) = load.replica_lag.zip(settings.max_replica_lag)
                    && lag > most
                {
                    return Some(format!(
                        "a replica is {:.0} s behind, more than {:.0} s",
                        lag.as_secs_f64(),
                        most.as_secs_f64()
                    ));
                }
                if let Some(most) = settings.max_active_sessions
                    && load.active_sessions > most
                {
                    return Some(format!(
                        "{} sessions are at work in the source, more than {most}",
                        load.active_sessions
                    ));
                }
            }
            Err(error) => tracing::debug!(code = error.code, %error, "the load of the source cannot be looked at"),
        }
    }
    match connector.retention().await {
        Ok(Some(retention)) => {
            let free = retention.safe_ratio.map(|ratio| ratio * 100.0)?;
            let least = f64::from(settings.min_log_free_percent);
            (free < least)
                .then(|| format!("{free:.0} % of the log that the source may keep is free, less than {least:.0} %"))
        }
        Ok(None) => None,
        Err(error) => {
            tracing::debug!(code = error.code, %error, "the retained log cannot be measured");
            None
        }
    }
}
