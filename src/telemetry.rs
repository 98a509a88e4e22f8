//! What the bridge tells of itself: counters and the state of each source.
//!
//! Metrics are named as Prometheus wants them: prefix `figvine_`, base units,
//! labels `source table op stream type reason component status` only.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// A set of labels, given as names and values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Labels(Vec<(&'static str, Box<str>)>);

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        use prometheus_client::encoding::EncodeLabel;
        for (name, value) in &self.0 {
            (*name, value.as_ref()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

type Seconds = Gauge<f64, AtomicU64>;
type Whole = Gauge<i64, AtomicI64>;

/// All metrics of the process.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    families: Families,
    sources: Mutex<BTreeMap<Box<str>, Arc<SourceTelemetry>>>,
}

#[derive(Debug, Clone)]
struct Families {
    source_lag: Family<Labels, Seconds>,
    publish_lag: Family<Labels, Seconds>,
    end_to_end_lag: Family<Labels, Seconds>,
    retained: Family<Labels, Whole>,
    safe_ratio: Family<Labels, Seconds>,
    connected: Family<Labels, Whole>,
    changes_read: Family<Labels, Counter>,
    events_published: Family<Labels, Counter>,
    inflight: Family<Labels, Whole>,
    resyncs: Family<Labels, Counter>,
    ack_seconds: Family<Labels, Histogram, fn() -> Histogram>,
    transaction_rows: Family<Labels, Histogram, fn() -> Histogram>,
    unchanged: Family<Labels, Counter>,
    untold: Family<Labels, Counter>,
    suppressed: Family<Labels, Counter>,
    dead_lettered: Family<Labels, Counter>,
    dead_letters: Family<Labels, Whole>,
    looked_up: Family<Labels, Counter>,
    schema_drift: Family<Labels, Counter>,
    backfill_rows: Family<Labels, Counter>,
    backfill_state: Family<Labels, Whole>,
    health: Family<Labels, Whole>,
}

fn seconds_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
}

fn rows_histogram() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 4.0, 13))
}

