//! How long a change takes from its commit into the stream, alone and beside a backfill.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use figvine_sandbox::{Nats, NatsOptions, Postgres, PostgresOptions, wait_for};
use futures_util::StreamExt as _;
use tokio::task::JoinSet;

use crate::{DATABASE, LOOK_EVERY, NARROW, Outcome, configuration};

/// What is written, and what is read beside it.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Between two transactions of each writer.
    every: Duration,
    per_writer: u32,
    /// Rows that are there, and are backfilled in every second round.
    rows: u32,
}

/// Rounds without a backfill and with one, in turns: what else the machine does meets both. The pair in the middle is told.
const PAIRS: u32 = 5;

const WRITERS: u32 = 4;
/// Until the bridge reads, and until the stream has all.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) const WORKLOADS: [Workload; 2] = [
    Workload {
        name: "latency",
        what: "1000 transactions a second for 20 s",
        every: Duration::from_millis(4),
        per_writer: 5_000,
        rows: 0,
    },
    Workload {
        name: "latencyrows",
        what: "2000 transactions a second for 5 s, alone and beside a backfill of 3M rows, in turns, five times",
        every: Duration::from_millis(2),
        per_writer: 2_500,
        rows: 3_000_000,
    },
];

/// From commit to stored.
#[derive(serde::Serialize)]
pub(crate) struct Latency {
    workload: &'static str,
    program: &'static str,
    transactions: usize,
    transactions_per_s: f64,
    median_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// Existing rows a second beside them.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows_per_s: Option<f64>,
    /// The 99th percentile by that without a backfill.
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_by_quiet: Option<f64>,
}

