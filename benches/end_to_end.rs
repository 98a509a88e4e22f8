//! End to end, beside what the machine can do at most.
//!
//! Each workload is loaded once. Then the same log is drained by `pg_recvlogical`
//! (pgoutput, to nothing: the limit that the server itself sets) and by Figvine
//! (into a JetStream stream on disk, all acknowledged), in one run. MySQL and MariaDB send
//! their log faster than JetStream takes events: there the limit is what comes into the
//! stream when no source is read at all. Times swing on a shared machine; ratios and CPU
//! time per row do not.
//!
//! ```text
//! make bench
//! make bench ARGS="--workload narrow10 --workload latency"
//! ```

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use figvine_sandbox::{Nats, NatsOptions, Postgres, PostgresOptions};
use nix::sys::resource::{UsageWho, getrusage};
use tokio_postgres::Client;

mod end_to_end {
    pub(crate) mod backfill;
    pub(crate) mod latency;
    pub(crate) mod made;
    pub(crate) mod mysql;
    pub(crate) mod rules;
}

use end_to_end::{backfill, latency, made, mysql, rules};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const DATABASE: &str = "postgres";
/// How often processes are looked at while they run.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Clock ticks of `/proc/PID/stat`, per second: USER_HZ, 100 on all Linux machines.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is drained.
struct Workload {
    name: &'static str,
    what: &'static str,
    rows: u64,
    /// Makes the table.
    table: &'static str,
    /// What is there before the slot is.
    before: &'static str,
    /// What is drained.
    load: &'static str,
    /// Whether `pg_recvlogical` drains it too.
    has_limit: bool,
}

const NARROW: &str = "create table load(id bigint primary key, a int, b text, c timestamptz)";

const WORKLOADS: [Workload; 5] = [
    Workload {
        name: "narrow10",
        what: "100k transactions of 10 narrow inserts",
        rows: 1_000_000,
        table: NARROW,
        before: "",
        load: "do $$ begin for i in 0..99999 loop
                 insert into load select i * 10 + g, i, 'name ' || i, now() from generate_series(0, 9) g; commit;
               end loop; end $$",
        has_limit: true,
    },
    Workload {
        name: "onetx",
        what: "1M narrow inserts in one transaction",
        rows: 1_000_000,
        table: NARROW,
        before: "",
        load: "insert into load select g, g, 'name ' || g, now() from generate_series(1, 1000000) g",
        has_limit: true,
    },
    Workload {
        name: "update10",
        what: "50k transactions of 10 updates",
        rows: 500_000,
        table: NARROW,
        before: "insert into load select g, g, 'name ' || g, now() from generate_series(0, 499999) g",
        load: "do $$ begin for i in 0..49999 loop
                 update load set a = a + 1, c = now() where id between i * 10 and i * 10 + 9; commit;
               end loop; end $$",
        has_limit: true,
    },
    Workload {
        name: "wide",
        what: "1M inserts of about 1 kB, 100 in a transaction",
        rows: 1_000_000,
        table: "create table load(id bigint primary key, a int, b text, c timestamptz, d numeric(12,2), e uuid, f text, g text)",
        before: "",
        load: "do $$ begin for i in 0..9999 loop
                 insert into load select i * 100 + n, i, 'name ' || i, now(), i * 1.25, gen_random_uuid(),
                                         repeat(md5(n::text), 14), repeat(md5(i::text), 14) from generate_series(0, 99) n; commit;
               end loop; end $$",
        has_limit: true,
    },
    Workload {
        name: "onetx10m",
        what: "10M narrow inserts in one transaction, for its memory",
        rows: 10_000_000,
        table: NARROW,
        before: "",
        load: "insert into load select g, g, 'name ' || g, now() from generate_series(1, 10000000) g",
        has_limit: false,
    },
];

/// What one program did with one workload.
#[derive(serde::Serialize)]
struct Figures {
    workload: &'static str,
    program: &'static str,
    rows: u64,
    seconds: f64,
    rows_per_s: f64,
    own_cpu_us_per_row: f64,
    source_cpu_us_per_row: f64,
    broker_cpu_us_per_row: f64,
    peak_rss_mib: f64,
    /// Its rate by the limit's; 1 for the limit itself.
    ratio_to_limit: Option<f64>,
}

