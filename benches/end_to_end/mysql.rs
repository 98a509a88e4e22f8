//! MySQL and MariaDB: their logs beside events that are made in memory.

use std::fs;
use std::ops::Deref;
use std::process::Command;

use async_nats::jetstream;
use figvine_sandbox::mysql_async::prelude::Queryable as _;
use figvine_sandbox::{MariaDb, MySql, MySqlOptions, Mysqld, Nats, NatsOptions};

use crate::{Figures, Outcome, SourceProcess, measure};

/// What is drained.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    server: Server,
    rows: u64,
    per_transaction: u64,
    load: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    MySql,
    MySqlCompressed,
    MariaDb,
}

impl Server {
    /// Its name in the configuration and in URLs.
    fn name(self) -> &'static str {
        match self {
            Self::MySql | Self::MySqlCompressed => "mysql",
            Self::MariaDb => "mariadb",
        }
    }
}

const TEN_BY_TEN: &str = "create procedure bench.fill() begin
    declare i int default 0;
    while i < 100000 do
        insert into bench.narrow select i * 10 + n, i, concat('name ', i), now(6) from bench.digits;
        set i = i + 1;
    end while; end";
const MILLION: &str = "create procedure bench.fill() insert into bench.narrow
    select a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n + 100000 * f.n, a.n, concat('name ', b.n), now(6)
    from bench.digits f, bench.digits e, bench.digits d, bench.digits c, bench.digits b, bench.digits a";
const TEN_MILLION: &str = "create procedure bench.fill() insert into bench.narrow
    select a.n + 10 * b.n + 100 * c.n + 1000 * d.n + 10000 * e.n + 100000 * f.n + 1000000 * g.n, a.n,
        concat('name ', b.n), now(6)
    from bench.digits g, bench.digits f, bench.digits e, bench.digits d, bench.digits c, bench.digits b, bench.digits a";

pub(crate) const WORKLOADS: [Workload; 7] = [
    Workload {
        name: "mysql10",
        what: "100k transactions of 10 narrow inserts",
        server: Server::MySql,
        rows: 1_000_000,
        per_transaction: 10,
        load: TEN_BY_TEN,
    },
    Workload {
        name: "mysqlonetx",
        what: "1M narrow inserts in one transaction",
        server: Server::MySql,
        rows: 1_000_000,
        per_transaction: 1_000_000,
        load: MILLION,
    },
    Workload {
        name: "mysqlonetx10m",
        what: "10M narrow inserts in one transaction, for its memory",
        server: Server::MySql,
        rows: 10_000_000,
        per_transaction: 10_000_000,
        load: TEN_MILLION,
    },
    Workload {
        name: "mysqlzstd10m",
        what: "the same, compressed by the server",
        server: Server::MySqlCompressed,
        rows: 10_000_000,
        per_transaction: 10_000_000,
        load: TEN_MILLION,
    },
    Workload {
        name: "mariadb10",
        what: "100k transactions of 10 narrow inserts",
        server: Server::MariaDb,
        rows: 1_000_000,
        per_transaction: 10,
        load: TEN_BY_TEN,
    },
    Workload {
        name: "mysqlrows",
        what: "a backfill of 1M narrow rows",
        server: Server::MySql,
        rows: 1_000_000,
        per_transaction: 1000,
        load: MILLION,
    },
    Workload {
        name: "mariadbrows",
        what: "a backfill of 1M narrow rows",
        server: Server::MariaDb,
        rows: 1_000_000,
        per_transaction: 1000,
        load: MILLION,
    },
];

impl Workload {
    /// Rows that are there are read, not what the log tells.
    fn is_backfill(&self) -> bool {
        self.name.ends_with("rows")
    }
}

/// Loads a workload and drains it, beside rows that come from nowhere.
pub(crate) async fn drain(workload: &Workload) -> Outcome<Vec<Figures>> {
    let settings = [
        ("innodb_buffer_pool_size", "1G"),
        ("innodb_flush_log_at_trx_commit", "0"),
        ("sync_binlog", "0"),
        ("max_binlog_size", "1G"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let options = MySqlOptions { settings, ..MySqlOptions::default() };
    if workload.server == Server::MariaDb {
        drain_from(workload, MariaDb::start(options).await?).await
    } else {
        drain_from(workload, MySql::start(options).await?).await
    }
}

async fn drain_from(workload: &Workload, server: impl Deref<Target = Mysqld>) -> Outcome<Vec<Figures>> {
    let nats = Nats::start(NatsOptions::default()).await?;
    let mut client = server.connect("").await?;
    client.query_drop("create database bench").await?;
    client.query_drop("create table bench.digits(n int primary key)").await?;
    client.query_drop("insert into bench.digits values (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)").await?;
    let table = "create table bench.narrow(id bigint primary key, a int, b varchar(100), c datetime(6))";
    client.query_drop(table).await?;
    client.query_drop(workload.load).await?;

    let home = tempfile::tempdir()?;
    let config = home.path().join("figvine.yaml");
    let write_config = |source: &str| {
        let engine = workload.server.name();
        let url = format!("{engine}://root@127.0.0.1:{}/bench", server.port());
        let text = format!(
            "nats: {{ url: \"{}\" }}\nhttp: {{ listen: off }}\nsources:\n  {source}:\n    {engine}: {{ url: \"{url}\" }}\n    tables: [bench.narrow]\n{}",
            nats.url(),
            if workload.is_backfill() { "    initial: backfill\n" } else { "" }
        );
        fs::write(&config, text)
    };
    let figvine = || -> Outcome<Command> {
        let mut figvine = Command::new(env!("CARGO_BIN_EXE_figvine"));
        figvine.arg("-c").arg(&config).args(["run", "--until", "now"]);
        figvine.stderr(fs::File::create(home.path().join("log"))?);
        Ok(figvine)
    };
    write_config("load")?;
    // The first run begins where the log ends, and keeps that place.
    if !workload.is_backfill() && !tokio::process::Command::from(figvine()?).status().await?.success() {
        return Err(format!("figvine did not start: {}", fs::read_to_string(home.path().join("log"))?).into());
    }
    if workload.server == Server::MySqlCompressed {
        client.query_drop("set binlog_transaction_compression = on").await?;
    }
    client.query_drop("call bench.fill()").await?;

    write_config("made")?;
    let mut limit = Command::new(std::env::current_exe()?);
    limit.arg("--make").arg(&config).arg(workload.rows.to_string()).arg(workload.per_transaction.to_string());
    let mut limit = measure(workload.name, workload.rows, "made in memory", limit, SourceProcess::None, &nats).await?;
    limit.ratio_to_limit = Some(1.0);

    write_config("load")?;
    let source = SourceProcess::Server(*server.pids().first().ok_or("the server does not run")?);
    let mut figures = measure(workload.name, workload.rows, "figvine", figvine()?, source, &nats).await?;
    figures.ratio_to_limit = Some(figures.rows_per_s / limit.rows_per_s);
    let context = jetstream::new(async_nats::connect(nats.url()).await?);
    for name in ["FIGVINE_MADE", "FIGVINE_LOAD"] {
        let stored = context.get_stream(name).await?.info().await?.state.messages;
        if stored != workload.rows {
            return Err(format!("{}: {stored} of {} rows are in {name}", workload.name, workload.rows).into());
        }
    }
    Ok(vec![limit, figures])
}