impl Families {
    fn new() -> Self {
        Self {
            source_lag: Family::default(),
            publish_lag: Family::default(),
            end_to_end_lag: Family::default(),
            retained: Family::default(),
            safe_ratio: Family::default(),
            connected: Family::default(),
            changes_read: Family::default(),
            events_published: Family::default(),
            inflight: Family::default(),
            resyncs: Family::default(),
            ack_seconds: Family::new_with_constructor(seconds_histogram),
            transaction_rows: Family::new_with_constructor(rows_histogram),
            unchanged: Family::default(),
            untold: Family::default(),
            suppressed: Family::default(),
            dead_lettered: Family::default(),
            dead_letters: Family::default(),
            looked_up: Family::default(),
            schema_drift: Family::default(),
            backfill_rows: Family::default(),
            backfill_state: Family::default(),
            health: Family::default(),
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl Telemetry {
    /// With all metrics registered and nothing counted.
    #[must_use]
    pub fn new() -> Self {
        let families = Families::new();
        let f = families.clone();
        let mut registry = Registry::with_prefix("figvine");
        let r = &mut registry;
        r.register_with_unit(
            "source_lag",
            "Age of the newest change read, when it was read",
            Unit::Seconds,
            f.source_lag,
        );
        r.register_with_unit(
            "publish_lag",
            "Age of the oldest change read and not yet stored",
            Unit::Seconds,
            f.publish_lag,
        );
        r.register_with_unit(
            "end_to_end_lag",
            "From commit in the source to stored in the stream, of the newest stored",
            Unit::Seconds,
            f.end_to_end_lag,
        );
        r.register_with_unit("source_retained_log", "Log that the server keeps because of us", Unit::Bytes, f.retained);
        r.register(
            "source_log_safe_ratio",
            "Share of the allowed retained log still free; at 0 the server may take the log away",
            f.safe_ratio,
        );
        r.register("source_connected", "Whether the log is being read", f.connected);
        r.register("changes_read", "Changes read from the log", f.changes_read);
        r.register("events_published", "Events stored in the stream and acknowledged", f.events_published);
        r.register("publish_inflight", "Events read and not yet acknowledged", f.inflight);
        r.register("resyncs", "Chains given up and started anew behind the stream's tail", f.resyncs);
        r.register_with_unit("ack", "From handing an event over to its acknowledgement", Unit::Seconds, f.ack_seconds);
        r.register("transaction_rows", "Captured changes in a transaction", f.transaction_rows);
        r.register("unchanged_values", "Values that the log did not carry", f.unchanged);
        r.register("backfill_rows", "Existing rows stored in the stream and acknowledged", f.backfill_rows);
        r.register("backfill_state", "Backfills that have a status", f.backfill_state);
        r.register("events_suppressed", "Changes that have no event because of the configuration", f.suppressed);
        r.register("events_dead_lettered", "Events that could not be made and were parked", f.dead_lettered);
        r.register("dead_letters", "Messages in the stream of dead letters", f.dead_letters);
        r.register("rows_looked_up", "Rows read from tables as parts of wholes", f.looked_up);
        r.register(
            "schema_drifts",
            "Changes of tables that broke the schema of their events, by what was done",
            f.schema_drift,
        );
        r.register("untold_changes", "Statements whose changes, if any, are not in the log as rows", f.untold);
        r.register("health", "1 for the status that a component has", f.health);
        let build = Family::<Labels, Whole>::default();
        build.get_or_create(&Labels(vec![("version", env!("CARGO_PKG_VERSION").into())])).set(1);
        r.register("build_info", "The program", build);
        Self { registry, families, sources: Mutex::default() }
    }

    /// The part of one source, made at its first use.
    #[must_use]
    pub fn source(&self, name: &str) -> Arc<SourceTelemetry> {
        let mut sources = lock(&self.sources);
        let made = sources.entry(name.into()).or_insert_with(|| Arc::new(SourceTelemetry::new(name, &self.families)));
        Arc::clone(made)
    }

    /// All sources, by name.
    #[must_use]
    pub fn sources(&self) -> Vec<Arc<SourceTelemetry>> {
        lock(&self.sources).values().cloned().collect()
    }

    /// In Prometheus' text form (OpenMetrics).
    #[must_use]
    pub fn render(&self) -> String {
        for source in self.sources() {
            source.refresh();
        }
        let mut text = String::new();
        // Writing into a String cannot fail; were it to, what was written so far is shown.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Where a source is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Connecting, verifying, finding its place.
    Starting,
    /// Reading the log and publishing.
    Streaming,
    /// Waiting before another try, and why.
    Waiting(String),
    /// Ended as asked.
    Done,
    /// Stopped for good, and why.
    Failed(String),
}

impl Phase {
    /// The word for it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Streaming => "streaming",
            Self::Waiting(_) => "waiting",
            Self::Done => "done",
            Self::Failed(_) => "failed",
        }
    }

    /// Why, where there is a reason.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Waiting(reason) | Self::Failed(reason) => Some(reason),
            Self::Starting | Self::Streaming | Self::Done => None,
        }
    }

    const WORDS: [&'static str; 5] = ["starting", "streaming", "waiting", "done", "failed"];
}

/// One source's counters and state.
#[derive(Debug)]
pub struct SourceTelemetry {
    /// The source's name.
    pub name: Box<str>,
    families: Families,
    phase: Mutex<Phase>,
    position: Mutex<Option<String>>,
    /// Commit time of the oldest change read and not yet stored, microseconds since 1970; 0 for none.
    oldest_unstored: AtomicI64,
    source_lag: Seconds,
    publish_lag: Seconds,
    end_to_end_lag: Seconds,
    retained: Whole,
    safe_ratio: Mutex<Option<f64>>,
    connected: Whole,
    inflight: Whole,
    dead_letters: Whole,
    looked_up: Counter,
    ack_seconds: Histogram,
    transaction_rows: Histogram,
    unchanged: Counter,
}

impl SourceTelemetry {
    fn new(name: &str, families: &Families) -> Self {
        let labels = Labels(vec![("source", name.into())]);
        Self {
            name: name.into(),
            phase: Mutex::new(Phase::Starting),
            position: Mutex::new(None),
            oldest_unstored: AtomicI64::new(0),
            source_lag: families.source_lag.get_or_create_owned(&labels),
            publish_lag: families.publish_lag.get_or_create_owned(&labels),
            end_to_end_lag: families.end_to_end_lag.get_or_create_owned(&labels),
            retained: families.retained.get_or_create_owned(&labels),
            safe_ratio: Mutex::default(),
            connected: families.connected.get_or_create_owned(&labels),
            inflight: families.inflight.get_or_create_owned(&labels),
            dead_letters: families.dead_letters.get_or_create_owned(&labels),
            looked_up: families.looked_up.get_or_create_owned(&labels),
            ack_seconds: families.ack_seconds.get_or_create_owned(&labels),
            transaction_rows: families.transaction_rows.get_or_create_owned(&labels),
            unchanged: families.unchanged.get_or_create_owned(&labels),
            families: families.clone(),
        }
    }