fn main() -> Outcome<()> {
    let mut wanted = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--workload" => wanted.push(args.next().ok_or("--workload needs a name")?),
            // Of this bench to itself: a limit is measured like a program.
            "--make" => {
                let mut next = || args.next().ok_or("--make needs a configuration, rows, and rows per transaction");
                let (config, rows, per_transaction) = (next()?, next()?.parse()?, next()?.parse()?);
                let made = made::publish(Path::new(&config), rows, per_transaction);
                return tokio::runtime::Runtime::new()?.block_on(Box::pin(made));
            }
            // Cargo's own, and what others of this project's benches know.
            "--bench" | "--peers" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let others = mysql::WORKLOADS.iter().map(|w| w.name).chain(backfill::WORKLOADS.iter().map(|w| w.name));
    let others = others.chain(rules::WORKLOADS.iter().map(|w| w.name));
    let names = WORKLOADS.iter().map(|w| w.name).chain(others).chain(latency::WORKLOADS.iter().map(|w| w.name));
    let names: Vec<_> = names.collect();
    if let Some(unknown) = wanted.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(format!("no workload {unknown}; there are {}", names.join(" ")).into());
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut results = Vec::new();
        for workload in WORKLOADS.iter().filter(|w| is_wanted(w.name)) {
            say(&format!("{}: {}", workload.name, workload.what));
            for figures in Box::pin(drain(workload)).await? {
                results.push(serde_json::to_value(figures)?);
            }
        }
        for workload in mysql::WORKLOADS.iter().filter(|w| is_wanted(w.name)) {
            say(&format!("{}: {}", workload.name, workload.what));
            for figures in Box::pin(mysql::drain(workload)).await? {
                results.push(serde_json::to_value(figures)?);
            }
        }
        for workload in backfill::WORKLOADS.iter().filter(|w| is_wanted(w.name)) {
            say(&format!("{}: {}", workload.name, workload.what));
            for figures in Box::pin(backfill::read(workload)).await? {
                results.push(serde_json::to_value(figures)?);
            }
        }
        for workload in rules::WORKLOADS.iter().filter(|w| is_wanted(w.name)) {
            say(&format!("{}: {}", workload.name, workload.what));
            for figures in Box::pin(rules::drain(workload)).await? {
                results.push(serde_json::to_value(figures)?);
            }
        }
        for workload in latency::WORKLOADS.iter().filter(|w| is_wanted(w.name)) {
            say(&format!("{}: {}", workload.name, workload.what));
            for latency in Box::pin(latency::measure(workload)).await? {
                results.push(serde_json::to_value(latency)?);
            }
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("results.json"), serde_json::to_vec_pretty(&results)?)?;
        print(&table(&results));
        Ok(())
    })
}

/// Loads a workload and drains it by each program.
async fn drain(workload: &Workload) -> Outcome<Vec<Figures>> {
    let settings = [("max_wal_size", "16GB"), ("shared_buffers", "512MB"), ("checkpoint_timeout", "1h")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let postgres = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await?;
    let nats = Nats::start(NatsOptions::default()).await?;
    let client = postgres.connect(DATABASE).await?;
    client.batch_execute(workload.table).await?;
    client.batch_execute(workload.before).await?;
    client.batch_execute("create publication load for table load").await?;
    client.query("select pg_create_logical_replication_slot('base', 'pgoutput')", &[]).await?;
    client.batch_execute(workload.load).await?;
    let end: String = client.query_one("select pg_current_wal_lsn()::text", &[]).await?.get(0);

    let mut all = Vec::new();
    if workload.has_limit {
        copy_slot(&client, "limit").await?;
        let mut limit = Command::new("pg_recvlogical");
        limit.args(["--host", "127.0.0.1", "--username", "postgres", "--dbname", DATABASE, "--port"]);
        limit.arg(postgres.port().to_string());
        limit.args(["--slot", "limit", "--start", "--file", "/dev/null", "--endpos", &end]);
        limit.args(["-o", "proto_version=1", "-o", "publication_names=load"]);
        all.push(
            measure(workload.name, workload.rows, "pg_recvlogical", limit, SourceProcess::Walsender(&client), &nats)
                .await?,
        );
    }
    copy_slot(&client, "figvine_load").await?;
    let home = tempfile::tempdir()?;
    let config = home.path().join("figvine.yaml");
    fs::write(&config, configuration(&postgres, &nats, "publication: load, publication_managed: false, "))?;
    let mut figvine = Command::new(env!("CARGO_BIN_EXE_figvine"));
    figvine.arg("-c").arg(&config).args(["run", "--until", "now"]).stderr(fs::File::create(home.path().join("log"))?);
    let source = SourceProcess::Walsender(&client);
    let mut figures = measure(workload.name, workload.rows, "figvine", figvine, source, &nats).await?;
    figures.ratio_to_limit = all.first().map(|limit| figures.rows_per_s / limit.rows_per_s);
    if let Some(limit) = all.first_mut() {
        limit.ratio_to_limit = Some(1.0);
    }
    all.push(figures);
    let mut stream = jetstream::new(async_nats::connect(nats.url()).await?).get_stream("FIGVINE_LOAD").await?;
    let stored = stream.info().await?.state.messages;
    if stored != workload.rows {
        return Err(format!("{}: {stored} of {} rows are in the stream", workload.name, workload.rows).into());
    }
    Ok(all)
}

fn configuration(postgres: &Postgres, nats: &Nats, more: &str) -> String {
    format!(
        "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  load:\n    postgres: {{ {more}url: \"{}\" }}\n    tables: [\"public.*\"]\n",
        nats.url(),
        postgres.url(DATABASE)
    )
}

async fn copy_slot(client: &Client, name: &str) -> Outcome<()> {
    client.query("select pg_copy_logical_replication_slot('base', $1)", &[&name]).await?;
    Ok(())
}

/// The process that the log comes from.
enum SourceProcess<'a> {
    /// PostgreSQL's that this client finds: there is one for each reader.
    Walsender(&'a Client),
    /// The whole server.
    Server(u32),
    None,
}

/// Runs a program to its end and looks at everybody's CPU time.
async fn measure(
    workload: &'static str,
    rows: u64,
    program: &'static str,
    mut command: Command,
    source: SourceProcess<'_>,
    nats: &Nats,
) -> Outcome<Figures> {
    let nats_pid = nats.pid().ok_or("nats-server does not run")?;
    let broker_before = cpu_seconds(nats_pid).unwrap_or_default();
    let own_before = children_cpu_seconds()?;
    let began = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let (mut source_pid, source_before) = match source {
        SourceProcess::Server(pid) => (Some(pid), cpu_seconds(pid).unwrap_or_default()),
        SourceProcess::Walsender(_) | SourceProcess::None => (None, 0.0),
    };
    let (mut source_cpu, mut peak_rss_mib) = (0.0_f64, 0.0_f64);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if let (None, SourceProcess::Walsender(client)) = (source_pid, &source) {
            let query = "select active_pid from pg_replication_slots where active_pid is not null";
            source_pid = client.query_opt(query, &[]).await?.map(|row| row.get::<_, i32>(0).unsigned_abs());
        }
        let used = source_pid.and_then(cpu_seconds).map(|used| used - source_before);
        source_cpu = used.unwrap_or(source_cpu).max(source_cpu);
        peak_rss_mib = peak_mib(child.id()).unwrap_or(peak_rss_mib).max(peak_rss_mib);
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let seconds = began.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("{program} ended with {status} on {workload}").into());
    }
    let broker_cpu = cpu_seconds(nats_pid).unwrap_or_default() - broker_before;
    #[expect(clippy::cast_precision_loss, reason = "millions of rows are exact")]
    let count = rows as f64;
    let per_row = |cpu: f64| cpu * 1e6 / count;
    Ok(Figures {
        workload,
        program,
        rows,
        seconds,
        rows_per_s: count / seconds,
        own_cpu_us_per_row: per_row(children_cpu_seconds()? - own_before),
        source_cpu_us_per_row: per_row(source_cpu),
        broker_cpu_us_per_row: if program == "pg_recvlogical" { 0.0 } else { per_row(broker_cpu) },
        peak_rss_mib,
        ratio_to_limit: None,
    })
}

