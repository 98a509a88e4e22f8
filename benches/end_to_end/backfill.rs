//! Existing rows of PostgreSQL, beside events that are made in memory.

use std::fs;
use std::process::Command;

use async_nats::jetstream;
use figvine_sandbox::{Nats, NatsOptions, Postgres, PostgresOptions};

use crate::{DATABASE, Figures, NARROW, Outcome, SourceProcess, configuration, measure};

/// What is read.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    rows: u64,
}

pub(crate) const WORKLOADS: [Workload; 2] = [
    Workload { name: "rows", what: "a backfill of 1M narrow rows", rows: 1_000_000 },
    Workload { name: "rows10m", what: "a backfill of 10M narrow rows", rows: 10_000_000 },
];

/// Fills a table and reads it, beside rows that come from nowhere.
pub(crate) async fn read(workload: &Workload) -> Outcome<Vec<Figures>> {
    let settings = [("max_wal_size", "16GB"), ("shared_buffers", "1GB"), ("checkpoint_timeout", "1h")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let postgres = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await?;
    let nats = Nats::start(NatsOptions::default()).await?;
    let client = postgres.connect(DATABASE).await?;
    client.batch_execute(NARROW).await?;
    let rows = workload.rows;
    let fill = format!(
        "insert into load select g, g, 'name ' || g, now() from generate_series(1, {rows}) g; vacuum analyze load"
    );
    for statement in fill.split("; ") {
        client.batch_execute(statement).await?;
    }
    let home = tempfile::tempdir()?;
    let config = home.path().join("figvine.yaml");
    let text = configuration(&postgres, &nats, "");

    fs::write(&config, text.replace("  load:\n", "  made:\n"))?;
    let mut limit = Command::new(std::env::current_exe()?);
    limit.arg("--make").arg(&config).arg(rows.to_string()).arg("1000");
    let mut limit = measure(workload.name, rows, "made in memory", limit, SourceProcess::None, &nats).await?;
    limit.ratio_to_limit = Some(1.0);

    fs::write(&config, text + "    initial: backfill\n")?;
    let mut figvine = Command::new(env!("CARGO_BIN_EXE_figvine"));
    figvine.arg("-c").arg(&config).args(["run", "--until", "now"]);
    figvine.stderr(fs::File::create(home.path().join("log"))?);
    // Backends come and go: their time is not told apart.
    let mut figures = measure(workload.name, rows, "figvine", figvine, SourceProcess::None, &nats).await?;
    figures.ratio_to_limit = Some(figures.rows_per_s / limit.rows_per_s);
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    for name in ["FIGVINE_MADE", "FIGVINE_LOAD"] {
        let stored = context.get_stream(name).await?.info().await?.state.messages;
        if stored != rows {
            return Err(format!("{}: {stored} of {rows} rows are in {name}", workload.name).into());
        }
    }
    Ok(vec![limit, figures])
}