    fn with(&self, name: &'static str, value: &str) -> Labels {
        Labels(vec![("source", self.name.clone()), (name, value.into())])
    }

    /// The counter of changes read of one table and operation; keep it, it is for the hot path.
    #[must_use]
    pub fn changes_read(&self, table: &str, op: &str) -> Counter {
        let mut labels = self.with("table", table);
        labels.0.push(("op", op.into()));
        self.families.changes_read.get_or_create_owned(&labels)
    }

    /// The counter of events stored of one type; keep it, it is for the hot path.
    #[must_use]
    pub fn events_published(&self, event_type: &str) -> Counter {
        self.families.events_published.get_or_create_owned(&self.with("type", event_type))
    }

    /// Counts a chain given up.
    pub fn resync(&self, reason: &str) {
        self.families.resyncs.get_or_create(&self.with("reason", reason)).inc();
    }

    /// Counts values that the log did not carry.
    pub fn unchanged_values(&self, count: u64) {
        self.unchanged.inc_by(count);
    }

    /// Counts changes that have no event because of the configuration.
    pub fn suppressed(&self, reason: &str, count: u64) {
        if count > 0 {
            self.families.suppressed.get_or_create(&self.with("reason", reason)).inc_by(count);
        }
    }

    /// Counts events that were parked as dead letters.
    pub fn dead_lettered(&self, reason: &str) {
        self.families.dead_lettered.get_or_create(&self.with("reason", reason)).inc();
    }

    /// Counts rows that were looked up as parts of wholes.
    pub fn looked_up(&self, rows: u64) {
        self.looked_up.inc_by(rows);
    }

