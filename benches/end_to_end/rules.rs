//! What rules cost: the same log without any, with twenty that are about another table, and with twenty that are about its own.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use figvine_sandbox::{Nats, NatsOptions, Postgres, PostgresOptions};

use crate::{DATABASE, Figures, NARROW, Outcome, SourceProcess, configuration, copy_slot, measure};

pub(crate) const NAME: &str = "rules20";
pub(crate) const WHAT: &str =
    "100k transactions of 10 narrow inserts, without rules, with 20 of another table, with 20 of theirs";

const ROWS: u64 = 1_000_000;
const RULES: u32 = 20;
/// Each program drains the log so often, in turns; its middle figures are told.
const ROUNDS: usize = 3;

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
pub(crate) async fn drain() -> Outcome<Vec<Figures>> {
    let settings = [("max_wal_size", "16GB"), ("shared_buffers", "512MB"), ("checkpoint_timeout", "1h")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let postgres = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await?;
    let client = postgres.connect(DATABASE).await?;
    client.batch_execute(NARROW).await?;
    client.batch_execute("create publication load for table load").await?;
    client.query("select pg_create_logical_replication_slot('base', 'pgoutput')", &[]).await?;
    let load = "do $$ begin for i in 0..99999 loop
                  insert into load select i * 10 + g, i, 'name ' || i, now() from generate_series(0, 9) g; commit;
                end loop; end $$";
    client.batch_execute(load).await?;

    let sets = [("no rules", None), ("20 elsewhere", Some("public.other")), ("20 rules", Some("public.load"))];
    let mut all: [Vec<Figures>; 3] = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for ((program, table), figures) in sets.iter().zip(&mut all) {
            let nats = Nats::start(NatsOptions::default()).await?;
            let home = tempfile::tempdir()?;
            let config = home.path().join("figvine.yaml");
            let slot = format!("drain_{round}_{}", figures.len() + 10 * usize::from(table.is_some()) + program.len());
            copy_slot(&client, &slot).await?;
            let more = format!("publication: load, publication_managed: false, slot: {slot}, ");
            fs::write(&config, configuration(&postgres, &nats, &more) + &rules(*table))?;
            let mut figvine = Command::new(env!("CARGO_BIN_EXE_figvine"));
            figvine.arg("-c").arg(&config).args(["run", "--until", "now"]);
            figvine.stderr(fs::File::create(home.path().join("log"))?);
            let source = SourceProcess::Walsender(&client);
            figures.push(measure(NAME, ROWS, program, figvine, source, &nats).await?);
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
