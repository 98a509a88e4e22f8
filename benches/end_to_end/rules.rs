//! What rules cost: the same log without any, with twenty that are about another table, with twenty that are about its own; and
//! with wholes whose parts are looked up.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use figvine_sandbox::{Nats, NatsOptions, Postgres, PostgresOptions};

use crate::{DATABASE, Figures, NARROW, Outcome, SourceProcess, configuration, copy_slot, measure};

/// A log that is drained with one set of rules after the other.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    rows: u64,
    tables: &'static str,
    load: &'static str,
    /// Of each program its rules.
    sets: fn() -> [(&'static str, String); 3],
}

pub(crate) const WORKLOADS: [Workload; 2] = [
    Workload {
        name: "rules20",
        what: "100k transactions of 10 narrow inserts, without rules, with 20 of another table, with 20 of theirs",
        rows: 1_000_000,
        tables: NARROW,
        load: "do $$ begin for i in 0..99999 loop
                 insert into load select i * 10 + g, i, 'name ' || i, now() from generate_series(0, 9) g; commit;
               end loop; end $$",
        sets: || {
            [
                ("no rules", rules(None)),
                ("20 elsewhere", rules(Some("public.other"))),
                ("20 rules", rules(Some("public.load"))),
            ]
        },
    },
    Workload {
        name: "lookups",
        what: "50k transactions that change an order, without rules, told as wholes, with their 3 lines looked up of 30k",
        rows: 50_000,
        tables: "create table load(id int primary key, n int);
                 create table lines(id int primary key, order_id int not null, sku text);
                 create index on lines(order_id);
                 insert into load select g, 0 from generate_series(1, 10000) g;
                 insert into lines select 10 * o + l, o, 'sku ' || l from generate_series(1, 10000) o, generate_series(1, 3) l",
        load: "do $$ begin for i in 0..49999 loop
                 update load set n = n + 1 where id = 1 + (i * 7919) % 10000; commit;
               end loop; end $$",
        sets: || [("no rules", String::new()), ("wholes", wholes(false)), ("looked up", wholes(true))],
    },
];

const RULES: u32 = 20;
/// Each program drains the log so often, in turns; its middle figures are told.
const ROUNDS: usize = 3;

/// One rule that tells orders with their lines, beside their changes.
fn wholes(lookup: bool) -> String {
    format!(
        "    rules: [{{ type: changed, from: public.load, aggregate: {{ include: [{{ table: lines, on: order_id, lookup: {lookup} }}] }} }}]\n"
    )
}

/// The rules of one round: none, or twenty over a table. Each looks at two or three columns and matches no row, so that all
/// rounds store the same events.
fn rules(table: Option<&str>) -> String {
    let Some(table) = table else { return String::new() };
    let mut text = "    rules:\n".to_owned();
    for number in 0..RULES {
        let when = match number % 4 {
            0 => format!("after.a >= 0 && after.b == 'nobody {number}'"),
            1 => format!("after.id < 0 || after.a == -{number}"),
            2 => format!("after.b.startsWith('x{number}') || after.c == null"),
            _ => format!("after.a % 7 == 3 && after.b.endsWith('-{number}')"),
        };
        let _ = writeln!(text, "      - {{ type: rule_{number}, from: {table}, when: \"{when}\" }}");
    }
    text
}

/// Drains the log with each set of rules.
pub(crate) async fn drain(workload: &Workload) -> Outcome<Vec<Figures>> {
    let settings = [("max_wal_size", "16GB"), ("shared_buffers", "512MB"), ("checkpoint_timeout", "1h")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let postgres = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await?;
    let client = postgres.connect(DATABASE).await?;
    client.batch_execute(workload.tables).await?;
    client.batch_execute("create publication load for tables in schema public").await?;
    client.query("select pg_create_logical_replication_slot('base', 'pgoutput')", &[]).await?;
    client.batch_execute(workload.load).await?;

    let sets = (workload.sets)();
    let mut all: [Vec<Figures>; 3] = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for (place, ((program, rules), figures)) in sets.iter().zip(&mut all).enumerate() {
            let nats = Nats::start(NatsOptions::default()).await?;
            let home = tempfile::tempdir()?;
            let config = home.path().join("figvine.yaml");
            let slot = format!("drain_{round}_{place}");
            copy_slot(&client, &slot).await?;
            let more = format!("publication: load, publication_managed: false, slot: {slot}, ");
            fs::write(&config, configuration(&postgres, &nats, &more) + rules)?;
            let mut figvine = Command::new(env!("CARGO_BIN_EXE_figvine"));
            figvine.arg("-c").arg(&config).args(["run", "--until", "now"]);
            figvine.stderr(fs::File::create(home.path().join("log"))?);
            let source = SourceProcess::Walsender(&client);
            figures.push(measure(workload.name, workload.rows, program, figvine, source, &nats).await?);
            client.query("select pg_drop_replication_slot($1)", &[&slot]).await?;
        }
    }
    let mut told = Vec::new();
    for mut figures in all {
        figures.sort_by(|a, b| a.rows_per_s.total_cmp(&b.rows_per_s));
        let mut middle = figures.swap_remove(ROUNDS / 2);
        let without = told.first().map_or(middle.rows_per_s, |first: &Figures| first.rows_per_s);
        middle.ratio_to_limit = Some(middle.rows_per_s / without);
        told.push(middle);
    }
    Ok(told)
}