/// Writes, and looks at the stream: once alone, and where rows are there once more beside their backfill.
pub(crate) async fn measure(workload: &Workload) -> Outcome<Vec<Latency>> {
    let settings = [("max_wal_size", "16GB"), ("shared_buffers", "512MB"), ("checkpoint_timeout", "1h")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let postgres = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await?;
    let nats = Nats::start(NatsOptions::default()).await?;
    let client = postgres.connect(DATABASE).await?;
    client.batch_execute(NARROW).await?;
    let rows = workload.rows;
    // Written rows have keys below 0.
    let fill = format!("insert into load select g, g, 'name ' || g, now() from generate_series(1, {rows}) g");
    client.batch_execute(&fill).await?;
    client.batch_execute("vacuum analyze load").await?;
    let home = tempfile::tempdir()?;
    let config = home.path().join("figvine.yaml");
    fs::write(&config, configuration(&postgres, &nats, ""))?;
    let figvine = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_figvine"));
        command.arg("-c").arg(&config).args(args);
        command
    };
    let mut command = figvine(&["run"]);
    command.stderr(fs::File::create(home.path().join("log"))?);
    let mut bridge = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
    let is_read = || async {
        let query = "select from pg_replication_slots where active_pid is not null";
        client.query_opt(query, &[]).await.ok().flatten()
    };
    wait_for("the bridge to read", DEADLINE, async || is_read().await).await?;
    let context = jetstream::new(async_nats::connect(nats.url()).await?);

    let mut first = -1;
    let mut next_first = || {
        let keys = i64::from(WRITERS * workload.per_writer);
        first -= keys;
        first + keys
    };
    if rows == 0 {
        let alone = round(workload, &postgres, &context, next_first(), "figvine").await?;
        bridge.kill().await?;
        return Ok(vec![alone]);
    }
    let ask = |args: &[&str]| -> Outcome<serde_json::Value> {
        let output = figvine(&[&["--output", "json", "backfill"][..], args].concat()).output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let mut id: Option<String> = None;
    let mut pairs = Vec::new();
    for _ in 0..PAIRS {
        let quiet = round(workload, &postgres, &context, next_first(), "figvine").await?;
        match &id {
            Some(id) => drop(ask(&["resume", id])?),
            None => {
                let started = wait_for("the backfill to begin", DEADLINE, async || {
                    let started = figvine(&["backfill", "start", "--tables", "public.load", "--detach"]).output();
                    started.is_ok_and(|output| output.status.success()).then_some(())
                });
                started.await?;
                id = ask(&["list"])?["backfills"][0]["id"].as_str().map(Into::into);
            }
        }
        let mut beside = round(workload, &postgres, &context, next_first(), "with backfill").await?;
        ask(&["pause", id.as_deref().ok_or("the backfill has no id")?])?;
        beside.p99_by_quiet = Some(beside.p99_ms / quiet.p99_ms);
        pairs.push([quiet, beside]);
    }
    bridge.kill().await?;
    pairs.sort_by(|[_, a], [_, b]| a.p99_by_quiet.partial_cmp(&b.p99_by_quiet).unwrap_or(std::cmp::Ordering::Equal));
    let ratios: Vec<_> = pairs.iter().filter_map(|[_, beside]| beside.p99_by_quiet).collect();
    crate::say(&format!("{}: p99 by that without a backfill, of each pair: {ratios:.2?}", workload.name));
    Ok(pairs.into_iter().nth(ratios.len() / 2).map(Vec::from).unwrap_or_default())
}

/// One round of writing: its keys go down from `first`.
async fn round(
    workload: &Workload,
    postgres: &Postgres,
    context: &jetstream::Context,
    first: i64,
    program: &'static str,
) -> Outcome<Latency> {
    let mut stream = context.get_stream("FIGVINE_LOAD").await?;
    let before = stream.info().await?.state.last_sequence;
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = postgres.connect(DATABASE).await?;
        let (every, per_writer) = (workload.every, workload.per_writer);
        writers.spawn(async move {
            let insert = client.prepare("insert into load values ($1, 1, 'name', now())").await?;
            let mut tick = tokio::time::interval(every);
            for n in 0..per_writer {
                tick.tick().await;
                client.execute(&insert, &[&(first - i64::from(writer * per_writer + n))]).await?;
            }
            Ok::<_, tokio_postgres::Error>(())
        });
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let seconds = began.elapsed().as_secs_f64();
    // Behind the last change stands nothing of interest.
    let until = stream.info().await?.state.last_sequence;
    let written = usize::try_from(WRITERS * workload.per_writer)?;
    let config = OrderedConfig {
        headers_only: true,
        deliver_policy: jetstream::consumer::DeliverPolicy::ByStartSequence { start_sequence: before + 1 },
        ..OrderedConfig::default()
    };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    let (mut took, mut rows) = (Vec::with_capacity(written), 0_u32);
    let deadline = Instant::now() + DEADLINE;
    while took.len() < written {
        if Instant::now() > deadline {
            return Err("not all transactions came into the stream".into());
        }
        let Ok(next) = tokio::time::timeout(LOOK_EVERY, messages.next()).await else { continue };
        let message = next.ok_or("the stream ended")??;
        let header = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name));
        let kind = header("ce-type").ok_or("an event without ce-type")?.as_str();
        let info = message.info().map_err(|e| e.to_string())?;
        if kind.ends_with(".read") {
            rows += u32::from(info.stream_sequence <= until);
            continue;
        }
        let stored_ns = info.published.unix_timestamp_nanos();
        let committed = header("ce-time").ok_or("an event without ce-time")?;
        let committed_ns = committed.as_str().parse::<jiff::Timestamp>()?.as_nanosecond();
        #[expect(clippy::cast_precision_loss, reason = "milliseconds are small")]
        took.push((stored_ns - committed_ns) as f64 / 1e6);
    }
    took.sort_by(f64::total_cmp);
    let at = |share: usize| took.get(took.len() * share / 1000).copied().unwrap_or_default();
    #[expect(clippy::cast_precision_loss, reason = "thousands are exact")]
    let transactions_per_s = took.len() as f64 / seconds;
    Ok(Latency {
        workload: workload.name,
        program,
        transactions: took.len(),
        transactions_per_s,
        median_ms: at(500),
        p99_ms: at(990),
        max_ms: took.last().copied().unwrap_or_default(),
        rows_per_s: (rows > 0).then(|| f64::from(rows) / seconds),
        p99_by_quiet: None,
    })
}