/// CPU time, user and system, of the children that have ended.
fn children_cpu_seconds() -> Outcome<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    #[expect(clippy::cast_precision_loss, reason = "seconds and microseconds are small")]
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// CPU time, user and system, of a running process: fields 14 and 15 of its `stat`, see proc(5).
fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; behind it stands field 3.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// The most memory that a process has held.
fn peak_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

fn table(results: &[serde_json::Value]) -> String {
    let mut out = String::new();
    let head = ["workload", "program", "rows/s", "own us/row", "source us/row", "broker us/row", "RSS MiB", "of limit"];
    let _ = writeln!(
        out,
        "\n{:<13} {:<15} {:>10} {:>11} {:>14} {:>14} {:>8} {:>9}",
        head[0], head[1], head[2], head[3], head[4], head[5], head[6], head[7]
    );
    for one in results {
        let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| one[name].as_f64().unwrap_or_default();
        if one.get("p99_ms").is_some() {
            let _ = writeln!(
                out,
                "{:<13} {:<15} {:.0} transactions/s: commit to stored {:.2} ms median, {:.2} ms p99, {:.2} ms at most",
                text("workload"),
                text("program"),
                number("transactions_per_s"),
                number("median_ms"),
                number("p99_ms"),
                number("max_ms")
            );
            if let Some(ratio) = one["p99_by_quiet"].as_f64() {
                let rows = number("rows_per_s");
                let _ = writeln!(
                    out,
                    "{:<29} {rows:.0} existing rows/s beside them; p99 is {ratio:.2} times that without",
                    ""
                );
            }
            continue;
        }
        let ratio = one["ratio_to_limit"].as_f64().map_or("-".into(), |ratio| format!("{ratio:.2}"));
        let _ = writeln!(
            out,
            "{:<13} {:<15} {:>10.0} {:>11.2} {:>14.2} {:>14.2} {:>8.1} {ratio:>9}",
            text("workload"),
            text("program"),
            number("rows_per_s"),
            number("own_cpu_us_per_row"),
            number("source_cpu_us_per_row"),
            number("broker_cpu_us_per_row"),
            number("peak_rss_mib"),
        );
    }
    out
}

#[expect(clippy::print_stdout, reason = "a bench's results")]
fn print(text: &str) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "a bench's progress")]
fn say(text: &str) {
    eprintln!("{text}");
}