    /// Notes how many dead letters are kept.
    pub fn dead_letters(&self, count: u64) {
        self.dead_letters.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a change of a table that its events' schema may not follow, by what was done about it.
    pub fn schema_drift(&self, reason: &str) {
        self.families.schema_drift.get_or_create(&self.with("reason", reason)).inc();
    }

    /// Counts statements of which the log does not tell what they changed.
    pub fn untold(&self, reason: &str, count: u64) {
        self.families.untold.get_or_create(&self.with("reason", reason)).inc_by(count);
    }

    /// The counter of existing rows stored of one table; keep it, it is for the hot path.
    #[must_use]
    pub fn backfill_rows(&self, table: &str) -> Counter {
        self.families.backfill_rows.get_or_create_owned(&self.with("table", table))
    }

    /// Notes how many backfills have a status.
    pub fn backfills(&self, status: &str, count: usize) {
        let gauge = self.families.backfill_state.get_or_create_owned(&self.with("status", status));
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Notes the size of a transaction.
    pub fn transaction_rows(&self, rows: u64) {
        #[expect(clippy::cast_precision_loss, reason = "a histogram's bucket needs no more")]
        self.transaction_rows.observe(rows as f64);
    }

    /// Notes how long an acknowledgement took.
    pub fn ack_seconds(&self, seconds: f64) {
        self.ack_seconds.observe(seconds);
    }

    /// Notes how old the newest change was when it was read.
    pub fn source_lag(&self, seconds: f64) {
        self.source_lag.set(seconds.max(0.0));
    }

    /// Notes how long the newest stored change took from its commit.
    pub fn end_to_end_lag(&self, seconds: f64) {
        self.end_to_end_lag.set(seconds.max(0.0));
    }

    /// Notes how many events are on their way, and the commit time of the oldest (microseconds since 1970).
    pub fn inflight(&self, events: u64, oldest_committed_at: Option<i64>) {
        self.inflight.set(i64::try_from(events).unwrap_or(i64::MAX));
        self.oldest_unstored.store(oldest_committed_at.unwrap_or(0), std::sync::atomic::Ordering::Relaxed);
    }

    /// Notes how much log the server keeps because of us, and the share of what is allowed that is still free.
    pub fn retained(&self, bytes: u64, safe_ratio: Option<f64>) {
        self.retained.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        *lock(&self.safe_ratio) = safe_ratio;
        if let Some(ratio) = safe_ratio {
            self.families.safe_ratio.get_or_create(&Labels(vec![("source", self.name.clone())])).set(ratio);
        }
    }

    /// Notes where the source is in its life.
    pub fn phase(&self, phase: Phase) {
        self.connected.set(i64::from(phase == Phase::Streaming));
        *lock(&self.phase) = phase;
    }

    /// Where the source is in its life.
    #[must_use]
    pub fn current_phase(&self) -> Phase {
        lock(&self.phase).clone()
    }

    /// Notes how far the stream is.
    pub fn position(&self, position: String) {
        *lock(&self.position) = Some(position);
    }

    /// How far the stream is.
    #[must_use]
    pub fn current_position(&self) -> Option<String> {
        lock(&self.position).clone()
    }

    /// Lag in seconds (source, publish, end to end), retained bytes and events in flight, as last noted.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.refresh();
        Figures {
            source_lag_seconds: self.source_lag.get(),
            publish_lag_seconds: self.publish_lag.get(),
            end_to_end_lag_seconds: self.end_to_end_lag.get(),
            retained_log_bytes: self.retained.get(),
            log_safe_ratio: *lock(&self.safe_ratio),
            publish_inflight: self.inflight.get(),
            dead_letters: self.dead_letters.get(),
        }
    }

    /// How the source is: its phase and why, where it is in the log, and its figures.
    #[must_use]
    pub fn status(&self) -> Status {
        let phase = self.current_phase();
        Status {
            source: self.name.to_string(),
            phase: phase.word().to_owned(),
            reason: phase.reason().map(str::to_owned),
            position: self.current_position(),
            figures: self.figures(),
        }
    }

    fn refresh(&self) {
        let oldest = self.oldest_unstored.load(std::sync::atomic::Ordering::Relaxed);
        self.publish_lag.set(if oldest == 0 { 0.0 } else { seconds_since(oldest) });
        let phase = self.current_phase();
        for word in Phase::WORDS {
            let mut labels = self.with("component", "source");
            labels.0.push(("status", word.into()));
            self.families.health.get_or_create(&labels).set(i64::from(word == phase.word()));
        }
    }
}

/// A source at one moment, as `/status` and the command line tell it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// The source's name.
    pub source: String,
    /// Its phase, one word.
    pub phase: String,
    /// Why, where there is a reason.
    pub reason: Option<String>,
    /// Behind the newest stored change.
    pub position: Option<String>,
    /// Its gauges.
    pub figures: Figures,
}

/// A source's gauges at one moment.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// Age of the newest change read, when it was read.
    pub source_lag_seconds: f64,
    /// Age of the oldest change read and not yet stored.
    pub publish_lag_seconds: f64,
    /// From commit to stored, of the newest stored.
    pub end_to_end_lag_seconds: f64,
    /// Log that the server keeps because of us.
    pub retained_log_bytes: i64,
    /// Share of the log that the server may keep for us that is free, 0 to 1; `None` where it sets no limit, or it was not asked yet.
    pub log_safe_ratio: Option<f64>,
    /// Events read and not yet acknowledged.
    pub publish_inflight: i64,
    /// Messages in the stream of dead letters.
    #[serde(default)]
    pub dead_letters: i64,
}

/// Seconds from a moment (microseconds since 1970) until now; never negative.
#[must_use]
pub fn seconds_since(moment_us: i64) -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    (now.as_secs_f64() - std::time::Duration::from_micros(moment_us.max(0).unsigned_abs()).as_secs_f64()).max(0.0)
}

/// A panic elsewhere does not make a counter unusable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_rendered_under_its_contract_names() {
        let telemetry = Telemetry::new();
        let source = telemetry.source("shop");
        source.changes_read("public.orders", "insert").inc_by(3);
        source.events_published("shop.public.orders.inserted").inc_by(2);
        source.resync("disconnected");
        source.phase(Phase::Streaming);
        source.retained(1024, Some(0.5));
        let text = telemetry.render();
        for line in [
            r#"figvine_changes_read_total{source="shop",table="public.orders",op="insert"} 3"#,
            r#"figvine_events_published_total{source="shop",type="shop.public.orders.inserted"} 2"#,
            r#"figvine_resyncs_total{source="shop",reason="disconnected"} 1"#,
            r#"figvine_source_connected{source="shop"} 1"#,
            r#"figvine_source_retained_log_bytes{source="shop"} 1024"#,
            r#"figvine_source_log_safe_ratio{source="shop"} 0.5"#,
            r#"figvine_health{source="shop",component="source",status="streaming"} 1"#,
            r#"figvine_health{source="shop",component="source",status="failed"} 0"#,
            r#"figvine_source_lag_seconds{source="shop"} 0.0"#,
            "figvine_ack_seconds_count",
            "figvine_build_info{version=",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
